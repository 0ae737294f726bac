"""Voxels with an affine as a Scan, or as the mask of one: by exact flips and transposes, never by resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff

from hemotorch.errors import InputError
from hemotorch.io.slice_axis import scan_orientation, toward
from hemotorch.io.values import to_hu
from hemotorch.scan import Frame, Scan, Source
from hemotorch.system import limits

SAME_POSITION = 0.1  #: grids whose corners lie closer than this share of a voxel are the same


@dataclass(frozen=True)
class VoxelGrid:
    """The voxels of a file in the file's own order of axes.

    shape: lengths of the three axes.
    affine: (4, 4) from voxel indices to RAS mm.
    slice_axis: the axis that the header names as the one across slices, or None.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    slice_axis: int | None = None

    def orientation(self) -> tuple[np.ndarray, list[str]]:
        """How the file's axes become a Scan's, as `scan_orientation` says, and warnings."""
        return scan_orientation(self.affine, self.shape, self.slice_axis)

    def slice_numbers(self) -> tuple[int, ...]:
        """The file's own number of each slice, from 1, in the order from foot to head."""
        orientation, _ = self.orientation()
        return tuple(index + 1 for index in _slice_indices(orientation, self.shape))


def without_suffix(path: Path | str, suffixes: Sequence[str]) -> str:
    """The file's name without the longest of these suffixes that it ends in."""
    name = Path(path).name
    for suffix in sorted(suffixes, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def scan_from_volume(
    values: np.ndarray,
    grid: VoxelGrid,
    name: str,
    format_name: str,
    files: Sequence[Path],
    *,
    unsigned: bool,
    warnings: Sequence[str],
) -> Scan:
    """A file's voxels as a Scan.

    Args:
        values: of the grid's shape, HU in any real type.
        grid: of the file.
        name: of the scan.
        format_name: of the file's format.
        files: that the values came from.
        unsigned: whether the file stores integers without a sign.
        warnings: about the header.

    Returns:
        The scan; slice numbers count from 1 in the file's own order.

    Raises:
        InputError: if the values are not HU, or no CT has such distances between voxels.
    """
    path = files[0]
    hu_in_file, value_warnings = to_hu(values, path, unsigned=unsigned)
    orientation, axis_warnings = grid.orientation()
    hu = reordered(hu_in_file, orientation)
    affine = grid.affine @ inv_ornt_aff(orientation, grid.shape)
    all_warnings = [*value_warnings, *warnings, *axis_warnings]
    if len(hu) == 1:
        all_warnings.append("one slice only: its thickness is not known, so there is no volume in mL")
    _check_spacing(affine, len(hu), path)
    slice_step, row_step, column_step = affine[:3, :3].T
    frames = [Frame(0, index) for index in _slice_indices(orientation, grid.shape)]
    return Scan(
        hu,
        slice_origins_mm=affine[:3, 3] + np.outer(np.arange(len(hu)), slice_step),
        row_step_mm=row_step,
        column_step_mm=column_step,
        name=name,
        slice_numbers=tuple(frame.number + 1 for frame in frames),
        source=Source(format_name, tuple(map(str, files)), tuple(frames)),
        warnings=tuple(all_warnings),
    )


def mask_from_volume(labels: np.ndarray, grid: VoxelGrid, scan: Scan | None, path: Path) -> np.ndarray:
    """A file's labels in Scan's order.

    Args:
        labels: uint8 of the grid's shape.
        grid: of the file.
        scan: that the mask was drawn on, or None if that is not known.
        path: of the file, for messages.

    Returns:
        (slices, rows, columns) uint8.

    Raises:
        InputError: if the mask has another shape or position than the scan.
    """
    if scan is None:
        return reordered(labels, grid.orientation()[0])
    # The scan's own axes, so that a header that says less than the scan's leads to the same order.
    axes = np.stack([scan.normal, scan.row_step_mm, scan.column_step_mm])
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    orientation = toward(grid.affine, axes)
    mask = reordered(labels, orientation)
    _check_same_grid(mask.shape, grid.affine @ inv_ornt_aff(orientation, grid.shape), scan, path)
    return mask


def reordered(values: np.ndarray, orientation: np.ndarray, order: Literal["C", "F"] = "C") -> np.ndarray:
    """A copy with axes reordered and flipped, in memory from its first voxel to its last: C, or F, first axis fastest.

    NumPy calls an array contiguous whatever the step on an axis of length 1, and torch refuses a negative one.
    """
    return np.array(apply_orientation(values, orientation), order=order, copy=True)


def _slice_indices(orientation: np.ndarray, shape: tuple[int, int, int]) -> list[int]:
    """The index in the file of each slice, in the order from foot to head."""
    axis = int(np.flatnonzero(orientation[:, 0] == 0)[0])
    indices = list(range(shape[axis]))
    if orientation[axis, 1] < 0:
        indices.reverse()
    return indices


def _check_spacing(affine: np.ndarray, slices: int, path: Path) -> None:
    """Raises InputError for distances that no CT has; that between slices counts if there are several."""
    slice_mm, row_mm, column_mm = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    limits.check_spacing([row_mm, column_mm], [slice_mm] if slices > 1 else [], path)


def _check_same_grid(shape: tuple[int, ...], affine: np.ndarray, scan: Scan, path: Path) -> None:
    """Raises InputError if a mask of this shape and affine, in Scan's order, does not lie on the scan."""
    of = scan.source or scan.name
    todo = "give the mask that was drawn on this scan"
    if not scan.even:
        todo = (
            "the scan's slices are not evenly apart, so other programs resample it: draw the mask on the slices as "
            "acquired, or give it as SEG or RTSTRUCT"
        )
    if shape != scan.shape:
        raise InputError(f"this mask's shape {shape} is not that of its scan, {scan.shape}: {of}", path, todo)
    slices, rows, columns = shape
    shifts_mm = []
    for index in (0, slices - 1):
        for row, column in ((0, 0), (rows - 1, 0), (0, columns - 1)):
            in_mask = (affine @ [index, row, column, 1])[:3]
            in_scan = scan.slice_origins_mm[index] + row * scan.row_step_mm + column * scan.column_step_mm
            shifts_mm.append(float(np.linalg.norm(in_mask - in_scan)))
    if max(shifts_mm) > SAME_POSITION * min(scan.pixel_mm):
        raise InputError(f"this mask's affine puts it {max(shifts_mm):.1f} mm away from its scan, {of}", path, todo)
