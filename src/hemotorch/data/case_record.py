"""The record of a prepared case: all that is known of it but its voxels, and what tells whether its source changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from hemotorch import __version__
from hemotorch.data.dataset import FORMAT, geometry, mask_hash, slice_hash
from hemotorch.data.layouts import Case
from hemotorch.data.manifest import SliceRow
from hemotorch.io import files_of
from hemotorch.labels import TYPES, UNTYPED, types_per_slice
from hemotorch.scan import Scan
from hemotorch.system.files import jsonable

Record = dict[str, Any]


def make_record(
    case: Case, scan: Scan, mask: np.ndarray | None, source: Record, inside: np.ndarray | None = None
) -> Record:
    """The record of a case, in JSON's types. source: from `source_of`, taken before the case was read."""
    types, types_from = _types(case, scan, mask)
    return jsonable({
        "format": FORMAT,
        "hemotorch": __version__,
        "case": case.name,
        "patient": case.patient,
        "patient_assumed": case.patient_assumed,
        "site": case.site,
        "age": case.age,
        "sex": case.sex,
        "layout": case.layout,
        "scan": geometry(scan),
        "shape": scan.shape,
        "types_from": types_from,
        "slices": {
            "position_mm": scan.slice_origins_mm @ scan.normal if scan.spacing_known else [None] * len(scan.hu),
            "types": types,
            "positive_pixels": None if mask is None else [int(np.count_nonzero(one)) for one in mask],
            "voxel_ml": scan.voxel_ml,
            "hash": [slice_hash(one) for one in scan.hu],
            "flat": [bool((one == one[0, 0]).all()) for one in scan.hu],
        },
        "mask_hash": None if mask is None else mask_hash(mask),
        "inside_hash": None if inside is None else mask_hash(inside.astype(np.uint8)),
        "source": source,
    })  # fmt: skip


def rows_of(record: Record) -> list[SliceRow]:
    """The manifest rows of a prepared case."""
    slices, counts = record["slices"], record["slices"]["positive_pixels"]
    rows, columns = record["shape"][1:]
    return [
        SliceRow(
            case=record["case"],
            patient=record["patient"],
            site=record["site"],
            index=index,
            slice_number=number,
            position_mm=_number(slices["position_mm"][index]),
            types=None if slices["types"][index] is None else tuple(slices["types"][index]),
            pixels=rows * columns,
            positive_pixels=counts[index] if counts else 0,
            has_mask=counts is not None,
            voxel_ml=_number(slices["voxel_ml"][index]),
            hash="" if slices["flat"][index] else slices["hash"][index],
        )
        for index, number in enumerate(record["scan"]["slice_numbers"])
    ]


def source_of(case: Case) -> Record:
    """What the case is made from: its files (the window of PNGs among them), and what the dataset says of it.

    Raises:
        OSError: for a missing file.
    """
    files = files_of(case.paths)
    return {"files": [_status(path) for path in files], "labels": _labels(case)}


def untouched(record: Record, case: Case) -> bool:
    """Whether nothing was written to the case's files since the record was made, nor to the tables about it.

    Sizes and times tell, which takes no reading; programs cannot set the time of a file's last status change back.
    """
    try:
        return record.get("format") == FORMAT and record["source"] == source_of(case)
    except OSError:
        return False


def same_content(one: Record, other: Record) -> bool:
    """Whether two records say the same of the same voxels, though perhaps files were touched in between."""
    left_out = ("hemotorch", "source", "bytes", "png", "head", "digest")
    return all(one.get(key) == value for key, value in other.items() if key not in left_out)


def _types(case: Case, scan: Scan, mask: np.ndarray | None) -> tuple[list[list[bool] | None], str | None]:
    """For each slice whether it holds each of TYPES, None where unknown; and who says so: "table", "mask" or nobody."""
    if case.slice_types is not None:
        named = [case.slice_types.get(number) for number in scan.slice_numbers]
        return [None if types is None else [name in types for name in TYPES] for types in named], "table"
    if mask is None:
        return [None] * len(scan.hu), None
    held, untyped = types_per_slice(mask).tolist(), (mask == UNTYPED).reshape(len(mask), -1).any(axis=1)
    return [None if unknown else types for types, unknown in zip(held, untyped, strict=True)], "mask"


def _labels(case: Case) -> str:
    """A hash of all that the dataset says of a case."""
    types = case.slice_types
    told = {
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
        "types": None if types is None else [[number, sorted(types[number])] for number in sorted(types)],
        "codes": sorted(case.mask_codes.items()),
        "masks": len(case.mask_paths),
    }
    return hashlib.sha256(json.dumps(jsonable(told), sort_keys=True).encode()).hexdigest()


def _status(path: Path) -> Record:
    status = path.stat()
    return {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
