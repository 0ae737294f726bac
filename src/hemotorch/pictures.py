"""Pictures of scans: windowed slices with outlined bleeding, and contact sheets, as a radiologist looks at them.

The patient's right is on the picture's left. Truth is green, what was found is magenta: a pair that eyes with any
colour vision can tell apart, and that no grey value resembles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from hemotorch import NOTICE
from hemotorch.errors import one_line
from hemotorch.hu import WINDOWS, Window, apply_window
from hemotorch.scan import Scan

TRUTH_RGB = (70, 230, 110)
FOUND_RGB = (255, 80, 225)

_PAPER, _INK, _FAINT = (18, 18, 20), (238, 238, 238), (160, 160, 165)
_GAP = 3  # pixels between tiles
_MARGIN_MM = 14.0  # kept around the skull: the scalp
_BONE_HU, _AIR_HU = 300, -300
_COARSE = 3  # every third row and column is enough to find the head

Box = tuple[slice, slice]


def slice_rgb(
    hu: np.ndarray,
    window: Window = WINDOWS["brain"],
    truth: np.ndarray | None = None,
    found: np.ndarray | None = None,
    pixel_mm: tuple[float, float] = (1.0, 1.0),
    height: int = 512,
) -> np.ndarray:
    """One slice as a picture, with bleeding outlined by lines one pixel wide.

    hu, truth, found: (rows, columns); masks count where not zero. pixel_mm: distance of rows, of columns.
    height: of the picture, in pixels; its width follows from the millimetres. Returns (height, width, 3) uint8.
    The line around `truth` runs outside it, so that the thinnest lesion stays visible; that around `found` runs
    outside too, or inside it where truth is drawn as well, so that neither line hides the other.
    """
    width = max(1, round(height * hu.shape[1] * pixel_mm[1] / (hu.shape[0] * pixel_mm[0])))
    grey = Image.fromarray(np.asarray(apply_window(hu, window.level, window.width), np.float32))
    enlarged = np.clip(np.asarray(grey.resize((width, height), Image.Resampling.BICUBIC)), 0, 1)
    picture = np.repeat(np.rint(enlarged * 255).astype(np.uint8)[..., None], 3, axis=2)
    if truth is not None:
        area = _resized(truth, width, height)
        picture[_grown(area) & ~area] = TRUTH_RGB
    if found is not None:
        area = _resized(found, width, height)
        picture[_grown(area) & ~area if truth is None else area & _grown(~area)] = FOUND_RGB
    return picture


def contact_sheet(
    scan: Scan,
    found: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    *,
    window: Window = WINDOWS["brain"],
    caption: str = "",
    tiles: int = 30,
    tile_px: int = 240,
) -> Image.Image:
    """A scan's slices side by side, from foot to head, cropped to the head.

    found, truth: masks of the scan's shape. Where there are more slices than `tiles`, those with bleeding come first,
    and the others are spread evenly. tile_px: a tile's longer edge. Numbers are the source's own slice numbers; the mL
    of a slice stand below it. The sheet names the scan, the total volumes, the window, and its use.
    """
    masks = [mask for mask in (found, truth) if mask is not None]
    chosen, box = pick_slices(scan, masks, tiles), head_box(scan, masks)
    pixel = scan.pixel_mm
    high, wide = (box[0].stop - box[0].start) * pixel[0], (box[1].stop - box[1].start) * pixel[1]
    height, width = (max(1, round(tile_px * edge / max(high, wide))) for edge in (high, wide))
    columns = _columns(len(chosen), width, height)
    rows = math.ceil(len(chosen) / columns)
    sheet_width = max(columns * (width + _GAP) + _GAP, 560)
    top = 60
    sheet = Image.new("RGB", (sheet_width, top + rows * (height + _GAP) + 26), _PAPER)
    pen = ImageDraw.Draw(sheet)
    left = (sheet_width - columns * (width + _GAP) + _GAP) // 2
    for place, index in enumerate(chosen):
        x, y = left + place % columns * (width + _GAP), top + place // columns * (height + _GAP)
        drawn, seen = (None if mask is None else mask[index][box] for mask in (truth, found))
        sheet.paste(Image.fromarray(slice_rgb(scan.hu[index][box], window, drawn, seen, pixel, height)), (x, y))
        _label_tile(pen, scan, index, (found, truth), (x, y, width, height))
    if scan.spacing_known:
        _scale_bar(pen, sheet_width - _GAP - 8, 43, height / high)
    _header(pen, scan, found, truth, caption, sheet_width)
    foot = sheet.height - 13
    shown = f"{len(chosen)} of {len(scan.hu)} slices, foot to head" if len(chosen) < len(scan.hu) else "foot to head"
    pen.text((_GAP + 8, foot), NOTICE, _INK, _font(13), anchor="lm")
    window_text = f"{shown}   level {window.level:g}, width {window.width:g} HU"
    pen.text((sheet_width - _GAP - 8, foot), window_text, _FAINT, _font(13), anchor="rm")
    return sheet


def pick_slices(scan: Scan, masks: Sequence[np.ndarray], most: int) -> list[int]:
    """Indices of at most `most` slices, rising: all, or those with bleeding and an even choice of the others that hold
    a part of the head."""
    if len(scan.hu) <= most:
        return list(range(len(scan.hu)))
    marked = np.zeros(len(scan.hu), dtype=bool)
    for mask in masks:
        marked |= mask.reshape(len(mask), -1).any(axis=1)
    first = _evenly(np.flatnonzero(marked), most)
    others = np.flatnonzero(~marked & _head(scan).any(axis=(1, 2)))
    return sorted({*first, *_evenly(others, most - len(first))})


def head_box(scan: Scan, masks: Sequence[np.ndarray] = ()) -> Box:
    """The rows and columns that hold the skull and its scalp, and everything that is marked.

    The largest piece of bone is the skull; without bone, whatever is not background.
    """
    coarse = _head(scan)
    bounds = []
    for axis, step in ((1, scan.pixel_mm[0]), (2, scan.pixel_mm[1])):
        other = tuple({0, 1, 2} - {axis})
        held = np.flatnonzero(coarse.any(axis=other)) * _COARSE if coarse.any() else np.arange(scan.shape[axis])
        margin = math.ceil(_MARGIN_MM / step) if scan.spacing_known else math.ceil(0.05 * scan.shape[axis])
        marked = [np.flatnonzero(mask.any(axis=other)) for mask in masks]
        low = min([held[0] - margin, *(m[0] - 2 for m in marked if len(m))])
        high = max([held[-1] + margin, *(m[-1] + 2 for m in marked if len(m))])
        bounds.append(slice(max(0, int(low)), min(scan.shape[axis], int(high) + 1)))
    return bounds[0], bounds[1]


def _head(scan: Scan) -> np.ndarray:
    """The largest piece of bone, (slices, every third row, every third column) bool, or whatever is not background."""
    solid = scan.hu > _BONE_HU
    if np.count_nonzero(solid) < 0.002 * solid.size:
        solid = scan.hu > max(_AIR_HU, int(scan.hu[0, 0, 0]) + 5)
    coarse = solid[:, ::_COARSE, ::_COARSE]
    parts, count = ndimage.label(coarse, np.ones((3, 3, 3)))
    if count > 1:  # the head rest's rails are as dense as bone
        coarse = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return coarse


def _label_tile(
    pen: ImageDraw.ImageDraw,
    scan: Scan,
    index: int,
    masks: tuple[np.ndarray | None, np.ndarray | None],
    tile: tuple[int, int, int, int],
) -> None:
    """The slice's number, the patient's sides, and the mL found and true in this slice."""
    x, y, width, height = tile
    number = str(scan.slice_numbers[index])
    _outlined(pen, (x + 5, y + 4), number, _INK, 14, "la")
    _outlined(pen, (x + 5, y + height // 2), "R", _FAINT, 12, "lm")
    _outlined(pen, (x + width - 5, y + height // 2), "L", _FAINT, 12, "rm")
    line = y + height - 4
    for mask, colour in zip(masks, (FOUND_RGB, TRUTH_RGB), strict=True):
        if mask is not None and (voxels := np.count_nonzero(mask[index])):
            volume = voxels * float(scan.voxel_ml[index])
            _outlined(pen, (x + 5, line), f"{voxels} px" if math.isnan(volume) else f"{_ml(volume)}", colour, 12, "ld")
            line -= 14


def _header(
    pen: ImageDraw.ImageDraw,
    scan: Scan,
    found: np.ndarray | None,
    truth: np.ndarray | None,
    caption: str,
    width: int,
) -> None:
    """The scan's name, and a legend that tells the volumes."""
    name = _fitted(pen, one_line("   ".join(filter(None, (scan.name, caption)))), _font(18), width - 22)
    pen.text((_GAP + 8, 18), name, _INK, _font(18), anchor="lm")
    x = _GAP + 8
    for mask, colour, word in ((found, FOUND_RGB, "found"), (truth, TRUTH_RGB, "truth")):
        if mask is None:
            continue
        volume, slices = scan.volume_ml(mask), int(mask.reshape(len(mask), -1).any(axis=1).sum())
        size = "volume unknown" if math.isnan(volume) and slices else _ml(0.0 if math.isnan(volume) else volume)
        text = f"{word}: {size} in {slices} slice{'s' if slices != 1 else ''}" if slices else f"{word}: no bleeding"
        pen.line([(x, 43), (x + 20, 43)], colour, 3)
        pen.text((x + 27, 43), text, _INK, _font(15), anchor="lm")
        x += 27 + round(pen.textlength(text, _font(15))) + 28


def _scale_bar(pen: ImageDraw.ImageDraw, right: int, middle: int, px_per_mm: float) -> None:
    length = round(50 * px_per_mm)
    pen.line([(right - length, middle), (right, middle)], _FAINT, 2)
    for x in (right - length, right):
        pen.line([(x, middle - 4), (x, middle + 4)], _FAINT, 2)
    pen.text((right - length - 8, middle), "5 cm", _FAINT, _font(13), anchor="rm")


def _outlined(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, colour: tuple[int, int, int], size: int, anchor: str
) -> None:
    """Text with a thin dark edge, readable on bone too."""
    pen.text(at, text, colour, _font(size), anchor=anchor, stroke_width=1, stroke_fill=(0, 0, 0))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fitted(pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, its end replaced by dots where it is too wide."""
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
    options = [c for c in range(max(1, near - 1), near + 2) if c <= count]
    return min(options, key=lambda c: (c * math.ceil(count / c) - count, abs(c - near)), default=1)


def _evenly(indices: np.ndarray, most: int) -> list[int]:
    if len(indices) <= most:
        return [int(i) for i in indices]
    places = np.rint(np.linspace(0, len(indices) - 1, most)).astype(int)
    return [int(indices[place]) for place in places]


def _resized(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """A mask at the picture's size, bool; where it shrinks, what is thinner than a pixel does not vanish."""
    area = Image.fromarray((mask != 0).astype(np.float32))
    enlarges = width >= mask.shape[1] and height >= mask.shape[0]
    share = np.asarray(area.resize((width, height), Image.Resampling.NEAREST if enlarges else Image.Resampling.BOX))
    return share >= 0.4 if (share >= 0.4).any() else share > 0


def _grown(area: np.ndarray) -> np.ndarray:
    """The area and its neighbours above, below, left and right."""
    grown = area.copy()
    grown[1:] |= area[:-1]
    grown[:-1] |= area[1:]
    grown[:, 1:] |= area[:, :-1]
    grown[:, :-1] |= area[:, 1:]
    return grown
