"""Pictures of a prediction for viewers that show pictures only: a summary, and the slices that hold bleeding.

All are of one size. They name no scan and no patient: whatever is drawn into a picture cannot be taken out again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from hemotorch import NOTICE
from hemotorch.errors import one_line
from hemotorch.hu import WINDOWS
from hemotorch.pictures.framing import Box, Volume, box_mm, head_box, pick_slices
from hemotorch.pictures.legend import Label, Masks, Rgb, slice_labels
from hemotorch.pictures.sheet import FAINT, INK, PAPER, Pen, shortened, text_width
from hemotorch.pictures.slices import PREDICTED_RGB, slice_rgb
from hemotorch.system.arrays import voxels_per_slice

WIDTH, HEIGHT = 720, 800  #: of a picture, pixels
MOST_SLICES = 30  #: of thin slices there may be hundreds
EDGE, LINE = 20, 24  #: from the edge to text; from one line to the next
TOP, BOTTOM = 64, 72  #: heights above and below a slice
DOUBT_RGB: Rgb = (255, 190, 60)
LARGE, USUAL, SMALL = 44, 17, 14  #: of letters
SUMMARY_PX = 300  #: height of the slice on the summary
MOST_LINES = 10  #: of remarks on the summary
_USE = NOTICE.upper()


class TableRow(NamedTuple):
    """A type's line on the summary. texts: its columns."""

    colour: Rgb
    texts: tuple[str, ...]


class Remark(NamedTuple):
    """A sentence on the summary. is_doubt: it is drawn in another colour."""

    text: str
    is_doubt: bool = False


class CaptureText(NamedTuple):
    """What the first picture says.

    total: in large letters. below: a sentence under it. head: titles of the table's columns; table: a line per type.
    remarks: doubts first. model: in words.
    """

    total: str
    below: str
    head: tuple[str, ...]
    table: Sequence[TableRow]
    remarks: Sequence[Remark]
    model: str


class Capture(NamedTuple):
    """The pictures. frames: (pictures, HEIGHT, WIDTH, 3) uint8. indices: of the slices, from the second picture on."""

    frames: np.ndarray
    indices: tuple[int, ...]


def capture(scan: Volume, mask: np.ndarray, summary: CaptureText, *, typed: bool) -> Capture:
    """A summary, and the slices that hold bleeding from foot to head, as a radiologist looks at them.

    Args:
        scan: a `Scan`.
        mask: of its shape.
        summary: of the prediction.
        typed: the mask is codes of `labels`.
    """
    masks = Masks(mask, None, typed)
    box = head_box(scan, [mask])
    areas = voxels_per_slice(mask)
    holds = np.flatnonzero(areas)
    indices = pick_slices(scan, [mask], MOST_SLICES) if len(holds) > MOST_SLICES else holds.tolist()
    indices = [index for index in indices if areas[index]]
    largest = int(areas.argmax()) if areas.any() else len(mask) // 2
    in_doubt = any(remark.is_doubt for remark in summary.remarks)
    frames = np.empty((1 + len(indices), HEIGHT, WIDTH, 3), np.uint8)
    frames[0] = np.asarray(_summary_picture(scan, masks, box, largest, summary, f"{len(indices)} of {len(holds)}"))
    for number, index in enumerate(indices, start=1):
        frames[number] = np.asarray(_slice_page(scan, masks, box, index, in_doubt))
    return Capture(frames, tuple(indices))


def _page() -> tuple[Image.Image, Pen]:
    """An empty picture with the notice."""
    page = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen = Pen(page)
    pen.text(WIDTH // 2, 18, _USE, DOUBT_RGB, USUAL, "mm")
    return page, pen


def _slice_page(scan: Volume, masks: Masks, box: Box, index: int, in_doubt: bool) -> Image.Image:
    page, pen = _page()
    if in_doubt:
        pen.text(WIDTH // 2, 46, "IN DOUBT, see the first picture", DOUBT_RGB, SMALL, "mm")
    pen.text(EDGE, 46, f"Slice {scan.slice_numbers[index]}", size=USUAL)
    window = WINDOWS["brain"]
    pen.text(WIDTH - EDGE, 46, f"level {window.level:g}, width {window.width:g} HU", FAINT, SMALL, "rm")
    room = (TOP, HEIGHT - BOTTOM)
    _paste(page, pen, scan, masks, box, index, (0, WIDTH), room)
    labels = slice_labels(scan, index, masks.predicted, PREDICTED_RGB, masks.typed)
    _labels(pen, labels, HEIGHT - BOTTOM + 18)
    pen.text(EDGE, HEIGHT - 14, "Outlined by hemotorch. mL are of this slice.", FAINT, SMALL)
    return page


def _paste(
    page: Image.Image,
    pen: Pen,
    scan: Volume,
    masks: Masks,
    box: Box,
    index: int,
    across: tuple[int, int],
    down: tuple[int, int],
) -> None:
    """A slice as large as fits, with the patient's sides beside it."""
    height_mm, width_mm = box_mm(scan, box)
    margin = 24  # for the letters
    free_width, free_height = across[1] - across[0] - 2 * margin, down[1] - down[0]
    height = max(1, int(min(free_height, free_width * height_mm / width_mm)))
    _, predicted = masks.cropped(index, box)
    rgb = slice_rgb(scan.hu[index][box], WINDOWS["brain"], None, predicted, scan.pixel_mm, height, typed=masks.typed)
    picture = Image.fromarray(rgb[:, : free_width + 1])
    x = (across[0] + across[1] - picture.width) // 2
    y = (down[0] + down[1] - picture.height) // 2
    page.paste(picture, (x, y))
    middle = y + picture.height // 2
    pen.text(x - 6, middle, "R", FAINT, USUAL, "rm")
    pen.text(x + picture.width + 6, middle, "L", FAINT, USUAL, "lm")


def _labels(pen: Pen, labels: Sequence[Label], y: int) -> None:
    """Labels in a row, in a second one if they do not fit."""
    x = EDGE
    for label in labels:
        width = 27 + text_width(label.text, USUAL)
        if x > EDGE and x + width > WIDTH - EDGE:
            x, y = EDGE, y + 20
        pen.swatch(x, y, label.colour)
        pen.text(x + 27, y, label.text, size=USUAL)
        x += width + 22


def _summary_picture(
    scan: Volume, masks: Masks, box: Box, largest: int, summary: CaptureText, shown: str
) -> Image.Image:
    page, pen = _page()
    pen.text(EDGE, 50, "Bleeding outlined by hemotorch", FAINT, USUAL)
    pen.text(EDGE, 92, summary.total, size=LARGE)
    y = 128
    for line in _wrapped(summary.below, SMALL, WIDTH - 2 * EDGE):
        pen.text(EDGE, y, line, FAINT, SMALL)
        y += 20
    y += 10
    columns = (EDGE, 300, 430, 560)
    for x, text in zip(columns, summary.head, strict=False):
        pen.text(x, y, text, FAINT, SMALL)
    for row in summary.table:
        y += LINE
        pen.swatch(columns[0], y, row.colour)
        pen.text(columns[0] + 27, y, row.texts[0], size=USUAL)
        for x, text in zip(columns[1:], row.texts[1:], strict=False):
            pen.text(x, y, text, size=USUAL)
    y = _remarks(pen, summary.remarks, y + LINE + 8)
    foot = HEIGHT - 48
    if foot - y > SUMMARY_PX // 2:
        _paste(page, pen, scan, masks, box, largest, (0, WIDTH), (y, foot - 6))
        pen.text(WIDTH - EDGE, foot - 12, f"slice {scan.slice_numbers[largest]}", FAINT, SMALL, "rm")
    following = f"Next pictures: {shown} slices that hold bleeding." if masks.given[0].any() else ""
    pen.text(EDGE, HEIGHT - 36, shortened(one_line(summary.model), SMALL, WIDTH - 2 * EDGE), FAINT, SMALL)
    pen.text(EDGE, HEIGHT - 16, following, FAINT, SMALL)
    return page


def _remarks(pen: Pen, remarks: Sequence[Remark], y: int) -> int:
    """Remarks one under another; those that do not fit are counted. Returns where they end."""
    lines: list[tuple[str, Rgb]] = []
    left_out = 0
    for remark in remarks:
        wrapped = _wrapped(remark.text, SMALL, WIDTH - 2 * EDGE)
        if left_out or len(lines) + len(wrapped) > MOST_LINES:
            left_out += 1
            continue
        lines.extend((line, DOUBT_RGB if remark.is_doubt else INK) for line in wrapped)
    if left_out:
        lines.append((f"and {left_out} more, see the structured report", FAINT))
    for text, colour in lines:
        pen.text(EDGE, y, text, colour, SMALL)
        y += 20
    return y


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """A text in lines that are not wider than `width`."""
    lines: list[str] = []
    for word in one_line(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(shortened(word, size, width))
    return lines
