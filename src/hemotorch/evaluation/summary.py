"""From the counts of every scan to the values of a report, each over the scans it is defined for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hemotorch.evaluation.counts import VALUES, Counts, ratio, spread
from hemotorch.evaluation.detection import detection, ranking
from hemotorch.evaluation.intervals import mean_interval, share_interval
from hemotorch.evaluation.lesion import Lesions
from hemotorch.evaluation.table1 import table1
from hemotorch.evaluation.volume import bland_altman
from hemotorch.labels import TYPES


@dataclass(frozen=True)
class Outline:
    """How one predictor's outline of one scan compares with the truth, over the scored slices.

    slices: voxel counts of each. volume: their sum in mL, or in voxels where spacing is unknown. truth_ml,
    predicted_ml: NaN where unknown. lesions: None where not the whole scan is scored. types: (found, all) voxels.
    """

    slices: tuple[Counts, ...]
    volume: Counts
    truth_ml: float
    predicted_ml: float
    lesions: Lesions | None
    types: dict[str, tuple[int, int]]

    @property
    def bleeding(self) -> bool:
        """Whether the true mask holds any."""
        return any(counts.positives for counts in self.slices)

    @property
    def found(self) -> bool:
        """Whether the predicted mask holds any."""
        return any(counts.predicted for counts in self.slices)


@dataclass(frozen=True)
class Entry:
    """One scan as a summary sees it. labelled: per slice, what the labels say, None where there are none."""

    case: str
    patient: str
    labelled: tuple[bool | None, ...]
    outline: Outline

    @property
    def positive_slices(self) -> list[bool]:
        """Slices that hold bleeding by mask or label."""
        pairs = zip(self.outline.slices, self.labelled, strict=True)
        return [bool(counts.positives) or bool(label) for counts, label in pairs]


def summary(entries: Sequence[Entry], seed: int = 0) -> dict[str, Any]:
    """All values over these scans, in JSON's types but for NaN; what each means is in `scores.DEFINITIONS`.

    `scans`, `dice`, `jaccard`, `sensitivity`, `specificity` (each with `scan`: mean, ci95, n, ...), `table1`,
    `volume`, `false_positive_ml`, `detection` (scan, slice, lesion) and `types`. An empty list gives {"scans": 0}.
    """
    if not entries:
        return {"scans": 0}
    bleeding = [entry for entry in entries if entry.outline.bleeding]
    normal = [entry for entry in entries if not any(entry.positive_slices)]
    subjects: dict[str, list[Counts]] = {}
    for entry in entries:
        subjects.setdefault(entry.patient, []).extend(entry.outline.slices)
    return {
        "scans": len(entries),
        **{value: {"scan": _over_scans(bleeding, value, seed)} for value in VALUES},
        "table1": table1(subjects),
        "volume": bland_altman(
            [entry.outline.truth_ml for entry in bleeding],
            [entry.outline.predicted_ml for entry in bleeding],
            [entry.patient for entry in bleeding],
            seed=seed,
        ),
        "false_positive_ml": spread(entry.outline.predicted_ml for entry in normal),
        "detection": _detection(entries, seed),
        "types": _types(bleeding, seed),
    }


def _over_scans(bleeding: Sequence[Entry], value: str, seed: int) -> dict[str, Any]:
    values = [getattr(entry.outline.volume, value) for entry in bleeding]
    return {**spread(values), "ci95": mean_interval(values, [entry.patient for entry in bleeding], seed=seed)}


def _detection(entries: Sequence[Entry], seed: int) -> dict[str, Any]:
    patients = [entry.patient for entry in entries]
    truth = [any(entry.positive_slices) for entry in entries]
    scan = detection(truth, [entry.outline.found for entry in entries], patients, seed=seed)
    scan["ranking"] = ranking(truth, [entry.outline.predicted_ml for entry in entries])
    by_slice = detection(
        [positive for entry in entries for positive in entry.positive_slices],
        [bool(counts.predicted) for entry in entries for counts in entry.outline.slices],
        [entry.patient for entry in entries for _ in entry.outline.slices],
        seed=seed,
    )
    return {"scan": scan, "slice": by_slice, "lesion": _lesions(entries, seed)}


def _lesions(entries: Sequence[Entry], seed: int) -> dict[str, Any]:
    whole = [(entry.patient, entry.outline.lesions) for entry in entries if entry.outline.lesions]
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


def _types(bleeding: Sequence[Entry], seed: int) -> dict[str, Any]:
    rows = {}
    for name in TYPES:
        held = [(entry.patient, *entry.outline.types[name]) for entry in bleeding if name in entry.outline.types]
        if not held:
            continue
        found, every = [row[1] for row in held], [row[2] for row in held]
        interval = share_interval(found, every, [row[0] for row in held], seed=seed)
        value = ratio(sum(found), sum(every))
        rows[name] = {"sensitivity": value, "ci95": interval, "scans": len(held), "voxels": sum(every)}
    return rows


def brief(entries: Sequence[Entry]) -> dict[str, float]:
    """What a training loop looks at: mean Dice and Jaccard over the n scans with bleeding, and the mean mL called
    bleeding in the scans without any (0 where there are none, or none of known volume)."""
    bleeding = [entry.outline for entry in entries if entry.outline.bleeding]
    false = [entry.outline.predicted_ml for entry in entries if not entry.outline.bleeding]
    known = [ml for ml in false if not math.isnan(ml)]
    means = {value: spread(getattr(each.volume, value) for each in bleeding)["mean"] for value in ("dice", "jaccard")}
    return {**means, "n": len(bleeding), "fp_ml": sum(known) / len(known) if known else 0.0, "normal": len(false)}
