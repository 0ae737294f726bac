"""A stack of slices as one Zarr v3 array: one chunk per slice, all chunks in one shard file.

Any Zarr v3 reader opens these arrays; the tests do, with the zarr package. They are written and read here without it,
because its calls pass through one event-loop thread: with two threads on two cores, a 512x512 slice took 1.5 ms to
write and 2.8 ms to read with zarr 3.1, 0.5 ms and 0.3 ms here (`benchmarks/prepare.py --formats`). Without that thread,
reading is safe in forked processes as well.
Format: zarr-specs v3, codecs sharding_indexed 1.0, bytes 1.0, blosc 1.0, crc32c 1.0.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numcodecs import blosc

from hemotorch.errors import InputError
from hemotorch.system import limits
from hemotorch.system.files import text_file

#: Measured on head-ct-nifti, 28 slices of 512x512, 14.7 MB, ms per slice on one core: lz4 level 9, byte shuffle, packs
#: to 5.8 MB in 0.5 and unpacks in 0.13; zstd level 1 to 5.0 MB in 1.7 and 0.6; zstd level 3 to 4.7 MB in 4. Slices are
#: read again every epoch, so that speed is worth a sixth more disk.
_PACKER = blosc.Blosc(cname="lz4", clevel=9, shuffle=blosc.SHUFFLE)
_EMPTY = 2**64 - 1  # offset and length of a chunk that is left out, because it holds only the fill value, 0
_DTYPES: dict[str, np.dtype] = {"int16": np.dtype("<i2"), "uint8": np.dtype("u1")}
#: `prepare` looks at sizes only, and would take what is damaged for done.
REPLACE = "remove it and run `hemotorch prepare` again"

blosc.use_threads = False  # blosc's own threads share one lock; ours compress side by side


@dataclass(frozen=True, eq=False)
class Shard:
    """An array of slices on disk, opened.

    shape: (slices, rows, columns). chunks: (slices, 2) uint64, offset and length of each slice in the file.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    chunks: np.ndarray

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Slices start to stop, (stop - start, rows, columns), a new array. Threads may read at the same time.

        Raises InputError if the file is damaged.
        """
        stop = self.shape[0] if stop is None else stop
        if not 0 <= start <= stop <= self.shape[0]:
            raise IndexError(f"slices {start} to {stop} of {self.shape[0]}")
        out = np.zeros((stop - start, *self.shape[1:]), self.dtype)
        try:
            with open(self.path, "rb", buffering=0) as file:
                for values, (offset, length) in zip(out, self.chunks[start:stop].tolist(), strict=True):
                    if offset != _EMPTY:
                        file.seek(offset)
                        _PACKER.decode(_packed(file, length), values)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError("cannot be read: cut short or damaged", self.path, REPLACE) from error
        return out


def _packed(file: BinaryIO, length: int) -> bytes:
    """A packed slice; blosc believes the length that stands in it, and would read on behind a shorter one."""
    if length > os.fstat(file.fileno()).st_size:
        raise ValueError("a slice is longer than the file")
    packed = file.read(length)
    if len(packed) < 16 or int.from_bytes(packed[12:16], "little") != len(packed):
        raise ValueError("a slice has another length than it says")
    return packed


def write_shard(folder: Path, values: np.ndarray) -> int:
    """Writes (slices, rows, columns) int16 or uint8 as a Zarr array in `folder`, and returns the shard's bytes.

    Not atomic, and nothing is synced: write into a temporary folder, move it, and check the size before relying on it.
    """
    name = next(name for name, dtype in _DTYPES.items() if dtype == values.dtype)
    shard = folder / "c" / "0" / "0" / "0"
    shard.parent.mkdir(parents=True)
    chunks = np.full((len(values), 2), _EMPTY, "<u8")
    with open(shard, "wb") as file:
        for chunk, slice_values in zip(chunks, values, strict=True):
            if slice_values.any():
                packed = _PACKER.encode(np.ascontiguousarray(slice_values))
                chunk[:] = file.tell(), len(packed)
                file.write(packed)
        index = chunks.tobytes()
        file.write(index + _crc32c(index).to_bytes(4, "little"))
        size = file.tell()
    (folder / "zarr.json").write_text(json.dumps(_metadata(values.shape, name)), encoding="utf-8")
    return size


def open_shard(folder: Path) -> Shard:
    """Opens what `write_shard` wrote. Raises InputError if it is missing, damaged, or stored in another way."""
    path = folder / "c" / "0" / "0" / "0"
    try:
        if not (folder / "zarr.json").is_file() or not path.is_file():
            raise FileNotFoundError(path)
        metadata = json.loads(text_file(folder / "zarr.json").read_text(encoding="utf-8"))
        shape, name = tuple(metadata["shape"]), metadata["data_type"]
        if len(shape) != 3 or not all(type(length) is int and length > 0 for length in shape):
            raise ValueError(f"no stack of slices has the shape {shape}")
        limits.check_voxels(shape, folder)
        if metadata["codecs"] != _metadata(shape, name)["codecs"]:
            raise InputError("is stored in another way than hemotorch does", folder, REPLACE)
        length = 16 * shape[0] + 4
        with open(path, "rb") as file:
            file.seek(-length, os.SEEK_END)
            index = file.read(length)
    except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise InputError("cannot be read: missing, cut short or damaged", path, REPLACE) from error
    if _crc32c(index[:-4]) != int.from_bytes(index[-4:], "little"):
        raise InputError("cannot be read: its index is damaged", path, REPLACE)
    return Shard(path, shape, _DTYPES[name], np.frombuffer(index[:-4], "<u8").reshape(-1, 2))


def group_metadata(attributes: dict) -> str:
    """The `zarr.json` of a group with these attributes, which must be JSON's own types."""
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}, allow_nan=False)


def _metadata(shape: tuple[int, ...], name: str) -> dict:
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    size = _DTYPES[name].itemsize
    packer = {"typesize": size, "cname": "lz4", "clevel": 9, "shuffle": "shuffle", "blocksize": 0}
    sharding = {
        "chunk_shape": [1, *shape[1:]],
        "codecs": [little if size > 1 else {"name": "bytes"}, {"name": "blosc", "configuration": packer}],
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": ["slice", "row", "column"],
        "attributes": {},
    }


def _crc_table() -> list[int]:
    """CRC-32C, Castagnoli's polynomial 0x1EDC6F41, reflected (RFC 3720, appendix B.4)."""
    table = []
    for entry in range(256):
        for _ in range(8):
            low_bit = entry & 1
            entry >>= 1
            if low_bit:
                entry ^= 0x82F63B78
        table.append(entry)
    return table


_CRC_TABLE = _crc_table()


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
