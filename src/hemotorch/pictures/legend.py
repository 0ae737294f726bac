"""What a picture says of the masks it shows: volumes in words, with the colours of their lines."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from hemotorch.labels import CODES, COLOURS, SHORT_NAMES
from hemotorch.pictures.framing import Box, Volume
from hemotorch.pictures.slices import PREDICTED_RGB, TRUTH_RGB

Rgb = tuple[int, int, int]


class Masks(NamedTuple):
    """What is outlined. typed: the masks are codes of `labels`, and types are told apart."""

    predicted: np.ndarray | None = None
    truth: np.ndarray | None = None
    typed: bool = False

    @property
    def given(self) -> list[np.ndarray]:
        """Those of the two that there are."""
        return [mask for mask in (self.predicted, self.truth) if mask is not None]

    def cropped(self, index: int, box: Box) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Truth and prediction of one slice, inside a box."""
        truth = None if self.truth is None else self.truth[index][box]
        predicted = None if self.predicted is None else self.predicted[index][box]
        return truth, predicted


class Label(NamedTuple):
    """A text and the colour that it speaks of."""

    text: str
    colour: Rgb


def total_labels(scan: Volume, masks: Masks) -> list[Label]:
    """All that was found, and all that is true, each in one label."""
    labels = []
    if masks.predicted is not None:
        labels.append(Label(f"found: {_total(scan, masks.predicted)}", PREDICTED_RGB))
    if masks.truth is not None:
        labels.append(Label(f"truth: {_total(scan, masks.truth)}", TRUTH_RGB))
    return labels


def type_volumes(scan: Volume, masks: Masks) -> dict[str, str]:
    """The mL of each type that was found or is true, the true ones in brackets."""
    volumes = {}
    for name, code in CODES.items():
        if not any((mask == code).any() for mask in masks.given):
            continue
        texts = []
        if masks.predicted is not None:
            texts.append(_volume(scan, masks.predicted == code))
        if masks.truth is not None:
            texts.append(f"(true {_volume(scan, masks.truth == code)})")
        volumes[name] = " ".join(texts)
    return volumes


def slice_labels(scan: Volume, index: int, mask: np.ndarray | None, plain: Rgb, typed: bool) -> list[Label]:
    """What one slice holds: a label per type if types are told apart, else one.

    Args:
        index: of the slice.
        mask: of the whole scan; without one there are no labels.
        plain: the colour of bleeding without a type.
    """
    if mask is None or not mask[index].any():
        return []
    marked, voxel_ml = mask[index], float(scan.voxel_ml[index])
    codes = CODES if typed else {}
    labels = []
    for name, code in codes.items():
        voxels = int(np.count_nonzero(marked == code))
        if voxels:
            labels.append(Label(f"{SHORT_NAMES[name]} {_amount(voxels * voxel_ml, voxels)}", COLOURS[name]))
    untyped = int(np.count_nonzero(marked) - np.count_nonzero(np.isin(marked, list(codes.values()))))
    if untyped:
        labels.append(Label(_amount(untyped * voxel_ml, untyped), plain))
    return labels


def _total(scan: Volume, mask: np.ndarray) -> str:
    """All that a mask holds, in words."""
    slices = int(mask.reshape(len(mask), -1).any(axis=1).sum())
    if not slices:
        return "no bleeding"
    volume = scan.volume_ml(mask)
    size = "volume unknown" if math.isnan(volume) else ml_text(volume)
    return f"{size} in {slices} slice{'s' if slices != 1 else ''}"


def _volume(scan: Volume, mask: np.ndarray) -> str:
    return _amount(scan.volume_ml(mask), int(np.count_nonzero(mask)))


def _amount(volume_ml: float, voxels: int) -> str:
    """A volume in words, or its pixels if it is not known."""
    if math.isnan(volume_ml):
        return f"{voxels} px"
    return ml_text(volume_ml) if voxels else "0 mL"


def ml_text(volume_ml: float) -> str:
    """mL above zero for reading."""
    return f"{volume_ml:.1f} mL" if volume_ml >= 0.05 else "< 0.1 mL"
