"""Folders of the server that are watched: what is new in them, and no longer being written, is imported."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hemotorch.app.database import Database
from hemotorch.app.refusals import Missing
from hemotorch.app.schemas import Watch

TABLES = """
CREATE TABLE IF NOT EXISTS watch (
    folder TEXT PRIMARY KEY,
    seconds INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS watched (
    entry TEXT PRIMARY KEY,
    digest TEXT NOT NULL
);
"""
_TICK_S = 1.0
_MOST_FILES = 200_000  #: of one entry that are looked at


class Watches:
    """The watched folders. Each entry of one, a file or a folder with all below it, is imported when it rests.

    An entry rests if nothing of it changed between two looks.
    """

    def __init__(self, database: Database, import_entry: Callable[[Path], None]):
        self._database = database
        self._import = import_entry
        self._looked: dict[str, float] = {}
        self._before: dict[str, str] = {}

    def list(self) -> list[Watch]:
        """All of them."""
        return [Watch(**row) for row in self._database.rows("SELECT folder, seconds FROM watch ORDER BY folder")]

    def add(self, watch: Watch) -> None:
        """Watches a folder, or changes how often."""
        with self._database.write() as connection:
            query = "INSERT INTO watch VALUES (?, ?) ON CONFLICT (folder) DO UPDATE SET seconds = excluded.seconds"
            connection.execute(query, (watch.folder, watch.seconds))

    def remove(self, folder: str) -> None:
        """Watches a folder no more. Raises Missing if it was not watched."""
        with self._database.write() as connection:
            if not connection.execute("DELETE FROM watch WHERE folder = ?", (folder,)).rowcount:
                raise Missing("this folder is not watched", folder)

    def run(self, stop: threading.Event) -> None:
        """Looks at the folders until `stop` is set."""
        while not stop.wait(_TICK_S):
            for watch in self.list():
                if time.monotonic() - self._looked.get(watch.folder, -1e9) >= watch.seconds:
                    self._looked[watch.folder] = time.monotonic()
                    self.look(Path(watch.folder))

    def look(self, folder: Path) -> None:
        """Looks at a folder once, and imports what rests and is new."""
        try:
            entries = sorted(entry.path for entry in os.scandir(folder) if not entry.name.startswith("."))
        except OSError:
            return  # a network disk that is away for a while
        for entry in entries:
            digest = _digest(Path(entry))
            rests = self._before.get(entry) == digest
            self._before[entry] = digest
            if not rests:
                continue
            row = self._database.row("SELECT digest FROM watched WHERE entry = ?", (entry,))
            if row is not None and row["digest"] == digest:
                continue
            self._import(Path(entry))
            with self._database.write() as connection:
                query = "INSERT INTO watched VALUES (?, ?) ON CONFLICT (entry) DO UPDATE SET digest = excluded.digest"
                connection.execute(query, (entry, digest))


def _digest(entry: Path) -> str:
    """Of the names, sizes and times of all files of an entry."""
    digest = hashlib.sha256()
    count = 0
    paths = [str(entry)]
    while paths and count < _MOST_FILES:
        path = paths.pop()
        count += 1
        try:
            if os.path.isdir(path) and not os.path.islink(path):
                paths.extend(sorted(child.path for child in os.scandir(path)))
                continue
            status = os.stat(path)
        except OSError:
            continue
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
