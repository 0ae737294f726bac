"""Dropout that is a function of each sample's key, so that neither a resume nor the number of processes changes it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemotorch.draws import DROPOUT, fold, uniform


class Dropout(nn.Module):
    """Zeroes values, or whole channels, with probability p while training, and scales the others by 1 / (1 - p).

    keys: (N,) int32, one a sample, set by `Net.draw` before each training step; place: the layer's number in its
    network, so that layers draw apart. Without keys torch's own generator is used, as in `nn.Dropout`.
    """

    def __init__(self, p: float, channels: bool = False):
        super().__init__()
        self.p, self.channels, self.place = p, channels, 0
        self.keys: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        if self.keys is None:
            return F.dropout2d(x, self.p) if self.channels else F.dropout(x, self.p)
        shape = (x.shape[1], 1, 1) if self.channels else tuple(x.shape[1:])
        kept = uniform(fold(fold(self.keys, DROPOUT), self.place), shape) >= self.p
        # Scaled by a number, not by a tensor of x's type, in which bfloat16 would round it.
        return torch.where(kept, x * (1 / (1 - self.p)), 0.0)

    def extra_repr(self) -> str:
        """For printing the network."""
        return f"p={self.p}{', channels' if self.channels else ''}"
