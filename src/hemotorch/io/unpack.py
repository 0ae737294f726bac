"""NIfTI files before nibabel sees them: how much their headers ask for, and gzip unpacked no further than that."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import nibabel as nib

from hemotorch.errors import InputError
from hemotorch.system import limits

_HEADERS = (nib.Nifti1Header, nib.Nifti2Header)
_HEADER_BYTES = 544  # of NIfTI-2, whose header is the longer one, and the four bytes behind it
_MOST_BEFORE_VOXELS = 2**24  # bytes: header and extensions; a DICOM header kept as an extension takes some 10 kB
_MOST_EXTENSIONS = 1000
_MOST_BEHIND = 2**20  # bytes after the last voxel
_PIECE = 2**20  # bytes that are read or unpacked at once
_DEFLATE = 1032  # deflate packs no more than so many bytes into one
_GZIP = 16 + zlib.MAX_WBITS


def check_header(path: Path, size: int, gzipped: bool) -> int | None:
    """Looks at a NIfTI header before anything is allocated for it.

    Args:
        path: a regular file.
        size: its size in bytes.
        gzipped: whether it is compressed.

    Returns:
        The bytes up to its last voxel, unpacked; None if there is no NIfTI header.

    Raises:
        InputError: if it asks for more voxels or bytes than are read, or than a file of this size can hold, or if its
            extensions do not lie between header and voxels.
    """
    start = _start(path, gzipped, _HEADER_BYTES)
    needed = None
    for kind in _HEADERS:
        if kind.may_contain_header(start[: kind.sizeof_hdr]):
            try:
                header = kind(start[: kind.sizeof_hdr], check=False)
                shape, offset = tuple(map(abs, header.get_data_shape())), int(header.get_data_offset())
                voxel_bytes = header.get_data_dtype().itemsize
            except (nib.spatialimages.HeaderDataError, ArithmeticError, LookupError, TypeError, ValueError) as error:
                raise InputError(f"cannot be read: its header is damaged ({error})", path) from error
            limits.check_voxels(shape, path)
            needed = offset + math.prod(shape) * voxel_bytes
            _check_size(needed, offset, size * _DEFLATE if gzipped else size, path)
            _check_extensions(header, _start(path, gzipped, offset), path)
    return needed


def unpacked(path: Path, needed: int | None) -> io.BytesIO:
    """A gzip file's content, its checksums verified. Raises InputError if far more follows than the `needed` bytes."""
    most = (needed or 0) + _MOST_BEHIND
    content = io.BytesIO()
    for piece in _pieces(path):
        content.write(piece)
        if content.tell() > most:
            what = f"unpacks to more than the {most / 1e6:.1f} MB that its header asks for"
            raise InputError(what, path, "it is damaged or no image")
    if content.tell() < (needed or 0):
        raise _cut(path, needed or 0, content.tell())
    content.seek(0)
    return content


def _check_size(needed: int, offset: int, most: int, path: Path) -> None:
    """needed: bytes up to the last voxel; offset: of the first; most: bytes that the file can hold."""
    if not 0 <= offset <= _MOST_BEFORE_VOXELS:
        raise InputError(f"cannot be read: damaged (its header puts the voxels at byte {offset})", path)
    limits.check_unpacked(needed, path)
    if needed > most:
        raise _cut(path, needed, most)


def _check_extensions(header: Any, before_voxels: bytes, path: Path) -> None:
    """An extension starts with its own length, which nibabel believes and asks the file for."""
    end = header.sizeof_hdr + 4
    if len(before_voxels) < end or before_voxels[header.sizeof_hdr] == 0:
        return
    order: Literal["little", "big"] = "little" if header.endianness == "<" else "big"
    count = 0
    while len(before_voxels) - end >= 16:
        length = int.from_bytes(before_voxels[end : end + 4], order, signed=True)
        end += length
        count += 1
        if length < 8 or end > len(before_voxels) or count > _MOST_EXTENSIONS:
            raise InputError("cannot be read: damaged (its header extensions do not fit)", path)


def _start(path: Path, gzipped: bool, length: int) -> bytes:
    if not gzipped:
        with open(path, "rb") as file:
            return file.read(length)
    start = b""
    for piece in _pieces(path):
        start += piece
        if len(start) >= length:
            break
    return start[:length]


def _pieces(path: Path) -> Iterator[bytes]:
    """A gzip file unpacked piece by piece, member after member. Raises EOFError if it is cut, zlib.error if damaged."""
    with open(path, "rb") as file:
        packed = file.read(_PIECE)
        while packed:
            member = zlib.decompressobj(_GZIP)
            while not member.eof:
                packed = packed or file.read(_PIECE)
                if not packed:
                    raise EOFError("the compressed data end too early")
                yield member.decompress(packed, _PIECE)
                packed = member.unconsumed_tail
            # Some tapes and tools pad a member with zeros.
            packed = member.unused_data.lstrip(b"\0")
            while not packed and (more := file.read(_PIECE)):
                packed = more.lstrip(b"\0")


def _cut(path: Path, needed: int, there: int) -> InputError:
    return InputError(
        f"cannot be read: cut short or damaged ({needed:,} bytes asked for, at most {there:,} there)", path
    )
