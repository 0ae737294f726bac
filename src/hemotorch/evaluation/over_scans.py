"""Values over scans, with intervals over their patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hemotorch.evaluation.comparison import ScanComparison
from hemotorch.evaluation.counts import Spread, ratio, spread
from hemotorch.evaluation.intervals import mean_interval, share_interval
from hemotorch.evaluation.volume import VolumeError, bland_altman

Scans = Sequence[ScanComparison]
Value = Callable[[ScanComparison], float]  #: of one scan


class ScanMean(Spread):
    """A value over scans, and the 95 % interval of its mean."""

    ci95: list[float]


def patients_of(scans: Scans) -> list[str]:
    """Whose scans they are, one for each."""
    return [scan.patient for scan in scans]


def mean_over(scans: Scans, value: Value, seed: int) -> ScanMean:
    """How a value is spread over scans, and how sure its mean is."""
    values = list(map(value, scans))
    return {**spread(values), "ci95": mean_interval(values, patients_of(scans), seed=seed)}


def volume_error_over(scans: Scans, truth_ml: Value, predicted_ml: Value, seed: int) -> VolumeError:
    """Bland and Altman's figures of predicted against true mL."""
    truth, predicted = list(map(truth_ml, scans)), list(map(predicted_ml, scans))
    return bland_altman(truth, predicted, patients_of(scans), seed=seed)


def share_over(scans: Scans, part: Value, whole: Value, seed: int) -> tuple[float, list[float]]:
    """The sum of parts over the sum of wholes, and its 95 % interval."""
    parts, wholes = list(map(part, scans)), list(map(whole, scans))
    interval = share_interval(parts, wholes, patients_of(scans), seed=seed)
    return ratio(sum(parts), sum(wholes)), interval
