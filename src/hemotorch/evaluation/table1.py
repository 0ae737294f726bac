"""Table 1 of Sokolovskyy et al. 2021: Jaccard, Dice, sensitivity and specificity over subjects, in both readings.

The paper does not say whether its sensitivity and specificity are of pixels or of slices, so both are given. The
definitions follow the code that Hssayeni et al. published with CT-ICH (Data 2020, 5(1):14; main.py): Jaccard and Dice
are means over a subject's slices with bleeding, and a slice counts as positive above 20 x 20 pixels at 640 x 640, in
truth and prediction alike. Standard deviations are the population's (ddof 0), as NumPy's are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hemotorch.evaluation.counts import VALUES, Counts, count_flags, spread

POSITIVE_PIXELS = 400  #: a slice is positive above this many pixels ...
POSITIVE_AREA = 640 * 640  #: ... of this many; other slice sizes in proportion

Subjects = Mapping[str, Sequence[Counts]]  #: the voxel counts of every scored slice of a subject
Table = dict[str, Any]  #: a Spread by each name of VALUES, which tables read by name


def table1(subjects: Subjects) -> dict[str, Table]:
    """Both readings, `pixel` and `slice`: how each value is spread over subjects."""
    return {"pixel": _table(pixel_reading(subjects)), "slice": _table(slice_reading(subjects))}


def pixel_reading(subjects: Subjects) -> list[dict[str, float]]:
    """A subject's values are the means over its slices whose truth holds bleeding; NaN for a subject without any."""
    rows = []
    for slices in subjects.values():
        positive = [counts for counts in slices if counts.positives]
        rows.append({value: _mean(positive, value) for value in VALUES})
    return rows


def slice_reading(subjects: Subjects) -> list[dict[str, float]]:
    """A subject's values are those of finding its positive slices; NaN if it has no slice to be right about."""
    rows = []
    for slices in subjects.values():
        counts = count_flags(
            [is_positive(pixels.positives, pixels) for pixels in slices],
            [is_positive(pixels.predicted, pixels) for pixels in slices],
        )
        rows.append({value: getattr(counts, value) for value in VALUES})
    return rows


def is_positive(pixels: float, slice_counts: Counts) -> bool:
    """Whether so many pixels make a slice positive: more than 400 at 640 x 640, scaled by the slice's own area."""
    area = slice_counts.positives + slice_counts.negatives
    return pixels * POSITIVE_AREA > POSITIVE_PIXELS * area


def _table(rows: list[dict[str, float]]) -> Table:
    return {value: spread(row[value] for row in rows) for value in VALUES}


def _mean(slices: Sequence[Counts], value: str) -> float:
    """The mean of a value over the slices for which it is defined; NaN if there are none."""
    return spread(getattr(counts, value) for counts in slices)["mean"]
