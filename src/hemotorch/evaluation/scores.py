"""Scores: how a predictor did on the scans of a split, and the rule-based baseline beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from hemotorch.errors import some_of
from hemotorch.evaluation.counts import EMPTY_RULE
from hemotorch.evaluation.doubted import DoubtSummary, doubt_summary
from hemotorch.evaluation.examples import Example, frames_of, legend_of
from hemotorch.evaluation.lesion import FOUND_SHARE
from hemotorch.evaluation.scan_score import ScanScore
from hemotorch.evaluation.scored_part import DatasetDescription, SplitDescription, warnings
from hemotorch.evaluation.summary import Summary, summary
from hemotorch.evaluation.table1 import POSITIVE_PIXELS
from hemotorch.pictures.viewer import viewer_html

FORMAT = 1  #: of scores.json; a change that older readers cannot follow raises it
NOTICE = "Research use only. hemotorch is not a medical device; no figure here says anything about clinical use."

#: How each value was measured, in words; part of scores.json and of the report.
DEFINITIONS = {
    "dice.scan": "Volumetric Dice of each scan whose truth holds bleeding, averaged over those scans. Every voxel "
    "counts with its own volume, so that unevenly spaced slices weigh what they stand for; if slices are even, or "
    "spacing is unknown, that is the plain count of voxels. Scans without bleeding never enter it.",
    "ci95": "95 % percentile bootstrap over patients (2000 resamples, seeded): whole patients are drawn, since scans "
    "and slices of one patient are not independent. A share of which all or none is right has the exact interval of "
    "Clopper and Pearson over patients instead.",
    "table1.pixel": "A subject's value is the mean over its slices whose truth holds bleeding.",
    "table1.slice": "How well a subject's positive slices are found. A slice is positive, in truth and prediction "
    f"alike, above {POSITIVE_PIXELS} pixels at 640 x 640, scaled by its area.",
    "table1": "Standard deviations are the population's (ddof 0). Subjects for whom a value is undefined are left out "
    "of it and counted. Definitions follow the code published with CT-ICH (Hssayeni et al., Data 2020, 5(1):14).",
    "volume": "Predicted minus true mL over scans with bleeding. Bland-Altman: bias, and limits of agreement at bias "
    "± 1.96 standard deviations (ddof 1).",
    "false_positive_ml": "mL called bleeding in scans without any.",
    "detection": "A scan or slice is called positive if a single voxel is. Its truth is the mask, or the slice labels "
    "if these say bleeding.",
    "detection.ranking": "The area under the ROC curve of the mL outlined in each scan.",
    "detection.lesion": "Lesions are connected pieces of the truth (26 neighbours), counted in scans scored whole; "
    f"one is found if {FOUND_SHARE:.0%} of its voxels are. False lesions touch no bleeding.",
    "types": "The share of each type's voxels that was called bleeding, of whatever type; sums first, then "
    "divided. If a mask has no types, a slice whose labels name one type lends it that type.",
    "types.dice": "Of a network that tells types apart. Dice of each type over the scans whose truth holds it: the "
    "volumetric Dice of that type against all the rest, averaged over those scans. A voxel of unknown type (slice "
    "labels leave several possible, or name none) is left out of it and of the mL per type, since it decides nothing; "
    "it counts as bleeding everywhere else. Volume errors per type are over the same scans, false-positive mL over "
    "the scans that hold none of the type.",
    "macro": "The mean over types of their Dice, so that a rare type weighs as much as a frequent one. Types that no "
    "scan holds are left out. Its interval draws patients once for all types.",
    "confusion": "What was taken for what: rows are true, columns predicted types, `none` is no bleeding; sums over "
    "scans in mL (in voxels if no scan has a known spacing), without voxels of unknown type.",
    "doubts": "Scans in doubt are those against whose prediction something speaks that needs no truth: the scan is "
    "unlike those trained on, or the answer is not steady or not credible.",
    "empty_masks": EMPTY_RULE,
}


@dataclass(frozen=True, eq=False)
class Scores:
    """Everything measured: each scan with its slices' counts, and how the means were taken (DEFINITIONS).

    split, dataset, about: what was scored, on what, made by what, in JSON's types.
    unscored: cases of the split that have neither a mask nor labels that exclude bleeding.
    failed: cases that could not be read or predicted, and why.

    Values follow `EMPTY_RULE`.
    """

    scans: tuple[ScanScore, ...]
    model: str
    baseline_model: str
    split: SplitDescription
    dataset: DatasetDescription
    about: dict[str, Any] = field(default_factory=dict)
    unscored: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    seed: int = 0

    @cached_property
    def summary(self) -> Summary:
        """The predictor's summary; see `hemotorch.evaluation.summary.summary`."""
        return summary([scan.compared(scan.network) for scan in self.scans], self.seed)

    @cached_property
    def baseline_summary(self) -> Summary:
        """The baseline's, of the same form; without values if it was not run."""
        return summary([scan.compared(scan.baseline) for scan in self.scans if scan.baseline], self.seed)

    @cached_property
    def doubts(self) -> DoubtSummary | None:
        """The scans in doubt beside the others; None if doubts were not looked for."""
        return doubt_summary(self.scans, self.seed)

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
            "doubts": self.doubts,
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
        if self.doubts is not None and self.doubts["doubted"]["scans"]:
            lines.append(self._doubts_line(self.doubts))
        if self.failed:
            scans = len(self.scans) + len(self.failed)
            lines.append(f"{len(self.failed)} of {scans} scans could not be measured: {some_of(list(self.failed))}")
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

    def _doubts_line(self, doubts: DoubtSummary) -> str:
        text = f"{doubts['doubted']['scans']} of {len(self.scans)} scans are in doubt"
        means = [doubts["doubted"]["dice"]["mean"], doubts["undoubted"]["dice"]["mean"]]
        if any(map(math.isnan, means)):
            return text
        return f"{text}: Dice {means[0]:.3f} in them, {means[1]:.3f} in the others"

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
        frames = [frame for example in self.examples for frame in frames_of(example)]
        return viewer_html(self.model, frames, self.lines(), legend=legend_of(self.examples))


def _interval(ends: list[float]) -> str:
    return "" if math.isnan(ends[0]) else f" [{ends[0]:.3f}, {ends[1]:.3f}]"
