"""Half and twice the size, with gradients that a GPU gathers.

torch's own scatter them on a GPU, which costs it several passes over the largest tensors that there are (docs/log.md).
On a CPU they do not, and torch's own are used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: Of an output pixel and the next three, what each gives its input pixel's gradient; outside, the edge's counts again.
TAPS = (0.25, 0.75, 0.75, 0.25)


def compiled_for_gpu(x: Tensor) -> bool:
    """Whether what is computed from x is being compiled, and x on a GPU."""
    return x.is_cuda and torch.compiler.is_compiling()


def halved(x: Tensor) -> Tensor:
    """(N, C, rows, columns), both even, to the greatest of each 2 x 2 pixels, as `F.max_pool2d(x, 2)`."""
    # Uncompiled, torch's own is one kernel.
    if not compiled_for_gpu(x):
        return F.max_pool2d(x, 2)
    out: Tensor = Halved.apply(x)
    return out


def doubled(x: Tensor, align_corners: bool = False) -> Tensor:
    """(N, C, rows, columns) to (N, C, 2 * rows, 2 * columns), as `F.interpolate` does it, in bilinear mode."""
    if align_corners or not x.is_cuda:
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=align_corners)
    out: Tensor = Doubled.apply(x)
    return out


class Halved(torch.autograd.Function):
    """If several are greatest, the first of them has the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        upper_left, upper_right = x[:, :, 0::2, 0::2], x[:, :, 0::2, 1::2]
        lower_left, lower_right = x[:, :, 1::2, 0::2], x[:, :, 1::2, 1::2]
        upper = torch.maximum(upper_left, upper_right)
        lower = torch.maximum(lower_left, lower_right)
        # Which of the four is the greatest: 0 and 1 in the upper row, 2 and 3 in the lower.
        index_in_upper = (upper_right > upper_left).to(torch.uint8)
        index_in_lower = 2 + (lower_right > lower_left).to(torch.uint8)
        ctx.save_for_backward(torch.where(lower > upper, index_in_lower, index_in_upper))
        return torch.maximum(upper, lower)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (index,) = ctx.saved_tensors
        index = F.interpolate(index, scale_factor=2.0, mode="nearest")
        gradient = F.interpolate(gradient, scale_factor=2.0, mode="nearest")
        rows = torch.arange(gradient.shape[2], device=gradient.device) % 2
        columns = torch.arange(gradient.shape[3], device=gradient.device) % 2
        return torch.where(index == 2 * rows[:, None] + columns, gradient, 0.0)


class Doubled(torch.autograd.Function):
    """Each input pixel gathers from the 4 x 4 output pixels that it is part of. Without aligned corners."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gathered = _gathered(_gathered(gradient, 2), 3)
        # What networks on a GPU are laid out in by default; otherwise this costs a copy. Inductor changes it back if
        # strides are not given as numbers.
        gathered = gathered.contiguous(memory_format=torch.channels_last)
        return gathered.as_strided(gathered.shape, gathered.stride())


def _gathered(gradient: Tensor, dim: int) -> Tensor:
    size = gradient.shape[dim]
    first = torch.arange(-1, size - 1, 2, device=gradient.device)

    def shifted(pixels: int) -> Tensor:
        return gradient.index_select(dim, (first + pixels).clamp(0, size - 1))

    outer = shifted(0) + shifted(3)
    inner = shifted(1) + shifted(2)
    return TAPS[0] * outer + TAPS[1] * inner
