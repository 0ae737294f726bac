"""studies.csv: the rows of the list of studies for spreadsheets and statistics, in the same order."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from hemotorch.labels import TYPES
from hemotorch.report.index_page import IndexRow
from hemotorch.system.files import quoted, write_text

COLUMNS = (
    "study", "state", "reason", "total_ml", "low_ml", "high_ml", *(f"{kind}_ml" for kind in TYPES), "doubts", "remarks",
    "slices", "slices_with_bleeding", "page", "mask",
)  # fmt: skip


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
        cells = [row.name, state, row.failed, row.total_ml, low, high, *types, codes, row.warnings]
        cells += [row.slices, row.slices_with_bleeding, row.page, row.files.get("mask", "")]
        writer.writerow([quoted(cell) for cell in cells])
    write_text(path, text.getvalue())
