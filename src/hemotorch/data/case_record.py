"""The record of a prepared case: all that is known of it but its voxels. It is the attributes of the scan's group."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hemotorch.data.manifest import SliceRow
from hemotorch.data.shards import group_metadata
from hemotorch.errors import InputError
from hemotorch.scan import Frame, Scan, Source
from hemotorch.system.files import read_json
from hemotorch.system.records import build, record, to_values

FORMAT = 1  #: of prepared datasets; raised whenever what is written can no longer be read by the code before it
AGAIN = "run `hemotorch prepare` again"

Point = tuple[float, float, float]  #: RAS millimetres


@record
class StoredSource:
    """A `scan.Source`. frames: file and number of each slice."""

    format: str
    files: tuple[str, ...]
    frames: tuple[tuple[int, int], ...]


@record
class Geometry:
    """All of a scan but its voxels; floats keep every bit.

    paths: files of the scan, only in datasets of version 0.1, which had no `source`.
    """

    name: str
    slice_origins_mm: tuple[Point, ...]
    row_step_mm: Point
    column_step_mm: Point
    slice_numbers: tuple[int, ...]
    warnings: tuple[str, ...]
    spacing_known: bool
    source: StoredSource | None = None
    slice_mm: float | None = None
    paths: tuple[str, ...] = ()


@record
class SliceColumns:
    """What is known of each slice, foot to head; see `manifest.SliceRow`.

    positive_pixels: None if there is no mask. flat: whether all pixels are equal.
    """

    position_mm: tuple[float | None, ...]
    types: tuple[tuple[bool, ...] | None, ...]
    positive_pixels: tuple[int, ...] | None
    voxel_ml: tuple[float | None, ...]
    hash: tuple[str, ...]
    flat: tuple[bool, ...]


@record
class FileStatus:
    """A file as it was when it was read."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int


@record
class SourceState:
    """What a case was made from. labels: a hash of all that the source's tables say of it."""

    files: tuple[FileStatus, ...]
    labels: str


@record
class PngOptions:
    """What makes one set of PNGs differ from another: level and width of the window in HU, and which slices."""

    level: float
    width: float
    only_positive: bool


@record
class PngFiles:
    """The PNGs of a case. numbers: of the slices that were written."""

    options: PngOptions
    numbers: tuple[int, ...]


@record
class HeadCheck:
    """What was asked of the scan's anatomy. doubts: why it may be no head in HU."""

    any_anatomy: bool
    doubts: tuple[str, ...]


@record
class CaseRecord:
    """All that is known of a prepared case but its voxels.

    patient, site, age (years), sex: None if unknown. patient_assumed: nobody said whose scan it is.
    shape: (slices, rows, columns). types_from: who names the types of bleeding, None if nobody does.
    mask_hash, inside_hash: None if there is no mask, or if it is unknown what lies inside the skull.
    bytes: of each array's file. png: None if there are none.
    head: None in datasets of version 0.1, which asked nothing of the anatomy.
    """

    format: int
    hemotorch: str
    case: str
    patient: str | None
    site: str | None
    age: float | None
    sex: str | None
    layout: str
    scan: Geometry
    shape: tuple[int, int, int]
    types_from: Literal["table", "mask"] | None
    slices: SliceColumns
    mask_hash: str | None
    source: SourceState
    patient_assumed: bool = False
    inside_hash: str | None = None
    bytes: dict[str, int] | None = None
    png: PngFiles | None = None
    head: HeadCheck | None = None

    @property
    def has_mask(self) -> bool:
        """Whether somebody drew a mask for this scan; an empty one counts."""
        return self.slices.positive_pixels is not None


def read_record(folder: Path) -> CaseRecord:
    """The record in a scan's group.

    Raises:
        InputError: if it is missing, damaged, or not the one that was written (older records have no digest).
    """
    path = folder / "zarr.json"
    try:
        values: dict[str, Any] = dict(read_json(path)["attributes"]["hemotorch"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("is not a scan of a prepared dataset", folder, AGAIN) from error
    digest = values.pop("digest", None)
    if digest is not None and digest != _digest(values):
        raise InputError("what it says of its scan (geometry, counts) was altered", path, AGAIN)
    return build(CaseRecord, values, path, AGAIN)


def write_record(folder: Path, case_record: CaseRecord) -> None:
    """Writes the attributes of a scan's group, whole or not at all: a group without them is not finished.

    Nothing is synced, which would wait for every file written so far; `hu` and `mask` are not either.
    """
    values = to_values(case_record)
    values["digest"] = _digest(values)
    # Not `files.atomic`, which syncs.
    temporary = folder / ".zarr.json.part"
    temporary.write_text(group_metadata({"hemotorch": values}), encoding="utf-8")
    os.replace(temporary, folder / "zarr.json")


def _digest(values: dict[str, Any]) -> str:
    """A hash of all that a record says of its scan, geometry above all: an edited one would give wrong mL."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


def geometry_of(scan: Scan) -> Geometry:
    """The geometry of a scan, with its name, source and warnings."""
    source = None
    if scan.source is not None:
        frames = tuple((int(frame.file), int(frame.number)) for frame in scan.source.frames)
        source = StoredSource(scan.source.format, scan.source.files, frames)
    return Geometry(
        name=scan.name,
        slice_origins_mm=tuple(map(_point, scan.slice_origins_mm)),
        row_step_mm=_point(scan.row_step_mm),
        column_step_mm=_point(scan.column_step_mm),
        slice_numbers=tuple(int(number) for number in scan.slice_numbers),
        warnings=scan.warnings,
        spacing_known=bool(scan.spacing_known),
        source=source,
        slice_mm=scan.slice_mm,
    )


def _point(mm: np.ndarray) -> Point:
    x, y, z = np.asarray(mm, float).tolist()
    return x, y, z


def scan_of(geometry: Geometry, hu: np.ndarray) -> Scan:
    """The scan of that geometry.

    Args:
        geometry: from the scan's record.
        hu: (slices, rows, columns) int16.

    Raises:
        InputError: if it does not fit the voxels, or cannot be.
    """
    origins = np.array(geometry.slice_origins_mm, float)
    try:
        if origins.shape != (len(hu), 3):
            raise ValueError("its geometry has another number of slices")
        return Scan(
            hu,
            slice_origins_mm=origins,
            row_step_mm=np.array(geometry.row_step_mm, float),
            column_step_mm=np.array(geometry.column_step_mm, float),
            name=geometry.name,
            slice_numbers=geometry.slice_numbers,
            source=_source_of(geometry),
            warnings=geometry.warnings,
            spacing_known=geometry.spacing_known,
            slice_mm=geometry.slice_mm,
        )
    except ValueError as error:
        raise InputError(f"the record of a prepared scan is damaged ({error})", geometry.name, AGAIN) from error


def _source_of(geometry: Geometry) -> Source | None:
    stored = geometry.source
    if stored is not None:
        return Source(stored.format, stored.files, tuple(Frame(file, number) for file, number in stored.frames))
    # Datasets prepared by 0.1 name files only, which were NIfTI volumes or one PNG for each slice.
    files = geometry.paths
    if not files:
        return None
    if files[0].lower().endswith(".png"):
        return Source("png", files, tuple(Frame(file, 0) for file in range(len(geometry.slice_numbers))))
    return Source("nifti", files, tuple(Frame(0, number - 1) for number in geometry.slice_numbers))


def rows_of(case_record: CaseRecord) -> list[SliceRow]:
    """The manifest rows of a prepared case."""
    slices, counts = case_record.slices, case_record.slices.positive_pixels
    _, rows, columns = case_record.shape
    made = []
    for index, number in enumerate(case_record.scan.slice_numbers):
        row = SliceRow(
            case=case_record.case,
            patient=case_record.patient,
            site=case_record.site,
            index=index,
            slice_number=number,
            position_mm=_number(slices.position_mm[index]),
            types=slices.types[index],
            pixels=rows * columns,
            positive_pixels=counts[index] if counts else 0,
            has_mask=counts is not None,
            voxel_ml=_number(slices.voxel_ml[index]),
            hash="" if slices.flat[index] else slices.hash[index],
        )
        made.append(row)
    return made


def slice_hash(hu: np.ndarray) -> str:
    """A hash of a slice's size and HU, (rows, columns) int16."""
    digest = hashlib.sha256(str(hu.shape).encode())
    digest.update(np.ascontiguousarray(hu, "<i2").data)
    return digest.hexdigest()[:32]


def mask_hash(mask: np.ndarray) -> str:
    """A hash of the slices that hold anything; a record has the number of their pixels for all."""
    digest = hashlib.sha256()
    for slice_mask in mask:
        if slice_mask.any():
            digest.update(np.ascontiguousarray(slice_mask).data)
    return digest.hexdigest()[:32]


def known(values: Iterable[float]) -> tuple[float | None, ...]:
    """Numbers, None for each that is NaN or infinite, which JSON does not have."""
    return tuple(float(value) if math.isfinite(value) else None for value in values)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
