"""Contact sheets: a scan's slices side by side, bleeding outlined, volumes written beside it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hemotorch import NOTICE
from hemotorch.errors import one_line
from hemotorch.hu import WINDOWS, Window
from hemotorch.labels import CODES, COLOURS, SHORT_NAMES
from hemotorch.pictures.framing import Volume, head_box, pick_slices
from hemotorch.pictures.slices import FOUND_RGB, TRUTH_RGB, slice_rgb

Rgb = tuple[int, int, int]

PAPER, INK, FAINT = (18, 18, 20), (238, 238, 238), (160, 160, 165)
GAP = 3  #: pixels between tiles
EDGE = GAP + 8  #: from the sheet's edge to text
LEAST_WIDTH = 600  #: of a sheet: the notice and the window stand in one line
HEADER, TYPES_LINE, FOOTER = 60, 24, 26  #: heights; TYPES_LINE is added for each line of types
NAME_MIDDLE, LEGEND_MIDDLE, TYPES_MIDDLE = 18, 43, 66  #: heights of the header's lines
LEGEND_SIZE, SMALL_SIZE = 15, 13  #: of letters
SWATCH = 20  #: length of a legend's piece of line


class Masks(NamedTuple):
    """What is outlined on a sheet. typed: the masks are codes of `labels`, and types are told apart."""

    found: np.ndarray | None
    truth: np.ndarray | None
    typed: bool

    @property
    def all(self) -> list[np.ndarray]:
        return [mask for mask in (self.found, self.truth) if mask is not None]


class Tile(NamedTuple):
    """Where a slice's picture lies on the sheet, in pixels."""

    x: int
    y: int
    width: int
    height: int


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
    chosen, box = pick_slices(scan, masks.all, tiles), head_box(scan, masks.all)
    row_mm, column_mm = scan.pixel_mm
    high_mm, wide_mm = (box[0].stop - box[0].start) * row_mm, (box[1].stop - box[1].start) * column_mm
    height, width = (max(1, round(tile_px * edge / max(high_mm, wide_mm))) for edge in (high_mm, wide_mm))
    columns = _columns(len(chosen), width, height)
    rows = math.ceil(len(chosen) / columns)
    sheet_width = max(columns * (width + GAP) + GAP, LEAST_WIDTH)
    legend = _legend_rows(scan, masks, sheet_width)
    header = HEADER + TYPES_LINE * len(legend)
    sheet = Image.new("RGB", (sheet_width, header + rows * (height + GAP) + FOOTER), PAPER)
    pen = ImageDraw.Draw(sheet)
    left = (sheet_width - columns * (width + GAP) + GAP) // 2
    for number, index in enumerate(chosen):
        row, column = divmod(number, columns)
        tile = Tile(left + column * (width + GAP), header + row * (height + GAP), width, height)
        true_slice, found_slice = (None if mask is None else mask[index][box] for mask in (truth, found))
        rgb = slice_rgb(scan.hu[index][box], window, true_slice, found_slice, scan.pixel_mm, height, typed=typed)
        sheet.paste(Image.fromarray(rgb), (tile.x, tile.y))
        _label_tile(pen, scan, index, masks, tile)
    if scan.spacing_known:
        _scale_bar(pen, sheet_width - EDGE, LEGEND_MIDDLE, height / high_mm)
    _header(pen, scan, masks, caption, sheet_width)
    _draw_legend(pen, legend)
    foot = sheet.height - 13
    shown = f"{len(chosen)} of {len(scan.hu)} slices, foot to head" if len(chosen) < len(scan.hu) else "foot to head"
    pen.text((EDGE, foot), NOTICE, INK, _font(SMALL_SIZE), anchor="lm")
    window_text = f"{shown}   level {window.level:g}, width {window.width:g} HU"
    pen.text((sheet_width - EDGE, foot), window_text, FAINT, _font(SMALL_SIZE), anchor="rm")
    return sheet


def _label_tile(pen: ImageDraw.ImageDraw, scan: Volume, index: int, masks: Masks, tile: Tile) -> None:
    """The slice's number, the patient's sides, and the mL found and true in this slice."""
    number = str(scan.slice_numbers[index])
    middle = tile.y + tile.height // 2
    _outlined(pen, (tile.x + 5, tile.y + 4), number, INK, 14, "la")
    _outlined(pen, (tile.x + 5, middle), "R", FAINT, 12, "lm")
    _outlined(pen, (tile.x + tile.width - 5, middle), "L", FAINT, 12, "rm")
    if masks.typed:
        _type_labels(pen, scan, index, masks, tile)
        return
    line = tile.y + tile.height - 4
    for mask, colour in ((masks.found, FOUND_RGB), (masks.truth, TRUTH_RGB)):
        if mask is not None and mask[index].any():
            _outlined(pen, (tile.x + 5, line), _slice_ml(scan, index, mask[index]), colour, 12, "ld")
            line -= 14


def _type_labels(pen: ImageDraw.ImageDraw, scan: Volume, index: int, masks: Masks, tile: Tile) -> None:
    """What was found, type by type, in the lower left corner; what is true in the lower right one."""
    bottom = tile.y + tile.height - 4
    if masks.found is not None:
        texts = _type_texts(scan, index, masks.found[index], FOUND_RGB)
        for line, (text, colour) in enumerate(texts):
            _outlined(pen, (tile.x + 5, bottom - 14 * line), text, colour, 12, "ld", stroke=2)
    if masks.truth is not None:
        texts = _type_texts(scan, index, masks.truth[index], TRUTH_RGB)
        for line, (text, colour) in enumerate(texts):
            at = (tile.x + tile.width - 5, bottom - 14 * line)
            _outlined(pen, at, f"true {text}", colour, 12, "rd", stroke=2)


def _type_texts(scan: Volume, index: int, mask: np.ndarray, plain: Rgb) -> list[tuple[str, Rgb]]:
    """Text and colour of each type in a slice, from the lowest line up; `plain` is the colour of unknown type."""
    texts = []
    untyped = (mask != 0) & ~np.isin(mask, list(CODES.values()))
    if untyped.any():
        texts.append((_slice_ml(scan, index, untyped), plain))
    for name, code in reversed(CODES.items()):
        if (mask == code).any():
            texts.append((f"{SHORT_NAMES[name]} {_slice_ml(scan, index, mask == code)}", COLOURS[name]))
    return texts


def _header(pen: ImageDraw.ImageDraw, scan: Volume, masks: Masks, caption: str, width: int) -> None:
    """The scan's name, and a legend that tells the volumes."""
    title = one_line("   ".join(filter(None, (scan.name, caption))))
    pen.text((EDGE, NAME_MIDDLE), _shortened(pen, title, _font(18), width - 22), INK, _font(18), anchor="lm")
    x = EDGE
    for mask, colour, word in ((masks.found, FOUND_RGB, "found"), (masks.truth, TRUTH_RGB, "truth")):
        if mask is None:
            continue
        text = f"{word}: {_total(scan, mask)}"
        if not (masks.typed and word == "found"):
            # A typed finding has no line of this colour: its types' stand in the line below.
            pen.line([(x, LEGEND_MIDDLE), (x + SWATCH, LEGEND_MIDDLE)], colour, 3)
            if masks.typed:
                pen.line([(x + 7, LEGEND_MIDDLE), (x + 13, LEGEND_MIDDLE)], PAPER, 3)  # dashed, as in the pictures
            x += SWATCH + 7
        pen.text((x, LEGEND_MIDDLE), text, INK, _font(LEGEND_SIZE), anchor="lm")
        x += round(pen.textlength(text, _font(LEGEND_SIZE))) + 28


def _legend_rows(scan: Volume, masks: Masks, width: int) -> list[list[tuple[str, str]]]:
    """Name and text of each type that was found or is true, in rows that fit: short names if full ones do not."""
    if not masks.typed:
        return []
    names = [name for name, code in CODES.items() if any((mask == code).any() for mask in masks.all)]
    volumes = {name: _type_volume(scan, masks, CODES[name]) for name in names}
    texts = {name: f"{name} {volume}" for name, volume in volumes.items()}
    if sum(map(_legend_width, texts.values())) > width - 2 * EDGE:
        texts = {name: f"{SHORT_NAMES[name]} {volume}" for name, volume in volumes.items()}
    rows: list[list[tuple[str, str]]] = [[]]
    room = width - 2 * EDGE
    for name, text in texts.items():
        if _legend_width(text) > room and rows[-1]:
            rows.append([])
            room = width - 2 * EDGE
        rows[-1].append((name, text))
        room -= _legend_width(text)
    return rows


def _legend_width(text: str) -> int:
    return SWATCH + 7 + round(_font(LEGEND_SIZE).getlength(text)) + 20


def _draw_legend(pen: ImageDraw.ImageDraw, rows: list[list[tuple[str, str]]]) -> None:
    for number, row in enumerate(rows):
        x, middle = EDGE, TYPES_MIDDLE + number * TYPES_LINE
        for name, text in row:
            pen.line([(x, middle), (x + SWATCH, middle)], COLOURS[name], 3)
            pen.text((x + SWATCH + 7, middle), text, INK, _font(LEGEND_SIZE), anchor="lm")
            x += _legend_width(text)


def _total(scan: Volume, mask: np.ndarray) -> str:
    """All that a mask holds, in words."""
    slices = int(mask.reshape(len(mask), -1).any(axis=1).sum())
    if not slices:
        return "no bleeding"
    volume = scan.volume_ml(mask)
    size = "volume unknown" if math.isnan(volume) else _ml(volume)
    return f"{size} in {slices} slice{'s' if slices != 1 else ''}"


def _type_volume(scan: Volume, masks: Masks, code: int) -> str:
    """The mL of one type found, and the true ones in brackets."""
    amounts = []
    for mask in masks.all:
        volume = scan.volume_ml(mask == code)
        voxels = np.count_nonzero(mask == code)
        amounts.append(f"{voxels} px" if math.isnan(volume) else _ml(volume) if voxels else "0 mL")
    if len(amounts) == 2:
        return f"{amounts[0]} (true {amounts[1]})"
    return amounts[0] if masks.truth is None else f"(true {amounts[0]})"


def _slice_ml(scan: Volume, index: int, area: np.ndarray) -> str:
    """The mL of an area in one slice, or its pixels if spacing is unknown."""
    pixels = np.count_nonzero(area)
    volume = pixels * float(scan.voxel_ml[index])
    return f"{pixels} px" if math.isnan(volume) else _ml(volume)


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


def _ml(volume: float) -> str:
    return f"{volume:.1f} mL" if volume >= 0.05 else "< 0.1 mL"


def _columns(count: int, width: int, height: int) -> int:
    """Columns of a sheet about 1.5 times as wide as high, without a nearly empty last row."""
    near = max(1, round(math.sqrt(1.5 * count * height / width)))
    options = [columns for columns in range(max(1, near - 1), near + 2) if columns <= count]
    return min(options, key=lambda c: (c * math.ceil(count / c) - count, abs(c - near)), default=1)
