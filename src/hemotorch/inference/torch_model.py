"""A torch network as a Model: stacks of neighbouring slices, blocks and their stitching, mirrored slices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hemotorch.grid import SliceSpacing, stack_weights, stacks_to_working, taken_by_index, tile_corners
from hemotorch.hu import AIR_HU
from hemotorch.inference.deployment import Deployment
from hemotorch.nets import Net
from hemotorch.recipe import Tiles
from hemotorch.system.device import Device

BATCH_PIXELS = 8 * 192 * 192  #: of a forward pass: as many slices as make this many pixels


@dataclass(frozen=True)
class TorchModel:
    """A network in evaluation mode on its device.

    tiles: blocks that slices are cut into, see `recipe.Tiles`. mirror: also look at the mirrored slice, and average.
    spacing: the slice distances it was trained on, None if unknown: neighbours are then taken by index.
    """

    net: Net
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
        """See `Model`. Blocks are made of one slice at a time."""
        return 1 if self.tiles.size_px else max(1, BATCH_PIXELS // (rows * columns))

    def probabilities(
        self, hu: np.ndarray, positions_mm: np.ndarray | None = None, slices: range | None = None
    ) -> np.ndarray:
        """See `Model.probabilities`."""
        if slices is None:
            slices = range(len(hu))
        stacks = self._stacks(hu, positions_mm)
        step = self.batch(*hu.shape[1:])
        parts = []
        with torch.inference_mode():
            for first in range(slices.start, slices.stop, step):
                stack = torch.from_numpy(stacks(first, min(first + step, slices.stop)))
                parts.append(self._stitched(stack[0]) if self.tiles.size_px else self._forward(stack))
            return torch.cat(parts).transpose(0, 1).numpy()

    def _stacks(self, hu: np.ndarray, positions_mm: np.ndarray | None) -> Callable[[int, int], np.ndarray]:
        """What gives the stacks (m, slices, H, W) that the network sees of the slices from `first` up to `last`."""
        count, radius = len(hu), self.net.slices // 2
        if positions_mm is None or self.spacing is None or taken_by_index(positions_mm, self.spacing, self.net.slices):
            neighbours = np.arange(count)[:, None] + np.arange(-radius, radius + 1)
            indices = neighbours.clip(0, count - 1)
            return lambda first, last: hu[indices[first:last]]
        positions, distance = positions_mm, self.spacing.usual_mm

        def averaged(first: int, last: int) -> np.ndarray:
            weights = stack_weights(positions, distance, self.net.slices, np.arange(first, last))
            return stacks_to_working(hu, weights)

        return averaged

    def _forward(self, stacks: Tensor) -> Tensor:
        """(m, slices, H, W) HU to (m, channels, H, W) float32 probabilities on the CPU."""
        memory_format = self.device.memory_format
        hu = stacks.to(self.device.torch_device, self.device.dtype).contiguous(memory_format=memory_format)
        with self.device.autocast():
            probability = _probability(self.net(hu))
            if self.mirror:
                probability = (probability + _probability(self.net(hu.flip(-1)).flip(-1))) / 2
        return probability.cpu()

    def _stitched(self, stack: Tensor) -> Tensor:
        """One slice (slices, H, W) in overlapping blocks, (1, channels, H, W) averaged where they overlap."""
        height, width = stack.shape[1:]
        size = self.tiles.size_px
        padded = nn.functional.pad(stack, (0, max(0, size - width), 0, max(0, size - height)), value=AIR_HU)
        corners = tile_corners(height, width, size, self.tiles.stride_px)
        step = max(1, BATCH_PIXELS // (size * size))
        total = torch.zeros(())
        count = torch.zeros(padded.shape[1:])
        for first in range(0, len(corners), step):
            part = corners[first : first + step]
            blocks = torch.stack([padded[:, top : top + size, left : left + size] for top, left in part])
            probabilities = self._forward(blocks)
            if not total.ndim:
                total = torch.zeros((probabilities.shape[1], *padded.shape[1:]))
            for (top, left), probability in zip(part, probabilities, strict=True):
                total[:, top : top + size, left : left + size] += probability
                count[top : top + size, left : left + size] += 1
        return (total / count)[None, :, :height, :width]


def _probability(logits: Tensor) -> Tensor:
    """A single channel by a sigmoid, several by a softmax, see `Task`."""
    logits = logits.float()
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
