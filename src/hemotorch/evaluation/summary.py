"""From the counts of every scan to the values of a report, each over the scans it is defined for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hemotorch.evaluation.comparison import ScanComparison
from hemotorch.evaluation.counts import VALUES, Counts, ratio, spread
from hemotorch.evaluation.detection import detection, ranking
from hemotorch.evaluation.intervals import mean_interval, share_interval
from hemotorch.evaluation.per_type import is_typed, macro_dice, score_confusion, score_macro, score_types
from hemotorch.evaluation.table1 import table1
from hemotorch.evaluation.volume import bland_altman


def summary(entries: Sequence[ScanComparison], seed: int = 0) -> dict[str, Any]:
    """All values over these scans, in JSON's types but for NaN; what each means is in `scores.DEFINITIONS`.

    `scans`, `dice`, `jaccard`, `sensitivity`, `specificity` (each with `scan`: mean, ci95, n, ...), `table1`,
    `volume`, `false_positive_ml`, `detection` (scan, slice, lesion) and `types`; from a predictor with types also
    `macro` and `confusion`. An empty list gives {"scans": 0}.
    """
    if not entries:
        return {"scans": 0}
    bleeding = [entry for entry in entries if entry.comparison.bleeding]
    normal = [entry for entry in entries if not any(entry.positive_slices)]
    subjects: dict[str, list[Counts]] = {}
    for entry in entries:
        subjects.setdefault(entry.patient, []).extend(entry.comparison.slices)
    values = {
        "scans": len(entries),
        **{value: {"scan": _over_scans(bleeding, value, seed)} for value in VALUES},
        "table1": table1(subjects),
        "volume": bland_altman(
            [entry.comparison.truth_ml for entry in bleeding],
            [entry.comparison.predicted_ml for entry in bleeding],
            [entry.patient for entry in bleeding],
            seed=seed,
        ),
        "false_positive_ml": spread(entry.comparison.predicted_ml for entry in normal),
        "detection": _detection(entries, seed),
        "types": score_types(entries, seed),
    }
    if is_typed(entries):
        values["macro"] = score_macro(entries, seed)
        values["confusion"] = score_confusion(entries)
    return values


def _over_scans(bleeding: Sequence[ScanComparison], value: str, seed: int) -> dict[str, Any]:
    values = [getattr(entry.comparison.volume, value) for entry in bleeding]
    return {**spread(values), "ci95": mean_interval(values, [entry.patient for entry in bleeding], seed=seed)}


def _detection(entries: Sequence[ScanComparison], seed: int) -> dict[str, Any]:
    patients = [entry.patient for entry in entries]
    truth = [any(entry.positive_slices) for entry in entries]
    scan = detection(truth, [entry.comparison.found for entry in entries], patients, seed=seed)
    scan["ranking"] = ranking(truth, [entry.comparison.predicted_ml for entry in entries])
    by_slice = detection(
        [positive for entry in entries for positive in entry.positive_slices],
        [bool(counts.predicted) for entry in entries for counts in entry.comparison.slices],
        [entry.patient for entry in entries for _ in entry.comparison.slices],
        seed=seed,
    )
    return {"scan": scan, "slice": by_slice, "lesion": _lesions(entries, seed)}


def _lesions(entries: Sequence[ScanComparison], seed: int) -> dict[str, Any]:
    whole = [(entry.patient, entry.comparison.lesions) for entry in entries if entry.comparison.lesions]
    found, every = [each.found for _, each in whole], [each.lesions for _, each in whole]
    false = sum(each.false for _, each in whole)
    return {
        "sensitivity": ratio(sum(found), sum(every)),
        "sensitivity_ci95": share_interval(found, every, [patient for patient, _ in whole], seed=seed),
        "lesions": sum(every),
        "found": sum(found),
        "false": false,
        "false_a_scan": ratio(false, len(whole)),
        "scans": len(whole),
    }


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
