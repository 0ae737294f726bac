"""Whose scans outside DICOM are, and when they were made: the table of `--patients`, from which follow-up comes.

case,patient,date
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from hemotorch.data.layouts.case import Case
from hemotorch.data.layouts.patients import match_entries, read_patients
from hemotorch.data.layouts.tables import read_table
from hemotorch.errors import InputError, some_of
from hemotorch.inference.pseudonyms import Pseudonyms
from hemotorch.inference.scan_files import ScanFiles, by_time
from hemotorch.io.dicom import Identity
from hemotorch.system.events import Message, emit

COLUMNS = ("case", "patient", "date")
#: Before the table's own name of a patient, where pseudonyms.csv has the PatientID of DICOM. The two are not compared:
#: a table may call its patients 1, 2, 3.
OF_TABLE = "table: "


def with_visits(
    scans: Sequence[ScanFiles], names: Mapping[Path, str], table: Path | str, pseudonyms: Pseudonyms
) -> list[ScanFiles]:
    """The scans with whose they are, those of one patient in the order of time. Studies in DICOM know that themselves.

    What the table spells otherwise, and which scans it leaves out, is told.

    Args:
        scans: that were found.
        names: what each scan's files are called, by its path.
        table: a CSV file with the columns `case`, `patient` and `date`. A case is a name of `names`, or a file's name.
        pseudonyms: that the scans of the table are added to.

    Raises:
        InputError: if the table cannot be used.
    """
    table = Path(table)
    dates = _read_dates(table)
    entries, notes = read_patients(table)
    volumes = [scan for scan in scans if not scan.hidden]
    cases = [Case(names[scan.path], scan.files) for scan in volumes]
    matched, spelled = match_entries(cases, entries, table)
    if spelled:
        notes.append(f"{table.name}: cases spelled otherwise than their files: {some_of(spelled)}")
    known: dict[Path, ScanFiles] = {}
    left_out, undated = [], []
    for scan, case in zip(volumes, cases, strict=True):
        entry = matched.get(case.name)
        if entry is None:
            left_out.append(case.name)
            continue
        moment = dates[entry.case]
        if moment is None:
            undated.append(case.name)
        day, clock = ("", "") if moment is None else (f"{moment:%Y%m%d}", f"{moment:%H%M%S}")
        identity = Identity("", f"{OF_TABLE}{entry.patient}", "", "", day, clock)
        patient = pseudonyms.add(case.name, identity, scan.path).patient
        known[scan.path] = replace(scan, identity=identity, patient=patient)
    if left_out:
        notes.append(f"{table.name} leaves out scans, of which no follow-up is made: {some_of(left_out)}")
    if undated:
        notes.append(f"{table.name} has no date of scans, of which no follow-up is made: {some_of(undated)}")
    for note in notes:
        emit(Message(note))
    return by_time([known.get(scan.path, scan) for scan in scans])


def _read_dates(table: Path) -> dict[str, datetime | None]:
    """When each case was made, None if its cell is empty. Raises InputError."""
    dates: dict[str, datetime | None] = {}
    for line, row in read_table(table, COLUMNS):
        cell = row["date"]
        try:
            moment = datetime.fromisoformat(cell).replace(tzinfo=None) if cell else None
        except ValueError as error:
            todo = "write it as 2024-01-31 or 2024-01-31 14:30"
            raise InputError(f"line {line}: '{cell}' is no date", table, todo) from error
        if dates.setdefault(row["case"], moment) != moment:
            raise InputError(f"line {line} contradicts an earlier one on the date of {row['case']}", table)
    return dates
