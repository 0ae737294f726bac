"""ABC/2: the volume of a bleeding as it is estimated by hand, from three lengths."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from hemotorch.head.diameter import longest_diameter
from hemotorch.scan import Scan
from hemotorch.system.arrays import bounding_box, voxels_per_slice

FULL_SHARE, HALF_SHARE = 0.75, 0.25  #: of the largest slice's area: from here on a slice counts whole, and half
_TOUCHING = np.ones((3, 3, 3))  # voxels that touch at a corner belong together


class Abc2(NamedTuple):
    """The estimate for the largest piece of bleeding.

    ml: the estimate. of_ml: mL of the same piece, counted by voxels. a_mm, b_mm, c_mm: A, B and C.
    """

    ml: float
    of_ml: float
    a_mm: float
    b_mm: float
    c_mm: float


def abc2(scan: Scan, mask: np.ndarray) -> Abc2 | None:
    """ABC/2 of the largest connected piece (Kothari et al. 1996, Stroke 27:1304).

    A is the longest line, as `head.diameter` has it, in the slice with the piece's largest area, B the extent at a
    right angle to A there. C
    is the thickness of all its slices: one with more than 75 % of the largest area counts whole, one with 25 to 75 %
    half, one with less not at all.

    Args:
        scan: that the mask was made from.
        mask: (slices, rows, columns), counted if not zero.

    Returns:
        None if the mask is empty or the spacing unknown.
    """
    if not mask.any() or not np.isfinite(scan.shares_mm).all() or not scan.spacing_known:
        return None
    piece, of_ml = _largest_piece(scan, mask)
    areas = voxels_per_slice(piece)
    largest = int(areas.argmax())
    line = longest_diameter(piece[largest : largest + 1], *scan.pixel_mm)
    assert line is not None  # the slice holds some of the piece
    shares = areas / areas[largest]
    weights = 0.5 * (shares >= HALF_SHARE) + 0.5 * (shares > FULL_SHARE)
    height_mm = float((weights * scan.shares_mm).sum())
    return Abc2(line.mm * line.width_mm * height_mm / 2000.0, of_ml, line.mm, line.width_mm, height_mm)


def _largest_piece(scan: Scan, mask: np.ndarray) -> tuple[np.ndarray, float]:
    """The connected piece with the most mL, (slices, rows, columns) bool, and its mL."""
    box = bounding_box(mask)
    assert box is not None  # `abc2` has looked
    labels, count = ndimage.label(mask[box] != 0, _TOUCHING)
    voxel_ml = scan.voxel_ml[box[0]]
    counts = np.stack([np.bincount(of_slice.ravel(), minlength=count + 1) for of_slice in labels])
    volumes = voxel_ml @ counts
    volumes[0] = 0.0
    number = int(volumes.argmax())
    piece = np.zeros(mask.shape, bool)
    piece[box] = labels == number
    return piece, float(volumes[number])
