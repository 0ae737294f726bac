"""DICOM to Scan: files, folders, zips and DICOMDIRs; series found and judged by their geometry.

amounts    mL, slices and lengths of a prediction, as SR and SC say them
attributes single values of a dataset, read with care
codes      what a segment shows, in codes of SNOMED CT
faults     what real archives get wrong, put into a series before it is written
files      bytes of DICOM files, in folders or in zips
grouping   images as series: which belong together, and in which order
header     what the header of a file says of each of its images
identity   whose a study is, and texts without the patient's name
inventory  studies and series of a folder, a zip or a DICOMDIR, and which one is read
judging    why a series is set aside, what is said of it, and which one is best for bleeding
masks      segmentations (SEG) and contours (RTSTRUCT) as masks of a scan
out        a prediction as DICOM: all that a PACS is given
own        what hemotorch wrote, and whether it is unchanged
pixels     stored pixels as HU
reader     a series as a Scan
sc         a prediction as pictures: a secondary capture
seg        a mask as a segmentation of the series that its scan was read from
series     one series: what its headers and positions say of it
slice_file one file of a series that is written
source     the images that a scan was read from, for what points at them
sr         a prediction as a structured report
write      a Scan as a series of DICOM

A scan is many files, one for each slice, or one file of many frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hemotorch.errors import InputError, some_of
from hemotorch.io.dicom.files import ZIP_SUFFIX, is_dicom, is_zip, on_disk
from hemotorch.io.dicom.identity import Identity, hider
from hemotorch.io.dicom.inventory import (
    DicomInventory,
    DicomStudy,
    dicom_files,
    is_container,
    look_into,
    names_of_studies,
    series_by_uid,
    take_inventory,
)
from hemotorch.io.dicom.judging import score
from hemotorch.io.dicom.masks import mask_names, mask_of_file, mask_series
from hemotorch.io.dicom.out import SC, SEG, SR, DicomFiles, write_dicom
from hemotorch.io.dicom.own import is_own, is_own_mask
from hemotorch.io.dicom.reader import scan_of_series, slice_numbers_of
from hemotorch.io.dicom.series import Series
from hemotorch.scan import Scan

__all__ = [
    "NAME",
    "ONE_FILE_PER_SLICE",
    "SC",
    "SEG",
    "SR",
    "SUFFIXES",
    "TITLE",
    "DicomFiles",
    "DicomInventory",
    "DicomStudy",
    "Identity",
    "Series",
    "dicom_files",
    "files_of",
    "hider",
    "is_container",
    "is_dicom",
    "is_own",
    "is_own_mask",
    "is_zip",
    "look_into",
    "mask_names",
    "mask_series",
    "names_of_studies",
    "on_disk",
    "read_chosen",
    "read_mask",
    "read_scan",
    "read_series",
    "scan_name",
    "score",
    "series_by_uid",
    "slice_numbers",
    "take_inventory",
    "write_dicom",
]

NAME = "dicom"
TITLE = "DICOM"
SUFFIXES: tuple[str, ...] = (".dcm", ".dicom", ".ima")
ONE_FILE_PER_SLICE = True


def files_of(path: Path) -> tuple[Path, ...]:
    """The file on the disk: itself, or the zip that it is in."""
    return (on_disk(path),)


def read_scan(files: Sequence[Path]) -> Scan:
    """Reads one scan as `read_chosen` does, of the best series. Raises InputError."""
    return read_chosen(files)


def read_chosen(files: Sequence[Path], series: str | None = None) -> Scan:
    """Reads one scan: slices at their true positions, foot to head, HU by each slice's own rescale.

    Args:
        files: the files of one series; or a folder, a zip or a DICOMDIR, of whose only study the best series is read.
        series: the SeriesInstanceUID to read instead.

    Returns:
        The scan. Its warnings say what is uneven, tilted, missing, doubtful or was repaired, and why the series was
        chosen if there were several.

    Raises:
        InputError: if nothing in it is a head CT that can be read, or there are several studies.
    """
    files_found: list[Path] = []
    unread: dict[Path, str] = {}
    for path in files:
        more, bad = dicom_files(path)
        files_found.extend(more)
        unread.update(bad)
    where = files[0]
    if not files_found and not unread:
        what = "is a folder that holds no DICOM" if where.is_dir() else "holds no DICOM"
        raise InputError(what, where)
    inventory = take_inventory(files_found, unread)
    if series is not None:
        return read_series(series_by_uid(inventory, series), where)
    if not inventory.studies:
        path, reason = next(iter(inventory.unread.items()))
        raise InputError(reason, path)
    if len(inventory.studies) > 1:
        folders = some_of([study.location for study in inventory.studies], 3)
        what = f"holds {len(inventory.studies)} studies ({folders})"
        raise InputError(what, where, "give one of them, or a series; `hemotorch inspect` lists them")
    study = inventory.studies[0]
    if study.chosen is None:
        raise study.refusal()
    notes = [f"{some_of(list(inventory.unread), 3)}: {reason}" for reason in set(inventory.unread.values())]
    if len(study.series) > 1:
        notes.insert(0, f"{study.chosen.title} was read: {study.why}")
    return read_series(study.chosen, where, tuple(notes))


def read_series(series: Series, named_after: Path, notes: tuple[str, ...] = ()) -> Scan:
    """A series as a Scan.

    Args:
        series: that is not set aside.
        named_after: the file or folder whose name the scan takes.
        notes: warnings to put before its own.

    Raises:
        InputError: as `read_scan`.
    """
    scan = scan_of_series(series, NAME, scan_name(named_after))
    if not notes:
        return scan
    return replace(scan, warnings=(*notes, *scan.warnings))


def scan_name(path: Path) -> str:
    """What a scan of this file or folder is called."""
    if path.name.lower().endswith((*SUFFIXES, ZIP_SUFFIX)):
        return path.stem
    return path.name or "scan"


def read_mask(files: Sequence[Path], scan: Scan | None = None) -> tuple[np.ndarray, list[str]]:
    """Reads a segmentation (SEG) or structure set (RTSTRUCT) as a mask.

    Args:
        files: one file.
        scan: that it was drawn on; without it, it cannot be known which slices there are.

    Returns:
        (slices, rows, columns) uint8: numbers of segments, or of regions from 1; and warnings.

    Raises:
        InputError: as `masks.mask_of_file`, and without a scan.
    """
    if scan is None:
        raise InputError("is a mask in DICOM, which is read beside its scan only", files[0])
    return mask_of_file(files[0], scan)


def slice_numbers(files: Sequence[Path]) -> tuple[int, ...]:
    """The instance number of each slice, or its number from 1, foot to head. Raises InputError."""
    inventory = take_inventory(file for path in files for file in dicom_files(path)[0])
    for study in inventory.studies:
        if study.chosen is not None:
            return slice_numbers_of(study.chosen.images)
    raise InputError("holds no head CT that can be read", files[0])
