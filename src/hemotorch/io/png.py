"""8-bit PNG slices to Scan and back: a grey value goes back to HU through the window it was made with."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from hemotorch.errors import InputError
from hemotorch.hu import WINDOWS, from_grey, to_grey
from hemotorch.scan import Frame, Scan, Source, upright_scan
from hemotorch.system import limits
from hemotorch.system.files import atomic, regular_file
from hemotorch.system.records import HU, MM, read, record, write

NAME = "png"
TITLE = "PNG"
SUFFIXES: tuple[str, ...] = (".png",)
ONE_FILE_PER_SLICE = True

WINDOW_FILE = "window.json"
#: zlib level and strategy of the PNGs written. With the filter "up", a 512x512 slice of head CT in the brain window
#: takes 1.6 ms and 43 kB; Pillow 3.9 ms and 49 kB at its level 1, 11 ms and 42 kB at its default, level 6
#: (benchmarks/prepare.py).
LEVEL = 1
STRATEGY = zlib.Z_RLE
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FLATTEN = "save it without transparency (flattened), as 8-bit grey"
_UNREADABLE = (
    *(OSError, EOFError, ValueError, SyntaxError, LookupError, TypeError, OverflowError, MemoryError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
_UP = 2  # PNG's filter type: each byte minus the one above it
_SLICE_NAME = re.compile(r"(.+)_(\d{3,})")  # 049_012.png: case and slice number


@record
class PngWindow:
    """What `window.json` beside PNG folders holds: the window the greys were made with, and the spacing if known."""

    level: float = Field(default=WINDOWS["brain"].level, description="middle of the window", json_schema_extra=HU)
    width: float = Field(default=WINDOWS["brain"].width, gt=0, description="width of the window", json_schema_extra=HU)
    pixel_mm: float | None = Field(default=None, gt=0, description="one pixel's edge, if known", json_schema_extra=MM)
    slice_mm: float | None = Field(
        default=None, gt=0, description="distance between neighbouring slice numbers, if known", json_schema_extra=MM
    )


def files_of(path: Path) -> tuple[Path, ...]:
    """The PNG, and the `window.json` that turns its greys into HU, if there is one."""
    window = _window_file(path.parent)
    if window is None:
        return (path,)
    return path, window


def case_and_number(path: Path | str) -> tuple[str, int] | None:
    """("049", 12) for 049_012.png; None for a name of another kind."""
    match = _SLICE_NAME.fullmatch(Path(path).stem)
    if match is None:
        return None
    return match[1], int(match[2])


def slice_file(case: str, number: int) -> str:
    """049_012.png, for case 049 and its slice 12."""
    return f"{case}_{number:03d}.png"


def read_window(folder: Path | str) -> PngWindow | None:
    """The `window.json` of a folder of PNGs, or of the folder above it; None if there is none.

    Raises:
        InputError: if it cannot be read, or says what cannot be.
    """
    path = _window_file(Path(folder))
    if path is None:
        return None
    window = read(path, PngWindow)
    limits.check_spacing([window.pixel_mm or 1.0], [window.slice_mm or 1.0], path)
    return window


def _window_file(folder: Path) -> Path | None:
    for candidate in (folder / WINDOW_FILE, folder.parent / WINDOW_FILE):
        if candidate.exists():
            return candidate
    return None


def write_window(folder: Path | str, window: PngWindow) -> None:
    """Writes `window.json`, so that the greys beside it can be turned back into HU."""
    write(Path(folder) / WINDOW_FILE, window)


def read_scan(files: Sequence[Path]) -> Scan:
    """Reads 8-bit grey PNG slices of one size into a Scan, foot to head in the order of their slice numbers.

    The window comes from `window.json`; without one, level 40 and width 120 are assumed, with a warning. Without known
    spacing, pixels count as 1 mm and `spacing_known` is False.

    Args:
        files: one for each slice. Names like CASE_SSS.png give slice numbers, which also are the positions; slices of
            other names count from 1.

    Returns:
        The scan, called as its case is, or a single slice as its file is.

    Raises:
        InputError: as `read_image`, and for slices of different sizes.
    """
    number_of = dict(zip(files, _numbers(files), strict=True))
    paths = sorted(files, key=number_of.__getitem__)
    numbers = tuple(number_of[path] for path in paths)
    # Two files would lie at one position: neither order nor distance could be told.
    if len(set(numbers)) < len(files):
        raise InputError("two slices of one case have the same number", paths[0].parent)
    window = read_window(paths[0].parent)
    warnings = []
    if window is None:
        window = PngWindow()
        warnings.append(f"no {WINDOW_FILE}: greys are taken as level {window.level:g}, width {window.width:g} HU")
    one_slice = len(paths) == 1
    known = window.pixel_mm is not None and (window.slice_mm is not None or one_slice)
    if not known:
        warnings.append("spacing is not known: no millimetres and no volume in mL")
    elif window.slice_mm is None:
        warnings.append("one slice only: its thickness is not known, so there is no volume in mL")
    pixel_mm = window.pixel_mm or 1.0
    slice_mm = window.slice_mm or 1.0
    name = paths[0].stem
    case = case_and_number(name)
    if case is not None and not one_slice:
        name, _ = case
    frames = [Frame(file, 0) for file in range(len(paths))]
    return upright_scan(
        from_grey(_stack(paths, read_image), window.level, window.width),
        pixel_mm,
        np.asarray(numbers) * slice_mm,
        name=name,
        slice_numbers=numbers,
        source=Source(NAME, tuple(map(str, paths)), tuple(frames)),
        warnings=tuple(warnings),
        spacing_known=known,
        slice_mm=window.slice_mm if known else None,
    )


def read_mask(files: Sequence[Path], scan: Scan | None = None) -> tuple[np.ndarray, list[str]]:
    """Reads PNG labels, one for each slice.

    Args:
        files: in the order of the scan's slices.
        scan: that the mask was drawn on, or None if that is not known.

    Returns:
        (slices, rows, columns) uint8, the files' own values; and no warnings.

    Raises:
        InputError: as `read_label`, and if the labels' size or number is not that of the scan.
    """
    mask = _stack(files, read_label)
    if scan is not None and mask.shape != scan.shape:
        what = f"this label's size {mask.shape[1:]} is not that of its image, {scan.shape[1:]}"
        raise InputError(f"{what}: {scan.source or scan.name}", files[0])
    return mask, []


def slice_numbers(files: Sequence[Path]) -> tuple[int, ...]:
    """The number of each slice by its file's name, in ascending order."""
    return tuple(sorted(_numbers(files)))


def _numbers(files: Sequence[Path]) -> list[int]:
    """For each file the slice number in its name, or else its position in the list, from 1."""
    numbers = []
    for position, path in enumerate(files, start=1):
        known = case_and_number(path)
        numbers.append(position if known is None else known[1])
    return numbers


def write_slice(path: Path | str, hu: np.ndarray, window: PngWindow) -> None:
    """Writes one slice, (rows, columns) HU, as 8-bit grey `round(255 * windowed)`, atomically."""
    _save(to_grey(hu, window.level, window.width), path)


def write_label(path: Path | str, mask: np.ndarray) -> None:
    """Writes one slice of a mask, (rows, columns), as 8-bit 0/255, atomically."""
    _save(np.where(mask != 0, 255, 0).astype(np.uint8), path)


def encode(grey: np.ndarray) -> bytes:
    """A PNG file of an (rows, columns) uint8 image; threads encode side by side."""
    rows, columns = grey.shape
    filtered = np.empty((rows, columns + 1), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = grey[0]
    np.subtract(grey[1:], grey[:-1], out=filtered[1:, 1:])
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, STRATEGY)
    packed = packer.compress(filtered.data) + packer.flush()
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)  # 8 bits, grey, not interlaced
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    """Length, name, content and checksum."""
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def _save(grey: np.ndarray, path: Path | str) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(encode(grey))


def read_image(path: Path | str) -> np.ndarray:
    """Reads one PNG's greys, as they are stored: a gamma or colour profile in the file is for screens.

    Grey of 1 to 8 bits, and colour of 8 bits if red, green and blue are the same, plain or interlaced, with a palette
    or without. Fewer bits are spread over 0 to 255.

    Args:
        path: the PNG.

    Returns:
        (rows, columns) uint8.

    Raises:
        InputError: for a file that is no PNG, cut or damaged, of 16 bits, coloured, animated, partly transparent, or of
            more pixels than `limits` allows.
    """
    grey, alpha = _grey_and_alpha(Path(path))
    if alpha is not None:
        raise InputError("is partly transparent, so its greys may not be what a viewer shows", path, _FLATTEN)
    return grey


def read_label(path: Path | str) -> np.ndarray:
    """Reads one PNG label, (rows, columns) uint8: as `read_image`, and transparent pixels are not marked.

    A paint program leaves what was not drawn transparent. If all that can be seen is black, black is what was drawn,
    and it is 255 here.

    Raises:
        InputError: as `read_image`; and if it cannot be known what is marked: half-transparent edges, or marks on a
            black ground that is itself partly transparent.
    """
    path = Path(path)
    grey, alpha = _grey_and_alpha(path)
    if alpha is None:
        return grey
    seen = alpha > 0
    if np.unique(alpha[seen]).size > 1:
        raise InputError("has half-transparent pixels, marked or not", path, _FLATTEN)
    if not grey[seen].any():
        return np.where(seen, 255, 0).astype(np.uint8)
    if not grey[seen].all():
        raise InputError("is partly transparent and partly black, and either may mean not marked", path, _FLATTEN)
    return np.where(seen, grey, 0).astype(np.uint8)


def size(path: Path | str) -> tuple[int, int]:
    """Rows and columns of a PNG, from its header. Raises InputError as `read_image`."""
    columns, rows, _ = _header(Path(path))
    return rows, columns


def _stack(paths: Sequence[Path], read_slice: Callable[[Path], np.ndarray]) -> np.ndarray:
    """(slices, rows, columns) of files of one size. Raises InputError for other sizes, or too many voxels."""
    first = read_slice(paths[0])
    limits.check_voxels((len(paths), *first.shape), paths[0])
    stack = np.empty((len(paths), *first.shape), first.dtype)
    stack[0] = first
    for index, path in enumerate(paths[1:], start=1):
        pixels = read_slice(path)
        if pixels.shape != first.shape:
            what = f"size {pixels.shape} differs from {first.shape} of {paths[0].name} in the same case"
            raise InputError(what, path)
        stack[index] = pixels
    return stack


def _header(path: Path) -> tuple[int, int, int]:
    """Columns, rows and bits per sample, as the first chunk says. Raises InputError for what is not read."""
    # A chunk of a PNG is read whole, however long it is.
    limits.check_unpacked(regular_file(path, "PNG file").st_size, path)
    try:
        with open(path, "rb") as file:
            start = file.read(29)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path) from error
    if len(start) < 29 or start[:8] != _SIGNATURE or start[12:16] != b"IHDR":
        raise InputError("cannot be read as PNG: not a PNG, or cut short", path)
    columns, rows, bits = struct.unpack(">IIB", start[16:25])
    limits.check_pixels(rows, columns, path)
    if bits == 16:
        raise InputError("is not 8-bit (16 bits per sample)", path, "give 8-bit grey PNG, or NIfTI with HU")
    return columns, rows, bits


def _grey_and_alpha(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """(rows, columns) uint8 greys; and how opaque each pixel is, or None if all are opaque.

    The colour of fully transparent pixels becomes black, unless that hides a whole picture, which is refused.
    """
    _header(path)
    try:
        # Only as PNG: Pillow would hand PostScript of this name to Ghostscript, which runs programs.
        with Image.open(path, formats=("PNG",)) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise InputError("is animated", path, "give 8-bit grey PNG, one file for each slice")
            if image.mode == "L" and "transparency" not in image.info:
                return np.array(image), None
            # No "LA": Pillow 11 turns a grey's transparent colour into alpha for RGBA alone.
            values: Any = np.asarray(image.convert("RGBA"))
    except _UNREADABLE as error:
        raise InputError(f"cannot be read as PNG: cut or damaged ({type(error).__name__})", path) from error
    colours = values[..., :3]
    alpha = values[..., 3]
    opaque = bool((alpha == 255).all())
    if not alpha.any() and (colours != colours[0, 0]).any():
        raise InputError("is wholly transparent, and a picture lies under it", path, _FLATTEN)
    if not opaque:
        colours = colours * (alpha > 0)[..., None]
    red = colours[..., :1]
    if (colours != red).any():
        raise InputError("is a colour image, not grey", path, "give 8-bit grey PNG")
    grey = np.ascontiguousarray(red[..., 0])
    return grey, None if opaque else alpha
