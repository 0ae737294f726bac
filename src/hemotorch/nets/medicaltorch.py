"""The modified U-Net of MedicalTorch v0.2, which the 2021 paper trained, with MedicalTorch's names for its weights.

Against Ronneberger's: three poolings, same-padded convolutions, batch norm after the ReLU, 2-D dropout after that,
bilinear upsampling without a transposed convolution, 256 channels at the bottom, a 3x3 convolution as its last.
MedicalTorch ends in a sigmoid; here logits leave. Modules are made in its order, so that one seed starts both alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemotorch.nets.dropout import Dropout
from hemotorch.nets.scale import compiled_for_gpu, doubled, halved


class DoubleConv(nn.Module):
    """Twice: 3x3 convolution, ReLU, batch norm, 2-D dropout."""

    def __init__(self, inputs: int, outputs: int, drop_rate: float, bn_momentum: float):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv1_bn = nn.BatchNorm2d(outputs, momentum=bn_momentum)
        self.conv1_drop = Dropout(drop_rate, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv2_bn = nn.BatchNorm2d(outputs, momentum=bn_momentum)
        self.conv2_drop = Dropout(drop_rate, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1_drop(self.conv1_bn(F.relu(_convolved(self.conv1, x))))
        return self.conv2_drop(self.conv2_bn(F.relu(_convolved(self.conv2, x))))


def _convolved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`conv(x)`. Where a GPU's step is compiled the bias is added by what reads the result, not in a pass of its own,
    and an image of fewer than eight channels is given empty ones, since tensor cores want eight."""
    if conv.bias is None or not compiled_for_gpu(x):
        return conv(x)
    more = max(0, 8 - conv.in_channels)
    x, weight = (F.pad(one, (0, 0, 0, 0, 0, more)) if more else one for one in (x, conv.weight))
    out = F.conv2d(x, weight, padding=conv.padding)
    return out + conv.bias.to(out.dtype)[:, None, None]


class Up(nn.Module):
    """Bilinear upsampling by two, the skipped features behind it, and a double convolution."""

    def __init__(self, inputs: int, outputs: int, drop_rate: float, bn_momentum: float, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        self.downconv = DoubleConv(inputs, outputs, drop_rate, bn_momentum)

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        return self.downconv(torch.cat([doubled(x, self.align_corners), skipped], dim=1))


class MedicalTorchUnet(nn.Module):
    """(N, in_channels, rows, columns) to logits (N, outputs, rows, columns); rows and columns multiples of 8.

    channels: features of the first level, 64 in MedicalTorch. align_corners: False is what release 0.2 does, True what
    the repository's last commit does. Source of the architecture: medicaltorch 0.2, `medicaltorch.models.Unet`.
    """

    multiple = 8

    def __init__(
        self,
        in_channels: int = 1,
        channels: int = 64,
        drop_rate: float = 0.4,
        bn_momentum: float = 0.1,
        align_corners: bool = False,
        outputs: int = 1,
    ):
        super().__init__()
        c, rates = channels, (drop_rate, bn_momentum)
        self.conv1 = DoubleConv(in_channels, c, *rates)
        self.conv2 = DoubleConv(c, 2 * c, *rates)
        self.conv3 = DoubleConv(2 * c, 4 * c, *rates)
        self.conv4 = DoubleConv(4 * c, 4 * c, *rates)
        self.up1 = Up(8 * c, 4 * c, *rates, align_corners)
        self.up2 = Up(6 * c, 2 * c, *rates, align_corners)
        self.up3 = Up(3 * c, c, *rates, align_corners)
        self.conv9 = nn.Conv2d(c, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        level1 = self.conv1(x)
        level2 = self.conv2(halved(level1))
        level3 = self.conv3(halved(level2))
        x = self.conv4(halved(level3))
        x = self.up3(self.up2(self.up1(x, level3), level2), level1)
        return _convolved(self.conv9, x)
