"""The U-Net of Ronneberger, Fischer and Brox 2015 (arXiv:1505.04597), padded, or valid with mirrored margins."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemotorch.nets.dropout import Dropout


class Unet(nn.Module):
    """(N, in_channels, rows, columns) to logits (N, outputs, rows, columns).

    Rows and columns are multiples of 2 ** (levels - 1).
    channels: features of the first level, doubled at each next one (64 and 5 levels give the article's 64 to 1024).
    valid: the article's unpadded convolutions. The image is then mirrored outwards by the margin that they eat, its
    "overlap-tile strategy" with the image as one tile, so that the output has the input's size. batch_norm: between
    convolution and ReLU, which the article does not have. dropout: at the end of the contracting path, on its two
    deepest levels and before the skip; the article gives no rate, its released network has 0.5. Weights start as in the
    article, Gaussian with standard deviation sqrt(2 / inputs).
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

        def double(inputs: int, outputs: int) -> nn.Sequential:
            return double_conv(inputs, outputs, padding=0 if valid else 1, batch_norm=batch_norm)

        self.down = nn.ModuleList(double(a, b) for a, b in zip([in_channels, *widths], widths, strict=False))
        pairs = list(zip(widths[1:], widths, strict=False))[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs)
        self.merge = nn.ModuleList(double(a, b) for a, b in pairs)
        self.drop = nn.ModuleList(Dropout(dropout) for _ in range(2))
        self.last = nn.Conv2d(channels, outputs, 1)
        self.apply(start_gaussian)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        if self.margin:
            x = mirror(x, self.margin)
        skipped: list[Tensor] = []
        deepest = len(self.down) - 1
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            x = self.drop[level - deepest + 1](x) if level >= deepest - 1 else x
            skipped.append(x)
        skipped.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = up(x)
            x = merge(torch.cat([centre(skipped.pop(), x.shape[2:]), x], dim=1))
        return centre(self.last(x), size)


def double_conv(inputs: int, outputs: int, padding: int, batch_norm: bool) -> nn.Sequential:
    """Two 3x3 convolutions, each with its ReLU and, if wanted, batch norm before it."""
    layers: list[nn.Module] = []
    for source in (inputs, outputs):
        layers.append(nn.Conv2d(source, outputs, 3, padding=padding, bias=not batch_norm))
        layers += [nn.BatchNorm2d(outputs)] if batch_norm else []
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
        x = x.index_select(dim, torch.minimum(index, period - index) if size > 1 else index)
    return x


def centre(x: Tensor, size: torch.Size) -> Tensor:
    """The middle (rows, columns) of (N, C, rows, columns)."""
    top, left = (x.shape[2] - size[0]) // 2, (x.shape[3] - size[1]) // 2
    return x[:, :, top : top + size[0], left : left + size[1]]
