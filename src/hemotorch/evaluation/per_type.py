"""Values per type of bleeding: the share that was found, Dice, mL, and the confusion between types."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from hemotorch.evaluation.comparison import ScanComparison
from hemotorch.evaluation.confusion import NAMES, counts_of
from hemotorch.evaluation.counts import Counts, ratio, spread
from hemotorch.evaluation.intervals import macro_interval, mean_interval, share_interval
from hemotorch.evaluation.volume import bland_altman
from hemotorch.labels import TYPES


def score_types(entries: Sequence[ScanComparison], seed: int = 0) -> dict[str, Any]:
    """Values per type over scans, for the types that their truth holds; see `scores.DEFINITIONS`.

    `sensitivity`, `ci95`, `scans`, `voxels`; and from a predictor with types `dice`, `volume`, `false_positive_ml`.
    """
    values = {}
    for name in TYPES:
        holding = [entry for entry in entries if name in entry.comparison.types]
        if not holding:
            continue
        patients = [entry.patient for entry in holding]
        detected = [entry.comparison.types[name][0] for entry in holding]
        voxels = [entry.comparison.types[name][1] for entry in holding]
        values[name] = {
            "sensitivity": ratio(sum(detected), sum(voxels)),
            "ci95": share_interval(detected, voxels, patients, seed=seed),
            "scans": len(holding),
            "voxels": sum(voxels),
        }
        if is_typed(entries):
            values[name] |= _typed_values(name, entries, seed)
    return values


def _typed_values(name: str, entries: Sequence[ScanComparison], seed: int) -> dict[str, Any]:
    holding = [entry for entry in entries if name in entry.comparison.types]
    patients = [entry.patient for entry in holding]
    dice = [_counts(entry, name).dice for entry in holding]
    without = [entry for entry in entries if name not in entry.comparison.types]
    return {
        "dice": {**spread(dice), "ci95": mean_interval(dice, patients, seed=seed)},
        "volume": bland_altman(
            [_ml(entry, _counts(entry, name).positives) for entry in holding],
            [_ml(entry, _counts(entry, name).predicted) for entry in holding],
            patients,
            seed=seed,
        ),
        "false_positive_ml": spread(_ml(entry, _counts(entry, name).predicted) for entry in without),
    }


def score_macro(entries: Sequence[ScanComparison], seed: int = 0) -> dict[str, Any]:
    """The mean over types of their mean Dice, so that a rare type weighs as much as a frequent one.

    Returns:
        `dice`, its `ci95` over patients, and `types`, how many types it is the mean of.
    """
    groups = dice_by_type(entries)
    return {
        "dice": macro_dice(entries),
        "ci95": macro_interval(list(groups.values()), seed=seed),
        "types": len(groups),
    }


def macro_dice(entries: Iterable[ScanComparison]) -> float:
    """The mean over types of their mean Dice; NaN if no scan holds any type."""
    means = [np.mean(values) for values, _ in dice_by_type(entries).values()]
    return float(np.mean(means)) if means else math.nan


def dice_by_type(entries: Iterable[ScanComparison]) -> dict[str, tuple[list[float], list[Hashable]]]:
    """Dice of each scan that holds a type, and its patient, by type; types that no scan holds are left out."""
    groups: dict[str, tuple[list[float], list[Hashable]]] = {}
    for entry in entries:
        for name in entry.comparison.types:
            values, patients = groups.setdefault(name, ([], []))
            values.append(_counts(entry, name).dice)
            patients.append(entry.patient)
    return groups


def score_confusion(entries: Sequence[ScanComparison]) -> dict[str, Any]:
    """Sums over scans of what was taken for what.

    Returns:
        `names` of rows (truth) and columns (prediction), `amounts` row by row, their `unit` (mL, or voxels if no scan
        has a known spacing), and `scans`, how many are summed: with mL those of known spacing.
    """
    in_ml = [entry for entry in entries if entry.comparison.has_ml]
    summed = in_ml or entries
    amounts = np.sum([np.array(entry.comparison.confusion) for entry in summed], axis=0)
    return {
        "names": list(NAMES),
        "amounts": amounts.tolist(),
        "unit": "mL" if in_ml else "voxels",
        "scans": len(summed),
    }


def is_typed(entries: Sequence[ScanComparison]) -> bool:
    """Whether the predictor of these scans tells types apart."""
    return bool(entries) and all(entry.comparison.confusion is not None for entry in entries)


def _counts(entry: ScanComparison, name: str) -> Counts:
    confusion = entry.comparison.confusion
    assert confusion is not None  # asked of predictors with types only
    return counts_of(confusion, name)


def _ml(entry: ScanComparison, amount: float) -> float:
    return amount if entry.comparison.has_ml else math.nan
