"""Scan and Prediction: one CT volume, and what a network found in it, in the same geometry. CaseInfo: whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hemotorch.errors import InputError

UNEVEN_TOLERANCE = 0.02  #: slice distances that differ by more than this share of their median are uneven


@dataclass(frozen=True, eq=False)
class Scan:
    """One CT volume as a radiologist looks at it.

    hu: (slices, rows, columns) int16 Hounsfield units; slices from foot to head, rows from front to back, columns from
        the patient's right to left.
    slice_origins_mm: (slices, 3) centre of each slice's first voxel, RAS millimetres (x right, y front, z head).
    row_step_mm, column_step_mm: (3,) from one row, one column, to the next, RAS millimetres.
    name: what files made from it are called.
    slice_numbers: the source's own number of each slice (CT-ICH counts from 1).
    paths: the files it was read from; writers reread the source's headers from there.
    warnings: what the reader noticed or repaired.
    spacing_known: False for a PNG without spacing: there are then no millimetres and no mL (NaN).
    """

    hu: np.ndarray
    slice_origins_mm: np.ndarray
    row_step_mm: np.ndarray
    column_step_mm: np.ndarray
    name: str = "scan"
    slice_numbers: tuple[int, ...] = ()
    paths: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    spacing_known: bool = True

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or self.hu.dtype != np.int16:
            raise InputError(f"a scan is a 3-D int16 array of HU, not {self.hu.ndim}-D {self.hu.dtype}", self.name)
        if self.slice_origins_mm.shape != (len(self.hu), 3):
            raise InputError("one origin of three millimetres is needed for each slice", self.name)
        if not self.slice_numbers:
            object.__setattr__(self, "slice_numbers", tuple(range(1, len(self.hu) + 1)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return self.hu.shape

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Distance between rows and between columns."""
        return float(np.linalg.norm(self.row_step_mm)), float(np.linalg.norm(self.column_step_mm))

    @cached_property
    def normal(self) -> np.ndarray:
        """(3,) unit vector across the slices, toward the head."""
        n = np.cross(self.column_step_mm, self.row_step_mm)
        n = n / np.linalg.norm(n)
        along = float((self.slice_origins_mm[-1] - self.slice_origins_mm[0]) @ n) if len(self.hu) > 1 else float(n[2])
        return n if along >= 0 else -n

    @cached_property
    def slice_distances_mm(self) -> np.ndarray:
        """(slices - 1,) distance between neighbouring slices along the normal."""
        return np.diff(self.slice_origins_mm @ self.normal)

    @cached_property
    def shares_mm(self) -> np.ndarray:
        """(slices,) how much of the body each slice stands for: half the distance along the normal to each neighbour,
        end slices mirrored. NaN for a single slice, whose thickness is not known."""
        if len(self.hu) == 1:
            return np.full(1, np.nan)
        gaps = self.slice_distances_mm
        return (np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])) / 2

    @property
    def even(self) -> bool:
        """Whether one affine describes all slices: even distances and no shear drift."""
        if len(self.hu) < 3:
            return True
        steps = np.diff(self.slice_origins_mm, axis=0)
        middle = np.median(steps, axis=0)
        return bool((np.abs(steps - middle).max(axis=1) <= UNEVEN_TOLERANCE * np.linalg.norm(middle)).all())

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) from (slice, row, column) to RAS mm. Raises InputError where the slices are uneven."""
        if not self.even:
            raise InputError("its slices are unevenly spaced, so that no single affine describes it", self.name)
        step = self.normal if len(self.hu) == 1 else np.median(np.diff(self.slice_origins_mm, axis=0), axis=0)
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1], affine[:3, 2] = step, self.row_step_mm, self.column_step_mm
        affine[:3, 3] = self.slice_origins_mm[0]
        return affine

    @cached_property
    def voxel_ml(self) -> np.ndarray:
        """(slices,) mL of one voxel of each slice: area times share. NaN where spacing is unknown."""
        if not self.spacing_known:
            return np.full(len(self.hu), np.nan)
        area = float(np.linalg.norm(np.cross(self.row_step_mm, self.column_step_mm)))
        return area * self.shares_mm / 1000.0

    def volume_ml(self, mask: np.ndarray) -> float:
        """mL of the non-zero voxels of a mask of this scan's shape. NaN where spacing is unknown."""
        if mask.shape != self.shape:
            raise InputError(f"a mask of shape {mask.shape} does not fit a scan of shape {self.shape}", self.name)
        counts = np.count_nonzero(mask.reshape(len(mask), -1), axis=1)
        return float((counts * self.voxel_ml).sum())


def even_scan(hu: np.ndarray, pixel_mm: float, slice_mm: float, name: str = "scan", **other: Any) -> Scan:
    """An upright, evenly spaced scan around the origin: square pixels of `pixel_mm`, slices `slice_mm` apart."""
    slices, rows, columns = hu.shape
    corner = np.array([(columns - 1) / 2 * pixel_mm, (rows - 1) / 2 * pixel_mm, 0.0])
    origins = corner + np.outer(np.arange(slices) * slice_mm, [0.0, 0.0, 1.0])
    row, column = np.array([0.0, -pixel_mm, 0.0]), np.array([-pixel_mm, 0.0, 0.0])
    return Scan(hu.astype(np.int16, copy=False), origins, row, column, name, **other)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a predictor found in a scan, in the scan's geometry.

    mask: (slices, rows, columns) uint8, 0 or 1 (or codes of `labels` where the network has types).
    probability: same shape, float32 in [0, 1], or None where a predictor has none (the rule-based baseline).
    volume_ml: {"total": mL, and one entry a type where the network has types}; NaN where spacing is unknown.
    model: what produced it, in words; seconds: time spent, a stage each.
    """

    scan: Scan
    mask: np.ndarray
    probability: np.ndarray | None
    volume_ml: dict[str, float]
    model: str
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def slices_with_bleeding(self) -> list[int]:
        """The source's own numbers of the slices that hold bleeding."""
        found = np.count_nonzero(self.mask.reshape(len(self.mask), -1), axis=1)
        return [number for number, pixels in zip(self.scan.slice_numbers, found, strict=True) if pixels]


@dataclass(frozen=True)
class CaseInfo:
    """What a writer needs to know of a case beside its scan and mask.

    age: years; sex: "F" or "M"; slice_types: by slice number, the types in it, none meaning no bleeding;
    fracture_slices: slice numbers; note: free text for a demographics table.
    """

    name: str
    patient: str
    age: float | None = None
    sex: str | None = None
    slice_types: Mapping[int, frozenset[str]] = field(default_factory=dict)
    fracture_slices: frozenset[int] = frozenset()
    hemorrhage: bool = False
    note: str = ""
