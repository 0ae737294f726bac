"""What lies inside the skull, in any layout of volumes: inside/NAME.nii.gz, 1 inside and 0 outside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from hemotorch.data.layouts.case import Collection, files_by_name
from hemotorch.errors import some_of
from hemotorch.io import VOLUME_SUFFIXES, write_mask
from hemotorch.scan import Scan

INSIDE = "inside"  #: name of the folder


def assign_inside(collection: Collection) -> Collection:
    """Gives each case its file in `inside/`, if there is one."""
    files = files_by_name(collection.root / INSIDE, VOLUME_SUFFIXES)
    if not files:
        return collection
    cases = tuple(replace(case, inside_path=files.get(case.name)) for case in collection.cases)
    warnings = list(collection.warnings)
    if alone := sorted(files.keys() - {case.name for case in cases}):
        warnings.append(f"{len(alone)} files in {INSIDE}/ have no scan and are left out: {some_of(alone)}")
    return replace(collection, cases=cases, warnings=tuple(warnings))


def write_inside(root: Path, name: str, scan: Scan, inside: np.ndarray) -> None:
    """Writes what lies inside one scan's skull, (slices, rows, columns) bool."""
    write_mask(scan, inside.astype(np.uint8), root / INSIDE / f"{name}.nii.gz")
