"""The app's SQLite file: transactions, threads, and the log of changes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hemotorch.app.database import KEPT_CHANGES, VERSION, Database, announce
from hemotorch.errors import RunError

TABLE = "CREATE TABLE IF NOT EXISTS count (number INTEGER NOT NULL);"


def test_a_transaction_is_whole_or_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path, TABLE)
    with pytest.raises(KeyError), database.write() as connection:
        connection.execute("INSERT INTO count VALUES (1)")
        raise KeyError
    assert database.rows("SELECT * FROM count") == []
    with database.write() as connection:
        connection.execute("INSERT INTO count VALUES (2)")
    assert [row["number"] for row in Database(tmp_path, TABLE).rows("SELECT * FROM count")] == [2]


def test_threads_that_count_together_lose_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path, TABLE)
    with database.write() as connection:
        connection.execute("INSERT INTO count VALUES (0)")

    def count() -> None:
        for _ in range(20):
            with database.write() as connection:
                (before,) = connection.execute("SELECT number FROM count").fetchone()
                connection.execute("UPDATE count SET number = ?", (before + 1,))
        database.close()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    row = database.row("SELECT number FROM count")
    assert row is not None and row["number"] == 80


def test_old_changes_are_forgotten(tmp_path: Path) -> None:
    database = Database(tmp_path)
    with database.write() as connection:
        for number in range(KEPT_CHANGES + 700):
            announce(connection, "study", f"study-{number}")
    rows = database.rows("SELECT * FROM change ORDER BY number")
    assert KEPT_CHANGES <= len(rows) <= KEPT_CHANGES + 500
    assert rows[-1]["id"] == f"study-{KEPT_CHANGES + 699}"


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "app.sqlite").write_bytes(b"no database " * 1000)
    with pytest.raises(RunError, match="cannot be opened"):
        Database(tmp_path)


def test_a_newer_versions_file_is_refused(tmp_path: Path) -> None:
    with Database(tmp_path, TABLE).write() as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(RunError, match="newer version"):
        Database(tmp_path, TABLE)
