"""Bilinear upsampling by two, with a gradient that a GPU does not add up atomically."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: Of an output pixel and the next three, what each gives its input pixel's gradient; outside, the edge's counts again.
TAPS = (0.25, 0.75, 0.75, 0.25)


def doubled(x: Tensor, align_corners: bool = False) -> Tensor:
    """(N, C, rows, columns) to (N, C, 2 * rows, 2 * columns), as `F.interpolate` does it, in bilinear mode."""
    if align_corners or not (x.is_cuda and torch.is_grad_enabled() and x.requires_grad):
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=align_corners)
    out: Tensor = Doubled.apply(x)
    return out


class Doubled(torch.autograd.Function):
    """Without aligned corners. torch's own gradient scatters: on a GPU, in bfloat16, several times as slow as all else
    in a step (docs/log.md). Here each input pixel gathers from the 4 x 4 output pixels that it is part of."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _gathered(_gathered(gradient, 2), 3)


def _gathered(gradient: Tensor, dim: int) -> Tensor:
    size = gradient.shape[dim]
    first = torch.arange(-1, size - 1, 2, device=gradient.device)
    a, b, c, d = (gradient.index_select(dim, (first + k).clamp(0, size - 1)) for k in range(4))
    return TAPS[0] * (a + d) + TAPS[1] * (b + c)
