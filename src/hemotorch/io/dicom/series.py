"""One series: images in order, and what their headers and positions say of it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hemotorch.errors import some_of
from hemotorch.io.dicom.header import ImageHeader

TILT_DEG = 0.5  #: below it the table's direction and the normal are taken for the same
_REFORMATS = ("MPR", "REFORMATTED", "RESAMPLED", "CSA MPR", "CSAPARALLEL")
_CONTRAST_WORDS = re.compile(r"\b(CTA|CTV|ANGIO\w*|POST[ -]?CONTRAST|W/? ?CONTRAST|WITH CONTRAST|ENHANCED|KM)\b|\bC\+")
#: A series "OHNE KM" was taken for one with contrast, so that the one "MIT KM" beside it was no worse.
_NO_CONTRAST_WORDS = re.compile(
    r"\b(NON?|NOT|WITHOUT|W/?O|OHNE|SANS|SENZA|SIN)[ -]*(I\.?V\.?[ -]*)?(CONTRAST[ -]*)?(CONTRAST|ENHANCED|KM)\b"
)
_HEAD_WORDS = re.compile(r"HEAD|BRAIN|SKULL|CRANI|CEREB|NEURO|SCHAEDEL|SCHÄDEL|KOPF|TETE")
_OTHER_BODY = re.compile(r"CHEST|THORAX|ABDOMEN|PELVIS|SPINE|LUNG|HEART|KNEE|NECK|BODY|THYROID|LIVER|CARDIAC")


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
        return heights_mm(self.images)

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
        normal = normal_of(self.first)
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
        text = " ".join((*self.first.image_type, plain_words(self.first.description)))
        return any(re.search(rf"\b{word}\b", text) for word in _REFORMATS)

    @property
    def contrast(self) -> str:
        """Why contrast agent is likely in it, or ""."""
        agents = {image.contrast for image in self.images if image.contrast}
        if agents:
            return f"the header names a contrast agent ({some_of(sorted(agents), 2)})"
        if match := _CONTRAST_WORDS.search(_NO_CONTRAST_WORDS.sub(" ", plain_words(self.first.description))):
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


def plain_words(description: str) -> str:
    """A description in capitals, blanks between its words: CTA_Head_0.75 has three."""
    return description.upper().replace("_", " ")


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


def normal_of(header: ImageHeader) -> np.ndarray | None:
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


def heights_mm(images: Sequence[ImageHeader]) -> np.ndarray:
    """(images,) mm along the first one's normal, toward the head; 0 if positions are not known."""
    normal = normal_of(images[0])
    if normal is None or any(image.position is None for image in images):
        return np.zeros(len(images))
    return np.array([image.position for image in images], float) @ normal
