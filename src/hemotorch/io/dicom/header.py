"""What the header of a DICOM file says of each of its images, without reading a pixel.

pydicom parses. Every value is read with care: files of real archives lack what the standard demands, hold text for
numbers, and are cut short. Whatever goes wrong becomes one sentence.
"""

from __future__ import annotations

import io
import logging
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hemotorch.errors import InputError, one_line
from hemotorch.io.dicom.files import looks_like_dicom, on_disk, open_file, read_start, unpacked_dataset

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")  #: the second is converted legacy CT
MOST_FRAMES = 20_000  #: of one file
_START_BYTES = 2**17  # of a file in a zip: its header, unless it is a long one
_LONGEST_TEXT, _MOST_WORDS = 256, 32  # a value of DICOM's long strings has 64 letters
_DIRECTORY = "1.2.840.10008.1.3.10"

#: Attributes of a CT image that must be there with a value (type 1), and those that may be empty (type 2): PS3.3 A.3.
_TYPE_1 = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "ImageType"),
    *("RescaleSlope", "RescaleIntercept"),
)
_TYPE_2 = ("PatientID", "PatientBirthDate", "PatientSex", "SliceThickness", "KVP", "AcquisitionNumber")
_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("ImageType", "SeriesDescription", "StudyDescription", "ProtocolName", "BodyPartExamined", "SeriesNumber"),
    *("InstanceNumber", "AcquisitionNumber", "StudyDate", "StudyTime", "Manufacturer", "ManufacturerModelName"),
    *("ConvolutionKernel", "SliceThickness", "SpacingBetweenSlices", "GantryDetectorTilt", "KVP"),
    *("ContrastBolusAgent", "ContrastBolusVolume", "ContrastBolusAgentSequence", "PixelSpacing"),
    *("ImageOrientationPatient", "ImagePositionPatient", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"),
    *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "RescaleType"),
    *("LossyImageCompression", "PatientID", "PatientName", "PatientBirthDate", "SharedFunctionalGroupsSequence"),
    *("PerFrameFunctionalGroupsSequence", "BurnedInAnnotation", "PatientAge", "PatientSex"),
)


@dataclass(frozen=True)
class ImageHeader:
    """One image: a file, or one frame of a file with many.

    path: of the file; frame: from 0. None, or "" of a text, is what the header lacks.
    study, series, instance, sop_class, frame_of_reference, syntax: UIDs.
    image_type: of this frame, in capitals. contrast: the agent that the header names.
    pixel_mm: between rows and between columns. orientation: (6,) directions of a row and of a column, LPS.
    position: (3,) centre of the first pixel, LPS mm.
    bits: allocated and stored. signed: by PixelRepresentation. padding: stored value, and the other end of a range.
    lossy: whether the header says that pixels were compressed with loss.
    patient_id, patient_name, birth_date: only to tell patients apart, and printed only if somebody asks.
    missing: names of what every CT image has to state and this one does not.
    """

    path: Path
    frame: int
    frames: int
    study: str
    series: str
    instance: str
    sop_class: str
    frame_of_reference: str
    syntax: str
    modality: str
    image_type: tuple[str, ...]
    description: str
    study_description: str
    study_date: str
    study_time: str
    body_part: str
    manufacturer: str
    kernel: str
    contrast: str
    series_number: int | None
    number: int | None
    acquisition: int | None
    rows: int
    columns: int
    samples: int
    photometric: str
    bits: tuple[int, int]
    signed: bool
    pixel_mm: tuple[float, float] | None
    orientation: tuple[float, ...] | None
    position: tuple[float, float, float] | None
    thickness_mm: float | None
    spacing_mm: float | None
    tilt_tag: float | None
    slope: float | None
    intercept: float | None
    rescale_type: str
    padding: tuple[int, int | None] | None
    lossy: bool
    patient_id: str
    patient_name: str
    birth_date: str
    age: float | None
    sex: str
    missing: tuple[str, ...]


class DirectoryFile(InputError):
    """A DICOMDIR: it lists other files and holds no image."""


@contextmanager
def lenient() -> Iterator[None]:
    """pydicom without its warnings, its log and its checks of values, which are made here."""
    from pydicom import config

    logger = logging.getLogger("pydicom")
    level = logger.level
    mode = config.settings.reading_validation_mode
    logger.setLevel(logging.CRITICAL + 1)
    config.settings.reading_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.settings.reading_validation_mode = mode
        logger.setLevel(level)


def read_dataset(path: Path, *, pixels: bool) -> Any:
    """A file as pydicom's dataset.

    Args:
        path: of the file, which may be in a zip.
        pixels: whether everything is read; else only what `read_headers` needs.

    Raises:
        InputError: for a file that is no DICOM, or damaged.
    """
    with lenient():
        in_zip = on_disk(path) != path
        if pixels or not in_zip:
            with open_file(path) as file:
                return _parsed(file, path, pixels=pixels)
        # Most of a zip is pixels: only the start of each file is unpacked, the rest if the header is longer.
        dataset = None
        start = read_start(path, _START_BYTES)
        try:
            dataset = _parsed(io.BytesIO(start), path, pixels=False)
        except InputError:
            if len(start) < _START_BYTES:
                raise
        if dataset is not None and ("Columns" in dataset or len(start) < _START_BYTES):
            return dataset
        with open_file(path) as file:
            return _parsed(file, path, pixels=False)


def read_headers(path: Path) -> tuple[ImageHeader, ...]:
    """The images of a file.

    Returns:
        One for each frame; a file without an image (a report, a structure set) gives one of 0 rows.

    Raises:
        DirectoryFile: for a DICOMDIR.
        InputError: for a file that is no DICOM, or damaged.
    """
    dataset = read_dataset(path, pixels=False)
    with lenient():
        try:
            return _headers(dataset, path)
        except InputError:
            raise
        except Exception as error:  # pydicom raises whatever a damaged value leads to
            raise InputError(f"its header is damaged ({type(error).__name__})", path) from error


def _parsed(file: Any, path: Path, *, pixels: bool) -> Any:
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    start = file.read(132)
    file.seek(0)
    if not looks_like_dicom(start):
        raise InputError("is not DICOM", path)
    tags = None
    if not pixels:
        tags = list(_TAGS)
    try:
        file, inflated = unpacked_dataset(file, path)
        if not inflated:
            return pydicom.dcmread(file, stop_before_pixels=not pixels, force=True, specific_tags=tags)
        dataset = pydicom.dcmread(file, stop_before_pixels=not pixels, force=True, specific_tags=tags)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        return dataset
    except InputError:
        raise
    except RecursionError as error:
        raise InputError("its sequences are nested too deeply", path) from error
    except Exception as error:  # a damaged file makes pydicom raise anything
        raise InputError(f"cannot be read as DICOM: cut or damaged ({type(error).__name__})", path) from error


def _headers(dataset: Any, path: Path) -> tuple[ImageHeader, ...]:
    if _text(dataset, "SOPClassUID") == _DIRECTORY or "DirectoryRecordSequence" in dataset:
        raise DirectoryFile("is a DICOMDIR", path)
    meta = getattr(dataset, "file_meta", None)
    if meta is not None and _text(meta, "MediaStorageSOPClassUID") == _DIRECTORY:
        raise DirectoryFile("is a DICOMDIR", path)
    known = ("SOPClassUID", "Modality", "Rows", "StudyInstanceUID", "ImagePositionPatient")
    if not any(name in dataset for name in known):
        raise InputError("cannot be read as DICOM: nothing in it is known", path)
    count = max(1, _whole(dataset, "NumberOfFrames") or 1)
    if count > MOST_FRAMES:
        raise InputError(f"has {count:,} frames, more than the {MOST_FRAMES:,} that are read", path)
    shared = _first_item(dataset, "SharedFunctionalGroupsSequence")
    per_frame = _items(dataset, "PerFrameFunctionalGroupsSequence")
    headers = []
    for frame in range(count):
        of_frame = per_frame[frame] if frame < len(per_frame) else None
        headers.append(_header(dataset, [of_frame, shared], path, frame, count))
    return tuple(headers)


def _header(dataset: Any, groups: list[Any], path: Path, frame: int, count: int) -> ImageHeader:
    """One frame's header. groups: its functional groups, its own before the shared ones; None if there are none."""
    # One position for many frames is that of none of them.
    plane = _sequence_items(groups[:1], "PlanePositionSequence")
    if count == 1:
        plane = [*_sequence_items(groups, "PlanePositionSequence"), dataset]
    axes = [*_sequence_items(groups, "PlaneOrientationSequence"), dataset]
    measures = [*_sequence_items(groups, "PixelMeasuresSequence"), dataset]
    rescale = [*_sequence_items(groups, "PixelValueTransformationSequence"), dataset]
    kinds = [*_sequence_items(groups, "CTImageFrameTypeSequence"), dataset]
    kernels = [*_sequence_items(groups, "CTReconstructionSequence"), dataset]
    content = [*_sequence_items(groups, "FrameContentSequence"), dataset]
    image_type = _words(kinds, "FrameType") or _words([dataset], "ImageType")
    pixel = _numbers(measures, "PixelSpacing", 2)
    position = _numbers(plane, "ImagePositionPatient", 3)
    meta = getattr(dataset, "file_meta", None)
    syntax = "" if meta is None else _text(meta, "TransferSyntaxUID")
    if not syntax:
        syntax = _guessed_syntax(dataset)
    allocated = _whole(dataset, "BitsAllocated") or 0
    return ImageHeader(
        path=path,
        frame=frame,
        frames=count,
        study=_text(dataset, "StudyInstanceUID"),
        series=_text(dataset, "SeriesInstanceUID"),
        instance=_text(dataset, "SOPInstanceUID"),
        sop_class=_text(dataset, "SOPClassUID"),
        frame_of_reference=_text(dataset, "FrameOfReferenceUID"),
        syntax=syntax,
        modality=_text(dataset, "Modality").upper(),
        image_type=image_type,
        description=_text(dataset, "SeriesDescription"),
        study_description=_text(dataset, "StudyDescription"),
        study_date=_text(dataset, "StudyDate"),
        study_time=_text(dataset, "StudyTime"),
        body_part=_text(dataset, "BodyPartExamined"),
        manufacturer=_text(dataset, "Manufacturer"),
        kernel="\\".join(_words(kernels, "ConvolutionKernel", capitals=False)),
        contrast=_contrast(dataset),
        series_number=_whole(dataset, "SeriesNumber"),
        number=_whole(dataset, "InstanceNumber") if count == 1 else frame + 1,
        acquisition=_whole_of(content, "FrameAcquisitionNumber", "AcquisitionNumber"),
        rows=_whole(dataset, "Rows") or 0,
        columns=_whole(dataset, "Columns") or 0,
        samples=_whole(dataset, "SamplesPerPixel") or 1,
        photometric=_text(dataset, "PhotometricInterpretation").upper(),
        bits=(allocated, _whole(dataset, "BitsStored") or allocated),
        signed=_whole(dataset, "PixelRepresentation") == 1,
        pixel_mm=None if pixel is None or min(pixel) <= 0 else (pixel[0], pixel[1]),
        orientation=_orientation(axes),
        position=None if position is None else (position[0], position[1], position[2]),
        thickness_mm=_positive(measures, "SliceThickness"),
        spacing_mm=_positive(measures, "SpacingBetweenSlices"),
        tilt_tag=_number([dataset], "GantryDetectorTilt"),
        slope=_number(rescale, "RescaleSlope"),
        intercept=_number(rescale, "RescaleIntercept"),
        rescale_type=next((text for group in rescale if (text := _text(group, "RescaleType"))), ""),
        padding=_padding(dataset),
        lossy=_text(dataset, "LossyImageCompression") == "01",
        patient_id=_text(dataset, "PatientID"),
        patient_name=_text(dataset, "PatientName"),
        birth_date=_text(dataset, "PatientBirthDate"),
        age=_age(_text(dataset, "PatientAge")),
        sex=_text(dataset, "PatientSex").upper(),
        missing=_missing(dataset),
    )


def _missing(dataset: Any) -> tuple[str, ...]:
    """What a CT image of one frame has to state and this one does not; none for other kinds of images."""
    if _text(dataset, "SOPClassUID") not in ("", CT_IMAGE):
        return ()
    without_value = [name for name in _TYPE_1 if _value(dataset, name) in (None, "")]
    return (*without_value, *(name for name in _TYPE_2 if name not in dataset))


def _guessed_syntax(dataset: Any) -> str:
    """The transfer syntax of a file without group 2, as pydicom told it from the first elements."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = dataset.original_encoding
    if implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if little else ExplicitVRBigEndian)


def _value(dataset: Any, name: str) -> Any:
    """A value, None if it is missing, empty or damaged."""
    try:
        return dataset.get(name)
    except Exception:  # a value that is none of its type: as good as missing
        return None


def _text(dataset: Any, name: str) -> str:
    value = _value(dataset, name)
    if value is None:
        return ""
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        value = value[0] if len(value) else ""
    return _safe(value)


def _safe(value: Any) -> str:
    """A text of a header on one line, safe for a terminal, and not longer than anybody writes."""
    return one_line(str(value).replace("\0", "").strip()[:_LONGEST_TEXT])


def _words(datasets: list[Any], name: str, capitals: bool = True) -> tuple[str, ...]:
    """The parts of a text of several values, of the first dataset that has it."""
    for dataset in datasets:
        value = _value(dataset, name)
        if value is None or value == "":
            continue
        values = value if type(value).__name__ == "MultiValue" or isinstance(value, (list, tuple)) else [value]
        words = [_safe(entry) for entry in list(values)[:_MOST_WORDS]]
        return tuple(word.upper() if capitals else word for word in words if word)
    return ()


def _numbers(datasets: list[Any], name: str, count: int) -> tuple[float, ...] | None:
    """So many finite numbers, of the first dataset that has them."""
    for dataset in datasets:
        value = _value(dataset, name)
        if value is None:
            continue
        try:
            numbers = [float(entry) for entry in value]
        except (TypeError, ValueError):
            continue
        if len(numbers) == count and all(map(math.isfinite, numbers)) and max(map(abs, numbers)) < 1e6:
            return tuple(numbers)
    return None


def _number(datasets: list[Any], name: str) -> float | None:
    for dataset in datasets:
        value = _value(dataset, name)
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if math.isfinite(number) and abs(number) < 1e9:
            return number
    return None


def _positive(datasets: list[Any], name: str) -> float | None:
    number = _number(datasets, name)
    return number if number is not None and 0 < number < 1000 else None


def _whole(dataset: Any, name: str) -> int | None:
    number = _number([dataset], name)
    return None if number is None else int(number)


def _whole_of(datasets: list[Any], *names: str) -> int | None:
    for dataset in datasets:
        for name in names:
            number = _whole(dataset, name)
            if number is not None:
                return number
    return None


def _orientation(datasets: list[Any]) -> tuple[float, ...] | None:
    """Two unit vectors at right angles, or None."""
    values = _numbers(datasets, "ImageOrientationPatient", 6)
    if values is None:
        return None
    axes = np.asarray(values).reshape(2, 3)
    lengths = np.linalg.norm(axes, axis=1)
    if (np.abs(lengths - 1) > 0.05).any() or abs(float(axes[0] @ axes[1])) > 0.02:
        return None
    return tuple((axes / lengths[:, None]).ravel().tolist())


def _padding(dataset: Any) -> tuple[int, int | None] | None:
    value = _whole(dataset, "PixelPaddingValue")
    if value is None:
        return None
    return value, _whole(dataset, "PixelPaddingRangeLimit")


def _contrast(dataset: Any) -> str:
    """The contrast agent that the header names, "" if none was given or nothing is said."""
    agent = _text(dataset, "ContrastBolusAgent")
    if agent.upper() in ("NONE", "NO", "N", "NO CONTRAST", "WITHOUT", "UNENHANCED", "0"):
        return ""
    if agent:
        return agent
    volume = _number([dataset], "ContrastBolusVolume")
    if (volume or 0) > 0 or _items(dataset, "ContrastBolusAgentSequence"):
        return "not named"
    return ""


def _age(text: str) -> float | None:
    """Years of an age as DICOM writes it: 061Y, 018M, 003W, 010D."""
    match = re.fullmatch(r"(\d{1,3})([YMWD])", text.upper())
    if match is None:
        return None
    per_year = {"Y": 1.0, "M": 12.0, "W": 52.0, "D": 365.0}
    return int(match[1]) / per_year[match[2]]


def _items(dataset: Any, name: str) -> list[Any]:
    value = _value(dataset, name)
    return list(value) if type(value).__name__ == "Sequence" else []


def _first_item(dataset: Any, name: str) -> Any:
    items = _items(dataset, name)
    return items[0] if items else None


def _sequence_items(groups: list[Any], name: str) -> list[Any]:
    """The first item of this sequence in each functional group that has it."""
    items = []
    for group in groups:
        if group is not None and (item := _first_item(group, name)) is not None:
            items.append(item)
    return items
