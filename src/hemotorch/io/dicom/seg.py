"""A mask as a DICOM segmentation (SEG) of the series that its scan was read from.

The mask stays in the pixels of the source, slice by slice, at the positions that the source states. So it lies right on
tilted and uneven series too. highdicom builds the object; it is imported only when one is made, since that takes a
second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hemotorch.errors import InputError
from hemotorch.io.dicom.codes import CATEGORY, SEGMENT_CODES, UNTYPED_CODE, Concept, SegmentCode
from hemotorch.io.dicom.own import stamp
from hemotorch.io.dicom.reader import as_stored, turn_of
from hemotorch.io.dicom.source import PRODUCT, Algorithm, SourceSeries, each_once
from hemotorch.labels import CODES, COLOURS, UNTYPED
from hemotorch.pictures.slices import PREDICTED_RGB

_SERIES_TEXT = "Bleeding outlined by hemotorch, research use only"  # at most 64 characters
_CORRECTED_TEXT = "Bleeding outlined by a reader, research use only"


@dataclass(frozen=True)
class _Segment:
    """One segment: its label, the mask's code for it (None: whatever is not 0), codes and colour."""

    label: str
    code: int | None
    concept: SegmentCode
    rgb: tuple[int, int, int]


def segmentation_of(source: SourceSeries, mask: np.ndarray, types: Sequence[str], algorithm: Algorithm) -> Any:
    """A mask as highdicom's segmentation.

    UIDs derive from the source's, the model and the mask: the same prediction has the same UIDs, another has others.

    Args:
        source: that can be pointed at.
        mask: (slices, rows, columns) uint8 of the scan's shape, codes of `labels` if there are types; not empty.
        types: that the mask tells apart; none if it only says where bleeding is.
        algorithm: what made the mask.

    Raises:
        InputError: if `source.why_not` has a reason, the mask is empty or does not fit the source.
    """
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes
    from pydicom.uid import ExplicitVRLittleEndian

    def coded(concept: Concept) -> Any:
        return CodedConcept(concept.value, "SCT", concept.meaning)

    path = source.headers[0].path
    if source.why_not:
        raise InputError(source.why_not, path)
    if not mask.any():
        raise InputError("an empty mask is no DICOM SEG", path)
    if len(mask) != len(source.headers):
        raise InputError(f"a mask of {len(mask)} slices does not fit {len(source.headers)} images", path)
    typical = source.typical
    turn = turn_of(typical.orientation or (), typical.pixel_mm or (1.0, 1.0))
    segments = _segments(mask, types)
    numbers = as_stored(_numbered(mask, segments), turn)
    if numbers.shape[1:] != (typical.rows, typical.columns):
        raise InputError("its files have other pixels than the mask", path)
    mask_digest = hashlib.sha256(np.ascontiguousarray(mask).data).hexdigest()
    identification = AlgorithmIdentificationSequence(
        name=PRODUCT,
        family=codes.DCM.ArtificialIntelligence,
        version=algorithm.version,
        parameters={"model": algorithm.model, "sha256": algorithm.digest or "unknown"},
    )
    how = SegmentAlgorithmTypeValues.AUTOMATIC
    series_text = _SERIES_TEXT
    if algorithm.corrected:
        how = SegmentAlgorithmTypeValues.SEMIAUTOMATIC
        series_text = _CORRECTED_TEXT
    described = []
    for number, segment in enumerate(segments, start=1):
        region = segment.concept.region
        described.append(
            SegmentDescription(
                segment_number=number,
                segment_label=segment.label,
                segmented_property_category=coded(CATEGORY),
                segmented_property_type=coded(segment.concept.finding),
                algorithm_type=how,
                algorithm_identification=identification,
                anatomic_regions=None if region is None else [coded(region)],
                display_color=CIELabColor.from_rgb(*segment.rgb),
            )
        )
    key = (algorithm.version, algorithm.model, algorithm.digest, mask_digest)
    segmentation = Segmentation(
        source_images=source.datasets,
        pixel_array=numbers,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=source.uid("SEG series", *key),
        series_number=source.series_number(0),
        sop_instance_uid=source.uid("SEG", *key),
        instance_number=1,
        manufacturer=PRODUCT,
        manufacturer_model_name=PRODUCT,
        software_versions=algorithm.version,
        device_serial_number=algorithm.serial_number,
        content_label="BLEEDING",
        content_description=series_text,
        series_description=series_text,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    _name_dimensions(segmentation, source.uid("SEG dimensions", *key))
    _point_at_frames(segmentation, source)
    if typical.thickness_mm is None:
        del segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness
    stamp(segmentation)
    return segmentation


def segment_label(kind: str) -> str:
    """What the segment of a type is called."""
    return f"{kind.capitalize()} hemorrhage"


def _segments(mask: np.ndarray, types: Sequence[str]) -> list[_Segment]:
    """A segment for each type that the mask holds, or one for bleeding of whatever type."""
    if not types:
        return [_Segment("Hemorrhage", None, UNTYPED_CODE, PREDICTED_RGB)]
    present = [name for name in types if (mask == CODES[name]).any()]
    segments = []
    for name in present:
        segments.append(_Segment(segment_label(name), CODES[name], SEGMENT_CODES[name], COLOURS[name]))
    if (mask == UNTYPED).any():  # a reader may leave the type of some of it open
        segments.append(_Segment("Hemorrhage", UNTYPED, UNTYPED_CODE, PREDICTED_RGB))
    return segments


def _numbered(mask: np.ndarray, segments: Sequence[_Segment]) -> np.ndarray:
    """The mask with the numbers of segments, from 1, in place of its codes."""
    numbered = np.zeros(mask.shape, np.uint8)
    for number, segment in enumerate(segments, start=1):
        numbered[mask != 0 if segment.code is None else mask == segment.code] = number
    return numbered


def _name_dimensions(segmentation: Any, uid: str) -> None:
    """Gives the dimensions a UID that derives from the input, in place of a random one."""
    segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for item in segmentation.DimensionIndexSequence:
        item.DimensionOrganizationUID = uid


def _point_at_frames(segmentation: Any, source: SourceSeries) -> None:
    """Frames of enhanced files: adds class and number of the frame to each reference, and lists each file once.

    A segmentation's frames are at positions of the source's, so a frame is known by its position.
    """
    if not source.enhanced:
        return
    sop_class = source.headers[0].sop_class
    number_of = {header.position: header.frame + 1 for header in source.headers}
    for item in segmentation.PerFrameFunctionalGroupsSequence:
        position = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        nearest = min(number_of, key=lambda known: float(np.abs(np.array(known) - position).sum()))
        for derivation in item.DerivationImageSequence:
            for image in derivation.SourceImageSequence:
                image.ReferencedFrameNumber = number_of[nearest]
                image.ReferencedSOPClassUID = sop_class
    segmentation.SourceImageSequence = each_once(segmentation.SourceImageSequence, sop_class)
    for series in segmentation.ReferencedSeriesSequence:
        series.ReferencedInstanceSequence = each_once(series.ReferencedInstanceSequence, sop_class)
