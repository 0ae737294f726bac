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
    if not coarse.any():
        coarse = np.ones_like(coarse)
    head = coarse.max(axis=0)
    marked = np.zeros(scan.shape[1:], bool)
    for mask in masks:
        marked |= mask.max(axis=0) > 0
    return _bounds(scan, head, marked, 0), _bounds(scan, head, marked, 1)


def box_mm(scan: Volume, box: Box) -> tuple[float, float]:
    """Height and width of a box."""
    rows, columns = box
    row_mm, column_mm = scan.pixel_mm
    return (rows.stop - rows.start) * row_mm, (columns.stop - columns.start) * column_mm


def _bounds(scan: Volume, head: np.ndarray, marked: np.ndarray, axis: int) -> slice:
    """What is shown of rows (axis 0) or columns (axis 1).

    Args:
        head: (rows, columns) bool of every COARSE-th row and column, what holds the head on some slice.
        marked: (rows, columns) bool, what is marked on some slice.
    """
    length = marked.shape[axis]
    inside = np.flatnonzero(head.any(axis=1 - axis)) * COARSE
    margin = math.ceil(MARGIN_MM / scan.pixel_mm[axis]) if scan.spacing_known else math.ceil(0.05 * length)
    low, high = int(inside[0]) - margin, int(inside[-1]) + margin
    outlined = np.flatnonzero(marked.any(axis=1 - axis))
    if outlined.size:
        low, high = min(low, int(outlined[0]) - 2), max(high, int(outlined[-1]) + 2)
    return slice(max(0, low), min(length, high + 1))


def _head(scan: Volume) -> np.ndarray:
    """The largest piece of bone, (slices, every third row, every third column) bool, or whatever is not background."""
    hu = scan.hu[:, ::COARSE, ::COARSE]
    coarse = hu > BONE_HU
    if np.count_nonzero(coarse) < LEAST_BONE * coarse.size:
        coarse = hu > max(AIR_HU, int(hu[0, 0, 0]) + 5)
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
