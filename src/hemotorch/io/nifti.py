"""NIfTI to Scan and masks back to NIfTI: by exact flips and transposes, never by resampling."""

from __future__ import annotations

import gzip
import logging
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff

from hemotorch.errors import InputError
from hemotorch.io import unpack
from hemotorch.io.affines import disagreement, exact_quaternion, fault, qform_affine
from hemotorch.io.slice_axis import inverse, scan_orientation, toward
from hemotorch.io.values import labels, to_hu
from hemotorch.scan import Scan
from hemotorch.system import limits
from hemotorch.system.files import atomic, read_json, regular_file

logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # its remarks on headers, beside our own one line

SUFFIXES = (".nii", ".nii.gz")
PREDICTION_MARK = "hemotorch prediction"  #: in the header's descrip of every mask that a network made
#: What a mask's header takes over from its scan's. Nothing else is: names, numbers and dates of patients stand in
#: db_name, aux_file, intent_name, descrip, in extensions, and in the fields that this version of NIfTI does not use.
GRID_FIELDS = (
    *("pixdim", "xyzt_units", "dim_info", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
SAME_PLACE = 0.1  #: grids whose corners lie closer than this share of a voxel are the same

_UNREADABLE = (OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error, nib.spatialimages.HeaderDataError)
_HEADER_BYTES = 540  # of NIfTI-2, the longer one
_NOT_MM = {1: "metres", 3: "micrometres"}  # codes of the header's xyzt_units; 2 is mm, 0 unknown


def is_nifti(path: Path | str) -> bool:
    """Whether the name ends as a NIfTI file's does."""
    return str(path).lower().endswith(SUFFIXES)


def stem(path: Path | str) -> str:
    """The file's name without .nii or .nii.gz."""
    name = Path(path).name
    suffix = next((s for s in reversed(SUFFIXES) if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)]


def read_scan(path: Path | str) -> Scan:
    """Reads a NIfTI volume of HU, in any orientation, into Scan's order.

    Scaled and floating-point values are rounded to int16; NaN and infinities become air; what lies below -1024 HU is
    padding and becomes -1024. Slice numbers count from 1 in the file's own order. A trailing axis of length 1 is fine.
    Raises InputError for a file that is missing, cut, no NIfTI, more than one volume, has no usable affine, or whose
    values are not HU.
    """
    image = _open(path, whole=True)
    values, warnings = to_hu(_voxels(image, path), path, unsigned=image.get_data_dtype().kind == "u")
    affine, affine_warnings = _affine(image, path)
    transform, axis_warnings = scan_orientation(affine, image.header, values.shape)
    affine_warnings += axis_warnings
    hu = _reordered(values, transform)
    to_ras = affine @ inv_ornt_aff(transform, values.shape)
    if len(hu) == 1:
        affine_warnings.append("one slice only: its thickness is not known, so there is no volume in mL")
    _check_spacing(to_ras, len(hu), path)
    return Scan(
        hu,
        slice_origins_mm=to_ras[:3, 3] + np.outer(np.arange(len(hu)), to_ras[:3, 0]),
        row_step_mm=to_ras[:3, 1],
        column_step_mm=to_ras[:3, 2],
        name=stem(path),
        slice_numbers=_slice_numbers(transform, values.shape),
        paths=(Path(path),),
        warnings=tuple(warnings + affine_warnings),
    )


def read_mask(path: Path | str, scan: Scan | None = None) -> np.ndarray:
    """Reads a mask into Scan's order: (slices, rows, columns) uint8, the file's own values.

    scan: the scan it was drawn on. Raises InputError as `read_scan` does, for values that are not whole numbers from 0
    to 255, and where the mask has another shape or affine than the scan.
    """
    return read_mask_and_warnings(path, scan)[0]


def read_mask_and_warnings(path: Path | str, scan: Scan | None = None) -> tuple[np.ndarray, list[str]]:
    """Reads a mask as `read_mask` does, and says what was doubtful about it: values that had to be rounded."""
    image = _open(path, whole=True)
    raw, warnings = labels(_voxels(image, path), _step(image), path)
    affine, _ = _affine(image, path)
    if scan is None:
        return _reordered(raw, scan_orientation(affine, image.header, raw.shape)[0]), warnings
    # The scan's own axes, so that a header that says less than the scan's leads to the same order.
    transform = toward(affine, _axes_of(scan))
    mask = _reordered(raw, transform)
    _check_same_grid(mask.shape, affine @ inv_ornt_aff(transform, raw.shape), scan, path)
    return mask, warnings


def is_predicted(path: Path | str) -> bool:
    """Whether a mask is what a network of hemotorch made: by its header, or by NAME.json beside NAME_mask.nii.gz.

    Args:
        path: of a NIfTI mask.

    Returns:
        False also for a file that cannot be read, which says so when it is read.
    """
    try:
        description = bytes(_open(path).header["descrip"].tobytes())
    except InputError:
        return False
    if description.startswith(PREDICTION_MARK.encode()):
        return True
    # Masks of before there was a mark in the header: the file that stands beside them tells.
    name = stem(path)
    beside = Path(path).with_name(f"{name.removesuffix('_mask')}.json")
    if not name.endswith("_mask") or not beside.is_file():
        return False
    try:
        result = read_json(beside)
    except InputError:
        return False
    return isinstance(result, dict) and {"hemotorch", "notice", "volume_ml"} <= set(result)


def slice_numbers(path: Path | str) -> tuple[int, ...]:
    """The file's own number of each slice, foot to head, from its header alone. Raises InputError as `read_scan`."""
    image = _open(path)
    affine, _ = _affine(image, path)
    shape = _shape(image, path)
    return _slice_numbers(scan_orientation(affine, image.header, shape)[0], shape)


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
    if not scan.paths or not is_nifti(scan.paths[0]):
        return _write_upright(scan, mask, path, mark)
    source = _open(scan.paths[0])
    affine, _ = _affine(source, scan.paths[0])
    transform, _ = scan_orientation(affine, source.header, _shape(source, scan.paths[0]))
    stored = _reordered(mask, inverse(transform))
    if stored.shape != _shape(source, scan.paths[0]):
        raise InputError(f"changed since it was read; its shape is now {source.shape}", scan.paths[0])
    header = type(source.header)(endianness=source.header.endianness)
    for field in GRID_FIELDS:
        header[field] = source.header[field]
    if header["sform_code"] and not np.allclose(affine, header.get_sform()):
        header["sform_code"] = 0  # it was of no use, and the scan was read by its qform
    exact_quaternion(header)
    header.set_data_dtype(np.uint8)
    header["descrip"] = mark.encode()
    mask_image = type(source)(stored.reshape(source.shape), None, header)
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
    if not is_nifti(path):
        raise InputError("the name of a NIfTI file ends in .nii or .nii.gz", path)
    with atomic(path) as temporary:
        nib.save(image, temporary)


def _open(path: Path | str, *, whole: bool = False) -> Any:
    """The image, with its header checked. whole: a gzip is unpacked to its end, where its checksum stands."""
    path = Path(path)
    size = regular_file(path, "NIfTI file").st_size
    try:
        with open(path, "rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
        if gzipped != path.name.lower().endswith(".gz"):
            told = ("is gzip-compressed", ".nii.gz") if gzipped else ("is not gzip-compressed, or not an image", ".nii")
            raise InputError(told[0], path, f"if it is NIfTI, rename it to end in {told[1]}")
        needed = unpack.check_header(path, size, gzipped)
        if whole and gzipped:
            content = unpack.unpacked(path, needed)
            image = _kind(bytes(content.getbuffer()[:_HEADER_BYTES])).from_stream(content)
        else:
            image = _kind(_start(path, gzipped)).from_filename(path, mmap=False)
    except nib.filebasedimages.ImageFileError as error:
        raise InputError("is not a NIfTI image", path) from error
    except _UNREADABLE as error:
        raise InputError(f"cannot be read: cut short or damaged ({_one_line(error)})", path) from error
    if image.get_data_dtype().kind not in "iuf":
        raise InputError(f"holds {image.get_data_dtype()} values (colour or complex), not one number a voxel", path)
    _shape(image, path)
    _restore_qfac(image, path, gzipped)
    return image


class _Header1(nib.Nifti1Header):
    """A header whose affine nobody asks nibabel for: it refuses a quaternion that is off by rounding."""

    def get_best_affine(self) -> np.ndarray:
        return np.eye(4)


class _Header2(nib.Nifti2Header):
    def get_best_affine(self) -> np.ndarray:
        return np.eye(4)


class _Image1(nib.Nifti1Image):
    header_class = _Header1


class _Image2(nib.Nifti2Image):
    header_class = _Header2


def _start(path: Path, gzipped: bool) -> bytes:
    """The unpacked bytes that hold a header."""
    with gzip.open(path) if gzipped else open(path, "rb") as file:
        return file.read(_HEADER_BYTES)


def _kind(start: bytes) -> Any:
    """The class of a NIfTI image that starts with these bytes. Raises ImageFileError if it is none."""
    for kind in (_Image1, _Image2):
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


def _reordered(values: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """A copy with axes reordered and flipped, in memory from its first voxel to its last.

    NumPy calls an array contiguous whatever the step on an axis of length 1, and torch refuses a negative one.
    """
    return np.array(apply_orientation(values, transform), order="C", copy=True)


def _axes_of(scan: Scan) -> np.ndarray:
    """(3, 3) unit vectors along the scan's slices, rows and columns, RAS."""
    axes = np.stack([scan.normal, scan.row_step_mm, scan.column_step_mm])
    return axes / np.linalg.norm(axes, axis=1, keepdims=True)


def _slice_numbers(transform: np.ndarray, shape: tuple[int, ...]) -> tuple[int, ...]:
    axis = int(np.flatnonzero(transform[:, 0] == 0)[0])  # the file's axis that runs from foot to head
    numbers = range(1, shape[axis] + 1)
    return tuple(numbers if transform[axis, 1] > 0 else reversed(numbers))


def _check_spacing(to_ras: np.ndarray, slices: int, path: Path | str) -> None:
    """Raises InputError for distances that no CT has; that between slices counts if there are several."""
    step, row, column = np.linalg.norm(to_ras[:3, :3], axis=0)
    limits.check_spacing((row, column), (step,) if slices > 1 else (), path)


def _check_same_grid(shape: tuple[int, ...], affine: np.ndarray, scan: Scan, path: Path | str) -> None:
    of = scan.paths[0] if scan.paths else scan.name
    if shape != scan.shape:
        raise InputError(f"this mask's shape {shape} is not that of its scan, {scan.shape}: {of}", path)
    origins, steps = scan.slice_origins_mm, np.stack([scan.row_step_mm, scan.column_step_mm], axis=1)
    far = np.array([[0, 0], [shape[1] - 1, 0], [0, shape[2] - 1]])
    for number in (0, shape[0] - 1):
        mine = np.array([affine @ [number, row, column, 1] for row, column in far])[:, :3]
        shift = np.linalg.norm(mine - (origins[number] + far @ steps.T), axis=1).max()
        if shift > SAME_PLACE * min(scan.pixel_mm):
            raise InputError(f"this mask's affine puts it {shift:.1f} mm away from its scan, {of}", path)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
