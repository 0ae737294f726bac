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
from hemotorch.pictures.framing import Box, Volume, head_box, pick_slices
from hemotorch.pictures.legend import Masks, Rgb, slice_labels, total_labels, type_volumes
from hemotorch.pictures.slices import FOUND_RGB, TRUTH_RGB, slice_rgb

PAPER, INK, FAINT = (18, 18, 20), (238, 238, 238), (160, 160, 165)
GAP = 3  #: pixels between tiles
EDGE = GAP + 8  #: from the sheet's edge to text
LEAST_WIDTH = 600  #: of a sheet: the notice and the window stand in one line
HEADER, TYPES_LINE, FOOTER = 60, 24, 26  #: heights; TYPES_LINE is added for each line of types
NAME_MIDDLE, LEGEND_MIDDLE, TYPES_MIDDLE = 18, 43, 66  #: heights of the header's lines
NAME_SIZE, LEGEND_SIZE, SMALL_SIZE = 18, 15, 13  #: of letters
NUMBER_SIZE, LABEL_SIZE, LABEL_LINE = 14, 12, 14  #: of letters on a tile, and the distance of their lines
SWATCH = 20  #: length of a legend's piece of line


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
    def bottom(self) -> int:
        return self.y + self.height


class LegendEntry(NamedTuple):
    """A type's line in the header."""

    colour: Rgb
    text: str

    @property
    def width(self) -> int:
        return SWATCH + 7 + round(_font(LEGEND_SIZE).getlength(self.text)) + 20


def contact_sheet(
    scan: Volume,
    found: np.ndarray | None = None,
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
        found, truth: masks of the scan's shape.
        window: which HU are spread over black to white.
        caption: text beside the scan's name.
        tiles: how many slices at most. If there are more, those with bleeding come first, and the others are spread
            evenly.
        tile_px: a tile's longer edge.
        typed: the masks are codes of `labels`, and types have their own colours and volumes.
    """
    masks = Masks(found, truth, typed)
    chosen = pick_slices(scan, masks.given, tiles)
    box = head_box(scan, masks.given)
    width, height = _tile_size(scan, box, tile_px)
    columns = _columns(len(chosen), width, height)
    rows = math.ceil(len(chosen) / columns)
    sheet_width = max(columns * (width + GAP) + GAP, LEAST_WIDTH)
    legend = _legend_rows(type_volumes(scan, masks), sheet_width - 2 * EDGE) if typed else []
    header = HEADER + TYPES_LINE * len(legend)
    sheet = Image.new("RGB", (sheet_width, header + rows * (height + GAP) + FOOTER), PAPER)
    pen = ImageDraw.Draw(sheet)
    left = (sheet_width - columns * (width + GAP) + GAP) // 2
    for number, index in enumerate(chosen):
        row, column = divmod(number, columns)
        tile = Tile(left + column * (width + GAP), header + row * (height + GAP), width, height)
        sheet.paste(_tile_picture(scan, index, masks, box, window, height), (tile.x, tile.y))
        _label_tile(pen, scan, index, masks, tile)
    if scan.spacing_known:
        rows_mm = (box[0].stop - box[0].start) * scan.pixel_mm[0]
        _scale_bar(pen, sheet_width - EDGE, LEGEND_MIDDLE, height / rows_mm)
    _header(pen, scan, masks, caption, sheet_width)
    _draw_legend(pen, legend)
    shown = f"{len(chosen)} of {len(scan.hu)} slices, foot to head" if len(chosen) < len(scan.hu) else "foot to head"
    _footer(pen, f"{shown}   level {window.level:g}, width {window.width:g} HU", sheet.size)
    return sheet


def _tile_size(scan: Volume, box: Box, tile_px: int) -> tuple[int, int]:
    """Width and height of a tile, the longer of the two `tile_px`."""
    height_mm = (box[0].stop - box[0].start) * scan.pixel_mm[0]
    width_mm = (box[1].stop - box[1].start) * scan.pixel_mm[1]
    px_per_mm = tile_px / max(height_mm, width_mm)
    return max(1, round(width_mm * px_per_mm)), max(1, round(height_mm * px_per_mm))


def _columns(count: int, width: int, height: int) -> int:
    """Columns of a sheet about 1.5 times as wide as high, without a nearly empty last row."""
    near = max(1, round(math.sqrt(1.5 * count * height / width)))
    options = [columns for columns in range(max(1, near - 1), near + 2) if columns <= count]
    return min(options, key=lambda c: (c * math.ceil(count / c) - count, abs(c - near)), default=1)


def _tile_picture(scan: Volume, index: int, masks: Masks, box: Box, window: Window, height: int) -> Image.Image:
    truth = None if masks.truth is None else masks.truth[index][box]
    found = None if masks.found is None else masks.found[index][box]
    hu = scan.hu[index][box]
    return Image.fromarray(slice_rgb(hu, window, truth, found, scan.pixel_mm, height, typed=masks.typed))


def _label_tile(pen: ImageDraw.ImageDraw, scan: Volume, index: int, masks: Masks, tile: Tile) -> None:
    """The slice's number, the patient's sides, and the mL found and true in this slice."""
    middle = tile.y + tile.height // 2
    _outlined(pen, (tile.x + 5, tile.y + 4), str(scan.slice_numbers[index]), INK, NUMBER_SIZE, "la")
    _outlined(pen, (tile.x + 5, middle), "R", FAINT, LABEL_SIZE, "lm")
    _outlined(pen, (tile.right - 5, middle), "L", FAINT, LABEL_SIZE, "rm")
    found = slice_labels(scan, index, masks.found, FOUND_RGB, masks.typed)
    truth = slice_labels(scan, index, masks.truth, TRUTH_RGB, masks.typed)
    if not masks.typed:
        for line, label in enumerate([*found, *truth]):
            at = (tile.x + 5, tile.bottom - 4 - LABEL_LINE * line)
            _outlined(pen, at, label.text, label.colour, LABEL_SIZE, "ld")
        return
    # Both may have five lines: found ones stand left, true ones right.
    for line, label in enumerate(reversed(found)):
        at = (tile.x + 5, tile.bottom - 4 - LABEL_LINE * line)
        _outlined(pen, at, label.text, label.colour, LABEL_SIZE, "ld", stroke=2)
    for line, label in enumerate(reversed(truth)):
        at = (tile.right - 5, tile.bottom - 4 - LABEL_LINE * line)
        _outlined(pen, at, f"true {label.text}", label.colour, LABEL_SIZE, "rd", stroke=2)


def _header(pen: ImageDraw.ImageDraw, scan: Volume, masks: Masks, caption: str, width: int) -> None:
    """The scan's name, and a legend that tells the volumes."""
    title = one_line("   ".join(filter(None, (scan.name, caption))))
    font = _font(NAME_SIZE)
    pen.text((EDGE, NAME_MIDDLE), _shortened(pen, title, font, width - 2 * EDGE), INK, font, anchor="lm")
    x = EDGE
    for label in total_labels(scan, masks):
        # A typed finding has no line of its own colour: its types' stand in the lines below.
        if not masks.typed or label.colour == TRUTH_RGB:
            pen.line([(x, LEGEND_MIDDLE), (x + SWATCH, LEGEND_MIDDLE)], label.colour, 3)
            if masks.typed:
                pen.line([(x + 7, LEGEND_MIDDLE), (x + 13, LEGEND_MIDDLE)], PAPER, 3)  # dashed, as in the pictures
            x += SWATCH + 7
        pen.text((x, LEGEND_MIDDLE), label.text, INK, _font(LEGEND_SIZE), anchor="lm")
        x += round(pen.textlength(label.text, _font(LEGEND_SIZE))) + 28


def _legend_rows(volumes: dict[str, str], width: int) -> list[list[LegendEntry]]:
    """A legend of types, in rows that are not wider than `width`: short names if the full ones need several."""
    full = [LegendEntry(COLOURS[name], f"{name} {volume}") for name, volume in volumes.items()]
    short = [LegendEntry(COLOURS[name], f"{SHORT_NAMES[name]} {volume}") for name, volume in volumes.items()]
    rows: list[list[LegendEntry]] = [[]]
    for entry in full if sum(entry.width for entry in full) <= width else short:
        if rows[-1] and sum(other.width for other in rows[-1]) + entry.width > width:
            rows.append([])
        rows[-1].append(entry)
    return rows


def _draw_legend(pen: ImageDraw.ImageDraw, rows: list[list[LegendEntry]]) -> None:
    for number, row in enumerate(rows):
        x, middle = EDGE, TYPES_MIDDLE + number * TYPES_LINE
        for entry in row:
            pen.line([(x, middle), (x + SWATCH, middle)], entry.colour, 3)
            pen.text((x + SWATCH + 7, middle), entry.text, INK, _font(LEGEND_SIZE), anchor="lm")
            x += entry.width


def _footer(pen: ImageDraw.ImageDraw, text: str, sheet_size: tuple[int, int]) -> None:
    width, height = sheet_size
    pen.text((EDGE, height - 13), NOTICE, INK, _font(SMALL_SIZE), anchor="lm")
    pen.text((width - EDGE, height - 13), text, FAINT, _font(SMALL_SIZE), anchor="rm")


def _scale_bar(pen: ImageDraw.ImageDraw, right: int, middle: int, px_per_mm: float) -> None:
    length = round(50 * px_per_mm)
    pen.line([(right - length, middle), (right, middle)], FAINT, 2)
    for x in (right - length, right):
        pen.line([(x, middle - 4), (x, middle + 4)], FAINT, 2)
    pen.text((right - length - 8, middle), "5 cm", FAINT, _font(SMALL_SIZE), anchor="rm")


def _outlined(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, colour: Rgb, size: int, anchor: str, stroke: int = 1
) -> None:
    """Text with a thin dark edge, readable on bone too."""
    pen.text(at, text, colour, _font(size), anchor=anchor, stroke_width=stroke, stroke_fill=(0, 0, 0))


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # of a given size it always is
    return font


def _shortened(pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, its end replaced by dots if it is too wide."""
    if pen.textlength(text, font) <= width:
        return text
    while text and pen.textlength(text + "...", font) > width:
        text = text[:-1]
    return text + "..."
