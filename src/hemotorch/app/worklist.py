"""The worklist: searched, filtered, sorted, and given in pages by cursor; the same as CSV."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hemotorch.app.database import Database
from hemotorch.app.schemas import ReadingState, StudyPage, StudyStage, StudySummary
from hemotorch.errors import InputError
from hemotorch.labels import TYPES
from hemotorch.system.files import quoted


class Sort(StrEnum):
    """What the worklist is sorted by."""

    PRIORITY = "priority"
    DATE = "date"
    ADDED = "added"
    ML = "ml"
    NAME = "name"
    STATE = "state"


class AnyOrNone(StrEnum):
    """Whether there is any of something."""

    ANY = "any"
    NONE = "none"


#: Columns that a page is sorted by, each with whether it falls; the id comes last, so that no two rows are equal.
_ORDERS: dict[Sort, tuple[tuple[str, bool], ...]] = {
    Sort.PRIORITY: (("priority", False), ("added", True)),
    Sort.DATE: (("moment", False),),
    Sort.ADDED: (("added", False),),
    Sort.ML: (("coalesce(total_ml, -1)", False),),
    Sort.NAME: (("lower(CASE WHEN hidden THEN id ELSE name END)", False),),
    Sort.STATE: (("state", False), ("added", True)),
}
_FALLING = {Sort.DATE, Sort.ADDED, Sort.ML}  #: unless another order is asked for
_SELECT = """
SELECT study.*, identity.patient_name, identity.patient_id
FROM study LEFT JOIN identity ON identity.study = study.id
"""
CSV_COLUMNS = (
    "study", "patient", "name", "date", "added", "source", "description", "slices", "stage", "state", "reader",
    "total_ml", *(f"{name}_ml" for name in TYPES), "least_ml", "most_ml", "growth_ml", "versions", "doubts", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """Which studies, in which order. An empty text or None asks for all."""

    query: str = ""
    state: ReadingState | None = None
    stage: StudyStage | None = None
    doubts: AnyOrNone | None = None
    bleeding: AnyOrNone | None = None
    sort: Sort = Sort.PRIORITY
    falling: bool | None = None


class Worklist:
    """Rows of the studies, as the interface shows them. show_patient: whether names, ids and dates are shown."""

    def __init__(self, database: Database, show_patient: bool):
        self._database = database
        self._show_patient = show_patient

    def page(self, wanted: Wanted, cursor: str, limit: int) -> StudyPage:
        """A page.

        Args:
            wanted: which studies.
            cursor: where it begins, as the page before it said; "" for the first one.
            limit: studies in it at most.

        Raises:
            InputError: if the cursor is none.
        """
        where, values = self._filter(wanted)
        order = self._order(wanted)
        total = self._database.rows(f"SELECT count(*) FROM study {where}", values)[0][0]
        if cursor:
            beyond, more = _beyond(order, _read_cursor(cursor, len(order)))
            where = f"{where} {'AND' if where else 'WHERE'} {beyond}"
            values = [*values, *more]
        keys = ", ".join(f"{column} AS key_{number}" for number, (column, _) in enumerate(order))
        by = ", ".join(f"{column} {'DESC' if falls else 'ASC'}" for column, falls in order)
        of_identity = "(SELECT {0} FROM identity WHERE identity.study = study.id) AS {0}"
        names = f"{of_identity.format('patient_name')}, {of_identity.format('patient_id')}"
        query = f"SELECT *, {keys}, {names} FROM study {where} ORDER BY {by} LIMIT ?"
        rows = self._database.rows(query, [*values, limit + 1])
        following = ""
        if len(rows) > limit:
            last = rows[limit - 1]
            following = _write_cursor([last[f"key_{number}"] for number in range(len(order))])
        return StudyPage(studies=[self.summary(row) for row in rows[:limit]], next=following, total=total)

    def one(self, study: str) -> StudySummary | None:
        """The row of a study; None if there is none."""
        row = self._database.row(f"{_SELECT} WHERE study.id = ?", (study,))
        return None if row is None else self.summary(row)

    def summary(self, row: sqlite3.Row) -> StudySummary:
        """A row of `study` with the identity's name and id beside it, as the interface shows it."""
        hidden = bool(row["hidden"]) and not self._show_patient
        name = "" if hidden else row["name"]
        if row["hidden"] and not hidden:
            name = " ".join(part for part in (row["patient_name"], row["patient_id"]) if part)
        interval = json.loads(row["interval_ml"])
        return StudySummary(
            id=row["id"],
            patient=row["patient"],
            name=name,
            date="" if hidden else row["moment"],
            added=row["added"],
            source=row["source"],
            description=row["description"],
            slices=row["slices"],
            stage=row["stage"],
            state=row["state"],
            reader=row["reader"],
            volume_ml=json.loads(row["volume_ml"]),
            interval_ml=None if interval is None else tuple(interval),
            doubts=json.loads(row["doubts"]),
            problem=json.loads(row["problem"]),
            versions=row["versions"],
            growth_ml=row["growth_ml"],
            revision=row["revision"],
        )

    def table(self, wanted: Wanted) -> Iterator[str]:
        """All studies as lines of CSV, the header first."""
        where, values = self._filter(wanted)
        by = ", ".join(f"{column} {'DESC' if falls else 'ASC'}" for column, falls in self._order(wanted))
        yield _line(CSV_COLUMNS)
        ids = self._database.rows(f"SELECT id FROM study {where} ORDER BY {by}", values)
        for first in range(0, len(ids), 500):
            some = [row["id"] for row in ids[first : first + 500]]
            marks = ", ".join("?" * len(some))
            rows = {row["id"]: row for row in self._database.rows(f"{_SELECT} WHERE study.id IN ({marks})", some)}
            for study in some:
                if study in rows:  # not deleted meanwhile
                    yield _line(self._cells(rows[study]))

    def _cells(self, row: sqlite3.Row) -> list[Any]:
        study = self.summary(row)
        least, most = study.interval_ml or (None, None)
        of_types = [study.volume_ml.get(name) for name in TYPES]
        doubts = " ".join(doubt.code for doubt in study.doubts)
        return [
            study.id, study.patient, study.name, study.date, study.added, study.source, study.description,
            study.slices, study.stage.value, study.state.value, study.reader, study.volume_ml.get("total"), *of_types,
            least, most, study.growth_ml, study.versions, doubts, row["note"],
        ]  # fmt: skip

    def _filter(self, wanted: Wanted) -> tuple[str, list[Any]]:
        conditions: list[str] = []
        values: list[Any] = []
        if wanted.query.strip():
            pattern = "%" + _escaped(wanted.query.strip()) + "%"
            # A search that finds hidden names would tell them.
            name = "name LIKE ? ESCAPE '\\'" if self._show_patient else "(hidden = 0 AND name LIKE ? ESCAPE '\\')"
            parts = ["id LIKE ? ESCAPE '\\'", "patient LIKE ? ESCAPE '\\'", "note LIKE ? ESCAPE '\\'", name]
            if self._show_patient:
                of_identity = "patient_name LIKE ? ESCAPE '\\' OR patient_id LIKE ? ESCAPE '\\'"
                parts.append(f"id IN (SELECT study FROM identity WHERE {of_identity})")
                values.append(pattern)
            conditions.append(f"({' OR '.join(parts)})")
            values.extend([pattern] * len(parts))
        if wanted.state is not None:
            conditions.append("state = ?")
            values.append(wanted.state.value)
        if wanted.stage is not None:
            conditions.append("stage = ?")
            values.append(wanted.stage.value)
        if wanted.doubts is not None:
            conditions.append("doubt_count > 0" if wanted.doubts == AnyOrNone.ANY else "doubt_count = 0")
        if wanted.bleeding is not None:
            # A study that was not outlined yet has neither.
            conditions.append("total_ml > 0" if wanted.bleeding == AnyOrNone.ANY else "total_ml = 0")
        return (f"WHERE {' AND '.join(conditions)}" if conditions else ""), values

    def _order(self, wanted: Wanted) -> list[tuple[str, bool]]:
        columns = _ORDERS[wanted.sort]
        if wanted.sort == Sort.DATE and not self._show_patient:
            columns = (("CASE WHEN hidden THEN '' ELSE moment END", False),)
        if wanted.sort == Sort.NAME and self._show_patient:
            columns = (("lower(name)", False),)
        usual = wanted.sort in _FALLING
        turned = usual if wanted.falling is None else wanted.falling
        order = [(column, falls != turned) for column, falls in columns]
        return [*order, ("id", False)]


def _beyond(order: list[tuple[str, bool]], last: list[Any]) -> tuple[str, list[Any]]:
    """The condition that a row comes after the one with these values."""
    alternatives: list[str] = []
    values: list[Any] = []
    for number, (column, falls) in enumerate(order):
        same = [f"{earlier} = ?" for earlier, _ in order[:number]]
        alternatives.append(" AND ".join([*same, f"{column} {'<' if falls else '>'} ?"]))
        values.extend([*last[:number], last[number]])
    return f"({' OR '.join(f'({text})' for text in alternatives)})", values


def _write_cursor(values: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def _read_cursor(cursor: str, count: int) -> list[Any]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        values = json.loads(base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise InputError("is no cursor", cursor[:40], "take `next` of the page before") from error
    plain = isinstance(values, list) and len(values) == count and all(isinstance(v, (str, int, float)) for v in values)
    if not plain or any(isinstance(value, int) and abs(value) >= 2**63 for value in values):
        raise InputError("is no cursor of this list", cursor[:40], "take `next` of the page before")
    return list(values)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _line(cells: Any) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\r\n").writerow([quoted(cell) for cell in cells])
    return stream.getvalue()
