"""95 % intervals by resampling patients, since slices and scans of one patient are not independent."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

#: With 12 patients the ends of a Dice's interval then differ by 0.002 (one sd) between seeds.
RESAMPLES = 2000
ENDS = (2.5, 97.5)  #: percentiles


def ratio_interval(
    numerators: Sequence[float],
    denominators: Sequence[float],
    patients: Sequence[Hashable],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[float]:
    """The 95 % percentile bootstrap interval [low, high] of sum(numerators) / sum(denominators).

    Whole patients are drawn with replacement, and a patient drawn twice counts twice with all its scans. Efron and
    Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.

    Args:
        numerators, denominators, patients: one of each per scan (or slice).

    Returns:
        NaN with fewer than two patients, since there is nothing to resample then.
    """
    index_of = _indices(patients)
    if len(index_of) < 2:
        return [math.nan, math.nan]
    owners = [index_of[name] for name in patients]
    numerator_sums = np.bincount(owners, np.asarray(numerators, float), len(index_of))
    denominator_sums = np.bincount(owners, np.asarray(denominators, float), len(index_of))
    resampled = _resampled(len(index_of), seed, resamples)
    below = denominator_sums[resampled].sum(axis=1)
    values = numerator_sums[resampled].sum(axis=1)[below > 0] / below[below > 0]
    return np.percentile(values, ENDS).tolist() if len(values) else [math.nan, math.nan]


def mean_interval(values: Sequence[float], patients: Sequence[Hashable], *, seed: int = 0) -> list[float]:
    """The 95 % interval [low, high] of the mean of the defined values; see `ratio_interval`."""
    defined, owners = [], []
    for value, patient in zip(values, patients, strict=True):
        if not math.isnan(value):
            defined.append(value)
            owners.append(patient)
    return ratio_interval(defined, [1.0] * len(defined), owners, seed=seed)


def share_interval(
    parts: Sequence[float], wholes: Sequence[float], patients: Sequence[Hashable], *, seed: int = 0
) -> list[float]:
    """`ratio_interval` of a share, exact if all or none is right, since resampling then sees no doubt at all.

    n patients of whom all are right give [0.025 ** (1 / n), 1] (Clopper and Pearson, Biometrika 1934, 26:404).
    """
    right, every = sum(parts), sum(wholes)
    if not every or 0 < right < every:
        return ratio_interval(parts, wholes, patients, seed=seed)
    holding = {patient for patient, whole in zip(patients, wholes, strict=True) if whole}
    least = 0.025 ** (1 / len(holding))
    return [least, 1.0] if right else [0.0, 1 - least]


def macro_interval(
    groups: Sequence[tuple[Sequence[float], Sequence[Hashable]]], *, seed: int = 0, resamples: int = RESAMPLES
) -> list[float]:
    """The 95 % interval [low, high] of the mean over groups of each group's mean.

    Patients are drawn once for all groups, since one patient may be in several. A group of which a resample holds
    nobody is left out of that resample's mean.

    Args:
        groups: of each group its values, all defined, and whose they are.
    """
    index_of = _indices([patient for _, patients in groups for patient in patients])
    if len(index_of) < 2:
        return [math.nan, math.nan]
    resampled = _resampled(len(index_of), seed, resamples)
    sum_of_means = np.zeros(resamples)
    groups_held = np.zeros(resamples)
    for values, patients in groups:
        owners = [index_of[patient] for patient in patients]
        sums = np.bincount(owners, np.asarray(values, float), len(index_of))[resampled].sum(axis=1)
        counts = np.bincount(owners, minlength=len(index_of))[resampled].sum(axis=1)
        sum_of_means += np.divide(sums, counts, out=np.zeros(resamples), where=counts > 0)
        groups_held += counts > 0
    # Each resample holds somebody, and each patient is in some group.
    return np.percentile(sum_of_means / groups_held, ENDS).tolist()


def _indices(patients: Sequence[Hashable]) -> dict[Hashable, int]:
    """A number for each patient, in the order in which they first come."""
    return {patient: index for index, patient in enumerate(dict.fromkeys(patients))}


def _resampled(patients: int, seed: int, resamples: int) -> np.ndarray:
    """(resamples, patients) numbers of patients, drawn with replacement."""
    return np.random.default_rng(seed).integers(0, patients, (resamples, patients))
