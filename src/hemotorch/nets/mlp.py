"""The paper's simplest network: a multilayer perceptron on the flattened window of pixels around each pixel."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class PixelMlp(nn.Module):
    """(N, in_channels, rows, columns) to logits (N, outputs, rows, columns), any size.

    Each pixel's `patch` x `patch` surroundings, flattened, go through fully connected layers of `hidden` units with
    ReLU to one logit per output. Written as convolutions, which is the same sum without the patch copied for every
    pixel: the first layer is a patch x patch convolution, the others are 1x1. Outside the image there are zeros: a
    window's darkest value.
    """

    multiple = 1

    def __init__(self, in_channels: int = 1, patch: int = 15, hidden: Sequence[int] = (64, 32), outputs: int = 1):
        super().__init__()
        layers: list[nn.Module] = []
        inputs, kernel = in_channels, patch
        for units in hidden:
            layers.append(nn.Conv2d(inputs, units, kernel, padding=kernel // 2))
            layers.append(nn.ReLU(inplace=True))
            inputs, kernel = units, 1
        layers.append(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
