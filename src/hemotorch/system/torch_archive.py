"""What a file of `torch.save` holds, found out from its sizes and shapes before any of it is built.

A file of some kB can ask for all memory: by compressed entries, by a tensor of 10^12 elements that are all one, by
lists that hold each other. `torch.load` builds these, and where a storage is said to be longer than its entry it reads
memory that is not the file's. So the pickle in it is gone through once with stand-ins for torch's classes.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PICKLE_BYTES = 64 * 1024**2  #: of all that is not a tensor; in our checkpoints some 100 kB
MOST_VALUES = 1_000_000  #: numbers, words, lists and tensors, counted as often as they are reached
DEEPEST = 64  #: lists in lists
#: Two names for one tensor share a storage: a run's weights stand up to three times in last.pt.
SHARED = 4

#: Bytes of an element of the storages that our checkpoints have.
STORAGES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1,
}  # fmt: skip


class ForeignClass(Exception):
    """The file names a class or function that a checkpoint does not need, and that could run code."""


class DamagedArchive(Exception):
    """The file is not what torch.save writes; the text says in what."""


@dataclass(frozen=True)
class _Storage:
    elements: int
    itemsize: int


@dataclass(frozen=True)
class _Tensor:
    nbytes: int


def check_archive(path: Path) -> None:
    """Goes through a file of `torch.save` without building what it holds.

    Args:
        path: the file.

    Raises:
        ForeignClass: it names a class or function that is not a tensor's or a dictionary's.
        DamagedArchive: an entry is damaged or compressed, or a tensor has more elements than its entry.
        OSError, MemoryError: the disk's or the machine's fault.
        Exception: anything else, from a damaged zip file or pickle.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        _check_entries(entries, size)
        if damaged := archive.testzip():
            raise DamagedArchive(f"{damaged} in it is damaged")
        pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > PICKLE_BYTES:
            raise DamagedArchive("it has no data.pkl, or too long a one")
        folder = pickles[0].filename.removesuffix("data.pkl")
        lengths = {entry.filename.removeprefix(f"{folder}data/"): entry.file_size for entry in entries}
        values = _StandIns(archive.read(pickles[0]), lengths).load()
    if _tensor_bytes(values) > SHARED * size:
        raise DamagedArchive("its tensors are larger than the file")


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Raises DamagedArchive unless the entries are stored as they are, each once, side by side in `size` bytes."""
    names = {entry.filename for entry in entries}
    if len(names) < len(entries):
        raise DamagedArchive("an entry stands twice in it")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise DamagedArchive(f"{entry.filename} in it is compressed")
        # An entry marked as a folder is not read by torch, which then hands out memory that nobody wrote.
        if entry.external_attr & 0x10:
            raise DamagedArchive(f"{entry.filename} in it is marked as a folder")
    if sum(entry.file_size for entry in entries) > size:
        raise DamagedArchive("its entries are larger than the file")


class _StandIns(pickle._Unpickler):
    """Builds numbers, words, lists and dictionaries, and for storages and tensors what says how large they are.

    Python's own, not C's: that one takes memory for as many remembered values as a pickle claims to have.
    """

    def __init__(self, data: bytes, lengths: dict[str, int]):
        super().__init__(io.BytesIO(data))
        self._lengths = lengths

    def find_class(self, module: str, name: str) -> Any:
        """Our stand-in for a class of torch, or OrderedDict. Raises ForeignClass."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in STORAGES:
            return name
        raise ForeignClass(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage, if its entry in the archive is as long as it is said to be."""
        kind, name, key, _, elements = pid
        if kind != "storage" or type(elements) is not int or name not in STORAGES:
            raise DamagedArchive("a storage in it is not a tensor's")
        itemsize = STORAGES[name]
        if elements < 0 or self._lengths.get(key) != elements * itemsize:
            raise DamagedArchive(f"storage {str(key)[:20]} in it has another length than it says")
        return _Storage(elements, itemsize)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """Stands for torch's function of that place. Raises DamagedArchive if the tensor does not lie in its storage."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides) or len(shape) > DEEPEST:
        raise DamagedArchive("a tensor in it has no storage or shape")
    if any(type(number) is not int or number < 0 for number in numbers):
        raise DamagedArchive("a tensor in it has a shape that is none")
    elements, last = 1, offset
    for length, stride in zip(shape, strides, strict=True):
        elements *= length
        last += max(0, length - 1) * stride
    if elements > storage.elements or (elements and last >= storage.elements):
        raise DamagedArchive("a tensor in it is larger than its storage")
    return _Tensor(elements * storage.itemsize)


def _tensor_bytes(values: Any) -> int:
    """Bytes of all tensors. Raises DamagedArchive if there are too many values, as in lists that hold each other."""
    total, count, level, depth = 0, 0, [values], 0
    while level:
        depth, below = depth + 1, []
        for value in level:
            if isinstance(value, _Tensor):
                total += value.nbytes
            elif isinstance(value, dict):
                below += [*value.keys(), *value.values()]
            elif isinstance(value, (list, tuple, set, frozenset)):
                below += value
            if len(below) > MOST_VALUES:
                break
        count += len(below)
        if count > MOST_VALUES or depth > DEEPEST:
            raise DamagedArchive("it holds too many values")
        level = below
    return total
