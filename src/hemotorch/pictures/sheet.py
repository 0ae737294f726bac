"""Contact sheets: a scan's slices side by side, bleeding outlined, volumes written beside it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hemotorch import NOTICE
from hemotorch.errors import one_line
from hemotorch.hu import WINDOWS, Window
from hemotorch.labels import COLOURS, SHORT_NAMES
from hemotorch.pictures.framing import Box, Volume, box_mm, head_box, pick_slices
from hemotorch.pictures.legend import Label, Masks, Rgb, slice_labels, total_labels, type_volumes
from hemotorch.pictures.slices import PREDICTED_RGB, TRUTH_RGB, slice_rgb

PAPER, INK, FAINT = (18, 18, 20), (238, 238, 238), (160, 160, 165)
GAP = 3  #: pixels between tiles
EDGE = GAP + 8  #: from the sheet's edge to text
INSET = 5  #: from a tile's edge to text
#: Of a sheet: at 560 pixels the notice ran into the window's text.
LEAST_WIDTH = 600
HEADER, TYPES_LINE, FOOTER = 60, 24, 26  #: heights; TYPES_LINE is added for each line of types
NAME_MIDDLE, LEGEND_MIDDLE, TYPES_MIDDLE, FOOT_MIDDLE = 18, 43, 66, 13  #: of lines; the last from the lower edge
NAME_SIZE, LEGEND_SIZE, SMALL_SIZE = 18, 15, 13  #: of letters
NUMBER_SIZE, LABEL_SIZE, LABEL_LINE = 14, 12, 14  #: of letters on a tile, and the distance of their lines
SWATCH, AFTER_SWATCH, AFTER_TEXT = 20, 7, 20  #: a legend's piece of line, and what follows it and its text
BAR_MM, BAR_END = 50, 4  #: length of the scale bar, and half the height of its ends in pixels
SHAPE = 1.5  #: width of a sheet over its height, about


class Tile(NamedTuple):
    """Where a slice's picture lies on the sheet, in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def middle(self) -> int:
        return self.y + self.height // 2

    @property
    def bottom(self) -> int:
        return self.y + self.height


class Pen:
    """Draws on a sheet."""

    def __init__(self, sheet: Image.Image):
        self._draw = ImageDraw.Draw(sheet)

    def text(self, x: int, y: int, text: str, colour: Rgb = INK, size: int = LEGEND_SIZE, anchor: str = "lm") -> None:
        """anchor: which point of the text lies at (x, y), as Pillow says it."""
        self._draw.text((x, y), text, colour, font(size), anchor=anchor)

    def edged_text(self, x: int, y: int, text: str, colour: Rgb, size: int, anchor: str, edge: int = 1) -> None:
        """Text with a thin dark edge, readable on bone too."""
        self._draw.text((x, y), text, colour, font(size), anchor=anchor, stroke_width=edge, stroke_fill=(0, 0, 0))

    def line(self, start: tuple[int, int], end: tuple[int, int], colour: Rgb, width: int) -> None:
        self._draw.line([start, end], colour, width)

    def swatch(self, x: int, y: int, colour: Rgb, dashed: bool = False) -> None:
        """A piece of line, as a legend shows it."""
        self.line((x, y), (x + SWATCH, y), colour, 3)
        if dashed:
            self.line((x + 7, y), (x + 13, y), PAPER, 3)


class LegendEntry(NamedTuple):
    """A type's line in the header."""

    colour: Rgb
    text: str

    @property
    def width(self) -> int:
        return SWATCH + AFTER_SWATCH + text_width(self.text, LEGEND_SIZE) + AFTER_TEXT


def contact_sheet(
    scan: Volume,
    predicted: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    *,
    window: Window = WINDOWS["brain"],
    caption: str = "",
    tiles: int = 30,
    tile_px: int = 240,
    typed: bool = False,
) -> Image.Image:
    """A scan's slices side by side, from foot to head, cropped to the head.

    Numbers are the source's own slice numbers; the mL of a slice stand below it. The sheet names the scan, the total
    volumes, the window, and its use.

    Args:
        scan: a `Scan`.
        predicted, truth: masks of the scan's shape.
        window: which HU are spread over black to white.
        caption: text beside the scan's name.
        tiles: how many slices at most. If there are more, those with bleeding come first, and the others are spread
            evenly.
        tile_px: a tile's longer edge.
        typed: the masks are codes of `labels`, and types have their own colours and volumes.
    """
    masks = Masks(predicted, truth, typed)
    indices = pick_slices(scan, masks.given, tiles)
    box = head_box(scan, masks.given)
    width, height = _tile_size(scan, box, tile_px)
    columns = _columns(len(indices), width, height)
    rows = math.ceil(len(indices) / columns)
    row_width = columns * (width + GAP) - GAP
    sheet_width = max(row_width + 2 * GAP, LEAST_WIDTH)
    legend = _legend_rows(type_volumes(scan, masks), sheet_width - 2 * EDGE) if typed else []
    header = HEADER + TYPES_LINE * len(legend)
    sheet = Image.new("RGB", (sheet_width, header + rows * (height + GAP) + FOOTER), PAPER)
    pen = Pen(sheet)
    for number, index in enumerate(indices):
        row, column = divmod(number, columns)
        x = (sheet_width - row_width) // 2 + column * (width + GAP)
        tile = Tile(x, header + row * (height + GAP), width, height)
        sheet.paste(_tile_picture(scan, index, masks, box, window, height), (tile.x, tile.y))
        _label_tile(pen, scan, index, masks, tile)
    if scan.spacing_known:
        height_mm, _ = box_mm(scan, box)
        _scale_bar(pen, sheet_width - EDGE, height / height_mm)
    _header(pen, scan, masks, caption, sheet_width)
    _draw_legend(pen, legend)
    shown = "foot to head"
    if len(indices) < len(scan.hu):
        shown = f"{len(indices)} of {len(scan.hu)} slices, foot to head"
    foot = sheet.height - FOOT_MIDDLE
    window_text = f"{shown}   level {window.level:g}, width {window.width:g} HU"
    pen.text(EDGE, foot, NOTICE, size=SMALL_SIZE)
    pen.text(sheet_width - EDGE, foot, window_text, FAINT, SMALL_SIZE, "rm")
    return sheet


def _tile_size(scan: Volume, box: Box, tile_px: int) -> tuple[int, int]:
    """Width and height of a tile, the longer of the two `tile_px`."""
    height_mm, width_mm = box_mm(scan, box)
    longer_mm = max(height_mm, width_mm)
    width = max(1, round(tile_px * width_mm / longer_mm))
    height = max(1, round(tile_px * height_mm / longer_mm))
    return width, height


def _columns(count: int, width: int, height: int) -> int:
    """Columns of a sheet of about SHAPE, without a nearly empty last row."""
    near = max(1, round(math.sqrt(SHAPE * count * height / width)))
    options = [columns for columns in range(max(1, near - 1), near + 2) if columns <= count]
    return min(options, key=lambda c: (c * math.ceil(count / c) - count, abs(c - near)), default=1)


def _tile_picture(scan: Volume, index: int, masks: Masks, box: Box, window: Window, height: int) -> Image.Image:
    truth, predicted = masks.cropped(index, box)
    rgb = slice_rgb(scan.hu[index][box], window, truth, predicted, scan.pixel_mm, height, typed=masks.typed)
    return Image.fromarray(rgb)


def _label_tile(pen: Pen, scan: Volume, index: int, masks: Masks, tile: Tile) -> None:
    """The slice's number, the patient's sides, and the mL found and true in this slice."""
    pen.edged_text(tile.x + INSET, tile.y + 4, str(scan.slice_numbers[index]), INK, NUMBER_SIZE, "la")
    pen.edged_text(tile.x + INSET, tile.middle, "R", FAINT, LABEL_SIZE, "lm")
    pen.edged_text(tile.right - INSET, tile.middle, "L", FAINT, LABEL_SIZE, "rm")
    predicted = slice_labels(scan, index, masks.predicted, PREDICTED_RGB, masks.typed)
    truth = slice_labels(scan, index, masks.truth, TRUTH_RGB, masks.typed)
    if masks.typed:
        # Both may have five lines: found ones stand left, true ones right.
        true_labels = [Label(f"true {label.text}", label.colour) for label in truth]
        _stack(pen, tile.x + INSET, tile.bottom, predicted, "ld", edge=2)
        _stack(pen, tile.right - INSET, tile.bottom, true_labels, "rd", edge=2)
    else:
        _stack(pen, tile.x + INSET, tile.bottom, [*truth, *predicted], "ld", edge=1)


def _stack(pen: Pen, x: int, bottom: int, labels: list[Label], anchor: str, edge: int) -> None:
    """Labels one under another, the last of them at the bottom."""
    for line, label in enumerate(reversed(labels)):
        y = bottom - 4 - LABEL_LINE * line
        pen.edged_text(x, y, label.text, label.colour, LABEL_SIZE, anchor, edge)


def _header(pen: Pen, scan: Volume, masks: Masks, caption: str, width: int) -> None:
    """The scan's name, and a legend that tells the volumes."""
    title = one_line("   ".join(filter(None, (scan.name, caption))))
    pen.text(EDGE, NAME_MIDDLE, shortened(title, NAME_SIZE, width - 2 * EDGE), size=NAME_SIZE)
    x = EDGE
    for label in total_labels(scan, masks):
        # A typed finding has no line of its own colour: its types' stand in the lines below.
        if not masks.typed or label.colour == TRUTH_RGB:
            pen.swatch(x, LEGEND_MIDDLE, label.colour, dashed=masks.typed)
            x += SWATCH + AFTER_SWATCH
        pen.text(x, LEGEND_MIDDLE, label.text)
        x += text_width(label.text, LEGEND_SIZE) + 28


def _legend_rows(volumes: dict[str, str], width: int) -> list[list[LegendEntry]]:
    """A legend of types, in rows that are not wider than `width`: short names if the full ones need several."""
    entries = [LegendEntry(COLOURS[name], f"{name} {volume}") for name, volume in volumes.items()]
    if sum(entry.width for entry in entries) > width:
        entries = [LegendEntry(COLOURS[name], f"{SHORT_NAMES[name]} {volume}") for name, volume in volumes.items()]
    rows: list[list[LegendEntry]] = [[]]
    for entry in entries:
        if rows[-1] and sum(other.width for other in rows[-1]) + entry.width > width:
            rows.append([])
        rows[-1].append(entry)
    return rows


def _draw_legend(pen: Pen, rows: list[list[LegendEntry]]) -> None:
    for number, row in enumerate(rows):
        x, y = EDGE, TYPES_MIDDLE + number * TYPES_LINE
        for entry in row:
            pen.swatch(x, y, entry.colour)
            pen.text(x + SWATCH + AFTER_SWATCH, y, entry.text)
            x += entry.width


def _scale_bar(pen: Pen, right: int, px_per_mm: float) -> None:
    y = LEGEND_MIDDLE
    start = right - round(BAR_MM * px_per_mm)
    pen.line((start, y), (right, y), FAINT, 2)
    for x in (start, right):
        pen.line((x, y - BAR_END), (x, y + BAR_END), FAINT, 2)
    pen.text(start - 8, y, f"{BAR_MM // 10} cm", FAINT, SMALL_SIZE, "rm")


def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font."""
    default = ImageFont.load_default(size)
    assert isinstance(default, ImageFont.FreeTypeFont)  # of a given size it always is
    return default


def text_width(text: str, size: int) -> int:
    """In pixels."""
    return round(font(size).getlength(text))


def shortened(text: str, size: int, width: int) -> str:
    """The text, its end replaced by dots if it is too wide."""
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
