"""Who looked at, corrected, exported or deleted what: a table that is only added to."""

from __future__ import annotations

import time

from hemotorch.app.database import Database, now
from hemotorch.app.refusals import InputError
from hemotorch.app.schemas import AuditLine, AuditPage

TABLES = """
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT NOT NULL,
    user TEXT NOT NULL,
    action TEXT NOT NULL,
    study TEXT NOT NULL,
    detail TEXT NOT NULL
);
"""
LOOK_S = 600.0  #: a reader who scrolls through a study looks at it once in so many seconds
_MOST_LOOKS = 10_000  #: that are remembered


class AuditLog:
    """The log. No line names a patient: studies stand in it by their pseudonyms."""

    def __init__(self, database: Database):
        self._database = database
        self._looks: dict[tuple[str, str], float] = {}

    def note(self, user: str, action: str, study: str = "", detail: str = "") -> None:
        """Writes a line. detail: without names of patients or files."""
        with self._database.write() as connection:
            query = "INSERT INTO audit (time, user, action, study, detail) VALUES (?, ?, ?, ?, ?)"
            connection.execute(query, (now(), user, action, study, detail))

    def look(self, user: str, study: str) -> None:
        """Notes that somebody looks at a study, once in `LOOK_S`."""
        moment = time.monotonic()
        if moment - self._looks.get((user, study), -LOOK_S) < LOOK_S:
            return
        if len(self._looks) >= _MOST_LOOKS:
            self._looks.clear()
        self._looks[user, study] = moment
        self.note(user, "looked", study)

    def page(self, cursor: str, limit: int = 100) -> AuditPage:
        """Lines, newest first. Raises InputError for a cursor that is none."""
        before = 2**62
        if cursor:
            if not (cursor.isascii() and cursor.isdigit()) or len(cursor) > 18:
                raise InputError("is no cursor", cursor[:40], "take `next` of the page before")
            before = int(cursor)
        query = "SELECT * FROM audit WHERE number < ? ORDER BY number DESC LIMIT ?"
        rows = self._database.rows(query, (before, limit + 1))
        following = str(rows[limit - 1]["number"]) if len(rows) > limit else ""
        lines = [AuditLine(**{key: row[key] for key in AuditLine.model_fields}) for row in rows[:limit]]
        return AuditPage(lines=lines, next=following)
