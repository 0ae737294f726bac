"""Model: HU on a grid in, probabilities out. What a network, or several together, are to everything else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hemotorch.grid import SliceSpacing


class Model(Protocol):
    """Anything that gives probabilities. It knows nothing of files, thresholds or millilitres.

    multiple: rows and columns of what it is given are multiples of it. spacings: the slice distances that it was
    trained on, one for each network it is made of; None if unknown.
    """

    @property
    def multiple(self) -> int: ...

    @property
    def spacings(self) -> tuple[SliceSpacing | None, ...]: ...

    def batch(self, rows: int, columns: int) -> int:
        """How many slices of that size it answers at once."""
        ...

    def without_mirror(self) -> Model:
        """The same model, looking at each slice once only."""
        ...

    def probabilities(
        self, hu: np.ndarray, positions_mm: np.ndarray | None = None, slices: Sequence[int] | None = None
    ) -> np.ndarray:
        """What the slices hold.

        Args:
            hu: (n, rows, columns) int16 HU of a whole scan on the model's grid, air where there is no scan.
            positions_mm: (n,) positions of the slices along the scan's normal, None if unknown.
            slices: Indices of those to answer for; None is all.

        Returns:
            (channels, slices, rows, columns) float32 from 0 to 1, a channel for each of the task's.
        """
        ...


@dataclass(frozen=True)
class Ensemble:
    """Several models of one task on one grid, such as the folds of a dataset: the mean of their probabilities."""

    models: Sequence[Model]

    @property
    def multiple(self) -> int:
        """Of each of the models; they share a grid."""
        return math.lcm(*(model.multiple for model in self.models))

    @property
    def spacings(self) -> tuple[SliceSpacing | None, ...]:
        """Those of all models."""
        return tuple(spacing for model in self.models for spacing in model.spacings)

    def batch(self, rows: int, columns: int) -> int:
        """As many slices as the model takes that takes the fewest."""
        return min(model.batch(rows, columns) for model in self.models)

    def without_mirror(self) -> Ensemble:
        """See `Model`."""
        return Ensemble([model.without_mirror() for model in self.models])

    def probabilities(
        self, hu: np.ndarray, positions_mm: np.ndarray | None = None, slices: Sequence[int] | None = None
    ) -> np.ndarray:
        """See `Model.probabilities`."""
        total = self.models[0].probabilities(hu, positions_mm, slices)
        for model in self.models[1:]:
            total = total + model.probabilities(hu, positions_mm, slices)
        mean: np.ndarray = total / np.float32(len(self.models))
        return mean
