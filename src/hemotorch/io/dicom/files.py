"""Bytes of DICOM files: in a folder, or inside a zip, which is never unpacked to the disk.

A file inside a zip is called as if the zip were a folder: CD.zip/DICOM/IM0001.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from hemotorch.errors import InputError
from hemotorch.system import limits
from hemotorch.system.files import regular_file

ZIP_SUFFIX = ".zip"
ZIP_START = b"PK"
MOST_MEMBERS = 200_000  #: of one zip; a CD has some thousands
_HEADER_BYTES = 2**24  # room for headers beside the pixels of one file
_MARK = b"DICM"
_PREAMBLE = 128  # bytes before the mark
_FIRST_GROUPS = (0x0002, 0x0008)  # with which a file without preamble begins
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)
_ENCRYPTED = 1  # bit of a member's flags


def looks_like_dicom(start: bytes) -> bool:
    """Whether a file that begins with these bytes (132 or more) is DICOM, with a preamble or without one.

    Without one it begins with an element of group 2 or 8: the element's number is small, and a VR of two capital
    letters or a length that is not absurd follows.
    """
    if start[_PREAMBLE : _PREAMBLE + 4] == _MARK:
        return True
    if len(start) < 16:
        return False
    for order in ("<", ">"):
        group, element = struct.unpack(f"{order}HH", start[:4])
        if group not in _FIRST_GROUPS or element > 0x60:
            continue
        vr = start[4:6]
        if vr.isalpha() and vr.isupper():
            return True
        if struct.unpack(f"{order}I", start[4:8])[0] <= 128:
            return True
    return False


def is_dicom(path: Path | str) -> bool:
    """Whether a file is DICOM by its first bytes, whatever it is called; False if it cannot be read."""
    try:
        regular_file(path)
        with open(path, "rb") as file:
            return looks_like_dicom(file.read(_PREAMBLE + 4))
    except (InputError, OSError):
        return False


def is_zip(path: Path | str) -> bool:
    """Whether a file is called like a zip and begins like one."""
    if not str(path).lower().endswith(ZIP_SUFFIX):
        return False
    try:
        regular_file(path)
        with open(path, "rb") as file:
            return file.read(2) == ZIP_START
    except (InputError, OSError):
        return False


def on_disk(path: Path | str) -> Path:
    """The file itself, or the zip that it is in."""
    path = Path(path)
    if path.exists():
        return path
    for parent in path.parents:
        if parent.is_file():
            return parent
    return path


def open_file(path: Path) -> BinaryIO:
    """A DICOM file opened for reading, also inside a zip.

    Raises:
        InputError: if it cannot be read, or is larger than `limits` allows.
    """
    container = on_disk(path)
    try:
        if container == path:
            _check_size(regular_file(path, "DICOM file").st_size, path)
            return open(path, "rb")
        archive = _archive(container, container.stat().st_mtime_ns)
        member = archive.getinfo(path.relative_to(container).as_posix())
        return io.BytesIO(_unpacked(archive, member, path))
    except KeyError as error:
        raise InputError("is not in the zip any more", path) from error
    except _ZIP_ERRORS as error:
        raise InputError(f"cannot be read ({type(error).__name__}: {error})", path) from error


def read_start(path: Path, size: int) -> bytes:
    """The first bytes of a file, also inside a zip. Raises InputError as `open_file`."""
    container = on_disk(path)
    if container == path:
        with open_file(path) as file:
            return file.read(size)
    try:
        archive = _archive(container, container.stat().st_mtime_ns)
        with archive.open(path.relative_to(container).as_posix()) as member:
            return member.read(size)
    except (KeyError, *_ZIP_ERRORS) as error:
        raise InputError(f"cannot be read ({type(error).__name__})", path) from error


def members(path: Path) -> tuple[list[Path], dict[Path, str]]:
    """The files in a zip, as paths below it, and those that are not read with the reason.

    Nothing is unpacked to the disk, so a name with `..` could do no harm; it is refused all the same, by name.

    Raises:
        InputError: if the zip cannot be read.
    """
    try:
        archive = _archive(path, path.stat().st_mtime_ns)
    except _ZIP_ERRORS as error:
        raise InputError(f"cannot be read as a zip ({error})", path, "was it copied in full?") from error
    entries = archive.infolist()
    if len(entries) > MOST_MEMBERS:
        raise InputError(f"holds {len(entries):,} files, more than the {MOST_MEMBERS:,} that are looked at", path)
    files: list[Path] = []
    unread: dict[Path, str] = {}
    for entry in entries:
        if entry.is_dir():
            continue
        name = PurePosixPath(entry.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in entry.filename:
            unread[path / name.name] = "has a name that leads out of the zip, and is not read"
            continue
        if any(part.startswith(".") or part == "__MACOSX" for part in name.parts):
            continue
        if entry.flag_bits & _ENCRYPTED:
            unread[path / name] = "is encrypted; unpack the zip first"
            continue
        if name.as_posix() != entry.filename:  # a//b or ./b: it could not be found again
            unread[path / name] = "has a name that is no plain path"
            continue
        files.append(path / name)
    return sorted(files), unread


def unpacked_dataset(file: BinaryIO, path: Path) -> tuple[BinaryIO, bool]:
    """A file of the deflated transfer syntax with its dataset unpacked, no further than `limits` allows.

    pydicom unpacks such a dataset whatever its size; 3 MB can hold 3 GB.

    Returns:
        The file from its beginning, or its unpacked dataset alone; and whether it was deflated.
    """
    start = file.read(2048)
    file.seek(0)
    if b"1.2.840.10008.1.2.1.99" not in start[_PREAMBLE + 4 :]:
        return file, False
    # (0002,0000) UL 4: how long the rest of group 2 is, which is never deflated.
    begin = _PREAMBLE + 4
    if start[begin : begin + 8] != b"\x02\x00\x00\x00UL\x04\x00":
        raise InputError("is deflated, and its header does not say where the dataset begins", path)
    (length,) = struct.unpack("<I", start[begin + 8 : begin + 12])
    file.seek(begin + 12 + length)
    most = _most_bytes()
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(file.read(), most)
    except zlib.error as error:
        raise InputError("its deflated dataset is damaged", path) from error
    if inflater.unconsumed_tail:
        _check_size(most + 1, path)
    return io.BytesIO(data), True


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bytes:
    """A member's content. Raises InputError if it is larger than it says, or than is read."""
    _check_size(member.file_size, path)
    with archive.open(member) as file:
        # zipfile stops at the size that the directory states, so no more than that is ever unpacked.
        return file.read(member.file_size)


def _most_bytes() -> int:
    """Of one file: two for each voxel that a scan may have, and its headers."""
    return 2 * limits.max_voxels() + _HEADER_BYTES


def _check_size(size: int, path: Path) -> None:
    """Raises InputError if a file is larger than any that is read."""
    if size > _most_bytes():
        what = f"is {size / 1e9:.2f} GB long, more than the {_most_bytes() / 1e9:.2f} GB that are read of one file"
        raise InputError(what, path, f"if it is right, set --max-voxels or {limits.MAX_VOXELS} to {size // 2}")


@lru_cache(maxsize=4)
def _archive(path: Path, changed_ns: int) -> zipfile.ZipFile:
    """An open zip; its directory of thousands of names is read once, and again if the file has changed."""
    return zipfile.ZipFile(path)
