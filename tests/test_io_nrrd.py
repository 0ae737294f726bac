"""NRRD: the same volume as NIfTI in every orientation, encoding and type; detached data; what is refused, and why."""

from __future__ import annotations

import bz2
import gzip
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest

import tiny
from hemotorch.data.layouts import open_layout
from hemotorch.errors import InputError
from hemotorch.inference.scan_files import find_scans, name_scans
from hemotorch.io import files_of, is_scan, read_mask, read_scan, slice_numbers, write_mask
from hemotorch.scan import Frame, Scan, Source

SHAPE = (5, 6, 7)
SIGNS = {
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "LPS": (-1, -1, 1),
}
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(np.deg2rad(7), 0, np.deg2rad(20)) @ np.diag([-0.5, 0.6, 5.0]), [30, -40, 12]
)


def volume(dtype: Any = np.int16) -> np.ndarray:
    """HU with air, brain and bone, different in every voxel."""
    return np.linspace(-1000, 1500, int(np.prod(SHAPE))).reshape(SHAPE).astype(dtype)


def fields(affine: np.ndarray, space: str = "left-posterior-superior") -> dict[str, Any]:
    """What a header says of an affine from voxels to RAS."""
    in_space = np.diag([*SIGNS[space], 1]) @ affine
    return {"space": space, "space directions": in_space[:3, :3].T, "space origin": in_space[:3, 3]}


def save(path: Path, values: np.ndarray, affine: np.ndarray = OBLIQUE, **other: Any) -> Path:
    header = {**fields(affine, other.pop("space", "left-posterior-superior")), **other}
    nrrd.write(str(path), values, header)
    return path


def same(scan: Scan, other: Scan) -> None:
    np.testing.assert_array_equal(scan.hu, other.hu)
    assert scan.hu.dtype == other.hu.dtype and scan.hu.flags.c_contiguous
    np.testing.assert_allclose(scan.slice_origins_mm, other.slice_origins_mm, atol=1e-4)
    np.testing.assert_allclose(scan.row_step_mm, other.row_step_mm, atol=1e-5)
    np.testing.assert_allclose(scan.column_step_mm, other.column_step_mm, atol=1e-5)
    assert (scan.name, scan.slice_numbers, scan.warnings) == (other.name, other.slice_numbers, other.warnings)
    assert scan.source.frames == other.source.frames


@pytest.mark.parametrize("space", SIGNS)
def test_reads_what_the_same_volume_gives_as_nifti(tmp_path: Path, space: str) -> None:
    mask = (volume() > 0).astype(np.uint8)
    for order in itertools.permutations(range(3)):
        for flips in itertools.product([1, -1], repeat=3):
            orientation = np.array(list(zip(order, flips, strict=True)), float)
            values = nib.orientations.apply_orientation(volume(), orientation)
            affine = OBLIQUE @ nib.orientations.inv_ornt_aff(orientation, SHAPE)
            nib.save(nib.Nifti1Image(values, affine), tmp_path / "a.nii")
            expected = read_scan(tmp_path / "a.nii")
            scan = read_scan(save(tmp_path / "a.nrrd", values, affine, space=space))
            same(scan, expected)
            assert slice_numbers(tmp_path / "a.nrrd") == expected.slice_numbers
            stored_mask = nib.orientations.apply_orientation(mask, orientation)
            save(tmp_path / "m.nrrd", stored_mask, affine, space=space)
            np.testing.assert_array_equal(read_mask(tmp_path / "m.nrrd", scan), (expected.hu > 0).astype(np.uint8))
            np.testing.assert_array_equal(read_mask(tmp_path / "m.nrrd"), (expected.hu > 0).astype(np.uint8))
            np.testing.assert_array_equal(read_mask(tmp_path / "m.nrrd", expected), read_mask(tmp_path / "m.nrrd"))


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<i4", ">i4", "<f4", ">f8", "i1"])
def test_encodings_types_and_orders_of_bytes(tmp_path: Path, encoding: str, dtype: str) -> None:
    values = volume()
    if dtype == "i1":
        values = np.clip(values, -128, 127)
        values[0] = -100
    values = values.astype(dtype)
    endian = {"<": "little", ">": "big"}.get(dtype[0])
    other = {"endian": endian} if endian else {}
    path = save(tmp_path / "a.nrrd", values, encoding=encoding, **other)
    nib.save(nib.Nifti1Image(values.astype(dtype[-2:]), OBLIQUE), tmp_path / "a.nii")
    same(read_scan(path), read_scan(tmp_path / "a.nii"))


def test_hu_are_read_by_the_rules_of_nifti(tmp_path: Path) -> None:
    values = volume(np.float32)
    values[0, 0, :3] = np.nan, np.inf, -3024
    scan = read_scan(save(tmp_path / "a.nrrd", values))
    assert scan.warnings == ("2 voxels are NaN or infinite, taken as air (-1024 HU)",)
    with pytest.raises(InputError, match=r"a\.nrrd: values from 0 to 2500 are not Hounsfield units"):
        read_scan(save(tmp_path / "a.nrrd", (volume() + 1000).astype(np.uint16)))
    with pytest.raises(InputError, match=r"a mask holds whole numbers from 0 to 255"):
        read_mask(save(tmp_path / "a.nrrd", volume()))


def detached(folder: Path, header: str, content: bytes, name: str = "a.raw") -> Path:
    text = "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 5 6 7\nendian: little\n"
    text += f"space directions: (0.5,0,0) (0,0.6,0) (0,0,5)\nspace origin: (1,2,3)\ndata file: {name}\n{header}"
    (folder / name).write_bytes(content)
    (folder / "a.nhdr").write_text(text)
    return folder / "a.nhdr"


@pytest.mark.parametrize(
    ("header", "pack", "before", "after"),
    [
        ("encoding: raw\n", bytes, b"", b""),
        ("encoding: raw\nline skip: 2\nbyte skip: 3\n", bytes, b"one\ntwo\nabc", b"more"),
        ("encoding: raw\nbyte skip: -1\n", bytes, b"any header of another kind\n", b""),
        ("encoding: gzip\n", gzip.compress, b"", b""),
        ("encoding: gz\nbyteskip: 5\n", gzip.compress, b"abcde", b""),
        ("encoding: gzip\nbyte skip: -1\n", gzip.compress, b"abcde", b""),
        ("encoding: bz2\n", bz2.compress, b"", b""),
    ],
)
def test_voxels_in_a_file_beside_the_header(
    tmp_path: Path, header: str, pack: Any, before: bytes, after: bytes
) -> None:
    content = pack(before + volume().tobytes(order="F") + after)
    path = detached(tmp_path, header, content)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.hu, volume().transpose(2, 1, 0))
    np.testing.assert_allclose(scan.slice_origins_mm[0], [-1, -2, 3])
    assert scan.source == Source(
        "nrrd", (str(path), str(tmp_path / "a.raw")), tuple(Frame(0, index) for index in range(7))
    )
    assert files_of([path]) == [path, tmp_path / "a.raw"]
    (tmp_path / "a.raw").unlink()
    assert files_of([path]) == [path]
    with pytest.raises(InputError, match=r"a\.raw: no such file"):
        read_scan(path)


@pytest.mark.parametrize("name", ["../b.raw", "/etc/hostname"])
def test_a_header_names_no_file_of_another_folder(tmp_path: Path, name: str) -> None:
    path = detached(tmp_path, "encoding: raw\n", b"")
    path.write_text(path.read_text().replace("data file: a.raw", f"data file: {name}"))
    with pytest.raises(InputError, match=f"its voxels are in another folder .{name}"):
        read_scan(path)


@pytest.mark.parametrize("change", ["LIST\na.raw\nb.raw", "slice%03d.raw 1 7 1"])
def test_voxels_in_several_files_are_refused_by_name(tmp_path: Path, change: str) -> None:
    path = detached(tmp_path, "encoding: raw\n", b"")
    path.write_text(path.read_text().replace("encoding: raw\n", "").replace("data file: a.raw", "encoding: raw"))
    path.write_text(path.read_text() + f"data file: {change}\n")
    with pytest.raises(InputError, match="its voxels are spread over several files, which is not read; save it as one"):
        read_scan(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("NRRD0004", "PNG0004", "is not an NRRD file"),
        ("sizes: 5 6 7", "sizes: 5 6 -7", "its header is damaged .a volume of 5 x 6 x -7 voxels"),
        ("sizes: 5 6 7", "sizes: 5 6", "its header is damaged"),
        ("sizes: 5 6 7", "sizes: 5 6 8", "cut short or damaged .480 bytes asked for, at most 420 there"),
        ("sizes: 5 6 7", "sizes: 4000 4000 4000", "has 64,000,000,000 voxels, more than"),
        ("type: short", "type: block", "holds blocks of bytes"),
        ("type: short", "type: rubbish", "its header is damaged"),
        ("encoding: raw", "encoding: hex", "its encoding 'hex' is not read; save it with"),
        ("encoding: raw", "encoding: gzip", "cut short or damaged"),
        ("encoding: raw", "encoding: bzip2", "cut short or damaged"),
        ("encoding: raw", "encoding: text", "cut short or damaged"),
        ("(0,0.6,0)", "(0,0,0)", "its affine has a step of zero"),
        ("(0,0.6,0)", "(0.5,0,0)", "its affine is singular"),
        ("(0,0.6,0)", "(0,nan,0)", "holds several numbers per voxel, or several volumes"),
        ("(0,0.6,0)", "none", "holds several numbers per voxel, or several volumes"),
        ("(0,0.6,0)", "(0,0.6)", "its header is damaged"),
        ("endian: little\n", "", "its header is damaged .Header is missing required field: endian"),
        ("space origin", 'space units: "cm" "cm" "cm"\nspace origin', "its header gives lengths in cm, not in mm"),
        ("(0,0.6,0)", "(0,0.0006,0)", "its pixels are 0.0006 mm apart, which no CT has"),
        ("encoding: raw", "encoding: raw\nbyte skip: -2", "it skips less than nothing"),
        ("encoding: raw", "encoding: raw\nbyte skip: 99999999999999", "unpacked, more than"),
    ],
)
def test_damaged_and_unusual_files_are_refused_in_a_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = detached(tmp_path, "encoding: raw\n", volume().tobytes(order="F"))
    read_scan(path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        read_scan(path)


def test_more_than_one_volume_or_value_is_refused_and_an_axis_of_one_is_not(tmp_path: Path) -> None:
    plain = read_scan(save(tmp_path / "a.nrrd", volume()))
    axes = fields(OBLIQUE)["space directions"]
    colour = {"space directions": np.vstack([[np.nan] * 3, axes]), "kinds": ["vector", *["domain"] * 3]}
    several = np.stack([volume(), volume()])
    with pytest.raises(InputError, match="holds several numbers per voxel"):
        read_scan(save(tmp_path / "a.nrrd", several, **colour))
    same(read_scan(save(tmp_path / "a.nrrd", several[:1], **colour)), plain)
    nrrd.write(str(tmp_path / "a.nrrd"), volume()[0], {"spacings": [0.5, 0.5]})
    with pytest.raises(InputError, match="is 2-D, not one volume"):
        read_scan(tmp_path / "a.nrrd")


@pytest.mark.parametrize(
    "header",
    [
        {"spacings": [0.5, 0.6, 5.0]},
        {"space dimension": 3, "space directions": np.diag([0.5, 0.6, 5.0])},
        {"space": "3D-right-handed", "space directions": np.diag([0.5, 0.6, 5.0])},
    ],
)
def test_without_an_orientation_axes_are_those_of_dicom_and_it_is_said(tmp_path: Path, header: dict[str, Any]) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), volume(), header)
    scan = read_scan(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(scan.hu, volume().transpose(2, 1, 0))
    assert scan.pixel_mm == pytest.approx((0.6, 0.5))
    assert len(scan.warnings) == 1
    assert "gives no orientation" in scan.warnings[0] and "left, back, head, and may be swapped" in scan.warnings[0]


def test_a_volume_without_spacing_is_refused(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), volume())
    with pytest.raises(InputError, match="gives neither space directions nor spacings"):
        read_scan(tmp_path / "a.nrrd")


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress)])
def test_packed_data_are_unpacked_no_further_than_the_header_asks_for(tmp_path: Path, encoding: str, pack: Any) -> None:
    path = detached(tmp_path, f"encoding: {encoding}\n", pack(volume().tobytes(order="F") + bytes(2**27)))
    with pytest.raises(InputError, match=r"unpacks to more than the 1\.0 MB that its header asks for"):
        read_scan(path)


def test_a_large_header_of_a_small_file_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = detached(tmp_path, "encoding: gzip\n", gzip.compress(volume().tobytes(order="F")))
    path.write_text(path.read_text().replace("sizes: 5 6 7", "sizes: 512 512 600"))
    with pytest.raises(InputError, match="cut short or damaged .314,572,800 bytes asked for"):
        read_scan(path)


def test_masks_are_written_as_nifti_without_what_names_the_patient(tmp_path: Path) -> None:
    remarks = {"content": "Jane Doe", "PatientName": "Jane^Doe", "type": "short"}
    path = tmp_path / "a.nrrd"
    nrrd.write(str(path), volume(), {**fields(OBLIQUE), **remarks}, custom_field_map={"PatientName": "string"})
    assert b"Jane^Doe" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"NRRD0005\n", b"NRRD0005\ntype:=Jane\n"))
    scan = read_scan(path)
    mask = (scan.hu > 0).astype(np.uint8)
    write_mask(scan, mask, tmp_path / "a_mask.nii")
    assert b"Jane" not in (tmp_path / "a_mask.nii").read_bytes()
    np.testing.assert_array_equal(read_mask(tmp_path / "a_mask.nii", scan), mask)


def test_a_mask_on_another_scan_is_refused(tmp_path: Path) -> None:
    scan = read_scan(save(tmp_path / "a.nrrd", volume()))
    moved = OBLIQUE.copy()
    moved[0, 3] += 2
    with pytest.raises(InputError, match=r"m\.nrrd: this mask's affine puts it 2\.0 mm away from its scan, .*a\.nrrd"):
        read_mask(save(tmp_path / "m.nrrd", np.zeros(SHAPE, np.uint8), moved), scan)
    with pytest.raises(InputError, match=r"this mask's shape \(7, 6, 4\) is not that of its scan, \(7, 6, 5\)"):
        read_mask(save(tmp_path / "m.nrrd", np.zeros((4, 6, 7), np.uint8)), scan)


def write_head(path: Path, seed: int) -> None:
    """A tiny head as NRRD, its mask beside it or in masks/."""
    scan, mask = tiny.head(seed)
    affine = scan.affine[:, [2, 1, 0, 3]]
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, scan.hu.transpose(2, 1, 0), affine)
    target = path.with_name(f"{path.stem}_mask.nrrd")
    if path.parent.name == "images":
        target = path.parents[1] / "masks" / path.name
        target.parent.mkdir(exist_ok=True)
    save(target, mask.transpose(2, 1, 0), affine)


@pytest.mark.parametrize("folder", ["images", "."])
def test_datasets_of_nrrd_are_opened(tmp_path: Path, folder: str) -> None:
    write_head(tmp_path / folder / "a.nrrd", 1)
    write_head(tmp_path / folder / "b.nrrd", 2)
    collection = open_layout(tmp_path)
    assert [case.name for case in collection.cases] == ["a", "b"] and collection.passed_over == ()
    for seed, case in enumerate(collection.cases, start=1):
        scan, mask = case.read()
        expected, expected_mask = tiny.head(seed)
        np.testing.assert_array_equal(scan.hu, expected.hu)
        np.testing.assert_array_equal(mask > 0, expected_mask > 0)
        assert scan.volume_ml(mask) == pytest.approx(expected.volume_ml(expected_mask))


def test_scans_of_a_folder_are_found_and_named(tmp_path: Path) -> None:
    write_head(tmp_path / "a.nrrd", 1)
    path = detached(tmp_path, "encoding: raw\n", volume().tobytes(order="F"), "a.img")
    assert is_scan("x/A.NRRD") and is_scan("a.nhdr")
    scans, failed = find_scans([tmp_path], tmp_path / "out")
    assert [scan.path for scan in scans] == [path, tmp_path / "a.nrrd"] and not failed
    assert sorted(name_scans(scans).values()) == sorted([f"{tmp_path.name}_a_nhdr", f"{tmp_path.name}_a_nrrd"])
    path.unlink()
    _, failed = find_scans([tmp_path], tmp_path / "out")
    assert [str(error) for _, error in failed] == [
        f"{tmp_path / 'a.img'}: is half of a pair of files without its header, which is not read; "
        "convert it to NIfTI first"
    ]


def test_without_pynrrd_it_is_said_how_to_install_it(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nrrd", volume())
    code = "import sys; sys.modules['nrrd'] = None; import hemotorch\ntry:\n hemotorch.read_scan(sys.argv[1])\n"
    code += "except Exception as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("install it with: pip install 'hemotorch[nrrd]'")
    assert "a.nrrd: is NRRD" in done.stdout
