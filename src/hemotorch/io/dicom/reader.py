"""A series as a Scan: slices as they were acquired, at their true positions, in Scan's order of axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hemotorch.errors import InputError, some_of
from hemotorch.io.dicom.header import ImageHeader
from hemotorch.io.dicom.pixels import has_other_sign, slice_hu
from hemotorch.io.dicom.series import Series
from hemotorch.io.slice_axis import SCAN_AXES
from hemotorch.io.values import to_hu
from hemotorch.scan import Frame, Scan, Source
from hemotorch.system import limits

LEAST_SHARE = 0.75  #: of a series' slices that must be readable
_TO_RAS = np.array([-1.0, -1.0, 1.0])  # DICOM's x and y run to the left and to the back


def scan_of_series(series: Series, format_name: str, name: str) -> Scan:
    """Reads the pixels of a series.

    Args:
        series: that is not set aside.
        format_name: of the scan's source.
        name: of the scan.

    Returns:
        The scan, with what was noticed and repaired in its warnings. Files that are damaged are left out by name, if
        three quarters of the slices are whole.

    Raises:
        InputError: if more is damaged, or the values are not HU.
    """
    images, lacking = _with_rescale(series.images)
    path = images[0].path
    limits.check_voxels((len(images), images[0].rows, images[0].columns), path)
    row_mm, column_mm = images[0].pixel_mm or (1.0, 1.0)
    limits.check_spacing([row_mm, column_mm], [], path)
    hu_of, notes, damaged = _read(images)
    warnings = list(series.doubts)
    if lacking:
        warnings.append(f"{lacking} of {len(images)} slices lack their rescale and have that of the others")
    if damaged:
        _check_damage(damaged, len(images))
        first = next(iter(damaged))
        reason = damaged[first].what
        names = some_of([image.path.name for image in damaged], 5)
        warnings.append(f"{len(damaged)} slices cannot be read and are missing: {names} ({reason})")
    whole = [image for image in images if image in hu_of]
    for note, count in notes.items():
        warnings.append(f"{count} of {len(images)} slices: {note}" if len(images) > 1 else note)
    if any(image.slope is None or image.intercept is None for image in whole):
        warnings.append("no rescale slope or intercept in the header: stored values are taken as HU")
    stack = np.stack([hu_of.pop(image) for image in whole])
    np.rint(stack, out=stack)
    hu, value_warnings = to_hu(stack, path, unsigned=not images[0].signed)
    direction = np.asarray(whole[0].orientation, float)
    positions = np.array([image.position or (0.0, 0.0, 0.0) for image in whole], float)
    hu, origins, row_step, column_step = oriented(hu, direction, (row_mm, column_mm), positions)
    files = tuple(dict.fromkeys(str(image.path) for image in whole))
    index_of = {file: index for index, file in enumerate(files)}
    numbers = slice_numbers_of(whole)
    if len(whole) == 1 and series.thickness_mm is None:
        warnings.append("one slice only: its thickness is not known, so there is no volume in mL")
    return Scan(
        hu,
        slice_origins_mm=origins,
        row_step_mm=row_step,
        column_step_mm=column_step,
        name=name,
        slice_numbers=numbers,
        source=Source(format_name, files, tuple(Frame(index_of[str(entry.path)], entry.frame) for entry in whole)),
        warnings=(*value_warnings, *warnings),
        slice_mm=series.thickness_mm if len(whole) == 1 else None,
        contrast=series.contrast,
    )


def _with_rescale(images: Sequence[ImageHeader]) -> tuple[list[ImageHeader], int]:
    """Images of which those that lack slope or intercept have the one that all others share; and how many had none."""
    slopes = {image.slope for image in images if image.slope is not None}
    intercepts = {image.intercept for image in images if image.intercept is not None}
    if len(slopes) != 1 or len(intercepts) != 1:
        return list(images), 0
    filled = []
    lacking = 0
    for image in images:
        if image.slope is None or image.intercept is None:
            lacking += 1
            image = replace(image, slope=min(slopes), intercept=min(intercepts))
        filled.append(image)
    return filled, lacking


def _read(
    images: Sequence[ImageHeader],
) -> tuple[dict[ImageHeader, np.ndarray], dict[str, int], dict[ImageHeader, InputError]]:
    """HU of each image, how many images each note is about, and the images that cannot be read with the reason."""
    by_file: dict[str, list[ImageHeader]] = {}
    for image in images:
        by_file.setdefault(str(image.path), []).append(image)
    hu_of: dict[ImageHeader, np.ndarray] = {}
    notes: dict[str, int] = {}
    damaged: dict[ImageHeader, InputError] = {}
    # The slice in the middle, which holds most of a head, tells for all whether the header has the sign wrong.
    other_sign = has_other_sign(images[len(images) // 2])
    for of_file in by_file.values():
        try:
            read = slice_hu(of_file, other_sign)
        except InputError as error:
            damaged.update(dict.fromkeys(of_file, error))
            continue
        for image, (hu, image_notes) in zip(of_file, read, strict=True):
            hu_of[image] = hu
            for note in image_notes:
                notes[note] = notes.get(note, 0) + 1
    return hu_of, notes, damaged


def _check_damage(damaged: dict[ImageHeader, InputError], total: int) -> None:
    """Raises the first error if too many slices are damaged."""
    if len(damaged) > (1 - LEAST_SHARE) * total:
        error = next(iter(damaged.values()))
        if total == 1:
            raise error
        raise InputError(f"{len(damaged)} of {total} slices cannot be read; this one {error.what}", error.where)


def slice_numbers_of(images: Sequence[ImageHeader]) -> tuple[int, ...]:
    """Instance numbers, which viewers show, if each slice has its own; else counted from 1, foot to head."""
    numbers = [image.number for image in images if image.number is not None]
    if len(numbers) == len(images) and len(set(numbers)) == len(images):
        return tuple(numbers)
    return tuple(range(1, len(images) + 1))


class Turn(NamedTuple):
    """How a file's pixels become a Scan's: rows and columns swapped, then the order of rows and of columns reversed."""

    swapped: bool
    rows_reversed: bool
    columns_reversed: bool


def turn_of(direction: Sequence[float] | np.ndarray, pixel_mm: tuple[float, float]) -> Turn:
    """How the pixels of a series become a Scan's.

    Args:
        direction: (6,) ImageOrientationPatient.
        pixel_mm: between rows and between columns.
    """
    column_step, row_step = _steps(direction, pixel_mm)
    row_mm, column_mm = pixel_mm
    _, to_back, to_left = SCAN_AXES
    swapped = bool(abs(column_step @ to_left) < abs(row_step @ to_left) * (column_mm / row_mm))
    if swapped:
        column_step, row_step = row_step, column_step
    return Turn(swapped, bool(row_step @ to_back < 0), bool(column_step @ to_left < 0))


def as_stored(values: np.ndarray, turn: Turn) -> np.ndarray:
    """Values in a Scan's order as the source stores its pixels: the way back of `turn`.

    Args:
        values: (slices, rows, columns) in the Scan's order.
        turn: of the series.
    """
    if turn.columns_reversed:
        values = values[:, :, ::-1]
    if turn.rows_reversed:
        values = values[:, ::-1]
    if turn.swapped:
        values = values.transpose(0, 2, 1)
    return np.ascontiguousarray(values)


def _steps(direction: Sequence[float] | np.ndarray, pixel_mm: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(3,) each: from one column, and from one row, of the stored pixels to the next, RAS mm."""
    axes = np.asarray(direction, float).reshape(2, 3) * _TO_RAS
    row_mm, column_mm = pixel_mm
    return axes[0] * column_mm, axes[1] * row_mm


def oriented(
    hu: np.ndarray, direction: np.ndarray, pixel_mm: tuple[float, float], positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Slices with rows to the back and columns to the left.

    Args:
        hu: (slices, rows, columns) in the file's order.
        direction: (6,) ImageOrientationPatient.
        pixel_mm: between rows and between columns.
        positions: (slices, 3) ImagePositionPatient.

    Returns:
        The slices, their origins (slices, 3), and the steps from row to row and from column to column, in RAS mm.
    """
    turn = turn_of(direction, pixel_mm)
    column_step, row_step = _steps(direction, pixel_mm)
    origins = np.asarray(positions, float) * _TO_RAS
    if turn.swapped:
        hu = hu.transpose(0, 2, 1)
        column_step, row_step = row_step, column_step
    if turn.rows_reversed:
        hu = hu[:, ::-1]
        origins = origins + (hu.shape[1] - 1) * row_step
        row_step = -row_step
    if turn.columns_reversed:
        hu = hu[:, :, ::-1]
        origins = origins + (hu.shape[2] - 1) * column_step
        column_step = -column_step
    return np.ascontiguousarray(hu), origins, row_step, column_step
