"""95 % intervals by resampling patients, since slices and scans of one patient are not independent."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

RESAMPLES = 2000  #: with 12 patients the ends of a Dice's interval then differ by 0.002 (one sd) between seeds


def ratio_interval(
    numerators: Sequence[float],
    denominators: Sequence[float],
    patients: Sequence[Hashable],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[float]:
    """The 95 % percentile bootstrap interval [low, high] of sum(numerators) / sum(denominators).

    The three have an entry a scan (or slice); whole patients are drawn with replacement, and a patient drawn twice
    counts twice with all its entries. NaN with fewer than two patients, where there is nothing to resample.
    Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    names = {name: place for place, name in enumerate(dict.fromkeys(patients))}
    if len(names) < 2:
        return [math.nan, math.nan]
    place = np.array([names[name] for name in patients])
    upper = np.bincount(place, np.asarray(numerators, float), len(names))
    lower = np.bincount(place, np.asarray(denominators, float), len(names))
    drawn = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
    below = lower[drawn].sum(axis=1)
    values = upper[drawn].sum(axis=1)[below > 0] / below[below > 0]
    return [float(end) for end in np.percentile(values, [2.5, 97.5])] if len(values) else [math.nan, math.nan]


def mean_interval(values: Sequence[float], patients: Sequence[Hashable], *, seed: int = 0) -> list[float]:
    """The 95 % interval [low, high] of the mean of the defined values; see `ratio_interval`."""
    known = [(value, name) for value, name in zip(values, patients, strict=True) if not math.isnan(value)]
    return ratio_interval([value for value, _ in known], [1.0] * len(known), [name for _, name in known], seed=seed)


def share_interval(
    parts: Sequence[float], wholes: Sequence[float], patients: Sequence[Hashable], *, seed: int = 0
) -> list[float]:
    """`ratio_interval` of a share, exact where all or none is right, since resampling then sees no doubt at all.

    There n patients of whom all are right give [0.025 ** (1 / n), 1] (Clopper and Pearson, Biometrika 1934, 26:404).
    """
    right, every = sum(parts), sum(wholes)
    if not every or 0 < right < every:
        return ratio_interval(parts, wholes, patients, seed=seed)
    least = 0.025 ** (1 / len({name for name, whole in zip(patients, wholes, strict=True) if whole}))
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
    names = sorted({name for _, patients in groups for name in patients}, key=str)
    if len(names) < 2:
        return [math.nan, math.nan]
    index_of = {name: index for index, name in enumerate(names)}
    sampled = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
    means = np.full((len(groups), resamples), math.nan)
    for group, (values, patients) in enumerate(groups):
        owners = [index_of[name] for name in patients]
        sums = np.bincount(owners, np.asarray(values, float), len(names))[sampled].sum(axis=1)
        counts = np.bincount(owners, minlength=len(names))[sampled].sum(axis=1)
        np.divide(sums, counts, out=means[group], where=counts > 0)
    held = ~np.isnan(means)
    macro = np.nansum(means, axis=0)[held.any(axis=0)] / held.sum(axis=0)[held.any(axis=0)]
    return [float(end) for end in np.percentile(macro, [2.5, 97.5])]
