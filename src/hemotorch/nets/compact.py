"""The `fast` recipe's network: a small U-Net that works at half resolution inside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemotorch.task import BACKGROUND


class CompactUnet(nn.Module):
    """(N, in_channels, rows, columns) to logits (N, outputs, rows, columns).

    A strided stem on the way in and pixel-shuffle on the way out make the whole 4 to 8 times faster on a CPU than a
    full-resolution stem; adding skips instead of concatenating them is another 1.7 times (docs/log.md). Two
    convolutions per level on the way down, one on the way up, batch norm and ReLU after each, nearest upsampling.

    Args:
        in_channels: Slices times windows.
        channels: Features of each level, from the finest (half resolution) to the coarsest. Rows and columns must be
            multiples of 2 ** levels.
        bias: Where the logits start; -3 says 5 % bleeding, so that the first steps are not spent on unlearning a brain
            full of it. Several outputs share that chance: all but the last ones, the `BACKGROUND`, which start at 0.
        outputs: Channels of the logits.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int] = (16, 32, 64, 128, 128),
        bias: float = -3.0,
        outputs: int = 1,
    ):
        super().__init__()
        self.multiple = 2 ** len(channels)
        down = [nn.Sequential(*conv(in_channels, channels[0], 4, 2), *conv(channels[0], channels[0]))]
        for finer, coarser in pairwise(channels):
            down.append(nn.Sequential(*conv(finer, coarser), *conv(coarser, coarser)))
        self.down = nn.ModuleList(down)
        upward = list(pairwise(reversed(channels)))
        self.lateral = nn.ModuleList(nn.Conv2d(coarser, finer, 1, bias=False) for coarser, finer in upward)
        self.up = nn.ModuleList(nn.Sequential(*conv(finer, finer)) for _, finer in upward)
        # pixel_shuffle makes one output of four channels.
        self.last = nn.Conv2d(channels[0], 4 * outputs, 1)
        start_bias(self.last, bias, outputs)
        if outputs > 1:
            start_alike(self.last)

    def forward(self, x: Tensor) -> Tensor:
        skipped: list[Tensor] = []
        for level, block in enumerate(self.down):
            if level:
                x = F.max_pool2d(x, 2)
            x = block(x)
            skipped.append(x)
        skipped.pop()
        for lateral, block in zip(self.lateral, self.up, strict=True):
            larger = F.interpolate(lateral(x), scale_factor=2.0, mode="nearest")
            x = block(larger + skipped.pop())
        return F.pixel_shuffle(self.last(x), 2)


def start_bias(last: nn.Conv2d, bias: float, outputs: int) -> None:
    """Sets where the logits start, see `CompactUnet`. last: four channels for each output."""
    assert last.bias is not None
    nn.init.constant_(last.bias, bias)
    bleeding = outputs - len(BACKGROUND)
    if bleeding > 0:
        nn.init.constant_(last.bias[: 4 * bleeding], bias + math.log(len(BACKGROUND) / bleeding))
        nn.init.zeros_(last.bias[4 * bleeding :])


@torch.no_grad()
def start_alike(last: nn.Conv2d) -> None:
    """Gives the four channels that become one output the same weights, so that its pixels begin alike.

    With weights of their own, rows of pixels alternated between two types (as Aitken et al. 2017, arXiv:1707.02937,
    saw in images).
    """
    last.weight.copy_(last.weight[::4].repeat_interleave(4, dim=0))


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> tuple[nn.Module, ...]:
    """Convolution, batch norm, ReLU; the image shrinks by the stride alone."""
    padding = (size - stride + 1) // 2
    return (
        nn.Conv2d(inputs, outputs, size, stride, padding=padding, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
