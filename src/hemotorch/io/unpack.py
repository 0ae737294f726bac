"""Files before their libraries see them: what their headers ask for, and packed data unpacked no further than that."""

from __future__ import annotations

import bz2
import io
import math
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

import nibabel as nib

from hemotorch.errors import InputError
from hemotorch.system import limits

# Without these bounds a .nii.gz of 3 MB of packed zeros took 7 GB, and a header without any voxels 4 GB.
DEFLATE = 1032  #: deflate packs no more than so many bytes into one
_HEADERS = (nib.Nifti1Header, nib.Nifti2Header)
_HEADER_BYTES = 544  # of NIfTI-2, whose header is the longer one, and the four bytes behind it
_MOST_BEFORE_VOXELS = 2**24  # bytes: header and extensions; a DICOM header kept as an extension takes some 10 kB
_MOST_EXTENSIONS = 1000
_MOST_BEHIND = 2**20  # bytes after the last voxel
_PIECE = 2**20  # bytes that are read or unpacked at once
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
    header = _header(_start(path, gzipped, _HEADER_BYTES), path)
    if header is None:
        return None
    offset = _offset(header, path)
    needed = offset + _voxel_bytes(header, path)
    check_size(needed, size * DEFLATE if gzipped else size, path)
    _check_extensions(header, _start(path, gzipped, offset), path)
    return needed


def check_pair(path: Path, voxel_file_size: int) -> None:
    """The same for the header of a pair of files, whose voxels are in another one.

    Args:
        path: of the header, a regular file.
        voxel_file_size: of the other file, in bytes.

    Raises:
        InputError: as `check_header`.
    """
    header = _header(_start(path, False, _HEADER_BYTES), path)
    if header is None:
        return
    check_size(_offset(header, path) + _voxel_bytes(header, path), voxel_file_size, path)
    header_size = path.stat().st_size
    if header_size > _MOST_BEFORE_VOXELS:
        raise InputError(f"cannot be read: damaged (its header has {header_size:,} bytes)", path)
    _check_extensions(header, path.read_bytes(), path)


def check_size(needed: int, available: int, path: Path) -> None:
    """Raises InputError if a header asks for more bytes than are read, or than are there.

    Args:
        needed: bytes up to the last voxel, unpacked.
        available: bytes that the file can hold at most.
        path: of the file, for messages.
    """
    limits.check_unpacked(needed, path)
    if needed > available:
        raise _cut(path, needed, available)


def damaged(path: Path, error: BaseException) -> InputError:
    """The error of a file that a library cannot read."""
    return InputError(f"cannot be read: cut short or damaged ({_reason(error)})", path)


def damaged_header(path: Path, error: BaseException) -> InputError:
    """The error of a file whose header a library cannot read."""
    return InputError(f"cannot be read: its header is damaged ({_reason(error)})", path)


def unpacked(path: Path, needed: int | None) -> io.BytesIO:
    """A gzip file's content, its checksums verified. Raises InputError if far more follows than the `needed` bytes."""
    with open(path, "rb") as file:
        return collected(gzip_pieces(file), needed or 0, path)


def collected(pieces: Iterable[bytes], needed: int, path: Path) -> io.BytesIO:
    """Pieces of unpacked data in one.

    Args:
        pieces: from `gzip_pieces` or `bzip2_pieces`.
        needed: bytes that the header asks for.
        path: of the file, for messages.

    Raises:
        InputError: if there are fewer, or far more.
    """
    # A little behind the last voxel is passed over.
    most = needed + _MOST_BEHIND
    content = io.BytesIO()
    for piece in pieces:
        content.write(piece)
        if content.tell() > most:
            what = f"unpacks to more than the {most / 1e6:.1f} MB that its header asks for"
            raise InputError(what, path, "it is damaged or no image")
    if content.tell() < needed:
        raise _cut(path, needed, content.tell())
    content.seek(0)
    return content


def gzip_pieces(file: IO[bytes]) -> Iterator[bytes]:
    """What follows in a file, gzip unpacked piece by piece, member after member.

    Raises:
        EOFError: if it is cut.
        zlib.error: if it is damaged.
    """
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


def bzip2_pieces(file: IO[bytes]) -> Iterator[bytes]:
    """What follows in a file, one bzip2 stream unpacked piece by piece. Raises EOFError if cut, OSError if damaged."""
    stream = bz2.BZ2Decompressor()
    while not stream.eof:
        packed = b""
        if stream.needs_input:
            packed = file.read(_PIECE)
            if not packed:
                raise EOFError("the compressed data end too early")
        yield stream.decompress(packed, _PIECE)


def _header(start: bytes, path: Path) -> Any:
    """The NIfTI header that a file starts with, or None."""
    for kind in _HEADERS:
        if kind.may_contain_header(start[: kind.sizeof_hdr]):
            try:
                return kind(start[: kind.sizeof_hdr], check=False)
            except nib.spatialimages.HeaderDataError as error:
                raise damaged_header(path, error) from error
    return None


def _offset(header: Any, path: Path) -> int:
    """Byte of the first voxel. Raises InputError if no writer puts it there."""
    offset = float(header["vox_offset"])
    if not 0 <= offset <= _MOST_BEFORE_VOXELS:
        what = f"byte {offset:.0f}" if math.isfinite(offset) else f"a byte that is no number ({offset})"
        raise InputError(f"cannot be read: damaged (its header puts the voxels at {what})", path)
    return int(header.get_data_offset())


def _voxel_bytes(header: Any, path: Path) -> int:
    """Bytes of all voxels together. Raises InputError if they are more than are read."""
    try:
        shape = [int(length) for length in header.get_data_shape()]
        voxel_bytes = int(header.get_data_dtype().itemsize)
    except (nib.spatialimages.HeaderDataError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise damaged_header(path, error) from error
    if shape and min(shape) < 0:
        named = " x ".join(map(str, shape))
        raise InputError(f"cannot be read: damaged (its header gives a volume of {named} voxels)", path)
    limits.check_voxels(shape, path)
    return math.prod(shape) * voxel_bytes


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
    with open(path, "rb") as file:
        for piece in gzip_pieces(file):
            start += piece
            if len(start) >= length:
                break
    return start[:length]


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _cut(path: Path, needed: int, there: int) -> InputError:
    return InputError(
        f"cannot be read: cut short or damaged ({needed:,} bytes asked for, at most {there:,} there)", path
    )
