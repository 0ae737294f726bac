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
        x = F.relu(_convolved(self.conv1, x))
        x = self.conv1_drop(self.conv1_bn(x))
        x = F.relu(_convolved(self.conv2, x))
        return self.conv2_drop(self.conv2_bn(x))


def _convolved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`conv(x)`.

    If a GPU's step is compiled, the bias is added by what reads the result, not in a pass of its own, and an image of
    fewer than eight channels is given empty ones, since tensor cores want eight.
    """
    if conv.bias is None or not compiled_for_gpu(x):
        return conv(x)
    weight = conv.weight
    empty = 8 - conv.in_channels
    if empty > 0:
        x = F.pad(x, (0, 0, 0, 0, 0, empty))
        weight = F.pad(weight, (0, 0, 0, 0, 0, empty))
    out = F.conv2d(x, weight, padding=conv.padding)
    return out + conv.bias.to(out.dtype)[:, None, None]


class Up(nn.Module):
    """Bilinear upsampling by two, the skipped features behind it, and a double convolution."""

    def __init__(self, inputs: int, outputs: int, drop_rate: float, bn_momentum: float, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        self.downconv = DoubleConv(inputs, outputs, drop_rate, bn_momentum)

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        larger = doubled(x, self.align_corners)
        return self.downconv(torch.cat([larger, skipped], dim=1))


class MedicalTorchUnet(nn.Module):
    """(N, in_channels, rows, columns) to logits (N, outputs, rows, columns); rows and columns multiples of 8.

    Source of the architecture: medicaltorch 0.2, `medicaltorch.models.Unet`.

    Args:
        in_channels: Slices times windows.
        channels: Features of the first level, 64 in MedicalTorch.
        drop_rate: Share of channels that are zeroed while training.
        bn_momentum: Of batch norm's running mean and variance.
        align_corners: Of the upsampling. False is what release 0.2 does, True what the repository's last commit does.
        outputs: Channels of the logits.
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
        rates = (drop_rate, bn_momentum)
        fine, middle, coarse = channels, 2 * channels, 4 * channels
        self.conv1 = DoubleConv(in_channels, fine, *rates)
        self.conv2 = DoubleConv(fine, middle, *rates)
        self.conv3 = DoubleConv(middle, coarse, *rates)
        self.conv4 = DoubleConv(coarse, coarse, *rates)
        self.up1 = Up(coarse + coarse, coarse, *rates, align_corners)
        self.up2 = Up(coarse + middle, middle, *rates, align_corners)
        self.up3 = Up(middle + fine, fine, *rates, align_corners)
        self.conv9 = nn.Conv2d(fine, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        level1 = self.conv1(x)
        level2 = self.conv2(halved(level1))
        level3 = self.conv3(halved(level2))
        x = self.conv4(halved(level3))
        x = self.up1(x, level3)
        x = self.up2(x, level2)
        x = self.up3(x, level1)
        return _convolved(self.conv9, x)
