"""Predictor: Scan -> Prediction. Head check, grid, model, back to the scan's pixels, mask, mL."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from hemotorch.errors import RunError
from hemotorch.grid import (
    Grid,
    Placement,
    hu_to_working,
    place,
    slice_positions_mm,
    typical_distance_mm,
)
from hemotorch.head import check_head
from hemotorch.inference.deployment import Deployment
from hemotorch.inference.doubts import Answer, doubts_about, outside_by_network
from hemotorch.inference.model import Model
from hemotorch.inference.pieces import without_small_pieces
from hemotorch.inference.second_look import SecondLook, look_again
from hemotorch.labels import CODES
from hemotorch.recipe import Predict
from hemotorch.scan import Doubt, LeftOut, Prediction, Scan
from hemotorch.system import limits
from hemotorch.system.arrays import bounding_box
from hemotorch.system.events import progress
from hemotorch.task import Task


@dataclass(frozen=True)
class Predictor:
    """A model and how it is used; training validates with it, and so does everything later.

    digest: SHA-256 of the model's file, or of the digests of several; "" if it was not read from one.
    """

    model: Model
    deployment: Deployment
    digest: str = ""

    @property
    def grid(self) -> Grid:
        """The pixels that the model works on."""
        return self.deployment.grid_for(self.model.multiple)

    def predict(self, scan: Scan, any_anatomy: bool = True, doubts: bool = False) -> Prediction:
        """Outlines bleeding.

        Args:
            scan: The scan.
            any_anatomy: Also predict what does not look like a head, with a warning.
            doubts: Also look for what speaks against the prediction, see `inference.doubts`.

        Returns:
            Mask and probability of bleeding in the scan's own pixels. The mask holds codes of `labels` if the task has
            types, else 0 and 1.

        Raises:
            InputError: if the scan does not look like a head, unless `any_anatomy`, or is too large on the grid.
            RunError: if the network gives NaN.
        """
        clock = _Clock()
        positions = slice_positions_mm(scan)
        warnings = self._warnings(scan, positions, any_anatomy)
        placement = place(self.grid, scan)
        limits.check_voxels((len(scan.hu), *placement.working), f"{scan.name} on the network's grid")
        working = hu_to_working(scan.hu, placement)
        clock.lap("prepare")
        bleeding, types = self._probabilities(working, positions)
        clock.lap("network")
        probability = placement.from_working(bleeding)
        task = self.deployment.task
        mask, left_out = postprocess(probability, scan, self.deployment.predict)
        mask = with_types(mask, types, placement, task)
        clock.lap("mask")
        volumes = volumes_ml(scan, mask, task)
        found: tuple[Doubt, ...] | None = None
        interval_ml: tuple[float, float] | None = None
        if doubts:
            second = self._look_again(scan, working, positions, bleeding, volumes["total"])
            interval_ml = second.interval_ml if second else None
            pixel_mm = (self.grid.pixel_mm, self.grid.pixel_mm) if self.grid.pixel_mm else scan.pixel_mm
            threshold = self.deployment.predict.threshold
            outside_ml = outside_by_network(bleeding, types, task, threshold, pixel_mm, self._pixel_ml(scan))
            answer = Answer(mask, probability, second, outside_ml)
            found = doubts_about(scan, answer, self.deployment.seen, self.model.spacings)
            clock.lap("doubts")
        return Prediction(
            scan,
            mask,
            probability,
            volumes,
            self.deployment.model,
            clock.seconds,
            warnings,
            task,
            doubts=found,
            interval_ml=interval_ml,
            digest=self.digest,
            card=self.deployment.card,
            left_out=left_out,
        )

    def _look_again(
        self,
        scan: Scan,
        working: np.ndarray,
        positions_mm: np.ndarray | None,
        bleeding: np.ndarray,
        total_ml: float,
    ) -> SecondLook | None:
        """See `second_look`; None if spacing is unknown. working, bleeding: (n, H, W) HU and probabilities."""
        if not scan.spacing_known or np.isnan(total_ml):
            return None
        pixel_ml = self._pixel_ml(scan)
        threshold = self.deployment.predict.threshold
        task = self.deployment.task
        return look_again(self.model, task, threshold, working, positions_mm, bleeding, pixel_ml, total_ml)

    def _pixel_ml(self, scan: Scan) -> np.ndarray:
        """(slices,) mL of one pixel of the grid."""
        if not self.grid.pixel_mm:
            return scan.voxel_ml
        return scan.voxel_ml * (self.grid.pixel_mm**2 / float(np.prod(scan.pixel_mm)))

    def _warnings(self, scan: Scan, positions_mm: np.ndarray | None, any_anatomy: bool) -> tuple[str, ...]:
        """The scan's warnings and what else is to be said of it. Raises InputError if it does not look like a head."""
        doubts = check_head(scan, any_anatomy)
        # `prepare` noted the same doubts in the scans that it stored.
        warnings = list(scan.warnings)
        warnings += [text for text in doubts if text not in warnings]
        if not scan.spacing_known:
            warnings.append("pixel size unknown: no volume in mL")
        for text in self._spacing_warnings(positions_mm):
            if text not in warnings:
                warnings.append(text)
        return tuple(warnings)

    def _spacing_warnings(self, positions_mm: np.ndarray | None) -> list[str]:
        """What to say about the distance of the slices; nothing if it is unknown, which is said elsewhere."""
        if positions_mm is None:
            return []
        distance = typical_distance_mm(positions_mm)
        unknown = f"slices are {distance:.3g} mm apart; the distance that the network was trained on is unknown"
        warnings: list[str] = []
        for spacing in self.model.spacings:
            text = unknown if spacing is None else spacing.warning(distance)
            if text is not None:
                warnings.append(text)
        return warnings

    def _probabilities(
        self, working: np.ndarray, positions_mm: np.ndarray | None
    ) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """The model's answer for (n, H, W) HU on the grid.

        Returns:
            (n, H, W) float32, the probability of bleeding of whatever type; and, for each slice that may hold some,
            (channels, H, W) float32, how probable each channel is. All slices' would take seven times the memory.
        """
        task = self.deployment.task
        bleeding = np.empty(working.shape, np.float32)
        types: dict[int, np.ndarray] = {}
        # The way back to the scan's pixels is an average: it makes nothing larger, but for rounding.
        least = 0.999 * self.deployment.predict.threshold
        count = len(working)
        step = self.model.batch(*working.shape[1:])
        for first in progress(range(0, count, step), "predicting", unit="batch"):
            slices = range(first, min(first + step, count))
            probabilities = self.model.probabilities(working, positions_mm, slices)
            if not task.types:
                bleeding[first : slices.stop] = probabilities[0]
                continue
            bleeding[first : slices.stop] = probabilities[: task.bleeding].sum(axis=0)
            for index in slices:
                if bleeding[index].max() >= least:
                    types[index] = probabilities[:, index - first].copy()
        if not np.isfinite(bleeding).all():
            what = "the network gave NaN: its weights are damaged or its training diverged"
            raise RunError(what, self.deployment.model, "use another checkpoint, or train again")
        return bleeding, types


def with_types(mask: np.ndarray, types: dict[int, np.ndarray], placement: Placement, task: Task) -> np.ndarray:
    """The mask with the code of the most probable type in place of each 1.

    Args:
        mask: (slices, rows, columns) uint8, 0 or 1.
        types: by slice, (channels, H, W) float32 probabilities on the grid; of every slice that the mask has a 1 in.
        placement: Where the grid lies.
        task: What the model answers; without types the mask stays as it is.
    """
    if not task.types:
        return mask
    out = np.zeros_like(mask)
    for index in np.flatnonzero(mask.any(axis=(1, 2))).tolist():
        ((rows, columns),) = ndimage.find_objects(mask[index])
        on_scan = placement.from_working(types[index][: task.bleeding], rows, columns)
        out[index, rows, columns] = task.mask(mask[index, rows, columns] > 0, on_scan)
    return out


def volumes_ml(scan: Scan, mask: np.ndarray, task: Task) -> dict[str, float]:
    """mL of all that the mask outlines, "total", and of each of the task's types; NaN if spacing is unknown."""
    volumes = {"total": scan.volume_ml(mask)}
    marked = np.flatnonzero(mask.any(axis=(1, 2)))
    of_type = np.zeros(mask.shape, bool)
    for name in task.types:
        of_type[marked] = mask[marked] == CODES[name]
        volumes[name] = scan.volume_ml(of_type)
    return volumes


def postprocess(probability: np.ndarray, scan: Scan, options: Predict) -> tuple[np.ndarray, LeftOut | None]:
    """Probabilities to a mask: threshold, closing, opening, bone cut off, small pieces dropped.

    Args:
        probability: (slices, rows, columns) of bleeding.
        scan: that they are of.
        options: the threshold and what comes after it.

    Returns:
        The mask, uint8 of the same shape, 0 or 1; and what was dropped from it, None if nothing was.
    """
    left_out = None
    mask = probability >= options.threshold
    if options.closing_px:
        mask = np.stack([_close(slice_mask, options.closing_px) for slice_mask in mask])
    if options.opening_px:
        mask = np.stack([_open(slice_mask, options.opening_px) for slice_mask in mask])
    box = bounding_box(mask) if options.min_ml and scan.spacing_known and len(mask) > 1 else None
    if box is not None:
        mask[box], left_out = without_small_pieces(mask[box], scan.voxel_ml[box[0]], options.min_ml)
    return mask.view(np.uint8), left_out


def _close(mask: np.ndarray, size: int) -> np.ndarray:
    # Padded, since scipy takes what lies outside the image for empty and would erode bleeding at the edge.
    padded = np.pad(mask, size)
    return ndimage.binary_closing(padded, np.ones((size, size)))[size:-size, size:-size]


def _open(mask: np.ndarray, size: int) -> np.ndarray:
    return ndimage.binary_opening(mask, np.ones((size, size)))


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 4)
        self._last = now
