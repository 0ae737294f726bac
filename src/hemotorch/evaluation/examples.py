"""Scans worth looking at: which they are, which of their slices, and these as pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hemotorch.evaluation.scan_score import ScanScore
from hemotorch.labels import COLOURS
from hemotorch.pictures import PREDICTED_RGB, TRUTH_RGB, head_box
from hemotorch.pictures.slices import grey_slice, outlines, picture_width
from hemotorch.pictures.viewer import HEIGHT_PX, SliderFrame, Swatch
from hemotorch.scan import Scan

SHOWN = 4  #: slices of a scan in a picture


@dataclass(frozen=True, eq=False)
class Example:
    """A scan worth looking at, with its few most telling slices.

    kind: "best", "median", "worst", or "false alarm" (the normal scan with the most found in it).
    hu, truth, predicted: (shown, rows, columns), cropped to the head; truth in codes of `labels`.
    pixel_mm: between rows and columns.
    typed: what was predicted are codes of `labels` too, and not 0 and 1.
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


def choose_examples(scans: Sequence[ScanScore]) -> dict[str, ScanScore]:
    """The best, median and worst scan with bleeding, and the normal one with the most found in it, by kind."""
    bleeding = [scan for scan in scans if scan.network.bleeding]
    ranked = sorted(bleeding, key=lambda scan: (scan.network.volume.dice, scan.case))
    chosen = {}
    if ranked:
        chosen["best"] = ranked[-1]
    if len(ranked) > 2:
        chosen["median"] = ranked[len(ranked) // 2]
    if len(ranked) > 1:
        chosen["worst"] = ranked[0]
    alarms = [scan for scan in scans if scan.network.predicts_bleeding and not scan.network.bleeding]
    if alarms:
        chosen["false alarm"] = max(alarms, key=lambda scan: scan.network.volume.predicted)
    return chosen


def make_example(kind: str, score: ScanScore, scan: Scan, truth: np.ndarray, predicted: np.ndarray) -> Example:
    """The telling slices of a scan. truth, predicted: masks of the scan's shape."""
    comparison = score.network
    areas = [counts.positives + counts.fp for counts in comparison.slices]
    slices = [score.indices[position] for position in telling_slices(areas)]
    box = (slices, *head_box(scan, (truth, predicted)))
    return Example(
        kind=kind,
        case=score.case,
        dice=comparison.volume.dice,
        truth_ml=comparison.truth_ml,
        predicted_ml=comparison.predicted_ml,
        hu=scan.hu[box],
        truth=truth[box],
        predicted=predicted[box],
        slice_numbers=tuple(scan.slice_numbers[index] for index in slices),
        pixel_mm=scan.pixel_mm,
        typed=comparison.confusion is not None,
    )


def telling_slices(areas: Sequence[float], shown: int = SHOWN) -> list[int]:
    """Which slices to show, in order: spread evenly over the summed area, so that each stands for as much bleeding.

    Args:
        areas: what truth and prediction hold together, of each slice.
        shown: how many at most.

    Returns:
        Their positions; the middle one if there is no bleeding.
    """
    summed = np.cumsum(areas)
    if not len(summed) or not summed[-1]:
        return [len(areas) // 2]
    marks = (np.arange(shown) + 0.5) / shown * summed[-1]
    chosen = np.unique(np.searchsorted(summed, marks)).tolist()
    # A bleeding on one or two slices leaves marks over: fill up with the largest slices that are left.
    by_area = [int(position) for position in np.argsort(areas)[::-1] if areas[position]]
    others = [position for position in by_area if position not in chosen]
    return sorted([*chosen, *others[: shown - len(chosen)]])


def frames_of(example: Example) -> list[SliderFrame]:
    """An example's slices as pictures of a slider."""
    width = picture_width(example.hu.shape[1:], example.pixel_mm, HEIGHT_PX)
    dice = "" if math.isnan(example.dice) else f", Dice {example.dice:.2f}"
    frames = []
    for position, number in enumerate(example.slice_numbers):
        truth, predicted = example.truth[position], example.predicted[position]
        frames.append(
            SliderFrame(
                grey=grey_slice(example.hu[position], width, HEIGHT_PX),
                lines=outlines(truth, predicted, width, HEIGHT_PX, typed=example.typed),
                caption=f"{example.kind}: {example.case}{dice} · slice {number}",
            )
        )
    return frames


def legend_of(examples: Sequence[Example]) -> list[Swatch]:
    """What the lines of examples mean."""
    if not examples:
        return []
    if not any(example.typed for example in examples):
        return [Swatch("truth", TRUTH_RGB), Swatch("prediction", PREDICTED_RGB)]
    types = [Swatch(name, colour) for name, colour in COLOURS.items()]
    return [Swatch("truth, in its type's colour too", TRUTH_RGB, dashed=True), *types]
