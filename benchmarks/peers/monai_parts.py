"""MONAI's parts, as in its CT tutorial (3d_segmentation/spleen_segmentation_3d), for slices: used by two contenders."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, Dataset, decollate_batch, list_data_collate
from monai.inferers import SliceInferer
from monai.losses import DiceCELoss, DiceLoss
from monai.networks.layers import Norm
from monai.networks.nets import UNet
from monai.transforms import (
    AsDiscreted,
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Orientationd,
    RandCropByPosNegLabeld,
    ScaleIntensityRanged,
    Spacingd,
    SqueezeDimd,
)

from peers.child import Job

CROP_PX, SAMPLES, VOLUMES = 96, 4, 2  # the tutorial's: 4 crops of each of 2 volumes make a batch
WINDOW_PX, WINDOW_BATCH = 160, 4
BATCH = SAMPLES * VOLUMES


def network() -> UNet:
    """The tutorial's, with two spatial dimensions instead of three."""
    return UNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=2,
        channels=(16, 32, 64, 128, 256),
        strides=(2, 2, 2, 2),
        num_res_units=2,
        norm=Norm.BATCH,
    )


def loss(name: str) -> torch.nn.Module:
    """DiceLoss or DiceCELoss."""
    return {"DiceLoss": DiceLoss, "DiceCELoss": DiceCELoss}[name](to_onehot_y=True, softmax=True)


def upright(keys: list[str], pixel_mm: float) -> list[Any]:
    """The steps before anything random, cached; slices keep their distance."""
    modes = ["bilinear", "nearest"][: len(keys)]
    return [
        LoadImaged(keys=keys),
        EnsureChannelFirstd(keys=keys),
        ScaleIntensityRanged(keys=["image"], a_min=-20, a_max=100, b_min=0.0, b_max=1.0, clip=True),
        CropForegroundd(keys=keys, source_key="image", allow_smaller=True),
        Orientationd(keys=keys, axcodes="RAS", labels=None),
        Spacingd(keys=keys, pixdim=(pixel_mm, pixel_mm, -1.0), mode=modes),
    ]


def training_loader(job: Job) -> DataLoader:
    """Batches {"image", "label"} of (8, 1, 96, 96)."""
    crop = RandCropByPosNegLabeld(
        keys=["image", "label"],
        label_key="label",
        spatial_size=(CROP_PX, CROP_PX, 1),
        pos=1,
        neg=1,
        num_samples=SAMPLES,
        image_key="image",
        image_threshold=0,
    )
    steps = [*upright(["image", "label"], job.pixel_mm), crop, SqueezeDimd(keys=["image", "label"], dim=-1)]
    files = [{"image": str(job.file("hu", case)), "label": str(job.file("mask", case))} for case in job.train]
    cached = CacheDataset(files, Compose(steps), cache_rate=1.0, num_workers=job.cores, progress=False)
    return DataLoader(
        cached,
        batch_size=VOLUMES,
        shuffle=True,
        num_workers=job.cores,
        persistent_workers=True,
        collate_fn=list_data_collate,
    )


@cache
def _held_out(job: Job) -> tuple[CacheDataset, Compose]:
    steps = Compose(upright(["image"], job.pixel_mm))
    back = Invertd(keys="pred", transform=steps, orig_keys="image", nearest_interp=False, to_tensor=True)
    files = [{"image": str(job.file("hu", case))} for case in job.test]
    return CacheDataset(files, steps, num_workers=job.cores, progress=False), Compose(
        [back, AsDiscreted(keys="pred", argmax=True)]
    )


def outlined(job: Job, net: torch.nn.Module) -> dict[str, np.ndarray]:
    """Masks of the held-out scans, in their own pixels."""
    scans, after = _held_out(job)
    inferer = SliceInferer(roi_size=(WINDOW_PX, WINDOW_PX), sw_batch_size=WINDOW_BATCH, spatial_dim=2)
    masks = {}
    net.eval()
    with torch.no_grad():
        for case, batch in zip(job.test, DataLoader(Dataset(scans), batch_size=1), strict=True):
            batch["pred"] = inferer(batch["image"], net)
            done = after(decollate_batch(batch)[0])
            masks[case] = np.asarray(done["pred"][0]).transpose(2, 1, 0)
    net.train()
    return masks
