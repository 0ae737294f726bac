"""From masks to counts, from counts to values: sums first, one division last, NaN if a value is not defined."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import TypedDict

import numpy as np

from hemotorch.errors import InputError

#: The rule every value in a report follows.
EMPTY_RULE = (
    "A value whose denominator is zero is undefined (null in JSON), left out of means and counted: Dice and "
    "Jaccard if truth and prediction are both empty, sensitivity if the truth is empty, specificity if "
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
    def negatives(self) -> float:
        """tn + fp: how much the truth holds that is no bleeding."""
        return self.tn + self.fp

    @property
    def predicted(self) -> float:
        """tp + fp: how much bleeding was predicted."""
        return self.tp + self.fp


#: The four values of the paper's Table 1, each a property of Counts.
VALUES = ("jaccard", "dice", "sensitivity", "specificity")


class Spread(TypedDict):
    """How values are spread; n is how many are defined, undefined how many are not."""

    min: float
    max: float
    std: float
    mean: float
    median: float
    n: int
    undefined: int


def ratio(numerator: float, denominator: float) -> float:
    """The quotient as a float, NaN if the denominator is zero."""
    return float(numerator) / float(denominator) if denominator else math.nan


def count_slices(truth: np.ndarray, predicted: np.ndarray) -> list[Counts]:
    """The voxel counts of each slice.

    Args:
        truth, predicted: (slices, rows, columns), any dtype, non-zero is bleeding.

    Raises:
        InputError: if the shapes differ.
    """
    if truth.shape != predicted.shape:
        raise InputError(f"a prediction of shape {predicted.shape} cannot be scored against truth of {truth.shape}")
    true_voxels = truth.reshape(len(truth), -1) != 0
    predicted_voxels = predicted.reshape(len(predicted), -1) != 0
    both = np.count_nonzero(true_voxels & predicted_voxels, axis=1).tolist()
    positives = np.count_nonzero(true_voxels, axis=1).tolist()
    predictions = np.count_nonzero(predicted_voxels, axis=1).tolist()
    voxels = true_voxels.shape[1]
    return [
        Counts(tp, predictions[i] - tp, positives[i] - tp, voxels - positives[i] - predictions[i] + tp)
        for i, tp in enumerate(both)
    ]


def count(truth: np.ndarray, predicted: np.ndarray) -> Counts:
    """The voxel counts of whole masks of one shape; non-zero is bleeding."""
    return total(count_slices(np.atleast_2d(truth), np.atleast_2d(predicted)))


def count_flags(truth: Iterable[bool], predicted: Iterable[bool]) -> Counts:
    """The counts of yes-and-no calls: scans or slices that hold bleeding, and those called so."""
    return count(np.array(list(truth), bool)[None], np.array(list(predicted), bool)[None])


def total(counts: Iterable[Counts], weights: Iterable[float] | None = None) -> Counts:
    """The sum of counts, each slice's times its own weight (the mL of its voxels, say) if weights are given."""
    # Sums first: a mean of slices' values would weigh a slice of one voxel as one of a thousand.
    rows = np.array([astuple(slice_counts) for slice_counts in counts]).reshape(-1, 4)
    if weights is not None:
        rows = rows * np.array(list(weights), float)[:, None]
    return Counts(*rows.sum(axis=0).tolist())


def spread(values: Iterable[float]) -> Spread:
    """How the defined values are spread. The standard deviation is the population's (ddof 0), as NumPy's default."""
    every = np.array(list(values), float)
    defined = every[~np.isnan(every)]
    undefined = len(every) - len(defined)
    if not len(defined):
        nan = math.nan
        return Spread(min=nan, max=nan, std=nan, mean=nan, median=nan, n=0, undefined=undefined)
    return Spread(
        min=float(defined.min()),
        max=float(defined.max()),
        std=float(defined.std()),
        mean=float(defined.mean()),
        median=float(np.median(defined)),
        n=len(defined),
        undefined=undefined,
    )
