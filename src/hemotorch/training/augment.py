"""Augmentation of whole batches on their own device.

What happens to a sample is a function of its key alone, which comes from (seed, epoch, step, index in the global
batch): neither a worker, nor a resume, nor the number of processes changes it. Nothing is drawn on the host.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hemotorch.hu import AIR_HU, GAIN_CENTRE_HU
from hemotorch.keyed_random import BENDING, NOISE, SHADING, fold, normal, uniform
from hemotorch.recipe import Augment
from hemotorch.task import BLEEDING_BITS
from hemotorch.training.kernels.sample import Samples, sample

ELASTIC_NODES = 7  #: per side of the coarse net by which images are bent
SHADING_NODES = 4  #: per side of the coarse net of a shading
SOFT_TISSUE_HU = (-200, 300)  #: what is shaded: in bone and air nobody sees it


def moves(options: Augment) -> bool:
    """Whether pixels are moved."""
    turned = options.rotate_deg or options.shear or options.zoom
    return bool(options.flip or options.shift or turned or options.elastic)


def augment(
    hu: Tensor,
    target: Tensor,
    rows: Tensor,
    options: Augment,
    keys: Tensor,
    block: tuple[Tensor, int] | None = None,
    triton: bool = False,
    typed: bool = True,
) -> tuple[Tensor, Tensor]:
    """Takes samples out of a stack of slices, moves, brightens, shades, roughens and blurs them.

    Args:
        hu: (S, H, W) int16.
        target: (S, H, W) uint8 bits, see `task`.
        rows: (N, inputs) which slices make each sample, whose target is its middle one's.
        options: what is done, and how much of it.
        keys: (N,) int32, what a sample's random numbers come from.
        block: (N, 2) top-left corners and the side of the square to take, for networks that work on blocks.
        triton: sample with hemotorch's own kernel.
        typed: False if no target holds more than 0 and 1, which takes less time.

    Returns:
        float32 HU (N, inputs, h, w) and uint8 target (N, 1, h, w): whole slices, or squares of the block's side, else
        of `crop_px`, around a pixel of bleeding if there is some.
    """
    height, width = hu.shape[1:]
    random = uniform(keys, (15,))
    brighter, lifted, rougher = (2 * random[:, 6:9] - 1).unbind(1)
    mirrored, blurred, softer = random[:, 9:12].unbind(1)
    gain, offset = 1 + options.gain * brighter, options.offset_hu * lifted
    crop = options.crop_px if not block and 0 < options.crop_px < min(height, width) else 0
    if moves(options) or crop:
        theta = _affine(options, random[:, :6], mirrored, height / width)
        side = crop
        if block:
            side = block[1]
            theta = _at_block(theta, *block, height, width)
        elif crop:
            theta = _near_bleeding(theta, _middle(target, rows), crop, random[:, 12:])
        field = _field(options, keys) if options.elastic else None
        size = (side or height, side or width)
        samples = Samples(hu, target, rows, theta, size, field, gain, offset, typed=typed)
        shown, moved_target = sample(samples, triton)
    else:
        shown, moved_target = _taken(hu, target, rows, block)
        if options.gain or options.offset_hu:
            shown = GAIN_CENTRE_HU + (shown - GAIN_CENTRE_HU) * _per_sample(gain) + _per_sample(offset)
    if options.shading_hu:
        shown = shown + _shading(shown, options.shading_hu, keys)
    if options.noise_hu:
        noise = normal(fold(keys, NOISE), tuple(shown.shape[1:]))
        shown = shown + noise * _per_sample(options.noise_hu * rougher.abs())
    if options.blur:
        # Above 0 is blurred, below 0 sharpened.
        amount = torch.where(blurred < options.blur, softer * 1.5 - 0.5, 0.0)
        shown = shown + _per_sample(amount) * (_mean_of_nine(shown) - shown)
    return shown, moved_target


def _shading(hu: Tensor, most_hu: float, keys: Tensor) -> Tensor:
    """HU to add to soft tissue: a smooth random field, the same for all slices of a sample.

    Its amplitude is even from 0 to `most_hu`, times a bicubic field from 4 x 4 normal values.

    Args:
        hu: (N, C, h, w) float32 samples; the field spans what they show, a whole slice or a crop.
        most_hu: largest amplitude.
        keys: (N,) int32.

    Returns:
        (N, C, h, w) float32, 0 outside SOFT_TISSUE_HU.
    """
    shading_keys = fold(keys, SHADING)
    amplitude = most_hu * uniform(shading_keys, (1, 1))
    nodes = amplitude * normal(fold(shading_keys, NOISE), (SHADING_NODES, SHADING_NODES))
    # Two small products of matrices: interpolating each sample's field took nine times as long on a CPU. All of this
    # takes 1.2 ms for 8 crops of 3 x 128 x 128, of a step of about 115 ms.
    down = _bicubic_weights(hu.shape[2], hu.device)
    across = _bicubic_weights(hu.shape[3], hu.device)
    field = (down @ nodes @ across.T)[:, None]
    low, high = SOFT_TISSUE_HU
    return field * ((hu >= low) & (hu <= high))


def _bicubic_weights(size: int, device: torch.device) -> Tensor:
    """(size, SHADING_NODES) how much each node counts at each pixel, the outer nodes at the outer pixels."""
    nodes = torch.eye(SHADING_NODES, device=device)[None, None]
    return F.interpolate(nodes, (size, SHADING_NODES), mode="bicubic", align_corners=True)[0, 0]


def _mean_of_nine(image: Tensor) -> Tensor:
    """Mean of each pixel and its eight neighbours, the border repeated: (N, C, h, w).

    Sums of rows, then of columns: on a CPU a tenth of the time of avg_pool2d.
    """
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    rows = padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9


def _per_sample(values: Tensor) -> Tensor:
    """(N,) as (N, 1, 1, 1)."""
    return values[:, None, None, None]


def _taken(hu: Tensor, target: Tensor, rows: Tensor, block: tuple[Tensor, int] | None) -> tuple[Tensor, Tensor]:
    """Samples, or their blocks, as they are in the stack: float32 HU, and the target."""
    image = hu.index_select(0, rows.flatten()).view(*rows.shape, *hu.shape[1:])
    middle = _middle(target, rows)
    if block:
        image, middle = _cut(image, *block, AIR_HU), _cut(middle, *block, 0)
    return image.float(), middle


def _middle(target: Tensor, rows: Tensor) -> Tensor:
    """(N, 1, H, W) targets of the samples' middle slices."""
    return target.index_select(0, rows[:, rows.shape[1] // 2])[:, None]


def _field(options: Augment, keys: Tensor) -> Tensor:
    """(N, 2, nodes, nodes) by how much images are bent at the nodes of a coarse net, see `Samples`."""
    random = uniform(fold(keys, BENDING), (2, ELASTIC_NODES, ELASTIC_NODES))
    return (2 * random - 1) * 2 * options.elastic


def _affine(options: Augment, random: Tensor, mirrored: Tensor, aspect: float) -> Tensor:
    """(N, 2, 3) maps from output to input coordinates, both -1 to 1, as `affine_grid` takes them.

    random: (N, 6) from 0 to 1; mirrored: (N,), below a half if the head is mirrored; aspect: rows by columns.
    """
    turn, shift_x, shift_y, shear, zoom_x, zoom_y = (2 * random - 1).unbind(1)
    angle = math.radians(options.rotate_deg) * turn
    cos, sin = angle.cos(), angle.sin()
    # One zoom for both axes, with a little of the second draw so that heads also become longer or rounder.
    zoom_y = (zoom_x + 0.3 * zoom_y).clamp(-1, 1)
    flipped = -1.0 if options.flip else 1.0
    scale_x = (1 + options.zoom * zoom_x) * torch.where(mirrored < 0.5, flipped, 1.0)
    scale_y = 1 + options.zoom * zoom_y
    slant = options.shear * shear
    # Rotation, then shear, then zoom; affine_grid counts in half images, not pixels: without `aspect` a rotation would
    # shear an oblong image.
    top = torch.stack([cos * scale_x, (cos * slant - sin) * scale_y * aspect, 2 * options.shift * shift_x], dim=1)
    low = torch.stack([sin * scale_x / aspect, (sin * slant + cos) * scale_y, 2 * options.shift * shift_y], dim=1)
    return torch.stack([top, low], dim=1)


def _at_block(theta: Tensor, corners: Tensor, size: int, height: int, width: int) -> Tensor:
    """The maps narrowed to squares of `size` pixels whose top-left corners (N, 2) are given."""
    middle = (corners + size / 2) * 2
    return _narrowed(theta, (size / width, size / height), middle[:, 1] / width - 1, middle[:, 0] / height - 1)


def _near_bleeding(theta: Tensor, target: Tensor, crop: int, random: Tensor) -> Tensor:
    """The maps narrowed to a square of `crop` pixels near a pixel of bleeding.

    Its middle lies at least half its side within the image, on the pixel grid, so that a square that is not turned is
    not interpolated.

    Args:
        theta: (N, 2, 3) maps.
        target: (N, 1, H, W) uint8 bits.
        crop: side of the square, pixels.
        random: (N, 3) from 0 to 1: which of the bleeding's pixels, in order, the middle is near; and how far off it, to
            either side by half the square, or, without bleeding, where it lies.
    """
    height, width = target.shape[2:]
    counted = ((target & BLEEDING_BITS) > 0).flatten(1).cumsum(1, dtype=torch.int32)
    total = counted[:, -1:]
    last = (total - 1).clamp(min=0)
    chosen = (random[:, :1] * total).to(torch.int32).clamp(max=last) + 1
    pixel = torch.searchsorted(counted, chosen).clamp(max=height * width - 1)[:, 0]
    bleeds = total[:, 0] > 0
    middles = []
    for axis, (index, extent) in enumerate(((pixel % width, width), (pixel // width, height))):
        side, at = crop / extent, random[:, 1 + axis]
        near = (index + 0.5) / extent * 2 - 1 + side * (at - 0.5)
        anywhere = (2 * at - 1) * (1 - side)
        middle = torch.where(bleeds, near, anywhere) + theta[:, axis, 2]
        corner = ((middle + 1 - side) * (extent / 2)).round().clamp(0, extent - crop)
        middles.append(corner * 2 / extent - 1 + side - theta[:, axis, 2])
    return _narrowed(theta, (crop / width, crop / height), *middles)


def _narrowed(theta: Tensor, side: tuple[float, float], x: Tensor, y: Tensor) -> Tensor:
    """The maps on a part of the image: `side` of its width and height, around (x, y) from -1 to 1."""
    columns = (theta[:, :, 0] * side[0], theta[:, :, 1] * side[1], theta[:, :, 2] + torch.stack([x, y], dim=1))
    return torch.stack(columns, dim=2)


def _cut(values: Tensor, corners: Tensor, size: int, fill: int) -> Tensor:
    """Squares of `size` pixels at each sample's own corner (N, 2), filled up where the image ends."""
    padded = F.pad(values, (0, size, 0, size), value=fill)
    reach = torch.arange(size, device=values.device)
    rows = corners[:, :1].clamp(max=values.shape[2]) + reach
    columns = corners[:, 1:2].clamp(max=values.shape[3]) + reach
    sample = torch.arange(len(values), device=values.device)[:, None, None]
    cut = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
    return cut.permute(0, 3, 1, 2)
