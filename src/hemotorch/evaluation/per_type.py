"""Values per type of bleeding: the share that was found, Dice, mL, and the confusion between types."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import NotRequired, TypedDict

import numpy as np

from hemotorch.evaluation.comparison import ScanComparison
from hemotorch.evaluation.confusion import NAMES, counts_of
from hemotorch.evaluation.counts import Counts, Spread, ratio, spread
from hemotorch.evaluation.intervals import ScanMean, macro_interval, scan_mean, share_interval
from hemotorch.evaluation.volume import VolumeError, bland_altman
from hemotorch.labels import TYPES


class TypeValues(TypedDict):
    """One type over the scans whose truth holds it; see `scores.DEFINITIONS`.

    sensitivity, ci95: the share of its voxels that was called bleeding. The rest only if types are told apart.
    false_positive_ml: over the scans that hold none of it.
    """

    sensitivity: float
    ci95: list[float]
    scans: int
    voxels: int
    dice: NotRequired[ScanMean]
    volume: NotRequired[VolumeError]
    false_positive_ml: NotRequired[Spread]


class MacroDice(TypedDict):
    """The mean over `types` types of their mean Dice, so that a rare type weighs as much as a frequent one."""

    dice: float
    ci95: list[float]
    types: int


class ConfusionSums(TypedDict):
    """What was taken for what, summed over `scans` scans.

    names: of rows (truth) and columns (prediction). amounts: row by row, in `unit`: mL, of the scans of known spacing,
    or voxels if there are none.
    """

    names: list[str]
    amounts: list[list[float]]
    unit: str
    scans: int


def score_types(entries: Sequence[ScanComparison], seed: int = 0) -> dict[str, TypeValues]:
    """Values of each type that the truth of any scan holds."""
    values = {}
    for name in TYPES:
        holding = [entry for entry in entries if name in entry.comparison.types]
        if holding:
            values[name] = _type_values(name, entries, holding, seed)
    return values


def _type_values(
    name: str, entries: Sequence[ScanComparison], holding: Sequence[ScanComparison], seed: int
) -> TypeValues:
    """One type's values. holding: the scans of `entries` that hold it."""
    patients = [entry.patient for entry in holding]
    called = [entry.comparison.types[name][0] for entry in holding]
    voxels = [entry.comparison.types[name][1] for entry in holding]
    values = TypeValues(
        sensitivity=ratio(sum(called), sum(voxels)),
        ci95=share_interval(called, voxels, patients, seed=seed),
        scans=len(holding),
        voxels=sum(voxels),
    )
    if is_typed(entries):
        counts = [_counts(entry, name) for entry in holding]
        true_ml = [_ml(entry, count.positives) for entry, count in zip(holding, counts, strict=True)]
        predicted_ml = [_ml(entry, count.predicted) for entry, count in zip(holding, counts, strict=True)]
        without = [entry for entry in entries if name not in entry.comparison.types]
        values["dice"] = scan_mean([count.dice for count in counts], patients, seed=seed)
        values["volume"] = bland_altman(true_ml, predicted_ml, patients, seed=seed)
        values["false_positive_ml"] = spread(_ml(entry, _counts(entry, name).predicted) for entry in without)
    return values


def score_macro(entries: Sequence[ScanComparison], seed: int = 0) -> MacroDice:
    """Macro Dice and its interval over patients."""
    groups = _dice_by_type(entries)
    interval = macro_interval(list(groups.values()), seed=seed)
    return MacroDice(dice=macro_dice(entries), ci95=interval, types=len(groups))


def macro_dice(entries: Iterable[ScanComparison]) -> float:
    """The mean over types of their mean Dice; NaN if no scan holds any type."""
    means = [np.mean(values) for values, _ in _dice_by_type(entries).values()]
    return float(np.mean(means)) if means else math.nan


def _dice_by_type(entries: Iterable[ScanComparison]) -> dict[str, tuple[list[float], list[Hashable]]]:
    """Dice of each scan that holds a type, and its patient, by type; types that no scan holds are left out."""
    groups: dict[str, tuple[list[float], list[Hashable]]] = {}
    for entry in entries:
        for name in entry.comparison.types:
            values, patients = groups.setdefault(name, ([], []))
            values.append(_counts(entry, name).dice)
            patients.append(entry.patient)
    return groups


def score_confusion(entries: Sequence[ScanComparison]) -> ConfusionSums:
    """The confusions of all scans in one. mL and voxels are never added."""
    in_ml = [entry for entry in entries if entry.comparison.has_ml]
    summed = in_ml or entries
    amounts = np.sum([np.array(entry.comparison.confusion) for entry in summed], axis=0)
    return ConfusionSums(
        names=list(NAMES),
        amounts=amounts.tolist(),
        unit="mL" if in_ml else "voxels",
        scans=len(summed),
    )


def is_typed(entries: Sequence[ScanComparison]) -> bool:
    """Whether the predictor of these scans tells types apart."""
    return bool(entries) and all(entry.comparison.confusion is not None for entry in entries)


def _counts(entry: ScanComparison, name: str) -> Counts:
    confusion = entry.comparison.confusion
    assert confusion is not None  # asked of predictors with types only
    return counts_of(confusion, name)


def _ml(entry: ScanComparison, amount: float) -> float:
    return amount if entry.comparison.has_ml else math.nan
