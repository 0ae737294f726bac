"""Values per type of bleeding: the share that was found, Dice, mL, and the confusion between types."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import NotRequired, TypedDict

import numpy as np

from hemotorch.evaluation.comparison import ScanComparison
from hemotorch.evaluation.confusion import NAMES, counts_of
from hemotorch.evaluation.counts import Counts, Spread, spread
from hemotorch.evaluation.intervals import macro_interval
from hemotorch.evaluation.over_scans import ScanMean, Scans, mean_over, share_over, volume_error_over
from hemotorch.evaluation.volume import VolumeError
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


def score_types(scans: Scans, seed: int = 0) -> dict[str, TypeValues]:
    """Values of each type that the truth of any scan holds."""
    values = {}
    for name in TYPES:
        if any(name in scan.comparison.types for scan in scans):
            values[name] = _type_values(name, scans, seed)
    return values


def _type_values(name: str, scans: Scans, seed: int) -> TypeValues:
    holding = [scan for scan in scans if name in scan.comparison.types]
    sensitivity, interval = share_over(
        holding, lambda scan: scan.comparison.types[name][0], lambda scan: scan.comparison.types[name][1], seed
    )
    values = TypeValues(
        sensitivity=sensitivity,
        ci95=interval,
        scans=len(holding),
        voxels=sum(scan.comparison.types[name][1] for scan in holding),
    )
    if is_typed(scans):
        without = [scan for scan in scans if name not in scan.comparison.types]
        values["dice"] = mean_over(holding, lambda scan: _counts(scan, name).dice, seed)
        values["volume"] = volume_error_over(
            holding, lambda scan: _truth_ml(scan, name), lambda scan: _predicted_ml(scan, name), seed
        )
        values["false_positive_ml"] = spread(_predicted_ml(scan, name) for scan in without)
    return values


def score_macro(scans: Scans, seed: int = 0) -> MacroDice:
    """Macro Dice and its interval over patients."""
    groups = _dice_by_type(scans)
    interval = macro_interval(list(groups.values()), seed=seed)
    return MacroDice(dice=macro_dice(scans), ci95=interval, types=len(groups))


def macro_dice(scans: Scans) -> float:
    """The mean over types of their mean Dice; NaN if no scan holds any type."""
    means = [np.mean(values) for values, _ in _dice_by_type(scans).values()]
    return float(np.mean(means)) if means else math.nan


def _dice_by_type(scans: Scans) -> dict[str, tuple[list[float], list[Hashable]]]:
    """Dice of each scan that holds a type, and its patient, by type; types that no scan holds are left out."""
    groups: dict[str, tuple[list[float], list[Hashable]]] = {}
    for scan in scans:
        for name in scan.comparison.types:
            values, patients = groups.setdefault(name, ([], []))
            values.append(_counts(scan, name).dice)
            patients.append(scan.patient)
    return groups


def score_confusion(scans: Scans) -> ConfusionSums:
    """The confusions of all scans in one. mL and voxels are never added."""
    in_ml = [scan for scan in scans if scan.comparison.has_ml]
    # Scans of unknown spacing are left out if there are others.
    summed = in_ml or scans
    amounts = np.sum([np.array(scan.comparison.confusion) for scan in summed], axis=0)
    return ConfusionSums(
        names=list(NAMES),
        amounts=amounts.tolist(),
        unit="mL" if in_ml else "voxels",
        scans=len(summed),
    )


def is_typed(scans: Scans) -> bool:
    """Whether the predictor of these scans tells types apart."""
    return bool(scans) and all(scan.comparison.confusion is not None for scan in scans)


def _counts(scan: ScanComparison, name: str) -> Counts:
    confusion = scan.comparison.confusion
    assert confusion is not None  # asked of predictors with types only
    return counts_of(confusion, name)


def _truth_ml(scan: ScanComparison, name: str) -> float:
    return _counts(scan, name).positives if scan.comparison.has_ml else math.nan


def _predicted_ml(scan: ScanComparison, name: str) -> float:
    return _counts(scan, name).predicted if scan.comparison.has_ml else math.nan
