"""Which slices of a scan a picture shows, and which rows and columns of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy import ndimage

MARGIN_MM = 14.0  #: kept around the skull: the scalp
BONE_HU = 300  #: of a skull, and of little else
AIR_HU = -300  #: below it is background
#: Share of a scan's voxels; with less it shows no skull, and what is not background is cut out.
LEAST_BONE = 0.002
COARSE = 3  #: every third row and column is enough to find the head

Box = tuple[slice, slice]


class Volume(Protocol):
    """What pictures need of a `Scan`."""

    @property
    def hu(self) -> np.ndarray: ...
    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def pixel_mm(self) -> tuple[float, float]: ...
    @property
    def spacing_known(self) -> bool: ...
    @property
    def slice_numbers(self) -> tuple[int, ...]: ...
    @property
    def voxel_ml(self) -> np.ndarray: ...
    def volume_ml(self, mask: np.ndarray) -> float: ...


def pick_slices(scan: Volume, masks: Sequence[np.ndarray], most: int) -> list[int]:
    """Indices of at most `most` slices, rising: all, or those with bleeding and an even choice of the others that hold
    a part of the head."""
    if len(scan.hu) <= most:
        return list(range(len(scan.hu)))
    marked = np.zeros(len(scan.hu), dtype=bool)
    for mask in masks:
        marked |= mask.reshape(len(mask), -1).any(axis=1)
    first = _evenly(np.flatnonzero(marked), most)
    others = np.flatnonzero(~marked & _head(scan).any(axis=(1, 2)))
    return sorted({*first, *_evenly(others, most - len(first))})


def head_box(scan: Volume, masks: Sequence[np.ndarray] = ()) -> Box:
    """The rows and columns that hold the skull and its scalp, and everything that is marked.

    The largest piece of bone is the skull; without bone, whatever is not background.
    """
    coarse = _head(scan)
    return _bounds(scan, coarse, masks, 1), _bounds(scan, coarse, masks, 2)


def box_mm(scan: Volume, box: Box) -> tuple[float, float]:
    """Height and width of a box."""
    rows, columns = box
    row_mm, column_mm = scan.pixel_mm
    return (rows.stop - rows.start) * row_mm, (columns.stop - columns.start) * column_mm


def _bounds(scan: Volume, coarse: np.ndarray, masks: Sequence[np.ndarray], axis: int) -> slice:
    """What is shown of rows (axis 1) or columns (axis 2)."""
    length = scan.shape[axis]
    others = tuple({0, 1, 2} - {axis})
    head = np.flatnonzero(coarse.any(axis=others)) * COARSE if coarse.any() else np.arange(length)
    margin = math.ceil(MARGIN_MM / scan.pixel_mm[axis - 1]) if scan.spacing_known else math.ceil(0.05 * length)
    low, high = int(head[0]) - margin, int(head[-1]) + margin
    for mask in masks:
        marked = np.flatnonzero(mask.any(axis=others))
        if marked.size:
            low, high = min(low, int(marked[0]) - 2), max(high, int(marked[-1]) + 2)
    return slice(max(0, low), min(length, high + 1))


def _head(scan: Volume) -> np.ndarray:
    """The largest piece of bone, (slices, every third row, every third column) bool, or whatever is not background."""
    solid = scan.hu > BONE_HU
    if np.count_nonzero(solid) < LEAST_BONE * solid.size:
        solid = scan.hu > max(AIR_HU, int(scan.hu[0, 0, 0]) + 5)
    coarse = solid[:, ::COARSE, ::COARSE]
    pieces, count = ndimage.label(coarse, np.ones((3, 3, 3)))
    if count > 1:
        # The head rest's rails are as dense as bone.
        coarse = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    return coarse


def _evenly(indices: np.ndarray, most: int) -> list[int]:
    if len(indices) <= most:
        return indices.tolist()
    chosen = np.rint(np.linspace(0, len(indices) - 1, most)).astype(int)
    return indices[chosen].tolist()
