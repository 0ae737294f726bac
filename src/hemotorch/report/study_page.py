"""The page of one study, one file that needs no other: mL, doubts, slices to look at first, all slices behind a slider.

Its script and its style are in the page, and a policy in its head allows no others.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from hemotorch.inference.study import MARK_ML
from hemotorch.labels import CODES, SHORT_NAMES
from hemotorch.pictures.legend import ml_text
from hemotorch.report.pages import numbers, render
from hemotorch.report.study_pictures import BLEEDING, SlicePicture, StudyPictures, colour_of, study_pictures
from hemotorch.scan import Doubt, Prediction, Scan

GAUGE_ML = (60.0, 90.0, 120.0, 180.0, 240.0, 300.0)  #: ends of the bar; the first that holds the volume is taken
PRINTED_COLUMNS = 6  #: of the sheet of all slices, at least
SHEET_MM = (188.0, 275.0)  #: what is free of A4, width and height
LINE_MM, LINE_LETTERS = 4.0, 90  #: height and length of a line of text on a sheet
KEY_MM, LEAST_KEY_MM = 74.0, 38.0  #: height of the slices to look at first, on a sheet with no doubts and with many


class Total(NamedTuple):
    """The largest words of the page. text: a number of mL if `is_volume`. spread: a sentence on the interval."""

    text: str
    is_volume: bool
    spread: str


class TypeLine(NamedTuple):
    """A type's line. kind: its name. text: its mL."""

    kind: str
    text: str
    found: bool


class Part(NamedTuple):
    """A piece of a bar, in per cent of its length."""

    kind: str
    start: str
    width: str


class Gauge(NamedTuple):
    """The bar of mL, in per cent of its length. end: its mL. spoken: what a screen reader says."""

    parts: list[Part]
    spread: tuple[str, str] | None
    limit: str
    end: str
    spoken: str


class ProfileBar(NamedTuple):
    """A piece of a column of the profile over slices; top and height of 100."""

    kind: str
    column: int
    top: str
    height: str


class PageSlice(NamedTuple):
    """A slice as the template shows it. held: texts of what is in it, with the name of their colour."""

    jpeg: Markup
    outlines: tuple[Any, ...]
    title: str
    held: list[tuple[str, str]]
    spoken: str


@dataclass(frozen=True)
class Change:
    """Against an earlier study of the patient, in words."""

    earlier: str
    when: str
    now: str
    difference: str
    share: str
    marked: bool
    notes: Sequence[str] = ()
    page: str = ""


@dataclass(frozen=True)
class StudyText:
    """What a page says beside what the prediction holds."""

    name: str
    index: str = ""
    abc2_ml: float | None = None
    longest_mm: float | None = None
    change: Change | None = None
    files: Mapping[str, str] = field(default_factory=dict)


def study_page(prediction: Prediction, text: StudyText) -> str:
    """The page as HTML, of about 60 kB for each slice of 512 x 512.

    Args:
        prediction: with its mask.
        text: what else is said.
    """
    pictures = study_pictures(prediction)
    slices = [_page_slice(slice, len(pictures.slices)) for slice in pictures.slices]
    bleeding = [slice.pixels for slice in pictures.slices]
    start = int(np.argmax(bleeding)) if any(bleeding) else len(slices) // 2
    script, script_hash = page_script("study.js")
    doubts = prediction.doubts or ()
    banner, model = _banner(doubts), _model(prediction)
    below = [*prediction.remarks, *model.values()]
    kinds = prediction.task.types or (BLEEDING,)
    return render(
        "study.html",
        f"{text.name}: {_total(prediction).text}",
        banner,
        name=text.name,
        facts=_facts(prediction.scan),
        index=text.index,
        doubts=doubts,
        total=_total(prediction),
        left_out="" if prediction.left_out is None else f"{prediction.left_out.text}.",
        gauge=_gauge(prediction),
        types=_types(prediction),
        measures=_measures(prediction, text),
        pictures=pictures,
        slices=slices,
        start=start,
        profile=_profile(pictures),
        key_note=_key_note(prediction, pictures),
        all_title=_all_title(pictures),
        change=text.change,
        warnings_of_reading=prediction.warnings,
        model=model,
        files={what: name for what, name in text.files.items() if name},
        colours={kind: colour_of(kind) for kind in (*kinds, BLEEDING)},
        print_columns=_print_columns(len(slices), pictures.width / pictures.height, _lines(below) + 6),
        print_key_mm=max(LEAST_KEY_MM, KEY_MM - LINE_MM * (_lines(banner) + 5 * (text.change is not None)) / 2),
        script=script,
        script_hash=script_hash,
    )


@cache
def page_script(name: str) -> tuple[Markup, str]:
    """A script of `report/pages`, and its hash as a content security policy names it."""
    text = files("hemotorch.report.pages").joinpath(name).read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(text), f"sha256-{digest}"


def _banner(doubts: Sequence[Doubt]) -> list[str]:
    """What stands above all else: nothing if there is no doubt."""
    if not doubts:
        return []
    return ["In doubt: look at the images before you use a number.", *(doubt_text(d.text, d.code) for d in doubts)]


def doubt_text(text: str, code: str) -> str:
    """A doubt as a sentence that ends with its code."""
    return f"{text[:1].upper()}{text[1:]} ({code})"


def _facts(scan: Scan) -> str:
    facts = [numbers.plural(len(scan.hu), "slice")]
    if scan.spacing_known:
        low, high = (f"{value:.3g}" for value in (scan.shares_mm.min(), scan.shares_mm.max()))
        facts.append(f"{low} mm" if low == high else f"{low} to {high} mm")
        facts.append(" × ".join(f"{value:.3g}" for value in scan.pixel_mm) + " mm in plane")
    else:
        facts.append("pixel size unknown")
    return " · ".join(facts)


def _total(prediction: Prediction) -> Total:
    if not prediction.mask.any():
        spread = "The model outlined nothing. It can miss bleeding."
        if prediction.interval_ml is not None and prediction.interval_ml[1] >= 0.05:
            spread += f" {prediction.interval_text}."
        return Total("None", False, spread)
    total = prediction.volume_ml["total"]
    if not math.isfinite(total):
        return Total("Bleeding found; mL unknown, since the pixel size is", False, "")
    return Total(numbers.number(total, 1), True, prediction.interval_text)


def _types(prediction: Prediction) -> list[TypeLine]:
    """Those found, the largest first, then the others."""
    amounts = {kind: prediction.volume_ml[kind] for kind in prediction.task.types}
    order = sorted(amounts, key=lambda kind: -amounts[kind] if math.isfinite(amounts[kind]) else 0.0)
    lines = []
    for kind in order:
        # Not by its mL: these are NaN if they are unknown, and then all five types were "found", with "< 0.1 mL" each.
        pixels = int(np.count_nonzero(prediction.mask == CODES[kind]))
        known = ml_text(amounts[kind]) if math.isfinite(amounts[kind]) else f"{pixels} px"
        lines.append(TypeLine(kind, known if pixels else "none", pixels > 0))
    return lines


def _gauge(prediction: Prediction) -> Gauge | None:
    """The bar of mL; none if they are not known."""
    total = prediction.volume_ml["total"]
    if not math.isfinite(total):
        return None
    interval = prediction.interval_ml
    most = max(total, interval[1] if interval else 0.0, MARK_ML)
    end = next((ml for ml in GAUGE_ML if ml >= most), math.ceil(most / 100) * 100.0)
    amounts = {kind: prediction.volume_ml[kind] for kind in prediction.task.types} or {BLEEDING: total}
    parts, start = [], 0.0
    for kind, ml in sorted(amounts.items(), key=lambda pair: -pair[1]):
        if ml > 0:
            parts.append(Part(kind, _percent(start / end), _percent(ml / end)))
            start += ml
    spread = None if interval is None else (_percent(interval[0] / end), _percent(interval[1] / end))
    side = "above" if total > MARK_ML else "below"
    return Gauge(parts, spread, _percent(MARK_ML / end), f"{end:g}", f"{total:.1f} mL, {side} the mark of 30 mL")


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _measures(prediction: Prediction, text: StudyText) -> dict[str, str]:
    """Title and text of each line under the types; "" for what there is not."""
    found = prediction.slices_with_bleeding
    measures = {"Slices with it": f"{len(found)} of {len(prediction.scan.hu)}" if found else ""}
    if found:
        measures["ABC/2, for comparison"] = "" if text.abc2_ml is None else f"{text.abc2_ml:.1f} mL"
        measures["Longest in a slice"] = "" if text.longest_mm is None else f"{text.longest_mm:.0f} mm"
    return measures


def _page_slice(slice: SlicePicture, total: int) -> PageSlice:
    held = []
    for outline in slice.outlines:
        amount = f"{outline.pixels} px" if math.isnan(outline.ml) else ml_text(outline.ml)
        held.append((f"{SHORT_NAMES.get(outline.kind, '')} {amount}".strip(), outline.kind))
    title = f"{slice.number}"
    if slice.position_mm is not None:
        title += f" · {numbers.number(slice.position_mm, 1)} mm"
    spoken = [f"Slice {title.replace(' · ', ', at ')}"]
    names = [text if kind == BLEEDING else f"{kind} {text.split(' ', 1)[1]}" for text, kind in held]
    spoken.append(", ".join(names) or "nothing outlined")
    return PageSlice(Markup(slice.jpeg), slice.outlines, title, held, "; ".join(spoken))


def _profile(pictures: StudyPictures) -> list[ProfileBar]:
    """A column for each slice, its types on each other; the highest reaches the top."""
    most = max((slice.pixels for slice in pictures.slices), default=0)
    bars = []
    for index, slice in enumerate(pictures.slices):
        top = 100.0
        for outline in slice.outlines:
            height = 100 * outline.pixels / most
            top -= height
            bars.append(ProfileBar(outline.kind, index, f"{top:.1f}", f"{height:.1f}"))
    return bars


def _key_note(prediction: Prediction, pictures: StudyPictures) -> str:
    if not prediction.mask.any():
        return f"{numbers.plural(len(pictures.key), 'slice')} of this scan, foot to head."
    if not prediction.task.types:
        return "The slices with the largest area, foot to head. The patient's right is on the left."
    return "The largest area of each type, then the largest others, foot to head. The patient's right is on the left."


def _all_title(pictures: StudyPictures) -> str:
    shown = len(pictures.slices)
    if shown == pictures.total:
        return f"All {numbers.plural(shown, 'slice')}" if shown > 1 else "The slice"
    return f"{shown} of {pictures.total} slices: those with bleeding, and an even choice of the others"


def _model(prediction: Prediction) -> dict[str, str]:
    return {
        "Model": prediction.model,
        "SHA-256": prediction.digest,
        "Card": prediction.card,
        "Interval": "The same model on the same scan, mirrored, moved, made darker and brighter. It says how steady "
        "the answer is, not how right.",
        "Not measured": "Midline shift, swelling, age of the bleeding.",
    }


def _print_columns(count: int, shape: float, lines: int) -> int:
    """Columns with which so many pictures fit on a sheet.

    Args:
        count: of pictures.
        shape: their width over their height.
        lines: of text below them.
    """
    free_mm = SHEET_MM[1] - 15.0 - LINE_MM * lines
    columns = PRINTED_COLUMNS
    while math.ceil(count / columns) * SHEET_MM[0] / columns / shape > free_mm and columns < count:
        columns += 1
    return columns


def _lines(texts: Iterable[str]) -> int:
    """Lines that texts take on a sheet, with the space between them."""
    return sum(1 + math.ceil(len(text) / LINE_LETTERS) for text in texts)
