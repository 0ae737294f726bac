"""Distances between slices, and what a network sees in place of slices at another distance than it was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from hemotorch.scan import Scan
from hemotorch.system.records import MM, record

#: Slice distances that differ by no more than this factor are one kind. A network of 6.3 mm gave 1.2 times the mL at
#: 2.6 mm if neighbours were taken by index, and the same mL if they were averages of 6.3 mm.
ALIKE = 0.6
RANGE_TOLERANCE = 0.1  #: by which a scan's slice distance may leave the trained range before that is said


@record
class SliceSpacing:
    """Distances between neighbouring slices that a network was trained on; of each scan its median counts."""

    usual_mm: float = Field(gt=0, description="the median over the training scans", json_schema_extra=MM)
    least_mm: float = Field(gt=0, description="the smallest of them", json_schema_extra=MM)
    most_mm: float = Field(gt=0, description="the largest of them", json_schema_extra=MM)

    def __post_init__(self) -> None:
        if not self.least_mm <= self.usual_mm <= self.most_mm:
            raise ValueError("the usual distance lies between the smallest and the largest")

    @staticmethod
    def of(distances_mm: Sequence[float]) -> SliceSpacing | None:
        """The spacing of training scans whose typical slice distances are these; None if there are none."""
        if not distances_mm:
            return None
        usual_mm = float(np.median(distances_mm))
        return SliceSpacing(usual_mm, float(min(distances_mm)), float(max(distances_mm)))

    def warning(self, distance_mm: float) -> str | None:
        """What to say of a scan with this typical slice distance: None if the network was trained on such scans."""
        low = self.least_mm * (1 - RANGE_TOLERANCE)
        high = self.most_mm * (1 + RANGE_TOLERANCE)
        if low <= distance_mm <= high:
            return None
        trained = f"{self.least_mm:.3g} to {self.most_mm:.3g} mm"
        if self.most_mm - self.least_mm < 0.05:
            trained = f"{self.usual_mm:.3g} mm"
        text = f"slices are {distance_mm:.3g} mm apart, the network was trained on {trained}"
        if distance_mm < low:
            return f"{text}: it is shown averages of {self.usual_mm:.3g} mm"
        return f"{text}: its neighbouring slices are too far apart"


def slice_positions_mm(scan: Scan) -> np.ndarray | None:
    """(slices,) positions along the scan's normal, the first one 0; None if they are unknown or there is one slice."""
    if not scan.spacing_known or len(scan.hu) < 2:
        return None
    return np.concatenate([[0.0], np.cumsum(scan.slice_distances_mm)])


def typical_distance_mm(positions_mm: np.ndarray) -> float:
    """The median distance between neighbouring slices at these positions."""
    return float(np.median(np.abs(np.diff(positions_mm))))


def taken_by_index(positions_mm: np.ndarray | None, spacing: SliceSpacing | None, slices: int) -> bool:
    """Whether a network of so many input slices gets a scan's slices as they are, its neighbours by their index.

    That is so if distances are unknown, and if all of them lie in the range that the network was trained on, as far as
    that range lies within a factor of ALIKE of the usual one. Within it nothing is resampled, in training or after:
    bringing the demo's phantoms (3.9 to 7.5 mm) to one distance left 2 of 6 normal scans clean, not 4 (docs/log.md).
    A network that looks at one slice alone has no neighbours: it gets all slices as they are unless they are closer
    than any it was trained on.
    """
    if positions_mm is None or spacing is None:
        return True
    if slices == 1:
        return typical_distance_mm(positions_mm) >= spacing.least_mm * (1 - RANGE_TOLERANCE)
    distances = np.abs(np.diff(positions_mm))
    low = max(spacing.least_mm, spacing.usual_mm * ALIKE) * (1 - RANGE_TOLERANCE)
    high = min(spacing.most_mm, spacing.usual_mm / ALIKE) * (1 + RANGE_TOLERANCE)
    return bool(((distances >= low) & (distances <= high)).all())


def stack_weights(positions_mm: np.ndarray, distance_mm: float, slices: int, indices: np.ndarray) -> np.ndarray:
    """What a network sees in place of each slice and its neighbours: averages over slabs of the trained thickness.

    Each source slice stands for the body from halfway to its lower neighbour to halfway to its upper one, end slices
    mirrored. A slab is `distance_mm` thick; slabs lie `distance_mm` apart around each slice, and the weight of a source
    slice is its share of the slab. So a scan of the trained distance gets its own slices, a thinner one the noise and
    partial volume that the network knows, and a thicker or uneven one what lies at the true distance. Slabs beyond the
    scan's ends are centred on its end slices, as neighbours by index are.

    Args:
        positions_mm: (n,) positions of the source slices along the normal, in any order.
        distance_mm: the trained distance between slices.
        slices: how many slices the network sees at once, an odd number.
        indices: (m,) which source slices are predicted.

    Returns:
        (m, slices, n) float64 weights, each row's sum 1.
    """
    order = np.argsort(positions_mm, kind="stable")
    ordered = positions_mm[order]
    middles = (ordered[1:] + ordered[:-1]) / 2
    first, last = ordered[0], ordered[-1]
    lower = np.concatenate([[2 * first - middles[0]], middles])
    upper = np.concatenate([middles, [2 * last - middles[-1]]])
    offsets = (np.arange(slices) - slices // 2) * distance_mm
    if positions_mm[-1] < positions_mm[0]:
        offsets = -offsets  # the neighbour with the next index lies at the smaller position
    centres = np.clip(positions_mm[indices][:, None] + offsets, first, last)[..., None]
    top = np.minimum(upper, centres + distance_mm / 2)
    bottom = np.maximum(lower, centres - distance_mm / 2)
    overlap = np.maximum(top - bottom, 0)
    # Slices that all lie at one position stand for no thickness: the nearest ones count.
    distance = np.abs(ordered - centres)
    nearest = distance == distance.min(axis=2, keepdims=True)
    empty = overlap.sum(axis=2, keepdims=True) == 0
    overlap = np.where(empty, nearest, overlap)
    weights = np.empty(overlap.shape)
    weights[..., order] = overlap / overlap.sum(axis=2, keepdims=True)
    return weights


def stacks_to_working(hu: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, H, W) int16 HU on the grid to int16 (m, slices, H, W): what the network sees, see `stack_weights`."""
    return np.rint(average_slices(hu, weights)).astype(np.int16)


def average_slices(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sums of slices: (n, H, W) values and (..., n) weights to (..., H, W) float32.

    Slice by slice in one order, so that a training that keeps all slices and one that streams a few get the same bits.
    """
    flat = weights.reshape(math.prod(weights.shape[:-1]), weights.shape[-1])  # of no slices, too
    out = np.zeros((len(flat), *values.shape[1:]), np.float32)
    for number, row in enumerate(flat):
        for source in np.flatnonzero(row):
            out[number] += np.float32(row[source]) * values[source]
    return out.reshape(*weights.shape[:-1], *values.shape[1:])
