"""The U-Net of Ronneberger, Fischer and Brox 2015 (arXiv:1505.04597), padded, or valid with mirrored margins."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemotorch.nets.dropout import Dropout


class Unet(nn.Module):
    """(N, in_channels, rows, columns) to logits (N, outputs, rows, columns).

    Weights start as in the article, Gaussian with standard deviation sqrt(2 / inputs).

    Args:
        in_channels: Slices times windows.
        channels: Features of the first level, doubled at each next one (64 and 5 levels give the article's 64 to 1024).
        levels: Rows and columns must be multiples of 2 ** (levels - 1).
        valid: The article's unpadded convolutions. The image is then mirrored outwards by the margin that they eat, its
            "overlap-tile strategy" with the image as one tile, so that the output has the input's size.
        batch_norm: Between convolution and ReLU, which the article does not have.
        dropout: Rate at the end of the contracting path, on its two deepest levels and before the skip. The article
            gives none, its released network has 0.5.
        outputs: Channels of the logits.
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: int = 64,
        levels: int = 5,
        valid: bool = False,
        batch_norm: bool = False,
        dropout: float = 0.5,
        outputs: int = 1,
    ):
        super().__init__()
        self.multiple = 2 ** (levels - 1)
        # 6 * 2**n - 4 are lost on each side; two more put the pooling grid on the padded network's grid.
        self.margin = 6 * self.multiple - 2 if valid else 0
        widths = [channels * 2**level for level in range(levels)]
        padding = 0 if valid else 1
        downward = pairwise([in_channels, *widths])
        upward = list(pairwise(reversed(widths)))
        self.down = nn.ModuleList(double_conv(a, b, padding, batch_norm) for a, b in downward)
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in upward)
        self.merge = nn.ModuleList(double_conv(a, b, padding, batch_norm) for a, b in upward)
        self.drop = nn.ModuleList([Dropout(dropout), Dropout(dropout)])
        self.last = nn.Conv2d(channels, outputs, 1)
        self.apply(start_gaussian)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        if self.margin:
            x = mirror(x, self.margin)
        skipped: list[Tensor] = []
        dropped_from = len(self.down) - len(self.drop)
        for level, block in enumerate(self.down):
            if level:
                x = F.max_pool2d(x, 2)
            x = block(x)
            if level >= dropped_from:
                x = self.drop[level - dropped_from](x)
            skipped.append(x)
        skipped.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = up(x)
            beside = centre(skipped.pop(), x.shape[2:])
            x = merge(torch.cat([beside, x], dim=1))
        return centre(self.last(x), size)


def double_conv(inputs: int, outputs: int, padding: int, batch_norm: bool) -> nn.Sequential:
    """Two 3x3 convolutions, each with its ReLU and, if wanted, batch norm before it."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers.append(nn.Conv2d(channels, outputs, 3, padding=padding, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def start_gaussian(module: nn.Module) -> None:
    """Ronneberger's start: weights N(0, 2 / inputs of one output pixel), biases 0."""
    if isinstance(module, nn.Conv2d):
        inputs = module.in_channels * math.prod(module.kernel_size)
    elif isinstance(module, nn.ConvTranspose2d):
        inputs = module.in_channels  # kernel and stride are both 2: each output pixel sees one input pixel
    else:
        return
    nn.init.normal_(module.weight, std=math.sqrt(2 / inputs))
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def mirror(x: Tensor, margin: int) -> Tensor:
    """(N, C, rows, columns) mirrored outwards by `margin`, the edge not repeated, as often as a small image needs."""
    for dim in (2, 3):
        size = x.shape[dim]
        period = max(2 * (size - 1), 1)
        index = torch.arange(-margin, size + margin, device=x.device) % period
        if size > 1:
            index = torch.minimum(index, period - index)
        x = x.index_select(dim, index)
    return x


def centre(x: Tensor, size: torch.Size) -> Tensor:
    """The middle of (N, C, rows, columns), in that size."""
    rows, columns = size
    first_row = (x.shape[2] - rows) // 2
    first_column = (x.shape[3] - columns) // 2
    return x[:, :, first_row : first_row + rows, first_column : first_column + columns]
