"""How many mL too many or too few: Bland-Altman."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from hemotorch.evaluation.intervals import mean_interval


def bland_altman(
    truth_ml: Sequence[float], predicted_ml: Sequence[float], patients: Sequence[Hashable], *, seed: int = 0
) -> dict[str, Any]:
    """Bias (mean of predicted - truth), its 95 % interval over patients, and the limits of agreement, all in mL.

    The limits are bias ± 1.96 standard deviations of the differences (ddof 1): Bland and Altman, Lancet 1986,
    327:307. Scans without a known volume are left out; `undefined` is their number.
    """
    error = np.asarray(predicted_ml, float) - np.asarray(truth_ml, float)
    known = ~np.isnan(error)
    owners = [name for name, keep in zip(patients, known, strict=True) if keep]
    differences = error[known]
    n = len(differences)
    bias = float(differences.mean()) if n else math.nan
    sd = float(differences.std(ddof=1)) if n > 1 else math.nan
    return {
        "bias_ml": bias,
        "bias_ci95": mean_interval(differences.tolist(), owners, seed=seed),
        "sd_ml": sd,
        "limits_ml": [bias - 1.96 * sd, bias + 1.96 * sd],
        "mean_absolute_ml": float(np.abs(differences).mean()) if n else math.nan,
        "median_absolute_ml": float(np.median(np.abs(differences))) if n else math.nan,
        "n": n,
        "undefined": len(error) - n,
    }
