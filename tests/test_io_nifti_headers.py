"""NIfTI headers as other writers leave them: identity, affines that disagree, padding without a sign, scaled masks."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from hemotorch.data.layouts import open_layout
from hemotorch.errors import InputError
from hemotorch.hu import AIR_HU
from hemotorch.inference.scan_files import find_scans
from hemotorch.io import files_of, is_scan, read_mask, read_scan, write_mask
from hemotorch.io.nifti import PREDICTION_MARK

SHAPE = (5, 6, 7)
AFFINE = np.array([[-0.5, 0, 0, 10], [0, 0.5, 0, -20], [0, 0, 5.0, 30], [0, 0, 0, 1]])


def head() -> np.ndarray:
    """HU with air, brain and bone, different in every voxel."""
    return np.linspace(-1000, 1500, int(np.prod(SHAPE))).astype(np.int16).reshape(SHAPE)


def save(path: Path, values: np.ndarray, sform: np.ndarray | None = AFFINE, qform: np.ndarray | None = AFFINE) -> Path:
    image = nib.Nifti1Image(values, AFFINE)
    image.set_sform(sform, code=0 if sform is None else 1)
    image.set_qform(qform, code=0 if qform is None else 1)
    nib.save(image, path)
    return path


def patch(path: Path, offset: int, form: str, *values: Any) -> Path:
    raw = bytearray(path.read_bytes())
    raw[offset : offset + struct.calcsize(form)] = struct.pack(form, *values)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", "<>")
def test_no_identity_of_the_source_is_in_a_mask(tmp_path: Path, kind: Any, suffix: str, order: str) -> None:
    header = kind.header_class(endianness=order)
    image = kind(head(), AFFINE, header)
    for field in ("db_name", "aux_file", "intent_name", "descrip"):
        if field in image.header:
            image.header[field] = b"DOE^JANE"
    image.header["intent_p1"], image.header["toffset"] = 19000101, 42
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"DOE^JANE"))
    path = tmp_path / f"scan{suffix}"
    nib.save(image, path)
    scan = read_scan(path)
    for mark in ("", PREDICTION_MARK):
        write_mask(scan, scan.hu > 100, tmp_path / "mask.nii", mark)
        mask = nib.load(tmp_path / "mask.nii")
        assert b"DOE" not in (tmp_path / "mask.nii").read_bytes()
        assert mask.header["intent_p1"] == mask.header["toffset"] == 0
        assert mask.header["descrip"].item().decode() == mark
        assert np.array_equal(mask.affine, nib.load(path).affine)
        assert np.array_equal(read_mask(tmp_path / "mask.nii", scan), scan.hu > 100)


def test_an_sform_of_no_use_leaves_the_qform(tmp_path: Path) -> None:
    path = patch(save(tmp_path / "a.nii", head()), 280, "<12f", *[0] * 12)
    scan = read_scan(path)
    assert "its sform is of no use (has a step of zero or not a number): read by its qform" in scan.warnings
    np.testing.assert_allclose(scan.affine, read_scan(save(tmp_path / "b.nii", head())).affine, atol=1e-6)
    write_mask(scan, scan.hu > 0, tmp_path / "m.nii")
    np.testing.assert_allclose(nib.load(tmp_path / "m.nii").affine, AFFINE, atol=1e-6)
    assert np.array_equal(read_mask(tmp_path / "m.nii", scan), scan.hu > 0)
    with pytest.raises(InputError, match="step of zero"):
        read_scan(patch(save(tmp_path / "c.nii", head(), qform=None), 280, "<12f", *[0] * 12))


TURNED = np.eye(4)
TURNED[:3, :3] = nib.eulerangles.euler2mat(0, 0, np.deg2rad(20))
MOVED = np.eye(4)
MOVED[:3, 3] = [0, 0, 60]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (np.diag([-1, 1, 1, 1]), "handedness"),
        (TURNED, "direction \\(by 20 degrees\\)"),
        (MOVED, "position \\(by 60 mm\\)"),
        (np.diag([2, 2, 1, 1]), "the voxel's size"),
    ],
)
def test_affines_that_disagree_are_said(tmp_path: Path, change: np.ndarray, reason: str) -> None:
    scan = read_scan(save(tmp_path / "a.nii", head(), qform=change @ AFFINE))
    assert len(scan.warnings) == 1
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(scan.warnings[0])
    plain = read_scan(save(tmp_path / "b.nii", head()))
    assert plain.warnings == ()
    np.testing.assert_allclose(scan.affine, plain.affine, atol=1e-6)


@pytest.mark.parametrize("with_sform", [True, False])
def test_a_quaternion_or_qfac_off_is_read(tmp_path: Path, with_sform: bool) -> None:
    sform = AFFINE if with_sform else None
    expected = read_scan(save(tmp_path / "a.nii", head()))
    longer = np.float32(1) + 2 * np.finfo(np.float32).eps
    path = save(tmp_path / "b.nii", head(), sform)
    b, c, d = struct.unpack("<3f", path.read_bytes()[256:268])
    assert max(abs(b), abs(c), abs(d)) == 1  # the flip of the first axis
    patch(path, 256, "<3f", *(value * longer for value in (b, c, d)))
    for name in ("b", "c"):
        if name == "c":
            qfac = struct.unpack("<f", save(tmp_path / "c.nii", head(), sform).read_bytes()[76:80])[0]
            patch(tmp_path / "c.nii", 76, "<f", -0.5 if qfac < 0 else 0)
        try:
            scan = read_scan(tmp_path / f"{name}.nii")
        except InputError:
            assert not with_sform
            continue
        np.testing.assert_allclose(scan.affine, expected.affine, atol=1e-5)
        write_mask(scan, scan.hu > 0, tmp_path / "m.nii")
        assert np.array_equal(read_mask(tmp_path / "m.nii", scan), scan.hu > 0)


@pytest.mark.parametrize(
    ("dtype", "padding"),
    [("<u2", 63536), (">u2", 65535), ("<i4", 63536), ("<u4", 2**32 - 2000), (">u4", 2**32 - 1), ("<f4", 63536)],
)
def test_padding_stored_without_its_sign_is_air(tmp_path: Path, dtype: str, padding: int) -> None:
    stored = head().astype(np.int64) + 1024
    stored[4, 5, 6] = 30_000 + 1024  # metal stays
    stored[0, 0, :3] = padding
    header = nib.Nifti1Header(endianness=dtype[0])
    header.set_data_dtype(np.dtype(dtype))
    nib.save(nib.Nifti1Image(stored.astype(dtype), AFFINE, header), tmp_path / "a.nii")
    scan = read_scan(patch(tmp_path / "a.nii", 112, f"{dtype[0]}2f", 1, -1024))
    assert (scan.hu[:3, -1, 0] == AIR_HU).all()
    assert scan.hu[6, 0, 4] == 30_000
    assert np.count_nonzero(scan.hu == AIR_HU) == 3
    assert "3 voxels" in scan.warnings[0] and "without its sign" in scan.warnings[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_masks_scaled_to_all_integers_are_rounded(tmp_path: Path, dtype: Any) -> None:
    values = np.zeros(SHAPE)
    values[0, :6, 0] = range(1, 7)
    image = nib.Nifti1Image(values, AFFINE)
    image.set_data_dtype(dtype)
    nib.save(image, tmp_path / "m.nii.gz")
    assert (np.asarray(nib.load(tmp_path / "m.nii.gz").dataobj) % 1 != 0).any()
    assert read_mask(tmp_path / "m.nii.gz")[0, ::-1, 0].tolist() == [1, 2, 3, 4, 5, 6]
    values[1, 1, 1] = 2.5  # that is no rounding
    image = nib.Nifti1Image(values, AFFINE)
    image.set_data_dtype(dtype)
    nib.save(image, tmp_path / "m.nii.gz")
    with pytest.raises(InputError, match="round it, store it as uint8"):
        read_mask(tmp_path / "m.nii.gz")


@pytest.mark.parametrize(
    ("offset", "layout", "value", "message"),
    [
        (108, "<f", float("nan"), "its header puts the voxels at a byte that is no number (nan)"),
        (108, "<f", float("inf"), "its header puts the voxels at a byte that is no number (inf)"),
        (108, "<f", -5.0, "its header puts the voxels at byte -5"),
        (42, "<h", -5, "its header gives a volume of -5 x 6 x 7 voxels"),
    ],
)
def test_a_header_that_cannot_be_is_refused_in_plain_words(
    tmp_path: Path, offset: int, layout: str, value: float, message: str
) -> None:
    path = save(tmp_path / "a.nii", head())
    raw = bytearray(path.read_bytes())
    struct.pack_into(layout, raw, offset, value)
    path.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        read_scan(path)
    assert str(caught.value) == f"{path}: cannot be read: damaged ({message})"


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("names", [("a.hdr", "a.img"), ("A.HDR", "A.IMG")])
def test_a_pair_is_read_as_the_one_file(tmp_path: Path, kind: Any, names: tuple[str, str]) -> None:
    expected = read_scan(save(tmp_path / "one.nii", head()))
    image = kind(head(), AFFINE)
    image.set_qform(AFFINE, code=1)
    image.header["aux_file"] = b"Jane Doe"
    path, voxels = tmp_path / names[0], tmp_path / names[1]
    nib.save(image, path)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.hu, expected.hu)
    np.testing.assert_array_equal(scan.slice_origins_mm, expected.slice_origins_mm)
    assert (scan.name, scan.warnings) == (path.stem, ())
    assert scan.source == replace(expected.source, files=(str(path), str(voxels)))
    assert is_scan(path) and not is_scan(voxels) and files_of([path]) == [path, voxels]
    mask = (scan.hu > 0).astype(np.uint8)
    write_mask(scan, mask, tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", scan), mask)
    written = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(written.affine, AFFINE, atol=1e-6)
    assert b"Jane" not in written.header.binaryblock
    nib.save(kind(mask.transpose(2, 1, 0)[:, ::-1], AFFINE), tmp_path / "m.hdr")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.hdr", scan), mask)


def test_half_a_pair_and_analyze_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.hdr"
    nib.save(nib.Nifti1Pair(head(), AFFINE), path)
    good = path.read_bytes()
    path.write_bytes(good[:348] + b"\1\0\0\0" + b"\xff\xff\xff\x7f" * 4)
    with pytest.raises(InputError, match="its header extensions do not fit"):
        read_scan(path)
    path.write_bytes(good)
    with open(tmp_path / "a.img", "r+b") as file:
        file.truncate(100)
    with pytest.raises(InputError, match="cut short or damaged .420 bytes asked for, at most 100 there"):
        read_scan(path)
    (tmp_path / "a.img").unlink()
    with pytest.raises(InputError, match=r"a\.hdr: has no a\.img beside it, which holds its voxels"):
        read_scan(path)
    assert files_of([path]) == [path]
    nib.save(nib.AnalyzeImage(head(), np.diag([0.5, 0.5, 5, 1])), path)
    with pytest.raises(InputError, match=r"is Analyze 7\.5, which does not say on which side .* convert the original"):
        read_scan(path)
    path.write_text("ENVI\nsamples = 5\n")
    with pytest.raises(InputError, match="is not a NIfTI image"):
        read_scan(path)


def test_a_packed_pair_is_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    nib.save(nib.Nifti1Image(head(), AFFINE), tmp_path / "images" / "a.nii")
    nib.save(nib.Nifti1Pair(head(), AFFINE), tmp_path / "images" / "b.img.gz")
    (line,) = open_layout(tmp_path).passed_over
    assert line.startswith("images/b.hdr.gz, images/b.img.gz: is half of a packed pair of files, which is not read")
    _, [(_, error)] = find_scans([tmp_path], tmp_path / "out")
    assert "images/b.hdr.gz, images/b.img.gz: is half of a packed pair of files" in str(error)


def test_the_voxels_of_a_pair_are_no_file_that_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    nib.save(nib.Nifti1Pair(head(), AFFINE), tmp_path / "images" / "a.hdr")
    (case,) = open_layout(tmp_path).cases
    assert (case.name, open_layout(tmp_path).passed_over) == ("a", ())
    (scan,), failed = find_scans([tmp_path], tmp_path / "out")
    assert (scan.files, failed) == ((tmp_path / "images" / "a.hdr",), [])
    (tmp_path / "images" / "b.img").write_bytes(b"")
    (line,) = open_layout(tmp_path).passed_over
    assert line.startswith("images/b.img: is half of a pair of files without its header, which is not read")


@pytest.mark.parametrize("sizes_mm", [(0, 0, 0), (0.5, 0.5, 0)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_voxel_size_of_zero_is_not_read_as_one_mm(tmp_path: Path, sizes_mm: tuple[float, ...], suffix: str) -> None:
    # nibabel makes 1 of it, and volumes were stated in mL.
    path = patch(save(tmp_path / "scan.nii", head()), 80, "<3f", *sizes_mm)
    by_sform = read_scan(path)
    assert by_sform.voxel_ml == pytest.approx(0.5 * 0.5 * 5 / 1000)
    assert "its qform is of no use" in " ".join(by_sform.warnings)
    write_mask(by_sform, by_sform.hu > 100, tmp_path / "mask.nii")
    assert nib.load(tmp_path / "mask.nii").header["pixdim"][1:4] == pytest.approx([0.5, 0.5, 5])
    for codes in ((1, 0), (0, 0)):  # by the qform alone, and by nothing
        patch(path, 252, "<2h", *codes)
        other = path.with_name(f"other{suffix}")
        other.write_bytes(gzip.compress(path.read_bytes()) if suffix == ".nii.gz" else path.read_bytes())
        with pytest.raises(InputError, match="a step of zero"):
            read_scan(other)


def test_a_single_slice_needs_no_distance(tmp_path: Path) -> None:
    path = tmp_path / "slice.nii"
    nib.save(nib.Nifti1Image(head()[:, :, 2:3], AFFINE), path)
    patch(patch(path, 88, "<f", 0), 252, "<2h", 0, 0)
    assert read_scan(path).shape[0] == 1
