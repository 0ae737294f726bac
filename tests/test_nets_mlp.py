"""`mlp`: convolutions that are a perceptron on flattened windows."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hemotorch import nets


@pytest.mark.parametrize(("slices", "patch", "hidden"), [(1, 15, [64, 32]), (3, 5, [7]), (1, 3, [4, 5, 6])])
def test_is_a_perceptron_on_flattened_windows(slices: int, patch: int, hidden: list[int]) -> None:
    torch.manual_seed(0)
    net = nets.build("mlp", slices=slices, patch=patch, hidden=hidden, windows=["brain", "bone"])
    ct = torch.randint(-100, 200, (2, slices, 20, 17), dtype=torch.int16)
    # the reference: cut out every pixel's window, flatten it, and use fully connected layers
    windows = F.unfold(net.window(ct), patch, padding=patch // 2).transpose(1, 2).reshape(-1, slices * 2 * patch**2)
    x = windows
    convolutions = [layer for layer in net.body.layers if isinstance(layer, nn.Conv2d)]
    for number, convolution in enumerate(convolutions):
        x = F.linear(x, convolution.weight.flatten(1), convolution.bias)
        x = x.relu() if number < len(convolutions) - 1 else x
    torch.testing.assert_close(net(ct), x.reshape(2, 1, 20, 17), rtol=1e-4, atol=1e-5)
