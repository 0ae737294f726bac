"""From the counts of every scan to the values of a report, each over the scans it is defined for."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from hemotorch.evaluation.comparison import ScanComparison
from hemotorch.evaluation.counts import Counts, Spread, ratio, spread
from hemotorch.evaluation.detection import ScanDetection, detection, ranking
from hemotorch.evaluation.lesion import Lesions
from hemotorch.evaluation.over_scans import ScanMean, Scans, mean_over, patients_of, share_over, volume_error_over
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
from hemotorch.evaluation.volume import VolumeError


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


def summary(scans: Scans, seed: int = 0) -> Summary:
    """All values over these scans. `macro` and `confusion` are there only if the predictor tells types apart."""
    if not scans:
        return Summary(scans=0)
    bleeding = [scan for scan in scans if scan.comparison.bleeding]
    # A scan whose labels say bleeding is not normal, though nobody drew it: what is found in it may be right.
    normal = [scan for scan in scans if not scan.positive]
    subjects: dict[str, list[Counts]] = {}
    for scan in scans:
        subjects.setdefault(scan.patient, []).extend(scan.comparison.slices)
    values = Summary(
        scans=len(scans),
        jaccard={"scan": mean_over(bleeding, lambda scan: scan.volume.jaccard, seed)},
        dice={"scan": mean_over(bleeding, lambda scan: scan.volume.dice, seed)},
        sensitivity={"scan": mean_over(bleeding, lambda scan: scan.volume.sensitivity, seed)},
        specificity={"scan": mean_over(bleeding, lambda scan: scan.volume.specificity, seed)},
        table1=table1(subjects),
        volume=volume_error_over(bleeding, lambda scan: scan.truth_ml, lambda scan: scan.predicted_ml, seed),
        false_positive_ml=spread(scan.predicted_ml for scan in normal),
        detection=_detections(scans, seed),
        types=score_types(scans, seed),
    )
    if is_typed(scans):
        values["macro"] = score_macro(scans, seed)
        values["confusion"] = score_confusion(scans)
    return values


def _detections(scans: Scans, seed: int) -> dict[str, Any]:
    """Whether there is bleeding at all: by scan, by slice, by lesion."""
    truth = [scan.positive for scan in scans]
    called = [scan.comparison.predicts_bleeding for scan in scans]
    of_scans: ScanDetection = {
        **detection(truth, called, patients_of(scans), seed=seed),
        "ranking": ranking(truth, [scan.predicted_ml for scan in scans]),
    }
    slice_truth: list[bool] = []
    slice_called: list[bool] = []
    slice_patients: list[str] = []
    for scan in scans:
        slice_truth += scan.positive_slices
        slice_called += [bool(counts.predicted) for counts in scan.comparison.slices]
        slice_patients += [scan.patient] * len(scan.comparison.slices)
    of_slices = detection(slice_truth, slice_called, slice_patients, seed=seed)
    return {"scan": of_scans, "slice": of_slices, "lesion": _lesions(scans, seed)}


def _lesions(scans: Scans, seed: int) -> LesionDetection:
    whole = [scan for scan in scans if scan.comparison.lesions]
    sensitivity, interval = share_over(
        whole, lambda scan: _lesions_of(scan).found, lambda scan: _lesions_of(scan).lesions, seed
    )
    false = sum(_lesions_of(scan).false for scan in whole)
    return LesionDetection(
        sensitivity=sensitivity,
        sensitivity_ci95=interval,
        lesions=sum(_lesions_of(scan).lesions for scan in whole),
        found=sum(_lesions_of(scan).found for scan in whole),
        false=false,
        false_a_scan=ratio(false, len(whole)),
        scans=len(whole),
    )


def _lesions_of(scan: ScanComparison) -> Lesions:
    assert scan.comparison.lesions is not None  # asked of scans that are scored whole
    return scan.comparison.lesions


def brief(scans: Scans) -> dict[str, float]:
    """What a training loop looks at.

    Returns:
        Mean `dice` and `jaccard` over the `n` scans with bleeding; `fp_ml`, the mean mL called bleeding in the `normal`
        scans without any (0 if there are none, or none of known volume); and from a predictor with types `macro_dice`.
    """
    bleeding = [scan for scan in scans if scan.comparison.bleeding]
    normal = [scan for scan in scans if not scan.comparison.bleeding]
    false_ml = [scan.predicted_ml for scan in normal if scan.comparison.has_ml]
    values = {
        "dice": spread(scan.volume.dice for scan in bleeding)["mean"],
        "jaccard": spread(scan.volume.jaccard for scan in bleeding)["mean"],
        "n": len(bleeding),
        "fp_ml": sum(false_ml) / len(false_ml) if false_ml else 0.0,
        "normal": len(normal),
    }
    if is_typed(scans):
        values["macro_dice"] = macro_dice(scans)
    return values
