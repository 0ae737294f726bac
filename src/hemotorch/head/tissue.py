"""What a scan's brain looks like in HU: its level, how uneven that is, and its noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from hemotorch.head.skull import BODY_HU, coarse, depth_mm, enclosed
from hemotorch.hu import AIR_HU
from hemotorch.scan import Scan

BRAIN_HU = (-15, 90)  #: where the level of the brain is looked for: an uncalibrated scanner may be 20 HU off
LEAST_AIR, THINNEST_AIR_HU = 0.05, -750.0  #: share of the scan's voxels, and HU, of the air around a head
USUAL_HU = (20.0, 55.0)  #: of the brain's median
NEAR_HU = 25.0  #: from the brain's median, what may be brain that is shaded
LEVEL_HU = 10.0  #: from the level around, what is brain and neither fluid nor blood
WIDE_MM, NARROW_MM = 30.0, 20.0  #: standard deviations of the two Gaussians that even out the level
CALM_MM = 1.5  #: of the one that calms the noise first
PATCH_MM = 6.0  #: side of the squares in which noise is measured
NOISE_PIXEL_MM, NOISE_SLAB_MM = 1.2, 5.0  #: pixels and slices are averaged to about this first, as networks do
NOISE_SLABS = 12  #: at most so many slabs are looked at for it
NOISE_PERCENTILE = 25.0  #: of the squares' standard deviations: those without edges of tissue
BRIGHT_HU = (20.0, 80.0)  #: above the level around, as fresh blood is
BRIGHT_DEPTH_MM, BRIGHT_OPEN_MM = 5.0, 2.0  #: nothing near bone, no vessel, no falx


@dataclass(frozen=True, eq=False)
class Level:
    """The level of the brain from place to place.

    hu: (slices, rows, columns) float32 HU on blocks of pixels, everywhere finite.
    median: HU of the brain as a whole.
    block: rows and columns of a block.
    inside: (slices, rows, columns) bool, which blocks bone encloses.
    """

    hu: np.ndarray
    median: float
    block: tuple[int, int]
    inside: np.ndarray

    @property
    def shading_hu(self) -> float:
        """Range of the level from place to place, without its highest and lowest 5 %."""
        if not self.inside.any():
            return 0.0
        low, high = np.percentile(self.hu[self.inside], [5, 95])
        return float(high - low)

    def on_slice(self, index: int, shape: tuple[int, int]) -> np.ndarray:
        """The level on a slice's own pixels, (rows, columns) float32, linear between the blocks."""
        values = self.hu[index]
        positions = []
        for axis in range(2):
            pixels = (np.arange(shape[axis]) + 0.5) / self.block[axis] - 0.5
            positions.append(np.clip(pixels, 0, values.shape[axis] - 1))
        return ndimage.map_coordinates(values, np.meshgrid(*positions, indexing="ij"), order=1, output=np.float32)


Coarse = tuple[Scan, tuple[int, int]]  #: what `coarse` gives


def brain_level(scan: Scan, small_scan: Coarse | None = None, inside: np.ndarray | None = None) -> Level | None:
    """The level of the brain, as the scanner shades it; None if bone encloses nothing that looks like brain.

    What is much brighter or darker than the level around, such as blood and fluid, does not count, however much of it
    there is nearby: the level is found twice, the second time from what is near the first.

    Args:
        scan: with known spacing.
        small_scan: `coarse` of it, if it is known already; inside: what bone encloses there, likewise.
    """
    small, block = small_scan or coarse(scan)
    inside = enclosed(small) if inside is None else inside
    row_mm, column_mm = small.pixel_mm
    calm = ndimage.gaussian_filter(
        np.clip(small.hu, -200, 300).astype(np.float32), (0, CALM_MM / row_mm, CALM_MM / column_mm)
    )
    brain = inside & (calm > BRAIN_HU[0]) & (calm < BRAIN_HU[1])
    if not brain.any():
        return None
    median = float(np.median(calm[brain]))
    # Every second block: the level is so smooth that it makes no difference, and takes a quarter of the time.
    calm, inside = calm[:, ::2, ::2], inside[:, ::2, ::2]
    slice_mm = float(np.nanmedian(small.shares_mm)) if len(small.hu) > 1 else 1.0
    voxel_mm = np.array([slice_mm, 2 * row_mm, 2 * column_mm])
    wide = _smooth(calm, inside & (np.abs(calm - median) < NEAR_HU), WIDE_MM / voxel_mm, median)
    narrow = _smooth(calm, inside & (np.abs(calm - wide) < LEVEL_HU), NARROW_MM / voxel_mm, median)
    return Level(narrow, median, (2 * block[0], 2 * block[1]), inside)


def odd_level(scan: Scan) -> str:
    """Why the HU of air or brain are not credible, or "": a rescale slope that was lost or applied twice.

    Such values pass every other check. Halved, air is at -500 and most brains are below 20; doubled, brain is at 60 to
    90, while air is cut off at -1024.
    """
    if not scan.spacing_known:
        return ""
    dark = scan.hu[(scan.hu < BODY_HU) & (scan.hu > AIR_HU)]
    if dark.size > LEAST_AIR * scan.hu.size and (air := float(np.median(dark))) > THINNEST_AIR_HU:
        return f"its air is at {air:.0f} HU, and air is at -1000: is the rescale slope right?"
    level = brain_level(scan)
    if level is None or USUAL_HU[0] <= level.median <= USUAL_HU[1]:
        return ""
    return f"its brain is at {level.median:.0f} HU, and brains are at 25 to 50: is the rescale slope right?"


def noise_hu(scan: Scan, small_scan: Coarse | None = None, inside: np.ndarray | None = None) -> float:
    """Standard deviation of the noise in the brain, HU; NaN if bone encloses nothing that looks like brain.

    On pixels of about 1.2 mm and slabs of about 5 mm, which is what networks look at: thin slices of small pixels are
    noisier, and it harms nobody. In squares of 6 mm that lie wholly in the brain, the standard deviation of the pixels.
    Most hold edges of tissue too, so a low percentile of it is taken.

    Args:
        scan: with known spacing.
        small_scan, inside: see `brain_level`.
    """
    small, block = small_scan or coarse(scan)
    inside = enclosed(small) if inside is None else inside
    slabs, size, slices = _noise_slabs(scan)
    row_mm, column_mm = (mm * size for mm in scan.pixel_mm)
    rows, columns = max(3, round(PATCH_MM / row_mm)), max(3, round(PATCH_MM / column_mm))
    whole = slabs[:, : slabs.shape[1] // rows * rows, : slabs.shape[2] // columns * columns]
    patches = whole.reshape(len(whole), whole.shape[1] // rows, rows, -1, columns)
    low, high = patches.min((2, 4)), patches.max((2, 4))
    inside = inside[slices]
    # A square counts if the middle of it lies inside the skull, and nothing in it is bone, air or fat.
    middle_rows = (np.arange(patches.shape[1]) * rows + rows // 2) * size // block[0]
    middle_columns = (np.arange(patches.shape[3]) * columns + columns // 2) * size // block[1]
    middle_rows = np.minimum(middle_rows, inside.shape[1] - 1)
    middle_columns = np.minimum(middle_columns, inside.shape[2] - 1)
    good = inside[:, middle_rows][:, :, middle_columns] & (low > -60) & (high < 160)
    if not good.any():
        return float("nan")
    chosen = patches.transpose(0, 1, 3, 2, 4)[good]
    means = chosen.mean((1, 2))
    brain = (means > BRAIN_HU[0]) & (means < BRAIN_HU[1])
    if not brain.any():
        return float("nan")
    return float(np.percentile(chosen[brain].std((1, 2)), NOISE_PERCENTILE))


def _noise_slabs(scan: Scan) -> tuple[np.ndarray, int, np.ndarray]:
    """A scan averaged to about NOISE_PIXEL_MM and NOISE_SLAB_MM.

    Returns:
        (slabs, rows, columns) float32, of at most NOISE_SLABS; how many rows and columns make one; and which slice is
        the middle of each slab.
    """
    slices, rows, columns = scan.shape
    size = min(rows, columns, max(1, round(NOISE_PIXEL_MM / scan.pixel_mm[0])))
    deep = 1
    if slices > 1:
        deep = min(slices, max(1, round(NOISE_SLAB_MM / max(0.1, float(np.nanmedian(scan.shares_mm))))))
    firsts = np.arange(slices // deep) * deep
    firsts = firsts[:: max(1, -(-len(firsts) // NOISE_SLABS))]
    slabs = []
    for first in firsts:
        mean = scan.hu[first : first + deep, : rows // size * size, : columns // size * size].mean(0, np.float32)
        slabs.append(mean.reshape(rows // size, size, columns // size, size).mean((1, 3)))
    return np.stack(slabs), size, firsts + deep // 2


def _smooth(values: np.ndarray, mask: np.ndarray, sigma: np.ndarray, far: float) -> np.ndarray:
    """The Gaussian mean of the values in a mask; `far` where there is none near."""
    weight = mask.astype(np.float32)
    total = ndimage.gaussian_filter(weight, sigma, truncate=3)
    mean = ndimage.gaussian_filter(values * weight, sigma, truncate=3)
    little = np.float32(1e-3)
    return (mean + little * np.float32(far)) / (total + little)


def bright_ml(scan: Scan) -> float:
    """mL of the largest piece of brain that is as much brighter than what is around it as fresh blood; NaN if unknown.

    20 to 80 HU above the level around, from 5 mm under the skull on, opened by 2 mm. Of 16 normal phantoms (`small`,
    seed 7) one had over 4 mL, of 24 with bleeding 9 had: it sees large clots, and none that is thin or near bone. A
    real normal head had 2.5 mL.
    """
    level = brain_level(scan)
    if level is None:
        return float("nan")
    row_mm, column_mm = scan.pixel_mm
    deep = depth_mm(scan, enclosed(scan)) > BRIGHT_DEPTH_MM
    radius = max(1, round(BRIGHT_OPEN_MM / row_mm))
    disk = np.hypot(*np.ogrid[-radius : radius + 1, -radius : radius + 1]) <= radius
    bright = np.zeros(scan.shape, bool)
    for index in np.flatnonzero(deep.any(axis=(1, 2))).tolist():
        hu = np.clip(scan.hu[index], -100, 150).astype(np.float32)
        above = ndimage.gaussian_filter(hu, (CALM_MM / row_mm, CALM_MM / column_mm))
        above -= level.on_slice(index, scan.shape[1:])
        as_blood = deep[index] & (above > BRIGHT_HU[0]) & (above < BRIGHT_HU[1])
        bright[index] = ndimage.binary_opening(as_blood, disk)
    labels, count = ndimage.label(bright, np.ones((3, 3, 3)))
    if not count:
        return 0.0
    voxel_ml = np.broadcast_to(scan.voxel_ml[:, None, None], labels.shape)
    return float(np.bincount(labels.ravel(), weights=voxel_ml.ravel())[1:].max())
