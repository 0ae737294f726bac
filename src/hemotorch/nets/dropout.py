"""Dropout that is a function of each sample's key, so that neither a resume nor the number of processes changes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemotorch.keyed_random import DROPOUT, fold, uniform


class Dropout(nn.Module):
    """Zeroes values, or whole channels, with probability p while training, and scales the others by 1 / (1 - p).

    channels: how many there are, of which whole ones are zeroed; 0: single values are. `draw` says before each training
    step from which keys; without them torch's own generator is used, as in `nn.Dropout`.
    """

    def __init__(self, p: float, channels: int = 0):
        super().__init__()
        self.p, self.channels = p, channels
        # Of the next batch, this layer's own: keys (N,), or for channels what was drawn, (N, channels, 1, 1) of 0 to 1.
        self.keys: Tensor | None = None
        self.drawn: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        drawn = self.drawn if self.keys is None else uniform(self.keys, tuple(x.shape[1:]))
        if drawn is None:
            return F.dropout2d(x, self.p) if self.channels else F.dropout(x, self.p)
        kept, scale = drawn >= self.p, 1 / (1 - self.p)
        if x.dtype.itemsize >= 4:
            return x * (kept.to(x.dtype) * scale)  # one pass over x
        # Scaled by a number, not by a tensor of x's type, in which bfloat16 would round it.
        return torch.where(kept, x * scale, 0.0)

    def extra_repr(self) -> str:
        """For printing the network."""
        return f"p={self.p}{', channels' if self.channels else ''}"


def draw(layers: Sequence[Dropout], keys: Tensor | None) -> None:
    """Sets what the layers of a network drop in the next batch, from a key a sample, (N,) int32.

    Which channels go is drawn here, for all layers at once: within a compiled network it would be drawn again for each
    pixel.
    """
    for layer in layers:
        layer.keys = layer.drawn = None
    if keys is None or not layers:
        return
    own = fold(fold(keys, DROPOUT)[:, None], torch.arange(len(layers), dtype=torch.int32, device=keys.device))
    widest = max(layer.channels for layer in layers)
    drawn = uniform(own.flatten(), (widest, 1, 1)).view(*own.shape, widest, 1, 1) if widest else None
    for place, layer in enumerate(layers):
        if drawn is not None and layer.channels:
            layer.drawn = drawn[:, place, : layer.channels]
        else:
            layer.keys = own[:, place]
