"""What a series is good for: why it is set aside, what is said of it, and which one is best for bleeding."""

from __future__ import annotations

import math
import re

import numpy as np

from hemotorch.io.dicom.header import CT_IMAGE, ENHANCED_CT, ImageHeader
from hemotorch.io.dicom.pixels import LOSSY_SYNTAXES, why_undecodable
from hemotorch.io.dicom.series import Series, normal_of, plain_words

MOST_OFF_AXIAL_DEG = 45.0  #: of the normal from head to foot; gantries tilt by up to 30 degrees
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_NO_IMAGES = {
    "SR": "a report",
    "PR": "a presentation state",
    "KO": "a list of key images",
    "SEG": "a segmentation",
    "RTSTRUCT": "a structure set",
    "RTDOSE": "a dose grid",
    "REG": "a registration",
    "DOC": "a document",
}
_LOCALIZERS = ("LOCALIZER", "SCOUT", "TOPOGRAM", "SCANOGRAM", "SURVIEW")
_MAPS = ("PERFUSION", "RCBF", "RCBV", "MTT", "TTP", "TMAX", "CBF", "CBV", "PERMEABILITY", "VIRTUAL_NON_CONTRAST")
_PROJECTIONS = ("MIP", "MAXIMUM", "MINIP", "MINIMUM", "PROJECTION IMAGE", "VOLUME_RENDER", "VRT", "SSD")
_DOSE_WORDS = ("DOSE REPORT", "DOSE INFO", "PATIENT PROTOCOL", "DOSE SUMMARY", "EXAM SUMMARY")
_HEAD_HEIGHT_MM = (90.0, 300.0)
_GOOD_THICKNESS_MM = (2.0, 6.0)


def why_no_ct(image: ImageHeader) -> str:
    """Why an image cannot be one of a head CT, whatever its position and direction; "" if it can."""
    if image.modality in _NO_IMAGES:
        return f"{_NO_IMAGES[image.modality]}, no images"
    if image.rows == 0 or image.columns == 0:
        return "no images in it"
    if image.modality not in ("CT", ""):
        return f"is {image.modality}, not CT"
    if image.sop_class.startswith(_SECONDARY_CAPTURE):
        return "a secondary capture: a picture of a screen, not HU"
    if any(word in image.image_type for word in _LOCALIZERS):
        return "a localizer"
    words = " ".join((*image.image_type, plain_words(image.description)))
    if any(word in words for word in _DOSE_WORDS):
        return "a dose page"
    if named := [word for word in _MAPS if word in image.image_type]:
        return f"a map of computed values ({named[0].lower()}), not HU"
    if named := [word for word in _PROJECTIONS if re.search(rf"\b{word}\b", words)]:
        return f"a projection ({named[0]}) of other slices"
    if image.sop_class and image.sop_class not in (CT_IMAGE, *ENHANCED_CT):
        return f"of SOP class {image.sop_class}, which is no CT image"
    # US is "unspecified": the values themselves are asked when they are read.
    if image.rescale_type.upper() not in ("", "HU", "HU_MOD", "US"):
        return f"in units of {image.rescale_type}, not HU"
    if reason := why_undecodable(image):
        return reason
    if image.pixel_mm is None:
        return "its pixels have no size (PixelSpacing is missing), so there would be no mL"
    return ""


def why_not_axial(image: ImageHeader) -> str:
    """Why images of this direction are set aside: they are not axial; "" if they are."""
    normal = normal_of(image)
    if normal is None:
        return "its slices have no direction (ImageOrientationPatient is missing or no right angle)"
    off = math.degrees(math.acos(min(1.0, abs(float(normal[2])))))
    if off > MOST_OFF_AXIAL_DEG:
        plane = "coronal" if abs(normal[1]) > abs(normal[0]) else "sagittal"
        return f"{plane} slices"
    return ""


def doubts_of(series: Series) -> list[str]:
    """What is worth saying of a series that is read."""
    doubts = []
    if series.tilt_deg:
        doubts.append(
            f"the gantry was tilted by {series.tilt_deg:.1f} degrees (by the positions of the slices): "
            "slices are kept as they were acquired"
        )
    if len(series.images) > 2 and (text := _distances_text(series.distances_mm)):
        doubts.append(text)
    thickness, distances = series.thickness_mm, series.distances_mm
    if thickness is not None and len(distances):
        usual = float(np.median(distances))
        if thickness > 1.1 * usual:
            doubts.append(f"slices are {thickness:.4g} mm thick and {usual:.4g} mm apart: they overlap")
    if series.contrast:
        doubts.append(f"contrast was given: {series.contrast}; bright vessels may be taken for bleeding")
    if series.kernel == "sharp":
        doubts.append(f"its kernel ({series.first.kernel}) is a sharp one: noisy for bleeding")
    if not series.original:
        doubts.append("is not what the scanner reconstructed first (ImageType DERIVED)")
    if series.first.rescale_type.upper() == "US":
        doubts.append("its header leaves open whether values are HU (RescaleType US): they look like it")
    syntax = LOSSY_SYNTAXES.get(series.first.syntax)
    if series.first.lossy or series.first.syntax == "1.2.840.10008.1.2.4.81":
        doubts.append(f"was compressed with loss ({syntax or 'before'}): faint bleeding may be lost")
    if series.first.missing:
        doubts.append(f"its header lacks {', '.join(series.first.missing)}")
    return doubts


def _distances_text(distances: np.ndarray) -> str:
    """The distances of uneven slices in runs, foot to head: "17 of 4.002, 1 of 1.081 and 9 of 6.999 mm"."""
    usual = float(np.median(distances))
    if np.abs(distances - usual).max() <= 0.02 * usual:
        return ""
    runs: list[tuple[int, float]] = []
    start = 0
    for index in range(1, len(distances) + 1):
        if index == len(distances) or abs(distances[index] - distances[start]) > 0.02 * distances[start]:
            runs.append((index - start, float(np.median(distances[start:index]))))
            start = index
    if len(runs) > 8:
        return (
            f"slice distances vary from {distances.min():.4g} to {distances.max():.4g} mm: slices stay where they are"
        )
    parts = ", ".join(f"{count} of {mm:.4g}" for count, mm in runs)
    return f"slice distances change from foot to head ({parts} mm): slices stay where they are"


def score(series: Series) -> tuple[float, ...]:
    """How good a series is for bleeding, the best highest; compared part by part.

    Axial slices of the head come first, then what covers it, has no contrast, a soft kernel, is original, and slices
    of 2 to 6 mm: thinner ones are noisy, thicker ones hide small bleeding. More slices decide last.
    """
    covers = _HEAD_HEIGHT_MM[0] <= series.coverage_mm <= _HEAD_HEIGHT_MM[1]
    thickness = series.thickness_mm or _usual_distance(series)
    good = _GOOD_THICKNESS_MM[0] <= thickness <= _GOOD_THICKNESS_MM[1]
    return (
        {"head": 2, "": 1, "other": 0}[series.region],
        float(covers),
        float(not series.contrast),
        {"soft": 2, "": 1, "sharp": 0}[series.kernel],
        float(series.original) + float(not series.reformatted),
        float(good),
        float(len(series.images)),
    )


def _usual_distance(series: Series) -> float:
    if len(series.images) < 2:
        return 0.0
    return float(np.median(series.distances_mm))


#: What each part of `score` says if it decides.
SCORE_WORDS = (
    "shows the head by its header",
    "covers a whole head",
    "has no contrast agent",
    "has the softer kernel",
    "is what the scanner reconstructed",
    "has slices of 2 to 6 mm",
    "has more slices",
)
