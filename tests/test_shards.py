"""Zarr shards: the zarr package reads ours, we read its, and damage is noticed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from hemotorch.data.shards import _crc32c, group_metadata, open_shard, write_shard
from hemotorch.errors import InputError


def stack(dtype: str, shape: tuple[int, int, int] = (7, 20, 33)) -> np.ndarray:
    """Slices of smooth noise over the type's whole range, the third one empty."""
    bounds = np.iinfo(dtype)
    values = np.random.default_rng(1).integers(bounds.min, bounds.max + 1, shape).astype(dtype)
    values[2] = 0
    return values


@pytest.mark.parametrize("dtype", ["int16", "uint8"])
def test_the_zarr_package_reads_what_we_write(tmp_path: Path, dtype: str) -> None:
    values = stack(dtype)
    size = write_shard(tmp_path / "hu", values)
    (tmp_path / "zarr.json").write_text(group_metadata({"case": "049"}))
    group = zarr.open_group(tmp_path, mode="r")
    array = group["hu"]
    assert group.attrs["case"] == "049"
    assert (array.chunks, array.shards, array.dtype) == ((1, 20, 33), (7, 20, 33), np.dtype(dtype))
    np.testing.assert_array_equal(array[:], values)
    np.testing.assert_array_equal(array[4], values[4])
    assert (tmp_path / "hu/c/0/0/0").stat().st_size == size


@pytest.mark.parametrize("dtype", ["int16", "uint8"])
def test_we_read_what_the_zarr_package_writes(tmp_path: Path, dtype: str) -> None:
    values = stack(dtype)
    codec = BloscCodec(cname="lz4", clevel=9, shuffle="shuffle", typesize=values.itemsize)
    array = zarr.create_array(
        tmp_path / "hu", shape=values.shape, chunks=(1, 20, 33), shards=values.shape, dtype=dtype, compressors=codec
    )
    array[:] = values
    shard = open_shard(tmp_path / "hu")
    np.testing.assert_array_equal(shard.read(), values)
    np.testing.assert_array_equal(shard.read(1, 4), values[1:4])


def test_reads_runs_of_slices_as_new_writable_arrays(tmp_path: Path) -> None:
    values = stack("int16")
    write_shard(tmp_path / "hu", values)
    shard = open_shard(tmp_path / "hu")
    read = shard.read(2, 5)
    read[:] = 1
    np.testing.assert_array_equal(shard.read(2, 5), values[2:5])
    assert shard.read(3, 3).shape == (0, 20, 33)
    for start, stop in ((-1, 2), (0, 8), (5, 4)):
        with pytest.raises(IndexError):
            shard.read(start, stop)


def test_writes_slices_that_are_not_contiguous(tmp_path: Path) -> None:
    values = np.asfortranarray(stack("int16"))
    write_shard(tmp_path / "hu", values)
    np.testing.assert_array_equal(open_shard(tmp_path / "hu").read(), values)


def test_empty_slices_take_no_room(tmp_path: Path) -> None:
    assert write_shard(tmp_path / "mask", np.zeros((5, 64, 64), np.uint8)) == 5 * 16 + 4
    np.testing.assert_array_equal(open_shard(tmp_path / "mask").read(), 0)


def test_many_threads_read_one_shard(tmp_path: Path) -> None:
    values = stack("int16", (16, 40, 40))
    write_shard(tmp_path / "hu", values)
    shard = open_shard(tmp_path / "hu")
    with ThreadPoolExecutor(8) as pool:
        for index, read in enumerate(pool.map(lambda i: shard.read(i % 16, i % 16 + 1), range(400))):
            np.testing.assert_array_equal(read[0], values[index % 16])


def test_crc32c_of_the_standards_example() -> None:
    assert _crc32c(b"123456789") == 0xE3069283  # the check value every CRC catalogue gives for CRC-32C
    assert _crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, appendix B.4: 32 bytes of zeros


@pytest.mark.parametrize("damage", ["cut", "index", "gone", "no metadata"])
def test_damage_is_an_error_that_names_the_file(tmp_path: Path, damage: str) -> None:
    write_shard(tmp_path / "hu", stack("int16"))
    path = tmp_path / "hu/c/0/0/0"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-30])
    elif damage == "index":
        data[-20] ^= 1
        path.write_bytes(data)
    elif damage == "gone":
        path.unlink()
    else:
        (tmp_path / "hu/zarr.json").unlink()
    with pytest.raises(InputError, match=r"hu.*prepare. again"):
        open_shard(tmp_path / "hu")


def test_a_damaged_slice_is_an_error_and_the_others_are_read(tmp_path: Path) -> None:
    values = stack("int16")
    write_shard(tmp_path / "hu", values)
    path = tmp_path / "hu/c/0/0/0"
    data = bytearray(path.read_bytes())
    data[:16] = bytes(16)  # the header of the first slice's chunk
    path.write_bytes(data)
    shard = open_shard(tmp_path / "hu")
    np.testing.assert_array_equal(shard.read(1), values[1:])
    with pytest.raises(InputError, match="damaged"):
        shard.read(0, 1)


def test_an_array_stored_in_another_way_is_refused(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "hu", shape=(2, 8, 8), chunks=(1, 8, 8), shards=(2, 8, 8), dtype="int16", compressors=ZstdCodec()
    )
    array[:] = 1
    with pytest.raises(InputError, match="another way"):
        open_shard(tmp_path / "hu")
    metadata = json.loads((tmp_path / "hu/zarr.json").read_text())
    metadata["data_type"] = "float32"
    (tmp_path / "hu/zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError):
        open_shard(tmp_path / "hu")
