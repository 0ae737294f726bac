"""PhysioNet CT-ICH v1.3.1: 75 head CTs, binary masks, and the types of bleeding in each slice (Hssayeni et al. 2020).

ct_scans/049.nii  masks/049.nii  hemorrhage_diagnosis_raw_ct.csv  [Patient_demographics.csv]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hemotorch.data.layouts.case import Case, Collection, files_by_name, masks_by_hand, paths_of, unpaired
from hemotorch.data.layouts.tables import is_number, plain, read_cells, read_table, whole, write_table
from hemotorch.errors import InputError, some_of
from hemotorch.io import VOLUME_SUFFIXES, slice_numbers, write_mask, write_scan
from hemotorch.labels import CT_ICH_COLUMNS
from hemotorch.scan import CaseInfo, Scan

NAME = "ct-ich"
LOOKS_FOR = "ct_scans/ with volumes"
OF_SLICES = False

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
    """A row of the demographics: age in years and sex, F or M, None if not given."""

    age: float | None
    sex: str | None


def matches(root: Path) -> bool:
    """Whether the folder is laid out this way."""
    return bool(files_by_name(root / SCANS, VOLUME_SUFFIXES))


def open_cases(root: Path) -> Collection:
    """The cases of a CT-ICH folder. A slice's types come from the CSV; voxels of its binary masks stay untyped.

    Raises:
        InputError: for tables that cannot be read, have other columns, or contradict themselves.
    """
    scans = files_by_name(root / SCANS, VOLUME_SUFFIXES)
    masks, predicted = masks_by_hand(files_by_name(root / MASKS, VOLUME_SUFFIXES))
    warnings = unpaired(scans, masks)
    slices: dict[str, SliceTypes] = {}
    diagnosis = _table(root, DIAGNOSIS)
    if diagnosis is None:
        warnings.append(f"no {DIAGNOSIS}: the types of bleeding in each slice are not known")
    else:
        slices, doubts = read_diagnosis(diagnosis)
        warnings += doubts + _without_scan(diagnosis, slices, scans)
    people: dict[str, Person] = {}
    demographics = _table(root, DEMOGRAPHICS)
    if demographics is not None:
        people = read_demographics(demographics)
        warnings += _without_scan(demographics, people, scans)
    cases = []
    for name, path in scans.items():
        patient = _patient(name)
        person = people.get(patient, Person(None, None))
        doubts = []
        if diagnosis is not None:
            doubts = _compare_slices(path, slices.get(patient), diagnosis)
            warnings += [f"{name}: {text}" for text in doubts]
        case = Case(
            name,
            scan_paths=(path,),
            mask_paths=paths_of(masks.get(name)),
            patient=patient,
            slice_types=slices.get(patient),
            layout=NAME,
            warnings=tuple(doubts),
            age=person.age,
            sex=person.sex,
            # Both tables go by patient number: a scan that one of them names is known to be of that patient.
            patient_assumed=patient not in slices and patient not in people,
        )
        cases.append(case)
    paired = len(scans.keys() & masks.keys())
    description = f"PhysioNet CT-ICH by its {SCANS}/: {len(scans)} scans, {paired} with a mask"
    if diagnosis is not None:
        named_slices = sum(len(types) for types in slices.values())
        description += f", types of {named_slices} slices from {diagnosis.name}"
    return Collection(NAME, root, tuple(cases), description, tuple(warnings), tuple(predicted))


def read_diagnosis(path: Path) -> tuple[dict[str, SliceTypes], list[str]]:
    """The types of each slice.

    Args:
        path: of `hemorrhage_diagnosis_raw_ct.csv`, one row per slice.

    Returns:
        By patient ("049") and slice number, and warnings.

    Raises:
        InputError: for missing columns, cells that are not 0 or 1, and a slice that two rows describe differently.
    """
    slices: dict[str, SliceTypes] = {}
    first_line: dict[tuple[str, int], int] = {}
    repeated = []
    unclear = []
    for line, row in read_table(path, COLUMNS):
        patient = _patient(str(whole(row["PatientNumber"], "PatientNumber", line, path)))
        number = whole(row["SliceNumber"], "SliceNumber", line, path)
        flags = {name: whole(row[name], name, line, path, range(2)) for name in COLUMNS[2:]}
        types = frozenset(kind for column, kind in CT_ICH_COLUMNS.items() if flags[column])
        label = f"{patient} slice {number} (line {line})"
        types_of_slice = slices.setdefault(patient, {})
        earlier = first_line.setdefault((patient, number), line)
        if earlier != line:
            if types_of_slice.get(number, types) != types:
                raise InputError(f"{label} contradicts line {earlier} on the same slice", path, "correct the table")
            repeated.append(label)
        # A type and "no haemorrhage", or neither.
        if bool(types) == bool(flags["No_Hemorrhage"]):
            unclear.append(label)
        # Neither a type nor "no haemorrhage" is marked: what the slice holds is not known.
        if types or flags["No_Hemorrhage"]:
            types_of_slice[number] = types
    warnings = []
    if repeated:
        warnings.append(f"{path.name}: rows that repeat an earlier one: {some_of(repeated)}")
    if unclear:
        warnings.append(f"{path.name}: No_Hemorrhage disagrees with the types, which are believed: {some_of(unclear)}")
    return slices, warnings


def read_demographics(path: Path) -> dict[str, Person]:
    """Age and sex by patient ("049").

    Args:
        path: of `Patient_demographics.csv`, whose header spans two rows.

    Raises:
        InputError: for another header.
    """
    rows = read_cells(path)
    header: list[str] = []
    if rows:
        header = [plain(cell) for cell in rows[0][1]]
    wanted = ("patient number", "age", "gender")
    indices = [_index_of(title, header) for title in wanted]
    missing = [title for title, index in zip(wanted, indices, strict=True) if index is None]
    if missing:
        titles = ", ".join(filter(None, header))
        raise InputError(f"has no column {', '.join(missing)}; its columns are: {titles}", path)
    people = {}
    for _, row in rows[1:]:
        number, age, sex = (_cell(row, index) for index in indices)
        # The header's second row, and remarks below the table, have no number.
        if is_number(number):
            letter = sex[:1].upper()
            people[_patient(number)] = Person(_years(age), letter if letter in ("F", "M") else None)
    return people


def write_case(root: Path, name: str, scan: Scan, mask: np.ndarray | None, info: CaseInfo) -> None:
    """Writes one scan and its mask as 0/255. Safe to call from several processes, one for each case.

    Raises:
        InputError: if the name is not a number, which the tables need.
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
            is_fractured = number in info.fracture_slices
            diagnosis.append((int(info.name), number, *flags, int(not types), int(is_fractured)))
        people.append(_demographics_row(info))
    write_table(root / DIAGNOSIS, diagnosis)
    write_table(root / DEMOGRAPHICS, people)


def _demographics_row(info: CaseInfo) -> Sequence[object]:
    all_types = frozenset().union(*info.slice_types.values())
    flags = [1 if kind in all_types else "" for kind in CT_ICH_COLUMNS.values()]
    age = "" if info.age is None else f"{info.age:g}"
    sex = {"F": "Female", "M": "Male"}.get(info.sex or "", "")
    return int(info.name), age, sex, *flags, int(bool(info.fracture_slices)), info.note


def _table(root: Path, name: str) -> Path | None:
    """The file of that name, whatever its letter case."""
    for path in sorted(root.iterdir()):
        if path.name.casefold() == name.casefold():
            return path
    return None


def _index_of(title: str, header: Sequence[str]) -> int | None:
    """The column whose header begins so: CT-ICH adds a unit to some."""
    for index, cell in enumerate(header):
        if cell.startswith(title):
            return index
    return None


def _cell(row: Sequence[str], index: int | None) -> str:
    if index is None or index >= len(row):
        return ""
    return row[index]


def _patient(name: str) -> str:
    """49, 049 and "049" are one patient."""
    return f"{int(name):03d}" if is_number(name) else name


def _without_scan(table: Path, patients: Iterable[str], scans: Iterable[str]) -> list[str]:
    """A warning that names a table's patients of whom there is no scan."""
    alone = sorted(set(patients) - {_patient(name) for name in scans})
    if not alone:
        return []
    return [f"{table.name} has patients without a scan: {some_of(alone)}"]


def _compare_slices(path: Path, types: SliceTypes | None, table: Path) -> list[str]:
    """Warnings naming slices that the table has and the scan has not, and the other way round."""
    if types is None:
        return [f"not in {table.name}: the types in its slices are not known"]
    try:
        numbers = set(slice_numbers(path))
    except InputError:  # a scan that cannot be read says so when it is read
        return []
    warnings: list[str] = []
    if extra := sorted(types.keys() - numbers):
        warnings.append(f"{table.name} names slices that do not exist, of {len(numbers)}: {some_of(extra)}")
    if lacking := sorted(numbers - types.keys()):
        warnings.append(f"slices whose types {table.name} does not tell: {some_of(lacking)}")
    return warnings


def _years(cell: str) -> float | None:
    try:
        return float(cell.replace(",", "."))
    except ValueError:
        return None
