"""NIfTI in and out: orientation, grids, values that are HU and values that are not, and files that are broken."""

from __future__ import annotations

import gzip
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from hemotorch.errors import InputError, RunError
from hemotorch.hu import AIR_HU
from hemotorch.io import is_scan, read_mask, read_scan, slice_numbers, write_mask, write_scan
from hemotorch.scan import even_scan

SHAPE = (5, 6, 7)  # x, y, z
OBLIQUE = np.array(  # turned by 20 degrees about x and 7 about z, as a tilted head is; voxels 0.5 x 0.6 x 5 mm
    nib.affines.from_matvec(
        nib.eulerangles.euler2mat(np.deg2rad(7), 0, np.deg2rad(20)) @ np.diag([-0.5, 0.6, 5.0]), [30, -40, 12]
    )
)


def head(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """HU with air, brain and bone, different in every voxel."""
    return np.linspace(-1000, 1500, int(np.prod(shape))).astype(np.int16).reshape(shape)


def save(path: Path, values: np.ndarray, affine: np.ndarray | None = None, **header: Any) -> Path:
    image = nib.Nifti1Image(values, np.diag([-0.5, 0.5, 5.0, 1]) if affine is None else affine)
    image.set_sform(image.affine, code=1)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


def reoriented(values: np.ndarray, affine: np.ndarray, order: tuple[int, ...], flips: tuple[int, ...]) -> Any:
    """The same voxels at the same places, stored in another axis order and direction."""
    image = nib.Nifti1Image(values, affine)
    return image.as_reoriented(np.array(list(zip(order, flips, strict=True)), dtype=float))


@pytest.mark.parametrize("affine", [np.diag([-0.5, 0.6, 5.0, 1.0]), OBLIQUE], ids=["upright", "oblique"])
def test_all_48_orientations_read_alike_and_masks_go_back(tmp_path: Path, affine: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    values = head()
    expected = values.transpose(2, 1, 0)[:, ::-1]  # stored to left, front, head; wanted to head, back, left
    mask = (rng.random(expected.shape) < 0.3).astype(np.uint8) * rng.integers(1, 7, expected.shape, dtype=np.uint8)
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            image = reoriented(values, affine, order, flips)
            nib.save(image, tmp_path / "scan.nii")
            scan = read_scan(tmp_path / "scan.nii")
            assert np.array_equal(scan.hu, expected)
            corner = affine @ [0, SHAPE[1] - 1, 0, 1]  # the first slice's first row and column
            np.testing.assert_allclose(scan.slice_origins_mm[0], corner[:3], atol=1e-4)
            np.testing.assert_allclose(scan.column_step_mm, affine[:3, 0], atol=1e-5)
            np.testing.assert_allclose(scan.row_step_mm, -affine[:3, 1], atol=1e-5)
            np.testing.assert_allclose(np.diff(scan.slice_origins_mm, axis=0), [affine[:3, 2]] * 6, atol=1e-4)
            rising = "S" in nib.aff2axcodes(image.affine)
            assert list(scan.slice_numbers) == (list(range(1, 8)) if rising else list(range(7, 0, -1)))
            assert scan.slice_numbers == slice_numbers(tmp_path / "scan.nii")
            assert [frame.number + 1 for frame in scan.source.frames] == list(scan.slice_numbers)

            write_mask(scan, mask, tmp_path / "mask.nii")
            stored = nib.load(tmp_path / "mask.nii")
            assert np.array_equal(stored.affine, nib.load(tmp_path / "scan.nii").affine)
            assert stored.shape == image.shape
            to_scan = np.linalg.inv(scan.affine) @ stored.affine  # an independent way back: by millimetres
            voxels = np.indices(stored.shape).reshape(3, -1)
            at = np.rint(nib.affines.apply_affine(to_scan, voxels.T)).astype(int)
            assert np.array_equal(np.asarray(stored.dataobj).ravel(), mask[tuple(at.T)])
            assert np.array_equal(read_mask(tmp_path / "mask.nii", scan), mask)


def test_mask_keeps_the_sources_grid_and_codes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", head(), OBLIQUE, descrip=b"of somebody", scl_slope=2, scl_inter=-10)
    source = nib.load(path)
    source.header.set_qform(OBLIQUE, code=4)
    source.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"name of a patient"))
    nib.save(nib.Nifti1Image(head(), source.affine, source.header), path)
    scan = read_scan(path)
    write_mask(scan, scan.hu > 100, tmp_path / "m.nii.gz")
    source, mask = nib.load(path), nib.load(tmp_path / "m.nii.gz")
    assert mask.get_data_dtype() == np.uint8
    for field in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x", "pixdim", "dim"):
        assert np.array_equal(mask.header[field], source.header[field]), field
    assert not mask.header.extensions
    assert not mask.header["descrip"].item()
    assert np.asarray(mask.dataobj).max() == 1


@pytest.mark.parametrize("shape", [(5, 6, 7, 1), (5, 6, 7, 1, 1), (5, 6)])
def test_trailing_axes_of_one_are_kept_in_the_mask(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "a.nii", head(shape))
    scan = read_scan(path)
    assert scan.shape == ((7, 6, 5) if len(shape) > 2 else (1, 6, 5))
    write_mask(scan, scan.hu > 0, tmp_path / "m.nii")
    assert nib.load(tmp_path / "m.nii").shape == nib.load(path).shape
    assert np.array_equal(read_mask(tmp_path / "m.nii", scan), scan.hu > 0)


@pytest.mark.parametrize("affine", [np.diag([-0.5, 0.6, 5.0, 1.0]), OBLIQUE], ids=["upright", "oblique"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_scan_written_reads_back(tmp_path: Path, affine: np.ndarray, suffix: str) -> None:
    scan = read_scan(save(tmp_path / "a.nii", head(), affine))
    write_scan(scan, tmp_path / f"b{suffix}")
    again = read_scan(tmp_path / f"b{suffix}")
    assert np.array_equal(again.hu, scan.hu)
    np.testing.assert_allclose(again.affine, scan.affine, atol=1e-5)
    stored = nib.load(tmp_path / f"b{suffix}")
    assert nib.aff2axcodes(stored.affine) == ("L", "A", "S")
    assert stored.get_data_dtype() == np.int16
    assert stored.header["sform_code"] == stored.header["qform_code"] == 1
    np.testing.assert_allclose(stored.header.get_qform(), stored.header.get_sform(), atol=1e-4)


def test_a_sheared_scan_has_no_qform(tmp_path: Path) -> None:
    scan = even_scan(head((4, 6, 5)), 0.5, 5.0)
    leaning = replace(scan, row_step_mm=np.array([0, -0.47, 0.17]))  # a tilted gantry
    write_scan(leaning, tmp_path / "a.nii")
    stored = nib.load(tmp_path / "a.nii")
    assert (stored.header["sform_code"], stored.header["qform_code"]) == (1, 0)
    np.testing.assert_allclose(read_scan(tmp_path / "a.nii").affine, leaning.affine, atol=1e-5)


def test_a_mask_of_a_scan_without_a_file_gets_its_affine(tmp_path: Path) -> None:
    scan = even_scan(head((4, 6, 5)), 0.5, 5.0)
    mask = (np.arange(120).reshape(4, 6, 5) % 7).astype(np.uint8)
    write_mask(scan, mask, tmp_path / "m.nii.gz")
    write_scan(scan, tmp_path / "s.nii.gz")
    assert np.array_equal(read_mask(tmp_path / "m.nii.gz", read_scan(tmp_path / "s.nii.gz")), mask)


def test_uneven_slices_cannot_be_written(tmp_path: Path) -> None:
    scan = even_scan(head((4, 6, 5)), 0.5, 5.0)
    origins = scan.slice_origins_mm.copy()
    origins[3, 2] += 2
    with pytest.raises(InputError, match="unevenly spaced"):
        write_scan(replace(scan, slice_origins_mm=origins), tmp_path / "a.nii")


def test_written_files_are_the_same_bytes(tmp_path: Path) -> None:
    scan = even_scan(head((4, 6, 5)), 0.5, 5.0)
    (tmp_path / "1").mkdir(), (tmp_path / "2").mkdir()
    for folder in ("1", "2"):
        write_scan(scan, tmp_path / folder / "a.nii.gz")
    assert (tmp_path / "1" / "a.nii.gz").read_bytes() == (tmp_path / "2" / "a.nii.gz").read_bytes()


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint16, np.float32, np.float64])
def test_data_types_and_scaling(tmp_path: Path, dtype: Any) -> None:
    values = (head().astype(np.int32) + 1024).astype(dtype)
    path = tmp_path / "a.nii"
    image = nib.Nifti1Image(values, np.diag([-0.5, 0.5, 5, 1]))
    image.header.set_slope_inter(1, 0)
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([1, -1024], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(raw)
    assert np.array_equal(read_scan(path).hu, head().transpose(2, 1, 0)[:, ::-1])


def test_floats_are_rounded(tmp_path: Path) -> None:
    values = head().astype(np.float32)
    values[0, 0, :5] = [-1000.4, 39.6, 40.4, -0.6, 71.51]
    scan = read_scan(save(tmp_path / "a.nii", values))
    assert scan.hu[:5, -1, 0].tolist() == [-1000, 40, 40, -1, 72]


@pytest.mark.parametrize("padding", [-1500, -2000, -3024, -32768, -100_000.0])
def test_padding_becomes_air(tmp_path: Path, padding: float) -> None:
    values = head().astype(np.float32 if padding < -32768 else np.int16)
    values[0, 0, 0] = padding
    scan = read_scan(save(tmp_path / "a.nii", values))
    assert scan.hu.min() == AIR_HU == scan.hu[0, -1, 0]
    assert scan.warnings == ()


def test_what_int16_cannot_hold_is_clipped(tmp_path: Path) -> None:
    values = head().astype(np.float32)
    values[0, 0, 0] = 1e6
    assert read_scan(save(tmp_path / "a.nii", values)).hu[0, -1, 0] == 32767


def test_nan_and_infinities_become_air_and_are_counted(tmp_path: Path) -> None:
    values = head().astype(np.float32)
    values[2, 2, 2], values[3, 3, 3], values[4, 4, 4] = np.nan, np.inf, -np.inf
    scan = read_scan(save(tmp_path / "a.nii", values))
    assert "3 voxels are NaN or infinite" in scan.warnings[0]
    assert scan.hu[2, 3, 2] == scan.hu[3, 2, 3] == scan.hu[4, 1, 4] == AIR_HU
    with pytest.raises(InputError, match="no finite value"):
        read_scan(save(tmp_path / "b.nii", np.full(SHAPE, np.nan, np.float32)))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (head() + 1024, "intercept of -1024 was lost"),
        (np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8), "8-bit greys"),
        (np.random.default_rng(0).random(SHAPE, np.float32), "probability"),
        (np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32), "range is too small"),
        (np.zeros(SHAPE, np.int16), "none is below zero"),
        (np.where(head() < -500, -3, head().astype(np.float32) + 1100), "no air at -1000"),
    ],
)
def test_what_is_not_hu(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    path = save(tmp_path / "a.nii.gz", values)
    with pytest.raises(InputError, match="not Hounsfield units") as caught:
        read_scan(path)
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)
    assert "convert it to HU" in str(caught.value)


def test_real_scans(shared_data: Path) -> None:
    with pytest.raises(InputError, match=r"scct\.nii: values from 0 to 3794.* Cormack.*convert it to HU"):
        read_scan(shared_data / "head-ct-average" / "scct.nii")
    real = read_scan(shared_data / "head-ct-nifti" / "head.nii.gz")
    assert real.shape == (28, 512, 512)
    assert real.warnings == ()
    np.testing.assert_allclose(real.shares_mm, 5.2396, atol=1e-3)
    np.testing.assert_allclose(real.pixel_mm, 0.48828, atol=1e-4)
    assert read_scan(shared_data / "head-ct-average" / "scct_hu.nii.gz").warnings == ()
    assert read_scan(shared_data / "body-ct" / "example_ct.nii.gz").warnings == ()
    stripped = read_scan(shared_data / "brain-ct-atlas" / "ct_brain_atlas_1mm.nii.gz")
    assert "no air near -1000 HU" in stripped.warnings[0]
    painted = shared_data / "head-ct-painted"
    scan = read_scan(painted / "painted1.nii.gz")
    mask = read_mask(painted / "painted1_mask.nii.gz", scan)
    assert np.unique(mask).tolist() == [0, 2, 5]
    assert scan.volume_ml(mask == 2) == pytest.approx(9.6, abs=0.05)  # its README's figures
    assert scan.volume_ml(mask == 5) == pytest.approx(21.8, abs=0.05)


def test_one_slice_is_read_with_a_warning(tmp_path: Path) -> None:
    scan = read_scan(save(tmp_path / "a.nii", head((5, 6, 1))))
    assert scan.shape == (1, 6, 5)
    assert "one slice only" in scan.warnings[0]
    assert np.isnan(scan.volume_ml(np.ones(scan.shape)))


def test_no_orientation_is_a_warning(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", head())
    raw = bytearray(path.read_bytes())
    raw[252:256] = bytes(4)  # qform_code, sform_code
    path.write_bytes(raw)
    scan = read_scan(path)
    assert "gives no orientation" in scan.warnings[0]
    write_mask(scan, scan.hu > 0, tmp_path / "m.nii")
    mask = nib.load(tmp_path / "m.nii")
    assert (mask.header["sform_code"], mask.header["qform_code"]) == (0, 0)
    assert np.array_equal(mask.affine, nib.load(path).affine)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"srow_x": [0, 0, 0, 0], "srow_y": [0, 0, 0, 0]}, "step of zero"),
        ({"srow_x": [0.5, 0, 0, 0], "srow_y": [0.5, 0, 0, 0], "srow_z": [0, 0.5, 5, 0]}, "singular"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "not a number"),
        ({"xyzt_units": 1}, "lengths in metres"),
    ],
)
def test_broken_geometry(tmp_path: Path, header: dict[str, Any], reason: str) -> None:
    path = save(tmp_path / "a.nii", head(), np.diag([-0.5, 0.5, 5, 1]) + np.outer([0.1, 0, 0, 0], [0, 1, 0, 0]))
    image = nib.load(path)
    for key, value in header.items():
        image.header[key] = value
    raw = bytearray(path.read_bytes())
    raw[:348] = image.header.binaryblock
    path.write_bytes(raw)
    with pytest.raises(InputError, match=reason):
        read_scan(path)


@pytest.mark.parametrize("kept", [0, 1, 60, 300, 900])
def test_cut_files(tmp_path: Path, kept: int) -> None:
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(-1000, 1000, (20, 20, 9)).astype(np.int16))
    (tmp_path / "cut.nii.gz").write_bytes(path.read_bytes()[:kept])
    plain = save(tmp_path / "a.nii", head())
    (tmp_path / "cut.nii").write_bytes(plain.read_bytes()[: kept // 2])
    for name in ("cut.nii.gz", "cut.nii"):
        with pytest.raises(InputError) as caught:
            read_scan(tmp_path / name)
        assert name in str(caught.value)
        with pytest.raises(InputError):
            read_mask(tmp_path / name)


def test_a_damaged_gzip(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(-1000, 1000, (20, 20, 9)).astype(np.int16))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 :] = bytes(len(raw) - len(raw) // 2)  # still valid to a reader that ignores the checksum
    path.write_bytes(raw)
    with pytest.raises(InputError, match="damaged"):
        read_scan(path)
    whole = gzip.decompress(save(path, head()).read_bytes())
    path.write_bytes(gzip.compress(whole)[:-8] + bytes(8))
    with pytest.raises(InputError, match="damaged"):
        read_mask(path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("text.nii", b"not an image at all, but some text. " * 40, "not a NIfTI image"),
        ("page.nii.gz", gzip.compress(b"<html>" * 200), "not a NIfTI image"),
        ("text.nii.gz", b"plain text", "not gzip-compressed"),
        ("short.nii.gz", gzip.compress(b"ten bytes."), "not a NIfTI image"),
        ("empty.nii", b"", "not a NIfTI image"),
        ("notes.txt", b"text", "not a scan that can be read"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_what_is_not_an_image(
    tmp_path: Path, name: str, content: bytes, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_scan(tmp_path / name)
    assert capfd.readouterr() == ("", "")  # one line at the end, and nothing of nibabel's before it


def test_a_gzip_under_a_plain_name(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", head()).rename(tmp_path / "b.nii")
    with pytest.raises(InputError, match=r"rename it to end in \.nii\.gz"):
        read_scan(tmp_path / "b.nii")


def test_missing_and_folders(tmp_path: Path) -> None:
    for read in (read_scan, read_mask):
        with pytest.raises(InputError, match="no such file"):
            read(tmp_path / "a.nii")
    (tmp_path / "b.nii").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        read_scan(tmp_path / "b.nii")
    with pytest.raises(InputError, match="holds no DICOM"):
        read_scan(tmp_path)


def test_several_volumes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"4-D, with more than one volume: shape \(5, 6, 7, 2\)"):
        read_scan(save(tmp_path / "a.nii", head((*SHAPE, 2))))


def test_colours_and_complex_values(tmp_path: Path) -> None:
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), tmp_path / "rgb.nii")
    nib.save(nib.Nifti1Image(head().astype(np.complex64), np.eye(4)), tmp_path / "complex.nii")
    for name in ("rgb.nii", "complex.nii"):
        with pytest.raises(InputError, match="not one number a voxel"):
            read_scan(tmp_path / name)


def test_an_empty_axis(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", head())
    raw = bytearray(path.read_bytes())
    raw[40:48] = np.array([3, 5, 0, 7], "<i2").tobytes()
    path.write_bytes(raw)
    with pytest.raises(InputError, match="holds no volume"):
        read_scan(path)


def test_a_mask_of_another_shape_or_place(tmp_path: Path) -> None:
    scan = read_scan(save(tmp_path / "scan.nii", head()))
    save(tmp_path / "shape.nii", np.zeros((5, 6, 8), np.uint8))
    with pytest.raises(InputError, match=r"shape\.nii.*shape \(8, 6, 5\).*\(7, 6, 5\).*scan\.nii"):
        read_mask(tmp_path / "shape.nii", scan)
    for name, affine in {
        "moved": nib.affines.from_matvec(np.diag([-0.5, 0.5, 5]), [0, 0, 2.5]),
        "spacing": np.diag([-0.5, 0.5, 4, 1.0]),
        "mirrored": nib.affines.from_matvec(np.diag([0.5, 0.5, 5]), [-4, 0, 0]),
    }.items():
        save(tmp_path / f"{name}.nii", np.zeros(SHAPE, np.uint8), affine)
        with pytest.raises(InputError, match=rf"{name}\.nii.*affine.*scan\.nii"):
            read_mask(tmp_path / f"{name}.nii", scan)
    save(tmp_path / "rounded.nii", np.zeros(SHAPE, np.uint8), np.diag([-0.5001, 0.5, 5.0, 1.0]))
    assert not read_mask(tmp_path / "rounded.nii", scan).any()


@pytest.mark.parametrize("value", [0.5, -1, 256, np.nan])
def test_mask_values_that_are_no_labels(tmp_path: Path, value: float) -> None:
    values = np.zeros(SHAPE, np.float32)
    values[1, 1, 1] = value
    with pytest.raises(InputError, match=f"not values like these: {value}"):
        read_mask(save(tmp_path / "m.nii", values))


def test_masks_stored_as_float_are_fine(tmp_path: Path) -> None:
    values = np.zeros(SHAPE, np.float64)
    values[1, 1, 1] = 255
    mask = read_mask(save(tmp_path / "m.nii", values))
    assert mask.dtype == np.uint8
    assert mask[1, -2, 1] == 255


def test_a_mask_that_does_not_fit_is_not_written(tmp_path: Path) -> None:
    scan = read_scan(save(tmp_path / "a.nii", head()))
    with pytest.raises(InputError, match="does not fit"):
        write_mask(scan, np.zeros((7, 6, 6)), tmp_path / "m.nii")
    save(tmp_path / "a.nii", head((5, 6, 9)))
    with pytest.raises(InputError, match="changed since it was read"):
        write_mask(scan, np.zeros(scan.shape), tmp_path / "m.nii")
    (tmp_path / "a.nii").unlink()
    with pytest.raises(InputError, match="no such file"):
        write_mask(scan, np.zeros(scan.shape), tmp_path / "m.nii")
    with pytest.raises(InputError, match=r"ends in \.nii"):
        write_scan(scan, tmp_path / "m.img")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file, not a folder"):
        write_scan(even_scan(head((4, 6, 5)), 0.5, 5.0), tmp_path / "file" / "a.nii")


def test_what_is_taken_for_a_scan() -> None:
    assert [is_scan(name) for name in ("a.nii", "A.NII.GZ", "a.png", "a.img", "a.json")] == [True] * 3 + [False] * 2


@pytest.mark.parametrize("read", [read_scan, read_mask])
def test_no_damage_to_a_header_ends_in_another_error(tmp_path: Path, read: Any) -> None:
    raw = save(tmp_path / "a.nii", head() if read is read_scan else (head() > 0).astype(np.uint8)).read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(raw)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(0, 352)] = rng.integers(0, 256)
        (tmp_path / "b.nii").write_bytes(damaged)
        try:
            read(tmp_path / "b.nii")
        except InputError:
            refused += 1
    assert 20 < refused < 200
