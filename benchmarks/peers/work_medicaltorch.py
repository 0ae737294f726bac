"""MedicalTorch 0.2: its U-Net, loss, dataset and transforms, in the loop of its examples/gmchallenge_unet.py."""

from __future__ import annotations

import math

import numpy as np
import torch

from peers import old_torchvision
from peers.child import Job, begin, network_size

old_torchvision.install()

from medicaltorch import datasets, filters, losses, models, transforms  # noqa: E402

BATCH, RATE, THRESHOLD = 16, 1e-3, 0.999  # the example's


def main() -> None:
    """Trains until the time is up."""
    job, recorder = begin()
    size = (job.side_px, job.side_px)
    changes = old_torchvision.Compose(
        [
            transforms.CenterCrop2D(size),
            transforms.ElasticTransform(alpha_range=(28.0, 30.0), sigma_range=(3.5, 4.0), p=0.3),
            transforms.RandomAffine(degrees=4.6, scale=(0.98, 1.02), translate=(0.03, 0.03)),
            transforms.RandomTensorChannelShift((-0.10, 0.10)),
            transforms.ToTensor(),
            transforms.NormalizeInstance(),
        ]
    )
    pairs = [(str(job.file("brain", case)), str(job.file("mask", case))) for case in job.train]
    training = datasets.MRI2DSegmentationDataset(pairs, transform=changes, slice_filter_fn=filters.SliceFilter())
    loader = torch.utils.data.DataLoader(
        training, BATCH, shuffle=True, num_workers=1, collate_fn=datasets.mt_collate, worker_init_fn=reseed
    )
    model = models.Unet(drop_rate=0.4, bn_momentum=0.1)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    recorder.start()
    while not recorder.over:
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * recorder.share))
        model.train()
        for batch in loader:
            loss = losses.dice_loss(model(batch["input"]), batch["gt"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(len(batch["input"]), loss.item())
            if recorder.due:
                recorder.point(lambda: outlined(job, model))
            if recorder.over:
                break
    about = network_size(model, 1, job.side_px)
    recorder.finish(("medicaltorch", "torch", "numpy", "scipy", "pillow"), image_px=size[0], batch=BATCH, **about)


def reseed(worker: int) -> None:
    """Its transforms draw from NumPy's global generator, which every forked worker would start alike, every epoch."""
    np.random.seed(torch.initial_seed() % 2**32)


def outlined(job: Job, model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Masks of the held-out scans."""
    size = (job.side_px, job.side_px)
    steps = [transforms.CenterCrop2D(size, labeled=False), transforms.ToTensor(labeled=False)]
    changes = old_torchvision.Compose([*steps, transforms.NormalizeInstance()])
    masks = {}
    model.eval()
    for case in job.test:
        pair = [(str(job.file("brain", case)), None)]
        scan = datasets.MRI2DSegmentationDataset(pair, transform=changes)
        loader = torch.utils.data.DataLoader(scan, BATCH, collate_fn=datasets.mt_collate)
        with torch.no_grad():
            predicted = torch.cat([model(batch["input"])[:, 0] for batch in loader]).numpy() >= THRESHOLD
        shape = scan.handlers[0].get_pair_shapes()[0]
        masks[case] = uncropped(predicted, shape[:2]).transpose(0, 2, 1)
    model.train()
    return masks


def uncropped(predicted: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(slices, ...) of the middle crop back in images of that shape."""
    out = np.zeros((len(predicted), *shape), predicted.dtype)
    ours, theirs = [], []
    for whole, cut in zip(shape, predicted.shape[1:], strict=True):
        start = round((whole - cut) / 2)
        ours.append(slice(max(0, start), min(whole, start + cut)))
        theirs.append(slice(max(0, -start), max(0, -start) + ours[-1].stop - ours[-1].start))
    out[:, ours[0], ours[1]] = predicted[:, theirs[0], theirs[1]]
    return out


if __name__ == "__main__":
    main()
