"""Whose studies in DICOM are: pseudonyms of studies and patients, and the words that no text may hold.

As `inference.pseudonyms`, but in the workspace's database, since several processes import at the same time.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path

from hemotorch.app.database import Database
from hemotorch.inference.pseudonyms import KnownStudy, Pseudonyms
from hemotorch.io import dicom

TABLES = """
CREATE TABLE IF NOT EXISTS identity (
    study TEXT PRIMARY KEY,
    patient TEXT NOT NULL,
    source TEXT NOT NULL,
    uid TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    patient_name TEXT NOT NULL,
    birth_date TEXT NOT NULL,
    date TEXT NOT NULL,
    time TEXT NOT NULL,
    key TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS patient (
    patient TEXT PRIMARY KEY,
    patient_id TEXT NOT NULL,
    birth_date TEXT NOT NULL,
    UNIQUE (patient_id, birth_date)
);
"""
_BYTES = 4  #: of a pseudonym


class StudyPseudonyms(Pseudonyms):
    """What `find_scans` calls studies by. An entry is in the database as soon as it is made.

    secrets: words of all patients that were asked for, which no text about what was found may hold.
    """

    key_file = ""  # there is none: the database knows

    def __init__(self, database: Database):
        self._database = database
        self.secrets: set[str] = set()

    def of(self, identity: dicom.Identity, source: Path) -> KnownStudy:
        """The entry of a study, a new one if it has none yet."""
        where = os.path.abspath(source)
        self.secrets |= identity.secrets()
        key = "\0".join((identity.study or where, identity.patient_id))
        # One transaction, so that two imports of one study agree on its pseudonym.
        with self._database.write() as connection:
            row = connection.execute("SELECT * FROM identity WHERE key = ?", (key,)).fetchone()
            if row is not None:
                return KnownStudy(row["study"], row["patient"], row["source"], _identity(row))
            patient = _patient(connection, identity)
            study = new_pseudonym(connection, "study")
            connection.execute(
                "INSERT INTO identity VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    study,
                    patient,
                    where,
                    identity.study,
                    identity.patient_id,
                    identity.patient_name,
                    identity.birth_date,
                    identity.date,
                    identity.time,
                    key,
                ),
            )
        return KnownStudy(study, patient, where, identity)

    def save(self) -> None:
        """Nothing is left to be written."""

    def earlier(self, study: str) -> list[tuple[str, float]]:
        """Not kept here: the library knows which studies there are."""
        return []

    def later(self, study: str) -> list[str]:
        """As `earlier`."""
        return []


def identity_of(database: Database, study: str) -> dicom.Identity | None:
    """Whose a study is; None for one that was no DICOM."""
    row = database.row("SELECT * FROM identity WHERE study = ?", (study,))
    return None if row is None else _identity(row)


def hider_of(database: Database, study: str) -> Callable[[str], str]:
    """What takes the patient's name, id and birth date out of texts about a study."""
    identity = identity_of(database, study)
    return dicom.hider(frozenset() if identity is None else identity.secrets())


def new_pseudonym(connection: sqlite3.Connection, kind: str) -> str:
    """A pseudonym that nobody has yet. kind: study or patient."""
    while True:
        name = f"{kind}-{secrets.token_hex(_BYTES)}"
        if kind == "patient":
            taken = connection.execute("SELECT 1 FROM patient WHERE patient = ?", (name,)).fetchone()
        else:
            query = "SELECT 1 FROM identity WHERE study = ?1 UNION SELECT 1 FROM study WHERE id = ?1"
            taken = connection.execute(query, (name,)).fetchone()
        if taken is None:
            return name


def _patient(connection: sqlite3.Connection, identity: dicom.Identity) -> str:
    """The pseudonym of the patient, "" if the id is one that many share."""
    patient = identity.patient
    if patient is None:
        return ""
    row = connection.execute("SELECT patient FROM patient WHERE patient_id = ? AND birth_date = ?", patient).fetchone()
    if row is not None:
        return str(row["patient"])
    name = new_pseudonym(connection, "patient")
    connection.execute("INSERT INTO patient VALUES (?, ?, ?)", (name, *patient))
    return name


def _identity(row: sqlite3.Row) -> dicom.Identity:
    return dicom.Identity(
        row["uid"], row["patient_id"], row["patient_name"], row["birth_date"], row["date"], row["time"]
    )
