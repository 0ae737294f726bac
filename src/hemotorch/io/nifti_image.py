"""NIfTI files as nibabel's images: checked before anything is allocated, and without nibabel's own ideas of affines."""

from __future__ import annotations

import gzip
import logging
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.fileholders import FileHolder

from hemotorch.errors import InputError
from hemotorch.io import unpack
from hemotorch.system.files import regular_file

logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # its remarks on headers, beside our own one line

#: What nibabel and zlib raise for a file that is cut or damaged.
UNREADABLE = (OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error, nib.spatialimages.HeaderDataError)
_HEADER_BYTES = 540  # of NIfTI-2, the longer one


class _WithoutAffine:
    """A header whose affine nobody asks nibabel for: it refuses a quaternion that is off by rounding."""

    def get_best_affine(self) -> np.ndarray:
        return np.eye(4)


class _Header1(_WithoutAffine, nib.Nifti1Header):
    pass


class _Header2(_WithoutAffine, nib.Nifti2Header):
    pass


class _PairHeader1(_WithoutAffine, nib.nifti1.Nifti1PairHeader):
    pass


class _PairHeader2(_WithoutAffine, nib.nifti2.Nifti2PairHeader):
    pass


class _Image1(nib.Nifti1Image):
    header_class = _Header1


class _Image2(nib.Nifti2Image):
    header_class = _Header2


class _Pair1(nib.Nifti1Pair):
    header_class = _PairHeader1


class _Pair2(nib.Nifti2Pair):
    header_class = _PairHeader2


_IMAGES: tuple[Any, ...] = (_Image1, _Image2)
_PAIRS: tuple[Any, ...] = (_Pair1, _Pair2)


def voxel_file(path: Path) -> Path:
    """The file that holds the voxels: the .img beside a .hdr, else the file itself."""
    if path.suffix == ".HDR":
        return path.with_suffix(".IMG")
    if path.suffix.lower() == ".hdr":
        return path.with_suffix(".img")
    return path


def open_image(path: Path, *, whole: bool = False) -> Any:
    """A file as nibabel's image, its header checked.

    Args:
        path: .nii, .nii.gz, or the .hdr of a pair.
        whole: unpack a gzip to its end, where its checksum stands; else only as far as it is asked for.

    Returns:
        The image of one volume of numbers. Its affine is nobody's; see `affines`.

    Raises:
        InputError: for a file that is missing, cut, damaged or no NIfTI, or of more than one volume or other values.
    """
    regular_file(path, "NIfTI file")
    try:
        with open(path, "rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
        _check_suffix(path, gzipped)
        is_pair = voxel_file(path) != path
        image = _open_pair(path) if is_pair else _open_one(path, gzipped, whole)
    except nib.filebasedimages.ImageFileError as error:
        raise InputError("is not a NIfTI image", path) from error
    except UNREADABLE as error:
        raise unpack.damaged(path, error) from error
    stored_type = image.get_data_dtype()
    if stored_type.kind not in "iuf":
        raise InputError(f"holds {stored_type} values (colour or complex), not one number a voxel", path)
    volume_shape(image, path)
    _restore_pixdim(image, path, gzipped)
    return image


def volume_shape(image: Any, path: Path) -> tuple[int, int, int]:
    """The three lengths of the volume, trailing axes of length 1 left out. Raises InputError if there are more."""
    shape = tuple(int(length) for length in image.shape)
    if len(shape) < 2 or 0 in shape:
        raise InputError(f"its shape {shape} holds no volume", path)
    if any(length != 1 for length in shape[3:]):
        raise InputError(f"is {len(shape)}-D, with more than one volume: shape {shape}", path, "give one 3-D volume")
    # A single slice may be 2-D.
    first, second, third = (*shape, 1)[:3]
    return first, second, third


def one_file_class(image: Any) -> Any:
    """The class that writes an image of the same version of NIfTI into one file."""
    size = image.header.sizeof_hdr
    return next(kind for kind in _IMAGES if kind.header_class.sizeof_hdr == size)


def _open_one(path: Path, gzipped: bool, whole: bool) -> Any:
    """A .nii or .nii.gz."""
    needed = unpack.check_header(path, path.stat().st_size, gzipped)
    kind = _kind(_start(path, gzipped), _IMAGES)
    if whole and gzipped:
        return kind.from_stream(unpack.unpacked(path, needed))
    return kind.from_filename(path, mmap=False)


def _open_pair(path: Path) -> Any:
    """A .hdr and the .img beside it. Raises InputError for Analyze, the older kind of such pairs."""
    voxels = voxel_file(path)
    if not voxels.exists():
        raise InputError(f"has no {voxels.name} beside it, which holds its voxels", path)
    size = regular_file(voxels, "NIfTI file").st_size
    start = _start(path, gzipped=False)
    # The same 348 bytes, but for the mark at their end: nibabel would read Analyze too, left and right by convention.
    is_nifti = any(kind.header_class.may_contain_header(start) for kind in _PAIRS)
    if not is_nifti and nib.AnalyzeHeader.may_contain_header(start[: nib.AnalyzeHeader.sizeof_hdr]):
        what = "is Analyze 7.5, which does not say on which side the patient's left is"
        raise InputError(what, path, "convert the original images to NIfTI, for example DICOM with dcm2niix")
    unpack.check_pair(path, size)
    holders = {"header": FileHolder(filename=str(path)), "image": FileHolder(filename=str(voxels))}
    return _kind(start, _PAIRS).from_file_map(holders, mmap=False)


def _check_suffix(path: Path, gzipped: bool) -> None:
    """Raises InputError if a file is compressed and not named so, or the other way round."""
    if gzipped == path.name.lower().endswith(".gz"):
        return
    if gzipped:
        raise InputError("is gzip-compressed", path, "if it is NIfTI, rename it to end in .nii.gz")
    raise InputError("is not gzip-compressed, or not an image", path, "if it is NIfTI, rename it to end in .nii")


def _start(path: Path, gzipped: bool) -> bytes:
    """The unpacked bytes that hold a header."""
    with gzip.open(path) if gzipped else open(path, "rb") as file:
        return file.read(_HEADER_BYTES)


def _kind(start: bytes, kinds: tuple[Any, ...]) -> Any:
    """The class of the image that starts with these bytes. Raises ImageFileError if it is no NIfTI."""
    for kind in kinds:
        header = kind.header_class
        if header.may_contain_header(start[: header.sizeof_hdr]):
            return kind
    raise nib.filebasedimages.ImageFileError("no NIfTI header")


def _restore_pixdim(image: Any, path: Path, gzipped: bool) -> None:
    """Puts back what nibabel makes up of pixdim.

    It takes 1 for any value of pixdim[0] but 1 and -1, and so mirrors a volume of -0.5; and 1 mm for a voxel of 0 mm,
    which means that nobody knew its size. Along an axis of one voxel, 0 is common and does no harm.
    """
    header_class = type(image.header)
    stored = header_class(_start(path, gzipped)[: header_class.sizeof_hdr], check=False)["pixdim"]
    if stored[0] < 0:
        image.header["pixdim"][0] = -1
    for axis, length in enumerate(volume_shape(image, path), 1):
        if length > 1 and stored[axis] == 0:
            image.header["pixdim"][axis] = 0
