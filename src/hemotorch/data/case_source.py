"""What a prepared case is made from: its record, and whether the source changed since the record was made."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from hemotorch import __version__
from hemotorch.data.case_record import (
    FORMAT,
    CaseRecord,
    FileStatus,
    SliceColumns,
    SourceState,
    geometry_of,
    known,
    mask_hash,
    slice_hash,
)
from hemotorch.data.layouts import Case
from hemotorch.io import files_of
from hemotorch.labels import TYPES, UNTYPED, types_per_slice
from hemotorch.scan import Scan
from hemotorch.system.files import jsonable

SliceTypes = tuple[tuple[bool, ...] | None, ...]


def make_record(
    case: Case, scan: Scan, mask: np.ndarray | None, source: SourceState, inside: np.ndarray | None = None
) -> CaseRecord:
    """The record of a case.

    Args:
        case: the study.
        scan: as it was read.
        mask: (slices, rows, columns) uint8 codes of `labels`, None if there is none.
        source: from `source_of`, taken before the case was read.
        inside: (slices, rows, columns) bool, what lies inside the skull; None if that is unknown.
    """
    types, types_from = _types(case, scan, mask)
    positions = scan.slice_origins_mm @ scan.normal if scan.spacing_known else np.full(len(scan.hu), np.nan)
    positive_pixels = None
    if mask is not None:
        positive_pixels = tuple(int(np.count_nonzero(slice_mask)) for slice_mask in mask)
    slices = SliceColumns(
        position_mm=known(positions),
        types=types,
        positive_pixels=positive_pixels,
        voxel_ml=known(scan.voxel_ml),
        hash=tuple(slice_hash(hu) for hu in scan.hu),
        flat=tuple(bool((hu == hu[0, 0]).all()) for hu in scan.hu),
    )
    count, rows, columns = scan.shape
    return CaseRecord(
        format=FORMAT,
        hemotorch=__version__,
        case=case.name,
        patient=case.patient,
        patient_assumed=case.patient_assumed,
        site=case.site,
        age=None if case.age is None else known([case.age])[0],
        sex=case.sex,
        layout=case.layout,
        scan=geometry_of(scan),
        shape=(count, rows, columns),
        types_from=types_from,
        slices=slices,
        mask_hash=None if mask is None else mask_hash(mask),
        inside_hash=None if inside is None else mask_hash(inside.astype(np.uint8)),
        source=source,
    )


def source_of(case: Case) -> SourceState:
    """What the case is made from: its files (the window of PNGs among them), and what the dataset says of it.

    Raises:
        OSError: for a missing file.
    """
    return SourceState(tuple(map(_status, files_of(case.paths))), _labels_hash(case))


def untouched(case_record: CaseRecord, case: Case) -> bool:
    """Whether nothing was written to the case's files since the record was made, nor to the tables about it.

    Sizes and times tell, which takes no reading; programs cannot set the time of a file's last status change back.
    """
    try:
        return case_record.format == FORMAT and case_record.source == source_of(case)
    except OSError:
        return False


def same_content(stored: CaseRecord, made: CaseRecord) -> bool:
    """Whether two records say the same of the same voxels, though perhaps files were touched in between."""
    same = replace(stored, hemotorch=made.hemotorch, source=made.source, bytes=made.bytes, png=made.png, head=made.head)
    return same == made


def _types(case: Case, scan: Scan, mask: np.ndarray | None) -> tuple[SliceTypes, Literal["table", "mask"] | None]:
    """For each slice whether it holds each of TYPES, None if unknown; and who says so, None if nobody does."""
    types: list[tuple[bool, ...] | None] = []
    if case.slice_types is not None:
        for number in scan.slice_numbers:
            named = case.slice_types.get(number)
            types.append(None if named is None else tuple(name in named for name in TYPES))
        return tuple(types), "table"
    if mask is None:
        return (None,) * len(scan.hu), None
    for slice_mask, held in zip(mask, types_per_slice(mask).tolist(), strict=True):
        types.append(None if (slice_mask == UNTYPED).any() else tuple(held))
    return tuple(types), "mask"


def _labels_hash(case: Case) -> str:
    """A hash of all that the dataset says of a case."""
    types = None
    if case.slice_types is not None:
        types = [[number, sorted(names)] for number, names in sorted(case.slice_types.items())]
    # Datasets that are prepared hold this hash: another order, or one key more, would read every scan again.
    labels = {
        "case": [
            case.name,
            case.patient,
            case.site,
            case.age,
            case.sex,
            case.layout,
            case.warnings,
            case.patient_assumed,
        ],
        "types": types,
        "codes": sorted(case.mask_codes.items()),
        "masks": len(case.mask_paths),
    }
    return hashlib.sha256(json.dumps(jsonable(labels), sort_keys=True).encode()).hexdigest()


def _status(path: Path) -> FileStatus:
    status = path.stat()
    return FileStatus(str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
