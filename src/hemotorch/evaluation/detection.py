"""Is there bleeding at all? Sensitivity, specificity and the ranking of scans by how much was found."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TypedDict

import numpy as np

from hemotorch.evaluation.counts import count_flags
from hemotorch.evaluation.intervals import share_interval


class Detection(TypedDict):
    """How well scans or slices with bleeding were told from those without.

    positive, negative: how many there are of each; missed, false_alarms: how many of them were called wrong.
    """

    sensitivity: float
    sensitivity_ci95: list[float]
    specificity: float
    specificity_ci95: list[float]
    positive: int
    negative: int
    missed: int
    false_alarms: int


class ScanDetection(Detection):
    """Of whole scans also how well their predicted mL rank them; see `ranking`."""

    ranking: float


def detection(
    truth: Sequence[bool], called: Sequence[bool], patients: Sequence[Hashable], *, seed: int = 0
) -> Detection:
    """Sensitivity and specificity of calling scans (or slices) positive, with 95 % intervals over patients."""
    counts = count_flags(truth, called)
    return Detection(
        sensitivity=counts.sensitivity,
        sensitivity_ci95=_interval(True, truth, called, patients, seed),
        specificity=counts.specificity,
        specificity_ci95=_interval(False, truth, called, patients, seed),
        positive=int(counts.positives),
        negative=int(counts.negatives),
        missed=int(counts.fn),
        false_alarms=int(counts.fp),
    )


def _interval(
    side: bool, truth: Sequence[bool], called: Sequence[bool], patients: Sequence[Hashable], seed: int
) -> list[float]:
    """The interval of the share that was called right, of those whose truth is `side`."""
    right, owners = [], []
    for true, call, patient in zip(truth, called, patients, strict=True):
        if bool(true) == side:
            right.append(float(bool(call) == side))
            owners.append(patient)
    return share_interval(right, [1.0] * len(right), owners, seed=seed)


def ranking(truth: Sequence[bool], amounts: Sequence[float]) -> float:
    """Area under the ROC curve: how often a positive scan has more found in it than a normal one, ties counted half.

    Mann-Whitney's U over the number of pairs. NaN if all scans are positive or all normal, or an amount is unknown.
    """
    positive, values = np.asarray(truth, bool), np.asarray(amounts, float)
    pairs = np.count_nonzero(positive) * np.count_nonzero(~positive)
    if not pairs or np.isnan(values).any():
        return math.nan
    # Takes 0.7 s to import, which nobody else needs.
    from scipy.stats import rankdata

    ranks = rankdata(values)[positive]
    return float((ranks.sum() - len(ranks) * (len(ranks) + 1) / 2) / pairs)
