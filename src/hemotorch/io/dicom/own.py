"""What hemotorch wrote in DICOM, and whether it is as it was written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from hemotorch.io.dicom.header import lenient, read_dataset
from hemotorch.io.dicom.source import PRODUCT

_CONTENT = "content"  # of the parameters of a segmentation's algorithm: what `content_digest` gives


def is_own(path: Path) -> bool:
    """Whether a DICOM file was written by hemotorch, as its header says."""
    try:
        with lenient():
            return str(read_dataset(path, pixels=True).get("Manufacturer", "")) == PRODUCT
    except Exception:  # a damaged file says so when it is read
        return False


def is_own_mask(path: Path) -> bool:
    """Whether a segmentation is a network's of hemotorch, and nobody corrected it.

    A segment that says that it was made by hand, another program as its maker, other pixels or other labels than those
    that were written: then somebody has looked at it, and it is theirs.
    """
    try:
        with lenient():
            dataset = read_dataset(path, pixels=True)
            segments = list(dataset.get("SegmentSequence") or [])
            if not segments or str(dataset.get("Manufacturer", "")) != PRODUCT:
                return False
            if any(str(item.get("SegmentAlgorithmType", "AUTOMATIC")) != "AUTOMATIC" for item in segments):
                return False
            written = _written_digest(segments[0])
            return written in ("", content_digest(dataset))
    except Exception:  # as above
        return False


def stamp(segmentation: Any) -> None:
    """Writes into a segmentation what `is_own_mask` compares."""
    digest = content_digest(segmentation)
    for item in segmentation.SegmentSequence:
        identification = item.SegmentationAlgorithmIdentificationSequence[0]
        identification.AlgorithmParameters = f"{identification.AlgorithmParameters},{_CONTENT}={digest}"


def content_digest(dataset: Any) -> str:
    """SHA-256 of a segmentation's frames and the labels of their segments."""
    labels = {int(item.SegmentNumber): str(item.get("SegmentLabel", "")) for item in dataset.SegmentSequence}
    frames = list(dataset.PerFrameFunctionalGroupsSequence)
    pixels = np.asarray(dataset.pixel_array).reshape(len(frames), -1) != 0
    shared = dataset.SharedFunctionalGroupsSequence[0]
    digest = hashlib.sha256()
    for frame, values in zip(frames, pixels, strict=True):
        segment = frame.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
        digest.update(labels[int(segment[0].ReferencedSegmentNumber)].encode() + b"\0")
        digest.update(np.packbits(values).tobytes())
    return digest.hexdigest()


def _written_digest(segment: Any) -> str:
    """The digest that was written; "" if there is none."""
    identification = segment.get("SegmentationAlgorithmIdentificationSequence") or [{}]
    parameters = str(identification[0].get("AlgorithmParameters", "")).split(",")
    return next((text.partition("=")[2] for text in parameters if text.startswith(f"{_CONTENT}=")), "")
