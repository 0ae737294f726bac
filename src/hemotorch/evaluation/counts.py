"""From masks to counts, from counts to values: sums first, one division last, NaN where a value is not defined."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from hemotorch.errors import InputError

#: The rule every value in a report follows.
EMPTY_RULE = (
    "A value whose denominator is zero is undefined (null in JSON), left out of means and counted: Dice and "
    "Jaccard where truth and prediction are both empty, sensitivity where the truth is empty, specificity where "
    "nothing is negative. Truth without prediction scores 0, and so does prediction without truth."
)


@dataclass(frozen=True)
class Counts:
    """How many voxels (or slices, or mL: any measure that adds up) were called right and wrong.

    tp: bleeding found; fp: found where there is none; fn: bleeding missed; tn: rightly left alone.
    """

    tp: float = 0
    fp: float = 0
    fn: float = 0
    tn: float = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def dice(self) -> float:
        """2 tp / (2 tp + fp + fn): the overlap of truth and prediction, the F1 score."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def jaccard(self) -> float:
        """tp / (tp + fp + fn): intersection over union."""
        return ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def sensitivity(self) -> float:
        """tp / (tp + fn): the share of the bleeding that was found."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """tn / (tn + fp): the share of the rest that was left alone."""
        return ratio(self.tn, self.tn + self.fp)

    @property
    def positives(self) -> float:
        """tp + fn: how much bleeding the truth holds."""
        return self.tp + self.fn

    @property
    def predicted(self) -> float:
        """tp + fp: how much bleeding was predicted."""
        return self.tp + self.fp


#: The four values of the paper's Table 1, each a property of Counts.
VALUES = ("jaccard", "dice", "sensitivity", "specificity")


def ratio(numerator: float, denominator: float) -> float:
    """The quotient as a float, NaN where the denominator is zero."""
    return float(numerator) / float(denominator) if denominator else math.nan


def count_slices(truth: np.ndarray, predicted: np.ndarray) -> list[Counts]:
    """The voxel counts of each slice.

    truth, predicted: (slices, rows, columns), any dtype, non-zero is bleeding. Raises InputError for unlike shapes.
    """
    if truth.shape != predicted.shape:
        raise InputError(f"a prediction of shape {predicted.shape} cannot be scored against truth of {truth.shape}")
    truth, predicted = truth.reshape(len(truth), -1) != 0, predicted.reshape(len(predicted), -1) != 0
    tp = np.count_nonzero(truth & predicted, axis=1)
    fp = np.count_nonzero(predicted, axis=1) - tp
    fn = np.count_nonzero(truth, axis=1) - tp
    tn = truth.shape[1] - tp - fp - fn
    return [Counts(*(int(n) for n in row)) for row in zip(tp, fp, fn, tn, strict=True)]


def count(truth: np.ndarray, predicted: np.ndarray) -> Counts:
    """The voxel counts of whole masks of one shape; non-zero is bleeding."""
    return total(count_slices(np.atleast_2d(truth), np.atleast_2d(predicted)))


def count_flags(truth: Iterable[bool], predicted: Iterable[bool]) -> Counts:
    """The counts of yes-and-no calls: scans or slices that hold bleeding, and those called so."""
    return count(np.array(list(truth), bool)[None], np.array(list(predicted), bool)[None])


def total(counts: Iterable[Counts], weights: Iterable[float] | None = None) -> Counts:
    """The sum of counts, each slice's times its own weight (the mL of its voxels, say) where weights are given."""
    rows = np.array([astuple(entry) for entry in counts]).reshape(-1, 4)
    if weights is not None:
        rows = rows * np.array(list(weights), float)[:, None]
    return Counts(*rows.sum(axis=0).tolist())


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Minimum, maximum, standard deviation (of the population, ddof 0, as NumPy's default), mean and median of the
    defined values; n is their number, undefined that of the rest."""
    every = np.array(list(values), float)
    defined = every[~np.isnan(every)]
    found = {"min": math.nan, "max": math.nan, "std": math.nan, "mean": math.nan, "median": math.nan}
    if len(defined):
        names = ("min", "max", "std", "mean", "median")
        found = {name: float(getattr(np, name)(defined)) for name in names}
    return {**found, "n": len(defined), "undefined": len(every) - len(defined)}
