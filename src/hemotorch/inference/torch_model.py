"""A torch network as a Model: stacks of neighbouring slices, blocks and their stitching, mirrored slices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

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
        inputs, spacing = self.net.slices, self.spacing

        def by_index(first: int, last: int) -> np.ndarray:
            offsets = np.arange(inputs) - inputs // 2
            neighbours = np.arange(first, last)[:, None] + offsets
            return hu[neighbours.clip(0, len(hu) - 1)]

        if positions_mm is None or spacing is None or taken_by_index(positions_mm, spacing, inputs):
            return by_index

        def by_distance(first: int, last: int) -> np.ndarray:
            weights = stack_weights(positions_mm, spacing.usual_mm, inputs, np.arange(first, last))
            return stacks_to_working(hu, weights)

        return by_distance

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
        below, beside = max(0, size - height), max(0, size - width)
        padded = nn.functional.pad(stack, (0, beside, 0, below), value=AIR_HU)
        blocks = []
        for row, column in tile_corners(height, width, size, self.tiles.stride_px):
            blocks.append((slice(row, row + size), slice(column, column + size)))
        total = torch.zeros((self.net.outputs, *padded.shape[1:]))
        count = torch.zeros(padded.shape[1:])
        step = max(1, BATCH_PIXELS // (size * size))
        for first in range(0, len(blocks), step):
            batch = blocks[first : first + step]
            probabilities = self._forward(torch.stack([padded[:, rows, columns] for rows, columns in batch]))
            for (rows, columns), probability in zip(batch, probabilities, strict=True):
                total[:, rows, columns] += probability
                count[rows, columns] += 1
        return (total / count)[None, :, :height, :width]


def _probability(logits: Tensor) -> Tensor:
    """A single channel by a sigmoid, several by a softmax, see `Task`."""
    logits = logits.float()
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
