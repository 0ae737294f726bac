"""Which axis of a NIfTI file its slices are, quaternions off by rounding, and what masks take over of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import tiny
from hemotorch.errors import InputError
from hemotorch.inference.outputs import write_prediction
from hemotorch.io import nifti, read_mask, read_scan, slice_numbers, write_mask
from hemotorch.scan import Prediction

SHAPE = (6, 7, 5)
AFFINE = np.array([[-0.5, 0, 0, 12], [0, -0.6, 0, 30], [0, 0, 5, 40], [0, 0, 0, 1.0]])


def head() -> np.ndarray:
    """HU with air, brain and bone, different in every voxel."""
    return np.linspace(-1000, 1500, int(np.prod(SHAPE))).astype(np.int16).reshape(SHAPE)


def turned(degrees: float, axis: str = "x", affine: np.ndarray = AFFINE) -> np.ndarray:
    angle = np.deg2rad(degrees)
    rotation = nib.eulerangles.euler2mat(x=angle) if axis == "x" else nib.eulerangles.euler2mat(y=angle)
    return nib.affines.from_matvec(rotation) @ affine


def save(
    path: Path,
    sform: np.ndarray | None = None,
    qform: np.ndarray | None = None,
    values: np.ndarray | None = None,
    kind: Any = nib.Nifti1Image,
    **header: Any,
) -> Path:
    """A file with these affines (codes 1 and 1, 0 for None); header: fields set afterwards, unchecked by nibabel."""
    header_class = kind.header_class
    image = kind(head() if values is None else values, np.eye(4), header_class())
    image.set_sform(sform, 1 if sform is not None else 0)
    image.set_qform(qform, 1 if qform is not None else 0)
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    changed = header_class(bytes(raw[: header_class.sizeof_hdr]), check=False)
    for field, value in header.items():
        changed[field] = value
    raw[: header_class.sizeof_hdr] = changed.binaryblock
    path.write_bytes(raw)
    return path


def goes_back(path: Path, tmp_path: Path) -> nib.Nifti1Image:
    """The mask of a scan in its source's grid reads back as it was; returned is the file."""
    scan = read_scan(path)
    mask = (scan.hu > 0).astype(np.uint8)
    write_mask(scan, mask, tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", scan), mask)
    return nib.load(tmp_path / "mask.nii.gz")


@pytest.mark.parametrize("length", [1 + 2 * float(np.finfo(np.float32).eps), 1.0004])
@pytest.mark.parametrize("has_sform", [True, False])
def test_a_quaternion_off_by_rounding(tmp_path: Path, length: float, has_sform: bool) -> None:
    upside_down = AFFINE @ np.diag([1, 1, -1, 1])  # half a turn about z, and mirrored
    sform = upside_down if has_sform else None
    path = save(tmp_path / "a.nii", sform, upside_down, quatern_b=0, quatern_c=0, quatern_d=length)
    scan = read_scan(path)
    assert scan.warnings == ()
    np.testing.assert_allclose(scan.slice_distances_mm, 5)
    assert slice_numbers(path) == (5, 4, 3, 2, 1)
    np.testing.assert_allclose(goes_back(path, tmp_path).get_qform(), upside_down, atol=1e-4)  # as nibabel reads it


def test_a_quaternion_that_is_none(tmp_path: Path) -> None:
    broken = {"quatern_b": 0.9, "quatern_c": 0.9, "quatern_d": 0.9}
    path = save(tmp_path / "a.nii", AFFINE, AFFINE, **broken)
    assert read_scan(path).warnings == (
        "its qform is of no use (its quaternion or voxel size is none): read by its sform",
    )
    goes_back(path, tmp_path)
    with pytest.raises(InputError, match=r"b\.nii: its affine .*correct the header"):
        read_scan(save(tmp_path / "b.nii", None, AFFINE, **broken))
    with pytest.raises(InputError, match="its affine "):
        read_scan(save(tmp_path / "c.nii", None, AFFINE, quatern_b=np.nan))


@pytest.mark.parametrize(("qfac", "mirrored"), [(0, False), (1, False), (-1, True), (-0.99998, True), (1.0002, False)])
def test_the_sign_of_pixdim_0_mirrors(tmp_path: Path, qfac: float, mirrored: bool) -> None:
    affine = AFFINE @ np.diag([1, 1, -1, 1]) if mirrored else AFFINE
    path = save(tmp_path / "a.nii", None, affine, pixdim=[qfac, 0.5, 0.6, 5, 1, 1, 1, 1])
    np.testing.assert_allclose(read_scan(path).affine, read_scan(save(tmp_path / "b.nii", affine)).affine, atol=1e-5)
    assert (slice_numbers(path)[0] == 5) == mirrored
    goes_back(path, tmp_path)


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("degrees", [-60, -50, 30, 46, 65])
def test_slices_tilted_far_are_still_those_that_the_scanner_made(tmp_path: Path, axis: str, degrees: float) -> None:
    upright = read_scan(save(tmp_path / "upright.nii", AFFINE))
    path = save(tmp_path / "a.nii", turned(degrees, axis))
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.hu, upright.hu)
    np.testing.assert_allclose(scan.shares_mm, 5, atol=1e-4)
    np.testing.assert_allclose(scan.pixel_mm, upright.pixel_mm, atol=1e-4)
    assert len(scan.warnings) == (abs(degrees) > 45)
    assert all(f"tilted by {abs(degrees)} degrees" in warning for warning in scan.warnings)
    goes_back(path, tmp_path)


def test_coronal_slices_are_read_across_with_a_warning(tmp_path: Path) -> None:
    coronal = np.array([[-0.5, 0, 0, 12], [0, 0, 5, 30], [0, 0.6, 0, 40], [0, 0, 0, 1.0]])
    scan = read_scan(save(tmp_path / "a.nii", coronal))
    assert scan.shape == (7, 5, 6)
    np.testing.assert_allclose(scan.slice_distances_mm, 0.6, atol=1e-5)
    assert "as in coronal slices" in scan.warnings[0]
    sagittal = coronal[[1, 0, 2, 3]]
    assert "as in sagittal slices" in read_scan(save(tmp_path / "b.nii", sagittal)).warnings[0]


def test_cubic_voxels_go_by_direction_or_by_the_headers_word(tmp_path: Path) -> None:
    cubic = turned(50, affine=np.diag([-1.0, -1, 1, 1]))
    scan = read_scan(save(tmp_path / "a.nii", cubic))
    assert scan.shape == (7, 5, 6)  # the axis that is 40 degrees off head and foot
    assert "40 degrees off head and foot" in scan.warnings[0]
    named = read_scan(save(tmp_path / "b.nii", cubic, dim_info=3 << 4))
    assert named.shape == (5, 7, 6)
    assert "tilted by 50 degrees" in named.warnings[0]
    mask = np.transpose((named.hu > 0).astype(np.uint8)[:, ::-1, ::-1], (2, 1, 0))
    plain = save(tmp_path / "mask.nii", cubic, values=nib.load(tmp_path / "b.nii").get_fdata().__gt__(0).astype("u1"))
    assert mask.any()
    np.testing.assert_array_equal(read_mask(plain, named), named.hu > 0)  # its header does not name the slices


def test_one_slice_stored_backwards(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for number, flip in enumerate(([1, 1, -1, 1], [-1, -1, -1, 1], [1, -1, 1, 1])):
        path = save(tmp_path / f"{number}.nii", AFFINE @ np.diag(flip), values=head()[:, :, 3:4])
        scan = read_scan(path)
        assert min(scan.hu.strides) > 0
        torch.from_numpy(scan.hu)
        mask = read_mask(save(tmp_path / "m.nii", AFFINE @ np.diag(flip), values=np.ones((6, 7, 1), np.uint8)), scan)
        assert min(mask.strides) > 0
        goes_back(path, tmp_path)


def test_a_predicted_mask_of_a_scan_that_is_no_nifti_is_marked_too(tmp_path: Path) -> None:
    scan, mask = tiny.head(1)
    write_prediction(Prediction(scan, mask, None, {"total": 1.0}, "by hand"), tmp_path, "a")
    assert nib.load(tmp_path / "a_mask.nii.gz").header["descrip"].item() == nifti.PREDICTION_MARK.encode()
    nifti.write_mask(scan, mask, tmp_path / "truth.nii")
    assert not nifti.is_predicted(tmp_path / "truth.nii")


def test_a_real_head_turned_by_55_degrees_keeps_its_slices(tmp_path: Path, shared_data: Path) -> None:
    source = nib.load(shared_data / "head-ct-painted" / "painted1.nii.gz")
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(x=np.deg2rad(55))) @ source.affine
    nib.save(nib.Nifti1Image(np.asarray(source.dataobj), affine), tmp_path / "a.nii")
    upright = read_scan(shared_data / "head-ct-painted" / "painted1.nii.gz")
    scan = read_scan(tmp_path / "a.nii")
    np.testing.assert_array_equal(scan.hu, upright.hu)
    np.testing.assert_allclose(scan.voxel_ml, upright.voxel_ml, rtol=1e-5)
