"""NIfTI to Scan and masks back to NIfTI: by exact flips and transposes, never by resampling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from hemotorch.errors import InputError
from hemotorch.io.affines import disagreement, exact_quaternion, fault, qform_affine
from hemotorch.io.nifti_image import UNREADABLE, one_file_class, open_image, volume_shape, voxel_file
from hemotorch.io.slice_axis import inverse
from hemotorch.io.unpack import damaged
from hemotorch.io.values import labels
from hemotorch.io.volume import VoxelGrid, mask_from_volume, reordered, scan_from_volume, without_suffix
from hemotorch.scan import Scan
from hemotorch.system.files import atomic, read_json

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
_NOT_MM = {1: "metres", 3: "micrometres"}  # codes of the header's xyzt_units; 2 is mm, 0 unknown


def files_of(path: Path) -> tuple[Path, ...]:
    """The file; and if it is the header of a pair, the .img beside it, if that is there."""
    voxels = voxel_file(path)
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
    image = open_image(path, whole=True)
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
    image = open_image(path, whole=True)
    values, warnings = labels(_voxels(image, path), _step(image), path)
    grid, _ = _grid(image, path)
    return mask_from_volume(values, grid, scan, path), warnings


def slice_numbers(files: Sequence[Path]) -> tuple[int, ...]:
    """The file's own number of each slice, foot to head, from its header alone. Raises InputError as `read_scan`."""
    grid, _ = _grid(open_image(files[0]), files[0])
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
        description = bytes(open_image(Path(path)).header["descrip"].tobytes())
    except InputError:
        return False
    if description.startswith(PREDICTION_MARK.encode()):
        return True
    # Versions before the mark in the header wrote NAME.json beside the mask all the same.
    name = without_suffix(path, SUFFIXES)
    record = Path(path).with_name(f"{name.removesuffix('_mask')}.json")
    if not name.endswith("_mask") or not record.is_file():
        return False
    try:
        result = read_json(record)
    except InputError:
        return False
    return isinstance(result, dict) and {"hemotorch", "notice", "volume_ml"} <= set(result)


def write_scan(scan: Scan, path: Path | str) -> None:
    """Writes a scan as int16 NIfTI, voxels stored to the left, to the front and to the head, atomically.

    Raises:
        InputError: if the slices are uneven.
        RunError: if the disk is full or read-only.
    """
    _write_upright(scan, scan.hu, path, "", scan.affine)


def write_mask(scan: Scan, mask: np.ndarray, path: Path | str, mark: str = "") -> None:
    """Writes a mask as uint8 NIfTI, atomically.

    Into the exact grid of the scan's source if that is NIfTI: same shape, affine, codes and axis order, and nothing
    else of its header, since the rest may name the patient. A scan of another format gives its own affine. NIfTI cannot
    say where uneven slices lie: their first and last ones are put right, those between at even distances.

    Args:
        scan: that the mask belongs to.
        mask: (slices, rows, columns) of 0 to 255 in the scan's order.
        path: of the file to write, .nii or .nii.gz.
        mark: what the header's descrip says, `PREDICTION_MARK` for a network's mask.

    Raises:
        InputError: if the mask's shape is another than the scan's, or the source has changed.
        RunError: if the disk is full or read-only.
    """
    if mask.shape != scan.shape:
        raise InputError(f"a mask of shape {mask.shape} does not fit a scan of shape {scan.shape}", path)
    mask = mask.astype(np.uint8, copy=False)
    if scan.source is None or scan.source.format != NAME:
        _write_upright(scan, mask, path, mark, scan.affine if scan.even else _even_affine(scan))
        return
    source_path = Path(scan.source.files[0])
    source = open_image(source_path)
    grid, _ = _grid(source, source_path)
    orientation, _ = grid.orientation()
    # First axis fastest, as it is written: 512 x 512 x 32 voxels take 74 ms the other way round, so 20.
    stored = reordered(mask, inverse(orientation), order="F")
    if stored.shape != grid.shape:
        raise InputError(f"changed since it was read; its shape is now {source.shape}", source_path)
    image_class = one_file_class(source)
    header = image_class.header_class(endianness=source.header.endianness)
    for field in GRID_FIELDS:
        header[field] = source.header[field]
    if header["sform_code"] and not np.allclose(grid.affine, header.get_sform()):
        header["sform_code"] = 0  # it was of no use, and the scan was read by its qform
    exact_quaternion(header)
    if not header["pixdim"][1:4].all():  # the scan was read by its sform
        header["pixdim"][1:4] = np.linalg.norm(grid.affine[:3, :3], axis=0)
    header.set_data_dtype(np.uint8)
    header["descrip"] = mark.encode()
    image = image_class(stored.reshape(source.shape, order="F"), None, header)
    image.header.set_slope_inter(1, 0)
    _save(image, path)


def _even_affine(scan: Scan) -> np.ndarray:
    """(4, 4) from (slice, row, column) to RAS mm of uneven slices, as if they were even from the first to the last."""
    affine = np.eye(4)
    affine[:3, 0] = (scan.slice_origins_mm[-1] - scan.slice_origins_mm[0]) / (len(scan.hu) - 1)
    affine[:3, 1] = scan.row_step_mm
    affine[:3, 2] = scan.column_step_mm
    affine[:3, 3] = scan.slice_origins_mm[0]
    return affine


def _write_upright(scan: Scan, values: np.ndarray, path: Path | str, mark: str, scan_affine: np.ndarray) -> None:
    """Writes values in the scan's order with axes to the left, to the front and to the head."""
    _, rows, _ = values.shape
    affine = scan_affine[:, [2, 1, 0, 3]]
    affine[:3, 1] *= -1
    affine[:3, 3] += (rows - 1) * scan.row_step_mm
    upright = values.transpose(2, 1, 0)[:, ::-1]
    # In memory as it is in the file, first axis fastest: nibabel writes that in one piece.
    image = nib.Nifti1Image(np.asfortranarray(upright), affine)
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


def _voxels(image: Any, path: Path) -> np.ndarray:
    """The volume in the file's axis order: its own integers if it has no scaling, else floating point."""
    values: np.ndarray
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is counted as such
            if _step(image) is None:
                values = np.asarray(image.dataobj.get_unscaled())
            else:
                values = np.asarray(image.dataobj, dtype=np.float32)
    except UNREADABLE as error:
        raise damaged(path, error) from error
    return values.reshape(volume_shape(image, path))


def _step(image: Any) -> float | None:
    """How far apart the values are that a header's scaling of integers can hold; None if it does not scale."""
    slope = float(image.dataobj.slope)
    if slope == 1 and image.dataobj.inter == 0:
        return None
    return abs(slope)


def _grid(image: Any, path: Path) -> tuple[VoxelGrid, list[str]]:
    """Shape, affine and slice axis of an image, and warnings. Raises InputError if its affine is of no use."""
    shape = volume_shape(image, path)
    affine, warnings = _affine(image.header, shape, path)
    if wrong := fault(affine):
        raise InputError(f"its affine {wrong}", path, "correct the header")
    named_axis = int(image.header["dim_info"]) >> 4 & 3  # 1 to 3 in these two bits, 0 for none
    return VoxelGrid(shape, affine, named_axis - 1 if named_axis else None), warnings


def _affine(header: Any, shape: tuple[int, int, int], path: Path) -> tuple[np.ndarray, list[str]]:
    """(4, 4) from the file's voxels to RAS mm, of use or not, and warnings. Raises InputError for other units."""
    if unit := _NOT_MM.get(int(header["xyzt_units"]) & 7):
        raise InputError(f"its header gives lengths in {unit}, not in mm", path, "correct the header")
    has_sform = bool(header["sform_code"])
    has_qform = bool(header["qform_code"])
    with np.errstate(invalid="ignore"):  # a signalling NaN in a damaged header, which is refused by the caller
        sform = np.asarray(header.get_sform(), dtype=float)
        qform = qform_affine(header)
    if not has_sform and not has_qform:
        base = np.asarray(header.get_base_affine(), dtype=float)
        return base, ["the header gives no orientation: axes are taken as left, front, head, and may be swapped"]
    # The standard leaves open which of two counts: the sform, as in nibabel, unless it is of no use.
    if not has_sform:
        return qform, []
    if not has_qform:
        return sform, []
    if fault(qform):
        return sform, ["its qform is of no use (its quaternion or voxel size is none): read by its sform"]
    if fault(sform):
        return qform, [f"its sform is of no use ({fault(sform)}): read by its qform"]
    return sform, disagreement(sform, qform, shape)
