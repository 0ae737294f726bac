"""Reads what `torch.save` wrote, running none of its code and allocating no more than the file itself holds.

`torch.load(weights_only=True)` runs no foreign code either, but it believes sizes. All memory is taken by an entry that
zip packed to nothing, a tensor of one stored number repeated 10**12 times, or a pickle that asks for a list of 2**31
entries. Here the pickle is walked through first, and each tensor's shape is compared with what is stored before it is
made.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

MOST_PICKLE = 2**24  #: bytes of the structure around the tensors; a checkpoint of 1,000 tensors has 150 kB
MOST_VALUES = 10**6  #: dictionaries, lists, numbers and tensors, each counted as often as it occurs
DEEPEST = 50  #: levels of nesting

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_PLAIN = (str, int, float, bool, bytes, type(None))
_FOLDER = 0x10  # MS-DOS attribute of a zip entry


class TensorFileError(ValueError):
    """What is wrong with the file, in words for the user."""


class ForeignCode(TensorFileError):
    """The file names something else than tensors, numbers, text and collections of them."""


@dataclass(frozen=True)
class _Type:
    """Stands for a storage's type in the pickle."""

    dtype: torch.dtype


@dataclass(frozen=True)
class _Stored:
    """A storage: an entry of the archive that holds `count` numbers. Nothing of it is known to be true yet."""

    type: Any
    key: Any
    count: Any


class _View:
    """A tensor: the part of a storage that it shows. The rest of what torch writes says how it was trained."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride


def read(path: Path, most_bytes: int) -> Any:
    """Reads dictionaries, lists, numbers, text and tensors.

    Args:
        path: a regular file.
        most_bytes: that all tensors together may have, each counted whole if several share a storage.

    Returns:
        What was saved; tensors are on the CPU.

    Raises:
        TensorFileError: if the file is damaged, or asks for more than it holds.
        ForeignCode: if it holds anything else.
        OSError: if the disk fails.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            prefix = _check_entries(archive, path, most_bytes)
            damaged = archive.testzip()
            if damaged:
                raise TensorFileError(f"is damaged ({damaged} in it is)")
            structure = archive.read(f"{prefix}/data.pkl")
            _check_pickle(structure)
            value = _Reader(io.BytesIO(structure)).load()
            _check_values(value)
            return _Builder(archive, prefix, most_bytes).build(value)
    except (OSError, MemoryError, TensorFileError):
        raise
    except Exception as error:  # a damaged archive or pickle can raise nearly anything
        raise TensorFileError("is cut, damaged or not a checkpoint") from error


def _check_entries(archive: zipfile.ZipFile, path: Path, most_bytes: int) -> str:
    """The folder in the archive that holds all of it. torch stores entries as they are: none is packed."""
    entries = archive.infolist()
    names = {entry.filename for entry in entries}
    total = 0
    for entry in entries:
        if entry.external_attr & _FOLDER:
            # torch itself would not read it, and hand out memory that nobody wrote.
            raise TensorFileError(f"is damaged ({entry.filename} in it is)")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.flag_bits & 1:
            raise TensorFileError(f"holds a packed or encrypted entry ({entry.filename}), which torch never writes")
        total += entry.file_size
    if total > path.stat().st_size or len(names) < len(entries):
        raise TensorFileError("holds entries that lie upon each other")
    if total > most_bytes:
        raise TensorFileError(f"holds {total / 1e9:.1f} GB, more than the {most_bytes / 1e9:.1f} GB that are read")
    structures = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(structures) != 1:
        raise TensorFileError("is cut, damaged or not a checkpoint")
    if archive.getinfo(structures[0]).file_size > MOST_PICKLE:
        raise TensorFileError("holds a structure larger than any checkpoint's")
    prefix = structures[0].removesuffix("/data.pkl")
    order = f"{prefix}/byteorder"
    if order in names and archive.read(order) != b"little":
        raise TensorFileError("was written on a big-endian machine, which is not read")
    return prefix


def _check_pickle(structure: bytes) -> None:
    """Python's own reader makes a list as long as the largest index that a pickle names, without looking."""
    for code, argument, _ in pickletools.genops(structure):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(structure):
            raise TensorFileError("is damaged (its structure is)")


def _check_values(value: Any) -> None:
    """A list of ten times itself, ten levels deep, is short to write and takes for ever to walk through."""
    count = 0
    level = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for entry in level:
            if isinstance(entry, dict):
                below.extend(entry.keys())
                below.extend(entry.values())
            elif isinstance(entry, (list, tuple, set, frozenset)):
                below.extend(entry)
            count += 1
            if count + len(below) > MOST_VALUES:
                raise TensorFileError("holds more values than any checkpoint")
        level = below
        if not level:
            return
    raise TensorFileError("is nested more deeply than any checkpoint")


class _Reader(pickle.Unpickler):
    """Reads the structure; tensors are only described, since a pickle may change what it has made before."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _View
        if module == "torch" and name in _DTYPES:
            return _Type(_DTYPES[name])
        raise ForeignCode(f"holds {module}.{name}"[:80] + ", which is not loaded as it could run code")

    def persistent_load(self, pid: Any) -> _Stored:
        _kind, storage_type, key, _device, count = pid
        return _Stored(storage_type, key, count)


class _Builder:
    """Turns a structure into one with tensors, which are read from the archive."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str, most_bytes: int):
        self._archive, self._prefix, self._most_bytes = archive, prefix, most_bytes
        self._bytes = 0
        self._storages: dict[str, torch.Tensor] = {}

    def build(self, value: Any) -> Any:
        """The value with its tensors; dictionaries and lists stay the same ones."""
        if type(value) is _View:
            return self._tensor(value)
        if isinstance(value, dict):
            for key in value:
                self._check_plain(key)
                value[key] = self.build(value[key])
            return value
        if type(value) is list:
            value[:] = [self.build(entry) for entry in value]
            return value
        if type(value) is tuple:
            return tuple(self.build(entry) for entry in value)
        if not isinstance(value, torch.Tensor):  # one that occurs twice is built already
            self._check_plain(value)
        return value

    @staticmethod
    def _check_plain(value: Any) -> None:
        if type(value) not in _PLAIN or (type(value) is int and not -(2**64) < value < 2**64):
            raise TensorFileError("is damaged (it holds something else than tensors, numbers and text)")

    def _tensor(self, view: _View) -> torch.Tensor:
        """A tensor on its storage, unless it reaches beyond it or repeats what is stored."""
        offset, size, stride = view.offset, tuple(view.size), tuple(view.stride)
        natural = all(type(number) is int and number >= 0 for number in (offset, *size, *stride))
        if not natural or len(size) != len(stride) or len(size) > 8:
            raise TensorFileError("is damaged (a tensor in it is)")
        storage = self._storage(view.storage)
        if 0 in size:
            return torch.empty(size, dtype=storage.dtype)
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if last >= storage.numel() or math.prod(size) > storage.numel():
            raise TensorFileError("is damaged (a tensor in it is larger than what is stored)")
        # A small file may hold a million tensors that all show one storage, and whoever copies them takes all memory.
        self._bytes += math.prod(size) * storage.itemsize
        if self._bytes > self._most_bytes:
            raise TensorFileError(f"holds tensors of more than the {self._most_bytes / 1e9:.1f} GB that are read")
        return storage.as_strided(size, stride, offset)

    def _storage(self, stored: _Stored) -> torch.Tensor:
        """A storage: all its numbers, one after the other."""
        dtype = stored.type.dtype
        if stored.key not in self._storages:
            content = bytearray(self._archive.read(f"{self._prefix}/data/{stored.key}"))
            numbers = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            self._storages[stored.key] = numbers
        storage = self._storages[stored.key]
        if storage.dtype != dtype or storage.numel() != stored.count:
            raise TensorFileError("is damaged (a tensor in it has another size than is stored)")
        return storage
