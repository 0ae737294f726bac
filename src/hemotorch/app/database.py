"""The workspace's SQLite file: one connection per thread, writes that are whole or not at all, and its change log.

Each part of the app keeps its tables and hands their SQL to `Database` when it is opened, so that the server and each
job's process open the same file in the same way.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hemotorch.errors import RunError

FILE = "app.sqlite"
BUSY_S = 30.0  #: how long a write waits for others; none holds the lock longer than some milliseconds
VERSION = 1  #: of the tables; raised if an older version could not use a newer one's
KEPT_CHANGES = 10_000  #: a listener that is farther behind reads everything anew

#: What changed, in order; server-sent events are made from it. kind: study, job or training. id: of that.
CHANGES = """
CREATE TABLE IF NOT EXISTS change (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    id TEXT NOT NULL
);
"""

Row = sqlite3.Row


class Database:
    """The file. Safe to use from several threads and processes."""

    def __init__(self, folder: Path, *tables: str):
        """Opens it, and makes what is missing.

        Args:
            folder: the workspace.
            tables: SQL that makes tables and indices if they are not there yet.

        Raises:
            RunError: if the file cannot be opened.
        """
        self.path = folder / FILE
        self._of_thread = threading.local()
        try:
            connection = self._connection()
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                what = "was opened by a newer version of hemotorch"
                raise RunError(what, self.path, "install that version again, or restore an older backup")
            # Kept in the file. Set here only, since a change of mode does not wait for other connections.
            connection.execute("PRAGMA journal_mode = WAL")
            for statements in (CHANGES, *tables):
                connection.executescript(statements)
            if version < VERSION:
                connection.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.Error as error:
            raise RunError(f"cannot be opened ({error})", self.path, "restore it from a backup") from error

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
            connection.row_factory = Row
            # A commit is on the disk before it is acknowledged: NORMAL could lose the last ones if the power fails.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            self._of_thread.connection = connection
        return connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is kept if the block ends well, and nothing if it does not."""
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error:  # the disk is full
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """What a query gives."""
        return self._connection().execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """The first row of a query, None if it has none."""
        first: Row | None = self._connection().execute(sql, values).fetchone()
        return first

    def close(self) -> None:
        """Closes this thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._of_thread, "connection", None)
        if connection is not None:
            connection.close()
            self._of_thread.connection = None


def announce(connection: sqlite3.Connection, kind: str, key: str) -> None:
    """Says inside a transaction that a study, job or training has changed; `key` is its id."""
    number = connection.execute("INSERT INTO change (kind, id) VALUES (?, ?)", (kind, key)).lastrowid or 0
    if number % 500 == 0:
        connection.execute("DELETE FROM change WHERE number <= ?", (number - KEPT_CHANGES,))


def now() -> str:
    """The time in UTC, as tables and the interface have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
