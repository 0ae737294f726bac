"""Whether the large veins of a head shine, as they do after contrast was given."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from hemotorch.head.skull import coarse, enclosed
from hemotorch.head.tissue import Coarse
from hemotorch.scan import Scan
from hemotorch.system.arrays import bounding_box

BONE_HU = 300.0  #: a filled sinus may be brighter than `skull.BONE_HU`
SHINES_HU = (100.0, 230.0)  #: brighter than any clot, darker than bone
FLAT_HU_MM = 20.0  #: steepest slope of the HU within a vessel; half a pixel of bone is steeper
CALM_MM = 1.0  #: standard deviation of the Gaussian that calms the noise first
VESSEL_MM = 2.0  #: radius of a disk that fits into a sinus
BONE_REACH_MM = 3.0  #: above and below it there is no bone either: a slice that half cuts bone is as bright
FULL_SHARE = 0.6  #: of the fullest slice's area inside the skull; toward vertex and base, slices cut bone flatly
SLICES = 3  #: a sinus is seen on so many slices
SINUS_MM2 = 10.0  #: of a sinus in a slice; a transverse sinus has some 50


def bright_sinus_mm2(scan: Scan, small_scan: Coarse | None = None) -> float:
    """Area of what shines like a sinus filled with contrast, on the third best slice; 0 if there are fewer.

    At the back half of the space inside the skull: flat in HU, of 100 to 230 HU, wide enough, no bone above or below.
    Of a contrast series of the base of the skull it is 23 mm2; of two real heads without contrast, of others with
    painted bleeding and of 40 phantoms it is 0.

    Args:
        scan: with known spacing.
        small_scan: `coarse` of it, if it is known already.
    """
    row_mm, column_mm = scan.pixel_mm
    small, (block_rows, block_columns) = small_scan or coarse(scan)
    space = enclosed(small, bone_hu=BONE_HU)
    areas = np.count_nonzero(space, axis=(1, 2))
    reach = 1
    if len(scan.hu) > 1:
        reach = max(1, int(np.ceil(BONE_REACH_MM / max(0.1, float(np.nanmedian(scan.shares_mm))))))
    radius = max(1, round(VESSEL_MM / row_mm))
    offsets = np.arange(-radius, radius + 1)
    disk = np.hypot(offsets[:, None] * row_mm, offsets[None] * column_mm) <= VESSEL_MM + 1e-6
    found = []
    for index in np.flatnonzero(areas > max(0.0, FULL_SHARE * areas.max())).tolist():
        # One block wider, since a block that touches bone is bone.
        inside = ndimage.binary_dilation(space[index])
        box = bounding_box(inside)
        assert box is not None  # its area is not 0
        box_rows, box_columns = box
        back = slice((box_rows.start + box_rows.stop) // 2, box_rows.stop)
        rows = slice(back.start * block_rows, back.stop * block_rows)
        columns = slice(box_columns.start * block_columns, box_columns.stop * block_columns)
        near = scan.hu[max(0, index - reach) : index + reach + 1, rows, columns]
        hu = np.clip(scan.hu[index, rows, columns], -200, 400).astype(np.float32)
        calm = ndimage.gaussian_filter(hu, (CALM_MM / row_mm, CALM_MM / column_mm))
        shines = (calm > SHINES_HU[0]) & (calm < SHINES_HU[1])
        shines &= inside[back, box_columns].repeat(block_rows, axis=0).repeat(block_columns, axis=1)
        if np.count_nonzero(shines) * row_mm * column_mm < SINUS_MM2:
            continue
        down, across = np.gradient(calm, row_mm, column_mm)
        shines &= (np.hypot(down, across) < FLAT_HU_MM) & ~(near > BONE_HU).any(axis=0)
        found.append(_opened_pixels(shines, disk) * row_mm * column_mm)
    return float(sorted(found)[-SLICES]) if len(found) >= SLICES else 0.0


def _opened_pixels(shines: np.ndarray, disk: np.ndarray) -> int:
    """How many pixels are left of (rows, columns) bool once it is opened; of a few specks that takes no time."""
    box = bounding_box(shines)
    return 0 if box is None else int(np.count_nonzero(ndimage.binary_opening(shines[box], disk)))
