"""One slice as a picture: grey in a window, and lines around what is true and what was found.

Truth is green, what was found is magenta: a pair that eyes with any colour vision can tell apart, and that no grey
value resembles. If types are told apart, what was found has its type's own colour.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from hemotorch.hu import WINDOWS, Window, apply_window
from hemotorch.labels import CODES, COLOURS

TRUTH_RGB = (70, 230, 110)
PREDICTED_RGB = (255, 80, 225)

#: What a pixel of a line is: 0 no line, TRUTH, PREDICTED, and from FIRST_TYPE on the types as `labels.TYPES` has them.
TRUTH, PREDICTED, FIRST_TYPE = 1, 2, 3
LINE_RGB = np.array([(0, 0, 0), TRUTH_RGB, PREDICTED_RGB, *COLOURS.values()], np.uint8)  #: colours of lines
DASH = 7  #: length of the dashes of true types, in pixels


def slice_rgb(
    hu: np.ndarray,
    window: Window = WINDOWS["brain"],
    truth: np.ndarray | None = None,
    predicted: np.ndarray | None = None,
    pixel_mm: tuple[float, float] = (1.0, 1.0),
    height: int = 512,
    *,
    typed: bool = False,
) -> np.ndarray:
    """One slice as a picture, with bleeding outlined by lines one pixel wide.

    Args:
        hu: (rows, columns).
        window: which HU are spread over black to white.
        truth, predicted: masks of hu's shape, counted if not zero.
        pixel_mm: distance of rows, of columns.
        height: of the picture, in pixels; its width follows from the millimetres.
        typed: the masks are codes of `labels`, and lines have the colours of types.

    Returns:
        (height, width, 3) uint8.
    """
    width = picture_width(hu.shape, pixel_mm, height)
    picture = np.repeat(grey_slice(hu, width, height, window)[..., None], 3, axis=2)
    lines = outlines(truth, predicted, width, height, typed=typed)
    picture[lines > 0] = LINE_RGB[lines[lines > 0]]
    return picture


def picture_width(shape: tuple[int, ...], pixel_mm: tuple[float, float], height: int) -> int:
    """Width in pixels of a picture of (rows, columns) that is `height` pixels high."""
    return max(1, round(height * shape[1] * pixel_mm[1] / (shape[0] * pixel_mm[0])))


def grey_slice(hu: np.ndarray, width: int, height: int, window: Window = WINDOWS["brain"]) -> np.ndarray:
    """(height, width) uint8: the slice in a window, black to white."""
    grey = Image.fromarray(np.asarray(apply_window(hu, window.level, window.width), np.float32))
    resized = np.clip(np.asarray(grey.resize((width, height), Image.Resampling.BICUBIC)), 0, 1)
    return np.rint(resized * 255).astype(np.uint8)


def outlines(
    truth: np.ndarray | None, predicted: np.ndarray | None, width: int, height: int, *, typed: bool = False
) -> np.ndarray:
    """Lines around masks, at a picture's size.

    The line around truth runs outside it, so that the thinnest lesion stays visible. That around what was found runs
    outside too, or inside it if truth is drawn as well, so that neither line hides the other. True types are dashed in
    green and the type's colour.

    Returns:
        (height, width) uint8: 0 or an index of LINE_RGB.
    """
    lines = np.zeros((height, width), np.uint8)
    if truth is not None:
        areas = _areas(truth, TRUTH, width, height, typed)
        for line, area in areas.items():
            pixels = _line_around(area, areas)
            lines[pixels] = line
            if line != TRUTH:
                lines[pixels & _dashes(lines.shape)] = TRUTH
    if predicted is not None:
        areas = _areas(predicted, PREDICTED, width, height, typed)
        for line, area in areas.items():
            pixels = _line_around(area, areas) if truth is None else area & _grown(~area)
            lines[pixels] = line
    return lines


def _areas(mask: np.ndarray, plain: int, width: int, height: int, typed: bool) -> dict[int, np.ndarray]:
    """The areas to outline at the picture's size, by the index of their line; `plain` is that of unknown type."""
    codes = [code for code in CODES.values() if typed and (mask == code).any()]
    areas = {FIRST_TYPE + code - 1: _resized(mask == code, width, height) for code in codes}
    rest = (mask != 0) & ~np.isin(mask, codes)
    if rest.any():
        areas[plain] = _resized(rest, width, height)
    return areas


def _line_around(area: np.ndarray, areas: dict[int, np.ndarray]) -> np.ndarray:
    """The pixels just outside an area; beside another area those just inside it, since outside belongs to the other."""
    whole = np.any(list(areas.values()), axis=0)
    return (_grown(area) & ~whole) | (area & _grown(whole & ~area))


def _dashes(shape: tuple[int, ...]) -> np.ndarray:
    """Every other dash of a line, whichever way it runs: diagonals too, since rows count twice."""
    rows, columns = np.indices(shape, sparse=True)
    return (columns + 2 * rows) // DASH % 2 == 0


def _resized(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """A mask at the picture's size, bool; if it shrinks, what is thinner than a pixel does not vanish."""
    area = Image.fromarray(mask.astype(np.float32))
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
