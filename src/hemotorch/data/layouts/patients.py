"""Which patient a scan is of: `patients.csv`, read in the same way beside every layout.

    case,patient[,site]

If there is no such table, a layout may know patients by tables of its own (CT-ICH numbers them); else they are assumed:
each scan is taken for a patient of its own, and the description says so.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hemotorch.data.layouts.case import Case, Collection
from hemotorch.data.layouts.tables import plain, read_cells, read_table, write_table
from hemotorch.errors import InputError, some_of
from hemotorch.io import is_scan, stem
from hemotorch.scan import CaseInfo

PATIENTS = "patients.csv"
FIRST_CHANNEL = "_0000"  #: nnU-Net's ending of the first channel's file
_INVISIBLE = "\u034f\ufe00\ufe01\ufe0e\ufe0f"  #: marks without a shape that are not of Unicode's class Cf
_QUOTES = "'\"\u2018\u2019\u201c\u201d`"  #: spreadsheets put one before a number that shall stay text


@dataclass(frozen=True)
class Entry:
    """A row of patients.csv."""

    case: str
    patient: str
    site: str | None
    line: int


def identity(name: str) -> str:
    """A form that all spellings of one name share which only a computer takes for different.

    They differ by letter case, blanks, zeros before a number, ".0" behind one, letters composed or not, full-width or
    other digits, kinds of hyphens, invisible marks and quotes around.

    Args:
        name: a patient's or a case's name.

    Returns:
        The common form; for comparing only, never shown.
    """
    text = unicodedata.normalize("NFKC", name).casefold()
    text = unicodedata.normalize("NFKC", text)  # again, since small letters may be composed otherwise
    bare = "".join(map(_common_letter, text))
    bare = bare.strip(_QUOTES) or bare
    # A spreadsheet that took a column for numbers writes 2.0, or 2,0 in half of Europe.
    if number := re.fullmatch(r"([0-9]+)[.,]0+", bare):
        bare = number[1]
    return re.sub(r"0+(?=[0-9])", _leading, bare)


def _common_letter(letter: str) -> str:
    """The letter, digit or hyphen that another one stands for; "" for blanks and what has no shape."""
    kind = unicodedata.category(letter)
    if letter.isspace() or kind in ("Cf", "Cc") or letter in _INVISIBLE:
        return ""
    if kind == "Nd":
        return str(unicodedata.decimal(letter))
    if kind == "Pd" or letter == "\u2212":  # the minus sign
        return "-"
    return letter


def _leading(zeros: re.Match[str]) -> str:
    """Zeros inside a number (the two of 1002) stay, those before one go."""
    before = zeros.string[: zeros.start()]
    if before[-1:].isdecimal():
        return zeros[0]
    return ""


def find_table(*folders: Path) -> Path | None:
    """The patients.csv of the first of these folders that has one, whatever its letter case.

    Raises:
        InputError: if a folder has two of them.
    """
    for folder in folders:
        tables = [path for path in sorted(folder.iterdir()) if path.name.casefold() == PATIENTS]
        if len(tables) > 1:
            raise InputError(f"stands beside {tables[0].name}: two tables of patients", tables[1], "remove one of them")
        if tables:
            return tables[0]
    return None


def write_patients(root: Path, rows: Iterable[CaseInfo]) -> None:
    """Writes patients.csv."""
    table: list[Sequence[object]] = [("case", "patient")]
    for info in rows:
        table.append((info.name, info.patient))
    write_table(root / PATIENTS, table)


def read_patients(path: Path) -> tuple[list[Entry], list[str]]:
    """The rows of patients.csv, each patient by one spelling, and warnings naming spellings that were joined.

    Raises:
        InputError: if columns or cells are missing, or two rows contradict each other.
    """
    columns = ["case", "patient"]
    rows = read_cells(path)
    if rows and "site" in map(plain, rows[0][1]):
        columns.append("site")
    entries: dict[str, Entry] = {}
    spellings: dict[str, list[str]] = {}
    for line, row in read_table(path, columns):
        if not row["case"] or not row["patient"]:
            raise InputError(f"line {line} names no case or no patient", path)
        # A patient called p1 in one row and P01 in another would be on both sides of a split.
        spellings_of_patient = spellings.setdefault(identity(row["patient"]), [])
        if row["patient"] not in spellings_of_patient:
            spellings_of_patient.append(row["patient"])
        entry = Entry(row["case"], spellings_of_patient[0], row.get("site") or None, line)
        earlier = entries.setdefault(row["case"], entry)
        if (earlier.patient, earlier.site) != (entry.patient, entry.site):
            raise InputError(f"line {line} contradicts an earlier one on case {row['case']}", path)
    joined = []
    for names in spellings.values():
        if len(names) > 1:
            joined.append(" = ".join(map(repr, names)))
    warnings = []
    if joined:
        warnings.append(f"{path.name}: spellings taken for one and the same patient: {some_of(joined)}")
    return list(entries.values()), warnings


def assign_patients(collection: Collection, table: Path | None) -> Collection:
    """The collection with the patients and sites that the table names.

    Args:
        collection: of any layout, its patients as that layout knows or assumes them.
        table: patients.csv, or None if there is none.

    Returns:
        The collection; its warnings and description say what was joined, left out or assumed.

    Raises:
        InputError: if the table cannot be used, or two of its rows are about one scan and name different patients.
    """
    if table is None:
        return _with_assumption(collection, table)
    entries, warnings = read_patients(table)
    matched, spelled = match_entries(collection.cases, entries, table)
    if spelled:
        warnings.append(f"{table.name}: cases spelled otherwise than their files: {some_of(spelled)}")
    if alone := _without_scan(entries, matched):
        warnings.append(f"{table.name} has cases without a scan: {some_of(alone)}")
    cases = []
    entry_of_patient = _entries_of_patients(collection.cases, matched)
    for case in collection.cases:
        entry = matched.get(case.name)
        if entry is None and not case.patient_assumed:
            # Or one patient would have two names, and lie on both sides of a split.
            entry = entry_of_patient.get(case.patient)
        if entry is not None:
            case = replace(case, patient=entry.patient, site=entry.site or case.site, patient_assumed=False)
        cases.append(case)
    assumed = [case.name for case in cases if case.patient_assumed and case.patient]
    # If the table names none of the cases, the description says so, and once is enough.
    if assumed and matched:
        warnings.append(f"{table.name} leaves out cases, each then taken as a patient of its own: {some_of(assumed)}")
    warnings = [*collection.warnings, *warnings]
    return _with_assumption(replace(collection, cases=tuple(cases), warnings=tuple(warnings)), table)


def _entries_of_patients(cases: Iterable[Case], matched: Mapping[str, Entry]) -> dict[str | None, Entry]:
    """The table's row for each patient whom the scans themselves name: the first that one of its cases has."""
    entries: dict[str | None, Entry] = {}
    for case in cases:
        if case.name in matched and not case.patient_assumed and case.patient is not None:
            entries.setdefault(case.patient, matched[case.name])
    return entries


def _without_scan(entries: Iterable[Entry], matched: Mapping[str, Entry]) -> list[str]:
    """Cases of the table that no scan belongs to, by any spelling."""
    with_scan = {entry.case for entry in matched.values()}
    identities = {identity(_bare(case)) for case in with_scan}
    alone = []
    for entry in entries:
        if entry.case not in with_scan and identity(_bare(entry.case)) not in identities:
            alone.append(entry.case)
    return sorted(alone)


def _with_assumption(collection: Collection, table: Path | None) -> Collection:
    """Says if patients are not known, or if each scan is taken for a patient of its own for want of better."""
    cases = collection.cases
    unknown = [case for case in cases if case.patient is None]
    if unknown:
        text = f"patients are not known of {len(unknown)} of {len(cases)} cases: their names are not CASE_SSS.png"
        collection = replace(collection, warnings=(text, *collection.warnings))
    if not cases or not all(case.patient_assumed and case.patient for case in cases):
        return collection
    reason = f"there is no {PATIENTS}"
    if table is not None:
        reason = f"{table.name} names none of them"
    text = f"{collection.description}; each scan taken for a patient of its own, as {reason}"
    return replace(collection, description=text)


def match_entries(cases: Iterable[Case], entries: Iterable[Entry], table: Path) -> tuple[dict[str, Entry], list[str]]:
    """The table's row for each case, and the cases that a row spells otherwise.

    Raises:
        InputError: if a row may be about several cases, or two rows about one contradict each other.
    """
    exact, close = _names(cases)
    matched: dict[str, Entry] = {}
    spelled = []
    for entry in entries:
        # Spelled exactly, a name has no other meaning, however near others are.
        names = exact.get(entry.case) or close.get(identity(_bare(entry.case)), [])
        if len(names) > 1:
            what = f"line {entry.line}: case {entry.case} may be any of {some_of(names)}"
            raise InputError(what, table, "spell it as the file is")
        if not names:
            continue
        name = names[0]
        earlier = matched.setdefault(name, entry)
        if (earlier.patient, earlier.site) != (entry.patient, entry.site):
            what = f"line {entry.line} contradicts line {earlier.line}: both are about case {name}"
            raise InputError(what, table, "correct the table")
        if entry.case not in exact:
            spelled.append(f"{entry.case!r} is {name!r}")
    return matched, spelled


def _names(cases: Iterable[Case]) -> tuple[Mapping[str, list[str]], Mapping[str, list[str]]]:
    """Cases by every name that a table may call them: as written, and by `identity`."""
    cases = list(cases)
    case_names = {case.name for case in cases}
    exact = {name: [name] for name in case_names}
    close: dict[str, list[str]] = {}
    for case in cases:
        identities = {identity(case.name)}
        for path in case.scan_paths:
            identities.add(identity(_bare(path.name)))
            for name in (path.name, _bare(path.name, channel=False)):
                # A case's own name is nobody else's, whatever their files are called.
                if name in case_names:
                    continue
                owners = exact.setdefault(name, [])
                if case.name not in owners:
                    owners.append(case.name)
        for key in identities:
            close.setdefault(key, []).append(case.name)
    return exact, close


def _bare(name: str, channel: bool = True) -> str:
    """A name without a file's suffix and, if `channel` is true, without nnU-Net's number of the channel."""
    # Spreadsheets list files as often as cases.
    if is_scan(name):
        name = stem(name)
    if channel:
        name = name.removesuffix(FIRST_CHANNEL)
    return name
