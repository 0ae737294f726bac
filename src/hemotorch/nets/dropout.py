"""Dropout that is a function of each sample's key, so that neither a resume nor the number of processes changes it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from hemotorch.draws import fold, uniform


class Dropout(nn.Module):
    """Zeroes values, or whole channels, with probability p while training, and scales the others by 1 / (1 - p).

    keys: (N,) int32, one a sample, set by `Net.draw` before each training step; place: the layer's number in its
    network. Without keys torch's own generator is used, as in `nn.Dropout`.
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
        kept = uniform(fold(self.keys, self.place), shape) >= self.p
        return x * kept.to(x.dtype).mul_(1 / (1 - self.p))

    def extra_repr(self) -> str:
        """For printing the network."""
        return f"p={self.p}{', channels' if self.channels else ''}"


def draw(net: nn.Module, keys: Tensor | None) -> None:
    """Gives every dropout layer of a network the keys of the batch to come."""
    for place, layer in enumerate(module for module in net.modules() if isinstance(module, Dropout)):
        layer.place, layer.keys = place + 1, keys
