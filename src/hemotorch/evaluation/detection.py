"""Is there bleeding at all? Sensitivity, specificity and the ranking of scans by how much was found."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from hemotorch.evaluation.counts import count_flags
from hemotorch.evaluation.intervals import share_interval


def detection(
    truth: Sequence[bool], called: Sequence[bool], patients: Sequence[Hashable], *, seed: int = 0
) -> dict[str, Any]:
    """Sensitivity and specificity of calling scans (or slices) positive, with 95 % intervals over patients."""
    counts = count_flags(truth, called)
    found: dict[str, Any] = {}
    for name, wanted in (("sensitivity", True), ("specificity", False)):
        mine = [bool(value) == wanted for value in truth]
        right = [keep and bool(value) == wanted for keep, value in zip(mine, called, strict=True)]
        owners = [name for name, keep in zip(patients, mine, strict=True) if keep]
        upper = [float(value) for value, keep in zip(right, mine, strict=True) if keep]
        found[name] = getattr(counts, name)
        found[f"{name}_ci95"] = share_interval(upper, [1.0] * len(upper), owners, seed=seed)
    sides = {"positive": int(counts.positives), "negative": int(counts.tn + counts.fp)}
    wrong = {"missed": int(counts.fn), "false_alarms": int(counts.fp)}
    return {**found, **sides, **wrong}


def ranking(truth: Sequence[bool], amounts: Sequence[float]) -> float:
    """Area under the ROC curve: how often a positive scan has more found in it than a normal one, ties counted half.

    Mann-Whitney's U over the number of pairs. NaN without both kinds, or where an amount is unknown.
    """
    positive, values = np.asarray(truth, bool), np.asarray(amounts, float)
    pairs = np.count_nonzero(positive) * np.count_nonzero(~positive)
    if not pairs or np.isnan(values).any():
        return math.nan
    from scipy.stats import rankdata  # takes 0.7 s to import, which nobody else needs

    ranks = rankdata(values)[positive]
    return float((ranks.sum() - len(ranks) * (len(ranks) + 1) / 2) / pairs)
