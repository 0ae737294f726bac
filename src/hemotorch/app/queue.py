"""Jobs that survive whatever is killed: a table of SQLite with leases.

A worker leases a job and renews the lease while it works. A lease that runs out, since the worker was killed or the
machine was switched off, puts the job back; after `MOST_LOSSES` it fails instead. What a job changes and its end are
one transaction that only the lease's holder can make, so that a job that was done again counts once.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from hemotorch.app.database import Database, Row, announce, now
from hemotorch.app.refusals import Missing
from hemotorch.app.schemas import AppJob, JobKind, JobPage, JobState, Refusal
from hemotorch.errors import InputError, RunError

LEASE_S = 20.0  #: without a heartbeat, until a job counts as lost
HEARTBEAT_S = 2.0
MOST_LOSSES = 3  #: of a job's workers, before it fails: what kills its process three times will kill it again
MOST_PROBLEMS = 1000  #: of a job that are kept

TABLES = """
CREATE TABLE IF NOT EXISTS job (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    title TEXT NOT NULL,
    study TEXT NOT NULL,
    training TEXT NOT NULL,
    user TEXT NOT NULL,
    request TEXT NOT NULL,
    priority INTEGER NOT NULL,
    label TEXT NOT NULL DEFAULT '',
    done INTEGER NOT NULL DEFAULT 0,
    total INTEGER,
    unit TEXT NOT NULL DEFAULT '',
    problems TEXT NOT NULL DEFAULT '[]',
    problem TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    lease TEXT NOT NULL DEFAULT '',
    lease_until REAL NOT NULL DEFAULT 0,
    cancel INTEGER NOT NULL DEFAULT 0,
    created TEXT NOT NULL,
    started TEXT NOT NULL DEFAULT '',
    ended TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS job_by_state ON job (state, priority, number);
CREATE INDEX IF NOT EXISTS job_by_study ON job (study, number);
CREATE INDEX IF NOT EXISTS job_by_training ON job (training, number);
"""

#: What a person waits for comes first, whatever else is waiting.
_PRIORITY = {
    JobKind.EXPORT_VERSION: 0,
    JobKind.IMPORT: 1,
    JobKind.DATASET: 1,
    JobKind.PREDICT: 2,
    JobKind.TRAIN: 4,
}


#: Told of a job that has ended: its row, in the transaction that ends it.
OnEnd = Callable[[sqlite3.Connection, Row], None]


class LeaseLost(RunError):
    """Another worker has the job, or nobody: what this one did does not count."""


@dataclass(frozen=True)
class LeasedJob:
    """A job and the lease on it. request: JSON of what is to be done."""

    id: str
    kind: JobKind
    study: str
    training: str
    user: str
    request: str
    lease: str
    attempts: int


class JobQueue:
    """The table. Safe to use from several threads and processes."""

    def __init__(self, database: Database, on_end: OnEnd | None = None):
        """database: that `TABLES` were handed to. on_end: called for each job that ends, in the same transaction."""
        self.database = database
        self._on_end = on_end

    def add(
        self,
        kind: JobKind,
        request: str,
        title: str,
        *,
        study: str = "",
        training: str = "",
        user: str = "",
        connection: sqlite3.Connection | None = None,
    ) -> AppJob:
        """Puts a job at the end of the queue.

        Args:
            kind: what it does.
            request: JSON that its kind reads.
            title: for people, without a patient's name.
            study: that it is about, "" if none or several.
            training: that it is about.
            user: who asked for it.
            connection: of a transaction that is under way, such as the one that ends another job.
        """
        if connection is None:
            with self.database.write() as own:
                return self.add(kind, request, title, study=study, training=training, user=user, connection=own)
        name = f"job-{secrets.token_hex(6)}"
        columns = "id, kind, title, study, training, user, request, priority, created"
        values = (name, kind.value, title, study, training, user, request, _PRIORITY[kind], now())
        query = f"INSERT INTO job ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *"
        row = connection.execute(query, values).fetchone()
        announce(connection, "job", name)
        return shown(row)

    def lease(self, kinds: Sequence[JobKind], lease: str, most: int) -> LeasedJob | None:
        """Leases the next job of these kinds; None if there is none, or if `most` of them are running already."""
        marks = ", ".join("?" * len(kinds))
        waiting = f"SELECT id FROM job WHERE state = 'waiting' AND kind IN ({marks}) ORDER BY priority, number LIMIT 1"
        if not self.has_waiting(kinds):  # which needs no lock, and is asked often
            return None
        with self.database.write() as connection:
            self._put_back(connection, "lease_until < ?", (time.time(),))
            query = f"SELECT count(*) FROM job WHERE state = 'running' AND kind IN ({marks})"
            if connection.execute(query, kinds).fetchone()[0] >= most:
                return None
            row = connection.execute(waiting, kinds).fetchone()
            if row is None:
                return None
            values = "state = 'running', lease = ?, lease_until = ?, started = ?, attempts = attempts + 1"
            reset = "ended = '', label = '', done = 0, total = NULL, unit = '', problems = '[]', problem = NULL"
            query = f"UPDATE job SET {values}, {reset} WHERE id = ? RETURNING *"
            row = connection.execute(query, (lease, time.time() + LEASE_S, now(), row["id"])).fetchone()
            announce(connection, "job", row["id"])
        return LeasedJob(
            row["id"],
            JobKind(row["kind"]),
            row["study"],
            row["training"],
            row["user"],
            row["request"],
            lease,
            row["attempts"],
        )

    def renew(self, job: LeasedJob) -> bool:
        """Renews the lease. Returns whether the job is to be cancelled. Raises LeaseLost."""
        with self.database.write() as connection:
            query = "UPDATE job SET lease_until = ? WHERE id = ? AND lease = ? AND state = 'running' RETURNING cancel"
            row = connection.execute(query, (time.time() + LEASE_S, job.id, job.lease)).fetchone()
        if row is None:
            raise _lost(job)
        return bool(row["cancel"])

    def report(self, job: LeasedJob, label: str, done: int, total: int | None, unit: str) -> None:
        """Says how far a job is. Raises LeaseLost."""
        with self._held(job) as connection:
            query = "UPDATE job SET label = ?, done = ?, total = ?, unit = ? WHERE id = ?"
            connection.execute(query, (label, done, total, unit, job.id))

    def add_problem(self, job: LeasedJob, problem: Refusal) -> None:
        """Notes what could not be done of a job that goes on. Raises LeaseLost."""
        with self._held(job) as connection:
            text = connection.execute("SELECT problems FROM job WHERE id = ?", (job.id,)).fetchone()["problems"]
            problems = json.loads(text)
            if len(problems) < MOST_PROBLEMS:
                problems.append(problem.model_dump())
                connection.execute("UPDATE job SET problems = ? WHERE id = ?", (json.dumps(problems), job.id))

    @contextmanager
    def finish(self, job: LeasedJob) -> Iterator[sqlite3.Connection]:
        """A transaction that ends a job as done, together with what it changes. Raises LeaseLost."""
        with self._held(job) as connection:
            yield connection
            self._end(connection, job.id, JobState.DONE)

    def fail(self, job: LeasedJob, problem: Refusal) -> None:
        """Ends a job that could not be done. Raises LeaseLost."""
        with self._held(job) as connection:
            self._end(connection, job.id, JobState.FAILED, problem)

    def stopped(self, job: LeasedJob) -> None:
        """Ends a job that was cancelled while it ran. Raises LeaseLost."""
        with self._held(job) as connection:
            self._end(connection, job.id, JobState.CANCELLED)

    def give_back(self, job: LeasedJob) -> None:
        """Puts a job back that stopped with the server, for its next start. Raises LeaseLost."""
        with self._held(job) as connection:
            connection.execute("UPDATE job SET state = 'waiting', lease = '' WHERE id = ?", (job.id,))

    def has_waiting(self, kinds: Sequence[JobKind]) -> bool:
        """Whether a job of these kinds waits."""
        marks = ", ".join("?" * len(kinds))
        query = f"SELECT 1 FROM job WHERE state = 'waiting' AND kind IN ({marks}) LIMIT 1"
        return self.database.row(query, kinds) is not None

    def lost(self, lease: str, reason: str) -> None:
        """Puts a job back at once if the process that held this lease has ended without ending the job."""
        with self.database.write() as connection:
            self._put_back(connection, "lease = ?", (lease,), reason)

    def put_back_lost(self) -> None:
        """Puts back what has no heartbeat any more."""
        if self.database.row("SELECT 1 FROM job WHERE state = 'running' AND lease_until < ?", (time.time(),)):
            with self.database.write() as connection:
                self._put_back(connection, "lease_until < ?", (time.time(),))

    def cancel(self, name: str) -> AppJob:
        """Cancels a job: at once if it waits, as soon as it can stop if it runs. Raises Missing if there is none."""
        with self.database.write() as connection:
            row = _row(connection, name)
            if row["state"] == JobState.WAITING:
                self._end(connection, name, JobState.CANCELLED)
            elif row["state"] == JobState.RUNNING:
                connection.execute("UPDATE job SET cancel = 1 WHERE id = ?", (name,))
                announce(connection, "job", name)
            return shown(_row(connection, name))

    def retry(self, name: str) -> AppJob:
        """Puts a job that failed or was cancelled back into the queue. Raises Missing if there is none."""
        with self.database.write() as connection:
            row = _row(connection, name)
            if row["state"] in (JobState.FAILED, JobState.CANCELLED):
                values = "state = 'waiting', losses = 0, cancel = 0, problem = NULL, ended = ''"
                connection.execute(f"UPDATE job SET {values} WHERE id = ?", (name,))
                announce(connection, "job", name)
            return shown(_row(connection, name))

    def get(self, name: str) -> AppJob:
        """A job. Raises Missing if there is none."""
        row = self.database.row("SELECT * FROM job WHERE id = ?", (name,))
        if row is None:
            raise _unknown(name)
        return shown(row)

    def page(self, state: JobState | None = None, study: str = "", cursor: str = "", limit: int = 50) -> JobPage:
        """Jobs, newest first. Raises InputError for a cursor that is none."""
        conditions = ["number < ?"]
        values: list[int | str] = [_number(cursor)]
        for column, value in (("state", state), ("study", study)):
            if value:
                conditions.append(f"{column} = ?")
                values.append(value)
        query = f"SELECT * FROM job WHERE {' AND '.join(conditions)} ORDER BY number DESC LIMIT ?"
        rows = self.database.rows(query, (*values, limit + 1))
        following = str(rows[limit - 1]["number"]) if len(rows) > limit else ""
        return JobPage(jobs=[shown(row) for row in rows[:limit]], next=following)

    def under_way(self, kind: JobKind, study: str = "", training: str = "") -> AppJob | None:
        """The newest job of this kind about a study or training that waits or runs; None if there is none."""
        where = "state IN ('waiting', 'running') AND kind = ? AND study = ? AND training = ?"
        row = self.database.row(f"SELECT * FROM job WHERE {where} ORDER BY number DESC", (kind, study, training))
        return None if row is None else shown(row)

    @contextmanager
    def _held(self, job: LeasedJob) -> Iterator[sqlite3.Connection]:
        """A transaction of the lease's holder. Raises LeaseLost."""
        with self.database.write() as connection:
            query = "SELECT 1 FROM job WHERE id = ? AND lease = ? AND state = 'running'"
            if connection.execute(query, (job.id, job.lease)).fetchone() is None:
                raise _lost(job)
            yield connection
            announce(connection, "job", job.id)

    def _put_back(self, connection: sqlite3.Connection, where: str, values: tuple[object, ...], why: str = "") -> None:
        query = f"SELECT * FROM job WHERE state = 'running' AND {where}"
        for row in connection.execute(query, values).fetchall():
            losses = row["losses"] + 1
            if row["cancel"]:
                self._end(connection, row["id"], JobState.CANCELLED)
            elif losses >= MOST_LOSSES:
                what = f"its process was lost {losses} times{why and f' ({why})'}"
                todo = "look into its log; if memory ran out, use a larger machine, or retry it alone"
                self._end(connection, row["id"], JobState.FAILED, Refusal(what=what, todo=todo))
            else:
                connection.execute("UPDATE job SET state = 'waiting', lease = '' WHERE id = ?", (row["id"],))
                announce(connection, "job", row["id"])
            connection.execute("UPDATE job SET losses = ? WHERE id = ?", (losses, row["id"]))

    def _end(self, connection: sqlite3.Connection, name: str, state: JobState, problem: Refusal | None = None) -> None:
        text = None if problem is None else problem.model_dump_json()
        values = "state = ?, problem = ?, ended = ?, lease = '', cancel = 0"
        query = f"UPDATE job SET {values} WHERE id = ? RETURNING *"
        row = connection.execute(query, (state.value, text, now(), name)).fetchone()
        announce(connection, "job", name)
        if self._on_end is not None:
            self._on_end(connection, row)


def shown(row: Row) -> AppJob:
    """A row of the table as the interface shows it."""
    columns = {key: row[key] for key in AppJob.model_fields if key not in ("problems", "problem")}
    problem = None if row["problem"] is None else Refusal.model_validate_json(row["problem"])
    return AppJob(problems=json.loads(row["problems"]), problem=problem, **columns)


def _row(connection: sqlite3.Connection, name: str) -> Row:
    row: Row | None = connection.execute("SELECT * FROM job WHERE id = ?", (name,)).fetchone()
    if row is None:
        raise _unknown(name)
    return row


def _number(cursor: str) -> int:
    if not cursor:
        return 2**62
    if not (cursor.isascii() and cursor.isdigit()) or len(cursor) > 18:
        raise InputError("is no cursor", cursor[:40], "take `next` of the page before")
    return int(cursor)


def _unknown(name: str) -> Missing:
    return Missing("there is no such job", name[:60])


def _lost(job: LeasedJob) -> LeaseLost:
    return LeaseLost("is done by another process, or was ended", job.id)
