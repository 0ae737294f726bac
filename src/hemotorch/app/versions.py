"""Corrections: each reader's draft of a study, and the versions that are made of drafts and never change again.

studies/ID/drafts/USER-REVISION.npy    the row names the file that counts, so that no draft is half written
studies/ID/versions/NUMBER/            a layer, see `layers`
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import sqlite3
from pathlib import Path

import numpy as np

from hemotorch.app.database import Database, Row, announce, now
from hemotorch.app.layers import VERSION, layer_folder, read_layer, read_mask, rounded, write_layer
from hemotorch.app.library import Library
from hemotorch.app.refusals import Conflict, Missing, Stale
from hemotorch.app.schemas import Draft, ReadingState, Version
from hemotorch.app.stored_scan import mapped
from hemotorch.errors import InputError
from hemotorch.labels import CODES, UNTYPED
from hemotorch.scan import Scan
from hemotorch.system.files import atomic, explained

DRAFTS = "drafts"
#: The row of a draft that was removed stays, so that its revisions go on: a tab that has seen revision 1 of the draft
#: before must not overwrite revision 1 of the next.
TABLES = """
CREATE TABLE IF NOT EXISTS draft (
    study TEXT NOT NULL,
    user TEXT NOT NULL,
    base TEXT NOT NULL,
    revision INTEGER NOT NULL,
    time TEXT NOT NULL,
    removed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (study, user)
);
CREATE TABLE IF NOT EXISTS version (
    study TEXT NOT NULL,
    number INTEGER NOT NULL,
    user TEXT NOT NULL,
    time TEXT NOT NULL,
    comment TEXT NOT NULL,
    base TEXT NOT NULL,
    changed_ml REAL,
    PRIMARY KEY (study, number)
);
CREATE TRIGGER IF NOT EXISTS drafts_of_deleted AFTER DELETE ON study BEGIN
    DELETE FROM draft WHERE study = OLD.id;
    DELETE FROM version WHERE study = OLD.id;
END;
"""


_STAGED = ".version-"  #: what the folder of a version begins with while it is being written
_OF_READER = "SELECT * FROM draft WHERE study = ? AND user = ?"


class NewerVersion(Conflict):
    """Somebody saved a version that the reader has not seen. newest: that version."""

    def __init__(self, newest: Version):
        what = f"version {newest.number} was saved meanwhile"
        super().__init__(what, newest.study, "look at it, then save again")
        self.newest = newest


class Versions:
    """Drafts and versions of a workspace. Safe to use from several threads and processes."""

    def __init__(self, database: Database, library: Library):
        """database: that `TABLES` were handed to."""
        self._database, self._library = database, library

    def draft(self, study: str, user: str) -> Draft | None:
        """A reader's draft; None if there is none."""
        row = self._database.row(f"{_OF_READER} AND NOT removed", (study, user))
        return None if row is None else _draft(row)

    def draft_mask(self, draft: Draft, user: str) -> np.ndarray:
        """(slices, rows, columns) uint8 codes of a draft. Raises Missing if it was saved again or removed meanwhile."""
        path = self._draft_file(draft.study, user, draft.revision)
        if not path.is_file():
            raise Missing("the draft was saved again or removed meanwhile", draft.study)
        return mapped(path)

    def save_draft(self, study: str, user: str, base: str, mask: np.ndarray, revision: int) -> Draft:
        """Saves a draft over the reader's former one.

        Args:
            study: its id.
            user: the reader.
            base: the layer that it began from, "" for none.
            mask: (slices, rows, columns) uint8 codes of `labels`.
            revision: of the draft that the reader's tab has seen, 0 if it has seen none.

        Raises:
            Missing: if there is no such study or base.
            Stale: if another tab saved meanwhile; nothing is changed then.
            InputError: if the mask does not fit the scan or holds what is no code.
        """
        shape = self._library.scan(study).shape
        if mask.shape != shape or mask.dtype != np.uint8:
            raise InputError(f"a mask of {mask.dtype} and shape {mask.shape} does not fit its scan {shape}", study)
        if mask.size and mask.max() > UNTYPED:
            raise InputError(f"holds {mask.max()}, which is no code: they go from 0 to {UNTYPED}", study)
        if base:
            read_layer(self._library.folder(study), base)
        self._next_revision(self._database.row(_OF_READER, (study, user)), study, revision)
        # Two tabs may write at once: only the one whose row is written gives its file the name that counts.
        unsure = self._library.folder(study) / DRAFTS / f".{secrets.token_hex(4)}.npy"
        try:
            with explained(unsure.parent), atomic(unsure) as temporary, open(temporary, "wb") as file:
                np.save(file, np.ascontiguousarray(mask), allow_pickle=False)
            with self._database.write() as connection:
                row = connection.execute(_OF_READER, (study, user)).fetchone()
                following = self._next_revision(row, study, revision)
                saved = Draft(study=study, base=base, revision=following, time=now())
                values = (study, user, base, saved.revision, saved.time)
                connection.execute("INSERT OR REPLACE INTO draft VALUES (?, ?, ?, ?, ?, 0)", values)
                os.replace(unsure, self._draft_file(study, user, following))
        finally:
            unsure.unlink(missing_ok=True)
        self._remove_old_drafts(study, user, saved.revision)
        return saved

    def delete_draft(self, study: str, user: str) -> None:
        """Removes a reader's draft, if there is one."""
        with self._database.write() as connection:
            connection.execute("UPDATE draft SET removed = 1 WHERE study = ? AND user = ?", (study, user))
        self._remove_old_drafts(study, user, None)

    def versions(self, study: str) -> list[Version]:
        """A study's versions, the oldest first."""
        rows = self._database.rows("SELECT * FROM version WHERE study = ? ORDER BY number", (study,))
        return [self._version(row) for row in rows]

    def version(self, study: str, number: int) -> Version:
        """A version. Raises Missing if there is none of that number."""
        row = self._database.row("SELECT * FROM version WHERE study = ? AND number = ?", (study, number))
        if row is None:
            raise Missing("there is no such version", f"{study}, version {number}")
        return self._version(row)

    def save_version(self, study: str, user: str, after: int, comment: str, blind: bool = False) -> Version:
        """Makes a version of a reader's draft, and removes the draft.

        Args:
            study: its id.
            user: the reader.
            after: the newest version that the reader has seen, 0 if none.
            comment: what the reader says of it.
            blind: the reader sees no other reader's versions before saving one.

        Raises:
            Missing: if the reader has no draft of it.
            NewerVersion: if a version was saved that the reader has not seen.
        """
        draft = self.draft(study, user)
        if draft is None:
            raise Missing("there is no draft to save", study, "correct something first")
        self._check_newest(study, user, after, blind)
        mask = np.array(self.draft_mask(draft, user))
        scan = self._library.scan(study)
        folder = self._library.folder(study)
        typed = bool(((mask > 0) & (mask <= len(CODES))).any()) or self._is_typed(study, draft.base)
        staged = folder / f"{_STAGED}{secrets.token_hex(6)}"
        try:
            while True:
                number = self._newest(study) + 1
                layer = f"{VERSION}:{number}"
                title = f"Version {number}"
                write_layer(staged, layer, scan, mask, title=title, typed=typed, user=user)
                changed = self._changed_ml(study, draft.base, scan, read_mask(staged, layer))
                with self._database.write() as connection:
                    if self._newest(study, connection) + 1 != number:  # another reader was faster
                        self._check_newest(study, user, after, blind)
                        continue
                    values = (study, number, user, now(), comment, draft.base, changed)
                    connection.execute("INSERT INTO version VALUES (?, ?, ?, ?, ?, ?, ?)", values)
                    query = "UPDATE draft SET removed = 1 WHERE study = ? AND user = ? AND revision = ?"
                    connection.execute(query, (study, user, draft.revision))
                    announce(connection, "study", study)
                    place = layer_folder(folder, layer)
                    shutil.rmtree(place, ignore_errors=True)  # of a process that was killed before its row
                    place.parent.mkdir(exist_ok=True)
                    os.replace(layer_folder(staged, layer), place)
                break
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        self._after_saving(study)
        if self.draft(study, user) is None:
            self._remove_old_drafts(study, user, None)
        return self.version(study, number)

    def recover(self) -> None:
        """Puts right what a server that was killed while it saved left: only when a server starts."""
        for path in self._library.studies.glob(f"*/{_STAGED}*"):
            shutil.rmtree(path, ignore_errors=True)
        saved = {(row["study"], row["number"]) for row in self._database.rows("SELECT study, number FROM version")}
        for path in self._library.studies.glob("*/versions/*"):
            # A folder is there a moment before its row. Without a row nobody was told that it was saved.
            if path.name.isdecimal() and (path.parents[1].name, int(path.name)) not in saved:
                shutil.rmtree(path, ignore_errors=True)
        query = """
            SELECT id, count(number) AS count FROM study LEFT JOIN version ON version.study = study.id
            GROUP BY id HAVING count(number) != study.versions
        """
        for row in self._database.rows(query):
            self._after_saving(row["id"])

    def _after_saving(self, study: str) -> None:
        """Puts the newest version into the worklist."""
        newest = self.versions(study)[-1:]
        self._library.set_versions(study, self._newest(study))
        for version in newest:
            self._library.set_reading(study, ReadingState.CORRECTED, version.user)
        self._library.set_result(study)

    def _newest(self, study: str, connection: sqlite3.Connection | None = None) -> int:
        query = "SELECT coalesce(max(number), 0) FROM version WHERE study = ?"
        rows = self._database.rows(query, (study,)) if connection is None else connection.execute(query, (study,))
        (row,) = rows
        return int(row[0])

    def _check_newest(self, study: str, user: str, after: int, blind: bool) -> None:
        """Raises NewerVersion. A blind reader has no version yet, and is not told of those of others."""
        seen = self.versions(study)
        if blind and not any(version.user == user for version in seen):
            seen = []
        newest = seen[-1].number if seen else 0
        if after > newest:
            raise InputError(f"there is no version {after}", study)
        if after < newest:
            raise NewerVersion(seen[-1])

    def _next_revision(self, row: Row | None, study: str, seen: int) -> int:
        """The revision of the next save. row: of the draft; seen: what the tab has seen. Raises Stale."""
        newest = 0 if row is None or row["removed"] else row["revision"]
        if seen != newest:
            what = "the draft was saved in another tab" if newest else "the draft was saved as a version, or removed"
            raise Stale(what, study, "load it again, or go on there")
        return 1 if row is None else int(row["revision"]) + 1

    def _is_typed(self, study: str, base: str) -> bool:
        return bool(base) and read_layer(self._library.folder(study), base).typed

    def _changed_ml(self, study: str, base: str, scan: Scan, mask: np.ndarray) -> float | None:
        """mL of the voxels whose code is not that of the base."""
        before: np.ndarray = np.zeros_like(mask)
        if base:
            before = read_mask(self._library.folder(study), base)
        return rounded(scan.volume_ml(mask != before))

    def _version(self, row: Row) -> Version:
        record = read_layer(self._library.folder(row["study"]), f"{VERSION}:{row['number']}")
        return Version(volume_ml=record.layer.volume_ml, **dict(row))

    def _draft_file(self, study: str, user: str, revision: int) -> Path:
        return self._library.folder(study) / DRAFTS / f"{_user_key(user)}-{revision}.npy"

    def _remove_old_drafts(self, study: str, user: str, kept: int | None) -> None:
        for path in (self._library.folder(study) / DRAFTS).glob(f"{_user_key(user)}-*.npy"):
            number = path.stem.rpartition("-")[2]
            if number.isdigit() and (kept is None or int(number) < kept):
                path.unlink(missing_ok=True)


def _draft(row: Row) -> Draft:
    return Draft(study=row["study"], base=row["base"], revision=row["revision"], time=row["time"])


def _user_key(user: str) -> str:
    """What a reader's files are called: no name of a person stands in a path."""
    return hashlib.sha256(user.encode()).hexdigest()[:16]
