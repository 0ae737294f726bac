"""Working resolution, crop and pad, and the way back. The only resampler: training and prediction both use it.

A network sees slices of its own pixel size, cropped around the head. Both directions are products with small weight
matrices (an antialiased triangle filter, as Pillow's bilinear resize), so what lies outside a slice is air by
construction, and a working pixel's place in the source is known exactly.

Through the plane the output keeps the scan's own slices, but what the network sees of each, and of its neighbours, is
as thick and as far apart as the slices it was trained on: `stack_weights`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hemotorch.hu import AIR_HU
from hemotorch.scan import Scan
from hemotorch.task import BLEEDING_BITS

ASSUMED_FIELD_MM = 230.0  #: field of view taken for images without spacing: 512 pixels of 0.45 mm, the CT-ICH scans'
#: Slice distances that differ by no more than this factor are one kind. A network of 6.3 mm gave 1.2 times the mL at
#: 2.6 mm if neighbours were taken by index, and the same mL if they were averages of 6.3 mm.
ALIKE = 0.6
RANGE_TOLERANCE = 0.1  #: by which a scan's slice distance may leave the trained range before that is said
EVERY = slice(None)
SOFT_TISSUE_HU = (0, 90)  #: what the crop is centred on; in a head this is mostly brain


@dataclass(frozen=True)
class Grid:
    """The pixels a network works on.

    pixel_mm: pixel size in mm; 0 keeps the scan's own. size_px: rows and columns of a square around the head; 0 keeps
    the whole slice. multiple: rows and columns are padded up to a multiple of this (the network's total stride).
    """

    pixel_mm: float = 0.0
    size_px: int = 0
    multiple: int = 1


@dataclass(frozen=True)
class Axis:
    """Where working pixels lie along one axis: pixel i has its centre at source index start + i * step."""

    source: int
    working: int
    start: float
    step: float

    def to_working(self) -> Tensor:
        """(working, source) weights; rows sum to 1 inside the source and to less where air is needed."""
        centres = self.start + self.step * torch.arange(self.working, dtype=torch.float64)
        return _triangle(centres, self.source, max(1.0, self.step))

    def from_working(self) -> Tensor:
        """(source, working) weights of the way back."""
        centres = (torch.arange(self.source, dtype=torch.float64) - self.start) / self.step
        return _triangle(centres, self.working, max(1.0, 1.0 / self.step))

    @property
    def crop(self) -> int | None:
        """The first source index where no resampling is needed, else None."""
        return round(self.start) if self.step == 1.0 and float(self.start).is_integer() else None


def _triangle(centres: Tensor, count: int, width: float) -> Tensor:
    positions = torch.arange(-int(width) - 1, count + int(width) + 1, dtype=torch.float64)
    weights = (1 - (positions[None] - centres[:, None]).abs() / width).clamp(min=0)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-9)
    return weights[:, int(width) + 1 : int(width) + 1 + count].float().contiguous()


@dataclass(frozen=True)
class Placement:
    """Where a grid lies on one scan's slices."""

    rows: Axis
    columns: Axis

    @property
    def exact(self) -> bool:
        """Whether nothing is resampled, only cropped and padded."""
        return self.rows.crop is not None and self.columns.crop is not None

    def to_working(self, values: Tensor, fill: float) -> Tensor:
        """(n, rows, columns) of any dtype to float32 (n, working rows, working columns); `fill` outside the slice."""
        if self.exact:
            return _shift(values.float(), self.rows, self.columns, fill)
        rows, columns = (axis.to_working().to(values.device) for axis in (self.rows, self.columns))
        return rows @ (values.float() - fill) @ columns.T + fill

    def from_working(self, values: Tensor, rows: slice = EVERY, columns: slice = EVERY) -> Tensor:
        """Brings values on the grid back to the scan.

        Args:
            values: (n, working rows, working columns) floats.
            rows, columns: The part of the scan's slices to bring them to; all if not given.

        Returns:
            (n, rows, columns) float32; 0 outside the grid.
        """
        if self.exact:
            rows_back = Axis(self.rows.working, self.rows.source, -self.rows.start, 1.0)
            columns_back = Axis(self.columns.working, self.columns.source, -self.columns.start, 1.0)
            return _shift(values.float(), rows_back, columns_back, 0.0)[:, rows, columns]
        row_weights = self.rows.from_working()[rows].to(values.device)
        column_weights = self.columns.from_working()[columns].to(values.device)
        return row_weights @ values.float() @ column_weights.T


def tile_corners(height: int, width: int, size_px: int, stride_px: int) -> list[tuple[int, int]]:
    """Top-left corners (row, column) of square blocks over an image of that many pixels, the last flush to its edge."""

    def starts(length: int) -> list[int]:
        if length <= size_px:
            return [0]
        return [*range(0, length - size_px, stride_px), length - size_px]

    return [(top, left) for top in starts(height) for left in starts(width)]


def _shift(values: Tensor, rows: Axis, columns: Axis, fill: float) -> Tensor:
    out = values.new_full((len(values), rows.working, columns.working), fill)
    (r_out, r_in), (c_out, c_in) = _overlap(rows), _overlap(columns)
    out[:, r_out, c_out] = values[:, r_in, c_in]
    return out


def _overlap(axis: Axis) -> tuple[slice, slice]:
    start = round(axis.start)
    first, last = max(0, -start), min(axis.working, axis.source - start)
    return slice(first, max(first, last)), slice(first + start, max(first, last) + start)


def place(grid: Grid, scan: Scan) -> Placement:
    """Lays a grid on a scan: around the head where the grid is cropped, else over the whole slice."""
    row_mm, column_mm = scan.pixel_mm if scan.spacing_known else (ASSUMED_FIELD_MM / max(scan.shape[1:]),) * 2
    centre = head_centre(scan.hu) if grid.size_px else ((scan.shape[1] - 1) / 2, (scan.shape[2] - 1) / 2)
    return Placement(
        _axis(grid, scan.shape[1], row_mm, centre[0]),
        _axis(grid, scan.shape[2], column_mm, centre[1]),
    )


def _axis(grid: Grid, source: int, source_mm: float, centre: float) -> Axis:
    step = grid.pixel_mm / source_mm if grid.pixel_mm else 1.0
    if abs(step - 1) < 1e-3:
        step = 1.0
    wanted = grid.size_px or int(np.ceil(source / step - 1e-6))
    working = -(-wanted // grid.multiple) * grid.multiple
    start = centre - step * (wanted - 1) / 2
    return Axis(source, working, float(round(start)) if step == 1.0 else start, step)


def head_centre(hu: np.ndarray) -> tuple[float, float]:
    """Row and column of the middle of the soft tissue: the median place of pixels of 0 to 90 HU.

    hu: (slices, rows, columns). The middle of the slice where there is no such tissue.
    """
    stride = max(1, hu.shape[1] // 128)
    low, high = SOFT_TISSUE_HU
    coarse = hu[:, ::stride, ::stride]
    counts = ((coarse > low) & (coarse < high)).sum(0)
    if not counts.any():
        return (hu.shape[1] - 1) / 2, (hu.shape[2] - 1) / 2
    return _median(counts.sum(1)) * stride, _median(counts.sum(0)) * stride


def _median(counts: np.ndarray) -> float:
    return float(np.searchsorted(np.cumsum(counts), counts.sum() / 2))


def hu_to_working(hu: np.ndarray, placement: Placement) -> Tensor:
    """(n, rows, columns) int16 HU to int16 (n, working rows, working columns); air outside the slice."""
    return placement.to_working(torch.from_numpy(np.ascontiguousarray(hu)), AIR_HU).round_().to(torch.int16)


def target_to_working(target: np.ndarray, placement: Placement) -> Tensor:
    """A target on the grid.

    A pixel is bleeding if bleeding of all kinds fills at least half of it; then it gets the set of channels that fills
    most of it among the sets of bleeding, else the one among the others. No set is made that was not there.

    Args:
        target: (n, rows, columns) uint8 bits, see `task`.

    Returns:
        uint8 (n, working rows, working columns); 0 outside the slice.
    """
    if placement.exact:
        return _shift(torch.from_numpy(np.ascontiguousarray(target)), placement.rows, placement.columns, 0)
    return TargetShares.of(target, placement).decided()


@dataclass(frozen=True)
class SliceShares:
    """How much of each working pixel something fills.

    indices: (held,) the slices that hold any of it; share: (held, H, W) float32; slices: how many there are in all.
    """

    indices: np.ndarray
    share: Tensor
    slices: int

    @staticmethod
    def of(held: np.ndarray, placement: Placement) -> SliceShares:
        """The shares of what is True in (slices, rows, columns)."""
        indices = np.flatnonzero(held.any(axis=(1, 2)))
        return SliceShares(indices, placement.to_working(torch.from_numpy(held[indices]), 0.0), len(held))

    def averaged(self, weights: np.ndarray | None) -> Tensor:
        """The shares of all slices (slices, H, W), or of slabs (..., H, W) for their weights (..., slices)."""
        if weights is not None:
            return average_slices(self.share, weights[..., self.indices])
        whole = torch.zeros((self.slices, *self.share.shape[1:]))
        whole[torch.from_numpy(self.indices)] = self.share
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
        values = [int(value) for value in np.flatnonzero(present) if value]
        if sum(bool(value & BLEEDING_BITS) for value in values) == 1:
            shares = {value: bleeding for value in values if value & BLEEDING_BITS}
            shares |= {value: SliceShares.of(target == value, placement) for value in values if value not in shares}
        else:
            shares = {value: SliceShares.of(target == value, placement) for value in values}
        return TargetShares(bleeding, shares)

    def decided(self, weights: np.ndarray | None = None) -> Tensor:
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
            return bleeds.to(torch.uint8)
        shares = {value: share.averaged(weights) for value, share in sorted(self.values.items())}
        unknown = 1 - bleeding
        for value, share in shares.items():
            if not value & BLEEDING_BITS:
                unknown -= share
        largest = unknown.masked_fill(bleeds, 0.0)
        target = torch.zeros_like(bleeding, dtype=torch.uint8)
        for value, share in shares.items():
            competes = bleeds if value & BLEEDING_BITS else ~bleeds
            larger = competes & (share > largest)
            target.masked_fill_(larger, value)
            largest = torch.where(larger, share, largest)
        return target


def stacks_to_working(hu: Tensor, weights: np.ndarray) -> Tensor:
    """(n, H, W) int16 HU on the grid to int16 (m, slices, H, W): what the network sees, see `stack_weights`."""
    return average_slices(hu, weights).round_().to(torch.int16)


@dataclass(frozen=True)
class SliceSpacing:
    """Distances between neighbouring slices that a network was trained on, in mm; of each scan its median counts.

    usual_mm: the median over the training scans; least_mm, most_mm: the smallest and the largest of them.
    """

    usual_mm: float
    least_mm: float
    most_mm: float

    @staticmethod
    def of(distances_mm: Sequence[float]) -> SliceSpacing | None:
        """The spacing of training scans whose typical slice distances are these; None if there are none."""
        if not distances_mm:
            return None
        return SliceSpacing(float(np.median(distances_mm)), float(min(distances_mm)), float(max(distances_mm)))

    @staticmethod
    def from_dict(stored: object) -> SliceSpacing:
        """Reads what `dataclasses.asdict` wrote. Raises ValueError for anything else."""
        if not isinstance(stored, dict) or stored.keys() != {"usual_mm", "least_mm", "most_mm"}:
            raise ValueError("a slice spacing has usual_mm, least_mm and most_mm")
        if not all(isinstance(value, (int, float)) for value in stored.values()):
            raise ValueError("slice distances are numbers")
        spacing = SliceSpacing(**stored)
        if not 0 < spacing.least_mm <= spacing.usual_mm <= spacing.most_mm < float("inf"):
            raise ValueError("slice distances are positive and in order")
        return spacing

    def warning(self, distance_mm: float) -> str | None:
        """What to say of a scan with this typical slice distance: None if the network was trained on such scans."""
        low, high = self.least_mm * (1 - RANGE_TOLERANCE), self.most_mm * (1 + RANGE_TOLERANCE)
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
    lower = np.concatenate([[2 * ordered[0] - middles[0]], middles])
    upper = np.concatenate([middles, [2 * ordered[-1] - middles[-1]]])
    offsets = (np.arange(slices) - slices // 2) * distance_mm
    if positions_mm[-1] < positions_mm[0]:
        offsets = -offsets  # the neighbour with the next index lies at the smaller position
    centres = np.clip(positions_mm[indices][:, None] + offsets, ordered[0], ordered[-1])[..., None]
    overlap = np.minimum(upper, centres + distance_mm / 2) - np.maximum(lower, centres - distance_mm / 2)
    overlap = overlap.clip(min=0)
    total = overlap.sum(axis=2, keepdims=True)
    nearest = np.abs(ordered - centres) == np.abs(ordered - centres).min(axis=2, keepdims=True)
    overlap = np.where(total > 0, overlap, nearest)  # slices that all lie at one place stand for no thickness
    weights = np.empty(overlap.shape)
    weights[..., order] = overlap / overlap.sum(axis=2, keepdims=True)
    return weights


def average_slices(values: Tensor, weights: np.ndarray) -> Tensor:
    """Weighted sums of slices: (n, H, W) values and (..., n) weights to (..., H, W) float32.

    Slice by slice in one order, so that a training that keeps all slices and one that streams a few get the same bits.
    """
    flat = weights.reshape(math.prod(weights.shape[:-1]), weights.shape[-1])  # of no slices, too
    out = torch.zeros((len(flat), *values.shape[1:]), device=values.device)
    for number, row in enumerate(flat):
        for source in np.flatnonzero(row):
            out[number].add_(values[source], alpha=float(row[source]))
    return out.view(*weights.shape[:-1], *values.shape[1:])
