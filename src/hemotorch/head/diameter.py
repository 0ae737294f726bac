"""The longest line across a piece of bleeding within a slice, as a radiologist measures it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

_TOUCHING = np.ones((3, 3))  # pixels that touch at a corner belong together


class Diameter(NamedTuple):
    """The longest line.

    mm: its length. width_mm: how wide its piece is at a right angle to it. slice_index: of its slice. start, end: (row,
    column) of its ends, whole numbers being pixel centres.
    """

    mm: float
    width_mm: float
    slice_index: int
    start: tuple[float, float]
    end: tuple[float, float]


def longest_diameter(mask: np.ndarray, row_mm: float, column_mm: float) -> Diameter | None:
    """The longest line between two points of one connected piece in one slice, from edge to edge.

    It goes from corner to corner of pixels, and may leave the piece on its way, as a ruler does on a crescent.

    Args:
        mask: (slices, rows, columns), counted if not zero.
        row_mm, column_mm: distance between rows, and between columns.

    Returns:
        None if the mask is empty.
    """
    longest = None
    step = np.array([row_mm, column_mm])
    for index in np.flatnonzero(mask.any(axis=(1, 2))).tolist():
        pieces, _ = ndimage.label(mask[index] != 0, _TOUCHING)
        for number, box in enumerate(ndimage.find_objects(pieces), start=1):
            size = np.array([side.stop - side.start for side in box])
            if longest is not None and np.linalg.norm(size * step) <= longest.mm:
                continue
            corners = _outer_corners(pieces[box] == number)
            first, second = _farthest(corners, step)
            mm = float(np.linalg.norm((second - first) * step))
            if longest is None or mm > longest.mm:
                corner = np.array([side.start for side in box])
                start, end = ((float(row), float(column)) for row, column in (first + corner, second + corner))
                longest = Diameter(mm, _width_mm(corners * step, (second - first) * step), index, start, end)
    return longest


def _outer_corners(piece: np.ndarray) -> np.ndarray:
    """(points, 2) rows and columns of the leftmost and the rightmost corner on each line between rows.

    piece: (rows, columns) bool, no row of it empty. The farthest two corners are among these.
    """
    left = piece.argmax(axis=1) - 0.5
    right = piece.shape[1] - piece[:, ::-1].argmax(axis=1) - 0.5
    lines = np.arange(len(piece) + 1) - 0.5
    # A line between two rows has corners of both.
    left = np.minimum(np.append(left, np.inf), np.append(np.inf, left))
    right = np.maximum(np.append(right, -np.inf), np.append(-np.inf, right))
    return np.concatenate([np.stack([lines, left], 1), np.stack([lines, right], 1)])


def _width_mm(corners_mm: np.ndarray, line_mm: np.ndarray) -> float:
    """How far (points, 2) corners reach at a right angle to a line (2,)."""
    across = np.array([-line_mm[1], line_mm[0]]) / np.linalg.norm(line_mm)
    return float(np.ptp(corners_mm @ across))


def _farthest(points: np.ndarray, step: np.ndarray) -> np.ndarray:
    """(2, 2) the two points that are farthest apart."""
    mm = points * step
    squares = ((mm[:, None] - mm[None]) ** 2).sum(axis=2)
    return points[list(np.unravel_index(int(squares.argmax()), squares.shape))]
