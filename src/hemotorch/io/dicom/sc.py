"""A prediction as pictures in DICOM: one secondary capture of many frames, in colour, with outlines and mL."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from hemotorch import NOTICE
from hemotorch.io.dicom.amounts import TOTAL, Amount
from hemotorch.io.dicom.source import PRODUCT, Algorithm, SourceSeries
from hemotorch.labels import COLOURS
from hemotorch.pictures.capture import Capture, CaptureText, Remark, TableRow, capture
from hemotorch.pictures.legend import ml_text
from hemotorch.pictures.slices import PREDICTED_RGB
from hemotorch.scan import Prediction

_SERIES_TEXT = "Pictures by hemotorch, research use only"  # at most 64 characters
TRUE_COLOR_CAPTURE = "1.2.840.10008.5.1.4.1.1.7.4"  #: multi-frame true color secondary capture
_PAGE_NUMBERS, _FRAME_LABELS = 0x00182001, 0x00182002  # tags of the attributes that order frames


def capture_of(
    source: SourceSeries, prediction: Prediction, amounts: Sequence[Amount], algorithm: Algorithm, key: Sequence[str]
) -> Any:
    """A prediction as pydicom's dataset of a secondary capture: a summary, then the slices that hold bleeding.

    Frames are compressed without loss (RLE), which every viewer of DICOM is to read.

    Args:
        source: that can be pointed at.
        prediction: of it.
        amounts: of all bleeding, and of each type.
        algorithm: what made the mask.
        key: of the prediction, from which UIDs derive.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, RLELossless

    typed = bool(prediction.task.types)
    pictures = capture(prediction.scan, prediction.mask, _summary(prediction, amounts, algorithm), typed=typed)
    d = Dataset()
    for name, value in source.identity.items():
        setattr(d, name, value)
    d.SOPClassUID, d.SOPInstanceUID = TRUE_COLOR_CAPTURE, source.uid("SC", *key)
    d.StudyInstanceUID, d.SeriesInstanceUID = source.headers[0].study, source.uid("SC series", *key)
    d.Modality = "OT"
    d.SeriesNumber, d.InstanceNumber = source.series_number(2), 1
    d.SeriesDescription = _SERIES_TEXT
    d.BodyPartExamined = "HEAD"
    d.Manufacturer = d.ManufacturerModelName = PRODUCT
    d.SoftwareVersions, d.DeviceSerialNumber = algorithm.version, algorithm.serial_number
    now = datetime.datetime.now()
    d.ContentDate = d.InstanceCreationDate = f"{now:%Y%m%d}"
    d.ContentTime = d.InstanceCreationTime = f"{now:%H%M%S}"
    d.ConversionType = "WSD"
    d.ImageType = ["DERIVED", "SECONDARY"]
    d.PatientOrientation = ""  # the summary has none; R and L are drawn into the slices
    d.BurnedInAnnotation = "NO"  # it means annotation that names the patient
    d.DerivationDescription = f"Slices with bleeding outlined by {PRODUCT}. {NOTICE}"
    d.SourceImageSequence = [_reference(file) for file in source.files()]
    d.LossyImageCompression = "01" if any(header.lossy for header in source.headers) else "00"
    _set_frames(d, pictures, prediction)
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pixels = pictures.frames if len(pictures.frames) > 1 else pictures.frames[0]  # as pydicom wants it
    d.compress(RLELossless, pixels, encoding_plugin="gdcm", generate_instance_uid=False)
    return d


def _set_frames(d: Any, pictures: Capture, prediction: Prediction) -> None:
    """What describes the pixels, and which frame shows what."""
    count, d.Rows, d.Columns, d.SamplesPerPixel = pictures.frames.shape
    d.PhotometricInterpretation, d.PlanarConfiguration = "RGB", 0
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 8, 8, 7, 0
    d.NumberOfFrames = count
    if count == 1:
        return
    d.FrameIncrementPointer = [_PAGE_NUMBERS, _FRAME_LABELS]
    d.PageNumberVector = list(range(1, count + 1))
    numbers = [prediction.scan.slice_numbers[index] for index in pictures.indices]
    d.FrameLabelVector = ["summary", *(f"slice {number}"[:16] for number in numbers)]


def _reference(dataset: Any) -> Any:
    """A source image, as an image points at it."""
    from pydicom.dataset import Dataset
    from pydicom.sr.codedict import codes

    purpose = Dataset()
    code = codes.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = code.value, "DCM", code.meaning
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _summary(prediction: Prediction, amounts: Sequence[Amount], algorithm: Algorithm) -> CaptureText:
    total = next(amount for amount in amounts if amount.kind == TOTAL)
    types = [amount for amount in amounts if amount.kind != TOTAL]
    rows = [TableRow(COLOURS[amount.kind], (amount.kind.capitalize(), *_texts(amount))) for amount in types]
    if not rows:
        rows = [TableRow(PREDICTED_RGB, ("Bleeding", *_texts(total)))]
    remarks = [Remark(f"IN DOUBT ({doubt.code}): {doubt.text}", True) for doubt in prediction.doubts or ()]
    remarks.extend(Remark(remark) for remark in prediction.remarks)
    below = prediction.interval_text
    large = ml_text(total.ml) if total.ml_known else "mL unknown"
    if not total.slices:
        large, below = "None", f"The model outlined nothing. It can miss bleeding. {below}".strip()
    model = f"{PRODUCT} {algorithm.version}, {algorithm.model}"
    return CaptureText(large, below, ("", "mL", "slices", "longest in a slice"), rows, remarks, model)


def _texts(amount: Amount) -> tuple[str, str, str]:
    """mL, slices and length for reading."""
    if not amount.slices:
        return "none", "", ""
    return (
        ml_text(amount.ml) if amount.ml_known else "unknown",
        str(amount.slices),
        f"{amount.longest_mm:.0f} mm",
    )
