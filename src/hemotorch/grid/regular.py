"""Any scan as a regular volume: one distance between slices, no tilt."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from hemotorch.errors import InputError
from hemotorch.hu import AIR_HU
from hemotorch.scan import Scan
from hemotorch.system import limits

SLICE_MM = (0.2, 20.0)  #: distances that can be asked for
_STEPS = 4  # positions per source slice that a thicker new slice is the mean of


def regular(scan: Scan, slice_mm: float) -> Scan:
    """A scan with slices `slice_mm` apart, each right above the other: its affine has no shear.

    Slices stay parallel to those that were acquired, and pixels keep their size: nothing is rotated. If the gantry was
    tilted, slices are shifted in their planes, and the picture grows so that none loses a pixel. All interpolation is
    linear: new slices between two old ones; new slices thicker than the old ones are means. So no value leaves the
    range of those around it. What no slice shows is air.

    Args:
        scan: with known spacing, of two slices or more.
        slice_mm: distance between the new slices.

    Returns:
        From the lower edge of the first slice to the upper edge of the last one, to within half a new slice. Slice
        numbers count from 1; it has no source.

    Raises:
        InputError: for unknown spacing, a single slice, distances outside `SLICE_MM`, or too large a result.
    """
    if not scan.spacing_known or len(scan.hu) < 2:
        raise InputError("has no known distance between slices, so it cannot be resampled", scan.name)
    if not SLICE_MM[0] <= slice_mm <= SLICE_MM[1]:
        raise InputError(f"slices can be {SLICE_MM[0]:g} to {SLICE_MM[1]:g} mm apart, not {slice_mm:g}", scan.name)
    heights = (scan.slice_origins_mm - scan.slice_origins_mm[0]) @ scan.normal
    shifts = _shifts(scan)
    first_pixel = np.floor(shifts.min(axis=0)).astype(int)
    more = np.ceil(shifts.max(axis=0)).astype(int) - first_pixel
    rows, columns = np.array(scan.shape[1:]) + more
    lower, upper = heights[0] - scan.shares_mm[0] / 2, heights[-1] + scan.shares_mm[-1] / 2
    count = max(1, round((upper - lower) / slice_mm))
    limits.check_voxels((count, int(rows), int(columns)), scan.name)
    middles = (lower + upper) / 2 + (np.arange(count) - (count - 1) / 2) * slice_mm
    hu = np.empty((count, rows, columns), np.int16)
    weights = _weights(heights, middles, slice_mm)
    placed: dict[int, np.ndarray] = {}
    for index, of_slice in enumerate(weights):
        placed = {source: placed[source] for source in of_slice if source in placed}
        total = np.zeros((rows, columns), np.float32)
        for source, weight in of_slice.items():
            if source not in placed:
                placed[source] = _placed(scan.hu[source], shifts[source] - first_pixel, (rows, columns))
            total += np.float32(weight) * placed[source]
        hu[index] = np.rint(total)
    row_start, column_start = first_pixel
    origin = scan.slice_origins_mm[0] + row_start * scan.row_step_mm + column_start * scan.column_step_mm
    origins = origin + np.outer(middles, scan.normal)
    text = f"resampled: slices {slice_mm:g} mm apart, linear, from {_distances(scan)} mm"
    if shifts.any():
        text += "; the tilt was taken out by shifting slices in their planes"
    return Scan(
        hu,
        slice_origins_mm=origins,
        row_step_mm=scan.row_step_mm,
        column_step_mm=scan.column_step_mm,
        name=scan.name,
        warnings=(*scan.warnings, text),
        contrast=scan.contrast,
    )


def _shifts(scan: Scan) -> np.ndarray:
    """(slices, 2) by how many rows and columns the first pixel of each slice lies off that of the first slice."""
    steps = np.stack([scan.row_step_mm, scan.column_step_mm], axis=1)
    shifts, *_ = np.linalg.lstsq(steps, (scan.slice_origins_mm - scan.slice_origins_mm[0]).T, rcond=None)
    # Headers give positions in decimals: a shift of less than that is none, and leaves pixels as they are.
    return np.round(shifts.T, 2)


def _weights(heights: np.ndarray, middles: np.ndarray, slice_mm: float) -> list[dict[int, float]]:
    """For each new slice, how much each old one counts in it."""
    per_slice = 1
    if slice_mm > float(np.median(np.diff(heights))):
        per_slice = _STEPS * math.ceil(slice_mm / float(np.diff(heights).min()))
    within = ((np.arange(per_slice) + 0.5) / per_slice - 0.5) * slice_mm
    weights = []
    for middle in middles.tolist():
        # Beyond the middle of an end slice there is that slice alone.
        positions = np.interp(middle + within, heights, np.arange(len(heights)))
        of_slice: dict[int, float] = {}
        for position in positions.tolist():
            below = min(int(position), len(heights) - 2)
            share = position - below
            for source, weight in ((below, 1 - share), (below + 1, share)):
                if weight > 1e-6:
                    of_slice[source] = of_slice.get(source, 0.0) + weight / per_slice
        weights.append(of_slice)
    return weights


def _placed(hu: np.ndarray, shift: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A slice on the new picture, float32 of that shape, moved down and to the right by so many rows and columns."""
    picture = np.full(shape, AIR_HU, np.float32)
    whole = np.floor(shift)
    row, column = whole.astype(int)
    picture[row : row + hu.shape[0], column : column + hu.shape[1]] = hu
    if (shift == whole).all():
        return picture
    return ndimage.shift(picture, shift - whole, order=1, mode="constant", cval=AIR_HU)


def _distances(scan: Scan) -> str:
    least, most = float(scan.slice_distances_mm.min()), float(scan.slice_distances_mm.max())
    return f"{least:.4g}" if scan.even else f"{least:.4g} to {most:.4g}"
