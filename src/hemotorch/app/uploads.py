"""Files that are uploaded: streamed to the disk in pieces, resumed, repeated, and limited while they come.

uploads/BATCH/files/PATH is whole; uploads/BATCH/parts/DIGEST is not yet. A piece is on the disk before it is
acknowledged. How far a file is stands in the database; what lies behind that in a part was never acknowledged.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from typing import IO

from anyio import to_thread
from starlette.requests import ClientDisconnect

from hemotorch.app.database import Database, now
from hemotorch.app.refusals import Conflict, Missing, NoSpace, TooMuch
from hemotorch.app.schemas import UploadBatch, UploadState
from hemotorch.app.settings import AppSettings
from hemotorch.errors import HemotorchError, InputError, some_of
from hemotorch.system.files import disk_error

UPLOADS = "uploads"
TABLES = """
CREATE TABLE IF NOT EXISTS batch (
    id TEXT PRIMARY KEY,
    user TEXT NOT NULL,
    created TEXT NOT NULL,
    imported INTEGER NOT NULL DEFAULT 0,
    job TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS upload (
    batch TEXT NOT NULL REFERENCES batch (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    offset INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL DEFAULT '',
    done INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (batch, path)
);
"""
BATCH_ID = r"^[A-Za-z0-9][A-Za-z0-9_-]{7,63}$"
_PIECE = 2**20  #: bytes that are written at once
_MOST_PATH, _MOST_DEPTH, _MOST_NAME = 1000, 32, 240
_CHECK_SPACE = 64 * 2**20  #: bytes after which the disk's free space is looked at again
_REFUSED = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')


def safe_path(path: str) -> str:
    """The path of an uploaded file as it is kept. Raises InputError for one that could lead anywhere else."""
    normal = unicodedata.normalize("NFC", path)
    parts = normal.split("/")
    todo = "give the file a plain name"
    if not normal or len(os.fsencode(normal)) > _MOST_PATH or len(parts) > _MOST_DEPTH:
        raise InputError("a path is too long, or empty", normal[:60], todo)
    for part in parts:
        if part in ("", ".", "..") or part.startswith("~"):
            raise InputError("a path leads out of its folder", normal[:60], "give its path inside the folder")
        if _REFUSED.search(part) or not part.isprintable() or part.endswith((" ", ".")):
            raise InputError("a name holds a character that not all disks take", normal[:60], todo)
        if len(os.fsencode(part)) > _MOST_NAME:
            raise InputError("a name is too long", normal[:60], todo)
        if PureWindowsPath(part).is_reserved():
            raise InputError("a name is that of a device", normal[:60], todo)
    return normal


class Uploads:
    """Batches of uploaded files. One process receives; others may read what is whole."""

    def __init__(self, folder: Path, database: Database, settings: AppSettings):
        self._folder = folder / UPLOADS
        self._database = database
        self._settings = settings
        self._busy: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def files_folder(self, batch: str) -> Path:
        """Where the whole files of a batch lie."""
        return self._folder / batch / "files"

    async def receive(
        self, batch: str, path: str, offset: int, total: int, sha256: str, body: AsyncIterator[bytes], user: str
    ) -> UploadState:
        """Takes a piece of a file. The same piece again does no harm.

        Args:
            batch: its id, made if it is new.
            path: inside the batch.
            offset: of the piece's first byte.
            total: bytes of the whole file.
            sha256: of the whole file, in hexadecimal; "" if the client does not say.
            body: the piece.
            user: who uploads.

        Raises:
            InputError: for a path that is refused, or a whole file that has another digest.
            Conflict: if the piece does not follow on what is there, or another request writes the same file.
            TooMuch: if it is more than was announced, or than the server takes.
            NoSpace: if the disk is full.
        """
        path = safe_path(path)
        with self._alone(batch, path):
            state = await to_thread.run_sync(self._begin, batch, path, offset, total, user)
            if state.done:
                async for _ in body:  # a client that did not hear the answer sends it again
                    pass
                if sha256 and sha256 != state.sha256:
                    raise Conflict("another file was uploaded under this name", path, "choose another batch")
                return state
            received = await self._stream(batch, path, offset, total, body)
            if received < total:
                return await to_thread.run_sync(self._state, batch, path)
            return await to_thread.run_sync(self._finish, batch, path, total, sha256)

    def batch(self, batch: str) -> UploadBatch:
        """What is there of a batch. Raises Missing."""
        row = self._database.row("SELECT * FROM batch WHERE id = ?", (batch,))
        if row is None:
            raise Missing("there is no such upload", batch)
        query = "SELECT path, offset, bytes, sha256, done FROM upload WHERE batch = ? ORDER BY path"
        files = [UploadState(**row) for row in self._database.rows(query, (batch,))]
        return UploadBatch(id=batch, files=files, imported=bool(row["imported"]), job=row["job"])

    def check_whole(self, batch: str) -> UploadBatch:
        """A batch whose files are all there. Raises Missing, or Conflict if some are not."""
        state = self.batch(batch)
        unfinished = [file.path for file in state.files if not file.done]
        if unfinished or not state.files:
            what = f"not all files are there yet ({some_of(unfinished, 3)})" if unfinished else "holds no file"
            raise Conflict(what, batch, "send the rest first")
        return state

    def set_job(self, batch: str, job: str) -> None:
        """Notes which job imports a batch."""
        with self._database.write() as connection:
            connection.execute("UPDATE batch SET job = ? WHERE id = ?", (job, batch))

    def imported(self, batch: str) -> None:
        """After an import: the studies have the files, the batch needs them no more."""
        with self._database.write() as connection:
            connection.execute("UPDATE batch SET imported = 1 WHERE id = ?", (batch,))
        shutil.rmtree(self._folder / batch, ignore_errors=True)

    def delete(self, batch: str) -> None:
        """Removes a batch and its files. Raises Missing, or Conflict while a file of it is received."""
        self.batch(batch)
        with self._lock:
            if any(name == batch for name, _ in self._busy):
                raise Conflict("a file of it is being received", batch, "end that first")
        with self._database.write() as connection:
            connection.execute("DELETE FROM batch WHERE id = ?", (batch,))
        shutil.rmtree(self._folder / batch, ignore_errors=True)

    def recover(self) -> None:
        """Puts right what a server that was killed left between the disk and the database; before any is received."""
        for row in self._database.rows("SELECT * FROM upload WHERE done = 0"):
            part, target = self._part(row["batch"], row["path"]), self.files_folder(row["batch"]) / row["path"]
            there = part.stat().st_size if part.is_file() else 0
            if there >= row["offset"] and (there or not row["bytes"]):
                continue
            if target.is_file() and target.stat().st_size == row["bytes"]:  # moved to its place, and not noted yet
                part.parent.mkdir(parents=True, exist_ok=True)
                os.replace(target, part)
                self._finish(row["batch"], row["path"], row["bytes"], "")
            else:
                self._save(row["batch"], row["path"], there)

    @contextmanager
    def _alone(self, batch: str, path: str) -> Iterator[None]:
        key = (batch, path)
        with self._lock:
            if key in self._busy:
                raise Conflict("another request is writing this file", path, "ask for the offset, and go on from there")
            self._busy.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(key)

    def _part(self, batch: str, path: str) -> Path:
        return self._folder / batch / "parts" / hashlib.sha256(path.encode()).hexdigest()

    def _begin(self, batch: str, path: str, offset: int, total: int, user: str) -> UploadState:
        """Checks a piece against what is there, and cuts off what was never acknowledged."""
        limits = self._settings
        if total > limits.max_file_mb * 10**6:
            raise TooMuch(f"a file may have {limits.max_file_mb:,} MB", path, "start the server with --max-upload-mb")
        self._check_space(total - offset)
        with self._database.write() as connection:
            query = "INSERT INTO batch (id, user, created) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
            connection.execute(query, (batch, user, now()))
            row = connection.execute("SELECT * FROM batch WHERE id = ?", (batch,)).fetchone()
            known = connection.execute("SELECT * FROM upload WHERE batch = ? AND path = ?", (batch, path)).fetchone()
            if row["imported"] or (row["job"] and (known is None or not known["done"])):
                raise Conflict("this upload is imported already", batch, "choose another batch")
            if known is None:
                query = "SELECT count(*), coalesce(sum(bytes), 0) FROM upload WHERE batch = ?"
                count, size = connection.execute(query, (batch,)).fetchone()
                if count >= limits.max_batch_files or size + total > limits.max_batch_mb * 10**6:
                    what = f"an upload may have {limits.max_batch_files:,} files and {limits.max_batch_mb:,} MB"
                    raise TooMuch(what, batch, "upload the rest by itself")
                connection.execute("INSERT INTO upload (batch, path, bytes) VALUES (?, ?, ?)", (batch, path, total))
        state = self._state(batch, path)
        if state.bytes != total:
            raise Conflict(f"{state.bytes:,} bytes were announced before, now {total:,}", path, "choose another batch")
        if state.done:
            return state
        if offset > state.offset:
            raise Conflict(f"only {state.offset:,} bytes are there", path, f"go on from byte {state.offset}")
        part = self._part(batch, path)
        part.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "ab") as file:
            file.truncate(offset)
        if offset < state.offset:
            self._save(batch, path, offset)
        return state

    async def _stream(self, batch: str, path: str, offset: int, total: int, body: AsyncIterator[bytes]) -> int:
        """Appends a piece; gives the offset that is on the disk then. What came before an error is kept."""
        place, unchecked = offset, 0
        buffer = bytearray()
        with open(self._part(batch, path), "r+b") as file:
            file.seek(offset)
            try:
                async for chunk in body:
                    if place + len(buffer) + len(chunk) > total:
                        raise TooMuch(f"more than the {total:,} bytes that were announced", path)
                    buffer += chunk
                    if len(buffer) >= _PIECE:
                        unchecked += len(buffer)
                        if unchecked >= _CHECK_SPACE:
                            self._check_space(total - place)
                            unchecked = 0
                        await to_thread.run_sync(_write, file, bytes(buffer))
                        place += len(buffer)
                        buffer.clear()
                await to_thread.run_sync(_write, file, bytes(buffer))
                place += len(buffer)
            except ClientDisconnect:
                with suppress(OSError, HemotorchError):
                    await to_thread.run_sync(self._keep, file, batch, path, place)
                raise
            except OSError as error:
                raise _no_space(error, path) from error
            await to_thread.run_sync(self._keep, file, batch, path, place)
        return place

    def _keep(self, file: IO[bytes], batch: str, path: str, offset: int) -> None:
        try:
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise _no_space(error, path) from error
        self._save(batch, path, offset)

    def _save(self, batch: str, path: str, offset: int) -> None:
        with self._database.write() as connection:
            query = "UPDATE upload SET offset = ? WHERE batch = ? AND path = ?"
            connection.execute(query, (offset, batch, path))

    def _finish(self, batch: str, path: str, total: int, sha256: str) -> UploadState:
        """The whole file under its own name. Raises InputError if its digest is another."""
        part = self._part(batch, path)
        with open(part, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 and digest != sha256.lower():
            part.unlink()
            self._save(batch, path, 0)
            raise InputError("arrived damaged: its SHA-256 is another", path, "send it again from byte 0")
        target = self.files_folder(batch) / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, target)
            for folder in (part.parent, target.parent):
                _sync_folder(folder)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise Conflict("a file and a folder have the same name", path, "rename one of them") from error
        except OSError as error:
            raise _no_space(error, path) from error
        with self._database.write() as connection:
            query = "UPDATE upload SET offset = ?, sha256 = ?, done = 1 WHERE batch = ? AND path = ?"
            connection.execute(query, (total, digest, batch, path))
        return self._state(batch, path)

    def _state(self, batch: str, path: str) -> UploadState:
        query = "SELECT path, offset, bytes, sha256, done FROM upload WHERE batch = ? AND path = ?"
        row = self._database.row(query, (batch, path))
        if row is None:
            raise Missing("there is no such upload", path)
        return UploadState(**row)

    def _check_space(self, needed: int) -> None:
        folder = self._folder if self._folder.exists() else self._folder.parent
        free = shutil.disk_usage(folder).free
        if free - needed < self._settings.spare_mb * 10**6:
            what = f"{free / 1e6:,.0f} MB are free on the server's disk, too few for {needed / 1e6:,.0f} MB more"
            raise NoSpace(what, todo="free some space on the server and send the rest again")


def _write(file: IO[bytes], piece: bytes) -> None:
    file.write(piece)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _no_space(error: OSError, path: str) -> HemotorchError:
    known = disk_error(error, path)
    todo = "free some space on the server and send the rest again"
    return NoSpace(known.what if known else f"cannot be written ({error.strerror})", path, todo)
