"""The `fast` recipe's network: a small U-Net that works at half resolution inside."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from hemotorch.task import BACKGROUND


class CompactUnet(nn.Module):
    """(N, in_channels, rows, columns) to logits (N, outputs, rows, columns); rows and columns multiples of 2 ** levels.

    A strided stem on the way in and pixel-shuffle on the way out make the whole 4 to 8 times faster on a CPU than a
    full-resolution stem; adding skips instead of concatenating them is another 1.7 times (docs/log.md).
    channels: features a level, from the finest (half resolution) to the coarsest. Two convolutions a level on the way
    down, one on the way up, batch norm and ReLU after each, nearest upsampling. bias: where the logits start; -3 says
    5 % bleeding, so that the first steps are not spent on unlearning a brain full of it. Several outputs share that
    chance: all but the last ones, the `BACKGROUND`, which start at 0.
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
        pairs = list(itertools.pairwise(channels))
        stem = nn.Sequential(*conv(in_channels, channels[0], 4, 2), *conv(channels[0], channels[0]))
        self.down = nn.ModuleList([stem, *(nn.Sequential(*conv(a, b), *conv(b, b)) for a, b in pairs)])
        self.lateral = nn.ModuleList(nn.Conv2d(b, a, 1, bias=False) for a, b in reversed(pairs))
        self.up = nn.ModuleList(nn.Sequential(*conv(a, a)) for a, _ in reversed(pairs))
        # pixel_shuffle makes one output of four channels.
        self.last = nn.Conv2d(channels[0], 4 * outputs, 1)
        assert self.last.bias is not None
        nn.init.constant_(self.last.bias, bias)
        bleeding = outputs - len(BACKGROUND)
        if bleeding > 0:
            nn.init.constant_(self.last.bias[: 4 * bleeding], bias + math.log(len(BACKGROUND) / bleeding))
            nn.init.zeros_(self.last.bias[4 * bleeding :])

    def forward(self, x: Tensor) -> Tensor:
        skipped: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skipped.append(x)
        skipped.pop()
        for lateral, block in zip(self.lateral, self.up, strict=True):
            x = block(F.interpolate(lateral(x), scale_factor=2.0, mode="nearest") + skipped.pop())
        return F.pixel_shuffle(self.last(x), 2)


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> tuple[nn.Module, ...]:
    """Convolution, batch norm, ReLU; the image shrinks by the stride alone."""
    return (
        nn.Conv2d(inputs, outputs, size, stride, padding=(size - stride + 1) // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
