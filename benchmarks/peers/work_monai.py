"""MONAI: the loop of its CT tutorial, with CacheDataset, its U-Net and its Dice losses."""

from __future__ import annotations

import torch
from monai.utils import set_determinism

from peers import monai_parts
from peers.child import begin, network_size


def main() -> None:
    """Trains until the time is up. Options: loss, rate."""
    job, recorder = begin()
    set_determinism(seed=job.seed)
    loader = monai_parts.training_loader(job)
    model = monai_parts.network()
    loss_function = monai_parts.loss(job.options["loss"])
    optimizer = torch.optim.Adam(model.parameters(), job.options["rate"])
    recorder.start()
    while not recorder.over:
        model.train()
        for batch in loader:
            inputs, labels = batch["image"], batch["label"]
            optimizer.zero_grad()
            loss = loss_function(model(inputs), labels)
            loss.backward()
            optimizer.step()
            recorder.step(len(inputs), loss.item())
            if recorder.due:
                recorder.point(lambda: monai_parts.outlined(job, model))
            if recorder.over:
                break
    about = network_size(model, 1, -(-job.side_px // 16) * 16)
    packages = ("monai", "torch", "numpy")
    recorder.finish(packages, image_px=monai_parts.CROP_PX, batch=monai_parts.BATCH, **about)


if __name__ == "__main__":
    main()
