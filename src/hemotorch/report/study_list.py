"""index.html and studies.csv of a folder of predictions: its studies, written anew as they come."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from hemotorch.errors import HemotorchError, InputError, one_line
from hemotorch.inference.outputs import MARKED_BYTES, MASK, PAGE, PAGE_MARK, RECORD, SHEET, THUMBNAILS
from hemotorch.inference.pseudonyms import KEY_FILE
from hemotorch.inference.study import StudyRecord, read_record
from hemotorch.report.index_page import IndexDoubt, IndexRow, index_page
from hemotorch.report.study_files import INDEX
from hemotorch.report.study_table import TABLE_MARK, write_study_table
from hemotorch.system.files import read_json, write_json, write_text

TABLE = "studies.csv"  #: beside index.html
FAILED = ".failed"  #: JSON: studies without a result and why, by name: no record holds them
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
        for name, mark in ((INDEX, PAGE_MARK), (TABLE, TABLE_MARK)):
            if not starts_with_mark(folder / name, mark):
                what = f"{name} was not written by hemotorch, and is not replaced"
                raise InputError(what, folder, "move it elsewhere or choose another --out")
        self._folder = folder
        self._written_at = time.monotonic()
        self._took = 0.0
        self._failed_now: set[str] = set()

    # Not read before it is needed: `predict_files` waits for nobody, and then no other process writes into the folder.
    @cached_property
    def _rows(self) -> dict[str, IndexRow]:
        """The studies with a record, by name."""
        rows = {}
        for path in sorted(self._folder.glob(f"*{RECORD}")):
            with suppress(InputError):
                record = read_record(path)
                rows[record.name] = study_row(self._folder, record)
        return rows

    @cached_property
    def _failed(self) -> dict[str, str]:
        """Why a study has no result, by name."""
        path = self._folder / FAILED
        if not path.exists():
            return {}
        with suppress(InputError):
            values = read_json(path)
            if isinstance(values, dict):
                return {str(name): str(reason) for name, reason in values.items()}
        return {}

    def add(self, record: StudyRecord) -> None:
        """Adds or replaces a study. If it failed before, it has a result now."""
        self._rows[record.name] = study_row(self._folder, record)
        self.forget_failed(record.name)
        self._write_if_due()

    def add_failed(self, name: str, error: HemotorchError) -> None:
        """Adds a study without a result, which stays until it has one. An earlier result of that name stays too.

        Args:
            name: what its files would be called; of a folder that was given and not read as a whole, its own name.
            error: why. If there are several of one name, all are told.
        """
        reason = one_line("; ".join(filter(None, [error.what, error.todo])))
        if name in self._failed_now:
            reason = f"{self._failed[name]}; {reason}"
        self._failed_now.add(name)
        self._failed[name] = reason
        self._write_if_due()

    def forget_failed(self, name: str) -> None:
        """Takes out what failed under this name, unless it was in this very command."""
        if name not in self._failed_now:
            self._failed.pop(name, None)

    def write(self) -> Path:
        """Writes index.html and studies.csv, and returns the path of the first.

        Raises:
            RunError: if the disk is full or read-only.
        """
        start = time.monotonic()
        path = self._folder / INDEX
        # The doubtful ones first, the most doubted before the others; then those without a result, then by mL.
        done = [row for name, row in self._rows.items() if (self._folder / f"{name}{RECORD}").exists()]
        failed = [IndexRow(name, failed=reason) for name, reason in self._failed.items()]
        rows = [*done, *failed]
        rows.sort(key=lambda row: (-len(row.doubts), not row.failed, -(row.total_ml or 0.0)))
        write_study_table(self._folder / TABLE, rows)
        write_json(self._folder / FAILED, self._failed)
        key = KEY_FILE if (self._folder / KEY_FILE).exists() else ""
        models = dict.fromkeys(row.model for row in done)
        write_text(path, index_page(rows, ", ".join(models), TABLE, key))
        self._written_at = time.monotonic()
        self._took = self._written_at - start
        return path

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


def study_row(folder: Path, record: StudyRecord) -> IndexRow:
    """The row of a study. folder: that its files are in."""
    name = record.name
    types = {kind: ml for kind, ml in record.volume_ml.items() if kind != "total" and ml is not None}
    files = {
        "mask": f"{name}{MASK}",
        **{file.removesuffix(".dcm").rpartition("_")[2].upper(): file for file in record.dicom},
        "sheet": f"{name}{SHEET}",
        "JSON": f"{name}{RECORD}",
    }
    page, thumbnail = f"{name}{PAGE}", f"{THUMBNAILS}/{name}.jpg"
    change = record.follow_up
    return IndexRow(
        name,
        total_ml=record.total_ml,
        type_ml=types,
        interval_ml=record.interval_ml,
        patient=record.patient,
        abc2_ml=record.abc2_ml,
        longest_mm=record.longest_mm,
        model=record.model,
        model_digest=record.model_digest,
        doubts=[IndexDoubt(doubt.code, doubt.text) for doubt in record.doubts],
        earlier="" if change is None else change.earlier,
        hours=None if change is None else change.hours,
        change_ml=None if change is None else change.change_ml,
        change_percent=None if change is None else change.change_percent,
        grown=change is not None and change.grown,
        slices=record.slices,
        slices_with_bleeding=len(record.slices_with_bleeding),
        warnings=len(record.warnings) + (record.left_out is not None),
        page=page if (folder / page).exists() else "",
        thumbnail=thumbnail if (folder / thumbnail).exists() else "",
        files=files,
    )
