"""Scan -> Prediction, with the network, grid and thresholds that a training deployed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from hemotorch import nets
from hemotorch.errors import InputError, OptionError, RunError
from hemotorch.grid import (
    Grid,
    SliceSpacing,
    hu_to_working,
    place,
    slice_positions_mm,
    stack_weights,
    stacks_to_working,
    taken_by_index,
    typical_distance_mm,
)
from hemotorch.head import check_head
from hemotorch.hu import AIR_HU
from hemotorch.inference.checkpoint import load_checkpoint
from hemotorch.nets import Net
from hemotorch.recipe import Engine, Predict, Recipe, Tiles, recipe_from_dict
from hemotorch.run import BEST
from hemotorch.scan import Prediction, Scan
from hemotorch.system import limits
from hemotorch.system.device import Device, choose
from hemotorch.system.progress import progress

BATCH_PIXELS = 8 * 192 * 192  #: of a forward pass: as many slices as make this many pixels


@dataclass(frozen=True)
class Predictor:
    """A network in evaluation mode and how it is deployed; training validates with it, and so does everything later.

    model: what it is, in words, for the records. spacing: the slice distances it was trained on, None if unknown:
    neighbouring slices are then taken by index.
    """

    net: Net
    recipe: Recipe
    device: Device
    model: str
    spacing: SliceSpacing | None = None

    @staticmethod
    def load(path: Path | str, device: str = "auto") -> Predictor:
        """From a run folder (its best checkpoint) or a checkpoint file. Raises InputError, OptionError."""
        path = Path(path)
        file = path / BEST if path.is_dir() else path
        checkpoint = load_checkpoint(file)
        recipe = recipe_from_dict(checkpoint.recipe, str(file))
        decided = _decided(device, recipe)
        decided.use()
        net = nets.build(checkpoint.net, **checkpoint.options)
        try:
            net.load_state_dict(checkpoint.weights)
        except RuntimeError as error:
            raise InputError("its weights do not fit its network", file, "was it altered? train again") from error
        net = decided.put(net).eval()
        model = f"{recipe.name} ({checkpoint.net}), epoch {checkpoint.epoch} of {recipe.train.epochs}"
        try:
            stored = checkpoint.slice_spacing
            spacing = None if stored is None else SliceSpacing.from_dict(stored)
        except ValueError as error:
            raise InputError(f"is damaged ({error})", file, "use another checkpoint or train again") from error
        return Predictor(net, recipe, decided, model, spacing)

    @property
    def grid(self) -> Grid:
        """The pixels the network works on."""
        return grid_of(self.recipe, self.net)

    def predict(self, scan: Scan, any_anatomy: bool = True) -> Prediction:
        """Outlines bleeding. The mask and probabilities are in the scan's own pixels.

        any_anatomy=False raises InputError where the scan does not look like a head.
        """
        clock = _Clock()
        doubts = check_head(scan, any_anatomy)
        # `prepare` noted the same doubts in the scans that it stored.
        warnings = scan.warnings + tuple(text for text in doubts if text not in scan.warnings)
        if not scan.spacing_known:
            warnings = (*warnings, "pixel size unknown: no volume in mL")
        positions = slice_positions_mm(scan)
        warnings = (*warnings, *self._spacing_warnings(positions))
        placement = place(self.grid, scan)
        working_shape = (len(scan.hu), placement.rows.working, placement.columns.working)
        limits.check_voxels(working_shape, f"{scan.name} on the network's grid")
        working = hu_to_working(scan.hu, placement)
        clock.lap("prepare")
        probability = self._probabilities(working, positions)
        if not bool(probability.isfinite().all()):
            todo = "use another checkpoint, or train again"
            raise RunError("the network gave NaN: its weights are damaged or its training diverged", self.model, todo)
        clock.lap("network")
        full = torch.cat([placement.from_working(part) for part in probability.split(8)]).numpy()
        mask = postprocess(full, scan, self.recipe.predict)
        clock.lap("mask")
        return Prediction(scan, mask, full, {"total": scan.volume_ml(mask)}, self.model, clock.seconds, warnings)

    def _spacing_warnings(self, positions_mm: np.ndarray | None) -> list[str]:
        """What to say about the distance of the slices; nothing if it is unknown, which is said elsewhere."""
        if positions_mm is None:
            return []
        distance = typical_distance_mm(positions_mm)
        if self.spacing is None:
            return [f"slices are {distance:.3g} mm apart; the distance that the network was trained on is unknown"]
        warning = self.spacing.warning(distance)
        return [] if warning is None else [warning]

    def _stacks(self, working: Tensor, positions_mm: np.ndarray | None) -> Callable[[int, int], Tensor]:
        """What gives the stacks (m, slices, H, W) that the network sees of slices `first` to `last`."""
        count, radius = len(working), self.net.slices // 2
        if positions_mm is None or self.spacing is None or taken_by_index(positions_mm, self.spacing, self.net.slices):
            neighbours = torch.arange(count)[:, None] + torch.arange(-radius, radius + 1)
            indices = neighbours.clamp(0, count - 1)
            return lambda first, last: working[indices[first:last]]
        positions, distance = positions_mm, self.spacing.usual_mm

        def averaged(first: int, last: int) -> Tensor:
            weights = stack_weights(positions, distance, self.net.slices, np.arange(first, min(last, count)))
            return stacks_to_working(working, weights)

        return averaged

    def _probabilities(self, working: Tensor, positions_mm: np.ndarray | None = None) -> Tensor:
        """(slices, H, W) int16 HU on the grid to float32 probabilities of the same shape, on the CPU."""
        count = len(working)
        stacks = self._stacks(working, positions_mm)
        tiles = self.recipe.tiles
        side = (tiles.size_px,) * 2 if tiles.size_px else working.shape[1:]
        many = max(1, BATCH_PIXELS // (side[0] * side[1]))
        out = torch.empty(working.shape)
        with torch.inference_mode():
            if tiles.size_px:
                for i in progress(range(count), "predicting", unit="slice"):
                    out[i] = self._stitched(stacks(i, i + 1)[0], tiles, many)
                return out
            for first in progress(range(0, count, many), "predicting", unit="batch"):
                out[first : first + many] = self._forward(stacks(first, first + many))
        return out

    def _forward(self, hu: Tensor) -> Tensor:
        hu = hu.to(self.device.torch_device, self.device.dtype).contiguous(memory_format=self.device.memory_format)
        with self.device.autocast():
            logits = self.net(hu)
            if self.recipe.predict.mirror:
                mirrored = self.net(hu.flip(-1)).flip(-1)
                return ((logits.float().sigmoid() + mirrored.float().sigmoid()) / 2)[:, 0].cpu()
        return logits.float().sigmoid()[:, 0].cpu()

    def _stitched(self, hu: Tensor, tiles: Tiles, many: int) -> Tensor:
        """One slice (slices, H, W) in overlapping blocks, averaged where they overlap."""
        height, width = hu.shape[1:]
        size = tiles.size_px
        padded = nn.functional.pad(hu, (0, max(0, size - width), 0, max(0, size - height)), value=AIR_HU)
        total, shown = torch.zeros(padded.shape[1:]), torch.zeros(padded.shape[1:])
        places = tiles.corners(height, width)
        for first in range(0, len(places), many):
            part = places[first : first + many]
            blocks = torch.stack([padded[:, top : top + size, left : left + size] for top, left in part])
            for (top, left), probability in zip(part, self._forward(blocks), strict=True):
                total[top : top + size, left : left + size] += probability
                shown[top : top + size, left : left + size] += 1
        return (total / shown)[:height, :width]


def _decided(device: str, recipe: Recipe) -> Device:
    """The device, computing as the training validated, where it can."""
    try:
        return choose(device, Engine(precision=recipe.engine.precision))
    except OptionError:
        return choose(device)


def grid_of(recipe: Recipe, net: Net) -> Grid:
    """The grid that a recipe and its network work on. Blocks need no padding: they are cut to size."""
    return Grid(recipe.grid.pixel_mm, recipe.grid.size_px, 1 if recipe.tiles.size_px else net.multiple)


def postprocess(probability: np.ndarray, scan: Scan, options: Predict) -> np.ndarray:
    """Probabilities (slices, rows, columns) to a uint8 mask: threshold, closing, opening, small pieces dropped."""
    mask = probability >= options.threshold
    for size, operation in ((options.closing_px, _close), (options.opening_px, _open)):
        if size:
            mask = np.stack([operation(part, size) for part in mask])
    if options.min_ml and scan.spacing_known and mask.any() and len(mask) > 1:
        box = ndimage.find_objects(mask.astype(np.uint8))[0]
        labels, count = ndimage.label(mask[box], np.ones((3, 3, 3)))
        weights = np.broadcast_to(scan.voxel_ml[box[0], None, None], labels.shape)
        sizes = np.bincount(labels.ravel(), weights.ravel(), count + 1)
        mask[box] &= (sizes >= options.min_ml)[labels]
    return mask.astype(np.uint8)


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
