"""What a file's numbers are: padding stored without its sign, and labels that went through a header's scaling."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import tiny
from hemotorch.errors import InputError
from hemotorch.hu import AIR_HU
from hemotorch.io import read_mask, read_mask_and_warnings, read_scan
from hemotorch.io.values import labels, to_hu

AFFINE = np.array([[-3.0, 0, 0, 96], [0, -3.0, 0, 96], [0, 0, 5, 0], [0, 0, 0, 1.0]])


def outside() -> np.ndarray:
    """(columns, rows, slices) bool: what lies outside the scanner's circle."""
    x, y = np.mgrid[: tiny.SIZE, : tiny.SIZE] - (tiny.SIZE - 1) / 2
    return np.broadcast_to((np.hypot(x, y) > 31.5)[:, :, None], (tiny.SIZE, tiny.SIZE, tiny.SLICES))


def save(path: Path, stored: np.ndarray, intercept: float = 0.0, slope: float = 1.0) -> Path:
    """Stores these very numbers in their own type, with a slope and intercept."""
    header = nib.Nifti1Header(endianness="<" if stored.dtype.newbyteorder("=") == stored.dtype else ">")
    header.set_data_dtype(stored.dtype)
    nib.save(nib.Nifti1Image(stored, AFFINE, header), path)
    raw = bytearray(path.read_bytes())
    raw[112:120] = struct.pack(f"{header.endianness}2f", slope, intercept)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("padding", [-2000, -3024, -1, -1024])
@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<u4", ">u4", "<i4", ">i4", "<f4", "<f8", "<u4 in 16 bits"])
def test_padding_stored_unsigned_is_air(tmp_path: Path, dtype: str, padding: int) -> None:
    bits = 16 if dtype[2:3] == "2" or "16" in dtype or dtype[1] in "fi" else 32
    hu = tiny.head(1)[0].hu.transpose(2, 1, 0).astype(np.int64).clip(-1024)
    plain = read_scan(save(tmp_path / "plain.nii", (hu + 1024).astype("<u2"), -1024))
    stored = np.where(outside(), padding + 2**bits, hu + 1024).astype(dtype[:3])
    scan = read_scan(save(tmp_path / "padded.nii", stored, -1024))
    inside = ~outside().transpose(2, 1, 0)
    np.testing.assert_array_equal(scan.hu[inside], plain.hu[inside])
    assert (scan.hu[~inside] == AIR_HU).all()
    assert len(scan.warnings) == 1
    assert f"{outside().sum()} voxels of" in scan.warnings[0]
    assert "padding stored without its sign" in scan.warnings[0]


@pytest.mark.parametrize("metal", [8000, 30_000, 31_743])
@pytest.mark.parametrize("dtype", ["<u2", "<i4", "<f4"])
def test_real_metal_stays(tmp_path: Path, metal: int, dtype: str) -> None:
    hu = tiny.head(1)[0].hu.transpose(2, 1, 0).astype(np.int64).clip(-1024)
    hu[30:32, 30:32, 2] = metal
    scan = read_scan(save(tmp_path / "a.nii", (hu + 1024).astype(dtype), -1024))
    assert scan.hu.max() == metal
    assert np.count_nonzero(scan.hu == metal) == 4
    assert scan.warnings == ()


def test_the_most_negative_padding_of_16_bits(tmp_path: Path) -> None:
    hu = tiny.head(1)[0].hu.transpose(2, 1, 0).astype(np.int64).clip(-1024)
    stored = np.where(outside(), 32768, hu + 1024).astype("<u2")  # -32768
    scan = read_scan(save(tmp_path / "a.nii", stored, -1024))
    assert (scan.hu[outside().transpose(2, 1, 0)] == AIR_HU).all()
    assert "6000 voxels of 31744 HU" in scan.warnings[0]


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        *(("<i4", 2**31 - 1), (">i4", 2**31 - 1), ("<u4", 2**32 - 1), ("<i8", 2**63 - 1)),
        *(("<f4", 2**31 - 1), ("<f4", 3e38), ("<f8", 1e300), (">f8", 1e10)),
    ],
)
def test_fill_values_at_the_end_of_what_numbers_hold_are_air(tmp_path: Path, dtype: str, fill: float) -> None:
    intercept = -1024 if "u" in dtype else 0
    hu = tiny.head(1)[0].hu.transpose(2, 1, 0).astype(np.int64).clip(-1024)
    stored = (hu - intercept).astype(dtype)
    stored[outside()] = fill
    scan = read_scan(save(tmp_path / "a.nii", stored, intercept))
    in_scan = outside().transpose(2, 1, 0)
    assert (scan.hu[in_scan] == AIR_HU).all()
    np.testing.assert_array_equal(scan.hu[~in_scan], hu.transpose(2, 1, 0)[~in_scan])
    (warning,) = scan.warnings
    assert f"{outside().sum()} voxels of " in warning and "or a fill value: taken as air (-1024 HU)" in warning
    assert len(warning) < 200


def test_what_is_too_dense_for_metal_but_no_fill_value_is_cut_off(tmp_path: Path) -> None:
    hu = tiny.head(1)[0].hu.transpose(2, 1, 0).astype("<i4").clip(-1024)
    hu[30:32, 30:32, 2] = 100_000
    scan = read_scan(save(tmp_path / "a.nii", hu))
    assert scan.hu.max() == 32767 and scan.warnings == ("4 voxels above 32767 HU are cut off there",)


def test_padding_does_not_pass_for_the_air_of_what_is_not_hu(tmp_path: Path) -> None:
    lost = tiny.head(1)[0].hu.transpose(2, 1, 0).astype(np.int64).clip(-1024) + 1024  # its intercept was lost
    for name, stored in {
        "unsigned": np.where(outside(), 63536, lost).astype("<u2"),
        "nan": np.where(outside(), np.nan, lost).astype("<f4"),
    }.items():
        with pytest.raises(InputError, match="intercept of -1024 was lost"):
            read_scan(save(tmp_path / f"{name}.nii", stored))
    with pytest.raises(InputError, match="nothing but padding"):
        to_hu(np.full((2, 2), 65535, np.uint16), "a")


def test_what_is_above_hu_but_no_padding_is_said(tmp_path: Path) -> None:
    hu = tiny.head(1)[0].hu.transpose(2, 1, 0).astype(np.float32)
    for value in (1e6, 36_000):
        hu[3, 3, 3] = value
        scan = read_scan(save(tmp_path / "a.nii", hu))
        assert scan.hu[3, 3, 3] == 32767
        assert scan.warnings == ("1 voxels above 32767 HU are cut off there",)


def through_a_header(path: Path, values: np.ndarray, dtype: Any) -> Path:
    """Saves floats under a header of integers, as a script does that reuses its scan's header."""
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    nib.save(nib.Nifti1Image(values.astype(float), AFFINE, header), path)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32])
@pytest.mark.parametrize("most", [2, 6, 99])
def test_labels_saved_through_a_header_are_rounded(tmp_path: Path, dtype: Any, most: int) -> None:
    mask = np.random.default_rng(0).integers(0, most + 1, (8, 9, 4))
    path = through_a_header(tmp_path / "m.nii.gz", mask, dtype)
    read, warnings = read_mask_and_warnings(path)
    np.testing.assert_array_equal(np.sort(read, axis=None), np.sort(mask, axis=None))
    np.testing.assert_array_equal(read, mask.transpose(2, 1, 0))
    off = np.abs(nib.load(path).get_fdata() - mask).max()
    assert len(warnings) == (off > 1e-6)
    assert all("off whole numbers were rounded" in warning for warning in warnings)


def test_what_is_further_off_than_the_headers_step_is_refused(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 7, (8, 9, 4)).astype(float)
    values[4, 4, 2] = 2.7
    with pytest.raises(InputError, match=r"not values like these: .*2\.7.*round it, store it as uint8"):
        read_mask(through_a_header(tmp_path / "m.nii.gz", values, np.uint8))
    coarse = np.random.default_rng(0).integers(0, 250, (8, 9, 4)).astype(np.uint8)
    with pytest.raises(InputError, match="round it, store it as uint8"):
        read_mask(save(tmp_path / "coarse.nii", coarse, slope=0.9))


def test_labels_saved_as_floats() -> None:
    exact = np.array([0, 1, 255], np.float32)
    assert labels(exact, None, "a")[1] == []
    whole, warnings = labels(exact + np.float32(5e-5), None, "a")
    assert whole.tolist() == [0, 1, 255]
    assert "the rounding of floats" in warnings[0]
    for value in (0.5, 0.97, -1, 256, np.nan, np.inf):
        with pytest.raises(InputError, match="a probability: cut it at a threshold first"):
            labels(np.array([0, value]), None, "a")
    with pytest.raises(InputError, match="not values like these: -1, 300"):
        labels(np.array([0, 300, -1], np.int16), None, "a")


@pytest.mark.parametrize("value", [3071, 30000, 32767, 3071.5])
def test_a_value_of_metal_in_all_corners_is_padding(value: float) -> None:
    values = np.full((4, 30, 30), -1000.0)
    values[:, 8:22, 8:22] = 35
    values[2, 14, 14] = value  # metal, which stays
    row, column = np.indices((30, 30)) - 14.5
    outside = np.hypot(row, column) > 14
    values[:, outside] = value
    hu, warnings = to_hu(values, "x")
    assert (hu[:, outside] == -1024).all() and hu[2, 14, 14] == np.rint(value)
    assert warnings == [
        f"{4 * outside.sum()} voxels of {value:.10g} HU reach into all corners: padding, taken as air (-1024 HU)"
    ]
    values[0, 0, 0] = -1000
    assert to_hu(values, "x")[0][0, 0, 1] == np.rint(value), "not all corners: what it is, nobody knows"
