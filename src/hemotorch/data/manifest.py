"""The manifest of a prepared dataset: one row per slice, as a CSV that any spreadsheet opens."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hemotorch.errors import InputError
from hemotorch.labels import TYPES
from hemotorch.system.files import quoted, text_file, unquoted, write_text

_COLUMNS = (
    "case",
    "patient",
    "site",
    "index",
    "slice_number",
    "position_mm",
    *TYPES,
    "types_known",
    "pixels",
    "positive_pixels",
    "voxel_ml",
    "hash",
)


@dataclass(frozen=True, slots=True)
class SliceRow:
    """One slice, as the manifest has it.

    index: from 0, foot to head; slice_number: the source's own. position_mm: along the scan's normal.
    patient, site: None if unknown. types: whether it holds each of `labels.TYPES`, None if unknown.
    positive_pixels: pixels of the mask that are not zero, 0 if the scan has no mask (see has_mask).
    voxel_ml: mL of one voxel, NaN if unknown. hash: of the slice's HU and size, "" if all pixels are equal.
    """

    case: str
    patient: str | None
    site: str | None
    index: int
    slice_number: int
    position_mm: float
    types: tuple[bool, ...] | None
    pixels: int
    positive_pixels: int
    has_mask: bool
    voxel_ml: float
    hash: str


def volume_ml(rows: Iterable[SliceRow]) -> float:
    """mL of the mask pixels of these slices. NaN if one of them has bleeding and no known size."""
    return math.fsum(row.positive_pixels * row.voxel_ml for row in rows if row.positive_pixels)


def write_manifest(path: Path, rows: Iterable[SliceRow]) -> None:
    """Writes manifest.csv; unknown values are empty cells."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        writer.writerow(_cells(row))
    write_text(path, text.getvalue())


def _cells(row: SliceRow) -> list[object]:
    """The cells of a row, in the order of the columns."""
    types = [""] * len(TYPES) if row.types is None else map(int, row.types)
    return [
        quoted(row.case),
        quoted(row.patient or ""),
        quoted(row.site or ""),
        row.index,
        row.slice_number,
        repr(row.position_mm),
        *types,
        int(row.types is not None),
        row.pixels,
        row.positive_pixels if row.has_mask else "",
        "" if math.isnan(row.voxel_ml) else repr(row.voxel_ml),
        row.hash,
    ]


def read_manifest(path: Path) -> list[SliceRow]:
    """The rows of manifest.csv. Raises InputError if it cannot be read, or holds numbers that no slice can have."""
    try:
        if path.exists():
            text_file(path, "table")
        # Names of cases are names of files, which may hold bytes that are no text.
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            return [_row(entry) for entry in csv.DictReader(file, strict=True)]
    except (OSError, KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise InputError(f"cannot be read ({error})", path, "run the same `hemotorch prepare` again") from error


def _row(entry: dict[str, str]) -> SliceRow:
    types_known = entry["types_known"] == "1"
    row = SliceRow(
        case=unquoted(entry["case"]),
        patient=unquoted(entry["patient"]) or None,
        site=unquoted(entry["site"]) or None,
        index=int(entry["index"]),
        slice_number=int(entry["slice_number"]),
        position_mm=float(entry["position_mm"]),
        types=tuple(entry[name] == "1" for name in TYPES) if types_known else None,
        pixels=int(entry["pixels"]),
        positive_pixels=int(entry["positive_pixels"] or 0),
        has_mask=entry["positive_pixels"] != "",
        voxel_ml=float(entry["voxel_ml"] or math.nan),
        hash=entry["hash"],
    )
    possible = row.index >= 0 and 0 <= row.positive_pixels <= row.pixels
    if not possible or row.voxel_ml < 0 or math.isinf(row.voxel_ml) or math.isinf(row.position_mm):
        raise ValueError(f"impossible numbers of case {row.case}, index {row.index}")
    return row
