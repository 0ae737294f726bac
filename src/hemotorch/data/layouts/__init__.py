"""Where datasets keep their files: what is at a path is recognised, opened as cases, and can be written.

case         Case, one study on disk; Collection, all of them
ct_ich       PhysioNet CT-ICH: ct_scans/, masks/ and its tables
dicom        studies in DICOM, with masks as NIfTI, SEG or RTSTRUCT
folder       folders of volumes: images/ and masks/, nnU-Net's, or one flat folder
inside       what lies inside the skull: inside/
mask_values  what the values of a mask mean
painted      which scans hold synthetic bleeding: painted.json
patients     which patient a scan is of: patients.csv
png          the 2021 paper's image/ and label/ of PNG slices
tables       CSV as hospitals and spreadsheets write it

A layout is a module with the names that `Layout` says. To add one, write the module and put it into `LAYOUTS`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from hemotorch.data.layouts import ct_ich, dicom, folder, png
from hemotorch.data.layouts.case import Case, Collection
from hemotorch.data.layouts.inside import assign_inside, write_inside
from hemotorch.data.layouts.painted import assign_painted
from hemotorch.data.layouts.patients import assign_patients, find_table
from hemotorch.errors import InputError, OptionError, nearest
from hemotorch.io import (
    SLICE_SUFFIXES,
    VOLUME_SUFFIXES,
    files_of,
    format_of,
    is_dicom,
    is_predicted,
    is_volume,
)
from hemotorch.io.walk import OTHER_PICTURES, grouped, walk, why_unread, without_parents
from hemotorch.scan import CaseInfo, Scan

__all__ = [
    "LAYOUTS",
    "Case",
    "Collection",
    "Layout",
    "open_layout",
    "open_sources",
    "recognise",
    "write_case",
    "write_tables",
]


class Layout(Protocol):
    """What the module of a layout holds.

    NAME: that options and records call it. LOOKS_FOR: what is looked for, in words. OF_SLICES: whether scans are
    folders of slices, one file each; else they are volumes.
    """

    NAME: str
    LOOKS_FOR: str
    OF_SLICES: bool

    def matches(self, root: Path) -> bool:
        """Whether the folder is laid out this way."""

    def open_cases(self, root: Path) -> Collection:
        """The cases of a folder that matches. Raises InputError for tables that cannot be used."""

    def write_case(self, root: Path, name: str, scan: Scan, mask: np.ndarray | None, info: CaseInfo) -> None:
        """Writes one scan and its mask, codes of `labels`. Safe to call from several processes, one for each case."""

    def write_tables(self, root: Path, rows: Sequence[CaseInfo]) -> None:
        """Writes what stands beside the cases, once for all of them."""


_MODULES: tuple[Layout, ...] = (ct_ich, folder, png, dicom)  # in the order in which they are looked for
LAYOUTS: dict[str, Layout] = {module.NAME: module for module in _MODULES}


def recognise(root: Path | str) -> str:
    """The name of the layout of a dataset's folder. Raises InputError as `open_layout`."""
    name, _ = _find(Path(root), tuple(LAYOUTS))
    return name


def open_layout(root: Path | str, layout: str = "auto", series: Sequence[str] = ()) -> Collection:
    """Opens a dataset's folder, or the only dataset one level below it.

    Args:
        root: of the dataset, or the folder that it is in.
        layout: one of LAYOUTS, or auto to recognise it.
        series: of DICOM, SeriesInstanceUIDs to read instead of the best series of their studies.

    Returns:
        Its cases, with patients and what lies inside the skull so far as files beside them tell; and what is not read.

    Raises:
        OptionError: for an unknown layout, and for series that are not there.
        InputError: if the folder is missing, empty, or holds nothing or more than one thing that looks like a dataset,
            and for tables that cannot be used.
    """
    root = Path(root)
    names: tuple[str, ...] = tuple(LAYOUTS)
    if layout != "auto":
        names = (_layout(layout).NAME,)
    name, dataset = _find(root, names)
    if name == dicom.NAME:
        collection = dicom.open_studies(dataset, series)
    elif series:
        raise OptionError(f"has no series: {dataset} is no DICOM (its layout is {name})", "--series")
    else:
        collection = LAYOUTS[name].open_cases(dataset)
    if not LAYOUTS[name].OF_SLICES:
        collection = assign_painted(collection)
    # The table may also stand one level above the only dataset.
    collection = assign_patients(collection, find_table(dataset, root))
    if not LAYOUTS[name].OF_SLICES:
        collection = assign_inside(collection)
    return replace(
        collection,
        description=f"{name}: {collection.description}, in {dataset}",
        passed_over=(*collection.passed_over, *_passed_over(collection, root)),
    )


def open_sources(roots: Sequence[Path | str], layout: str = "auto", series: Sequence[str] = ()) -> Collection:
    """Opens several datasets as one, each as `open_layout` does. Cases are then called after their source, too.

    A patient of the same name in two sources is taken for one patient: so nobody is trained and tested on at once.

    Args:
        roots: of the datasets.
        layout: of each of them.
        series: as in `open_layout`, of one source alone.

    Raises:
        OptionError: for an unknown layout.
        InputError: as `open_layout`; if two sources are the same folder, or have the same name.
    """
    sources = [Path(root).absolute() for root in roots]
    if len(sources) == 1:
        return open_layout(sources[0], layout, series)
    if series:
        raise OptionError("is for one source at a time", "--series", "prepare the others apart")
    by_name: dict[str, Path] = {}
    for source in sources:
        if source.name in by_name:
            what = f"has the name of another source, {by_name[source.name]}"
            raise InputError(what, source, "rename one: scans are called after it")
        by_name[source.name] = source
    opened = {name: open_layout(source, layout) for name, source in by_name.items()}
    cases: list[Case] = []
    warnings: list[str] = []
    passed_over: list[str] = []
    for name, collection in opened.items():
        cases += (replace(case, name=f"{name}-{case.name}") for case in collection.cases)
        warnings += (f"{name}: {text}" for text in collection.warnings)
        passed_over += (f"{name}: {text}" for text in collection.passed_over)
    return Collection(
        layout=" and ".join(dict.fromkeys(collection.layout for collection in opened.values())),
        root=Path(os.path.commonpath(sources)),
        cases=tuple(sorted(cases, key=lambda case: case.name)),
        description="; ".join(collection.description for collection in opened.values()),
        warnings=tuple(warnings),
        passed_over=tuple(passed_over),
    )


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
    if inside is not None and not LAYOUTS[layout].OF_SLICES:
        write_inside(Path(root), name, scan, inside)


def write_tables(layout: str, root: Path | str, rows: Sequence[CaseInfo]) -> None:
    """Writes, once for all cases, the tables that the layout keeps beside them."""
    _layout(layout).write_tables(Path(root), rows)


def _layout(name: str) -> Layout:
    """The layout of that name. Raises OptionError for an unknown one."""
    if name not in LAYOUTS:
        raise OptionError(f"unknown layout '{name}'", todo=nearest(name, LAYOUTS))
    return LAYOUTS[name]


def _passed_over(collection: Collection, root: Path) -> list[str]:
    """What stands in the dataset's folder or below, looks like a scan or a mask, and is no part of any case."""
    entries = walk(root)
    read: set[Path] = set()
    for case in collection.cases:
        read.update(files_of(case.paths))
    of_slices = LAYOUTS[collection.layout].OF_SLICES
    folders = {path.parent for path in read}
    unread = without_parents(entries.unread, read, root)
    for path in entries.files:
        # The layout itself says which studies and files of DICOM it does not take.
        if path in read or (collection.layout == dicom.NAME and is_dicom(path)):
            continue
        reason = why_unread(path)
        if reason is None and of_slices:
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


def _find(root: Path, names: Sequence[str]) -> tuple[str, Path]:
    """The first of these layouts that is there, and its folder: the root, or one in it.

    Raises:
        InputError: if there is none, or several folders in the root have one.
    """
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
    layout_of: dict[Path, str] = {}
    for entry in entries:
        # A forbidden folder is no reason to stop; it is named among what is not read.
        if entry.is_dir() and os.access(entry, os.R_OK | os.X_OK):
            for name in names:
                if LAYOUTS[name].matches(entry):
                    layout_of.setdefault(entry, name)
    if not layout_of:
        raise _unknown_layout(root, names)
    if len(layout_of) > 1:
        shown = ", ".join(path.name for path in list(layout_of)[:5])
        raise InputError(f"holds {len(layout_of)} folders that look like datasets: {shown}", root, "give one of them")
    ((path, name),) = layout_of.items()
    return name, path


def _unknown_layout(root: Path, names: Sequence[str]) -> InputError:
    """What is said of a folder in which nothing is known, DICOM apart."""
    for path in root.rglob("*"):
        if path.is_file() and is_dicom(path):
            todo = "keep volumes that are no masks elsewhere, or add --layout dicom"
            return InputError(
                f"holds DICOM ({path.name}) beside volumes, and is not laid out in a way that is known", root, todo
            )
    wanted = "; ".join(f"{LAYOUTS[name].LOOKS_FOR} ({name})" for name in names)
    todo = f"looked here and one level below for {wanted}. Volumes end in {', '.join(VOLUME_SUFFIXES)}"
    return InputError("is not laid out in a way that is known", root, todo)
