"""Augmentation of whole batches on their own device.

What happens to a sample is a function of its key alone, (seed, epoch, step, place in the global batch): neither a
worker, nor a resume, nor the number of processes changes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hemotorch.hu import AIR_HU
from hemotorch.recipe import Augment

GAIN_CENTRE_HU = 40.0  #: brightness changes turn around the brain's own level, so that air and bone hardly matter
Key = tuple[int, ...]


def rng(*key: int) -> np.random.Generator:
    """A generator that is a function of its key. The length is part of it: SeedSequence drops trailing zeros."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((*key, len(key) + 1))))


def torch_seed(*key: int) -> int:
    """A 63-bit seed for torch that is a function of its key."""
    return int(np.random.SeedSequence((*key, len(key) + 1)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def augment(hu: Tensor, mask: Tensor, options: Augment, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
    """Cuts out, moves, brightens, roughens and blurs each sample.

    hu: (N, slices, H, W) HU; mask: (N, 1, H, W) of 0 and 1; keys: one a sample. Returns float32 tensors of the same
    shapes, or with rows and columns of `crop_px`; the mask stays 0 and 1.
    """
    hu, target = hu.float(), mask.float()
    height, width = hu.shape[2:]
    draws = [_draw(options, rng(*key), height / width) for key in keys]
    crop = options.crop_px if 0 < options.crop_px < min(height, width) else 0
    if crop or any(not np.array_equal(d["matrix"], _STILL) for d in draws):
        theta = torch.tensor(np.stack([d["matrix"] for d in draws]), dtype=torch.float32, device=hu.device)
        if crop:
            at = torch.tensor(np.stack([d["at"] for d in draws]), dtype=torch.float32, device=hu.device)
            theta = _cut(theta, target, crop, at)
        both = torch.cat([hu - AIR_HU, target], dim=1)
        shape = [*both.shape[:2], crop or height, crop or width]
        moved = F.grid_sample(both, F.affine_grid(theta, shape, align_corners=False), align_corners=False)
        hu, target = moved[:, :-1] + AIR_HU, (moved[:, -1:] >= 0.5).float()
    if options.gain or options.offset_hu:
        gain, offset = (_column(draws, name, hu) for name in ("gain", "offset"))
        hu = GAIN_CENTRE_HU + (hu - GAIN_CENTRE_HU) * gain + offset
    if options.noise_hu:
        hu = hu + _noise(hu, draws)
    if options.blur:
        smooth = F.avg_pool2d(F.pad(hu, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        hu = hu + _column(draws, "blur", hu) * (smooth - hu)
    return hu, target


def _cut(theta: Tensor, target: Tensor, crop: int, at: Tensor) -> Tensor:
    """The affine maps (N, 2, 3) narrowed to a square of `crop` pixels whose middle lies at least half its side within
    the image, on the pixel grid, so that a square that is not turned is not interpolated.

    at: (N, 3) from 0 to 1: which of the bleeding's pixels, in order, the middle is near; and how far off it (to either
    side by half the square), or, without bleeding, where it lies.
    """
    height, width = target.shape[2:]
    side = torch.tensor([crop / width, crop / height], device=theta.device)
    counted = target.flatten(1).cumsum(1)
    total = counted[:, -1:]
    index = torch.searchsorted(counted, (at[:, :1] * total).floor() + 1).clamp(max=height * width - 1)
    pixel = torch.cat([(index % width + 0.5) / width, (index // width + 0.5) / height], dim=1) * 2 - 1
    pixel = pixel + side * (at[:, 1:] - 0.5)
    anywhere = (2 * at[:, 1:] - 1) * (1 - side)
    middle = torch.where(total > 0, pixel, anywhere) + theta[:, :, 2]
    extent = torch.tensor([width, height], dtype=theta.dtype, device=theta.device)
    corner = ((middle + 1 - side) * extent / 2).round().clamp(torch.zeros_like(extent), extent - crop)
    middle = corner * 2 / extent - 1 + side
    return torch.cat([theta[:, :, :2] * side, middle[:, :, None]], dim=2)


_STILL = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def _draw(options: Augment, random: np.random.Generator, aspect: float) -> dict[str, np.ndarray | float]:
    """All of a sample's numbers, always drawn in the same order. aspect: rows by columns."""
    turn, shift_x, shift_y, shear, zoom_x, zoom_y, gain, offset, noise = random.uniform(-1, 1, 9)
    flip, blurred, amount = random.uniform(0, 1, 3)
    angle = math.radians(options.rotate_deg) * turn
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1.0, options.shear * shear], [0.0, 1.0]])
    # One zoom for both axes, with a little of the second draw so that heads also become longer or rounder.
    zoom_y = np.clip(zoom_x + 0.3 * zoom_y, -1, 1)
    matrix = matrix @ np.diag([1 + options.zoom * zoom_x, 1 + options.zoom * zoom_y])
    if options.flip and flip < 0.5:
        matrix = matrix @ np.diag([-1.0, 1.0])
    # affine_grid counts in half images, not pixels: without this a rotation would shear an oblong image.
    matrix = matrix * np.array([[1.0, aspect], [1.0 / aspect, 1.0]])
    shift = 2 * options.shift * np.array([[shift_x], [shift_y]])
    return {
        "matrix": np.concatenate([matrix, shift], axis=1),
        "gain": 1 + options.gain * gain,
        "offset": options.offset_hu * offset,
        "noise": options.noise_hu * abs(noise),
        # Above 0 is blurred, below 0 sharpened.
        "blur": (amount * 1.5 - 0.5) if blurred < options.blur else 0.0,
        "seed": float(random.integers(2**52)),
        "at": random.uniform(0, 1, 3),
    }


def _column(draws: list[dict[str, np.ndarray | float]], name: str, like: Tensor) -> Tensor:
    return torch.tensor([float(d[name]) for d in draws], dtype=torch.float32, device=like.device)[:, None, None, None]


def _noise(hu: Tensor, draws: list[dict[str, np.ndarray | float]]) -> Tensor:
    generator = torch.Generator(device=hu.device)
    noise = torch.empty_like(hu, memory_format=torch.contiguous_format)
    for sample, draw in zip(noise, draws, strict=True):
        generator.manual_seed(int(draw["seed"]))
        sample.normal_(generator=generator)
    return noise * _column(draws, "noise", hu)
