"""How a prediction of one scan compares with its truth: counts, from which everything else is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hemotorch.evaluation.confusion import Confusion, confuse, count_types
from hemotorch.evaluation.counts import Counts, count_slices, total
from hemotorch.evaluation.lesion import Lesions, count_lesions
from hemotorch.scan import Scan


@dataclass(frozen=True)
class Comparison:
    """How one predictor's mask of one scan compares with the truth, over the scored slices.

    slices: voxel counts of each. volume: their sum in mL, or in voxels if spacing is unknown.
    truth_ml, predicted_ml: NaN if unknown.
    lesions: None if not the whole scan is scored.
    types: of each type that the truth holds, the voxels called bleeding and all of them.
    confusion: what was taken for what, in the unit of volume; None from a predictor without types.
    """

    slices: tuple[Counts, ...]
    volume: Counts
    truth_ml: float
    predicted_ml: float
    lesions: Lesions | None
    types: dict[str, tuple[int, int]]
    confusion: Confusion | None = None

    @property
    def has_ml(self) -> bool:
        """Whether amounts are in mL, and not in voxels."""
        return not math.isnan(self.truth_ml)

    @property
    def bleeding(self) -> bool:
        """Whether the true mask holds any."""
        return any(counts.positives for counts in self.slices)

    @property
    def predicts_bleeding(self) -> bool:
        """Whether the predicted mask holds any."""
        return any(counts.predicted for counts in self.slices)


@dataclass(frozen=True)
class ScanComparison:
    """A comparison and whose scan it is. labelled: per slice, what the labels say, None if there are none."""

    case: str
    patient: str
    labelled: tuple[bool | None, ...]
    comparison: Comparison

    @property
    def volume(self) -> Counts:
        """The counts of the whole scan, in mL or voxels."""
        return self.comparison.volume

    @property
    def truth_ml(self) -> float:
        """NaN if spacing is unknown."""
        return self.comparison.truth_ml

    @property
    def predicted_ml(self) -> float:
        """NaN if spacing is unknown."""
        return self.comparison.predicted_ml

    @property
    def positive(self) -> bool:
        """Whether the scan holds bleeding by mask or label."""
        return any(self.positive_slices)

    @property
    def positive_slices(self) -> list[bool]:
        """Slices that hold bleeding by mask or label."""
        pairs = zip(self.comparison.slices, self.labelled, strict=True)
        return [bool(counts.positives) or bool(label) for counts, label in pairs]


def compare(
    truth: np.ndarray,
    predicted: np.ndarray,
    scan: Scan,
    indices: Sequence[int],
    *,
    typed: bool = False,
    lesions: bool = True,
) -> Comparison:
    """Compares the slices `indices` of a prediction with the truth.

    Args:
        truth: (slices, rows, columns) uint8 codes of `labels`.
        predicted: the same shape; non-zero is bleeding, and if `typed` a code of `labels`.
        scan: whose voxels they are.
        indices: the slices to score.
        typed: whether the predictor tells types apart.
        lesions: count lesions if all slices are scored, since parts of a lesion are not lesions.
    """
    scored = list(indices)
    truth, predicted = truth[scored], predicted[scored]
    slices = tuple(count_slices(truth, predicted))
    voxel_ml = scan.voxel_ml[scored]
    known = not np.isnan(voxel_ml).any()
    # Without spacing a voxel counts one, which gives the same Dice if slices are even.
    weights = voxel_ml if known else np.ones(len(scored))
    volume = total(slices, weights)
    whole = len(scored) == scan.shape[0]
    return Comparison(
        slices=slices,
        volume=volume,
        truth_ml=volume.positives if known else math.nan,
        predicted_ml=volume.predicted if known else math.nan,
        lesions=count_lesions(truth, predicted) if lesions and whole else None,
        types=count_types(truth, predicted),
        confusion=confuse(truth, predicted, weights) if typed else None,
    )
