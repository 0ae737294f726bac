"""Scores: how a predictor did on the scans of a split, and the rule-based baseline beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from hemotorch.evaluation.comparison import Comparison, ScanComparison
from hemotorch.evaluation.confusion import counts_of
from hemotorch.evaluation.counts import EMPTY_RULE, VALUES, Counts
from hemotorch.evaluation.lesion import FOUND_SHARE, Lesions
from hemotorch.evaluation.summary import summary
from hemotorch.evaluation.table1 import POSITIVE_PIXELS
from hemotorch.labels import COLOURS, TYPES
from hemotorch.pictures.slices import FOUND_RGB, TRUTH_RGB, grey_slice, outlines, picture_width
from hemotorch.pictures.viewer import HEIGHT_PX, Frame, Swatch, viewer_html

FORMAT = 1  #: of scores.json; a change that older readers cannot follow raises it
NOTICE = "Research use only. hemotorch is not a medical device; no figure here says anything about clinical use."

#: How each value was measured, in words; part of scores.json and of the report.
DEFINITIONS = {
    "dice.scan": "Volumetric Dice of each scan whose truth holds bleeding, averaged over those scans. Every voxel "
    "counts with its own volume, so that unevenly spaced slices weigh what they stand for; where slices are even, or "
    "spacing is unknown, that is the plain count of voxels. Scans without bleeding never enter it.",
    "ci95": "95 % percentile bootstrap over patients (2000 resamples, seeded): whole patients are drawn, since scans "
    "and slices of one patient are not independent. A share of which all or none is right has the exact interval of "
    "Clopper and Pearson over patients instead.",
    "table1.pixel": "Table 1 over subjects, pixel reading: a subject's value is the mean over its slices whose truth "
    "holds bleeding.",
    "table1.slice": "Table 1 over subjects, slice reading: how well a subject's positive slices are found. A slice is "
    f"positive, in truth and prediction alike, above {POSITIVE_PIXELS} pixels at 640 x 640, scaled by its area.",
    "table1": "Standard deviations are the population's (ddof 0). Subjects for whom a value is undefined are left out "
    "of it and counted. Definitions follow the code published with CT-ICH (Hssayeni et al., Data 2020, 5(1):14).",
    "volume": "Predicted minus true mL over scans with bleeding. Bland-Altman: bias, and limits of agreement at bias "
    "± 1.96 standard deviations (ddof 1).",
    "false_positive_ml": "mL called bleeding in scans without any.",
    "detection": "A scan or slice is called positive when a single voxel is. Its truth is the mask, or the slice "
    "labels where these say bleeding. `ranking` is the area under the ROC curve of the mL found.",
    "detection.lesion": "Lesions are connected pieces of the truth (26 neighbours), counted in scans scored whole; "
    f"one is found when {FOUND_SHARE:.0%} of its voxels are. False lesions touch no bleeding.",
    "types": "The share of each type's voxels that was called bleeding, of whatever type; sums first, then "
    "divided. Where a mask has no types, a slice whose labels name one type lends it that type.",
    "types.dice": "Of a network that tells types apart. Dice of each type over the scans whose truth holds it: the "
    "volumetric Dice of that type against all the rest, averaged over those scans. A voxel of unknown type (slice "
    "labels leave several possible, or name none) is left out of it and of the mL per type, since it decides nothing; "
    "it counts as bleeding everywhere else. Volume errors per type are over the same scans, false-positive mL over "
    "the scans that hold none of the type.",
    "macro": "The mean over types of their Dice, so that a rare type weighs as much as a frequent one. Types that no "
    "scan holds are left out. Its interval draws patients once for all types.",
    "confusion": "What was taken for what: rows are true, columns predicted types, `none` is no bleeding; sums over "
    "scans in mL (in voxels if no scan has a known spacing), without voxels of unknown type.",
    "empty_masks": EMPTY_RULE,
}


@dataclass(frozen=True)
class ScanScore:
    """One scan's scored slices: what they are and how both predictors did on them.

    indices: the scored slices, from 0; whole: whether they are all of the scan. labelled: per slice, whether the
    slice labels say bleeding, None where there are none. seconds: what predicting took.
    """

    case: str
    patient: str | None
    site: str | None
    indices: tuple[int, ...]
    slice_numbers: tuple[int, ...]
    labelled: tuple[bool | None, ...]
    whole: bool
    network: Comparison
    baseline: Comparison | None
    seconds: float

    def compared(self, comparison: Comparison) -> ScanComparison:
        """The scan as one predictor's summary sees it. If no patient is known the scan stands for one."""
        return ScanComparison(self.case, self.patient or self.case, self.labelled, comparison)


@dataclass(frozen=True, eq=False)
class Example:
    """A scan worth looking at, with its few most telling slices.

    kind: "best", "median", "worst", or "false alarm" (the normal scan with the most found in it). hu, truth,
    predicted: (shown, rows, columns), cropped to the head; pixel_mm: between rows and columns. typed: what was
    predicted are codes of `labels`, as the truth is in any case.
    """

    kind: str
    case: str
    dice: float
    truth_ml: float
    predicted_ml: float
    hu: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    slice_numbers: tuple[int, ...]
    pixel_mm: tuple[float, float]
    typed: bool = False


@dataclass(frozen=True, eq=False)
class Scores:
    """Everything measured: a row a scan with its slices' counts, and how the means were taken (DEFINITIONS).

    split, dataset, about: what was scored, on what, made by what, in JSON's types. unscored: cases of the split that
    have neither a mask nor labels that exclude bleeding. failed: those that could not be read or predicted, and why.
    Values follow `EMPTY_RULE`.
    """

    scans: tuple[ScanScore, ...]
    model: str
    baseline_model: str
    split: dict[str, Any]
    dataset: dict[str, Any]
    about: dict[str, Any] = field(default_factory=dict)
    unscored: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    seed: int = 0

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The predictor's summary; see `hemotorch.evaluation.summary.summary`."""
        return summary([scan.compared(scan.network) for scan in self.scans], self.seed)

    @cached_property
    def baseline_summary(self) -> dict[str, Any]:
        """The baseline's, of the same form; empty where it was not run."""
        return summary([scan.compared(scan.baseline) for scan in self.scans if scan.baseline], self.seed)

    def to_json(self) -> dict[str, Any]:
        """The content of scores.json; NaN means undefined."""
        return {
            "notice": NOTICE,
            "format": FORMAT,
            "model": self.model,
            "split": self.split,
            **self.summary,
            "baseline": {"model": self.baseline_model, **self.baseline_summary},
            "dataset": self.dataset,
            "unscored": list(self.unscored),
            "failed": self.failed,
            "seconds_a_scan": float(np.mean([scan.seconds for scan in self.scans])) if self.scans else float("nan"),
            "definitions": DEFINITIONS,
            "about": self.about,
        }

    def lines(self) -> list[str]:
        """The headline in a few plain lines, warnings first."""
        lines = [*warnings(self.split), self._dice_line()]
        if "macro" in self.summary:
            lines.append(self._types_line())
        lines.append(self._volume_line())
        lines += [f"not measured: {why}" for why in self.failed.values()]
        return lines

    def _dice_line(self) -> str:
        dice, baseline = self.summary["dice"]["scan"], self.baseline_summary
        over = f"over {dice['n']} scans with bleeding"
        if not dice["n"]:
            return f"no Dice {over}"
        beside = f" (rule-based baseline {baseline['dice']['scan']['mean']:.3f})" if baseline["scans"] else ""
        return f"Dice {dice['mean']:.3f}{_interval(dice['ci95'])} {over}{beside}"

    def _types_line(self) -> str:
        macro = self.summary["macro"]
        if not macro["types"]:
            return "no Dice per type: no scored voxel has a known type"
        each = [f"{name} {values['dice']['mean']:.3f}" for name, values in self.summary["types"].items()]
        return f"Dice per type {macro['dice']:.3f}{_interval(macro['ci95'])}: {', '.join(each)}"

    def _volume_line(self) -> str:
        bias, scan = self.summary["volume"]["bias_ml"], self.summary["detection"]["scan"]
        normal = self.summary["false_positive_ml"]
        volume = "volume error unknown" if math.isnan(bias) else f"volume error {bias:+.1f} mL"
        hits = scan["positive"] - scan["missed"]
        clean = scan["negative"] - scan["false_alarms"]
        alarms = f", {normal['mean']:.1f} mL found in them on average" if normal["n"] else ""
        return (
            f"{volume}; scans with bleeding that were called so: {hits} of {scan['positive']}; "
            f"normal scans left clean: {clean} of {scan['negative']}{alarms}"
        )

    def _repr_html_(self) -> str:
        """The scores in a notebook: the headline, and a slider over the slices of the examples."""
        frames = [frame for example in self.examples for frame in _frames(example)]
        return viewer_html(self.model, frames, self.lines(), legend=_legend(self.examples))

    def scan_rows(self) -> list[dict[str, Any]]:
        """A row a scan, for scans.csv."""
        return [_scan_row(scan) for scan in self.scans]

    def slice_rows(self) -> list[dict[str, Any]]:
        """A row a scored slice, for slices.csv."""
        return [row for scan in self.scans for row in _slice_rows(scan)]


def _frames(example: Example) -> list[Frame]:
    """An example's slices as pictures of a slider."""
    width = picture_width(example.hu.shape[1:], example.pixel_mm, HEIGHT_PX)
    dice = "" if math.isnan(example.dice) else f", Dice {example.dice:.2f}"
    frames = []
    for number, hu, truth, predicted in zip(
        example.slice_numbers, example.hu, example.truth, example.predicted, strict=True
    ):
        lines = outlines(truth, predicted, width, HEIGHT_PX, typed=example.typed)
        caption = f"{example.kind}: {example.case}{dice} · slice {number}"
        frames.append(Frame(grey_slice(hu, width, HEIGHT_PX), lines, caption))
    return frames


def _legend(examples: Sequence[Example]) -> list[Swatch]:
    """What the lines of examples mean."""
    if not examples:
        return []
    if not any(example.typed for example in examples):
        return [Swatch("truth", TRUTH_RGB), Swatch("prediction", FOUND_RGB)]
    types = [Swatch(name, colour) for name, colour in COLOURS.items()]
    return [Swatch("truth, in its type's colour too", TRUTH_RGB, dashed=True), *types]


def warnings(split: dict[str, Any]) -> list[str]:
    """What a reader must know before any number: patients on both sides, unknown patients, data it was trained on."""
    found = []
    both, of = split["patients_on_both_sides"], split["patients"]
    if not split["patients_known"]:
        sides = f"{both} of the {of} scored scans have slices in training too" if both else "no scan is on both sides"
        found.append(
            f"Which patient a scan is of is unknown here, so patients may be on both sides unseen; {sides}. Only the "
            f"split's own {split['slices']} slices are scored."
        )
    elif split["by"] == "slice":
        found.append(
            f"Patients are on both sides of this slice-wise split: {both} of the {of} scored patients have other "
            f"slices in training. Only its own {split['slices']} slices are scored; expect less on new patients."
        )
    elif both:
        found.append(
            f"{both} of the {of} scored patients are on both sides of this split: expect less on new patients."
        )
    if split["part"] in ("train", "all") and not split["external"]:
        found.append("These scans were trained on: the figures say nothing about new patients.")
    if split["part"] == "val" and not split["external"]:
        found.append("Validation scans: the network was chosen on them, or even trained on them.")
    if split["identical_slices"]:
        found.append(f"{split['identical_slices']} scored slices are identical to slices outside this part.")
    if split["external"]:
        found.append("Another dataset than the network was trained on: overlap between the two was not audited.")
    return found


def _interval(ends: list[float]) -> str:
    return "" if math.isnan(ends[0]) else f" [{ends[0]:.3f}, {ends[1]:.3f}]"


def _scan_row(scan: ScanScore) -> dict[str, Any]:
    row: dict[str, Any] = {
        "case": scan.case,
        "patient": scan.patient,
        "site": scan.site,
        "slices": len(scan.indices),
        "bleeding": int(scan.network.bleeding),
        "truth_ml": scan.network.truth_ml,
    }
    for prefix, found in (("", scan.network), ("baseline_", scan.baseline)):
        if found is None:
            continue
        row[f"{prefix}predicted_ml"] = found.predicted_ml
        row |= {f"{prefix}{value}": getattr(found.volume, value) for value in VALUES}
        pieces = found.lesions or Lesions(-1, -1, -1)
        row |= {f"{prefix}{name}": n if n >= 0 else None for name, n in vars(pieces).items()}
    if scan.network.confusion is not None:
        row |= _type_cells(scan.network)
    return row | {"seconds": scan.seconds}


def _type_cells(comparison: Comparison) -> dict[str, float]:
    """True and predicted mL of each type, NaN if spacing is unknown, and Dice."""
    cells = {}
    for name in TYPES:
        assert comparison.confusion is not None
        counts = counts_of(comparison.confusion, name)
        cells[f"{name}_truth_ml"] = counts.positives if comparison.has_ml else math.nan
        cells[f"{name}_predicted_ml"] = counts.predicted if comparison.has_ml else math.nan
        cells[f"{name}_dice"] = counts.dice
    return cells


def _slice_rows(scan: ScanScore) -> list[dict[str, Any]]:
    rows = []
    for place, index in enumerate(scan.indices):
        labelled = scan.labelled[place]
        row: dict[str, Any] = {
            "case": scan.case,
            "patient": scan.patient,
            "index": index,
            "slice_number": scan.slice_numbers[place],
            "labelled": None if labelled is None else int(labelled),
        }
        for prefix, found in (("", scan.network), ("baseline_", scan.baseline)):
            if found is not None:
                counts: Counts = found.slices[place]
                row |= {f"{prefix}{name}": int(getattr(counts, name)) for name in ("tp", "fp", "fn", "tn")}
                row |= {f"{prefix}{value}": getattr(counts, value) for value in VALUES}
        rows.append(row)
    return rows
