"""The studies of a workspace: a row of SQLite and a folder each.

A study's folder is made beside its place and moved there whole; the row is written last. A folder that is to be deleted
is moved aside first. `sweep` removes what a killed process left of either.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hemotorch.app import identities
from hemotorch.app.database import Database, announce, now
from hemotorch.app.identities import StudyPseudonyms, hider_of, identity_of, new_pseudonym
from hemotorch.app.layers import TRUTH, LayerRecord, newest, read_layers, read_mask, write_layer
from hemotorch.app.refusals import Missing
from hemotorch.app.schemas import ReadingState, Refusal, StudyDoubt, StudyStage
from hemotorch.app.stored_scan import SOURCE, link_or_copy, read_scan, read_stored, source_files, write_scan
from hemotorch.inference.scan_files import ScanFiles
from hemotorch.io import FORMATS, files_of
from hemotorch.report.study_pictures import small_picture
from hemotorch.scan import Scan
from hemotorch.system.files import atomic, explained

STUDIES, THUMBNAIL = "studies", "thumbnail.jpg"
_UNFINISHED, _DELETED = ".new.", ".deleted."  #: what such folders' names begin with

#: Doubtful and unread first; what a person has judged, last.
TABLES = f"""
CREATE TABLE IF NOT EXISTS study (
    id TEXT PRIMARY KEY,
    patient TEXT NOT NULL,
    name TEXT NOT NULL,
    hidden INTEGER NOT NULL,
    moment TEXT NOT NULL,
    added TEXT NOT NULL,
    source TEXT NOT NULL,
    description TEXT NOT NULL,
    slices INTEGER NOT NULL,
    origin TEXT NOT NULL,
    digest TEXT NOT NULL,
    stage TEXT NOT NULL DEFAULT 'imported',
    state TEXT NOT NULL DEFAULT 'unread',
    reader TEXT NOT NULL DEFAULT '',
    note TEXT NOT NULL DEFAULT '',
    volume_ml TEXT NOT NULL DEFAULT '{{}}',
    total_ml REAL,
    interval_ml TEXT NOT NULL DEFAULT 'null',
    doubts TEXT NOT NULL DEFAULT '[]',
    doubt_count INTEGER NOT NULL DEFAULT 0,
    problem TEXT NOT NULL DEFAULT 'null',
    versions INTEGER NOT NULL DEFAULT 0,
    growth_ml REAL,
    revision INTEGER NOT NULL DEFAULT 1,
    priority INTEGER GENERATED ALWAYS AS (
        CASE
            WHEN state = 'unread' AND doubt_count > 0 THEN 0
            WHEN state = 'unread' AND stage = 'failed' THEN 1
            WHEN state = 'unread' AND total_ml > 0 THEN 2
            WHEN state = 'unread' THEN 3
            WHEN state = 'unsure' THEN 4
            ELSE 5
        END
    ) VIRTUAL
);
CREATE INDEX IF NOT EXISTS study_by_priority ON study (priority, added DESC, id);
CREATE INDEX IF NOT EXISTS study_by_added ON study (added, id);
CREATE INDEX IF NOT EXISTS study_by_moment ON study (moment, id);
CREATE INDEX IF NOT EXISTS study_by_patient ON study (patient, moment);
CREATE INDEX IF NOT EXISTS study_by_digest ON study (digest);
{identities.TABLES}
"""


@dataclass(frozen=True)
class Added:
    """A study that was to be added. is_new: False if the same scan is here already, as `id`."""

    id: str
    is_new: bool


class Library:
    """The studies of a workspace. Safe to use from several threads and processes."""

    def __init__(self, folder: Path, database: Database):
        """folder: of the workspace. database: that `TABLES` were handed to."""
        self.studies = folder / STUDIES
        self.database = database

    def folder(self, study: str) -> Path:
        """Where a study lies; nothing says that it is there."""
        return self.studies / study

    def pseudonyms(self) -> StudyPseudonyms:
        """What `inference.scan_files.find_scans` calls studies in DICOM by."""
        return StudyPseudonyms(self.database)

    def add(
        self,
        scan: Scan,
        files: ScanFiles,
        *,
        batch: Path | None = None,
        origin: str = "",
        truth: np.ndarray | None = None,
        typed_truth: bool = False,
    ) -> Added:
        """Adds a study. Done twice, it is there once.

        Args:
            scan: as it was read.
            files: that it was read from.
            batch: the folder of the upload that they lie in, from which they are taken over; None if they stay where
                they are.
            origin: the batch or folder that the import was asked for.
            truth: a mask that came along, of the scan's shape; None if there was none.
            typed_truth: whether the mask tells types of bleeding apart.

        Raises:
            RunError: if the disk is full or read-only.
        """
        digest = digest_of(scan)
        known = self.database.row("SELECT id FROM study WHERE digest = ?", (digest,))
        if known is None and files.identity is not None:
            known = self.database.row("SELECT id FROM study WHERE id = ?", (files.named_after.name,))
        if known is not None:
            return Added(str(known["id"]), is_new=False)
        study = files.named_after.name if files.identity is not None else self._new_id()
        unfinished = self.studies / f"{_UNFINISHED}{os.getpid()}.{study}"
        with explained(self.studies):
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            try:
                self._fill(unfinished, study, scan, files, batch)
                if truth is not None:
                    write_layer(unfinished, TRUTH, scan, truth, title="Truth", typed=typed_truth)
                with self.database.write() as connection:
                    taken = connection.execute(
                        "SELECT id FROM study WHERE digest = ? OR id = ?", (digest, study)
                    ).fetchone()
                    if taken is not None:  # another process was faster
                        return Added(str(taken["id"]), is_new=False)
                    shutil.rmtree(self.folder(study), ignore_errors=True)  # of a process that was killed before its row
                    os.replace(unfinished, self.folder(study))
                    _insert(connection, study, scan, files, origin, digest)
                    announce(connection, "study", study)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        return Added(study, is_new=True)

    def scan(self, study: str) -> Scan:
        """A study's scan, its HU mapped into memory, called by the pseudonym. Raises InputError."""
        return read_scan(self.folder(study))

    def scan_files(self, study: str) -> ScanFiles:
        """The files that a study was read from, for `inference.studies.predict_file`. Raises InputError."""
        stored = read_stored(self.folder(study))
        row = self.row(study)
        files = tuple(source_files(self.folder(study), stored))
        identity = identity_of(self.database, study)
        secrets = frozenset() if identity is None else identity.secrets()
        patient = str(row["patient"])
        return ScanFiles(files, Path(study), (), identity, patient, hidden=True, secrets=secrets, key_file="")

    def hider(self, study: str) -> Callable[[str], str]:
        """What takes the patient's name, id and birth date out of texts about a study."""
        return hider_of(self.database, study)

    def set_stage(
        self,
        study: str,
        stage: StudyStage,
        problem: Refusal | None = None,
        connection: sqlite3.Connection | None = None,
    ) -> None:
        """How far the machine is with a study, and why its last job failed. Nothing is done for one that is gone.

        connection: of a transaction that is under way, such as the one that ends a job.
        """
        shown = "null" if problem is None else problem.model_dump_json()
        self._change(study, {"stage": stage.value, "problem": shown}, connection)

    def set_result(
        self,
        study: str,
        doubts: list[StudyDoubt] | None = None,
        stage: StudyStage | None = None,
        connection: sqlite3.Connection | None = None,
    ) -> LayerRecord | None:
        """Puts the newest layer's mL into the worklist, after a layer was written or removed.

        Args:
            study: its id.
            doubts: about the newest prediction; None leaves them as they are.
            stage: how far the machine is now; None leaves it as it is.
            connection: of a transaction that is under way.

        Returns:
            The newest layer, None if there is none but truth.
        """
        folder = self.folder(study)
        record = newest(read_layers(folder))
        if record is not None:
            with atomic(folder / THUMBNAIL) as temporary:
                mask = read_mask(folder, record.layer.id)
                temporary.write_bytes(small_picture(read_scan(folder), mask, record.typed))
        values: dict[str, Any] = {"volume_ml": "{}", "total_ml": None, "interval_ml": "null"}
        if record is not None:
            values["volume_ml"] = json.dumps(record.layer.volume_ml)
            values["total_ml"] = record.total_ml
            values["interval_ml"] = json.dumps(record.interval_ml)
        if doubts is not None:
            values["doubts"] = json.dumps([doubt.model_dump() for doubt in doubts])
            values["doubt_count"] = len(doubts)
        if stage is not None:
            values |= {"stage": stage.value, "problem": "null"}
        self._change(study, values, connection)
        return record

    def set_reading(
        self,
        study: str,
        state: ReadingState | None = None,
        reader: str = "",
        note: str | None = None,
        connection: sqlite3.Connection | None = None,
    ) -> None:
        """What a person says of a study. None leaves state or note as it is."""
        values: dict[str, Any] = {}
        if state is not None:
            values |= {"state": state.value, "reader": reader if state != ReadingState.UNREAD else ""}
        if note is not None:
            values["note"] = note
        self._change(study, values, connection)

    def set_versions(self, study: str, count: int, connection: sqlite3.Connection | None = None) -> None:
        """How many versions a study has."""
        self._change(study, {"versions": count}, connection)

    def touch(self, study: str) -> None:
        """Raises a study's revision, after something of it changed that the worklist does not show."""
        self._change(study, {})

    def delete(self, study: str) -> None:
        """Removes a study and all that belongs to it."""
        aside = self.studies / f"{_DELETED}{study}"
        with explained(self.studies):
            if self.folder(study).exists():
                os.replace(self.folder(study), aside)
            with self.database.write() as connection:
                self._forget(connection, study)
            shutil.rmtree(aside, ignore_errors=True)

    def sweep(self) -> None:
        """Removes what killed processes left; only when a server starts.

        A worker of a server that was killed may still be adding a study: what it has begun stays.
        """
        self.studies.mkdir(parents=True, exist_ok=True)
        for path in list(self.studies.iterdir()):
            if path.name.startswith(_DELETED):
                with self.database.write() as connection:
                    self._forget(connection, path.name.removeprefix(_DELETED))
            if path.name.startswith(_DELETED) or (path.name.startswith(_UNFINISHED) and not _is_at_work(path.name)):
                shutil.rmtree(path, ignore_errors=True)

    def _forget(self, connection: sqlite3.Connection, study: str) -> None:
        row = connection.execute("SELECT patient FROM study WHERE id = ?", (study,)).fetchone()
        connection.execute("DELETE FROM study WHERE id = ?", (study,))
        connection.execute("DELETE FROM identity WHERE study = ?", (study,))
        announce(connection, "study", study)
        if row is not None:
            _refresh_growth(connection, row["patient"])

    def _change(self, study: str, values: dict[str, Any], connection: sqlite3.Connection | None = None) -> None:
        if connection is None:
            with self.database.write() as own:
                self._change(study, values, own)
            return
        assignments = "".join(f"{column} = ?, " for column in values)
        query = f"UPDATE study SET {assignments}revision = revision + 1 WHERE id = ? RETURNING patient"
        row = connection.execute(query, (*values.values(), study)).fetchone()
        if row is None:
            return
        announce(connection, "study", study)
        if "total_ml" in values:
            _refresh_growth(connection, row["patient"])

    def _new_id(self) -> str:
        with self.database.write() as connection:
            return new_pseudonym(connection, "study")

    def row(self, study: str) -> sqlite3.Row:
        """A study's row. Raises Missing if there is no such study."""
        row = self.database.row("SELECT * FROM study WHERE id = ?", (study,))
        if row is None:
            raise Missing("there is no such study", study)
        return row

    def _fill(self, folder: Path, study: str, scan: Scan, files: ScanFiles, batch: Path | None) -> None:
        named: dict[Path, str] = {}
        for path in files_of(files.files):
            absolute = Path(os.path.abspath(path))
            if batch is None:
                named[absolute] = str(absolute)
                continue
            inside = Path(SOURCE) / absolute.relative_to(os.path.abspath(batch))
            link_or_copy(absolute, folder / inside)
            named[absolute] = str(inside)
        sources: tuple[str, ...] = ()
        if scan.source is not None:
            sources = tuple(_within(os.path.abspath(file), named) for file in scan.source.files)
        write_scan(folder, replace(scan, name=study), sources)
        empty = np.zeros(scan.shape, np.uint8)
        (folder / THUMBNAIL).write_bytes(small_picture(scan, empty, typed=False))


def _within(file: str, named: dict[Path, str]) -> str:
    """What a source's file is called in scan.json. It may lie in a zip, as if that were a folder."""
    path = Path(file)
    for candidate in (path, *path.parents):
        if candidate in named:
            return str(named[candidate] / path.relative_to(candidate))
    return file


def _is_at_work(name: str) -> bool:
    """Whether another process that is filling an unfinished folder still lives."""
    number = name.removeprefix(_UNFINISHED).partition(".")[0]
    if not number.isdecimal() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except (OSError, OverflowError):
        return False
    return True


def digest_of(scan: Scan) -> str:
    """SHA-256 of a scan's HU and where they lie: the same scan is not added twice."""
    digest = hashlib.sha256(repr(scan.shape).encode())
    for slice_hu in scan.hu:
        digest.update(slice_hu.tobytes())
    for values in (scan.slice_origins_mm, scan.row_step_mm, scan.column_step_mm):
        digest.update(np.asarray(values, np.float64).tobytes())
    return digest.hexdigest()


def _insert(connection: sqlite3.Connection, study: str, scan: Scan, files: ScanFiles, origin: str, digest: str) -> None:
    moment = "" if files.identity is None or files.identity.moment is None else files.identity.moment.isoformat()
    titles = {module.NAME: module.TITLE for module in FORMATS}
    source = "" if scan.source is None else titles.get(scan.source.format, scan.source.format)
    name = files.path.name if files.identity is None else ""
    rows, columns = scan.shape[1:]
    description = f"{rows} x {columns}"
    if scan.spacing_known:
        thickness = float(np.median(scan.shares_mm))
        description = f"{description}, {thickness:.3g} mm" if np.isfinite(thickness) else description
    values = {
        "id": study,
        "patient": files.patient,
        "name": name,
        "hidden": files.identity is not None,
        "moment": moment,
        "added": now(),
        "source": source,
        "description": description,
        "slices": len(scan.hu),
        "origin": origin,
        "digest": digest,
    }
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO study ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))


def _refresh_growth(connection: sqlite3.Connection, patient: str) -> None:
    """mL since the earlier study, for all studies of a patient."""
    if not patient:
        return
    query = "SELECT id, total_ml, growth_ml FROM study WHERE patient = ? AND moment != '' ORDER BY moment, id"
    before = None
    for row in connection.execute(query, (patient,)).fetchall():
        total = row["total_ml"]
        growth = None if before is None or total is None else round(total - before, 3)
        if growth != row["growth_ml"]:
            update = "UPDATE study SET growth_ml = ?, revision = revision + 1 WHERE id = ?"
            connection.execute(update, (growth, row["id"]))
            announce(connection, "study", row["id"])
        before = total if total is not None else before
