"""The pictures of a study's page: its slices as JPEG, outlines as paths, and the slices to look at first.

Slices keep the pixels of the scan, cropped to the head. The 28 of a real head take 0.01 s and 0.92 MB as JPEG; as WebP
0.31 s and 0.63 MB, as PNG 0.16 s and 1.33 MB.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from hemotorch.hu import WINDOWS
from hemotorch.inference.outputs import THUMBNAIL_MARK
from hemotorch.labels import CODES, COLOURS, UNTYPED
from hemotorch.pictures.framing import Box, box_mm, head_box, pick_slices
from hemotorch.pictures.paths import outline_path
from hemotorch.pictures.slices import PREDICTED_RGB, grey_slice, slice_rgb
from hemotorch.scan import Prediction, Scan

WINDOW = WINDOWS["brain"]
MOST_SLICES = 100  #: on a page; of a scan with more, all with bleeding and an even choice of the others
#: Of all pictures of a page together: at 8 HU of noise a megapixel takes 0.4 megabytes as JPEG in base64.
MOST_PIXELS = 9e6
JPEG_QUALITY = 90  #: at 80, a 1.6 times smaller page, the noise of the brain has blocks
KEY_SLICES, LEAST_KEY_SLICES = 6, 3  #: shown first
CLEAN_SHARES = (
    0.4,
    0.57,
    0.74,
)  #: of the height, slices shown first if there is no bleeding: brain, whatever lies below
THUMBNAIL_PX = 120  #: height
BLEEDING = "bleeding"  #: what is outlined if types are not told apart


@dataclass(frozen=True)
class Outline:
    """What one slice holds of a type. kind: its name, or "bleeding". path: of SVG, in pixels. ml: NaN if unknown."""

    kind: str
    path: str
    ml: float
    pixels: int


@dataclass(frozen=True)
class SlicePicture:
    """A slice.

    number: the source's own. position_mm: along the normal, as the patient's coordinates have it; None if unknown.
    jpeg: a data URL. outlines: of the types in it.
    """

    number: int
    position_mm: float | None
    jpeg: str
    outlines: tuple[Outline, ...]

    @property
    def pixels(self) -> int:
        """Outlined ones."""
        return sum(outline.pixels for outline in self.outlines)


@dataclass(frozen=True)
class StudyPictures:
    """All pictures of a page.

    slices: from foot to head. total: how many the scan has. key: indices of `slices` to look at first, rising.
    rows, columns: of a picture, in pixels of the scan. height, width: of a picture in mm, or in pixels if these are
    not known. scaled: whether they are mm.
    """

    slices: tuple[SlicePicture, ...]
    total: int
    key: tuple[int, ...]
    rows: int
    columns: int
    height: float
    width: float
    scaled: bool


def colour_of(kind: str) -> tuple[int, int, int]:
    """RGB of a type, or of bleeding without type."""
    return COLOURS.get(kind, PREDICTED_RGB)


def study_pictures(prediction: Prediction) -> StudyPictures:
    """The pictures of a prediction's page."""
    scan, mask = prediction.scan, prediction.mask
    box = head_box(scan, [mask])
    indices = pick_slices(scan, [mask], MOST_SLICES)
    height_mm, width_mm = box_mm(scan, box)
    rows, columns = (side.stop - side.start for side in box)
    shrink = min(1.0, math.sqrt(MOST_PIXELS / (len(indices) * rows * columns)))
    size = max(1, round(shrink * columns)), max(1, round(shrink * rows))
    codes = {**CODES, BLEEDING: UNTYPED} if prediction.task.types else {BLEEDING: 1}
    slices = tuple(_slice_picture(prediction, index, box, size, codes) for index in indices)
    return StudyPictures(
        slices, len(scan.hu), key_slices(slices), rows, columns, height_mm, width_mm, scan.spacing_known
    )


def key_slices(slices: tuple[SlicePicture, ...]) -> tuple[int, ...]:
    """Indices of the slices to look at first, rising.

    Those with the largest area of each type, then those with the most bleeding; without bleeding, see CLEAN_SHARES.
    """
    bleeding = sorted(range(len(slices)), key=lambda index: -slices[index].pixels)
    bleeding = [index for index in bleeding if slices[index].pixels]
    if not bleeding:
        return tuple(sorted({round(share * (len(slices) - 1)) for share in CLEAN_SHARES}))
    largest: dict[str, tuple[int, int]] = {}  # pixels and index
    for index in bleeding:
        for outline in slices[index].outlines:
            largest[outline.kind] = max(largest.get(outline.kind, (0, 0)), (outline.pixels, index))
    chosen = [index for _, index in sorted(largest.values(), reverse=True)]
    chosen = list(dict.fromkeys([*chosen, *bleeding]))
    count = max(LEAST_KEY_SLICES, min(KEY_SLICES, len(bleeding)))
    return tuple(sorted(chosen[:count]))


def thumbnail(prediction: Prediction) -> bytes:
    """The slice with the most bleeding, or the middle one, as a small JPEG for a list of studies."""
    return small_picture(prediction.scan, prediction.mask, bool(prediction.task.types))


def small_picture(scan: Scan, mask: np.ndarray, typed: bool) -> bytes:
    """As `thumbnail`, of any mask: (slices, rows, columns), codes of `labels` if typed, else not zero is bleeding."""
    areas = np.count_nonzero(mask.reshape(len(mask), -1), axis=1)
    index = int(areas.argmax()) if areas.any() else len(mask) // 2
    box = head_box(scan, [mask])
    picture = slice_rgb(
        scan.hu[index][box],
        WINDOW,
        None,
        mask[index][box],
        scan.pixel_mm,
        THUMBNAIL_PX,
        typed=typed,
    )
    return _jpeg(picture, THUMBNAIL_MARK)


def _slice_picture(
    prediction: Prediction, index: int, box: Box, size: tuple[int, int], codes: dict[str, int]
) -> SlicePicture:
    scan = prediction.scan
    width, height = size
    grey = grey_slice(scan.hu[index][box], width, height, WINDOW)
    url = "data:image/jpeg;base64," + base64.b64encode(_jpeg(grey)).decode()
    outlines = []
    marked = prediction.mask[index][box]
    if marked.any():
        for kind, code in codes.items():
            area = marked == code
            pixels = int(np.count_nonzero(area))
            if pixels:
                outlines.append(Outline(kind, outline_path(area), pixels * float(scan.voxel_ml[index]), pixels))
    return SlicePicture(scan.slice_numbers[index], _position_mm(scan, index), url, tuple(outlines))


def _position_mm(scan: Scan, index: int) -> float | None:
    return float(scan.slice_origins_mm[index] @ scan.normal) if scan.spacing_known else None


def _jpeg(picture: np.ndarray, comment: bytes = b"") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=JPEG_QUALITY, comment=comment)
    return stream.getvalue()
