"""PhysioNet CT-ICH v1.3.1: 75 head CTs, binary masks, and the types of bleeding in each slice (Hssayeni et al. 2020).

ct_scans/049.nii  masks/049.nii  hemorrhage_diagnosis_raw_ct.csv  [Patient_demographics.csv]
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hemotorch.data.layouts.case import Case, Collection, files_by_name, masks_by_hand, unpaired
from hemotorch.data.layouts.tables import is_number, plain, read_cells, read_table, whole, write_table
from hemotorch.errors import InputError, some_of
from hemotorch.io import VOLUME_SUFFIXES, slice_numbers, write_mask, write_scan
from hemotorch.labels import CT_ICH_COLUMNS
from hemotorch.scan import CaseInfo, Scan

NAME = "ct-ich"
LOOKS_FOR = "ct_scans/ with volumes (NIfTI)"

SCANS, MASKS = "ct_scans", "masks"
DIAGNOSIS, DEMOGRAPHICS = "hemorrhage_diagnosis_raw_ct.csv", "Patient_demographics.csv"
COLUMNS = ("PatientNumber", "SliceNumber", *CT_ICH_COLUMNS, "No_Hemorrhage", "Fracture_Yes_No")
_DEMOGRAPHICS_HEADER = (
    (
        "Patient Number",
        "Age\n(years)",
        "Gender",
        "Hemorrhage type based on the radiologists diagnosis ",
        *[""] * 4,
        "Fracture (yes 1/no 0)",
        "Note1",
    ),
    ("", "", "", *CT_ICH_COLUMNS, "", ""),
)

SliceTypes = dict[int, frozenset[str]]


class Person(NamedTuple):
    """A row of the demographics: age in years and sex, F or M, None where not given."""

    age: float | None
    sex: str | None


def matches(root: Path) -> bool:
    """Whether the folder is laid out this way."""
    return bool(files_by_name(root / SCANS, VOLUME_SUFFIXES))


def open_cases(root: Path) -> Collection:
    """The cases of a CT-ICH folder. A slice's types come from the CSV; voxels of its binary masks stay untyped.

    Raises InputError for tables that cannot be read, have other columns, or contradict themselves.
    """
    scans, masks = files_by_name(root / SCANS, VOLUME_SUFFIXES), files_by_name(root / MASKS, VOLUME_SUFFIXES)
    masks, predicted = masks_by_hand(masks)
    warnings = unpaired(scans, masks)
    table, demographics = _find(root, DIAGNOSIS), _find(root, DEMOGRAPHICS)
    slices: dict[str, SliceTypes] = {}
    if table is None:
        warnings.append(f"no {DIAGNOSIS}: the types of bleeding in each slice are not known")
    else:
        slices, more = read_diagnosis(table)
        warnings += more + _without_scan(table, slices, scans)
    people = read_demographics(demographics) if demographics else {}
    if demographics:
        warnings += _without_scan(demographics, people, scans)
    cases = []
    for name, path in scans.items():
        types = slices.get(_patient(name))
        noticed = _compare_slices(path, types, table) if table else []
        warnings += [f"{name}: {text}" for text in noticed]
        person = people.get(_patient(name), Person(None, None))
        mask = (masks[name],) if name in masks else ()
        case = Case(name, (path,), mask, _patient(name), None, types, NAME, tuple(noticed))
        # Both tables go by patient number: a scan that one of them names is known to be of that patient.
        assumed = _patient(name) not in slices and _patient(name) not in people
        cases.append(replace(case, age=person.age, sex=person.sex, patient_assumed=assumed))
    described = f"PhysioNet CT-ICH by its {SCANS}/: {len(scans)} scans, {len(set(scans) & set(masks))} with a mask"
    described += f", types of {sum(map(len, slices.values()))} slices from {table.name}" if table else ""
    return Collection(NAME, root, tuple(cases), described, tuple(warnings), tuple(predicted))


def read_diagnosis(path: Path) -> tuple[dict[str, SliceTypes], list[str]]:
    """The types of each slice by patient ("049") and slice number, and warnings.

    Raises InputError for missing columns, cells that are not 0 or 1, and a slice that two rows describe differently.
    """
    slices: dict[str, SliceTypes] = {}
    first_line: dict[tuple[str, int], int] = {}
    repeated, unclear = [], []
    for line, row in read_table(path, COLUMNS):
        patient = _patient(str(whole(row["PatientNumber"], "PatientNumber", line, path)))
        number = whole(row["SliceNumber"], "SliceNumber", line, path)
        flags = {name: whole(row[name], name, line, path, range(2)) for name in COLUMNS[2:]}
        types = frozenset(kind for column, kind in CT_ICH_COLUMNS.items() if flags[column])
        label = f"{patient} slice {number} (line {line})"
        known = slices.setdefault(patient, {})
        if (earlier := first_line.setdefault((patient, number), line)) != line:
            if known.get(number, types) != types:
                raise InputError(f"{label} contradicts line {earlier} on the same slice", path, "correct the table")
            repeated.append(label)
        if bool(types) == bool(flags["No_Hemorrhage"]):
            unclear.append(label)
        if types or flags["No_Hemorrhage"]:
            known[number] = types
    warnings = []
    if repeated:
        warnings.append(f"{path.name}: rows that repeat an earlier one: {some_of(repeated)}")
    if unclear:
        warnings.append(f"{path.name}: No_Hemorrhage disagrees with the types, which are believed: {some_of(unclear)}")
    return slices, warnings


def read_demographics(path: Path) -> dict[str, Person]:
    """Age and sex by patient ("049"), under a header that spans two rows. Raises InputError for another header."""
    rows = read_cells(path)
    header = [plain(cell) for cell in rows[0][1]] if rows else []
    missing = [name for name in ("patient number", "age", "gender") if not any(c.startswith(name) for c in header)]
    if missing:
        raise InputError(
            f"has no column {', '.join(missing)}; its columns are: {', '.join(filter(None, header))}", path
        )
    places = [next(i for i, c in enumerate(header) if c.startswith(n)) for n in ("patient number", "age", "gender")]
    people = {}
    for _, row in rows[1:]:
        number, age, sex = ((row[place] if place < len(row) else "") for place in places)
        if is_number(number):  # the header's second row, and remarks below the table, have none
            people[_patient(number)] = Person(_years(age), sex[:1].upper() if sex[:1].upper() in ("F", "M") else None)
    return people


def write_case(root: Path, name: str, scan: Scan, mask: np.ndarray | None, info: CaseInfo) -> None:
    """Writes one scan and its mask as 0/255. Safe to call from several processes, one a case.

    Raises InputError where the name is not a number, which the tables need.
    """
    if not is_number(name):
        raise InputError("CT-ICH names its cases by number, as in 049", name)
    write_scan(scan, root / SCANS / f"{name}.nii")
    if mask is not None:
        write_mask(scan, np.where(mask != 0, 255, 0), root / MASKS / f"{name}.nii")


def write_tables(root: Path, rows: Sequence[CaseInfo]) -> None:
    """Writes both tables as the published set has them."""
    diagnosis: list[Sequence[object]] = [COLUMNS]
    people: list[Sequence[object]] = [*_DEMOGRAPHICS_HEADER]
    for info in sorted(rows, key=lambda info: int(info.name)):
        for number, types in sorted(info.slice_types.items()):
            flags = [int(kind in types) for kind in CT_ICH_COLUMNS.values()]
            diagnosis.append((int(info.name), number, *flags, int(not types), int(number in info.fracture_slices)))
        every = frozenset().union(*info.slice_types.values())
        kinds = [1 if kind in every else "" for kind in CT_ICH_COLUMNS.values()]
        age = "" if info.age is None else f"{info.age:g}"
        sex = {"F": "Female", "M": "Male"}.get(info.sex or "", "")
        people.append((int(info.name), age, sex, *kinds, int(bool(info.fracture_slices)), info.note))
    write_table(root / DIAGNOSIS, diagnosis)
    write_table(root / DEMOGRAPHICS, people)


def _find(root: Path, name: str) -> Path | None:
    """The file of that name, whatever its case."""
    return next((path for path in sorted(root.iterdir()) if path.name.casefold() == name.casefold()), None)


def _patient(name: str) -> str:
    """49, 049 and "049" are one patient."""
    return f"{int(name):03d}" if is_number(name) else name


def _without_scan(
    table: Path, patients: dict[str, SliceTypes] | dict[str, Person], scans: dict[str, Path]
) -> list[str]:
    alone = sorted(set(patients) - {_patient(name) for name in scans})
    return [f"{table.name} has patients without a scan: {some_of(alone)}"] if alone else []


def _compare_slices(path: Path, types: SliceTypes | None, table: Path) -> list[str]:
    """Warnings naming slices that the table has and the scan has not, and the other way round."""
    if types is None:
        return [f"not in {table.name}: the types in its slices are not known"]
    warnings: list[str] = []
    with suppress(InputError):  # a scan that cannot be read says so when it is read
        numbers = set(slice_numbers(path))
        if extra := sorted(set(types) - numbers):
            warnings.append(f"{table.name} names slices that do not exist, of {len(numbers)}: {some_of(extra)}")
        if lacking := sorted(numbers - set(types)):
            warnings.append(f"slices whose types {table.name} does not tell: {some_of(lacking)}")
    return warnings


def _years(cell: str) -> float | None:
    try:
        return float(cell.replace(",", "."))
    except ValueError:
        return None
