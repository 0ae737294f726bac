"""A torch network as a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from hemotorch.grid import SliceSpacing
from hemotorch.inference.deployment import Deployment
from hemotorch.inference.stacks import StackReader
from hemotorch.nets import Net
from hemotorch.recipe import Tiles
from hemotorch.system.device import Device


@dataclass(frozen=True)
class TorchModel:
    """A network in evaluation mode on its device.

    tiles: blocks that slices are cut into, see `recipe.Tiles`. mirror: also look at the mirrored slice, and average.
    spacing: the slice distances it was trained on, None if unknown: neighbours are then taken by index.
    """

    net: Net = field(repr=False)  # torch prints every layer
    device: Device
    tiles: Tiles
    mirror: bool
    spacing: SliceSpacing | None

    @staticmethod
    def of(net: Net, device: Device, deployment: Deployment) -> TorchModel:
        """A network, in evaluation mode on the device, as it is deployed."""
        return TorchModel(net, device, deployment.tiles, deployment.predict.mirror, deployment.slice_spacing)

    @property
    def multiple(self) -> int:
        """See `Model`."""
        return self.net.multiple

    @property
    def spacings(self) -> tuple[SliceSpacing | None, ...]:
        """See `Model`."""
        return (self.spacing,)

    def batch(self, rows: int, columns: int) -> int:
        """See `Model`."""
        return self._reader.batch(rows, columns)

    def without_mirror(self) -> TorchModel:
        """See `Model`."""
        return replace(self, mirror=False)

    def probabilities(
        self, hu: np.ndarray, positions_mm: np.ndarray | None = None, slices: Sequence[int] | None = None
    ) -> np.ndarray:
        """See `Model.probabilities`."""
        with torch.inference_mode():
            return self._reader.probabilities(self._forward, hu, positions_mm, slices)

    @property
    def _reader(self) -> StackReader:
        return StackReader(self.net.slices, self.net.outputs, self.tiles, self.spacing)

    def _forward(self, stacks: np.ndarray) -> np.ndarray:
        """(m, slices, H, W) HU to (m, channels, H, W) float32 probabilities."""
        memory_format = self.device.memory_format
        hu = torch.from_numpy(stacks).to(self.device.torch_device, self.device.dtype)
        hu = hu.contiguous(memory_format=memory_format)
        with self.device.autocast():
            probability = probability_of(self.net(hu))
            if self.mirror:
                probability = (probability + probability_of(self.net(hu.flip(-1)).flip(-1))) / 2
        return probability.cpu().numpy()


def probability_of(logits: Tensor) -> Tensor:
    """Logits (N, channels, ...) as float32 probabilities: a single channel by a sigmoid, several by a softmax."""
    logits = logits.float()
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
