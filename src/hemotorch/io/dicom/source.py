"""The images that a scan was read from, for what is written of it: SEG, structured report, secondary capture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hemotorch.errors import InputError
from hemotorch.io.dicom.header import CT_IMAGE, ENHANCED_CT, ImageHeader, read_dataset, read_headers
from hemotorch.io.dicom.slice_file import uid_of
from hemotorch.scan import Scan

PRODUCT = "hemotorch"
_MOST_SERIES_NUMBER = 2**31 - 1
#: What is taken over from the source: whose it is, and of which study. Nothing is added to it.
_IDENTITY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge"),
    *("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName", "StudyDescription"),
)
_OPTIONAL = ("PatientAge", "StudyDescription")  # of these; left out if the source lacks them, the others are empty


@dataclass(frozen=True)
class Algorithm:
    """What made a mask.

    version: of hemotorch. model: in words. digest: SHA-256 of the model's file, "" if it is not known. corrected: a
    person drew or corrected the mask.
    """

    version: str
    model: str
    digest: str = ""
    corrected: bool = False

    @property
    def serial_number(self) -> str:
        """What tells models apart in a field of a few letters."""
        return self.digest[:16] or "unknown"


@dataclass(frozen=True)
class SourceSeries:
    """The images of a scan, one header for each slice, in its order."""

    headers: tuple[ImageHeader, ...]

    @staticmethod
    def of(scan: Scan) -> SourceSeries:
        """The series that a scan was read from. Raises InputError if a file cannot be read any more."""
        if scan.source is None:
            raise InputError("was not read from files", scan.name)
        of_file = [read_headers(Path(file)) for file in scan.source.files]
        headers = []
        for frame in scan.source.frames:
            in_file = of_file[frame.file]
            if frame.number >= len(in_file):
                raise InputError("has fewer frames than before", in_file[0].path)
            headers.append(in_file[frame.number])
        return SourceSeries(tuple(headers))

    @property
    def why_not(self) -> str:
        """Why nothing can be written that points at these images, in words; "" if it can."""
        wanted: dict[str, list[Any]] = {
            "SOPInstanceUID": [header.instance for header in self.headers],
            "SOPClassUID": [header.sop_class for header in self.headers],
            "StudyInstanceUID": [header.study for header in self.headers],
            "SeriesInstanceUID": [header.series for header in self.headers],
            "FrameOfReferenceUID": [header.frame_of_reference for header in self.headers],
            "ImagePositionPatient": [header.position for header in self.headers],
        }
        lacking = [name for name, values in wanted.items() if not all(values)]
        if lacking:
            return f"the series lacks {', '.join(lacking)}, so nothing can point at its images"
        if len({(header.instance, header.frame) for header in self.headers}) < len(self.headers):
            return "several slices have one SOPInstanceUID, so nothing can point at them"
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            if len(set(wanted[name])) > 1:
                return f"its slices differ in {name}, and what is written belongs to one series"
        return ""

    @property
    def typical(self) -> ImageHeader:
        """The first image that states its direction. The reader takes those that do not to lie like the others."""
        return next((header for header in self.headers if header.orientation is not None), self.headers[0])

    @property
    def enhanced(self) -> bool:
        """Whether images are frames of files with many."""
        return any(map(_is_frame, self.headers))

    def series_number(self, offset: int) -> int:
        """The number of a series that is written. offset: above 1000, so that it is listed after the source."""
        return min(self.headers[0].series_number or 0, _MOST_SERIES_NUMBER - 2000) + 1000 + offset

    def uid(self, what: str, *parts: object) -> str:
        """A UID that is the same for the same images and parts."""
        return uid_of(what, *parts, [(header.instance, header.frame) for header in self.headers])

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Whose it is and of which study, by attribute, in UTF-8; "" if the source lacks it or breaks the standard."""
        whole = read_dataset(self.headers[0].path, pixels=True)
        identity = {name: _allowed(name, whole.get(name)) for name in _IDENTITY}
        identity = {name: value for name, value in identity.items() if value or name not in _OPTIONAL}
        # Not the source's: it may lack letters that doubts and models have, and highdicom refuses some of them.
        return {"SpecificCharacterSet": "ISO_IR 192", **identity}

    @cached_property
    def datasets(self) -> list[Any]:
        """The images as highdicom needs them, one dataset for each slice.

        highdicom raises if an attribute of type 2 is absent or holds what the standard does not allow. Such a one is
        empty here. Frames of an enhanced file are given as single images: highdicom would place them by themselves.
        """
        from pydicom.dataset import Dataset

        typical = self.typical
        sources = []
        for header in self.headers:
            d = Dataset()
            for name, value in self.identity.items():
                setattr(d, name, value)
            d.Modality = header.modality or "CT"
            d.SOPClassUID = CT_IMAGE if _is_frame(header) else header.sop_class
            d.SOPInstanceUID = header.instance
            d.StudyInstanceUID, d.SeriesInstanceUID = header.study, header.series
            d.FrameOfReferenceUID = header.frame_of_reference
            d.PositionReferenceIndicator = ""
            d.Rows, d.Columns = header.rows, header.columns
            d.PixelSpacing = list(typical.pixel_mm or (1.0, 1.0))
            d.SliceThickness = typical.thickness_mm or 0.0  # highdicom raises without, and it is taken out again
            # Slices of a series are parallel within half a degree; like the reader, take the first one's direction.
            d.ImageOrientationPatient = list(typical.orientation or ())
            d.ImagePositionPatient = list(header.position or ())
            if header.lossy:
                d.LossyImageCompression = "01"
            sources.append(d)
        return sources

    def files(self) -> list[Any]:
        """Datasets that name each file of the source once, with its own class."""
        unique: dict[str, Any] = {}
        for header, dataset in zip(self.headers, self.datasets, strict=True):
            if header.instance not in unique:
                dataset = dataset.copy()
                dataset.SOPClassUID = header.sop_class
                unique[header.instance] = dataset
        return list(unique.values())


def each_once(references: Sequence[Any], sop_class: str) -> list[Any]:
    """References to instances of a class, without repeats."""
    unique = {str(item.ReferencedSOPInstanceUID): item for item in references}
    for item in unique.values():
        item.ReferencedSOPClassUID = sop_class
    return list(unique.values())


def _is_frame(header: ImageHeader) -> bool:
    """Whether an image is a frame of an enhanced file."""
    return header.frames > 1 or header.sop_class in ENHANCED_CT


def _allowed(name: str, value: Any) -> Any:
    """A value of the source if the standard allows it, else an empty one."""
    from pydicom.valuerep import DA, TM, PersonName

    text = "" if value is None else str(value).strip()
    if not text:
        return ""
    if name == "PatientSex":
        return text.upper() if text.upper() in ("M", "F", "O") else ""
    try:
        if name in ("PatientBirthDate", "StudyDate"):
            DA(text)
        elif name == "StudyTime":
            TM(text)
    except (ValueError, TypeError):
        return ""
    if isinstance(value, (str, PersonName)):
        return text.encode("utf-8", "replace").decode()  # bytes that no character set explains become "?"
    return value
