"""studies.csv: the rows of the list of studies for spreadsheets and statistics, in the same order."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from hemotorch import NOTICE
from hemotorch.inference.study import MARK_ML
from hemotorch.labels import TYPES
from hemotorch.report.index_page import IndexRow
from hemotorch.system.files import quoted, write_text

COLUMNS = (
    "study", "state", "reason", "total_ml", "low_ml", "high_ml", *(f"{kind}_ml" for kind in TYPES), "doubts", "remarks",
    "over_30_ml", "abc2_ml", "longest_mm", "slices", "slices_with_bleeding", "patient", "earlier_study",
    "hours_since_earlier", "change_ml", "change_percent", "grown", "page", "mask", "model", "model_sha256", "notice",
)  # fmt: skip
TABLE_MARK = b"study,state,"  #: how each version's table begins


def write_study_table(path: Path, rows: Sequence[IndexRow]) -> None:
    """Writes one line per study, atomically; a cell is empty if its value is not known.

    Text that a spreadsheet would take for a formula is quoted, see `system.files.quoted`.

    Raises:
        RunError: if the disk is full or read-only.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        low, high = row.interval_ml or (None, None)
        types = [row.type_ml.get(kind) for kind in TYPES]
        codes = " ".join(doubt.code for doubt in row.doubts)
        state = "failed" if row.failed else "done"
        over = None if row.total_ml is None else _yes(row.total_ml > MARK_ML)
        cells: list[object] = [row.name, state, row.failed, row.total_ml, low, high, *types, codes, row.warnings]
        cells += [over, row.abc2_ml, row.longest_mm, row.slices, row.slices_with_bleeding, row.patient, row.earlier]
        cells += [row.hours, row.change_ml, row.change_percent, _yes(row.grown) if row.earlier else None]
        cells += [row.page, row.files.get("mask", ""), row.model, row.model_digest, NOTICE]
        writer.writerow([quoted(cell) for cell in cells])
    # Excel takes UTF-8 for such only if it begins with this mark.
    write_text(path, f"\ufeff{text.getvalue()}")


def _yes(value: bool) -> str:
    return "yes" if value else "no"
