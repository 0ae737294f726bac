"""A few slices looked at again, a little otherwise: how much of what is outlined stays so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hemotorch.inference.model import Model
from hemotorch.system.arrays import voxels_per_slice
from hemotorch.task import Task

SHARE = 12  #: of the slices, one of so many is looked at again: those with the most bleeding
SHIFT_HU = 6  #: by which they are made darker and brighter, about half of what scanners differ by
SHIFT_PX = 5  #: by which they are moved on the grid; a network halves its images several times


@dataclass(frozen=True)
class SecondLook:
    """What came of it.

    interval_ml: least and most mL of the whole scan, as each of the looks has it and as it was outlined.
    agreement: of what some look outlines the share that each does; 1 if none outlines anything.
    """

    interval_ml: tuple[float, float]
    agreement: float


def look_again(
    model: Model,
    task: Task,
    threshold: float,
    working: np.ndarray,
    positions_mm: np.ndarray | None,
    bleeding: np.ndarray,
    pixel_ml: np.ndarray,
    total_ml: float,
) -> SecondLook:
    """Looks again at a twelfth of the slices: mirrored, darker, brighter, and moved on the grid.

    How much more or less they show is taken for the whole scan.

    Args:
        model: as it predicts.
        task: what it answers.
        threshold: from which a probability is outlined.
        working: (n, H, W) HU on the grid.
        positions_mm: of the slices.
        bleeding: (n, H, W) probabilities on the grid, as the model gave them.
        pixel_ml: (n,) of one pixel of the grid.
        total_ml: of the mask.
    """
    slice_ml = voxels_per_slice(bleeding >= threshold) * pixel_ml
    order = np.argsort(slice_ml + bleeding.max(axis=(1, 2)) * pixel_ml)
    chosen = sorted(order[-max(1, len(working) // SHARE) :].tolist())
    before_ml = float(slice_ml[chosen].sum())
    of_all = float(slice_ml.sum()) / before_ml if before_ml else 1.0
    everywhere = anywhere = bleeding[chosen] >= threshold
    volumes = [total_ml]
    for probability in _looks(model, task, working, positions_mm, chosen):
        outlined = probability >= threshold
        everywhere, anywhere = everywhere & outlined, anywhere | outlined
        after_ml = float((voxels_per_slice(outlined) * pixel_ml[chosen]).sum())
        volumes.append(max(0.0, total_ml + (after_ml - before_ml) * of_all))
    some_ml = float((voxels_per_slice(anywhere) * pixel_ml[chosen]).sum())
    each_ml = float((voxels_per_slice(everywhere) * pixel_ml[chosen]).sum())
    agreement = each_ml / some_ml if some_ml else 1.0
    return SecondLook((min(volumes), max(volumes)), agreement)


def _looks(
    model: Model, task: Task, working: np.ndarray, positions_mm: np.ndarray | None, chosen: list[int]
) -> Iterator[np.ndarray]:
    """What the model makes of the chosen slices each time: (chosen, H, W) probabilities on the grid."""
    # Half the time of a model that also looks at mirrored slices, and what that would average out shows.
    once = model.without_mirror()

    def probability(hu: np.ndarray) -> np.ndarray:
        # All of them at once: a model's threads share them out.
        answer: np.ndarray = once.probabilities(hu, positions_mm, chosen)[: task.bleeding].sum(0)
        return answer

    yield probability(working[..., ::-1])[..., ::-1]
    yield probability(working - np.int16(SHIFT_HU))
    yield probability(working + np.int16(SHIFT_HU))
    yield np.roll(probability(np.roll(working, SHIFT_PX, (1, 2))), -SHIFT_PX, (1, 2))
