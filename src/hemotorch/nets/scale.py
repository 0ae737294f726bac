"""Half and twice the size, with gradients that a GPU gathers: torch's own scatter them, which costs it several passes
over the largest tensors that there are (docs/log.md). On a CPU, where they do not, they are torch's own."""

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
    """Where several are greatest, the first of them has the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        a, b, c, d = (x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1))
        upper, lower = torch.maximum(a, b), torch.maximum(c, d)
        place = torch.where(lower > upper, 2 + (d > c).to(torch.uint8), (b > a).to(torch.uint8))
        ctx.save_for_backward(place)
        return torch.maximum(upper, lower)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (place,) = ctx.saved_tensors
        place, gradient = (F.interpolate(one, scale_factor=2.0, mode="nearest") for one in (place, gradient))
        rows, columns = (torch.arange(size, device=gradient.device) % 2 for size in gradient.shape[2:])
        return torch.where(place == 2 * rows[:, None] + columns, gradient, 0.0)


class Doubled(torch.autograd.Function):
    """Each input pixel gathers from the 4 x 4 output pixels that it is part of. Without aligned corners."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # What networks on a GPU are laid out in unless told otherwise, which costs a copy here. Inductor changes it
        # back where strides are not given as numbers.
        found = _gathered(_gathered(gradient, 2), 3).contiguous(memory_format=torch.channels_last)
        return found.as_strided(found.shape, found.stride())


def _gathered(gradient: Tensor, dim: int) -> Tensor:
    size = gradient.shape[dim]
    first = torch.arange(-1, size - 1, 2, device=gradient.device)
    a, b, c, d = (gradient.index_select(dim, (first + k).clamp(0, size - 1)) for k in range(4))
    return TAPS[0] * (a + d) + TAPS[1] * (b + c)
