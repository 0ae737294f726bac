"""Where a grid lies on a scan's slices; HU to the grid, and probabilities back to the scan.

Both directions are products with small weight matrices (an antialiased triangle filter, as Pillow's bilinear resize),
so what lies outside a slice is air by construction, and where a working pixel lies in the source is known exactly.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from hemotorch.hu import AIR_HU
from hemotorch.scan import Scan

ASSUMED_FIELD_MM = 230.0  #: field of view taken for images without spacing: 512 pixels of 0.45 mm, the CT-ICH scans'
SOFT_TISSUE_HU = (0, 90)  #: what the crop is centred on; in a head this is mostly brain
COUNTED_PX = 128  #: rows and columns of which the head's centre is found; more do not move it
EVERY = slice(None)


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

    def to_working(self) -> sparse.csr_array:
        """(working, source) float32 weights; rows sum to 1 inside the source and to less if air is needed."""
        centres = self.start + self.step * np.arange(self.working)
        return _triangle(centres, self.source, max(1.0, self.step))

    @cached_property
    def weights_back(self) -> sparse.csr_array:
        """(source, working) float32 weights of the way back, made once: each slice with bleeding asks for them."""
        centres = (np.arange(self.source) - self.start) / self.step
        return _triangle(centres, self.working, max(1.0, 1.0 / self.step))

    @property
    def exact(self) -> bool:
        """Whether nothing is resampled along it, only cropped and padded."""
        return self.step == 1.0 and float(self.start).is_integer()

    @property
    def back(self) -> Axis:
        """Of an exact axis, the way from the working pixels to the source's."""
        return Axis(self.working, self.source, -self.start, 1.0)


def _triangle(centres: np.ndarray, count: int, width: float) -> sparse.csr_array:
    """(centres, count) weights of a triangle of that half width around each centre, over pixels 0 to count."""
    # Pixels beyond both ends take their share too: what lies there is air.
    margin = int(width) + 1
    positions = np.arange(-margin, count + margin)
    distances = np.abs(positions - centres[:, None])
    weights = np.maximum(1 - distances / width, 0)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    # Five of 512 are not 0: against full matrices this takes a quarter of the time, and no second thread that spins.
    return sparse.csr_array(weights[:, margin : margin + count].astype(np.float32))


@dataclass(frozen=True)
class Placement:
    """Where a grid lies on one scan's slices."""

    rows: Axis
    columns: Axis

    @property
    def exact(self) -> bool:
        """Whether nothing is resampled, only cropped and padded."""
        return self.rows.exact and self.columns.exact

    @property
    def working(self) -> tuple[int, int]:
        """Rows and columns on the grid."""
        return self.rows.working, self.columns.working

    def to_working(self, values: np.ndarray, fill: float) -> np.ndarray:
        """Brings a scan's values to the grid.

        Args:
            values: (n, rows, columns) of any type.
            fill: What lies outside the slice.

        Returns:
            (n, working rows, working columns) float32.
        """
        if self.exact:
            return shifted(values, self.rows, self.columns, fill, np.float32)
        row_weights, column_weights = self.rows.to_working(), self.columns.to_working()
        out = np.empty((len(values), *self.working), np.float32)
        # Slice by slice: what is computed of one does not depend on the others, and stays in the cache.
        for index, slice_values in enumerate(values):
            above_fill = slice_values.astype(np.float32) - np.float32(fill)
            out[index] = _resampled(above_fill, row_weights, column_weights)
        out += np.float32(fill)
        return out

    def from_working(self, values: np.ndarray, rows: slice = EVERY, columns: slice = EVERY) -> np.ndarray:
        """Brings values on the grid back to the scan.

        Args:
            values: (n, working rows, working columns) float32.
            rows, columns: The part of the scan's slices to bring them to; all if not given.

        Returns:
            (n, rows, columns) float32; 0 outside the grid.
        """
        if self.exact:
            return shifted(values, self.rows.back, self.columns.back, 0.0, np.float32)[:, rows, columns]
        row_weights = self.rows.weights_back[rows]
        column_weights = self.columns.weights_back[columns]
        out = np.empty((len(values), row_weights.shape[0], column_weights.shape[0]), np.float32)
        for index, slice_values in enumerate(values):
            out[index] = _resampled(slice_values, row_weights, column_weights)
        return out


def _resampled(values: np.ndarray, row_weights: sparse.csr_array, column_weights: sparse.csr_array) -> np.ndarray:
    """row_weights @ values @ column_weights.T, the smaller product first."""
    if row_weights.shape[0] <= row_weights.shape[1]:
        return (column_weights @ (row_weights @ values).T).T
    return row_weights @ np.ascontiguousarray((column_weights @ values.T).T)


def shifted(values: np.ndarray, rows: Axis, columns: Axis, fill: float, dtype: type[np.generic]) -> np.ndarray:
    """(n, rows, columns) cropped and padded along exact axes, in that type; `fill` outside the slice."""
    out = np.full((len(values), rows.working, columns.working), fill, dtype)
    (out_rows, in_rows), (out_columns, in_columns) = _overlap(rows), _overlap(columns)
    out[:, out_rows, out_columns] = values[:, in_rows, in_columns]
    return out


def _overlap(axis: Axis) -> tuple[slice, slice]:
    """The working pixels that lie in the source, and where they lie in it."""
    start = round(axis.start)
    first = max(0, -start)
    last = max(first, min(axis.working, axis.source - start))
    return slice(first, last), slice(first + start, last + start)


def place(grid: Grid, scan: Scan) -> Placement:
    """Lays a grid on a scan: around the head if the grid is cropped, else over the whole slice."""
    rows, columns = scan.shape[1:]
    row_mm = column_mm = ASSUMED_FIELD_MM / max(rows, columns)
    if scan.spacing_known:
        row_mm, column_mm = scan.pixel_mm
    row, column = (rows - 1) / 2, (columns - 1) / 2
    if grid.size_px:
        row, column = head_centre(scan.hu)
    return Placement(_axis(grid, rows, row_mm, row), _axis(grid, columns, column_mm, column))


def _axis(grid: Grid, source: int, source_mm: float, centre: float) -> Axis:
    step = grid.pixel_mm / source_mm if grid.pixel_mm else 1.0
    if abs(step - 1) < 1e-3:
        step = 1.0
    wanted = grid.size_px or int(np.ceil(source / step - 1e-6))
    working = -(-wanted // grid.multiple) * grid.multiple
    start = centre - step * (wanted - 1) / 2
    if step == 1.0:
        start = float(round(start))
    return Axis(source, working, start, step)


def head_centre(hu: np.ndarray) -> tuple[float, float]:
    """Row and column of the middle of the soft tissue: the median position of pixels of 0 to 90 HU.

    hu: (slices, rows, columns). The middle of the slice if there is no such tissue.
    """
    stride = max(1, hu.shape[1] // COUNTED_PX)
    low, high = SOFT_TISSUE_HU
    coarse = hu[:, ::stride, ::stride]
    counts = ((coarse > low) & (coarse < high)).sum(axis=0)
    if not counts.any():
        rows, columns = hu.shape[1:]
        return (rows - 1) / 2, (columns - 1) / 2
    row, column = _median(counts.sum(axis=1)), _median(counts.sum(axis=0))
    return row * stride, column * stride


def _median(counts: np.ndarray) -> float:
    return float(np.searchsorted(np.cumsum(counts), counts.sum() / 2))


def tile_corners(height: int, width: int, size_px: int, stride_px: int) -> list[tuple[int, int]]:
    """Top-left corners (row, column) of square blocks over an image of that many pixels, the last flush to its edge."""

    def starts(length: int) -> list[int]:
        if length <= size_px:
            return [0]
        last = length - size_px
        return [*range(0, last, stride_px), last]

    return list(itertools.product(starts(height), starts(width)))


def hu_to_working(hu: np.ndarray, placement: Placement) -> np.ndarray:
    """(n, rows, columns) int16 HU to int16 (n, working rows, working columns); air outside the slice."""
    if placement.exact:
        return shifted(hu, placement.rows, placement.columns, AIR_HU, np.int16)
    return np.rint(placement.to_working(hu, AIR_HU)).astype(np.int16)
