"""NRRD to Scan: a header with its voxels (.nrrd), or with the voxels in a file beside it (.nhdr).

pynrrd reads the header. The voxels are read here, so that a header is compared with its file, and with what is allowed
at all, before anything is unpacked: pynrrd unpacks to the end, however far that is.
"""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

from hemotorch.errors import InputError
from hemotorch.io.affines import fault
from hemotorch.io.unpack import DEFLATE, bzip2_pieces, check_size, collected, damaged, damaged_header, gzip_pieces
from hemotorch.io.values import labels
from hemotorch.io.volume import VoxelGrid, mask_from_volume, scan_from_volume, without_suffix
from hemotorch.scan import Scan
from hemotorch.system import limits
from hemotorch.system.files import regular_file

NAME = "nrrd"
TITLE = "NRRD"
SUFFIXES: tuple[str, ...] = (".nrrd", ".nhdr")
ONE_FILE_PER_SLICE = False

#: What turns the three axes of a space into right, front and head. Other spaces do not say where the patient's left is.
_SIGNS_TO_RAS = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
_MM = ("", "none", "mm", "millimeter", "millimeters", "millimetre", "millimetres")
_TEXT = ("ascii", "text", "txt")
_GZIP = ("gzip", "gz")
_BZIP2 = ("bzip2", "bz2")
_ENCODINGS = ("raw", *_TEXT, *_GZIP, *_BZIP2)
_MOST_HEADER = 2**20  # bytes; 3D Slicer writes some hundred for each segment
_BZIP2_RATIO = 2**21  # at most: a GB of zeros becomes some 750 bytes
_PIECE = 2**20
_DATA_LIST = re.compile(rb"data ?file:\s*LIST", re.IGNORECASE)


#: Of a header, by name, as pynrrd parses them.
Fields = Mapping[str, Any]


@dataclass(frozen=True)
class _Header:
    """What a header says of its voxels.

    grid: their shape and affine.
    dtype: of a stored value.
    encoding: one of `_ENCODINGS`.
    data_path: the file that they are in.
    offset: byte of that file at which they start, before anything is skipped.
    skipped_lines: that follow and are not voxels.
    skipped_bytes: that follow then, after unpacking; -1 if the voxels are the last thing there.
    warnings: about the header.
    """

    grid: VoxelGrid
    dtype: np.dtype
    encoding: str
    data_path: Path
    offset: int
    skipped_lines: int
    skipped_bytes: int
    warnings: tuple[str, ...]


def files_of(path: Path) -> tuple[Path, ...]:
    """The file, and the one that its header names for the voxels."""
    try:
        return _files(path, _open(path))
    except InputError:
        return (path,)


def read_scan(files: Sequence[Path]) -> Scan:
    """Reads an NRRD volume of HU, in any orientation, into Scan's order.

    Values and slice numbers are treated as those of NIfTI.

    Args:
        files: one file.

    Raises:
        InputError: for a file that is missing, cut, no NRRD, more than one volume, has no usable affine, or whose
            values are not HU; and if pynrrd is not installed.
    """
    path = files[0]
    header = _open(path)
    return scan_from_volume(
        _voxels(header, path),
        header.grid,
        without_suffix(path, SUFFIXES),
        NAME,
        _files(path, header),
        unsigned=header.dtype.kind == "u",
        warnings=header.warnings,
    )


def read_mask(files: Sequence[Path], scan: Scan | None = None) -> tuple[np.ndarray, list[str]]:
    """Reads a mask into Scan's order.

    Args:
        files: one file.
        scan: that the mask was drawn on, or None if that is not known.

    Returns:
        (slices, rows, columns) uint8, the file's own values; and warnings about values that had to be rounded.

    Raises:
        InputError: as `read_scan`, for values that are not whole numbers from 0 to 255, and if the mask has another
            shape or position than the scan.
    """
    path = files[0]
    header = _open(path)
    values, doubts = labels(_voxels(header, path), None, path)
    return mask_from_volume(values, header.grid, scan, path), doubts


def slice_numbers(files: Sequence[Path]) -> tuple[int, ...]:
    """The file's own number of each slice, foot to head, from its header alone. Raises InputError as `read_scan`."""
    return _open(files[0]).grid.slice_numbers()


def _files(path: Path, header: _Header) -> tuple[Path, ...]:
    if header.data_path == path:
        return (path,)
    return path, header.data_path


def _open(path: Path) -> _Header:
    """The header of a file, checked against the size of the file that holds the voxels."""
    regular_file(path, "NRRD file")
    pynrrd = _pynrrd(path)
    try:
        with open(path, "rb") as file:
            lines = _header_lines(file, path)
            end_of_header = file.tell()
        fields = pynrrd.read_header(lines)
        encoding = _encoding(fields, path)
        dtype = _dtype(fields, encoding, pynrrd, path)
        grid, header_warnings = _grid(fields, path)
        skipped_lines = int(_field(fields, "line skip", 0))
        skipped_bytes = int(_field(fields, "byte skip", 0))
    except InputError:
        raise
    except Exception as error:  # pynrrd's are of many kinds: whatever a line that is no field leads to
        raise damaged_header(path, error) from error
    if skipped_lines < 0 or skipped_bytes < -1:
        raise InputError("cannot be read: its header is damaged (it skips less than nothing)", path)
    data_path = _data_path(fields, path)
    offset = end_of_header if data_path == path else 0
    return _Header(grid, dtype, encoding, data_path, offset, skipped_lines, skipped_bytes, tuple(header_warnings))


def _pynrrd(path: Path) -> ModuleType:
    """The library. Raises InputError if it is not installed."""
    try:
        import nrrd
    except ImportError as error:
        todo = "install it with: pip install 'hemotorch[nrrd]'"
        raise InputError("is NRRD, which is read with the package pynrrd, and that is not here", path, todo) from error
    return nrrd


def _header_lines(file: IO[bytes], path: Path) -> list[bytes]:
    """The lines up to the empty one that ends a header. The file is left at the byte behind it."""
    first = file.readline(_MOST_HEADER)
    if not first.startswith(b"NRRD000"):
        raise InputError("is not an NRRD file", path)
    lines = [first]
    while line := file.readline(_MOST_HEADER).rstrip():
        if _DATA_LIST.match(line):
            raise _several_files(path)
        # Pairs of key:=value are remarks, often on the patient; pynrrd would take one called "type" for the field.
        if not line.partition(b":")[2].startswith(b"="):
            lines.append(line)
        if file.tell() > _MOST_HEADER:
            raise InputError(f"cannot be read: damaged (its header has more than {_MOST_HEADER:,} bytes)", path)
    return lines


def _several_files(path: Path) -> InputError:
    todo = "save it as one .nrrd file, for example with 3D Slicer"
    return InputError("its voxels are spread over several files, which is not read", path, todo)


def _field(fields: Fields, name: str, default: Any = None) -> Any:
    """A field whose name is written with a blank or without it."""
    return fields.get(name, fields.get(name.replace(" ", ""), default))


def _encoding(fields: Fields, path: Path) -> str:
    encoding = fields["encoding"].lower()
    if encoding not in _ENCODINGS:
        raise InputError(f"its encoding '{encoding}' is not read", path, "save it with the encoding gzip or raw")
    return str(encoding)


def _dtype(fields: Fields, encoding: str, pynrrd: ModuleType, path: Path) -> np.dtype:
    """The type of a stored value."""
    if fields["type"] == "block":
        raise InputError("holds blocks of bytes, not one number per voxel", path)
    # pynrrd knows the many names of types, and when an order of bytes is needed: a volume of one voxel tells.
    one_voxel = {"type": fields["type"], "encoding": "raw", "dimension": 1, "sizes": np.ones(1, int)}
    content = bytes(64)
    if "endian" in fields:
        one_voxel["endian"] = fields["endian"]
    if encoding in _TEXT:
        one_voxel["encoding"] = "text"
        content = b"0"
    dtype: np.dtype = pynrrd.read_data(one_voxel, io.BytesIO(content)).dtype
    return dtype


def _grid(fields: Fields, path: Path) -> tuple[VoxelGrid, list[str]]:
    """Shape and affine of the volume, and warnings. Raises InputError if there is no usable one."""
    sizes = [int(size) for size in fields["sizes"]]
    if len(sizes) != int(fields["dimension"]) or min(sizes, default=0) < 1:
        named = " x ".join(map(str, sizes))
        raise InputError(f"cannot be read: its header is damaged (a volume of {named} voxels)", path)
    limits.check_voxels(sizes, path)
    directions, doubts = _directions(fields, len(sizes), path)
    axes = []
    for axis, size in enumerate(sizes):
        if np.isfinite(directions[axis]).all():
            axes.append(axis)
        elif size > 1:
            what = f"holds several numbers per voxel, or several volumes: sizes {sizes}"
            raise InputError(what, path, "give one volume")
    if len(axes) != 3:
        raise InputError(f"is {len(axes)}-D, not one volume: sizes {sizes}", path, "give one 3-D volume")
    to_ras = np.diag(_SIGNS_TO_RAS.get(_space(fields), _SIGNS_TO_RAS["lps"])).astype(float)
    affine = np.eye(4)
    affine[:3, :3] = to_ras @ directions[axes].T
    affine[:3, 3] = to_ras @ np.asarray(fields.get("space origin", np.zeros(3)), float)
    if wrong := fault(affine):
        raise InputError(f"its affine {wrong}", path, "correct the header")
    first, second, third = (sizes[axis] for axis in axes)
    return VoxelGrid((first, second, third), affine), doubts


def _space(fields: Fields) -> str:
    """The name of the space that directions and origin are in, "" if there is none."""
    return str(fields.get("space", "")).strip().lower()


def _directions(fields: Fields, dimension: int, path: Path) -> tuple[np.ndarray, list[str]]:
    """(axes of the file, 3) mm from one voxel to the next in the file's space, NaN for an axis that is not in space.

    Without an orientation the axes are taken as in DICOM, to the left, to the back and to the head, as ITK does; a
    warning says so. Raises InputError if lengths are not known, or not in mm.
    """
    for unit in fields.get("space units", fields.get("units", ())):
        if unit.strip(" ?").lower() not in _MM:
            raise InputError(f"its header gives lengths in {unit}, not in mm", path, "correct the header")
    no_orientation = "the header gives no orientation"
    space = _space(fields)
    if space and space not in _SIGNS_TO_RAS:
        no_orientation += f" (its space is '{space}')"
    doubts = []
    if space not in _SIGNS_TO_RAS or "space directions" not in fields:
        doubts.append(f"{no_orientation}: axes are taken as left, back, head, and may be swapped")
    if "space directions" in fields:
        directions = np.array(fields["space directions"], float)
        if directions.shape != (dimension, 3):
            what = f"it has {len(directions)} space directions for {dimension} axes"
            raise InputError(f"cannot be read: its header is damaged ({what})", path)
        return directions, doubts
    if "spacings" not in fields:
        raise InputError("its header gives neither space directions nor spacings", path, "correct the header")
    directions = np.full((dimension, 3), np.nan)
    spacings = np.asarray(fields["spacings"], float)
    in_space = np.isfinite(spacings)
    # Their order is that of left, back and head; more than three are refused by the caller.
    directions[in_space] = np.eye(in_space.sum(), 3) * spacings[in_space, None]
    return directions, doubts


def _data_path(fields: Fields, path: Path) -> Path:
    """The file with the voxels. Raises InputError if it is none that a header may name."""
    name = _field(fields, "data file")
    if name is None:
        return path
    if "%" in name:
        raise _several_files(path)
    # A header from elsewhere shall not make voxels of any file of this machine.
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"its voxels are in another folder ({name})", path, "put the file beside it, and correct it")
    data_path = path.parent / name
    regular_file(data_path, "file of voxels")
    return data_path


def _voxels(header: _Header, path: Path) -> np.ndarray:
    """The volume in the file's axis order and type."""
    shape = header.grid.shape
    count = int(np.prod(shape, dtype=object))
    try:
        with open(header.data_path, "rb") as file:
            file.seek(header.offset)
            _skip_lines(file, header.skipped_lines)
            if header.encoding in _TEXT:
                values = _text_values(file, header, count)
            else:
                content = _content(file, header, count * header.dtype.itemsize)
                values = np.frombuffer(content, header.dtype, count)
    except (OSError, EOFError, ValueError, OverflowError, MemoryError, DeprecationWarning, zlib.error) as error:
        raise damaged(path, error) from error
    # The first axis changes fastest.
    return values.reshape(shape[::-1]).T


def _skip_lines(file: IO[bytes], count: int) -> None:
    """Reads past so many lines, piece by piece, since a line of voxels may be the whole file."""
    while count > 0 and (piece := file.readline(_PIECE)):
        count -= piece.endswith(b"\n")


def _text_values(file: IO[bytes], header: _Header, count: int) -> np.ndarray:
    """Numbers as text; each takes two bytes at least, with the blank before it."""
    size = _remaining(file)
    limits.check_unpacked(size, header.data_path)
    check_size(max(1, 2 * count - 1), size, header.data_path)
    file.seek(max(0, header.skipped_bytes), io.SEEK_CUR)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # text that is no number
        return np.fromstring(file.read(), header.dtype, count, sep=" ")


def _content(file: IO[bytes], header: _Header, needed: int) -> memoryview:
    """The bytes of the voxels, unpacked no further than the header asks for."""
    size = _remaining(file)
    at_the_end = header.skipped_bytes == -1
    skipped = max(0, header.skipped_bytes)
    if header.encoding == "raw":
        check_size(skipped + needed, size, header.data_path)
        file.seek(size - needed if at_the_end else skipped, io.SEEK_CUR)
        return memoryview(file.read(needed))
    if header.encoding in _GZIP:
        check_size(skipped + needed, size * DEFLATE, header.data_path)
        pieces = gzip_pieces(file)
    else:
        check_size(skipped + needed, size * _BZIP2_RATIO, header.data_path)
        pieces = bzip2_pieces(file)
    content = collected(pieces, skipped + needed, header.data_path).getbuffer()
    start = len(content) - needed if at_the_end else skipped
    return content[start : start + needed]


def _remaining(file: IO[bytes]) -> int:
    """Bytes from here to the end of a file."""
    start = file.tell()
    end = file.seek(0, io.SEEK_END)
    file.seek(start)
    return end - start
