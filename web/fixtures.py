"""What numpy and scipy say about small cases; the viewer's own arithmetic must say the same.

    python web/fixtures.py        # writes web/src/lib/viewer/fixtures/*.json

The vitest tests beside the viewer read these files. tests/test_web_fixtures.py fails if numpy says otherwise today.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from hemotorch.hu import WINDOWS, to_grey
from hemotorch.labels import CODES, COLOURS, UNTYPED
from hemotorch.pictures.slices import PREDICTED_RGB, TRUTH_RGB

FOLDER = Path(__file__).parent / "src" / "lib" / "viewer" / "fixtures"

#: Windows of the viewer's keys that hemotorch/hu.py names; soft tissue is not one of a head's.
KEYS = ("brain-narrow", "subdural", "stroke", "bone", "brain")


def volume_hu() -> np.ndarray:
    """(5, 9, 7) int16: whole numbers by a formula, so that no generator of random numbers decides them."""
    slices, rows, columns = np.indices((5, 9, 7))
    return ((slices * 211 + rows * 37 + columns * 91 + rows * columns * slices * 13) % 400 - 120).astype(np.int16)


def blobs(rows: int, columns: int) -> np.ndarray:
    """(rows, columns) uint8 codes: a disc of 1, a bar of 3 with a hole, a lone pixel of 6 at the edge."""
    y, x = np.indices((rows, columns))
    mask = np.zeros((rows, columns), np.uint8)
    mask[(y - 6) ** 2 + (x - 5) ** 2 <= 14] = 1
    mask[9:15, 10:19] = 3
    mask[11:13, 13:16] = 0
    mask[0, columns - 1] = 6
    return mask


def windowing() -> dict[str, Any]:
    """Greys of every 13th HU, and of all of them around each window's bounds."""
    cases = []
    for name in KEYS:
        window = WINDOWS[name]
        low, high = window.bounds
        around = [np.arange(int(bound) - 9, int(bound) + 10) for bound in (low, window.level, high)]
        hu = np.unique(np.concatenate([np.arange(-32768, 32768, 397), *around])).astype(np.int16)
        grey = to_grey(hu, window.level, window.width)
        cases.append({"name": name, "level": window.level, "width": window.width, "hu": hu, "grey": grey})
    return {"cases": cases}


def colours() -> dict[str, Any]:
    """RGB by code, and of truth."""
    by_code = [(0, 0, 0), *COLOURS.values(), PREDICTED_RGB]
    return {"names": ["", *CODES, "untyped"], "rgb": by_code, "truth": TRUTH_RGB, "untyped": UNTYPED}


def reslice() -> dict[str, Any]:
    """Coronal and sagittal images of even, uneven and gapped slices."""
    hu = volume_hu()
    mask = (hu.astype(int) % 7).astype(np.uint8)
    cases = []
    layouts: dict[str, tuple[list[float], list[float]]] = {
        "even": ([0, 2, 4, 6, 8], [2, 2, 2, 2, 2]),
        "uneven": ([-3, -1, 2, 6, 8], [2, 2.5, 3.5, 3, 2]),
        "gap": ([0, 2, 4, 14, 16], [2, 2, 2, 2, 2]),
    }
    for name, (positions, thickness) in layouts.items():
        below, share = image_rows(np.array(positions), np.array(thickness), 0.5)
        for plane, index in (("coronal", 4), ("sagittal", 3)):
            lines, codes = (hu[:, index], mask[:, index]) if plane == "coronal" else (hu[..., index], mask[..., index])
            upper = np.minimum(below + 1, len(hu) - 1)
            mixed = lines[below] + share[:, None] * (lines[upper].astype(float) - lines[below])
            image = np.floor(mixed + 0.5).astype(np.int16)
            image[below < 0] = -1024
            nearest = codes[np.where(share > 0.5, upper, below)]
            nearest[below < 0] = 0
            cases.append(
                {
                    "name": f"{name} {plane}",
                    "plane": plane,
                    "index": index,
                    "positions_mm": positions,
                    "thickness_mm": thickness,
                    "height": len(below),
                    "hu": image.ravel(),
                    "mask": nearest.ravel(),
                }
            )
    return {"shape": hu.shape, "pixel_mm": [0.5, 0.75], "hu": hu.ravel(), "mask": mask.ravel(), "cases": cases}


def image_rows(positions: np.ndarray, thickness: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """(height,) the slice at or below each image row, -1 in gaps, and how far toward the next slice the row lies."""
    bottom, top = positions[0] - thickness[0] / 2, positions[-1] + thickness[-1] / 2
    mm = top - (np.arange(round((top - bottom) / step)) + 0.5) * step
    below = np.clip(np.searchsorted(positions, mm, side="right") - 1, 0, len(positions) - 1)
    above = np.minimum(below + 1, len(positions) - 1)
    distance = positions[above] - positions[below]
    is_gap = distance > 1.5 * (thickness[below] + thickness[above]) / 2
    share = np.where(distance > 0, (mm - positions[below]) / np.where(distance > 0, distance, 1), 0).clip(0, 1)
    is_lower = mm - positions[below] <= thickness[below] / 2
    is_upper = positions[above] - mm <= thickness[above] / 2
    slices = np.where(~is_gap | is_lower, below, np.where(is_upper, above, -1))
    return slices, np.where(is_gap, 0, share)


def outlines() -> dict[str, Any]:
    """How many edges of pixels lie between a code and all else, by code; 0 stands for any code."""
    mask = blobs(18, 22)
    perimeters = {}
    for code in (0, 1, 3, 6):
        area = np.pad(mask != 0 if code == 0 else mask == code, 1).astype(int)
        perimeters[code] = int(np.abs(np.diff(area, axis=0)).sum() + np.abs(np.diff(area, axis=1)).sum())
    return {"width": 22, "height": 18, "mask": mask.ravel(), "perimeters": perimeters}


def brush() -> dict[str, Any]:
    """Strokes: pixels no farther than the radius from a line; with limits of HU; over one code only."""
    rows, columns = 18, 22
    hu = np.resize(volume_hu().ravel(), (rows, columns)).astype(np.int16)
    start = blobs(rows, columns)
    cases = []
    for a, b, radius, code, limits, only in (
        ((5.25, 6.5), (5.25, 6.5), 2.0, 5, None, 0),
        ((2.0, 3.5), (17.75, 12.25), 1.5, 2, None, 0),
        ((-3.0, 8.0), (25.0, 8.0), 1.25, 4, (20, 110), 0),
        ((4.0, 4.0), (12.0, 13.0), 3.0, 0, (20, 110), 0),
        ((4.0, 4.0), (16.0, 13.0), 3.0, 5, None, 3),
    ):
        near = distance_to_line(rows, columns, a, b, 0.5, 0.75) <= radius
        writes = near & ((start == only) if only else True)
        if limits and code:
            writes &= (hu >= limits[0]) & (hu <= limits[1])
        result = np.where(writes, code, start).astype(np.uint8)
        case = {"from": a, "to": b, "radius": radius, "code": code, "limits": limits, "only": only}
        cases.append({**case, "mask": result.ravel(), "changed": int((result != start).sum())})
    sizes = {"width": columns, "height": rows, "x_mm": 0.5, "y_mm": 0.75}
    return {**sizes, "hu": hu.ravel(), "start": start.ravel(), "cases": cases}


def distance_to_line(rows: int, columns: int, a: Any, b: Any, x_mm: float, y_mm: float) -> np.ndarray:
    """(rows, columns) mm from the middle of each pixel to the line from a to b, which are x, y in pixels."""
    scale = np.array([x_mm, y_mm])
    start, end = np.array(a) * scale, np.array(b) * scale
    y, x = np.indices((rows, columns))
    points = np.stack([x + 0.5, y + 0.5], axis=-1) * scale
    along = end - start
    length2 = along @ along
    share = ((points - start) @ along / length2).clip(0, 1) if length2 else np.zeros((rows, columns))
    return np.linalg.norm(points - start - share[..., None] * along, axis=-1)


def lasso() -> dict[str, Any]:
    """Polygons by the even-odd rule, of which one crosses itself and one leaves the image."""
    rows, columns = 18, 22
    y, x = np.indices((rows, columns)) + 0.5
    cases = []
    for points in (
        [(3.1, 2.2), (15.4, 4.3), (9.6, 15.8)],
        [(2.3, 2.3), (18.2, 15.1), (18.7, 2.4), (2.9, 15.6)],
        [(-5.0, 8.3), (11.2, -6.1), (30.4, 9.7), (10.1, 25.2)],
        [(4.0, 4.0), (8.0, 4.0), (8.0, 9.0), (4.0, 9.0)],
    ):
        inside = np.zeros((rows, columns), bool)
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
            crosses = (y0 <= y) != (y1 <= y)
            at = x0 + (y - y0) / (y1 - y0 if y1 != y0 else 1) * (x1 - x0)
            inside ^= crosses & (at <= x)
        cases.append({"points": np.array(points).ravel(), "mask": inside.astype(np.uint8).ravel()})
    return {"width": columns, "height": rows, "cases": cases}


def fill() -> dict[str, Any]:
    """Holes as `scipy.ndimage.label` sees them: the hole in the bar is enclosed, the rest is open."""
    mask = blobs(18, 22)
    labels, _ = ndimage.label(mask == 0)
    hole = labels == labels[11, 14]
    filled = np.where(hole, 5, mask).astype(np.uint8)
    disc, _ = ndimage.label(mask == 1)
    recoded = np.where(disc == disc[6, 5], 2, mask).astype(np.uint8)
    sizes = {"width": 22, "height": 18, "start": mask.ravel()}
    return {
        **sizes,
        "hole": filled.ravel(),
        "recoded": recoded.ravel(),
        "pixels": [int(hole.sum()), int((disc > 0).sum())],
    }


def grow() -> dict[str, Any]:
    """Components of what lies within limits and a ball, and lesions joined by corners, as ndimage labels them."""
    hu = volume_hu()
    cases = []
    for seed, low, high, radius in (
        ((2, 4, 3), -60, 200, 100.0),
        ((1, 2, 2), -100, 180, 4.0),
        ((0, 0, 0), 50, 60, 9.0),
    ):
        step = np.array([2.0, 0.5, 0.75])
        offsets = (np.indices(hu.shape) - np.reshape(seed, (3, 1, 1, 1))) * step.reshape(3, 1, 1, 1)
        allowed = (hu >= low) & (hu <= high) & ((offsets**2).sum(axis=0) <= radius**2)
        labels, _ = ndimage.label(allowed)
        grown = (labels == labels[seed]) & allowed[seed]
        case = {"seed": seed, "low": low, "high": high, "radius_mm": radius}
        cases.append({**case, "mask": grown.astype(np.uint8).ravel()})
    mask = np.where(hu % 5 == 0, 1 + hu % 2, 0).astype(np.uint8)
    start = tuple(int(index) for index in np.argwhere(mask)[10])
    any_code, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    same_code, _ = ndimage.label(mask == mask[start], np.ones((3, 3, 3)))
    lesion = {
        "mask": mask.ravel(),
        "start": int(np.ravel_multi_index(start, hu.shape)),
        "any": np.flatnonzero(any_code == any_code[start]),
        "same": np.flatnonzero(same_code == same_code[start]),
    }
    return {"shape": hu.shape, "step_mm": [2.0, 0.5, 0.75], "hu": hu.ravel(), "cases": cases, "lesion": lesion}


def interpolate() -> dict[str, Any]:
    """Signed distances by `distance_transform_edt`, and the area between two slices at a quarter and at half."""
    rows, columns, y_mm, x_mm = 18, 22, 0.75, 0.5
    y, x = np.indices((rows, columns))
    a = ((y - 6) ** 2 + (x - 6) ** 2 <= 16).astype(np.uint8)
    b = (((y - 10) ** 2 + (x - 13) ** 2 <= 30) & (x != 13)).astype(np.uint8)
    signed = [
        ndimage.distance_transform_edt(area, (y_mm, x_mm)) - ndimage.distance_transform_edt(area == 0, (y_mm, x_mm))
        for area in (a, b)
    ]
    cases = []
    for share in (0.25, 0.5):
        mixed = (1 - share) * signed[0] + share * signed[1] > 0
        cases.append({"share": share, "mask": mixed.astype(np.uint8).ravel()})
    sizes = {"width": columns, "height": rows, "x_mm": x_mm, "y_mm": y_mm}
    return {**sizes, "a": a.ravel(), "b": b.ravel(), "signed": signed[0].ravel().round(9), "cases": cases}


def measure() -> dict[str, Any]:
    """Angles by the arc cosine, and HU of the pixels in a circle."""
    rows, columns, y_mm, x_mm = 18, 22, 0.75, 0.5
    hu = np.resize(volume_hu().ravel(), (rows, columns)).astype(np.int16)
    y, x = np.indices((rows, columns)) + 0.5
    circles = []
    for middle, edge in (((5.5, 6.0), (7.25, 6.0)), ((0.5, 0.5), (2.5, 3.0)), ((5.1, 6.1), (5.12, 6.1))):
        radius = np.hypot(edge[0] - middle[0], edge[1] - middle[1])
        inside = hu[np.hypot(x * x_mm - middle[0], y * y_mm - middle[1]) <= radius].astype(float)
        row: dict[str, Any] = {"middle": middle, "edge": edge, "pixels": len(inside), "mean": None, "sd": None}
        if len(inside):
            row |= {"mean": round(float(inside.mean()), 9), "sd": round(float(inside.std()), 9)}
        circles.append(row)
    angles = []
    for a, middle, b in (((1, 0), (0, 0), (0, 2)), ((3, 1), (1, 1), (-4, 6)), ((2, 5), (2, 1), (2, 9))):
        u, v = np.subtract(a, middle), np.subtract(b, middle)
        cosine = u @ v / (np.linalg.norm(u) * np.linalg.norm(v))
        angles.append({"points": [a, middle, b], "degrees": round(float(np.degrees(np.arccos(cosine))), 6)})
    sizes = {"width": columns, "height": rows, "x_mm": x_mm, "y_mm": y_mm}
    return {**sizes, "hu": hu.ravel(), "circles": circles, "angles": angles}


ALL = (windowing, colours, reslice, outlines, brush, lasso, fill, grow, interpolate, measure)


def texts() -> dict[str, str]:
    """The files by name, as they should be."""
    return {f"{case.__name__}.json": json.dumps(case(), default=_plain) + "\n" for case in ALL}


def _plain(value: Any) -> Any:
    """Numpy values as JSON has them."""
    return value.tolist()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
