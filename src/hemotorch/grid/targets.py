"""What is known of each pixel, on the grid: the sets of channels of `task`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hemotorch.grid.placement import Placement, shifted
from hemotorch.grid.slabs import average_slices
from hemotorch.task import BLEEDING_BITS


def target_to_working(target: np.ndarray, placement: Placement) -> np.ndarray:
    """A target on the grid.

    A pixel is bleeding if bleeding of all kinds fills at least half of it; then it gets the set of channels that fills
    most of it among the sets of bleeding, else the one among the others. No set is made that was not there.

    Args:
        target: (n, rows, columns) uint8 bits, see `task`.

    Returns:
        uint8 (n, working rows, working columns); 0 outside the slice.
    """
    if placement.exact:
        return shifted(target, placement.rows, placement.columns, 0, np.uint8)
    return TargetShares.of(target, placement).decided()


@dataclass(frozen=True)
class SliceShares:
    """How much of each working pixel something fills.

    indices: (held,) the slices that hold any of it; share: (held, H, W) float32; slices: how many there are in all.
    """

    indices: np.ndarray
    share: np.ndarray
    slices: int

    @staticmethod
    def of(held: np.ndarray, placement: Placement) -> SliceShares:
        """The shares of what is True in (slices, rows, columns)."""
        indices = np.flatnonzero(held.any(axis=(1, 2)))
        return SliceShares(indices, placement.to_working(held[indices], 0.0), len(held))

    def averaged(self, weights: np.ndarray | None) -> np.ndarray:
        """The shares of all slices (slices, H, W), or of slabs (..., H, W) for their weights (..., slices)."""
        if weights is not None:
            return average_slices(self.share, weights[..., self.indices])
        whole = np.zeros((self.slices, *self.share.shape[1:]), np.float32)
        whole[self.indices] = self.share
        return whole


@dataclass(frozen=True)
class TargetShares:
    """What each working pixel of a target is made of: shares of all bleeding, and of each value other than 0."""

    bleeding: SliceShares
    values: dict[int, SliceShares]

    @staticmethod
    def of(target: np.ndarray, placement: Placement) -> TargetShares:
        """The shares of (slices, rows, columns) uint8 bits."""
        present = np.zeros(256, bool)
        for slice_target in target:
            present |= np.bincount(slice_target.ravel(), minlength=256) > 0
        bleeding = SliceShares.of((target & BLEEDING_BITS) > 0, placement)
        values = np.flatnonzero(present[1:]) + 1
        bleeding_values = np.count_nonzero(values & BLEEDING_BITS)
        shares = {}
        for value in values.tolist():
            if value & BLEEDING_BITS and bleeding_values == 1:
                shares[value] = bleeding
            else:
                shares[value] = SliceShares.of(target == value, placement)
        return TargetShares(bleeding, shares)

    def decided(self, weights: np.ndarray | None = None) -> np.ndarray:
        """The target on the grid, see `target_to_working`.

        Args:
            weights: (..., slices) of `stack_weights`, for slabs as thick as the network's slices; None for slices.

        Returns:
            uint8 (slices, H, W), or (..., H, W) with weights.
        """
        bleeding = self.bleeding.averaged(weights)
        # A sum of weights in float32 that is one half exactly may come out a little less.
        bleeds = bleeding >= (0.5 if weights is None else 0.5 - 1e-6)
        if set(self.values) <= {1}:
            return bleeds.astype(np.uint8)
        shares = {value: share.averaged(weights) for value, share in sorted(self.values.items())}
        unknown = 1 - bleeding
        for value, share in shares.items():
            if not value & BLEEDING_BITS:
                unknown -= share
        largest = np.where(bleeds, np.float32(0), unknown)
        target = np.zeros(bleeding.shape, np.uint8)
        for value, share in shares.items():
            competes = bleeds if value & BLEEDING_BITS else ~bleeds
            larger = competes & (share > largest)
            target[larger] = value
            largest = np.where(larger, share, largest)
        return target
