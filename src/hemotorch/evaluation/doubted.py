"""How well the scans in doubt were outlined, beside the others: whether a doubt is worth heeding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict

from hemotorch.evaluation.counts import Spread, spread
from hemotorch.evaluation.over_scans import ScanMean, mean_over
from hemotorch.evaluation.scan_score import ScanScore
from hemotorch.scan import Prediction, Scan


class Doubts(Protocol):
    """A predictor that can say what speaks against its prediction."""

    def predict(self, scan: Scan, any_anatomy: bool = True, doubts: bool = False) -> Prediction: ...


@dataclass(frozen=True)
class WithDoubts:
    """A predictor that always looks for what speaks against its predictions, for `evaluate`."""

    predictor: Doubts

    def predict(self, scan: Scan) -> Prediction:
        """Outlines bleeding and looks for doubts."""
        return self.predictor.predict(scan, doubts=True)


class ScanGroup(TypedDict):
    """The scans in doubt, or those that are not."""

    scans: int
    dice: ScanMean
    false_positive_ml: Spread


class DoubtSummary(TypedDict):
    """Both groups, and how many scans each doubt was said of."""

    doubted: ScanGroup
    undoubted: ScanGroup
    codes: dict[str, int]


def doubt_summary(scores: Sequence[ScanScore], seed: int) -> DoubtSummary | None:
    """The scans in doubt beside the others; None if doubts were not looked for."""
    if any(score.doubts is None for score in scores):
        return None
    codes = Counter(code for score in scores for code in score.doubts or ())
    return DoubtSummary(
        doubted=_group([score for score in scores if score.doubts], seed),
        undoubted=_group([score for score in scores if not score.doubts], seed),
        codes=dict(codes.most_common()),
    )


def _group(scores: Sequence[ScanScore], seed: int) -> ScanGroup:
    scans = [score.compared(score.network) for score in scores]
    bleeding = [scan for scan in scans if scan.comparison.bleeding]
    return ScanGroup(
        scans=len(scans),
        dice=mean_over(bleeding, lambda scan: scan.volume.dice, seed),
        false_positive_ml=spread(scan.predicted_ml for scan in scans if not scan.positive),
    )
