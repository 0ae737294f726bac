"""A slider over slices as HTML, for notebooks and web pages: it needs no kernel, no network and no other file.

Slices are one JPEG, outlines one PNG that lies over it, so that they stay sharp and can be hidden. Both are cut into
frames by a few lines of script. If a page does not run scripts, the frame that is shown first stays.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from hemotorch import NOTICE
from hemotorch.errors import one_line
from hemotorch.labels import COLOURS
from hemotorch.pictures.framing import Box, Volume, head_box, pick_slices
from hemotorch.pictures.legend import Masks, Rgb, slice_labels, total_labels, type_volumes
from hemotorch.pictures.slices import LINE_RGB, PREDICTED_RGB, TRUTH_RGB, grey_slice, outlines, picture_width

#: Slices that are shown at most: of a scan with 8 HU of noise they take 2.3 megabytes, of a smooth one half of one.
FRAMES = 48
HEIGHT_PX = 384  #: of a frame
EMPTY_WIDTH_PX = 320  #: of the text, if there is no picture
JPEG_QUALITY = 80
BLOCK = 8  #: of a JPEG; frames are a multiple of it, or one would shine into the next
CHROME_PX = 150  #: height of all that is around a frame: title, caption, slider, notice
LINE_PX = 21  #: of a line of text
LINE_LETTERS = 60  #: of a line of text


class SliderFrame(NamedTuple):
    """A picture of the slider. grey, lines: (height, width) uint8, lines as `slices.outlines` gives them."""

    grey: np.ndarray
    lines: np.ndarray
    caption: str


class Swatch(NamedTuple):
    """An entry of the legend; colour None for a text alone."""

    text: str
    colour: Rgb | None
    dashed: bool = False


def scan_html(
    scan: Volume,
    facts: Sequence[str] = (),
    warnings: Sequence[str] = (),
    *,
    predicted: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    typed: bool = False,
) -> str:
    """A scan as HTML with a slider over its slices.

    Args:
        scan: a `Scan`.
        facts, warnings: lines of text under its name.
        predicted, truth: masks of its shape, outlined.
        typed: the masks are codes of `labels`.
    """
    masks = Masks(predicted, truth, typed)
    box = head_box(scan, masks.given)
    indices = pick_slices(scan, masks.given, FRAMES)
    frames = [_frame(scan, index, masks, box) for index in indices]
    if len(indices) < len(scan.hu):
        facts = [*facts, f"{len(indices)} of {len(scan.hu)} slices are shown"]
    start = _fullest(masks, indices)
    return viewer_html(scan.name, frames, facts, warnings, legend=_legend(scan, masks), start=start)


def _frame(scan: Volume, index: int, masks: Masks, box: Box) -> SliderFrame:
    """One slice, cropped to the box."""
    hu = scan.hu[index][box]
    width = picture_width(hu.shape, scan.pixel_mm, HEIGHT_PX)
    truth, predicted = masks.cropped(index, box)
    lines = outlines(truth, predicted, width, HEIGHT_PX, typed=masks.typed)
    return SliderFrame(grey_slice(hu, width, HEIGHT_PX), lines, _caption(scan, index, masks))


def _fullest(masks: Masks, indices: Sequence[int]) -> int:
    """The frame with the most bleeding; without any, the middle one."""
    voxels = np.zeros(len(indices), int)
    for mask in masks.given:
        voxels += np.count_nonzero(mask[indices].reshape(len(indices), -1), axis=1)
    return int(voxels.argmax()) if voxels.any() else len(indices) // 2


def _caption(scan: Volume, index: int, masks: Masks) -> str:
    texts = [f"slice {scan.slice_numbers[index]}"]
    for word, labels in (
        ("found", slice_labels(scan, index, masks.predicted, PREDICTED_RGB, masks.typed)),
        ("true", slice_labels(scan, index, masks.truth, TRUTH_RGB, masks.typed)),
    ):
        if labels:
            volumes = ", ".join(label.text for label in labels)
            texts.append(f"{word} {volumes}")
    return " · ".join(texts)


def _legend(scan: Volume, masks: Masks) -> list[Swatch]:
    """Volumes in all, and per type if they are told apart; then what was found has its types' lines only."""
    swatches = []
    for label in total_labels(scan, masks):
        is_truth = label.colour == TRUTH_RGB
        has_line = is_truth or not masks.typed
        swatches.append(Swatch(label.text, label.colour if has_line else None, dashed=is_truth and masks.typed))
    if masks.typed:
        for name, volume in type_volumes(scan, masks).items():
            swatches.append(Swatch(f"{name} {volume}", COLOURS[name]))
    return swatches


def viewer_html(
    title: str,
    frames: Sequence[SliderFrame],
    facts: Sequence[str] = (),
    warnings: Sequence[str] = (),
    *,
    legend: Sequence[Swatch] = (),
    start: int = 0,
) -> str:
    """An HTML element that shows frames one at a time, chosen by a slider.

    It is an <iframe>, so that neither its style nor its script meets those of the page around it.

    Args:
        title: in its first line.
        frames: of any sizes; smaller ones are shown in the middle of the largest size.
        facts, warnings: lines of text under the title.
        legend: colours and what they mean.
        start: the frame that is shown first.
    """
    facts, warnings = list(map(one_line, facts)), list(map(one_line, warnings))
    height = _whole_blocks(max((frame.grey.shape[0] for frame in frames), default=0))
    width = _whole_blocks(max((frame.grey.shape[1] for frame in frames), default=EMPTY_WIDTH_PX))
    # About as many columns as rows: browsers draw no picture of more than some 16,000 pixels a side.
    columns = max(1, math.ceil(math.sqrt(len(frames))))
    grey = _tiled([frame.grey for frame in frames], height, width, columns)
    lines = _tiled([frame.lines for frame in frames], height, width, columns)
    page = _render(
        "viewer.html",
        title=one_line(title),
        facts=facts,
        warnings=warnings,
        legend=legend,
        captions=[one_line(frame.caption) for frame in frames],
        start=start,
        start_x=start % columns * width,
        start_y=start // columns * height,
        columns=columns,
        width=width,
        height=height,
        sheet_width=columns * width,
        sheet_height=len(grey),
        grey=_jpeg_url(grey) if frames else "",
        lines=_lines_url(lines) if lines.any() else "",
        notice=NOTICE,
    )
    # The page makes the frame as high as it needs; this is for one whose scripts are not run.
    text_lines = len(legend) + sum(math.ceil(len(text) / LINE_LETTERS) for text in (*facts, *warnings))
    return _render("iframe.html", title=one_line(title), page=page, height=height + CHROME_PX + LINE_PX * text_lines)


def _whole_blocks(length: int) -> int:
    return math.ceil(length / BLOCK) * BLOCK


def _tiled(pictures: Sequence[np.ndarray], height: int, width: int, columns: int) -> np.ndarray:
    """(rows * height, columns * width) uint8: the pictures row by row, each in the middle of its tile."""
    rows = math.ceil(len(pictures) / columns)
    sheet = np.zeros((rows * height, columns * width), np.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        top = row * height + (height - picture.shape[0]) // 2
        left = column * width + (width - picture.shape[1]) // 2
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def _jpeg_url(grey: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _lines_url(lines: np.ndarray) -> str:
    """Lines in their colours, all else transparent."""
    image = Image.fromarray(lines, "L").convert("P")
    # Converting maps greys to a palette of its own: the indices are put back.
    image.putdata(lines.ravel())
    image.putpalette(LINE_RGB.ravel().tolist())
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True, transparency=0)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("hemotorch.pictures", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
