"""Studies in DICOM, with masks as NIfTI, SEG or RTSTRUCT: any folders of studies.

    images/NAME/*.dcm  masks/NAME.nii.gz  [labels.json]  [patients.csv]

Studies may lie anywhere below the folder, several in one folder too; of each the best series for bleeding is taken.
A study's name is that of the highest folder (in images/, if that is there) that holds no other study. Its mask is
masks/NAME.nii.gz (or labels/), or NAME_mask.nii.gz beside its folder, or the only NIfTI file in its folder. What mask
values mean is decided as in the layout `folder`. If there is none, it is the only segmentation or structure set of the
study in DICOM; names of its segments say what they mean. Patients are told apart by PatientID, of which only a digest
is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hemotorch.data.layouts import folder
from hemotorch.data.layouts.case import Case, Collection, files_by_name, masks_by_hand, paths_of, unpaired
from hemotorch.data.layouts.mask_values import code_of
from hemotorch.data.layouts.patients import identity
from hemotorch.errors import InputError, some_of
from hemotorch.io import VOLUME_SUFFIXES, dicom, is_dicom, is_volume, stem, write_mask
from hemotorch.io.dicom.write import write_series
from hemotorch.io.walk import grouped, walk
from hemotorch.scan import CaseInfo, Scan

NAME = "dicom"
LOOKS_FOR = "studies in DICOM anywhere below"
OF_SLICES = False

_MASK_FOLDERS = ("masks", "labels", "inside")
_MASK_ENDING = "_mask"
_MASK_MODALITIES = ("SEG", "RTSTRUCT")


def matches(root: Path) -> bool:
    """Whether there is DICOM below, and no volume but masks."""
    files = walk(root).files
    series_folders = {path.parent for path in files if not is_volume(path) and is_dicom(path)}
    zips = any(dicom.is_zip(path) and dicom.dicom_files(path)[0] for path in files)
    if not series_folders and not zips:
        return False
    return all(_may_be_mask(path, series_folders) for path in files if is_volume(path))


def _may_be_mask(path: Path, series_folders: set[Path]) -> bool:
    in_study = any(path.parent == entry or path.parent in entry.parents for entry in series_folders)
    named = stem(path).lower().endswith(_MASK_ENDING)
    return path.parent.name in _MASK_FOLDERS or (in_study and (named or path.parent in series_folders))


def open_cases(root: Path) -> Collection:
    """The cases of a folder of studies, of each the best series. See `open_studies`."""
    return open_studies(root)


def open_studies(root: Path, series: Sequence[str] = ()) -> Collection:
    """The cases of a folder of studies; headers are read once.

    Args:
        root: the folder.
        series: SeriesInstanceUIDs to read instead of the best series of their studies.

    Raises:
        InputError: if no study can be read, two have one name, or a series that is asked for is no CT of a head.
        OptionError: if one of them is not there.
    """
    files, unread = dicom.dicom_files(root)
    inventory = dicom.take_inventory(files, unread)
    asked = {uid: dicom.series_by_uid(inventory, uid) for uid in series}
    passed_over = [f"{names}: {reason}" for names, reason in grouped(inventory.unread, root)]
    images = root / "images"
    names = dicom.names_of_studies(inventory.studies, images if images.is_dir() else root, itself=False)
    warnings: list[str] = []
    study_of_name: dict[str, tuple[dicom.DicomStudy, Path]] = {}
    for study, after in zip(inventory.studies, names, strict=True):
        if of_study := [entry for entry in study.series if entry.uid in asked]:
            study = replace(study, chosen=asked[of_study[0].uid], why="asked for with --series")
        if study.chosen is None:
            passed_over.append(str(study.refusal()))
            continue
        name = _unique(dicom.scan_name(after), study_of_name)
        study_of_name[name] = (study, after)
    if not study_of_name:
        reasons = some_of(passed_over, 3)
        raise InputError(f"holds no study in DICOM that can be read: {reasons}", root)
    masks, predicted = masks_by_hand(_masks(root, study_of_name))
    if masks:
        warnings += unpaired(study_of_name, masks)
    paired = sorted(study_of_name.keys() & masks.keys())
    codes: dict[int, int] = {}
    if paired:
        codes, doubts = folder.mask_codes(root, [masks[name] for name in paired])
        warnings += doubts
    cases = []
    for name, (study, _) in study_of_name.items():
        case = _case(name, study, masks.get(name), codes)
        if name not in masks:
            case, doubts = _with_own_mask(case, study, study.chosen in asked.values())
            warnings += [f"{name}: {text}" for text in doubts]
        cases.append(case)
    with_mask = sum(bool(case.mask_paths) for case in cases)
    description = f"studies in DICOM: {len(cases)}, {with_mask} with a mask"
    return Collection(NAME, root, tuple(cases), description, tuple(warnings), (*predicted, *passed_over))


def _case(name: str, study: dicom.DicomStudy, mask: Path | None, codes: dict[int, int]) -> Case:
    """The case of a study's chosen series."""
    assert study.chosen is not None
    first = study.chosen.first
    warnings = study.chosen.doubts
    if len(study.series) > 1:
        warnings = (f"{study.chosen.title} was chosen: {study.why}", *warnings)
    return Case(
        name,
        scan_paths=study.chosen.files,
        mask_paths=paths_of(mask),
        patient=pseudonym(first.patient_id) if first.patient_id else name,
        layout=NAME,
        warnings=warnings,
        mask_codes=codes,
        age=first.age,
        sex=first.sex if first.sex in ("F", "M") else None,
        patient_assumed=not first.patient_id,
    )


def _with_own_mask(case: Case, study: dicom.DicomStudy, is_asked: bool) -> tuple[Case, list[str]]:
    """The case with the segmentation or structure set of its study, if there is one; and what is said of it.

    It then reads the series that the mask was drawn on, if the mask says which, unless another was asked for.
    """
    paths: list[Path] = []
    for entry in study.series:
        if entry.first.modality in _MASK_MODALITIES:
            paths += entry.files
    by_hand = [path for path in paths if not dicom.is_own_mask(path)]
    doubts = []
    if len(by_hand) < len(paths):
        doubts.append("a segmentation that hemotorch itself made is no truth to learn from, and is left out")
    if len(by_hand) > 1:
        names = some_of([path.name for path in by_hand], 3)
        return case, [*doubts, f"has {len(by_hand)} masks in DICOM ({names}), and which is meant is not known"]
    if not by_hand:
        return case, doubts
    try:
        names_of_values = dicom.mask_names(by_hand[0])
    except InputError as error:
        return case, [*doubts, str(error)]
    codes = {value: code_of(name) for value, name in names_of_values.items()}
    unknown = [names_of_values[value] for value, code in codes.items() if code is None]
    if unknown:
        doubts.append(f"these segments are not called after bleeding and are left out: {some_of(unknown)}")
    if len(unknown) == len(codes):
        return case, [*doubts, "so its mask is not read"]
    known = {value: code or 0 for value, code in codes.items()}
    drawn_on = dicom.mask_series(by_hand[0])
    if study.chosen is not None and study.chosen.uid not in drawn_on and not is_asked:
        under_mask = [entry for entry in study.series if entry.uid in drawn_on and not entry.aside]
        if under_mask:
            best = max(under_mask, key=dicom.score)
            why = f"{best.title} is read, since its mask was drawn on it"
            case = replace(case, scan_paths=best.files, warnings=(why, *best.doubts))
    return replace(case, mask_paths=(by_hand[0],), mask_codes=known), doubts


def pseudonym(patient_id: str) -> str:
    """A name for a patient that does not tell the id: "p" and 12 digits of its SHA-256, the same for all spellings.

    Whoever has a list of all ids can find the patient; keep the dataset as you keep the list.
    """
    return "p" + hashlib.sha256(identity(patient_id).encode()).hexdigest()[:12]


def write_case(root: Path, name: str, scan: Scan, mask: np.ndarray | None, info: CaseInfo) -> None:
    """Writes one scan as a series and its mask as NIfTI. Safe to call from several processes, one per case."""
    write_faulty(root, name, scan, mask, info, ())


def write_faulty(
    root: Path, name: str, scan: Scan, mask: np.ndarray | None, info: CaseInfo, faults: Sequence[str]
) -> None:
    """Writes a case as `write_case`, its series with faults; the mask is that of the scan without them.

    Raises:
        OptionError: for an unknown fault.
    """
    write_series(scan, root / "images" / name, patient=info.patient, age=info.age, sex=info.sex, faults=faults)
    if mask is not None:
        write_mask(scan, mask, root / "masks" / f"{name}.nii.gz")


def write_tables(root: Path, rows: Sequence[CaseInfo]) -> None:
    """Writes `labels.json` and `patients.csv`, as the layout `folder` does."""
    folder.write_tables(root, rows)


def _unique(name: str, taken: dict[str, tuple[dicom.DicomStudy, Path]]) -> str:
    """The name, with a number behind it if another study has it."""
    number = 1
    unique = name
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    return unique


def _masks(root: Path, studies: dict[str, tuple[dicom.DicomStudy, Path]]) -> dict[str, Path]:
    """Masks by the names of their studies; those of a masks folder that fit no study by their own names."""
    masks: dict[str, Path] = {}
    for folder_name in ("masks", "labels"):
        for name, path in files_by_name(root / folder_name, VOLUME_SUFFIXES).items():
            masks.setdefault(name.removesuffix(_MASK_ENDING), path)
    for name, (_, after) in studies.items():
        if name in masks:
            continue
        beside = files_by_name(after.parent, VOLUME_SUFFIXES).get(f"{after.name}{_MASK_ENDING}")
        inside = list(files_by_name(after, VOLUME_SUFFIXES).values()) if after.is_dir() else []
        if beside is not None:
            masks[name] = beside
        elif len(inside) == 1:
            masks[name] = inside[0]
        elif len(inside) > 1:
            raise InputError("holds several NIfTI files, and which one is the mask is not known", after)
    return masks
