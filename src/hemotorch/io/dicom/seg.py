"""A mask as a DICOM segmentation (SEG) of the series that its scan was read from.

The mask stays in the pixels of the source, slice by slice, at the positions that the source states. So it lies right on
tilted and uneven series too. highdicom builds the object; it is imported here and nowhere else, since that takes a
second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hemotorch.errors import HemotorchError, InputError, RunError
from hemotorch.io.dicom.header import CT_IMAGE, ENHANCED_CT, ImageHeader, lenient, read_dataset, read_headers
from hemotorch.io.dicom.reader import as_stored, turn_of
from hemotorch.io.dicom.slice_file import uid_of
from hemotorch.labels import CODES, COLOURS
from hemotorch.scan import Scan
from hemotorch.system.files import atomic

PRODUCT = "hemotorch"
_SERIES_TEXT = "Bleeding outlined by hemotorch, research use only"  # at most 64 characters
_SERIES_NUMBER = 1000  # added to the source's, so that the SEG is listed after it
_MOST_SERIES_NUMBER = 2**31 - 1
_UNTYPED_RGB = (255, 80, 225)  # the colour of untyped bleeding in pictures
#: What is taken over from the source: whose it is, and of which study. Nothing is added to it.
_IDENTITY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge"),
    *("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName", "StudyDescription"),
)


class Concept(NamedTuple):
    """A code of SNOMED CT and its meaning."""

    value: str
    meaning: str


@dataclass(frozen=True)
class SegmentCode:
    """What a segment shows, in codes of SNOMED CT.

    finding: its type. region: where, if the finding does not say it.
    """

    finding: Concept
    region: Concept | None = None


CATEGORY = Concept("49755003", "Morphologically Abnormal Structure")  # CID 7150 of PS3.16
_INTRACRANIAL = Concept("1386000", "Intracranial hemorrhage")
#: 1386000, 49755003 and 35764002 stand in PS3.16 (pydicom.sr.codedict holds its tables). The others are from
#: public value sets and code, not looked up in SNOMED CT itself. For blood in the ventricles none could be confirmed:
#: two that are found in public code have a wrong check digit. So it is the general finding and its place.
SEGMENT_CODES = {
    "epidural": SegmentCode(Concept("82999001", "Epidural intracranial hemorrhage")),
    "intraparenchymal": SegmentCode(Concept("274100004", "Cerebral hemorrhage")),
    "intraventricular": SegmentCode(_INTRACRANIAL, Concept("35764002", "Brain ventricle")),
    "subarachnoid": SegmentCode(Concept("21454007", "Subarachnoid intracranial hemorrhage")),
    "subdural": SegmentCode(Concept("35486000", "Subdural intracranial hemorrhage")),
}
UNTYPED_CODE = SegmentCode(_INTRACRANIAL)


@dataclass(frozen=True)
class Algorithm:
    """What made a mask.

    version: of hemotorch. model: in words. digest: SHA-256 of the model's file, "" if it is not known.
    """

    version: str
    model: str
    digest: str = ""


@dataclass(frozen=True)
class _Segment:
    """One segment: its label, the mask's code for it (None: whatever is not 0), codes and colour."""

    label: str
    code: int | None
    concept: SegmentCode
    rgb: tuple[int, int, int]


def why_no_seg(scan: Scan, mask: np.ndarray) -> str:
    """Why no SEG can be written of a mask on a scan that was read from DICOM; "" if it can.

    A SEG points at the images that it was made from. If these have no UIDs or no position, there is nothing to point
    at. An empty mask has no SEG: a segment without a frame is refused by many readers.

    Raises:
        InputError: if a file of the source cannot be read any more.
    """
    if not mask.any():
        return "no bleeding was found, and a DICOM SEG cannot be empty"
    return _why_not(_headers_of(scan))


def write_seg(scan: Scan, mask: np.ndarray, types: Sequence[str], path: Path, algorithm: Algorithm) -> None:
    """Writes a mask as a DICOM SEG, atomically.

    UIDs derive from the source's, the model and the mask: the same prediction has the same UIDs, another has others.

    Args:
        scan: that was read from DICOM, and whose files are still there.
        mask: (slices, rows, columns) uint8 of the scan's shape, codes of `labels` if there are types; not empty.
        types: that the mask tells apart; none if it only says where bleeding is.
        path: of the file.
        algorithm: what made the mask.

    Raises:
        InputError: if `why_no_seg` has a reason, or the mask does not fit the scan.
        RunError: if the file cannot be written.
    """
    if mask.shape != scan.shape:
        raise InputError(f"a mask of shape {mask.shape} does not fit a scan of shape {scan.shape}", scan.name)
    reason = why_no_seg(scan, mask)
    if reason:
        raise InputError(f"no DICOM SEG can be written: {reason}", path)
    try:
        with lenient():
            segmentation = _segmentation(scan, mask, types, algorithm)
            with atomic(path) as temporary:
                segmentation.save_as(temporary, enforce_file_format=True)
    except HemotorchError:
        raise
    except Exception as error:  # highdicom and pydicom raise whatever a source leads to that breaks the standard
        what = f"the DICOM SEG could not be written ({type(error).__name__}: {str(error).splitlines()[0]})"
        raise RunError(what, path, "the mask is there; predict again with --no-seg") from error


def _headers_of(scan: Scan) -> list[ImageHeader]:
    """The header of each slice of the scan. Raises InputError if a file cannot be read any more."""
    if scan.source is None:
        raise InputError("was not read from files", scan.name)
    of_file = [read_headers(Path(file)) for file in scan.source.files]
    headers = []
    for frame in scan.source.frames:
        in_file = of_file[frame.file]
        if frame.number >= len(in_file):
            raise InputError("has fewer frames than before", in_file[0].path)
        headers.append(in_file[frame.number])
    return headers


def _why_not(headers: Sequence[ImageHeader]) -> str:
    """What images lack that a SEG has to point at, in words; "" if nothing."""
    wanted: dict[str, list[Any]] = {
        "SOPInstanceUID": [header.instance for header in headers],
        "SOPClassUID": [header.sop_class for header in headers],
        "StudyInstanceUID": [header.study for header in headers],
        "SeriesInstanceUID": [header.series for header in headers],
        "FrameOfReferenceUID": [header.frame_of_reference for header in headers],
        "ImagePositionPatient": [header.position for header in headers],
    }
    lacking = [name for name, values in wanted.items() if not all(values)]
    if lacking:
        return f"the series lacks {', '.join(lacking)}, so a DICOM SEG cannot point at its images"
    if len({(header.instance, header.frame) for header in headers}) < len(headers):
        return "several slices have one SOPInstanceUID, so a DICOM SEG cannot point at them"
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        if len(set(wanted[name])) > 1:
            return f"its slices differ in {name}, and a DICOM SEG belongs to one series"
    return ""


def _segmentation(scan: Scan, mask: np.ndarray, types: Sequence[str], algorithm: Algorithm) -> Any:
    """highdicom's segmentation of a mask."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes
    from pydicom.uid import ExplicitVRLittleEndian

    def coded(concept: Concept) -> Any:
        return CodedConcept(concept.value, "SCT", concept.meaning)

    headers = _headers_of(scan)
    identification = AlgorithmIdentificationSequence(
        name=PRODUCT,
        family=codes.DCM.ArtificialIntelligence,
        version=algorithm.version,
        parameters={"model": algorithm.model, "sha256": algorithm.digest or "unknown"},
    )
    segments = _segments(mask, types)
    described = []
    for number, segment in enumerate(segments, start=1):
        region = segment.concept.region
        described.append(
            SegmentDescription(
                segment_number=number,
                segment_label=segment.label,
                segmented_property_category=coded(CATEGORY),
                segmented_property_type=coded(segment.concept.finding),
                algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=identification,
                anatomic_regions=None if region is None else [coded(region)],
                display_color=CIELabColor.from_rgb(*segment.rgb),
            )
        )
    typical = _typical(headers)
    turn = turn_of(typical.orientation or (), typical.pixel_mm or (1.0, 1.0))
    numbers = as_stored(_numbered(mask, segments), turn)
    if numbers.shape[1:] != (headers[0].rows, headers[0].columns):
        raise InputError("its files have other pixels than before", headers[0].path)
    sources = _sources(headers)
    mask_digest = hashlib.sha256(mask.tobytes()).hexdigest()
    images = [(header.instance, header.frame) for header in headers]
    key = (algorithm.version, algorithm.model, algorithm.digest, mask_digest, images)
    segmentation = Segmentation(
        source_images=sources,
        pixel_array=numbers,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=uid_of("SEG series", *key),
        series_number=min((headers[0].series_number or 0) + _SERIES_NUMBER, _MOST_SERIES_NUMBER),
        sop_instance_uid=uid_of("SEG", *key),
        instance_number=1,
        manufacturer=PRODUCT,
        manufacturer_model_name=PRODUCT,
        software_versions=algorithm.version,
        device_serial_number=algorithm.digest[:16] or "unknown",
        content_label="BLEEDING",
        content_description=_SERIES_TEXT,
        series_description=_SERIES_TEXT,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    _name_dimensions(segmentation, uid_of("SEG dimensions", *key))
    _point_at_frames(segmentation, headers)
    if _typical(headers).thickness_mm is None:
        del segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness
    return segmentation


def _segments(mask: np.ndarray, types: Sequence[str]) -> list[_Segment]:
    """A segment for each type that the mask holds, or one for bleeding of whatever type."""
    if not types:
        return [_Segment("Hemorrhage", None, UNTYPED_CODE, _UNTYPED_RGB)]
    present = [name for name in types if (mask == CODES[name]).any()]
    segments = []
    for name in present:
        segments.append(_Segment(f"{name.capitalize()} hemorrhage", CODES[name], SEGMENT_CODES[name], COLOURS[name]))
    return segments


def _numbered(mask: np.ndarray, segments: Sequence[_Segment]) -> np.ndarray:
    """The mask with the numbers of segments, from 1, in place of its codes."""
    numbered = np.zeros(mask.shape, np.uint8)
    for number, segment in enumerate(segments, start=1):
        numbered[mask != 0 if segment.code is None else mask == segment.code] = number
    return numbered


def _sources(headers: Sequence[ImageHeader]) -> list[Any]:
    """The source's images as highdicom needs them, one dataset for each slice.

    highdicom raises if an attribute of type 2 is absent or holds what the standard does not allow. Such a one is empty
    here. Frames of an enhanced file are given as single images; `_point_at_frames` puts their numbers in.
    """
    from pydicom.dataset import Dataset

    whole = read_dataset(headers[0].path, pixels=True)
    first = _typical(headers)
    row_mm, column_mm = first.pixel_mm or (1.0, 1.0)
    identity = {name: _allowed(name, whole.get(name)) for name in _IDENTITY}
    charset = whole.get("SpecificCharacterSet")
    sources = []
    for header in headers:
        d = Dataset()
        if charset:
            d.SpecificCharacterSet = charset
        for name, value in identity.items():
            if value or name not in ("PatientAge", "StudyDescription"):
                setattr(d, name, value)
        d.Modality = header.modality or "CT"
        d.SOPClassUID = CT_IMAGE if _is_frame(header) else header.sop_class
        d.SOPInstanceUID = header.instance
        d.StudyInstanceUID, d.SeriesInstanceUID = header.study, header.series
        d.FrameOfReferenceUID = header.frame_of_reference
        d.PositionReferenceIndicator = ""
        d.Rows, d.Columns = header.rows, header.columns
        d.PixelSpacing = [row_mm, column_mm]
        d.SliceThickness = first.thickness_mm or 0.0  # highdicom raises without, and it is taken out again
        # Slices of a series are parallel within half a degree; like the reader, take the first one's direction.
        d.ImageOrientationPatient = list(first.orientation or ())
        d.ImagePositionPatient = list(header.position or ())
        if header.lossy:
            d.LossyImageCompression = "01"
        sources.append(d)
    return sources


def _typical(headers: Sequence[ImageHeader]) -> ImageHeader:
    """The first image that states its direction. The reader takes those that do not to lie like the others."""
    return next((header for header in headers if header.orientation is not None), headers[0])


def _allowed(name: str, value: Any) -> Any:
    """A value of the source if the standard allows it, else an empty one."""
    from pydicom.valuerep import DA, TM

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
    return value


def _name_dimensions(segmentation: Any, uid: str) -> None:
    """Gives the dimensions a UID that derives from the input, in place of a random one."""
    segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for item in segmentation.DimensionIndexSequence:
        item.DimensionOrganizationUID = uid


def _is_frame(header: ImageHeader) -> bool:
    """Whether an image is a frame of an enhanced file."""
    return header.frames > 1 or header.sop_class in ENHANCED_CT


def _point_at_frames(segmentation: Any, headers: Sequence[ImageHeader]) -> None:
    """Frames of enhanced files: adds class and number of the frame to each reference, and lists each file once.

    A segmentation's frames are at positions of the source's, so a frame is known by its position.
    """
    if not any(map(_is_frame, headers)):
        return
    number_of = {header.position: header.frame + 1 for header in headers}
    for item in segmentation.PerFrameFunctionalGroupsSequence:
        position = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        nearest = min(number_of, key=lambda known: float(np.abs(np.array(known) - position).sum()))
        for derivation in item.DerivationImageSequence:
            for source in derivation.SourceImageSequence:
                source.ReferencedFrameNumber = number_of[nearest]
                source.ReferencedSOPClassUID = headers[0].sop_class
    segmentation.SourceImageSequence = _each_once(segmentation.SourceImageSequence, headers[0].sop_class)
    for series in segmentation.ReferencedSeriesSequence:
        series.ReferencedInstanceSequence = _each_once(series.ReferencedInstanceSequence, headers[0].sop_class)


def _each_once(references: Sequence[Any], sop_class: str) -> list[Any]:
    """References to instances of a class, without repeats."""
    unique = {str(item.ReferencedSOPInstanceUID): item for item in references}
    for item in unique.values():
        item.ReferencedSOPClassUID = sop_class
    return list(unique.values())
