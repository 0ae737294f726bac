"""Stored pixels as Hounsfield units: decoding, stored bits, a sign that the header has wrong, padding, rescale."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from scipy import ndimage

from hemotorch.errors import InputError
from hemotorch.hu import AIR_HU
from hemotorch.io.dicom.header import ImageHeader, lenient, read_dataset
from hemotorch.io.values import MOST_METAL_HU
from hemotorch.system import limits

#: Transfer syntaxes that no decoder here reads, as messages call them.
UNREAD_SYNTAXES = {
    "1.2.840.10008.1.2.4.51": "lossy JPEG (process 2 and 4)",
    "1.2.840.10008.1.2.4.52": "JPEG Extended (process 3 and 5)",
    "1.2.840.10008.1.2.4.53": "progressive JPEG (spectral selection, process 6 and 8)",
    "1.2.840.10008.1.2.4.55": "progressive JPEG (full progression, process 10 and 12)",
    "1.2.840.10008.1.2.4.92": "JPEG 2000 with several components",
    "1.2.840.10008.1.2.4.93": "JPEG 2000 with several components",
    "1.2.840.10008.1.2.4.100": "MPEG-2",
    "1.2.840.10008.1.2.4.102": "MPEG-4",
}
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"  #: 8 bits
#: These lose something whatever the header says; JPEG 2000 and HTJ2K may or may not.
LOSSY_SYNTAXES = {
    "1.2.840.10008.1.2.4.81": "JPEG-LS",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
}
_RECODE = "export it again without compression, or convert it with `gdcmconv --raw`"
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_TOP_12_BITS = 2500.0  # HU: metal near the end of 12 bits, 3071
_LARGEST_WRAP = 4000  # pixels of one place that ran over; a clip or a bolt has some hundreds
_LOW_PADDING_HU = -900.0  # padding below it stands for air; above it, it may be tissue


def why_undecodable(header: ImageHeader) -> str | None:
    """Why the pixels of an image cannot be HU, or cannot be decoded, so far as its header tells; None if they can."""
    if header.syntax in UNREAD_SYNTAXES:
        return f"is compressed as {UNREAD_SYNTAXES[header.syntax]}, which nothing here decodes; {_RECODE}"
    if header.samples > 1 or header.photometric not in ("MONOCHROME1", "MONOCHROME2", ""):
        return f"is a colour picture ({header.photometric or header.samples}), which holds no HU"
    if header.photometric == "MONOCHROME1":
        return "is stored inverted (MONOCHROME1), as no CT scanner does: a picture made from a CT"
    allocated, stored = header.bits
    if header.syntax == JPEG_BASELINE or (allocated == 8 and header.syntax not in _NATIVE):
        return "holds 8-bit grey values of lossy JPEG, not HU; ask for the original series"
    if allocated == 8:
        return "holds 8-bit grey values, not HU; ask for the original series"
    if allocated not in (16, 32) or not 0 < stored <= allocated:
        return f"has {stored} of {allocated} bits per pixel, which is no CT"
    return None


def has_other_sign(header: ImageHeader) -> bool:
    """Whether the stored values of an image have a sign and its header says not, or the other way round.

    False if it cannot be read, which is said when it is.
    """
    try:
        (stored,) = _stored_values([header])
    except InputError:
        return False
    slope = 1.0 if header.slope is None else header.slope
    intercept = 0.0 if header.intercept is None else header.intercept
    return _is_contradicted(stored.astype(np.int64), header, slope, intercept)


def slice_hu(headers: list[ImageHeader], other_sign: bool = False) -> list[tuple[np.ndarray, list[str]]]:
    """The images of one file as HU.

    Args:
        headers: images that lie in one file, in any order.
        other_sign: whether values are read with a sign where the header says without, and the other way round.

    Returns:
        For each (rows, columns) float32 HU, before rounding and clipping, and notes on what was repaired.

    Raises:
        InputError: for pixels that are missing, cut, or cannot be decoded.
    """
    images = []
    for stored, header in zip(_stored_values(headers), headers, strict=True):
        images.append(_to_hu(stored, header, other_sign))
    return images


def _stored_values(headers: list[ImageHeader]) -> list[np.ndarray]:
    """(rows, columns) stored values of images of one file. Raises InputError as `slice_hu`."""
    path = headers[0].path
    if reason := why_undecodable(headers[0]):
        raise InputError(reason, path)
    limits.check_pixels(headers[0].rows, headers[0].columns, path)
    dataset = read_dataset(path, pixels=True)
    with lenient():
        return [_decoded(dataset, header) for header in headers]


def _decoded(dataset: Any, header: ImageHeader) -> np.ndarray:
    """(rows, columns) stored values. Raises InputError for pixels that are missing, cut or damaged."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    where = header.path
    if "PixelData" not in dataset or not len(dataset.PixelData):
        raise InputError("holds no pixels", where)
    wanted = (header.rows, header.columns)
    if header.syntax in _NATIVE:
        _check_length(len(dataset.PixelData), header)
    else:
        _check_frame(_frame_bytes(dataset, header), header)
    try:
        decoder = get_decoder(UID(header.syntax))
    except NotImplementedError as error:
        raise InputError(f"has transfer syntax {header.syntax}, which nothing here decodes", where, _RECODE) from error
    try:
        if getattr(dataset, "file_meta", None) is None or "TransferSyntaxUID" not in dataset.file_meta:
            from pydicom.dataset import FileMetaDataset

            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = UID(header.syntax)
        index = header.frame if header.frames > 1 else 0
        values, _ = decoder.as_array(dataset, index=index, raw=True)
    except Exception as error:  # decoders raise whatever a damaged codestream leads to
        what = f"its pixels cannot be decoded: cut or damaged ({type(error).__name__})"
        raise InputError(what, where, "copy it again from its source") from error
    pixels = np.asarray(values)
    if pixels.shape != wanted:
        raise InputError(f"its pixels are {pixels.shape}, not {wanted} as its header says", where)
    return pixels


def _check_length(size: int, header: ImageHeader) -> None:
    """Raises InputError if plain pixels are fewer than the header says."""
    needed = header.rows * header.columns * header.samples * header.bits[0] // 8 * header.frames
    if size < needed:
        share = 100 * size / needed
        raise InputError(f"is cut short: {share:.0f} % of its pixels are there", header.path, "copy it again")


def _frame_bytes(dataset: Any, header: ImageHeader) -> bytes:
    """A compressed image's own bytes. Raises InputError if it is not there."""
    from pydicom.encaps import get_frame

    try:
        return get_frame(dataset.PixelData, header.frame, number_of_frames=header.frames)
    except Exception as error:  # damaged lengths of fragments
        raise InputError(f"its compressed pixels are damaged ({type(error).__name__})", header.path) from error


def _check_frame(data: bytes, header: ImageHeader) -> None:
    """Raises InputError if a compressed image is of another size than the header says.

    Decoders allocate what the codestream claims: a changed byte there asked OpenJPEG for 4 GB.
    """
    size = _size_in_codestream(data)
    if size is not None and size != (header.rows, header.columns):
        what = f"its compressed pixels are {size[0]} x {size[1]}, its header says {header.rows} x {header.columns}"
        raise InputError(f"{what}: damaged", header.path)


def _size_in_codestream(data: bytes) -> tuple[int, int] | None:
    """Rows and columns as JPEG (SOF), JPEG-LS or JPEG 2000 (SIZ) state them; None if neither is met."""
    if data[:4] == b"\xff\x4f\xff\x51" and len(data) >= 24:
        width, height, left, top = struct.unpack(">IIII", data[8:24])
        return height - top, width - left
    if data[:2] != b"\xff\xd8":
        return None
    index = 2
    while index + 9 <= len(data) and data[index] == 0xFF:
        marker = data[index + 1]
        is_frame = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        if is_frame or marker == 0xF7:  # F7: JPEG-LS
            rows, columns = struct.unpack(">HH", data[index + 5 : index + 9])
            return rows, columns
        index += 2 + struct.unpack(">H", data[index + 2 : index + 4])[0]
    return None


def _to_hu(stored: np.ndarray, header: ImageHeader, other_sign: bool) -> tuple[np.ndarray, list[str]]:
    """Stored values as float32 HU, and notes on what was repaired."""
    notes = []
    slope = 1.0 if header.slope is None else header.slope
    intercept = 0.0 if header.intercept is None else header.intercept
    if slope == 0:
        raise InputError("its rescale slope is 0", header.path)
    stored = stored.astype(np.int64)
    if other_sign:
        stored = _with_other_sign(stored, header)
        said, true = ("with", "without") if header.signed else ("without", "with")
        notes.append(f"holds values {true} a sign, though its header says {said}: read {true}")
    hu = (stored * slope + intercept).astype(np.float32)
    padded, note = _padding(stored, header, slope, intercept)
    notes.extend(note)
    hu[padded] = AIR_HU
    if header.bits[1] == 12 and slope == 1:
        notes.extend(_unwrap(hu, padded))
    return hu, notes


def _with_other_sign(stored: np.ndarray, header: ImageHeader) -> np.ndarray:
    """Values of the same bits, read with a sign if they were read without, and the other way round."""
    span = 1 << header.bits[1]
    if header.signed:
        return np.where(stored < 0, stored + span, stored)
    return np.where(stored >= span // 2, stored - span, stored)


def _is_contradicted(stored: np.ndarray, header: ImageHeader, slope: float, intercept: float) -> bool:
    """Whether values can be HU only with the other sign.

    Signed values called unsigned put air near 2**bits - 1000, so that nothing is air. Unsigned ones called signed put
    what is denser than half the range below any HU; padding lies there too, but is one value or two.
    """
    other = _with_other_sign(stored, header) * slope + intercept
    hu = stored * slope + intercept
    if not header.signed:
        return _air_share(hu) < 0.01 and _air_share(other) > 0.05
    impossible = (stored < 0) & (hu < -1100) & ~_is_padding(stored, header)
    values = np.unique(stored[impossible])
    return float(np.mean(impossible)) > 0.01 and len(values) > 8 and float(other.max()) <= MOST_METAL_HU


def _air_share(hu: np.ndarray) -> float:
    return float(np.mean((hu > -1150) & (hu < -800)))


def _is_padding(stored: np.ndarray, header: ImageHeader) -> np.ndarray:
    """Which stored values are those that the header calls padding, in either reading of their sign."""
    if header.padding is None:
        return np.zeros(stored.shape, bool)
    first, last = header.padding
    if last is None:
        last = first
    result = np.zeros(stored.shape, bool)
    for turn in (0, 1 << header.bits[0], -(1 << header.bits[0])):
        low, high = sorted((first + turn, last + turn))
        result |= (stored >= low) & (stored <= high)
    return result


def _padding(stored: np.ndarray, header: ImageHeader, slope: float, intercept: float) -> tuple[np.ndarray, list[str]]:
    """Which pixels are padding, bool of their shape; and a note if the header's padding cannot be that."""
    padded = _is_padding(stored, header)
    if not padded.any():
        return padded, []
    hu = stored[padded] * slope + intercept
    between = (hu > _LOW_PADDING_HU) & (hu < MOST_METAL_HU)
    if between.any():
        value = float(hu[between][0])
        if padded[0, 0] and padded[-1, -1] and padded[0, -1] and padded[-1, 0]:
            # All four corners have it: the circle of the scanner, whatever its HU come to.
            labels, _ = ndimage.label(padded)
            corners = np.unique([labels[0, 0], labels[0, -1], labels[-1, 0], labels[-1, -1]])
            note = f"its padding comes to {value:.0f} HU: air where it surrounds the picture, kept inside"
            return np.isin(labels, corners), [note]
        note = f"its padding value comes to {value:.0f} HU, which tissue may have: those pixels are kept as they are"
        return np.zeros(stored.shape, bool), [note]
    return padded, []


def _unwrap(hu: np.ndarray, padded: np.ndarray) -> list[str]:
    """Adds 4096 where metal ran over the end of 12 bits and came back as air or less; says how many pixels.

    Such a place is small, and all around it lie the highest values that 12 bits can hold. Air inside metal does not.
    """
    if float(hu.max()) < _TOP_12_BITS:
        return []
    labels, count = ndimage.label((hu < -200) & ~padded)
    changed = 0
    for index, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is None or count > 50_000:
            continue
        around = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in place)
        piece = labels[around] == index
        pixels = int(np.count_nonzero(piece))
        if pixels > _LARGEST_WRAP:
            continue
        border = ndimage.binary_dilation(piece, np.ones((3, 3))) & ~piece
        if (hu[around][border] >= _TOP_12_BITS).mean() > 0.8:
            hu[around][piece] += 4096
            changed += pixels
    if not changed:
        return []
    return [f"{changed} pixels of metal ran over the end of 12 bits and were stored as air: put right"]
