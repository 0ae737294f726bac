"""NIfTI to Scan and masks back to NIfTI: by exact flips and transposes, never by resampling."""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.fileholders import FileHolder

from hemotorch.errors import InputError
from hemotorch.io import unpack
from hemotorch.io.affines import disagreement, exact_quaternion, fault, qform_affine
from hemotorch.io.slice_axis import inverse
from hemotorch.io.values import labels
from hemotorch.io.volume import Grid, mask_from_volume, reordered, scan_from_volume, without_suffix
from hemotorch.scan import Scan
from hemotorch.system.files import atomic, read_json, regular_file

logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # its remarks on headers, beside our own one line

NAME = "nifti"
TITLE = "NIfTI"
SUFFIXES: tuple[str, ...] = (".nii", ".nii.gz", ".hdr")
ONE_FILE_PER_SLICE = False

PREDICTION_MARK = "hemotorch prediction"  #: in the header's descrip of every mask that a network made
#: What a mask's header takes over from its scan's. Nothing else is: names, numbers and dates of patients stand in
#: db_name, aux_file, intent_name, descrip, in extensions, and in the fields that this version of NIfTI does not use.
GRID_FIELDS = (
    *("pixdim", "xyzt_units", "dim_info", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)

_WRITTEN_SUFFIXES = (".nii", ".nii.gz")
_UNREADABLE = (OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error, nib.spatialimages.HeaderDataError)
_HEADER_BYTES = 540  # of NIfTI-2, the longer one
_NOT_MM = {1: "metres", 3: "micrometres"}  # codes of the header's xyzt_units; 2 is mm, 0 unknown


def files_of(path: Path) -> tuple[Path, ...]:
    """The file; and if it is the header of a pair, the .img beside it, if that is there."""
    voxels = _voxel_file(path)
    if voxels == path or not voxels.exists():
        return (path,)
    return (path, voxels)


def read_scan(files: Sequence[Path]) -> Scan:
    """Reads a NIfTI volume of HU, in any orientation, into Scan's order.

    Scaled and floating-point values are rounded to int16; NaN and infinities become air; what lies below -1024 HU is
    padding and becomes -1024. Slice numbers count from 1 in the file's own order. A trailing axis of length 1 is fine.

    Args:
        files: one file.

    Raises:
        InputError: for a file that is missing, cut, no NIfTI, more than one volume, has no usable affine, or whose
            values are not HU.
    """
    path = files[0]
    image = _open(path, whole=True)
    values = _voxels(image, path)
    grid, warnings = _grid(image, path)
    unsigned = image.get_data_dtype().kind == "u"
    name = without_suffix(path, SUFFIXES)
    return scan_from_volume(values, grid, name, NAME, files_of(path), unsigned=unsigned, warnings=warnings)


def read_mask(files: Sequence[Path], scan: Scan | None = None) -> tuple[np.ndarray, list[str]]:
    """Reads a mask into Scan's order.

    Args:
        files: one file.
        scan: that the mask was drawn on, or None if that is not known.

    Returns:
        (slices, rows, columns) uint8, the file's own values; and warnings about values that had to be rounded.

    Raises:
        InputError: as `read_scan`, for values that are not whole numbers from 0 to 255, and if the mask has another
            shape or position than the scan.
    """
    path = files[0]
    image = _open(path, whole=True)
    values, warnings = labels(_voxels(image, path), _step(image), path)
    grid, _ = _grid(image, path)
    return mask_from_volume(values, grid, scan, path), warnings


def slice_numbers(files: Sequence[Path]) -> tuple[int, ...]:
    """The file's own number of each slice, foot to head, from its header alone. Raises InputError as `read_scan`."""
    grid, _ = _grid(_open(files[0]), files[0])
    return grid.slice_numbers()


def is_nifti(path: Path | str) -> bool:
    """Whether the name ends as a NIfTI file's does."""
    return str(path).lower().endswith(SUFFIXES)


def is_predicted(path: Path | str) -> bool:
    """Whether a mask is what a network of hemotorch made: by its header, or by NAME.json beside NAME_mask.nii.gz.

    Args:
        path: of a mask in any format.

    Returns:
        False also for a file that is no NIfTI, or that cannot be read, which says so when it is read.
    """
    if not is_nifti(path):
        return False
    try:
        description = bytes(_open(Path(path)).header["descrip"].tobytes())
    except InputError:
        return False
    if description.startswith(PREDICTION_MARK.encode()):
        return True
    # Masks of before there was a mark in the header: the file that stands beside them tells.
    name = without_suffix(path, SUFFIXES)
    beside = Path(path).with_name(f"{name.removesuffix('_mask')}.json")
    if not name.endswith("_mask") or not beside.is_file():
        return False
    try:
        result = read_json(beside)
    except InputError:
        return False
    return isinstance(result, dict) and {"hemotorch", "notice", "volume_ml"} <= set(result)


def write_scan(scan: Scan, path: Path | str) -> None:
    """Writes a scan as int16 NIfTI, voxels stored to the left, to the front and to the head, atomically.

    Raises InputError where the slices are uneven, RunError where the disk is full or read-only.
    """
    _write_upright(scan, scan.hu, path)


def write_mask(scan: Scan, mask: np.ndarray, path: Path | str, mark: str = "") -> None:
    """Writes a mask, (slices, rows, columns) of 0 to 255 in the scan's order, as uint8 NIfTI, atomically.

    Into the exact grid of the scan's source if that is NIfTI: same shape, affine, codes and axis order, and nothing
    else of its header, since the rest may name the patient. A scan from elsewhere gives its own affine. mark: what the
    header's descrip says, `PREDICTION_MARK` for a network's mask. Raises InputError if the mask's shape is another than
    the scan's.
    """
    if mask.shape != scan.shape:
        raise InputError(f"a mask of shape {mask.shape} does not fit a scan of shape {scan.shape}", path)
    mask = mask.astype(np.uint8, copy=False)
    if scan.source is None or scan.source.format != NAME:
        return _write_upright(scan, mask, path, mark)
    source_path = Path(scan.source.files[0])
    source = _open(source_path)
    grid, _ = _grid(source, source_path)
    stored = reordered(mask, inverse(grid.orientation()[0]))
    if stored.shape != grid.shape:
        raise InputError(f"changed since it was read; its shape is now {source.shape}", source_path)
    single = _IMAGE_BY_HEADER[source.header.sizeof_hdr]
    header = single.header_class(endianness=source.header.endianness)
    for field in GRID_FIELDS:
        header[field] = source.header[field]
    if header["sform_code"] and not np.allclose(grid.affine, header.get_sform()):
        header["sform_code"] = 0  # it was of no use, and the scan was read by its qform
    exact_quaternion(header)
    header.set_data_dtype(np.uint8)
    header["descrip"] = mark.encode()
    mask_image = single(stored.reshape(source.shape), None, header)
    mask_image.header.set_slope_inter(1, 0)
    _save(mask_image, path)


def _write_upright(scan: Scan, values: np.ndarray, path: Path | str, mark: str = "") -> None:
    slices_rows_columns = scan.affine
    affine = slices_rows_columns[:, [2, 1, 0, 3]].copy()
    affine[:3, 1] *= -1
    affine[:3, 3] += (values.shape[1] - 1) * scan.row_step_mm
    image = nib.Nifti1Image(np.ascontiguousarray(values.transpose(2, 1, 0)[:, ::-1].T).T, affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = mark.encode()
    image.set_sform(affine, code="scanner")
    steps = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.allclose(steps.T @ steps, np.eye(3), atol=1e-5):  # a qform cannot hold shear
        image.set_qform(affine, code="scanner")
    _save(image, path)


def _save(image: Any, path: Path | str) -> None:
    if not str(path).lower().endswith(_WRITTEN_SUFFIXES):
        raise InputError("the name of a NIfTI file ends in .nii or .nii.gz", path)
    with atomic(path) as temporary:
        nib.save(image, temporary)


def _voxel_file(path: Path) -> Path:
    """The file that holds the voxels: the .img beside a .hdr, else the file itself."""
    if path.suffix.lower() != ".hdr":
        return path
    return path.with_suffix(".IMG" if path.suffix.isupper() else ".img")


def _open(path: Path, *, whole: bool = False) -> Any:
    """The image, with its header checked. whole: a gzip is unpacked to its end, where its checksum stands."""
    path = Path(path)
    regular_file(path, "NIfTI file")
    voxel_file = _voxel_file(path)
    if not voxel_file.exists():
        raise InputError(f"has no {voxel_file.name} beside it, which holds its voxels", path)
    size = regular_file(voxel_file, "NIfTI file").st_size
    try:
        with open(path, "rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
        _check_suffix(path, gzipped)
        start = _start(path, gzipped)
        if voxel_file != path:
            _check_pair(start, path)
            unpack.check_pair(path, size)
            holders = {"header": FileHolder(filename=str(path)), "image": FileHolder(filename=str(voxel_file))}
            image = _kind(start, _PAIRS).from_file_map(holders, mmap=False)
        else:
            needed = unpack.check_header(path, size, gzipped)
            kind = _kind(start, _IMAGES)
            if whole and gzipped:
                image = kind.from_stream(unpack.unpacked(path, needed))
            else:
                image = kind.from_filename(path, mmap=False)
    except nib.filebasedimages.ImageFileError as error:
        raise InputError("is not a NIfTI image", path) from error
    except _UNREADABLE as error:
        raise InputError(f"cannot be read: cut short or damaged ({_one_line(error)})", path) from error
    stored_type = image.get_data_dtype()
    if stored_type.kind not in "iuf":
        raise InputError(f"holds {stored_type} values (colour or complex), not one number a voxel", path)
    _shape(image, path)
    _restore_qfac(image, path, gzipped)
    return image


def _check_suffix(path: Path, gzipped: bool) -> None:
    """Raises InputError if a file is compressed and not named so, or the other way round."""
    if gzipped == path.name.lower().endswith(".gz"):
        return
    if gzipped:
        raise InputError("is gzip-compressed", path, "if it is NIfTI, rename it to end in .nii.gz")
    raise InputError("is not gzip-compressed, or not an image", path, "if it is NIfTI, rename it to end in .nii")


def _check_pair(start: bytes, path: Path) -> None:
    """Raises InputError for the header of an Analyze image, the older kind of .hdr and .img."""
    is_pair = any(kind.header_class.may_contain_header(start) for kind in _PAIRS)
    if not is_pair and nib.AnalyzeHeader.may_contain_header(start[: nib.AnalyzeHeader.sizeof_hdr]):
        what = "is Analyze 7.5, which does not say on which side the patient's left is"
        raise InputError(what, path, "convert the original images to NIfTI, for example DICOM with dcm2niix")


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
_IMAGE_BY_HEADER = {kind.header_class.sizeof_hdr: kind for kind in _IMAGES}


def _start(path: Path, gzipped: bool) -> bytes:
    """The unpacked bytes that hold a header."""
    with gzip.open(path) if gzipped else open(path, "rb") as file:
        return file.read(_HEADER_BYTES)


def _kind(start: bytes, kinds: tuple[Any, ...]) -> Any:
    """The class of the NIfTI image that starts with these bytes. Raises ImageFileError if it is none."""
    for kind in kinds:
        header = kind.header_class
        if header.may_contain_header(start[: header.sizeof_hdr]):
            return kind
    raise nib.filebasedimages.ImageFileError("no NIfTI header")


def _restore_qfac(image: Any, path: Path, gzipped: bool) -> None:
    """Puts the sign of pixdim[0] back: nibabel takes 1 for any value but 1 and -1, and so mirrors a volume of -0.5."""
    stored = type(image.header)(_start(path, gzipped)[: image.header.sizeof_hdr], check=False)
    if stored["pixdim"][0] < 0:
        image.header["pixdim"][0] = -1


def _shape(image: Any, path: Path | str) -> tuple[int, int, int]:
    """The three lengths of the volume, trailing axes of length 1 left out."""
    shape = tuple(int(n) for n in image.shape)
    if len(shape) < 2 or 0 in shape:
        raise InputError(f"its shape {shape} holds no volume", path)
    if any(n != 1 for n in shape[3:]):
        raise InputError(f"is {len(shape)}-D, with more than one volume: shape {shape}", path, "give one 3-D volume")
    first, second, third = (*shape, 1)[:3]
    return first, second, third


def _voxels(image: Any, path: Path | str) -> np.ndarray:
    """The volume in the file's axis order: its own integers where it has no scaling, else floating point."""
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is counted as such
            plain = _step(image) is None
            values = image.dataobj.get_unscaled() if plain else np.asarray(image.dataobj, dtype=np.float32)
    except _UNREADABLE as error:
        raise InputError(f"cannot be read: cut short or damaged ({_one_line(error)})", path) from error
    return np.asarray(values).reshape(_shape(image, path))


def _step(image: Any) -> float | None:
    """How far apart the values are that a header's scaling of integers can hold; None if it does not scale."""
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1.0, 0.0)
    return abs(float(image.dataobj.slope)) if scaled else None


def _grid(image: Any, path: Path) -> tuple[Grid, list[str]]:
    """Shape, affine and slice axis of an image, and warnings. Raises InputError if its affine is of no use."""
    affine, warnings = _affine(image, path)
    named = int(image.header["dim_info"]) >> 4 & 3  # 1 to 3 in these two bits, 0 for none
    return Grid(_shape(image, path), affine, named - 1 if named else None), warnings


def _affine(image: Any, path: Path | str) -> tuple[np.ndarray, list[str]]:
    """(4, 4) from the file's voxels to RAS mm, and warnings. Raises InputError where it is of no use."""
    header = image.header
    if unit := _NOT_MM.get(int(header["xyzt_units"]) & 7):
        raise InputError(f"its header gives lengths in {unit}, not in mm", path, "correct the header")
    with np.errstate(invalid="ignore"):  # a signalling NaN in a damaged header, which is refused below
        sform, qform = np.asarray(header.get_sform(), dtype=float), qform_affine(header)
    if not header["sform_code"] and not header["qform_code"]:
        affine = np.asarray(header.get_base_affine(), dtype=float)
        warnings = ["the header gives no orientation: axes are taken as left, front, head, and may be swapped"]
    elif not header["sform_code"]:
        affine, warnings = qform, []
    elif header["qform_code"] and not fault(qform):
        if fault(sform):
            affine, warnings = qform, [f"its sform is of no use ({fault(sform)}): read by its qform"]
        else:
            affine, warnings = sform, disagreement(sform, qform, _shape(image, path))
    else:
        affine, warnings = sform, []
        if header["qform_code"]:
            warnings = ["its qform is of no use (its quaternion or voxel size is none): read by its sform"]
    if wrong := fault(affine):
        raise InputError(f"its affine {wrong}", path, "correct the header")
    return affine, warnings


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
