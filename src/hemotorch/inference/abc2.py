"""ABC/2: the volume of a bleeding as it is estimated by hand, beside the one that is counted in voxels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from hemotorch.head.diameter import longest_diameter
from hemotorch.scan import Scan

WHOLE_SHARE, HALF_SHARE = 0.75, 0.25  #: of the largest area: slices above count whole, those between half, others not
_TOUCHING = np.ones((3, 3, 3))


class Abc2(NamedTuple):
    """The estimate for one piece.

    ml: A * B * C / 2. piece_ml: the same piece, counted in voxels. a_mm, b_mm, c_mm: its length, width and height.
    """

    ml: float
    piece_ml: float
    a_mm: float
    b_mm: float
    c_mm: float


def abc2(scan: Scan, mask: np.ndarray) -> Abc2 | None:
    """ABC/2 of the largest connected piece of bleeding, as Kothari et al. 1996 (Stroke 27(8):1304) describe it.

    A is the longest line on the slice with the largest area, B the width at a right angle to it there, C the height:
    the thickness of all slices with over 75 % of that area, and half of those with 25 to 75 %. It holds for one clot
    that is about an ellipsoid, so pieces are not added, and crescents come out wrong.

    Args:
        scan: that the mask belongs to.
        mask: of its shape, counted if not zero.

    Returns:
        None if nothing is marked or the spacing is unknown.
    """
    if not scan.spacing_known or not mask.any():
        return None
    (box,) = ndimage.find_objects((mask != 0).astype(np.uint8))
    pieces, count = ndimage.label(mask[box] != 0, _TOUCHING)
    voxel_ml = scan.voxel_ml[box[0]]
    per_slice = [np.bincount(slice_.ravel(), minlength=count + 1) for slice_ in pieces]
    volumes = voxel_ml @ np.stack(per_slice)
    number = 1 + int(volumes[1:].argmax())
    piece = pieces == number
    areas = np.count_nonzero(piece, axis=(1, 2))
    largest = int(areas.argmax())
    line = longest_diameter(piece[largest : largest + 1], *scan.pixel_mm)
    assert line is not None  # the piece is not empty
    across = np.subtract(line.end, line.start) * scan.pixel_mm
    b_mm = _width_mm(piece[largest], np.array([-across[1], across[0]]) / line.mm, scan.pixel_mm)
    shares = areas / areas[largest]
    weights = np.where(shares > WHOLE_SHARE, 1.0, np.where(shares >= HALF_SHARE, 0.5, 0.0))
    c_mm = float(weights @ scan.shares_mm[box[0]])
    return Abc2(line.mm * b_mm * c_mm / 2000, float(volumes[number]), line.mm, b_mm, c_mm)


def _width_mm(area: np.ndarray, direction: np.ndarray, pixel_mm: tuple[float, float]) -> float:
    """How far an area reaches along a direction, from edge to edge of its pixels.

    Args:
        area: (rows, columns) bool, not empty.
        direction: (2,) unit vector, rows and columns.
    """
    along = np.argwhere(area) * pixel_mm @ direction
    pixel = float(np.abs(direction * pixel_mm).sum())
    return float(np.ptp(along)) + pixel
