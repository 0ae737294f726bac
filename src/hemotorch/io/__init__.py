"""Files to `Scan` and back: NIfTI here, 8-bit PNG in png.py. One function reads whatever is at a path."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hemotorch.errors import InputError
from hemotorch.io import nifti, png
from hemotorch.scan import Scan
from hemotorch.system.files import regular_file

__all__ = ["CONVERT_DICOM", "is_dicom", "is_scan", "read_mask", "read_scan", "write_mask", "write_scan"]

CONVERT_DICOM = "convert each series first, for example with dcm2niix"

write_scan = nifti.write_scan
write_mask = nifti.write_mask


def is_scan(path: Path | str) -> bool:
    """Whether the name is one that `read_scan` knows how to read."""
    return nifti.is_nifti(path) or png.is_png(path)


def read_scan(path: Path | str) -> Scan:
    """Reads one scan: a NIfTI volume, or a PNG slice. Raises InputError saying what is wrong with the file."""
    if not Path(path).is_dir():
        regular_file(path, "scan")
    if nifti.is_nifti(path):
        return nifti.read_scan(path)
    if png.is_png(path):
        return png.read_scan((Path(path),))
    if is_dicom(path):
        raise InputError("is DICOM, which is not read yet", path, CONVERT_DICOM)
    raise InputError("is not a scan that can be read", path, "give NIfTI (.nii, .nii.gz) or 8-bit PNG")


def is_dicom(path: Path | str) -> bool:
    """Whether a file has DICOM's mark: "DICM" after 128 bytes."""
    try:
        regular_file(path)
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except (InputError, OSError):
        return False


def read_mask(path: Path | str, scan: Scan | None = None) -> np.ndarray:
    """Reads a mask, NIfTI or PNG, into Scan's order: (slices, rows, columns) uint8, the file's own values.

    Raises InputError where it has another shape or affine than `scan`.
    """
    return png.read_mask((Path(path),), scan) if png.is_png(path) else nifti.read_mask(path, scan)
