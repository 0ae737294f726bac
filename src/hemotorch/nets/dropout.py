"""Dropout that is a function of each sample's key, so that neither a resume nor the number of processes changes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemotorch.keyed_random import DROPOUT, fold, uniform


class Dropout(nn.Module):
    """Zeroes values, or whole channels, with probability p while training, and scales the others by 1 / (1 - p).

    channels: how many there are, of which whole ones are zeroed; 0: single values are.
    `set_dropout_keys` says before each training step from which keys; without them torch's own generator is used, as in
    `nn.Dropout`.
    """

    def __init__(self, p: float, channels: int = 0):
        super().__init__()
        self.p = p
        self.channels = channels
        # Of the next batch. For values: this layer's keys (N,). For channels: random numbers (N, channels, 1, 1) of
        # 0 to 1, made outside of the network, since a compiled one would make them again for each pixel.
        self.keys: Tensor | None = None
        self.random: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        random = self.random
        if self.keys is not None:
            random = uniform(self.keys, tuple(x.shape[1:]))
        if random is None:
            return F.dropout2d(x, self.p) if self.channels else F.dropout(x, self.p)
        stays = random >= self.p
        scale = 1 / (1 - self.p)
        if x.dtype.itemsize >= 4:
            return x * (stays.to(x.dtype) * scale)  # one pass over x
        # Scaled by a number, not by a tensor of x's type, in which bfloat16 would round it.
        return torch.where(stays, x * scale, 0.0)

    def extra_repr(self) -> str:
        """For printing the network."""
        return f"p={self.p}{', channels' if self.channels else ''}"


def set_dropout_keys(layers: Sequence[Dropout], keys: Tensor | None) -> None:
    """Sets what the layers of a network zero in the next batch.

    Args:
        layers: All of the network's, in its order.
        keys: (N,) int32, one per sample; None for torch's own generator.
    """
    for layer in layers:
        layer.keys = layer.random = None
    if keys is None or not layers:
        return
    numbers = torch.arange(len(layers), dtype=torch.int32, device=keys.device)
    keys_of_layers = fold(fold(keys, DROPOUT)[:, None], numbers)
    # For all layers at once: the random numbers of a layer with fewer channels are the first of them.
    channels = max(layer.channels for layer in layers)
    if channels:
        flat = uniform(keys_of_layers.flatten(), (channels, 1, 1))
        random_of_layers = flat.view(*keys_of_layers.shape, channels, 1, 1)
    for number, layer in enumerate(layers):
        if layer.channels:
            layer.random = random_of_layers[:, number, : layer.channels]
        else:
            layer.keys = keys_of_layers[:, number]
