"""What the header of a DICOM file says of each of its images, without reading a pixel.

pydicom parses. Every value is read with care: files of real archives lack what the standard demands, hold text for
numbers, and are cut short. Whatever goes wrong becomes one sentence.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hemotorch.errors import InputError
from hemotorch.io.dicom.attributes import (
    first_item_of,
    first_items_of,
    first_whole_of,
    items_of,
    number_of,
    numbers_of,
    positive_of,
    text_of,
    value_of,
    whole_of,
    words_of,
)
from hemotorch.io.dicom.files import looks_like_dicom, on_disk, open_file, read_start, unpacked_dataset

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")  #: the second is converted legacy CT
MOST_FRAMES = 20_000  #: of one file
_START_BYTES = 2**17  # of a file in a zip: its header, unless it is a long one
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
    if text_of(dataset, "SOPClassUID") == _DIRECTORY or "DirectoryRecordSequence" in dataset:
        raise DirectoryFile("is a DICOMDIR", path)
    meta = getattr(dataset, "file_meta", None)
    if meta is not None and text_of(meta, "MediaStorageSOPClassUID") == _DIRECTORY:
        raise DirectoryFile("is a DICOMDIR", path)
    known = ("SOPClassUID", "Modality", "Rows", "StudyInstanceUID", "ImagePositionPatient")
    if not any(name in dataset for name in known):
        raise InputError("cannot be read as DICOM: nothing in it is known", path)
    count = max(1, whole_of(dataset, "NumberOfFrames") or 1)
    if count > MOST_FRAMES:
        raise InputError(f"has {count:,} frames, more than the {MOST_FRAMES:,} that are read", path)
    shared = first_item_of(dataset, "SharedFunctionalGroupsSequence")
    per_frame = items_of(dataset, "PerFrameFunctionalGroupsSequence")
    headers = []
    for frame in range(count):
        of_frame = per_frame[frame] if frame < len(per_frame) else None
        headers.append(_header(dataset, [of_frame, shared], path, frame, count))
    return tuple(headers)


def _header(dataset: Any, groups: list[Any], path: Path, frame: int, count: int) -> ImageHeader:
    """One frame's header. groups: its functional groups, its own before the shared ones; None if there are none."""
    # One position for many frames is that of none of them.
    plane = first_items_of(groups[:1], "PlanePositionSequence")
    if count == 1:
        plane = [*first_items_of(groups, "PlanePositionSequence"), dataset]
    axes = [*first_items_of(groups, "PlaneOrientationSequence"), dataset]
    measures = [*first_items_of(groups, "PixelMeasuresSequence"), dataset]
    rescale = [*first_items_of(groups, "PixelValueTransformationSequence"), dataset]
    kinds = [*first_items_of(groups, "CTImageFrameTypeSequence"), dataset]
    kernels = [*first_items_of(groups, "CTReconstructionSequence"), dataset]
    content = [*first_items_of(groups, "FrameContentSequence"), dataset]
    image_type = words_of(kinds, "FrameType") or words_of([dataset], "ImageType")
    pixel = numbers_of(measures, "PixelSpacing", 2)
    position = numbers_of(plane, "ImagePositionPatient", 3)
    meta = getattr(dataset, "file_meta", None)
    syntax = "" if meta is None else text_of(meta, "TransferSyntaxUID")
    if not syntax:
        syntax = _guessed_syntax(dataset)
    allocated = whole_of(dataset, "BitsAllocated") or 0
    return ImageHeader(
        path=path,
        frame=frame,
        frames=count,
        study=text_of(dataset, "StudyInstanceUID"),
        series=text_of(dataset, "SeriesInstanceUID"),
        instance=text_of(dataset, "SOPInstanceUID"),
        sop_class=text_of(dataset, "SOPClassUID"),
        frame_of_reference=text_of(dataset, "FrameOfReferenceUID"),
        syntax=syntax,
        modality=text_of(dataset, "Modality").upper(),
        image_type=image_type,
        description=text_of(dataset, "SeriesDescription"),
        study_description=text_of(dataset, "StudyDescription"),
        study_date=text_of(dataset, "StudyDate"),
        study_time=text_of(dataset, "StudyTime"),
        body_part=text_of(dataset, "BodyPartExamined"),
        manufacturer=text_of(dataset, "Manufacturer"),
        kernel="\\".join(words_of(kernels, "ConvolutionKernel", capitals=False)),
        contrast=_contrast(dataset),
        series_number=whole_of(dataset, "SeriesNumber"),
        number=whole_of(dataset, "InstanceNumber") if count == 1 else frame + 1,
        acquisition=first_whole_of(content, "FrameAcquisitionNumber", "AcquisitionNumber"),
        rows=whole_of(dataset, "Rows") or 0,
        columns=whole_of(dataset, "Columns") or 0,
        samples=whole_of(dataset, "SamplesPerPixel") or 1,
        photometric=text_of(dataset, "PhotometricInterpretation").upper(),
        bits=(allocated, whole_of(dataset, "BitsStored") or allocated),
        signed=whole_of(dataset, "PixelRepresentation") == 1,
        pixel_mm=None if pixel is None or min(pixel) <= 0 else (pixel[0], pixel[1]),
        orientation=_orientation(axes),
        position=None if position is None else (position[0], position[1], position[2]),
        thickness_mm=positive_of(measures, "SliceThickness"),
        spacing_mm=positive_of(measures, "SpacingBetweenSlices"),
        tilt_tag=number_of([dataset], "GantryDetectorTilt"),
        slope=number_of(rescale, "RescaleSlope"),
        intercept=number_of(rescale, "RescaleIntercept"),
        rescale_type=next((text for group in rescale if (text := text_of(group, "RescaleType"))), ""),
        padding=_padding(dataset),
        lossy=text_of(dataset, "LossyImageCompression") == "01",
        patient_id=text_of(dataset, "PatientID"),
        patient_name=text_of(dataset, "PatientName"),
        birth_date=text_of(dataset, "PatientBirthDate"),
        age=_age(text_of(dataset, "PatientAge")),
        sex=text_of(dataset, "PatientSex").upper(),
        missing=_missing(dataset),
    )


def _missing(dataset: Any) -> tuple[str, ...]:
    """What a CT image of one frame has to state and this one does not; none for other kinds of images."""
    if text_of(dataset, "SOPClassUID") not in ("", CT_IMAGE):
        return ()
    without_value = [name for name in _TYPE_1 if value_of(dataset, name) in (None, "")]
    return (*without_value, *(name for name in _TYPE_2 if name not in dataset))


def _guessed_syntax(dataset: Any) -> str:
    """The transfer syntax of a file without group 2, as pydicom told it from the first elements."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = dataset.original_encoding
    if implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if little else ExplicitVRBigEndian)


def _orientation(datasets: list[Any]) -> tuple[float, ...] | None:
    """Two unit vectors at right angles, or None."""
    values = numbers_of(datasets, "ImageOrientationPatient", 6)
    if values is None:
        return None
    axes = np.asarray(values).reshape(2, 3)
    lengths = np.linalg.norm(axes, axis=1)
    if (np.abs(lengths - 1) > 0.05).any() or abs(float(axes[0] @ axes[1])) > 0.02:
        return None
    return tuple((axes / lengths[:, None]).ravel().tolist())


def _padding(dataset: Any) -> tuple[int, int | None] | None:
    value = whole_of(dataset, "PixelPaddingValue")
    if value is None:
        return None
    return value, whole_of(dataset, "PixelPaddingRangeLimit")


def _contrast(dataset: Any) -> str:
    """The contrast agent that the header names, "" if none was given or nothing is said."""
    agent = text_of(dataset, "ContrastBolusAgent")
    if agent.upper() in ("NONE", "NO", "N", "NO CONTRAST", "WITHOUT", "UNENHANCED", "0"):
        return ""
    if agent:
        return agent
    volume = number_of([dataset], "ContrastBolusVolume")
    if (volume or 0) > 0 or items_of(dataset, "ContrastBolusAgentSequence"):
        return "not named"
    return ""


def _age(text: str) -> float | None:
    """Years of an age as DICOM writes it: 061Y, 018M, 003W, 010D."""
    match = re.fullmatch(r"(\d{1,3})([YMWD])", text.upper())
    if match is None:
        return None
    per_year = {"Y": 1.0, "M": 12.0, "W": 52.0, "D": 365.0}
    return int(match[1]) / per_year[match[2]]
