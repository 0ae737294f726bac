"""A scan in the workspace: hu.npy, which is mapped and not loaded, and scan.json, which says where its voxels lie."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from pydantic import Field

from hemotorch.errors import InputError
from hemotorch.scan import Frame, Scan, Source
from hemotorch.system import records
from hemotorch.system.files import atomic
from hemotorch.system.records import MM, record

HU, SCAN, SOURCE = "hu.npy", "scan.json", "source"


@record
class StoredScan:
    """All of a scan but its voxels. Files are named from the study's folder if they lie in it, else in full."""

    name: str
    format: str
    files: tuple[str, ...]
    frames: tuple[tuple[int, int], ...]
    slice_numbers: tuple[int, ...]
    slice_origins_mm: tuple[tuple[float, float, float], ...] = Field(json_schema_extra=MM)
    row_step_mm: tuple[float, float, float] = Field(json_schema_extra=MM)
    column_step_mm: tuple[float, float, float] = Field(json_schema_extra=MM)
    warnings: tuple[str, ...] = ()
    spacing_known: bool = True
    slice_mm: float | None = Field(default=None, json_schema_extra=MM)
    contrast: str = ""


def write_scan(folder: Path, scan: Scan, files: tuple[str, ...]) -> None:
    """Writes hu.npy and scan.json into a study's folder.

    Args:
        folder: that is there.
        scan: as it was read.
        files: of its source, in the source's order, as `StoredScan` names them.

    Raises:
        RunError: if the disk is full or read-only.
    """
    with atomic(folder / HU) as temporary, open(temporary, "wb") as file:
        np.save(file, np.ascontiguousarray(scan.hu), allow_pickle=False)
    frames: tuple[tuple[int, int], ...] = ()
    if scan.source is not None:
        frames = tuple((frame.file, frame.number) for frame in scan.source.frames)
    stored = StoredScan(
        name=scan.name,
        format="" if scan.source is None else scan.source.format,
        files=files,
        frames=frames,
        slice_origins_mm=tuple((float(x), float(y), float(z)) for x, y, z in scan.slice_origins_mm),
        row_step_mm=_vector(scan.row_step_mm),
        column_step_mm=_vector(scan.column_step_mm),
        slice_numbers=tuple(int(number) for number in scan.slice_numbers),
        warnings=scan.warnings,
        spacing_known=scan.spacing_known,
        slice_mm=None if scan.slice_mm is None else float(scan.slice_mm),
        contrast=scan.contrast,
    )
    records.write(folder / SCAN, stored)


def read_stored(folder: Path) -> StoredScan:
    """What scan.json says. Raises InputError if it is missing or damaged."""
    return records.read(folder / SCAN, StoredScan, "import the scan again")


def read_scan(folder: Path) -> Scan:
    """The scan of a study's folder, its HU mapped into memory. Raises InputError if it is missing or damaged."""
    stored = read_stored(folder)
    source = None
    if stored.files:
        files = tuple(str(path) for path in source_files(folder, stored))
        source = Source(stored.format, files, tuple(Frame(*frame) for frame in stored.frames))
    return Scan(
        mapped(folder / HU),
        slice_origins_mm=np.array(stored.slice_origins_mm),
        row_step_mm=np.array(stored.row_step_mm),
        column_step_mm=np.array(stored.column_step_mm),
        name=stored.name,
        slice_numbers=stored.slice_numbers,
        source=source,
        warnings=stored.warnings,
        spacing_known=stored.spacing_known,
        slice_mm=stored.slice_mm,
        contrast=stored.contrast,
    )


def source_files(folder: Path, stored: StoredScan) -> list[Path]:
    """The files that the scan was read from, in full."""
    return [folder / file for file in stored.files]  # one that is named in full stays as it is


def mapped(path: Path) -> np.ndarray:
    """An array of a .npy file, mapped into memory. Raises InputError if it is missing or damaged."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError("is missing", path.name) from error
    except (OSError, ValueError, EOFError) as error:
        raise InputError("is damaged", path.name, "import the scan again") from error
    return array


def link_or_copy(source: Path, target: Path) -> None:
    """A file under a second name: linked, or copied if the disk cannot link. Links are not followed.

    Raises:
        OSError: if it can be neither.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return
    except OSError:
        with atomic(target) as temporary, open(source, "rb") as read, open(temporary, "wb") as write:
            while piece := read.read(2**20):
                write.write(piece)


def _vector(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
