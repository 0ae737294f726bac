"""StudyRecord: what NAME.json holds of a predicted study, and how it is read again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from hemotorch import NOTICE, __version__
from hemotorch.errors import InputError
from hemotorch.head.diameter import longest_diameter
from hemotorch.inference.abc2 import abc2
from hemotorch.scan import Doubt, LeftOut, Prediction
from hemotorch.system.arrays import voxels_per_slice
from hemotorch.system.files import read_json
from hemotorch.system.records import ML, MM, SECONDS, Values, build, record

MARK_ML = 30.0  #: the volume that guidelines of surgery and trials of treatment ask for
GROWN_ML, GROWN_SHARE = 6.0, 0.33  #: more growth than either is marked (Brouwers 2014, JAMA Neurol 71:158)
REQUIRED = {"scan", "volume_ml", "hemotorch", "notice"}  #: keys that a record has had in every version


@record
class FollowUp:
    """The change since the patient's earlier study. change_percent: None if nothing was outlined in the earlier one.

    note: what speaks against the change, "" if nothing does.
    """

    earlier: str
    hours: float
    before_ml: float
    change_ml: float
    change_percent: float | None
    grown: bool
    note: str = ""


@record
class StudyRecord:
    """What is known of a predicted study.

    name: what its files are called. patient: a pseudonym, "" if it is not known whose the study is. scan: its files;
    none of a study in DICOM, whose paths may name the patient. source_digest: of paths, sizes and times of its files.
    volume_ml: "total" and each type, None if the spacing is unknown. left_out: small pieces that are not in the mask,
    None if there were none. largest_slice: the number of the slice with the largest area. longest_mm: the longest line
    across one piece within one slice. abc2_ml: of the largest piece; abc2_of_ml: mL of that piece by voxels. slice_mm:
    the thinnest and the thickest slice's share. pixel_mm: from row to row, and from column to column. dicom: names of
    files for a PACS; no_dicom: why some of them are missing. sha256: of the files beside it.
    """

    scan: tuple[str, ...]
    volume_ml: dict[str, float | None]
    hemotorch: str
    notice: str
    name: str = ""
    patient: str = ""
    source_digest: str = ""
    interval_ml: tuple[float, float] | None = Field(default=None, json_schema_extra=ML)
    over_30_ml: bool | None = None
    doubts: tuple[Doubt, ...] = ()
    left_out: LeftOut | None = None
    slices: int = 0
    slices_with_bleeding: tuple[int, ...] = ()
    largest_slice: int | None = None
    longest_mm: float | None = Field(default=None, json_schema_extra=MM)
    abc2_ml: float | None = Field(default=None, json_schema_extra=ML)
    abc2_of_ml: float | None = Field(default=None, json_schema_extra=ML)
    slice_mm: tuple[float, float] | None = Field(default=None, json_schema_extra=MM)
    pixel_mm: tuple[float, float] | None = Field(default=None, json_schema_extra=MM)
    follow_up: FollowUp | None = None
    warnings: tuple[str, ...] = ()
    model: str = ""
    model_digest: str = ""
    card: str = ""
    seconds: dict[str, float] = Field(default_factory=dict, json_schema_extra=SECONDS)
    dicom: tuple[str, ...] = ()
    no_dicom: str = ""
    sha256: dict[str, str] = Field(default_factory=dict)

    @property
    def total_ml(self) -> float | None:
        """All that is outlined; None if the spacing is unknown."""
        return self.volume_ml.get("total")


def record_of(prediction: Prediction, name: str, scan: Sequence[str] = ()) -> StudyRecord:
    """The record of a prediction, without what is known only of its files and its patient.

    Args:
        prediction: of one scan.
        name: that its files are called.
        scan: the files that it was read from.
    """
    of = prediction.scan
    total = prediction.volume_ml["total"]
    by_hand = abc2(of, prediction.mask)
    longest = longest_diameter(prediction.mask, *of.pixel_mm) if of.spacing_known else None
    areas = voxels_per_slice(prediction.mask)
    shares = of.shares_mm
    return StudyRecord(
        scan=tuple(scan),
        volume_ml={kind: _rounded(ml) for kind, ml in prediction.volume_ml.items()},
        hemotorch=__version__,
        notice=NOTICE,
        name=name,
        interval_ml=_pair(prediction.interval_ml),
        over_30_ml=total > MARK_ML if math.isfinite(total) else None,
        doubts=tuple(prediction.doubts or ()),
        left_out=prediction.left_out,
        slices=len(of.hu),
        slices_with_bleeding=tuple(prediction.slices_with_bleeding),
        largest_slice=of.slice_numbers[int(areas.argmax())] if areas.any() else None,
        longest_mm=None if longest is None else _rounded(longest.mm),
        abc2_ml=None if by_hand is None else _rounded(by_hand.ml),
        abc2_of_ml=None if by_hand is None else _rounded(by_hand.of_ml),
        slice_mm=_pair((shares.min(), shares.max())) if of.spacing_known else None,
        pixel_mm=_pair(of.pixel_mm) if of.spacing_known else None,
        warnings=tuple(prediction.warnings),
        model=prediction.model,
        model_digest=prediction.digest,
        card=prediction.card,
        seconds=dict(prediction.seconds),
    )


def followed_up(record: StudyRecord, earlier: StudyRecord, hours: float) -> StudyRecord:
    """The record with the change since the patient's earlier study; as it is if one of the volumes is unknown.

    More than 6 mL or 33 % of growth is marked. If the intervals of both overlap, the note says so.
    """
    before, after = earlier.total_ml, record.total_ml
    if before is None or after is None:
        return record
    change = after - before
    grown = change > GROWN_ML or (before > 0 and change > GROWN_SHARE * before)
    notes = []
    if record.interval_ml is not None and earlier.interval_ml is not None:
        (low, high), (low_before, high_before) = record.interval_ml, earlier.interval_ml
        if change and low <= high_before and low_before <= high:
            notes.append("the intervals of both volumes overlap: the change may be none")
    if record.doubts or earlier.doubts:
        notes.append("one of the two studies is in doubt")
    if record.model_digest != earlier.model_digest:
        notes.append("the two studies were outlined by different models")
    percent = None if before == 0 else round(100 * change / before, 1)
    change_record = FollowUp(
        earlier=earlier.name,
        hours=round(hours, 2),
        before_ml=before,
        change_ml=round(change, 3),
        change_percent=percent,
        grown=grown,
        note="; ".join(notes),
    )
    return replace(record, follow_up=change_record)


def is_record(values: object) -> bool:
    """Whether a JSON value is what NAME.json holds, of this or an earlier version."""
    return isinstance(values, dict) and values.keys() >= REQUIRED


def read_record(path: Path) -> StudyRecord:
    """A record from NAME.json. What an earlier version did not write has its default; unknown keys are passed over.

    Raises:
        InputError: if the file is missing or damaged, or is no record.
    """
    values: Any = read_json(path)
    if not is_record(values):
        raise InputError("is no record of a prediction", path)
    return record_from({"name": path.stem, **values}, path)


def record_from(values: Values, where: str | Path) -> StudyRecord:
    """A record from JSON values; `where` names them in errors. Raises InputError if they are damaged."""
    known = {field.name for field in fields(StudyRecord)}
    values = {key: value for key, value in values.items() if key in known}
    try:
        values["doubts"] = tuple(Doubt(**doubt) for doubt in values.get("doubts", ()))
        if (small := values.get("left_out")) is not None:
            values["left_out"] = LeftOut(int(small["pieces"]), float(small["ml"]), float(small["least_ml"]))
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise InputError("is damaged ('doubts' or 'left_out' hold something else)", where) from error
    return build(StudyRecord, values, where)


def _rounded(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None


def _pair(values: Sequence[float] | None) -> tuple[float, float] | None:
    """Two numbers, rounded; None if one of them is not known."""
    if values is None:
        return None
    low, high = map(_rounded, values)
    return None if low is None or high is None else (low, high)
