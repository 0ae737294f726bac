"""Files to `Scan` and back. `FORMATS` lists the formats, one module each; `read_scan` reads whatever is at a path.

affines     the two affines of a NIfTI header: which one is good, and whether they agree
dicom/      DICOM to Scan: files, folders, zips and DICOMDIRs; series found and judged by their geometry
nifti       NIfTI to Scan, and masks back into the scan's own grid
nifti_image NIfTI files as nibabel's images, checked before anything is allocated
nrrd        NRRD to Scan
png         8-bit PNG slices to Scan, and back
slice_axis  which axis of a file runs across the slices
unpack      how much a header asks for, and gzip and bzip2 unpacked no further than that
values      what a file's numbers are: HU, padding, codes of a mask
volume      voxels and an affine as a Scan, or as the mask of one
walk        a folder and what is below it: what is a scan, and what is not read and why

A format is a module with these names; see `Format`. To add one, write the module and put it into `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from hemotorch.errors import InputError
from hemotorch.io import dicom, nifti, nrrd, png
from hemotorch.io.dicom import is_dicom, on_disk
from hemotorch.io.volume import without_suffix
from hemotorch.scan import Scan
from hemotorch.system.files import regular_file

__all__ = [
    "FORMATS",
    "SLICE_SUFFIXES",
    "VOLUME_SUFFIXES",
    "Format",
    "files_of",
    "format_of",
    "is_dicom",
    "is_predicted",
    "is_scan",
    "is_volume",
    "on_disk",
    "read_mask",
    "read_mask_and_warnings",
    "read_scan",
    "slice_numbers",
    "stem",
    "write_mask",
    "write_scan",
]

# Whatever format a scan has, masks of it are written as NIfTI, which every viewer reads.
write_scan = nifti.write_scan
write_mask = nifti.write_mask
is_predicted = nifti.is_predicted


class Format(Protocol):
    """What the module of a format holds.

    NAME: in `Source.format` and in records. TITLE: in messages. SUFFIXES: of file names, in small letters.
    ONE_FILE_PER_SLICE: whether a scan is many files, one for each slice; else it is one volume in one file.
    """

    NAME: str
    TITLE: str
    SUFFIXES: tuple[str, ...]
    ONE_FILE_PER_SLICE: bool

    def files_of(self, path: Path) -> tuple[Path, ...]:
        """The file itself, and all others that reading it looks at; nothing is raised for a damaged file."""

    def read_scan(self, files: Sequence[Path]) -> Scan:
        """The scan in these files: one, or one for each slice. Raises InputError saying what is wrong with them."""

    def read_mask(self, files: Sequence[Path], scan: Scan | None = None) -> tuple[np.ndarray, list[str]]:
        """(slices, rows, columns) uint8 in Scan's order, the files' own values; and warnings. Raises InputError."""

    def slice_numbers(self, files: Sequence[Path]) -> tuple[int, ...]:
        """The files' own number of each slice, foot to head, without reading voxels. Raises InputError."""


FORMATS: tuple[Format, ...] = (nifti, nrrd, png, dicom)


def _suffixes(*, one_file_per_slice: bool) -> tuple[str, ...]:
    suffixes: list[str] = []
    for module in FORMATS:
        if one_file_per_slice == module.ONE_FILE_PER_SLICE:
            suffixes.extend(module.SUFFIXES)
    return tuple(suffixes)


VOLUME_SUFFIXES = _suffixes(one_file_per_slice=False)  #: of files that hold a whole scan
SLICE_SUFFIXES = _suffixes(one_file_per_slice=True)  #: of files that hold one slice


def format_of(path: Path | str) -> Format | None:
    """The format that a file's name stands for, or None if it is none that is read.

    Files of DICOM often have a name that says nothing; these are told by `is_dicom`.
    """
    name = str(path).lower()
    for module in FORMATS:
        if name.endswith(module.SUFFIXES):
            return module
    return None


def is_scan(path: Path | str) -> bool:
    """Whether the name is one that `read_scan` knows how to read."""
    return format_of(path) is not None


def is_volume(path: Path | str) -> bool:
    """Whether the name is that of a file that holds a whole scan."""
    return str(path).lower().endswith(VOLUME_SUFFIXES)


def stem(path: Path | str) -> str:
    """The file's name without the suffix of its format; .nii.gz is one."""
    known = format_of(path)
    return Path(path).stem if known is None else without_suffix(path, known.SUFFIXES)


def files_of(paths: Iterable[Path]) -> list[Path]:
    """All files that reading these looks at, each once: voxels beside a header, the window of PNGs."""
    files: dict[Path, None] = {}
    for path in paths:
        known = format_of(path)
        files.update(dict.fromkeys((on_disk(path),) if known is None else known.files_of(path)))
    return list(files)


def read_scan(files: Path | str | Sequence[Path], series: str | None = None) -> Scan:
    """Reads one scan.

    Args:
        files: a volume, or a slice; the slices of one scan, one file each; or a folder, a zip or a DICOMDIR with one
            study in DICOM, of which the best series for bleeding is read.
        series: of DICOM, the SeriesInstanceUID to read instead.

    Returns:
        The scan, slices from foot to head.

    Raises:
        InputError: saying what is wrong with a file.
    """
    paths = _paths(files)
    known = _known_format(paths[0], "scan")
    if known is dicom:
        return dicom.read_chosen(paths, series)
    if series is not None:
        raise InputError("has no series: it is not DICOM", paths[0])
    return known.read_scan(paths)


def read_mask(files: Path | str | Sequence[Path], scan: Scan | None = None) -> np.ndarray:
    """Reads a mask as `read_mask_and_warnings` does, and keeps its warnings back."""
    return read_mask_and_warnings(files, scan)[0]


def read_mask_and_warnings(
    files: Path | str | Sequence[Path], scan: Scan | None = None
) -> tuple[np.ndarray, list[str]]:
    """Reads a mask into Scan's order.

    Args:
        files: a volume, or a slice; or the slices of one mask, in the order of the scan's.
        scan: that the mask was drawn on, or None if that is not known.

    Returns:
        (slices, rows, columns) uint8, the files' own values; and what was doubtful about them.

    Raises:
        InputError: for files that cannot be read, or if the mask has another shape or position than the scan.
    """
    paths = _paths(files)
    return _known_format(paths[0], "mask").read_mask(paths, scan)


def slice_numbers(files: Path | str | Sequence[Path]) -> tuple[int, ...]:
    """The files' own number of each slice, foot to head, without reading voxels. Raises InputError."""
    paths = _paths(files)
    return _known_format(paths[0], "scan").slice_numbers(paths)


def _paths(files: Path | str | Sequence[Path]) -> list[Path]:
    if isinstance(files, (str, Path)):
        return [Path(files)]
    return [Path(file) for file in files]


def _known_format(path: Path, kind: str) -> Format:
    """The format of a file. Raises InputError if there is no file, or it is of no format that is read."""
    if path.is_dir():
        return dicom
    if on_disk(path) == path:
        regular_file(path, kind)
    known = format_of(path)
    if known is not None:
        return known
    if is_dicom(path) or dicom.is_container(path) or on_disk(path) != path:
        return dicom
    titles = [f"{module.TITLE} ({', '.join(module.SUFFIXES)})" for module in FORMATS]
    raise InputError(f"is not a {kind} that can be read", path, f"give {' or '.join(titles)}")
