"""From the counts of every scan to the values of a report, each over the scans it is defined for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from hemotorch.evaluation.comparison import ScanComparison
from hemotorch.evaluation.counts import VALUES, Counts, Spread, ratio, spread
from hemotorch.evaluation.detection import ScanDetection, detection, ranking
from hemotorch.evaluation.intervals import ScanMean, scan_mean, share_interval
from hemotorch.evaluation.per_type import (
    ConfusionSums,
    MacroDice,
    TypeValues,
    is_typed,
    macro_dice,
    score_confusion,
    score_macro,
    score_types,
)
from hemotorch.evaluation.table1 import Table, table1
from hemotorch.evaluation.volume import VolumeError, bland_altman


class LesionDetection(TypedDict):
    """Separate bleedings in the scans that are scored whole."""

    sensitivity: float
    sensitivity_ci95: list[float]
    lesions: int
    found: int
    false: int
    false_a_scan: float
    scans: int


class Summary(TypedDict):
    """All values over some scans; what each means is in `scores.DEFINITIONS`. Without scans only `scans` is there.

    detection: `scan` (ScanDetection), `slice` (Detection) and `lesion` (LesionDetection), which tables read by name.
    """

    scans: int
    jaccard: NotRequired[dict[str, ScanMean]]
    dice: NotRequired[dict[str, ScanMean]]
    sensitivity: NotRequired[dict[str, ScanMean]]
    specificity: NotRequired[dict[str, ScanMean]]
    table1: NotRequired[dict[str, Table]]
    volume: NotRequired[VolumeError]
    false_positive_ml: NotRequired[Spread]
    detection: NotRequired[dict[str, Any]]
    types: NotRequired[dict[str, TypeValues]]
    macro: NotRequired[MacroDice]
    confusion: NotRequired[ConfusionSums]


def summary(entries: Sequence[ScanComparison], seed: int = 0) -> Summary:
    """All values over these scans. `macro` and `confusion` are there only if the predictor tells types apart."""
    if not entries:
        return Summary(scans=0)
    bleeding = [entry for entry in entries if entry.comparison.bleeding]
    normal = [entry for entry in entries if not any(entry.positive_slices)]
    subjects: dict[str, list[Counts]] = {}
    for entry in entries:
        subjects.setdefault(entry.patient, []).extend(entry.comparison.slices)
    jaccard, dice, sensitivity, specificity = ({"scan": _over_scans(bleeding, value, seed)} for value in VALUES)
    values = Summary(
        scans=len(entries),
        jaccard=jaccard,
        dice=dice,
        sensitivity=sensitivity,
        specificity=specificity,
        table1=table1(subjects),
        volume=bland_altman(
            [entry.comparison.truth_ml for entry in bleeding],
            [entry.comparison.predicted_ml for entry in bleeding],
            [entry.patient for entry in bleeding],
            seed=seed,
        ),
        false_positive_ml=spread(entry.comparison.predicted_ml for entry in normal),
        detection=_detections(entries, seed),
        types=score_types(entries, seed),
    )
    if is_typed(entries):
        values["macro"] = score_macro(entries, seed)
        values["confusion"] = score_confusion(entries)
    return values


def _over_scans(bleeding: Sequence[ScanComparison], value: str, seed: int) -> ScanMean:
    values = [getattr(entry.comparison.volume, value) for entry in bleeding]
    return scan_mean(values, [entry.patient for entry in bleeding], seed=seed)


def _detections(entries: Sequence[ScanComparison], seed: int) -> dict[str, Any]:
    """Whether there is bleeding at all: by scan, by slice, by lesion."""
    patients = [entry.patient for entry in entries]
    truth = [any(entry.positive_slices) for entry in entries]
    called = [entry.comparison.found for entry in entries]
    amounts = [entry.comparison.predicted_ml for entry in entries]
    by_scan: ScanDetection = {
        **detection(truth, called, patients, seed=seed),
        "ranking": ranking(truth, amounts),
    }
    slice_truth, slice_called, slice_patients = [], [], []
    for entry in entries:
        slice_truth += entry.positive_slices
        slice_called += [bool(counts.predicted) for counts in entry.comparison.slices]
        slice_patients += [entry.patient] * len(entry.comparison.slices)
    by_slice = detection(slice_truth, slice_called, slice_patients, seed=seed)
    return {"scan": by_scan, "slice": by_slice, "lesion": _lesions(entries, seed)}


def _lesions(entries: Sequence[ScanComparison], seed: int) -> LesionDetection:
    whole = [entry for entry in entries if entry.comparison.lesions]
    lesions = [entry.comparison.lesions for entry in whole if entry.comparison.lesions]
    found = [scan.found for scan in lesions]
    every = [scan.lesions for scan in lesions]
    false = sum(scan.false for scan in lesions)
    return LesionDetection(
        sensitivity=ratio(sum(found), sum(every)),
        sensitivity_ci95=share_interval(found, every, [entry.patient for entry in whole], seed=seed),
        lesions=sum(every),
        found=sum(found),
        false=false,
        false_a_scan=ratio(false, len(whole)),
        scans=len(whole),
    )


def brief(entries: Sequence[ScanComparison]) -> dict[str, float]:
    """What a training loop looks at.

    Returns:
        Mean `dice` and `jaccard` over the `n` scans with bleeding; `fp_ml`, the mean mL called bleeding in the `normal`
        scans without any (0 if there are none, or none of known volume); and from a predictor with types `macro_dice`.
    """
    bleeding = [entry.comparison for entry in entries if entry.comparison.bleeding]
    normal = [entry.comparison for entry in entries if not entry.comparison.bleeding]
    false_ml = [comparison.predicted_ml for comparison in normal if comparison.has_ml]
    values = {
        "dice": spread(comparison.volume.dice for comparison in bleeding)["mean"],
        "jaccard": spread(comparison.volume.jaccard for comparison in bleeding)["mean"],
        "n": len(bleeding),
        "fp_ml": sum(false_ml) / len(false_ml) if false_ml else 0.0,
        "normal": len(normal),
    }
    if is_typed(entries):
        values["macro_dice"] = macro_dice(entries)
    return values
