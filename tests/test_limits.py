"""Files that ask for more than they hold, or that never end, are refused before anything is allocated or waited for."""

from __future__ import annotations

import gzip
import os
import socket
import struct
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from hemotorch.data.layouts.tables import read_cells
from hemotorch.data.manifest import read_manifest
from hemotorch.data.shards import open_shard, write_shard
from hemotorch.errors import InputError, OptionError
from hemotorch.inference.checkpoint import load_checkpoint
from hemotorch.io import is_dicom, png, read_mask, read_scan, slice_numbers
from hemotorch.recipe import load_recipe
from hemotorch.run import Run
from hemotorch.system import limits
from hemotorch.system.files import read_json

READERS: dict[str, Callable[[Path], Any]] = {
    "a.nii": read_scan,
    "b.nii.gz": read_mask,
    "c.nii.gz": slice_numbers,
    "d.png": read_scan,
    "d.hdr": read_scan,
    "d.nrrd": read_scan,
    "d.nhdr": read_mask,
    "e.dcm": read_scan,
    "f.json": read_json,
    "g.csv": read_cells,
    "manifest.csv": read_manifest,
    "h.toml": load_recipe,
    "i.pt": load_checkpoint,
    "window.json": lambda path: png.read_window(path.parent),
    "metrics.jsonl": lambda path: Run(path.parent).metrics,
}


def nifti_header(shape: tuple[int, ...], kind: Any = nib.Nifti1Header, offset: int = 352, dtype: Any = np.int16) -> Any:
    header = kind()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header["vox_offset"] = offset
    header["magic"] = b"n+1" if kind is nib.Nifti1Header else b"n+2\0\r\n\x1a\n"
    return header


@pytest.mark.parametrize("name", READERS)
def test_pipes_devices_and_sockets_are_refused_at_once(tmp_path: Path, name: str) -> None:
    path, read = tmp_path / name, READERS[name]
    os.mkfifo(path)
    with pytest.raises(InputError, match="pipe or a device"):
        read(path)
    path.rename(tmp_path / "pipe")
    for target in (tmp_path / "pipe", Path("/dev/zero")):
        path.symlink_to(target)
        with pytest.raises(InputError, match="pipe or a device"):
            read(path)
        path.unlink()
    with socket.socket(socket.AF_UNIX) as server, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)  # the path of a socket is short
        server.bind(name)
        with pytest.raises(InputError, match="pipe or a device"):
            read(path)


@pytest.mark.parametrize("target", ["pipe", "/dev/zero"])
def test_a_header_whose_voxels_are_a_pipe_or_a_device_is_refused_at_once(tmp_path: Path, target: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.hdr").write_bytes(nifti_header((4, 4, 4), offset=0).binaryblock)
    (tmp_path / "b.nhdr").write_text(
        "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nspacings: 1 1 5\nencoding: raw\ndata file: a.img\n"
    )
    (tmp_path / "a.img").symlink_to(tmp_path / target)
    for name in ("a.hdr", "b.nhdr"):
        with pytest.raises(InputError, match="pipe or a device"):
            read_scan(tmp_path / name)


def test_a_pipe_is_not_asked_whether_it_is_dicom(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.dcm")
    assert not is_dicom(tmp_path / "a.dcm")


def test_text_larger_than_is_parsed(tmp_path: Path) -> None:
    for name in ("f.json", "g.csv", "manifest.csv", "h.toml"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(100 * 2**30)  # a sparse file: 100 GB in no space
        with pytest.raises(InputError, match="MB of text that are read|is too long"):
            READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((30000, 30000, 4), "has 3,600,000,000 voxels, more than the 268,435,456 that are read"),
        ((512, 512, 400), "cannot be read: cut short or damaged"),
    ],
)
def test_a_header_alone(tmp_path: Path, name: str, kind: Any, shape: tuple[int, ...], says: str) -> None:
    path = tmp_path / name
    raw = nifti_header(shape, kind, 352 if kind is nib.Nifti1Header else 544).binaryblock + bytes(4)
    path.write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    for read in (read_scan, read_mask, slice_numbers):
        with pytest.raises(InputError, match=says):
            read(path)


@pytest.mark.parametrize("read", [read_scan, slice_numbers])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("length", [2**31 - 16, -16, 0, 7, 64])
def test_a_header_extension_longer_than_the_header(tmp_path: Path, name: str, length: int, read: Any) -> None:
    extension = struct.pack("<ii", length, 4) + bytes(24)
    raw = nifti_header((4, 4, 4), offset=384).binaryblock + b"\1\0\0\0" + extension + bytes(128)
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    with pytest.raises(InputError, match="header extensions do not fit"):
        read(tmp_path / name)


def test_a_good_header_extension_is_passed_over(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.linspace(-1000, 1000, 60).astype(np.int16).reshape(3, 4, 5), np.diag([-1, 1, 5, 1]))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"something"))
    for name in ("a.nii", "a.nii.gz"):
        nib.save(image, tmp_path / name)
        assert read_scan(tmp_path / name).shape == (5, 4, 3)


def test_what_follows_the_volume(tmp_path: Path) -> None:
    values = np.linspace(-1000, 1000, 60).astype(np.int16).reshape(3, 4, 5)
    nib.save(nib.Nifti1Image(values, np.diag([-1, 1, 5, 1])), tmp_path / "a.nii.gz")
    good = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "members.nii.gz").write_bytes(good[:0] + gzip.compress(gzip.decompress(good)) + gzip.compress(b"more"))
    (tmp_path / "padded.nii.gz").write_bytes(good + bytes(2**21))
    for name in ("members", "padded"):
        assert np.array_equal(read_scan(tmp_path / f"{name}.nii.gz").hu, read_scan(tmp_path / "a.nii.gz").hu)
    (tmp_path / "bomb.nii.gz").write_bytes(good + gzip.compress(bytes(2**27)))
    with pytest.raises(InputError, match="unpacks to more than the"):
        read_scan(tmp_path / "bomb.nii.gz")


def test_the_bounds_can_be_raised_and_lowered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.linspace(-1000, 1000, 60).astype(np.int16).reshape(3, 4, 5)
    nib.save(nib.Nifti1Image(values, np.diag([-1, 1, 5, 1])), tmp_path / "a.nii.gz")
    monkeypatch.setenv(limits.MAX_VOXELS, "59")
    with pytest.raises(InputError, match="60 voxels, more than the 59 .* set --max-voxels .* to 60"):
        read_scan(tmp_path / "a.nii.gz")
    monkeypatch.setenv(limits.MAX_VOXELS, "60")
    assert read_scan(tmp_path / "a.nii.gz").shape == (5, 4, 3)
    monkeypatch.delenv(limits.MAX_VOXELS)
    large = np.linspace(-1000, 1000, 180_000).reshape(50, 60, 60)  # eight bytes a voxel, and the header
    nib.save(nib.Nifti1Image(large, np.diag([-1, 1, 5, 1])), tmp_path / "a.nii.gz")
    monkeypatch.setenv(limits.MAX_UNPACKED_GB, "0.001")
    with pytest.raises(InputError, match="HEMOTORCH_MAX_UNPACKED_GB"):
        read_scan(tmp_path / "a.nii.gz")
    monkeypatch.setenv(limits.MAX_UNPACKED_GB, "0.002")
    assert read_scan(tmp_path / "a.nii.gz").shape == (60, 60, 50)
    monkeypatch.delenv(limits.MAX_UNPACKED_GB)
    raised = limits.VOXELS * 4
    for voxels, unpacked in ((60, limits.VOXELS * 8), (raised, raised * 8)):
        monkeypatch.setenv(limits.MAX_VOXELS, str(voxels))
        assert limits.max_unpacked() == unpacked, "checkpoints and tables are read whatever a scan may have"
    for wrong in ("many", "-1", "nan", "1e99"):
        monkeypatch.setenv(limits.MAX_VOXELS, wrong)
        with pytest.raises(OptionError, match="HEMOTORCH_MAX_VOXELS: must be a number above zero"):
            read_scan(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ((1e-6, 1, 5), "pixels are 1e-06 mm apart"),
        ((1, 1e6, 5), r"pixels are 1e\+06 mm apart"),
        ((1, 1, 1e-6), "slices are 1e-06 mm apart"),
        ((1, 1, 1e6), r"slices are 1e\+06 mm apart"),
    ],
)
def test_distances_that_no_ct_has(tmp_path: Path, steps: tuple[float, ...], says: str) -> None:
    values = np.linspace(-1000, 1000, 60).astype(np.int16).reshape(3, 4, 5)
    image = nib.Nifti1Image(values, np.diag([*steps, 1]))
    nib.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=says):
        read_scan(tmp_path / "a.nii.gz")


def test_a_window_with_such_distances(tmp_path: Path) -> None:
    (tmp_path / "window.json").write_text('{"pixel_mm": 1e-6}')
    with pytest.raises(InputError, match="pixels are 1e-06 mm apart"):
        png.read_window(tmp_path)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_png_of_13000_pixels_a_side(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 13000, 13000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(13001 * 13000))
    raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(raw)
    for read in (read_scan, read_mask):
        with pytest.raises(InputError, match="has 13000 x 13000 pixels, more than the 16,777,216 that are read"):
            read(tmp_path / "a.png")


def test_many_pngs_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = tuple(tmp_path / f"a_{number:03d}.png" for number in range(1, 21))
    for path in paths:
        png.write_label(path, np.ones((8, 8), np.uint8))
    monkeypatch.setenv(limits.MAX_VOXELS, str(64 * 19))
    with pytest.raises(InputError, match="has 1,280 voxels, more than the 1,216"):
        read_mask(paths)


def test_a_shard_that_asks_for_more(tmp_path: Path) -> None:
    write_shard(tmp_path / "hu", np.ones((3, 4, 4), np.int16))
    metadata = (tmp_path / "hu" / "zarr.json").read_text()
    for wrong in ("[3000000, 4000, 4]", "[3, -4, 4]", "[3, 4]", "[true, 4, 4]", "3"):
        (tmp_path / "hu" / "zarr.json").write_text(metadata.replace("[3, 4, 4]", wrong))
        with pytest.raises(InputError):
            open_shard(tmp_path / "hu")
    (tmp_path / "hu" / "zarr.json").write_text(metadata)
    assert open_shard(tmp_path / "hu").read().sum() == 48


@pytest.mark.parametrize("packed", [False, True], ids=["header alone", "zeros"])
def test_memory_of_a_small_file_that_asks_for_much(tmp_path: Path, packed: bool) -> None:
    """A volume just within the bound on voxels, whose file cannot hold it, and zeros just beyond it."""
    if packed:
        path = tmp_path / "a.nii.gz"
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(nifti_header((1024, 1024, 300)).binaryblock + bytes(4))
            for _ in range(300):
                file.write(bytes(2**21))
    else:
        path = tmp_path / "a.nii"
        path.write_bytes(nifti_header((512, 512, 1024)).binaryblock + bytes(4))
    code = """
        import resource, sys
        from hemotorch.errors import InputError
        from hemotorch.io import read_scan
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read_scan(sys.argv[1])
        except InputError as error:
            print(error)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert ("voxels" if packed else "cut short") in lines[0]
    assert int(lines[1]) < 50_000  # kB
