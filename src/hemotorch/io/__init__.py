"""Files to `Scan` and back: NIfTI and 8-bit PNG. One function reads whatever is at a path.

affines     the two affines of a NIfTI header: which one is good, and whether they agree
nifti       NIfTI to Scan, and masks back into the scan's own grid
png         8-bit PNG slices to Scan, and back
slice_axis  which axis of a NIfTI file runs across the slices
unpack      bounds and gzip of NIfTI files, before nibabel sees them
values      what a file's numbers are: HU, padding, codes of a mask
walk        a folder and what is below it: what is a scan, and what is not read and why
"""

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
