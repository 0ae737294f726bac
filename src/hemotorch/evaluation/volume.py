"""How many mL too many or too few: Bland-Altman."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TypedDict

import numpy as np

from hemotorch.evaluation.intervals import mean_interval


class VolumeError(TypedDict):
    """Predicted minus true mL over `n` scans of known volume; `undefined` is how many are left out."""

    bias_ml: float
    bias_ci95: list[float]
    sd_ml: float
    limits_ml: list[float]
    mean_absolute_ml: float
    median_absolute_ml: float
    n: int
    undefined: int


def bland_altman(
    truth_ml: Sequence[float], predicted_ml: Sequence[float], patients: Sequence[Hashable], *, seed: int = 0
) -> VolumeError:
    """Bias (mean of predicted - truth), its 95 % interval over patients, and the limits of agreement, all in mL.

    The limits are bias ± 1.96 standard deviations of the differences (ddof 1): Bland and Altman, Lancet 1986,
    327:307. Scans without a known volume are left out.
    """
    errors = np.asarray(predicted_ml, float) - np.asarray(truth_ml, float)
    known = errors[~np.isnan(errors)]
    n = len(known)
    bias = float(known.mean()) if n else math.nan
    sd = float(known.std(ddof=1)) if n > 1 else math.nan
    return VolumeError(
        bias_ml=bias,
        bias_ci95=mean_interval(errors.tolist(), patients, seed=seed),
        sd_ml=sd,
        limits_ml=[bias - 1.96 * sd, bias + 1.96 * sd],
        mean_absolute_ml=float(np.abs(known).mean()) if n else math.nan,
        median_absolute_ml=float(np.median(np.abs(known))) if n else math.nan,
        n=n,
        undefined=len(errors) - n,
    )
