"""What the end of a job changes elsewhere, in the same transaction: also of one whose process was killed."""

from __future__ import annotations

import sqlite3

from hemotorch.app.database import Row, announce
from hemotorch.app.schemas import JobKind, JobState, StudyStage


def on_end(connection: sqlite3.Connection, job: Row) -> None:
    """Of a prediction that failed or was cancelled, the study says so."""
    if job["kind"] != JobKind.PREDICT or job["state"] == JobState.DONE:
        return
    failed = job["state"] == JobState.FAILED
    stage = StudyStage.FAILED if failed else StudyStage.IMPORTED
    problem = job["problem"] if failed else "null"
    query = "UPDATE study SET stage = ?, problem = ?, revision = revision + 1 WHERE id = ? RETURNING id"
    if connection.execute(query, (stage.value, problem, job["study"])).fetchone():
        announce(connection, "study", job["study"])
