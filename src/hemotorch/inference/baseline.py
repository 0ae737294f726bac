"""The rule-based baseline, bright inside the skull: every report shows it beside the network."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from hemotorch.head import enclosed
from hemotorch.inference.pieces import without_small_pieces
from hemotorch.scan import Prediction, Scan

ASSUMED_PIXEL_MM = 0.45  #: if spacing is unknown: CT-ICH's, at 512 x 512
ASSUMED_SLICE_MM = 5.0  #: of a single slice or unknown spacing: CT-ICH's


@dataclass(frozen=True)
class RuleBaseline:
    """Calls bleeding what is as bright as fresh blood, inside the skull, and not too small. Nothing is learned.

    It is meant to be as good as such rules get: the constants are ours, the best of a grid on 20 phantom heads (`small`
    of another seed) and two real scans with painted bleeding; thresholds relative to the brain's level did no better.

    low_hu, high_hu: fresh blood after smoothing; grey matter lies below, calcification and bone above.
    smooth_mm: standard deviation of the Gaussian, in plane, that calms the noise first.
    margin_mm: how far from bone, whose blur brightens the brain beside it.
    open_mm: radius of the in-plane opening that removes thin bright lines (falx, tentorium, vessels).
    min_ml: smaller pieces (26 neighbours) are dropped.
    """

    low_hu: float = 55.0
    high_hu: float = 90.0
    smooth_mm: float = 0.5
    margin_mm: float = 2.0
    open_mm: float = 1.5
    min_ml: float = 0.5

    def predict(self, scan: Scan) -> Prediction:
        """Outlines bleeding: mask (slices, rows, columns) uint8 in the scan's own pixels, no probabilities.

        A scan without an enclosing skull gets an empty mask and a warning.
        """
        started = time.perf_counter()
        mask = np.zeros(scan.shape, np.uint8)
        pixel_mm = np.array([ASSUMED_PIXEL_MM, ASSUMED_PIXEL_MM])
        if scan.spacing_known:
            pixel_mm = np.array(scan.pixel_mm)
        inside = enclosed(scan, float(pixel_mm[0]))
        boxes = ndimage.find_objects(inside.astype(np.uint8))
        warnings = scan.warnings
        left_out = None
        if boxes:
            # Everything outside the skull's box is left out of the work, with room for the smoothing at its edges.
            room = int(np.ceil(4 * self.smooth_mm / pixel_mm.min()))
            _, rows, columns = boxes[0]
            rows, columns = _wider(rows, room), _wider(columns, room)
            mask[:, rows, columns] = self._outline(scan.hu[:, rows, columns], inside[:, rows, columns], pixel_mm)
            assumed_ml = np.full(len(mask), float(pixel_mm.prod()) * ASSUMED_SLICE_MM / 1000)
            voxel_ml = np.where(np.isnan(scan.voxel_ml), assumed_ml, scan.voxel_ml)
            mask, left_out = without_small_pieces(mask, voxel_ml, self.min_ml)
        else:
            warnings = (*warnings, "no skull encloses anything in this scan: the baseline found nothing")
        seconds = {"rules": round(time.perf_counter() - started, 4)}
        return Prediction(
            scan,
            mask,
            None,
            {"total": scan.volume_ml(mask)},
            self.description,
            seconds,
            warnings,
            left_out=left_out if scan.spacing_known else None,
        )

    @property
    def description(self) -> str:
        """What it is, in words, for the records."""
        return (
            f"rule-based baseline ({self.low_hu:g} to {self.high_hu:g} HU inside the skull, {self.margin_mm:g} mm off "
            f"bone; smoothed {self.smooth_mm:g} mm, opened {self.open_mm:g} mm, pieces from {self.min_ml:g} mL)"
        )

    def _outline(self, hu: np.ndarray, inside: np.ndarray, pixel_mm: np.ndarray) -> np.ndarray:
        """What is bright inside the skull, slice by slice, opened in plane; bool of hu's shape."""
        margin = _disk(self.margin_mm, pixel_mm)
        opening = _disk(self.open_mm, pixel_mm)
        out = np.zeros(hu.shape, bool)
        for index in np.flatnonzero(inside.any(axis=(1, 2))):
            # Bone is dimmed to soft tissue first, or the smoothing would carry its brightness inward.
            dimmed = np.clip(hu[index], -100, 120).astype(np.float32)
            smooth = ndimage.gaussian_filter(dimmed, self.smooth_mm / pixel_mm)
            bright = (smooth >= self.low_hu) & (smooth <= self.high_hu)
            bright &= ndimage.binary_erosion(inside[index], margin)
            out[index] = ndimage.binary_opening(bright, opening)
        return out


def _wider(part: slice, room: int) -> slice:
    return slice(max(0, part.start - room), part.stop + room)


def _disk(radius_mm: float, pixel_mm: np.ndarray) -> np.ndarray:
    """A disk of at least the pixel's own neighbours: bool, odd rows and columns."""
    row_mm, column_mm = pixel_mm
    reach_rows, reach_columns = np.maximum(1, np.floor(radius_mm / pixel_mm)).astype(int)
    rows, columns = np.ogrid[-reach_rows : reach_rows + 1, -reach_columns : reach_columns + 1]
    distance_mm = np.hypot(rows * row_mm, columns * column_mm)
    return distance_mm <= max(radius_mm, float(pixel_mm.max()))
