"""Where datasets keep their files: what is at a path is recognised, opened as cases, and can be written.

case         Case, one study on disk; Collection, all of them
ct_ich       PhysioNet CT-ICH: ct_scans/, masks/ and its tables
folder       folders of NIfTI: images/ and masks/, nnU-Net's, or one flat folder
inside       what lies inside the skull: inside/
mask_values  what the values of a mask mean
patients     which patient a scan is of: patients.csv
png          the 2021 paper's image/ and label/ of PNG slices
tables       CSV as hospitals and spreadsheets write it
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from hemotorch.data.layouts import ct_ich, folder, png
from hemotorch.data.layouts.case import Case, Collection
from hemotorch.data.layouts.inside import assign_inside, write_inside
from hemotorch.data.layouts.patients import assign_patients, find_table
from hemotorch.errors import InputError, OptionError, nearest
from hemotorch.io import CONVERT_DICOM, SLICE_SUFFIXES, files_of, format_of, is_dicom, is_predicted, is_volume
from hemotorch.io.walk import OTHER_PICTURES, grouped, walk, why_unread, without_parents
from hemotorch.scan import CaseInfo, Scan

__all__ = ["LAYOUTS", "Case", "Collection", "open_layout", "recognise", "write_case", "write_tables"]

#: In the order in which they are looked for.
LAYOUTS = {module.NAME: module for module in (ct_ich, folder, png)}


def recognise(root: Path | str) -> str:
    """The name of the layout of a dataset's folder. Raises InputError as `open_layout`."""
    return _find(Path(root), tuple(LAYOUTS))[0]


def open_layout(root: Path | str, layout: str = "auto") -> Collection:
    """Opens a dataset's folder, or the only dataset one level below it.

    layout: one of LAYOUTS, or auto to recognise it. Raises OptionError for an unknown layout; InputError where the
    folder is missing, empty, or holds nothing or more than one thing that looks like a dataset, and for tables that
    cannot be used.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise OptionError(f"unknown layout '{layout}'", todo=nearest(layout, (*LAYOUTS, "auto")))
    name, place = _find(Path(root), tuple(LAYOUTS) if layout == "auto" else (layout,))
    opened = LAYOUTS[name].open_cases(place)
    opened = assign_patients(opened, find_table(place, Path(root)))
    opened = assign_inside(opened) if name != png.NAME else opened
    passed_over = (*opened.passed_over, *_passed_over(opened, Path(root)))
    return replace(opened, description=f"{name}: {opened.description}, in {place}", passed_over=passed_over)


def write_case(
    layout: str,
    root: Path | str,
    name: str,
    scan: Scan,
    mask: np.ndarray | None,
    info: CaseInfo,
    inside: np.ndarray | None = None,
) -> None:
    """Writes one case's files; callable from several processes.

    Args:
        mask: (slices, rows, columns) uint8 codes of `labels`, or None.
        inside: (slices, rows, columns) bool, what lies inside the skull, or None. PNG folders hold none.
    """
    _layout(layout).write_case(Path(root), name, scan, mask, info)
    if inside is not None and layout != png.NAME:
        write_inside(Path(root), name, scan, inside)


def write_tables(layout: str, root: Path | str, rows: Sequence[CaseInfo]) -> None:
    """Writes, once for all cases, the tables that the layout keeps beside them."""
    _layout(layout).write_tables(Path(root), rows)


def _layout(name: str) -> ModuleType:
    if name not in LAYOUTS:
        raise OptionError(f"unknown layout '{name}'", todo=nearest(name, LAYOUTS))
    return LAYOUTS[name]


def _passed_over(opened: Collection, root: Path) -> list[str]:
    """What stands in the dataset's folder or below, looks like a scan or a mask, and is no part of any case."""
    entries = walk(root)
    read: set[Path] = set()
    for case in opened.cases:
        read.update(files_of(case.paths))
    sliced = any(path.name.lower().endswith(SLICE_SUFFIXES) for path in read)
    folders = {path.parent for path in read}
    unread = without_parents(entries.unread, read, root)
    for path in entries.files:
        if path in read:
            continue
        reason = why_unread(path)
        if reason is None and sliced:
            reason = _beside_slices(path, folders)
        elif reason is None and is_volume(path):
            reason = "is no part of any case"
        # What a network made, wherever it was written, is named by the layout if it stands among the masks.
        if reason is not None and not is_predicted(path):
            unread[path] = reason
    return [f"{names}: {reason}" for names, reason in grouped(unread, root)]


def _beside_slices(path: Path, folders: set[Path]) -> str | None:
    """Why a file is not read where scans are slices, or None if it is neither a slice nor a volume.

    Args:
        path: of the file.
        folders: that hold the slices. Pictures elsewhere (a contact sheet, a logo) are no slices.
    """
    known = format_of(path)
    if known is not None and not known.ONE_FILE_PER_SLICE:
        return f"is {known.TITLE} beside folders of slices, which are read"
    if path.parent in folders and path.name.lower().endswith((*SLICE_SUFFIXES, *OTHER_PICTURES)):
        return "is no part of any case"
    return None


def _find(root: Path, names: tuple[str, ...]) -> tuple[str, Path]:
    """The layout and the folder it was found in: the root, or one of its folders."""
    if not root.exists():
        raise InputError("no such folder", root)
    if not root.is_dir():
        raise InputError("is a file, not a dataset's folder", root)
    try:
        entries = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", root) from error
    if not entries:
        raise InputError("is an empty folder", root)
    for name in names:
        if LAYOUTS[name].matches(root):
            return name, root
    # A forbidden folder is no reason to stop; it is named among what is not read.
    folders = [place for place in entries if place.is_dir() and os.access(place, os.R_OK | os.X_OK)]
    below = [(n, place) for place in folders for n in names if LAYOUTS[n].matches(place)]
    places = sorted({place for _, place in below})
    if not places:
        looked = "; ".join(f"{LAYOUTS[name].LOOKS_FOR} ({name})" for name in names)
        if dicom := next((path for path in root.rglob("*") if path.is_file() and is_dicom(path)), None):
            raise InputError(f"holds DICOM ({dicom.name}), which is not read yet", root, CONVERT_DICOM)
        raise InputError(
            "is not laid out in a way that is known", root, f"looked here and one level below for {looked}"
        )
    if len(places) > 1:
        named = ", ".join(place.name for place in places[:5])
        raise InputError(f"holds {len(places)} folders that look like datasets: {named}", root, "give one of them")
    return below[0]
