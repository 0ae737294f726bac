"""What networks see of a scan: stacks of neighbouring slices, in batches or in blocks that are stitched together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hemotorch.grid import SliceSpacing, stack_weights, stacks_to_working, taken_by_index, tile_corners
from hemotorch.hu import AIR_HU
from hemotorch.recipe import Tiles

BATCH_PIXELS = 8 * 192 * 192  #: of a forward pass: as many slices as make this many pixels

#: (m, slices, H, W) HU, int16 or float32, to (m, channels, H, W) float32 probabilities.
Forward = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class StackReader:
    """How a network is asked about the slices of a scan.

    slices: that it sees of each. outputs: channels of its answer. tiles: blocks that slices are cut into.
    spacing: the slice distances it was trained on, None if unknown: neighbours are then taken by index.
    """

    slices: int
    outputs: int
    tiles: Tiles
    spacing: SliceSpacing | None

    def batch(self, rows: int, columns: int) -> int:
        """How many slices of that size are answered at once. Blocks are made of one slice at a time."""
        return 1 if self.tiles.size_px else max(1, BATCH_PIXELS // (rows * columns))

    def probabilities(
        self, forward: Forward, hu: np.ndarray, positions_mm: np.ndarray | None, slices: Sequence[int] | None
    ) -> np.ndarray:
        """See `Model.probabilities`; `forward` is the network."""
        indices = np.arange(len(hu)) if slices is None else np.array(slices, int)
        stacks = self._stacks(hu, positions_mm)
        step = self.batch(*hu.shape[1:])
        parts = []
        for first in range(0, len(indices), step):
            stack = stacks(indices[first : first + step])
            parts.append(self._stitched(forward, stack[0]) if self.tiles.size_px else forward(stack))
        return np.concatenate(parts).swapaxes(0, 1)

    def _stacks(self, hu: np.ndarray, positions_mm: np.ndarray | None) -> Callable[[np.ndarray], np.ndarray]:
        """What gives the stacks (m, slices, H, W) that the network sees of the slices with m indices."""
        inputs, spacing = self.slices, self.spacing

        def by_index(indices: np.ndarray) -> np.ndarray:
            offsets = np.arange(inputs) - inputs // 2
            neighbours = indices[:, None] + offsets
            return hu[neighbours.clip(0, len(hu) - 1)]

        if positions_mm is None or spacing is None or taken_by_index(positions_mm, spacing, inputs):
            return by_index

        def by_distance(indices: np.ndarray) -> np.ndarray:
            weights = stack_weights(positions_mm, spacing.usual_mm, inputs, indices)
            return stacks_to_working(hu, weights)

        return by_distance

    def _stitched(self, forward: Forward, stack: np.ndarray) -> np.ndarray:
        """One slice (slices, H, W) in overlapping blocks, (1, channels, H, W) averaged where they overlap."""
        height, width = stack.shape[1:]
        size = self.tiles.size_px
        below, beside = max(0, size - height), max(0, size - width)
        padded = np.pad(stack, ((0, 0), (0, below), (0, beside)), constant_values=AIR_HU)
        blocks = []
        for row, column in tile_corners(height, width, size, self.tiles.stride_px):
            blocks.append((slice(row, row + size), slice(column, column + size)))
        total = np.zeros((self.outputs, *padded.shape[1:]), np.float32)
        count = np.zeros(padded.shape[1:], np.float32)
        step = max(1, BATCH_PIXELS // (size * size))
        for first in range(0, len(blocks), step):
            batch = blocks[first : first + step]
            probabilities = forward(np.stack([padded[:, rows, columns] for rows, columns in batch]))
            for (rows, columns), probability in zip(batch, probabilities, strict=True):
                total[:, rows, columns] += probability
                count[rows, columns] += 1
        return (total / count)[None, :, :height, :width]
