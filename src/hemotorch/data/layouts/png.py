"""The 2021 paper's folders of 8-bit PNG slices: image/ and label/ with the same file names.

    image/CASE_SSS.png  label/CASE_SSS.png  [window.json]  [patients.csv]

Files called CASE_SSS.png are slices SSS of case CASE. Under any other name a slice is a case of its own, and its
patient is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hemotorch.data.layouts.case import Case, Collection, files_by_name, unpaired
from hemotorch.data.layouts.patients import write_patients
from hemotorch.errors import some_of
from hemotorch.io import png
from hemotorch.scan import CaseInfo, Scan

NAME = "png"
LOOKS_FOR = "image/ (and label/) with PNG files"
OF_SLICES = True

IMAGES, LABELS = "image", "label"


def matches(root: Path) -> bool:
    """Whether the folder is laid out this way."""
    return bool(files_by_name(root / IMAGES, png.SUFFIXES))


def open_cases(root: Path) -> Collection:
    """The cases of PNG folders. Slices without a label are left out of a case that has labels."""
    images = files_by_name(root / IMAGES, png.SUFFIXES)
    labels = files_by_name(root / LABELS, png.SUFFIXES)
    warnings = []
    if labels:
        warnings = unpaired(images, labels, "image", "label")
    if png.read_window(root / IMAGES) is None:
        warnings.append(f"no {png.WINDOW_FILE}: greys are taken as level 40, width 120 HU, and spacing as unknown")
    # A case called 7 of one slice of unknown patient, and slices of a patient 7, are two cases.
    slices_of: dict[tuple[str, bool], list[tuple[int, str]]] = {}
    for name, path in images.items():
        known = png.case_and_number(path)
        case, number = known or (name, 0)
        slices_of.setdefault((case, known is not None), []).append((number, name))
    cases = []
    for (case, has_patient), numbered in sorted(slices_of.items()):
        names = [name for _, name in sorted(numbered)]
        cases.append(_case(case, has_patient, names, images, labels))
    paired = len(images.keys() & labels.keys())
    slices = f"{len(images)} slices, {paired} with a label, {len(cases)} cases"
    description = f"PNG slices in {IMAGES}/ and {LABELS}/: {slices}"
    return Collection(NAME, root, tuple(cases), description, tuple(warnings))


def _case(
    case: str, has_patient: bool, names: Sequence[str], images: Mapping[str, Path], labels: Mapping[str, Path]
) -> Case:
    """The case of these slices, or of those that have a label if any has."""
    warnings = []
    labelled = [name for name in names if name in labels]
    if labelled and len(labelled) < len(names):
        without = sorted(set(names) - set(labelled))
        warnings.append(f"slices left out since they have no label: {some_of(without)}")
    if labelled:
        names = labelled
    return Case(
        case,
        scan_paths=tuple(images[name] for name in names),
        mask_paths=tuple(labels[name] for name in labelled),
        patient=case if has_patient else None,
        layout=NAME,
        warnings=tuple(warnings),
        patient_assumed=True,
    )


def write_case(root: Path, name: str, scan: Scan, mask: np.ndarray | None, info: CaseInfo) -> None:
    """Writes every slice as PNG, and its label as 0/255. Safe to call from several processes, one for each case."""
    window = png.PngWindow()
    for index, number in enumerate(scan.slice_numbers):
        png.write_slice(root / IMAGES / png.slice_file(name, number), scan.hu[index], window)
        if mask is not None:
            png.write_label(root / LABELS / png.slice_file(name, number), mask[index])


def write_tables(root: Path, rows: Sequence[CaseInfo]) -> None:
    """Writes `window.json` and `patients.csv`. Spacing differs between cases, so that these folders do not hold it."""
    png.write_window(root, png.PngWindow())
    write_patients(root, rows)
