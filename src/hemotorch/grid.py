"""Working resolution, crop and pad, and the way back. The only resampler: training and prediction both use it.

A network sees slices of its own pixel size, cropped around the head. Both directions are products with small weight
matrices (an antialiased triangle filter, as Pillow's bilinear resize), so what lies outside a slice is air by
construction, and a working pixel's place in the source is known exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hemotorch.hu import AIR_HU
from hemotorch.scan import Scan

ASSUMED_FIELD_MM = 230.0  #: field of view taken for images without spacing: 512 pixels of 0.45 mm, the CT-ICH scans'
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

    def from_working(self, values: Tensor) -> Tensor:
        """(n, working rows, working columns) floats back to (n, rows, columns) float32; 0 outside the grid."""
        if self.exact:
            rows = Axis(self.rows.working, self.rows.source, -self.rows.start, 1.0)
            columns = Axis(self.columns.working, self.columns.source, -self.columns.start, 1.0)
            return _shift(values.float(), rows, columns, 0.0)
        rows_back, columns_back = (axis.from_working().to(values.device) for axis in (self.rows, self.columns))
        return rows_back @ values.float() @ columns_back.T


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


def mask_to_working(mask: np.ndarray, placement: Placement) -> Tensor:
    """(n, rows, columns) codes to uint8 0/1 on the grid: bleeding where it fills at least half of the pixel."""
    binary = torch.from_numpy(np.ascontiguousarray(mask > 0))
    return (placement.to_working(binary, 0.0) >= 0.5).to(torch.uint8)
