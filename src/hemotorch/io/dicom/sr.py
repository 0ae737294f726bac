"""A prediction as a DICOM structured report (TID 1500): mL, lengths and slices as measurements, doubts as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hemotorch import NOTICE
from hemotorch.io.dicom.amounts import TOTAL, Amount
from hemotorch.io.dicom.codes import CATEGORY, SEGMENT_CODES, UNTYPED_CODE, Concept
from hemotorch.io.dicom.seg import segment_label
from hemotorch.io.dicom.source import PRODUCT, Algorithm, SourceSeries
from hemotorch.scan import Prediction

_SERIES_TEXT = "Bleeding measured by hemotorch, research use only"  # at most 64 characters
#: The standard has no code for it, so it is our own.
_SCHEME, _SLICES, _SLICES_TEXT = "99HEMOTORCH", "slices", "Number of slices that hold it"
_LONGEST_TEXT = 64  # of a name in a report's header


def report_of(
    source: SourceSeries,
    prediction: Prediction,
    amounts: Sequence[Amount],
    segmentation: Any,
    algorithm: Algorithm,
    key: Sequence[str],
) -> Any:
    """A prediction as highdicom's report.

    The first group is all bleeding, with the notice and the doubts as comments; then there is a group for each type
    that the network knows. A type that was not found has 0 mL on 0 slices, so that "none" and "not asked" differ.

    Args:
        source: that can be pointed at.
        prediction: of it.
        amounts: of all bleeding, and of each type.
        segmentation: of its mask, None if that is empty.
        algorithm: what made the mask.
        key: of the prediction, from which UIDs derive.
    """
    from highdicom import sr
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from pydicom.sr.codedict import codes

    device = sr.DeviceObserverIdentifyingAttributes(
        uid=source.uid("observer", algorithm.version, algorithm.model, algorithm.digest),
        name=PRODUCT,
        manufacturer_name=PRODUCT,
        model_name=algorithm.model[:_LONGEST_TEXT],
        serial_number=algorithm.serial_number,
    )
    context = sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device))
    groups = []
    for amount in amounts:
        tracking = sr.TrackingIdentifier(source.uid("tracking", *key, amount.kind), f"{PRODUCT}: {amount.kind}")
        group = _group(amount, tracking, prediction, segmentation, algorithm, source)
        if amount.kind == TOTAL:
            _add_comments(group, [NOTICE, *_remarks(amount, prediction)])
        groups.append(group)
    content_sequence = sr.MeasurementReport(
        observation_context=context,
        procedure_reported=sr.CodedConcept("24725-4", "LN", "CT Head"),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    evidence = source.files()
    if segmentation is not None:
        evidence.append(segmentation)
    return sr.ComprehensiveSR(
        evidence=evidence,
        content=content_sequence,
        series_instance_uid=source.uid("SR series", *key),
        series_number=source.series_number(1),
        sop_instance_uid=source.uid("SR", *key),
        instance_number=1,
        manufacturer=PRODUCT,
        manufacturer_model_name=PRODUCT,
        software_versions=algorithm.version,
        device_serial_number=algorithm.serial_number,
        series_description=_SERIES_TEXT,
        is_complete=True,
        coding_schemes=[CodingSchemeIdentificationItem(_SCHEME, PRODUCT, responsible_organization=PRODUCT)],
    )


def _group(
    amount: Amount, tracking: Any, prediction: Prediction, segmentation: Any, algorithm: Algorithm, source: SourceSeries
) -> Any:
    """The measurements of a type, or of all bleeding, with the segment that they were taken from if there is one."""
    from highdicom import sr

    code = SEGMENT_CODES.get(amount.kind, UNTYPED_CODE)
    said = {
        "tracking_identifier": tracking,
        "finding_type": _coded(code.finding),
        "finding_category": _coded(CATEGORY),
        "finding_sites": None if code.region is None else [sr.FindingSite(_coded(code.region))],
        "algorithm_id": sr.AlgorithmIdentification(
            name=PRODUCT,
            version=algorithm.version,
            parameters=[f"model={algorithm.model}", f"sha256={algorithm.digest or 'unknown'}"],
        ),
        "measurements": _measurements(amount, prediction),
    }
    number = _segment_number(amount, prediction, segmentation)
    if number is None:
        del said["algorithm_id"]  # this template takes none; the device observer names it
        said["source_images"] = _images_with(amount, prediction, source)
        return sr.MeasurementsAndQualitativeEvaluations(**said)
    segment = sr.ReferencedSegment(
        segmentation.SOPClassUID,
        segmentation.SOPInstanceUID,
        number,
        source_series=sr.SourceSeriesForSegmentation(source.headers[0].series),
    )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(**said, referenced_segment=segment)


def _images_with(amount: Amount, prediction: Prediction, source: SourceSeries) -> list[Any] | None:
    """The images that hold any bleeding, so that a reader can open them."""
    from highdicom import sr

    if amount.kind != TOTAL or not amount.slices:
        return None
    images = []
    for index in np.flatnonzero(prediction.mask.any(axis=(1, 2))):
        header = source.headers[index]
        frames = [header.frame + 1] if source.enhanced else None
        images.append(sr.SourceImageForMeasurementGroup(header.sop_class, header.instance, frames))
    return images


def _segment_number(amount: Amount, prediction: Prediction, segmentation: Any) -> int | None:
    """The segment that holds this and nothing else; None if there is none."""
    if segmentation is None or not amount.slices:
        return None
    if amount.kind == TOTAL:
        return None if prediction.task.types else 1
    numbers = {str(item.SegmentLabel): int(item.SegmentNumber) for item in segmentation.SegmentSequence}
    return numbers[segment_label(amount.kind)]


def _measurements(amount: Amount, prediction: Prediction) -> list[Any]:
    from highdicom import sr
    from pydicom.sr.codedict import codes

    measurements = []
    ml = sr.CodedConcept("mL", "UCUM", "milliliter")
    if amount.ml_known:
        properties = None
        if prediction.interval_ml is not None and amount.kind == TOTAL:
            low, high = prediction.interval_ml
            properties = sr.MeasurementProperties(
                upper_measurement_uncertainty=max(0.0, round(high - amount.ml, 3)),
                lower_measurement_uncertainty=max(0.0, round(amount.ml - low, 3)),
            )
            for item in properties:  # highdicom says "no units", which reads as a share
                item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence = [ml]
        measurements.append(sr.Measurement(codes.SCT.Volume, round(amount.ml, 3), ml, properties=properties))
    if amount.longest_mm:
        measurements.append(sr.Measurement(codes.SCT.LongAxis, round(amount.longest_mm, 1), codes.UCUM.Millimeter))
    slices = sr.CodedConcept(_SLICES, _SCHEME, _SLICES_TEXT)
    measurements.append(sr.Measurement(slices, amount.slices, sr.CodedConcept("{slices}", "UCUM", "slices")))
    return measurements


def _remarks(amount: Amount, prediction: Prediction) -> list[str]:
    """What a reader has to know of the numbers, a sentence each."""
    remarks = [f"Doubt ({doubt.code}): {doubt.text}" for doubt in prediction.doubts or ()]
    if not amount.slices:
        remarks.append("The model outlined nothing. It can miss bleeding.")
    if not amount.ml_known:
        remarks.append("mL are not known, since the distance between slices is not.")
    if prediction.interval_text:
        remarks.append(f"Interval: {prediction.interval_text}.")
    if prediction.left_out is not None:
        remarks.append(f"Of the mask: {prediction.left_out.text}.")
    remarks.extend(f"Of reading: {warning}" for warning in prediction.warnings)
    return remarks


def _add_comments(group: Any, texts: Sequence[str]) -> None:
    from highdicom import sr
    from pydicom.sr.codedict import codes

    for text in texts:
        item = sr.TextContentItem(codes.DCM.Comment, text, sr.RelationshipTypeValues.CONTAINS)
        group[0].ContentSequence.append(item)


def _coded(concept: Concept) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(concept.value, "SCT", concept.meaning)
