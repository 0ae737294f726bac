"""One file of a series that is written: dataset, pixels, and the bytes they become."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from hemotorch.io.dicom.header import CT_IMAGE

_ROOT = "2.25."  # UIDs made from a hash need no registered root (PS3.5, B.2)
EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"


def uid_of(*parts: object) -> str:
    """A UID that is the same for the same parts."""
    digest = hashlib.sha256("\n".join(map(str, parts)).encode()).digest()
    return _ROOT + str(int.from_bytes(digest[:15], "big"))


@dataclass
class SliceFile:
    """One file of a series that is being written.

    dataset: pydicom's. hu: (rows, columns) that its pixels stand for. name: of the file. syntax: UID.
    cut: bytes that are left off its end. preamble: whether it has one. stored: pixels, if not `hu` minus intercept.
    """

    dataset: Any
    hu: np.ndarray
    name: str
    syntax: str = EXPLICIT
    cut: int = 0
    preamble: bool = True
    stored: np.ndarray | None = None
    group_2: bool = True


def encoded(file: SliceFile) -> bytes:
    """The bytes of a file."""
    import io

    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.filewriter import dcmwrite, write_dataset
    from pydicom.uid import UID

    d = file.dataset
    if "Rows" in d and "PixelData" not in d:
        d.PixelData = _stored(file).tobytes()
        d["PixelData"].VR = "OW"
        if d.BitsAllocated == 8:
            d["PixelData"].VR = "OB"
            d.PixelData += b"\0" * (len(d.PixelData) % 2)
    buffer = io.BytesIO()
    little, implicit = file.syntax != BIG, file.syntax == IMPLICIT
    if file.group_2:
        d.file_meta = FileMetaDataset()
        d.file_meta.MediaStorageSOPClassUID = d.get("SOPClassUID") or CT_IMAGE
        d.file_meta.MediaStorageSOPInstanceUID = d.get("SOPInstanceUID") or uid_of(file.name)
        if file.syntax == RLE:
            d.file_meta.TransferSyntaxUID = UID(EXPLICIT)
            d.compress(UID(RLE))
        d.file_meta.TransferSyntaxUID = UID(file.syntax)
        dcmwrite(buffer, d, enforce_file_format=True)
    else:
        target = pydicom.filebase.DicomBytesIO()
        target.is_little_endian, target.is_implicit_VR = little, implicit
        write_dataset(target, d)
        buffer.write(target.getvalue())
    data = buffer.getvalue()
    if not file.preamble and file.group_2:
        data = data[132:]
    return data[: len(data) - file.cut] if file.cut else data


def _stored(file: SliceFile) -> np.ndarray:
    """The pixels of a file as its header says that they are stored."""
    d = file.dataset
    order = ">" if file.syntax == BIG else "<"
    kind = "i" if d.PixelRepresentation else "u"
    if file.stored is not None:
        return file.stored.astype(f"{order}{kind}{d.BitsAllocated // 8}")
    slope, intercept = float(d.get("RescaleSlope", 1)), float(d.get("RescaleIntercept", 0))
    values = np.rint((file.hu.astype(float) - intercept) / slope)
    least, most = 0, (1 << d.BitsStored) - 1
    if kind == "i":
        least, most = -(1 << d.BitsStored - 1), (1 << d.BitsStored - 1) - 1
    values = np.clip(values, least, most)
    return values.astype(f"{order}{kind}{d.BitsAllocated // 8}")
