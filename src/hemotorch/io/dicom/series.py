"""Images as series: which belong together, in which order, what they are good for, and which is best for bleeding.

Order and distances come from positions along the normal of the slices, never from file names or instance numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from hemotorch.errors import some_of
from hemotorch.io.dicom.header import CT_IMAGE, ENHANCED_CT, ImageHeader
from hemotorch.io.dicom.pixels import LOSSY_SYNTAXES, why_undecodable

SAME_PLACE_MM = 0.02  #: positions along the normal that are no further apart are one
MOST_OFF_AXIAL_DEG = 45.0  #: of the normal from head to foot; gantries tilt by up to 30 degrees
SAME_DIRECTION = 0.01  #: difference of direction cosines, half a degree, within which slices are parallel
TILT_DEG = 0.5  #: below it the table's direction and the normal are taken for the same
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
_REFORMATS = ("MPR", "REFORMATTED", "RESAMPLED", "CSA MPR", "CSAPARALLEL")
_DOSE_WORDS = ("DOSE REPORT", "DOSE INFO", "PATIENT PROTOCOL", "DOSE SUMMARY", "EXAM SUMMARY")
_CONTRAST_WORDS = re.compile(r"\b(CTA|CTV|ANGIO\w*|POST ?CONTRAST|W/? ?CONTRAST|WITH CONTRAST|C\+|ENHANCED|KM)\b")
_HEAD_WORDS = re.compile(r"HEAD|BRAIN|SKULL|CRANI|CEREB|NEURO|SCHAEDEL|SCHÄDEL|KOPF|TETE")
_OTHER_BODY = re.compile(r"CHEST|THORAX|ABDOMEN|PELVIS|SPINE|LUNG|HEART|KNEE|NECK|BODY|THYROID|LIVER|CARDIAC")
_HEAD_HEIGHT_MM = (90.0, 300.0)
_GOOD_THICKNESS_MM = (2.0, 6.0)


@dataclass(frozen=True)
class Series:
    """Images of one geometry, in order from foot to head if their positions are known.

    images: that are read. dropped: others of the same series with the reason, in words.
    aside: why it is no head CT to read, "" if it may be one. doubts: what is said if it is read.
    """

    images: tuple[ImageHeader, ...]
    aside: str = ""
    doubts: tuple[str, ...] = ()

    @property
    def first(self) -> ImageHeader:
        """The header that speaks for all."""
        return self.images[0]

    @property
    def uid(self) -> str:
        """SeriesInstanceUID, "" if the files lack it."""
        return self.first.series

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, each once, in the order of their slices."""
        return tuple(dict.fromkeys(image.path for image in self.images))

    @property
    def title(self) -> str:
        """How messages call it: its number and description. No name of a patient."""
        number = "" if self.first.series_number is None else f" {self.first.series_number}"
        name = f' "{self.first.description}"' if self.first.description else ""
        return f"series{number}{name}"

    @cached_property
    def heights_mm(self) -> np.ndarray:
        """(images,) positions along the normal, toward the head."""
        return _heights(self.images)

    @property
    def distances_mm(self) -> np.ndarray:
        """(images - 1,) from each slice to the next."""
        return np.diff(self.heights_mm)

    @property
    def thickness_mm(self) -> float | None:
        """As the header states it, or None."""
        return self.first.thickness_mm

    @property
    def coverage_mm(self) -> float:
        """From the lower edge of the first slice to the upper edge of the last; NaN if it is not known."""
        if any(image.position is None or image.orientation is None for image in self.images):
            return math.nan
        if len(self.images) == 1:
            return self.thickness_mm or math.nan
        edge = float(np.median(self.distances_mm))
        return float(self.heights_mm[-1] - self.heights_mm[0]) + edge

    @cached_property
    def tilt_deg(self) -> float:
        """Gantry tilt in degrees: the angle between the normal and the line along which slices follow each other.

        The tag GantryDetectorTilt is not looked at: two makers write opposite signs for the same tilt. 0 for a single
        slice, whose tilt positions cannot tell.
        """
        if len(self.images) < 2:
            return 0.0
        first, last = self.images[0].position, self.images[-1].position
        normal = _normal(self.first)
        if first is None or last is None or normal is None:
            return 0.0
        way = np.subtract(last, first)
        length = float(np.linalg.norm(way))
        if length == 0:
            return 0.0
        angle = math.degrees(math.acos(min(1.0, abs(float(way @ normal)) / length)))
        return angle if angle >= TILT_DEG else 0.0

    @property
    def original(self) -> bool:
        """Whether the scanner reconstructed it, by ImageType; a missing one counts as not known to be otherwise."""
        return not self.first.image_type or self.first.image_type[0] == "ORIGINAL"

    @property
    def reformatted(self) -> bool:
        """Whether ImageType or the description says that it was cut anew from another series."""
        text = " ".join((*self.first.image_type, self.first.description.upper()))
        return any(re.search(rf"\b{word}\b", text) for word in _REFORMATS)

    @property
    def contrast(self) -> str:
        """Why contrast agent is likely in it, or ""."""
        agents = {image.contrast for image in self.images if image.contrast}
        if agents:
            return f"the header names a contrast agent ({some_of(sorted(agents), 2)})"
        if match := _CONTRAST_WORDS.search(self.first.description.upper()):
            return f"the description says {match[0]}"
        return ""

    @property
    def kernel(self) -> str:
        """soft, sharp, or "" if the name of the kernel is not known."""
        return kernel_kind(self.first.kernel)

    @property
    def region(self) -> str:
        """head, other or "", by body part and description."""
        text = f"{self.first.body_part} {self.first.description}".upper()
        if _HEAD_WORDS.search(text):
            return "head"
        if _OTHER_BODY.search(text):
            return "other"
        return ""


def kernel_kind(name: str) -> str:
    """Whether a reconstruction kernel is soft or sharp (bone, lung, edges) by the names that makers use; "" if unknown.

    Siemens: H31s, Hr38, Br68f: sharp from 50. Canon and Toshiba: FC30 to FC59 and FC80 on. GE and Philips: by word or
    letter. From the makers' conformance statements and from series that were met.
    """
    kernel = name.upper().split("\\")[0].strip()
    if match := re.match(r"(?:[A-Z]{1,2})(\d{2})", kernel):
        number = int(match[1])
        if kernel.startswith("FC"):
            return "sharp" if 30 <= number < 60 or number >= 80 else "soft"
        return "sharp" if number >= 50 else "soft"
    if re.search(r"BONE|EDGE|LUNG|SHARP|DETAIL", kernel):
        return "sharp"
    if re.search(r"SOFT|STAND|STD|STND|BRAIN|SMOOTH", kernel):
        return "soft"
    if kernel in ("A", "B", "UA", "UB", "EB", "YA", "YB"):
        return "soft"
    if kernel in ("C", "D", "E", "L", "UC", "YC", "YD", "YE"):
        return "sharp"
    return ""


def group_series(headers: Iterable[ImageHeader]) -> list[Series]:
    """Images as series: of one study and series, one size, one direction and one kernel each; judged.

    Several reconstructions with one UID are told apart; so are an oblique image and a localizer among axial slices.
    """
    alike: dict[tuple[object, ...], list[ImageHeader]] = {}
    for header in headers:
        alike.setdefault(_key(header), []).append(header)
    series: list[Series] = []
    for images in alike.values():
        for images_of_direction, doubts in _by_direction(images):
            series.extend(_series_of(images_of_direction, doubts))
    return sorted(series, key=lambda entry: (str(entry.first.path.parent), entry.first.series_number or 0, entry.uid))


def _key(header: ImageHeader) -> tuple[object, ...]:
    pixel = None if header.pixel_mm is None else tuple(round(value, 3) for value in header.pixel_mm)
    is_localizer = any(word in header.image_type for word in _LOCALIZERS)
    # Without UIDs the folder is all that tells studies and series apart.
    folder = str(header.path.parent)
    study = header.study or folder
    series = header.series or f"{folder} {header.series_number} {header.description}"
    several = str(header.path) if header.frames > 1 else ""
    return (
        *(study, series, several, header.modality, header.sop_class, header.rows, header.columns, pixel),
        *(header.kernel, is_localizer, header.samples, header.bits[0], header.contrast),
        why_undecodable(header) or "",
    )


def _by_direction(images: list[ImageHeader]) -> list[tuple[list[ImageHeader], list[str]]]:
    """Images in lists of one direction each, with doubts. Those without one follow the others if these agree."""
    groups: list[list[ImageHeader]] = []
    directions = np.zeros((len(images), 6))  # of the groups so far; at once, since frames may have 20,000 directions
    without = []
    for image in images:
        if image.orientation is None:
            without.append(image)
            continue
        differences = np.abs(directions[: len(groups)] - image.orientation).max(axis=1, initial=0.0)
        same = np.flatnonzero(differences <= SAME_DIRECTION)
        if len(same):
            groups[int(same[0])].append(image)
        else:
            directions[len(groups)] = image.orientation
            groups.append([image])
    if not without:
        return [(group, []) for group in groups]
    if len(groups) != 1 or len(without) > len(groups[0]):
        return [*((group, []) for group in groups), (without, [])]
    direction = groups[0][0].orientation
    names = some_of([image.path.name for image in without], 5)
    doubt = f"{len(without)} images do not state their direction and are taken to have that of the others: {names}"
    return [([*groups[0], *(replace(image, orientation=direction) for image in without)], [doubt])]


def _series_of(images: list[ImageHeader], doubts: list[str]) -> list[Series]:
    """The series of images of one direction: one, or one for each pass over the same positions."""
    if reason := _why_aside(images) or _why_not_axial(images[0]):
        return [Series(tuple(images), aside=reason)]
    with_position = [image for image in images if image.position is not None]
    if len(images) > 1 and len(with_position) < len(images):
        lost = [image.path.name for image in images if image.position is None]
        if len(with_position) < 2:
            return [Series(tuple(images), aside="its images have no position (ImagePositionPatient is missing)")]
        doubts.append(f"{len(lost)} images without a position are left out: {some_of(lost, 5)}")
        images = with_position
    if len(images) > 1:
        heights = dict(zip(map(id, images), _heights(images).tolist(), strict=True))
        images = sorted(images, key=lambda image: (heights[id(image)], _order(image)))
    passes = [images]
    if len(images) > 1:
        images, repeated = _without_copies(images)
        if repeated:
            doubts.append(f"{len(repeated)} files are copies of others and are left out: {some_of(repeated, 5)}")
        passes, doubt = _passes(images)
        doubts.extend(doubt)
    result = []
    for entry in passes:
        series = Series(tuple(entry))
        result.append(replace(series, doubts=(*doubts, *_doubts(series))))
    return result


def _without_copies(images: list[ImageHeader]) -> tuple[list[ImageHeader], list[str]]:
    """Images, each once by its UID and position, and the names of the copies."""
    seen: dict[tuple[object, ...], ImageHeader] = {}
    repeated = []
    for image in images:
        key: tuple[object, ...] = (image.path, image.frame)
        if image.instance:
            key = (image.instance, image.frame, image.position)
        if key in seen:
            repeated.append(image.path.name)
        else:
            seen[key] = image
    return list(seen.values()), repeated


def _passes(images: list[ImageHeader]) -> tuple[list[list[ImageHeader]], list[str]]:
    """Images without two at one position: one list if there are none, else one for each time a position is met."""
    places: list[list[ImageHeader]] = []
    last = -math.inf
    for image, height in zip(images, _heights(images).tolist(), strict=True):
        if height - last <= SAME_PLACE_MM:
            places[-1].append(image)
        else:
            places.append([image])
            last = height
    counts = {len(images_there) for images_there in places}
    if counts == {1}:
        return [images], []
    most = max(counts)
    doubled = sum(len(images_there) > 1 for images_there in places)
    if len(counts) == 1:
        doubt = f"each of its {len(places)} positions was scanned {most} times: taken as {most} series"
        return [[images_there[index] for images_there in places] for index in range(most)], [doubt]
    # Acquisitions that begin where another ends share a slice; the earlier one of both is kept.
    doubt = f"at {doubled} of {len(places)} positions lie several images: the one of the first acquisition is read"
    return [[images_there[0] for images_there in places]], [doubt]


def _why_aside(images: Sequence[ImageHeader]) -> str:
    """Why images cannot be a head CT, whatever their positions; "" if they can."""
    first = images[0]
    if first.modality in _NO_IMAGES:
        return f"{_NO_IMAGES[first.modality]}, no images"
    if first.rows == 0 or first.columns == 0:
        return "no images in it"
    if first.modality not in ("CT", ""):
        return f"is {first.modality}, not CT"
    if first.sop_class.startswith(_SECONDARY_CAPTURE):
        return "a secondary capture: a picture of a screen, not HU"
    if any(word in first.image_type for word in _LOCALIZERS):
        return "a localizer"
    words = " ".join((*first.image_type, first.description.upper()))
    if any(word in words for word in _DOSE_WORDS):
        return "a dose page"
    if named := [word for word in _MAPS if word in first.image_type]:
        return f"a map of computed values ({named[0].lower()}), not HU"
    if named := [word for word in _PROJECTIONS if re.search(rf"\b{word}\b", words)]:
        return f"a projection ({named[0]}) of other slices"
    if first.sop_class and first.sop_class not in (CT_IMAGE, *ENHANCED_CT):
        return f"of SOP class {first.sop_class}, which is no CT image"
    # US is "unspecified": the values themselves are asked when they are read.
    if first.rescale_type.upper() not in ("", "HU", "HU_MOD", "US"):
        return f"in units of {first.rescale_type}, not HU"
    if reason := why_undecodable(first):
        return reason
    if first.pixel_mm is None:
        return "its pixels have no size (PixelSpacing is missing), so there would be no mL"
    if all(image.orientation is None for image in images):
        return "its slices have no direction (ImageOrientationPatient is missing or no right angle)"
    return ""


def _why_not_axial(image: ImageHeader) -> str:
    """Why images of this direction are set aside: they are not axial; "" if they are."""
    normal = _normal(image)
    if normal is None:
        return "its slices have no direction"
    off = math.degrees(math.acos(min(1.0, abs(float(normal[2])))))
    if off > MOST_OFF_AXIAL_DEG:
        plane = "coronal" if abs(normal[1]) > abs(normal[0]) else "sagittal"
        return f"{plane} slices"
    return ""


def _doubts(series: Series) -> list[str]:
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


def _normal(header: ImageHeader) -> np.ndarray | None:
    """(3,) unit vector across a slice, toward the head, LPS."""
    if header.orientation is None:
        return None
    axes = np.asarray(header.orientation)
    normal = np.cross(axes[:3], axes[3:])
    length = float(np.linalg.norm(normal))
    if length == 0:
        return None
    normal = normal / length
    return -normal if normal[2] < 0 else normal


def _heights(images: Sequence[ImageHeader]) -> np.ndarray:
    """(images,) mm along the first one's normal, toward the head; 0 if positions are not known."""
    normal = _normal(images[0])
    if normal is None or any(image.position is None for image in images):
        return np.zeros(len(images))
    return np.array([image.position for image in images], float) @ normal


def _order(image: ImageHeader) -> tuple[int, int, str, int]:
    """Of images at one position: the earlier acquisition first."""
    return (image.acquisition or 0, image.number or 0, str(image.path), image.frame)
