"""index.html and studies.csv of a folder of predictions: its studies, written anew as they come."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hemotorch.errors import HemotorchError, InputError, one_line
from hemotorch.inference.outputs import MARKED_BYTES, MASK, PAGE, PAGE_MARK, RECORD, SHEET, THUMBNAILS, is_result
from hemotorch.report.index_page import IndexDoubt, IndexRow, index_page
from hemotorch.report.study_files import INDEX
from hemotorch.report.study_table import COLUMNS, write_study_table
from hemotorch.system.files import read_json, write_text

TABLE = "studies.csv"  #: beside index.html
#: Seconds between two lists at least, and how many times as long as the last one took: of 10,000 studies a list takes
#: about a second, so writing it costs no more than a twentieth of any run.
EVERY_S, EVERY_TIMES = 10.0, 20.0


class StudyList:
    """The studies of a folder, those predicted earlier too."""

    def __init__(self, folder: Path):
        """Reads the records that lie in the folder; other files are left alone.

        Raises:
            InputError: if an index.html or studies.csv that hemotorch did not write lies there.
        """
        for name, mark in ((INDEX, PAGE_MARK), (TABLE, ",".join(COLUMNS).encode())):
            if not starts_with_mark(folder / name, mark):
                what = f"{name} was not written by hemotorch, and is not replaced"
                raise InputError(what, folder, "move it elsewhere or choose another --out")
        self._folder = folder
        self._rows: dict[str, IndexRow] = {}
        self._models: dict[str, None] = {}
        self._written_at = time.monotonic()
        self._took = 0.0
        for path in sorted(folder.glob(f"*{RECORD}")):
            with suppress(InputError):
                result = read_json(path)
                if is_result(result):
                    self._add(path.stem, result)

    def add(self, name: str, result: Mapping[str, Any]) -> None:
        """Adds or replaces a study. result: what its NAME.json holds."""
        self._add(name, result)
        self._write_if_due()

    def add_failed(self, name: str, error: HemotorchError) -> None:
        """Adds a study without a result. An earlier result of that name stays."""
        self._rows.setdefault(name, IndexRow(name, failed=one_line(error.what)))
        self._write_if_due()

    def write(self) -> Path:
        """Writes index.html and studies.csv, and returns the path of the first.

        Raises:
            RunError: if the disk is full or read-only.
        """
        start = time.monotonic()
        path = self._folder / INDEX
        # The doubtful ones first, the most doubted before the others; then those without a result, then by mL.
        rows = sorted(self._rows.values(), key=lambda row: (-len(row.doubts), not row.failed, -(row.total_ml or 0.0)))
        write_study_table(self._folder / TABLE, rows)
        write_text(path, index_page(rows, ", ".join(self._models), TABLE))
        self._written_at = time.monotonic()
        self._took = self._written_at - start
        return path

    def _add(self, name: str, result: Mapping[str, Any]) -> None:
        self._models[result.get("model", "")] = None
        self._rows[name] = study_row(self._folder, name, result)

    def _write_if_due(self) -> None:
        if time.monotonic() - self._written_at > max(EVERY_S, EVERY_TIMES * self._took):
            self.write()


def starts_with_mark(path: Path, mark: bytes) -> bool:
    """Whether a file holds the mark in its beginning; also if there is no file, or an empty one."""
    if not path.exists():
        return True
    with path.open("rb") as file:
        head = file.read(MARKED_BYTES)
    return mark in head or not head


def study_row(folder: Path, name: str, result: Mapping[str, Any]) -> IndexRow:
    """The row of a study.

    Args:
        folder: that its files are in.
        name: that they are called.
        result: what NAME.json holds; what an earlier version did not write is left out.
    """
    volumes = dict(result["volume_ml"])
    total = volumes.pop("total", None)
    interval = result.get("interval_ml")
    files = {
        "mask": f"{name}{MASK}",
        **{name.removesuffix(".dcm").rpartition("_")[2].upper(): name for name in result.get("dicom", ())},
        "sheet": f"{name}{SHEET}",
        "JSON": f"{name}{RECORD}",
    }
    page, thumbnail = f"{name}{PAGE}", f"{THUMBNAILS}/{name}.jpg"
    return IndexRow(
        name,
        total_ml=total,
        type_ml=volumes,
        interval_ml=None if interval is None else (interval[0], interval[1]),
        doubts=[IndexDoubt(doubt["code"], doubt["text"]) for doubt in result.get("doubts", ())],
        slices=result.get("slices", 0),
        slices_with_bleeding=len(result.get("slices_with_bleeding", ())),
        warnings=len(result.get("warnings", ())),
        page=page if (folder / page).exists() else "",
        thumbnail=thumbnail if (folder / thumbnail).exists() else "",
        files={what: file for what, file in files.items() if file},
    )
