"""From resident slices to a moved, cut and brightened batch of HU, or of windowed channels, and its target in one pass.

`sample_reference` says what is computed, in PyTorch; `sample` is the same with a choice of the Triton kernel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hemotorch.hu import AIR_HU, GAIN_CENTRE_HU
from hemotorch.task import BLEEDING_BITS
from hemotorch.training.kernels import demand


class Samples(NamedTuple):
    """N samples of S slices, all tensors on one device.

    hu: (S, H, W) int16, contiguous. target: (S, H, W) uint8 bits, see `task`, contiguous.
    rows: (N, inputs) int64 from 0 to S - 1, the slices of each sample, whose target is that of the middle one. They are
    not checked: that would wait for a GPU.
    theta: (N, 2, 3) float32, what `torch.nn.functional.affine_grid(theta, ..., align_corners=False)` takes: from output
    to input, both normalised, -1 and 1 being the image's edges. size: rows and columns of the output.
    field: None, or (N, 2, g, g) float32, how much further (x, y) along the input an output pixel looks, normalised like
    theta's, at g x g nodes: the first and last lie on the centres of the output's first and last pixel, whatever its
    size. Between nodes, a fraction f of the way is weighed f * f * (3 - 2 * f), which has no kinks.
    gain, offset: None or (N,) float32: hu becomes GAIN_CENTRE_HU + (hu - GAIN_CENTRE_HU) * gain + offset.
    windows: None, or lowest HU and width in HU, two (W,) float32 tensors, as `WindowLayer.bounds` gives them.
    typed: False if no target holds more than 0 and 1, which are sampled faster.
    """

    hu: Tensor
    target: Tensor
    rows: Tensor
    theta: Tensor
    size: tuple[int, int]
    field: Tensor | None = None
    gain: Tensor | None = None
    offset: Tensor | None = None
    windows: tuple[Tensor, Tensor] | None = None
    typed: bool = True

    def check(self) -> None:
        """Raises ValueError for types and shapes that do not belong together."""
        count, hu = len(self.rows), self.hu
        real = torch.float64 if self.theta.dtype == torch.float64 else torch.float32
        _check("hu", hu, torch.int16, (len(hu), *hu.shape[-2:]))
        _check("target", self.target, torch.uint8, tuple(hu.shape))
        _check("rows", self.rows, torch.int64, (count, self.rows.shape[-1]))
        _check("theta", self.theta, real, (count, 2, 3))
        nodes = 1
        if self.field is not None:
            nodes = self.field.shape[-1]
            _check("field", self.field, torch.float32, (count, 2, nodes, nodes))
        for name, values in (("gain", self.gain), ("offset", self.offset)):
            if values is not None:
                _check(name, values, torch.float32, (count,))
        if self.windows is not None:
            low, width = self.windows
            _check("windows' lowest HU", low, torch.float32, (low.numel(),))
            _check("windows' width", width, torch.float32, (low.numel(),))
        if not (hu.is_contiguous() and self.target.is_contiguous()):
            raise ValueError("hu and target must be contiguous: a batch must not copy all slices")
        # Offsets within an image are 32-bit in the kernel.
        pixels = (hu[0].numel(), self.size[0] * self.size[1], max(self.size) * nodes)
        if min(pixels) <= 0 or max(pixels) >= 2**30:
            shapes = f"{tuple(hu.shape[1:])} to {tuple(self.size)}"
            raise ValueError(f"images must have 1 to {2**30 - 1} pixels, not {shapes}")


def _check(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if tensor.dtype != dtype or tuple(tensor.shape) != shape or 0 in shape[1:]:
        raise ValueError(f"{name} must be {dtype} {shape}, not {tensor.dtype} {tuple(tensor.shape)}")


def sample(samples: Samples, triton: bool = False) -> tuple[Tensor, Tensor]:
    """The batch that the samples say.

    HU is sampled bilinearly; outside the image is air. A pixel is bleeding if bleeding of all kinds has at least half
    of the bilinear weights. It gets the target of the nearest of the four pixels around it that are bleeding if it is,
    and not bleeding if it is not, so that no set of channels is made that was not there; outside the image that is 0.
    The kernel finds pixels in float64, the reference in theta's type, see there.

    Args:
        samples: what is sampled, and how.
        triton: by the Triton kernel, for CUDA tensors.

    Returns:
        HU (N, inputs, *size), or with windows 0 to 1 (N, inputs * W, *size), window by window as WindowLayer goes,
        float32; and the target (N, 1, *size) uint8 bits.

    Raises:
        ValueError: for types and shapes that do not belong together.
        OptionError: if `triton` cannot be had.
    """
    samples.check()
    if not triton:
        return sample_reference(samples)
    if samples.theta.dtype != torch.float32:
        raise ValueError(f"theta must be float32 for the kernel, not {samples.theta.dtype}")
    tensors = [value for value in (*samples, *(samples.windows or ())) if isinstance(value, Tensor)]
    demand(*tensors)
    from hemotorch.training.kernels.sample_triton import launch

    return launch(samples)


def sample_reference(samples: Samples) -> tuple[Tensor, Tensor]:
    """What `sample` computes.

    In float32 pixels are found to about W * 6e-8 of a pixel: if neighbours are 1000 HU apart, 0.05 HU for W = 512. With
    a float64 theta all is float64, exact to 1e-9 HU, and so is the HU returned.
    """
    hu, target, rows, theta, size, field, gain, offset, windows, typed = samples
    with torch.autocast(hu.device.type, enabled=False):
        wide = theta.dtype
        middle = target[rows[:, rows.shape[1] // 2], None]
        bleeding = (middle & BLEEDING_BITS) > 0
        both = torch.cat([hu[rows].to(wide) - AIR_HU, bleeding.to(wide)], dim=1)
        # float64 for the grid alone costs little; in float32 it is a matrix product, which TF32 would round to 1e-3
        grid = F.affine_grid(theta.double(), [*both.shape[:2], *size], align_corners=False)
        if field is not None:
            down, across = (node_weights(count, field.shape[2], field.device) for count in size)
            grid = grid + (down @ field.double() @ across.T).permute(0, 2, 3, 1)
        grid = grid.to(wide)
        moved = F.grid_sample(both, grid, align_corners=False)
        out, bleeds = moved[:, :-1] + AIR_HU, moved[:, -1:] >= 0.5
        moved_target = _nearest(middle, grid, bleeds) if typed else bleeds.to(torch.uint8)
        if gain is not None:
            out = GAIN_CENTRE_HU + (out - GAIN_CENTRE_HU) * gain[:, None, None, None]
        if offset is not None:
            out = out + offset[:, None, None, None]
        if windows is not None:
            low, width = windows
            shown = [((out - low[w]) / width[w]).clamp(0.0, 1.0) for w in range(len(low))]
            out = torch.cat(shown, dim=1)
        return out, moved_target


def _nearest(target: Tensor, grid: Tensor, bleeds: Tensor) -> Tensor:
    """The target at positions: of the four pixels around each, the nearest that bleeds or does not, as asked.

    Args:
        target: (N, 1, H, W) uint8 bits.
        grid: (N, h, w, 2) positions (x, y), normalised as `grid_sample` takes them.
        bleeds: (N, 1, h, w) bool, whether the pixel at that position is bleeding.

    Returns:
        (N, 1, h, w) uint8.
    """
    height, width = target.shape[2:]
    column, right_share = _before(grid[:, None, ..., 0], width)
    row, lower_share = _before(grid[:, None, ..., 1], height)
    # A border of zeros, so that all four pixels exist.
    bordered = F.pad(target, (1, 1, 1, 1)).flatten(1)
    upper_left = (row + 1) * (width + 2) + column + 1
    nearest, largest = torch.zeros_like(bleeds, dtype=torch.uint8), torch.full_like(right_share, -1.0)
    for below, row_weight in ((0, 1 - lower_share), (width + 2, lower_share)):
        for right, column_weight in ((0, 1 - right_share), (1, right_share)):
            value = bordered.gather(1, (upper_left + (below + right)).flatten(1)).view_as(nearest)
            weight = row_weight * column_weight
            nearer = (((value & BLEEDING_BITS) > 0) == bleeds) & (weight > largest)
            nearest, largest = torch.where(nearer, value, nearest), torch.where(nearer, weight, largest)
    return nearest


def _before(position: Tensor, extent: int) -> tuple[Tensor, Tensor]:
    """The pixel before each normalised position, int64, and how far behind it the position is, 0 to 1."""
    pixel = ((position + 1) * extent - 1) / 2
    # Far outside is all one air, and so is a position that is no number: the border, and nothing of the image.
    pixel = torch.where((pixel > -1) & (pixel < extent), pixel, -1.0)
    before = pixel.floor()
    return before.long(), pixel - before


def node_weights(count: int, nodes: int, device: torch.device) -> Tensor:
    """(count, nodes) float64: how much each node of a line counts at each of `count` pixels, see `Samples`."""
    position = torch.arange(count, dtype=torch.float64, device=device) * (nodes - 1) / max(count - 1, 1)
    near = (1 - (position[:, None] - torch.arange(nodes, device=device)).abs()).clamp(min=0)
    return near * near * (3 - 2 * near)
