"""What a picture says of the masks it shows: volumes in words, with the colours of their lines."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from hemotorch.labels import CODES, COLOURS, SHORT_NAMES
from hemotorch.pictures.framing import Volume
from hemotorch.pictures.slices import FOUND_RGB, TRUTH_RGB

Rgb = tuple[int, int, int]


class Masks(NamedTuple):
    """What is outlined. typed: the masks are codes of `labels`, and types are told apart."""

    found: np.ndarray | None = None
    truth: np.ndarray | None = None
    typed: bool = False

    @property
    def given(self) -> list[np.ndarray]:
        """Those of the two that there are."""
        return [mask for mask in (self.found, self.truth) if mask is not None]


class Label(NamedTuple):
    """A text and the colour that it speaks of."""

    text: str
    colour: Rgb


def total_labels(scan: Volume, masks: Masks) -> list[Label]:
    """All that was found, and all that is true, each in one label."""
    labels = []
    if masks.found is not None:
        labels.append(Label(f"found: {_total(scan, masks.found)}", FOUND_RGB))
    if masks.truth is not None:
        labels.append(Label(f"truth: {_total(scan, masks.truth)}", TRUTH_RGB))
    return labels


def type_volumes(scan: Volume, masks: Masks) -> dict[str, str]:
    """The mL of each type that was found or is true, the true ones in brackets."""
    volumes = {}
    for name, code in CODES.items():
        if any((mask == code).any() for mask in masks.given):
            texts = []
            if masks.found is not None:
                texts.append(_amount(scan.volume_ml(masks.found == code), masks.found == code))
            if masks.truth is not None:
                texts.append(f"(true {_amount(scan.volume_ml(masks.truth == code), masks.truth == code)})")
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
    labels = []
    codes = CODES if typed else {}
    for name, code in codes.items():
        area = marked == code
        if area.any():
            volume = _amount(np.count_nonzero(area) * voxel_ml, area)
            labels.append(Label(f"{SHORT_NAMES[name]} {volume}", COLOURS[name]))
    rest = (marked != 0) & ~np.isin(marked, list(codes.values()))
    if rest.any():
        labels.append(Label(_amount(np.count_nonzero(rest) * voxel_ml, rest), plain))
    return labels


def _total(scan: Volume, mask: np.ndarray) -> str:
    """All that a mask holds, in words."""
    slices = int(mask.reshape(len(mask), -1).any(axis=1).sum())
    if not slices:
        return "no bleeding"
    volume = scan.volume_ml(mask)
    size = "volume unknown" if math.isnan(volume) else ml_text(volume)
    return f"{size} in {slices} slice{'s' if slices != 1 else ''}"


def _amount(volume: float, area: np.ndarray) -> str:
    """A volume in words, or pixels if it is not known."""
    if math.isnan(volume):
        return f"{np.count_nonzero(area)} px"
    return ml_text(volume) if volume else "0 mL"


def ml_text(volume: float) -> str:
    """mL above zero for reading."""
    return f"{volume:.1f} mL" if volume >= 0.05 else "< 0.1 mL"
