"""What readers measured in a study: rulers, angles, circles. Each reader has their own."""

from __future__ import annotations

import json

from hemotorch.app.database import Database, announce
from hemotorch.app.refusals import Stale
from hemotorch.app.schemas import Measurement, MeasurementKind, Measurements
from hemotorch.errors import InputError

TABLES = """
CREATE TABLE IF NOT EXISTS measurement (
    study TEXT NOT NULL,
    user TEXT NOT NULL,
    revision INTEGER NOT NULL,
    items TEXT NOT NULL,
    PRIMARY KEY (study, user)
);
CREATE TRIGGER IF NOT EXISTS measurements_of_deleted AFTER DELETE ON study BEGIN
    DELETE FROM measurement WHERE study = OLD.id;
END;
"""
_POINTS = {MeasurementKind.RULER: 2, MeasurementKind.ANGLE: 3, MeasurementKind.CIRCLE: 2}


def read_measurements(database: Database, study: str, user: str) -> Measurements:
    """A reader's measurements in a study; none with revision 0 if nothing was measured."""
    row = database.row("SELECT * FROM measurement WHERE study = ? AND user = ?", (study, user))
    if row is None:
        return Measurements(items=[])
    items = [Measurement.model_validate(item) for item in json.loads(row["items"])]
    return Measurements(items=items, revision=row["revision"])


def save_measurements(database: Database, study: str, user: str, wanted: Measurements) -> Measurements:
    """Saves all of a reader's measurements in a study.

    Args:
        database: that `TABLES` were handed to.
        study: its id.
        user: the reader.
        wanted: with the revision that the reader's tab has seen.

    Raises:
        Stale: if another tab saved meanwhile; nothing is changed then.
        InputError: if one has another number of points than its kind.
    """
    for item in wanted.items:
        if len(item.points) != _POINTS[item.kind]:
            raise InputError(f"has {len(item.points)} points; {item.kind}: {_POINTS[item.kind]}", study)
    with database.write() as connection:
        query = "SELECT revision FROM measurement WHERE study = ? AND user = ?"
        row = connection.execute(query, (study, user)).fetchone()
        if wanted.revision != (0 if row is None else row["revision"]):
            raise Stale("something was measured in another tab", study, "load the measurements again")
        items = json.dumps([item.model_dump(mode="json") for item in wanted.items], allow_nan=False)
        values = (study, user, wanted.revision + 1, items)
        connection.execute("INSERT OR REPLACE INTO measurement VALUES (?, ?, ?, ?)", values)
        announce(connection, "study", study)
    return Measurements(items=wanted.items, revision=wanted.revision + 1)
