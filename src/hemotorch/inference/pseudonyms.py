"""Pseudonyms of studies and patients, random ones, and the one file that says whose they are."""

from __future__ import annotations

import csv
import os
import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from hemotorch.data.layouts.tables import read_table
from hemotorch.errors import InputError, one_line
from hemotorch.io import dicom
from hemotorch.system.files import atomic, quoted

KEY_FILE = "pseudonyms.csv"  #: in the output folder
COLUMNS = (
    "study", "patient", "source", "StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "StudyDate",
    "StudyTime",
)  # fmt: skip
_BYTES = 4  #: of a pseudonym


@dataclass(frozen=True)
class KnownStudy:
    """A study's line. study: its pseudonym, patient: the patient's, "" if it is not known whose it is."""

    study: str
    patient: str
    source: str
    identity: dicom.Identity

    @property
    def key(self) -> tuple[str, str]:
        """What tells a study from others: its UID, or without one its path, and the patient's id."""
        return self.identity.study or self.source, self.identity.patient_id


class Pseudonyms:
    """The pseudonyms of a folder of predictions. They are random: without the file, nobody can tell whose they are."""

    key_file = KEY_FILE  #: that messages name for a study's path

    def __init__(self, folder: Path):
        """Reads the file if it is there. Raises InputError if it cannot be read."""
        self._path = folder / KEY_FILE
        self._entries: dict[tuple[str, str], KnownStudy] = {}
        self._studies: dict[str, KnownStudy] = {}
        self._patients: dict[tuple[str, str], str] = {}
        self._of_patient: dict[str, list[KnownStudy]] = {}
        self._changed = False
        if self._path.exists():
            for _, cells in read_table(self._path, COLUMNS):
                identity = dicom.Identity(
                    cells["StudyInstanceUID"],
                    cells["PatientID"],
                    cells["PatientName"],
                    cells["PatientBirthDate"],
                    cells["StudyDate"],
                    cells["StudyTime"],
                )
                self._add(KnownStudy(cells["study"], cells["patient"], cells["source"], identity))

    def of(self, identity: dicom.Identity, source: Path) -> KnownStudy:
        """The entry of a study, a new one if it has none yet. Of one that was moved, it has the new path."""
        entry = KnownStudy("", "", _path_text(source), identity)
        known = self._entries.get(entry.key)
        if known is not None:
            if known.source == entry.source:
                return known
            self._forget(known)
            moved = replace(known, source=entry.source)
            self._add(moved)
            self._changed = True
            return moved
        patient = identity.patient
        patient_name = ""
        if patient is not None:
            patient_name = self._patients.get(patient) or self._new("patient")
        study = self._new("study")
        entry = KnownStudy(study, patient_name, entry.source, identity)
        self._add(entry)
        self._changed = True
        return entry

    def add(self, study: str, identity: dicom.Identity, source: Path) -> KnownStudy:
        """The entry of a study that keeps its own name. What was known of that name before is forgotten.

        Args:
            study: what its files are called.
            identity: whose it is, and when it was made.
            source: the path of its file.
        """
        patient = identity.patient
        patient_name = ""
        if patient is not None:
            patient_name = self._patients.get(patient) or self._new("patient")
        entry = KnownStudy(study, patient_name, _path_text(source), identity)
        known = self._studies.get(study)
        if known == entry:
            return known
        if known is not None:
            self._forget(known)
        self._add(entry)
        self._changed = True
        return entry

    def earlier(self, study: str) -> list[tuple[str, float]]:
        """The patient's earlier studies, the last one first: their pseudonyms, and hours from each to this one."""
        return [(name, -hours) for name, hours in self._others(study) if hours < 0]

    def later(self, study: str) -> list[str]:
        """The patient's later studies."""
        return [name for name, hours in self._others(study) if hours > 0]

    def save(self) -> None:
        """Writes the file, which only its owner can read. Raises RunError if the disk is full or read-only."""
        if not self._changed:
            return
        with atomic(self._path) as temporary:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(COLUMNS)
                for entry in self._entries.values():
                    of = entry.identity
                    cells = [entry.study, entry.patient, entry.source, of.study, of.patient_id, of.patient_name]
                    cells += [of.birth_date, of.date, of.time]
                    writer.writerow([quoted(cell) for cell in cells])
        self._changed = False

    def _others(self, study: str) -> list[tuple[str, float]]:
        """The patient's other studies by time, the last one first, with hours from this one to each."""
        here = self._studies.get(study)
        moment = None if here is None else here.identity.moment
        if here is None or moment is None or not here.patient:
            return []
        hours = []
        for entry in self._of_patient[here.patient]:
            other = entry.identity.moment
            if other is not None and other != moment:
                hours.append((entry.study, _hours(moment, other)))
        return sorted(hours, key=lambda pair: -pair[1])

    def _add(self, entry: KnownStudy) -> None:
        if not entry.study:
            raise InputError("has a line without a pseudonym", self._path, "restore it, or choose another --out")
        self._entries[entry.key] = entry
        self._studies[entry.study] = entry
        if entry.patient and entry.identity.patient is not None:
            self._patients[entry.identity.patient] = entry.patient
            self._of_patient.setdefault(entry.patient, []).append(entry)

    def _forget(self, entry: KnownStudy) -> None:
        del self._entries[entry.key]
        if entry.patient:
            self._of_patient[entry.patient].remove(entry)

    def _new(self, kind: str) -> str:
        """A pseudonym that nobody has yet."""
        while True:
            name = f"{kind}-{secrets.token_hex(_BYTES)}"
            if name not in self._studies and name not in self._of_patient:
                return name


def _path_text(path: Path) -> str:
    """A path as text for the file. With a byte that is no UTF-8, as old CDs have, all of it was read as Latin-1."""
    return one_line(os.path.abspath(path))


def _hours(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds() / 3600
