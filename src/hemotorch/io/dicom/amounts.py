"""How much bleeding a prediction holds, as a structured report and a secondary capture say it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hemotorch.head.diameter import longest_diameter
from hemotorch.labels import CODES
from hemotorch.scan import Prediction

TOTAL = "total"


@dataclass(frozen=True)
class Amount:
    """Bleeding of a type, or all of it.

    kind: the type, or TOTAL. ml: NaN if the distance between slices is not known. slices: how many hold it.
    longest_mm: the longest line across a piece within a slice, 0 if there is none.
    """

    kind: str
    ml: float
    slices: int
    longest_mm: float

    @property
    def ml_known(self) -> bool:
        return math.isfinite(self.ml)


def amounts_of(prediction: Prediction) -> list[Amount]:
    """All bleeding first, then each type that the network knows, those not found too."""
    mask = prediction.mask
    amounts = []
    for kind in (TOTAL, *prediction.task.types):
        marked = mask != 0 if kind == TOTAL else mask == CODES[kind]
        slices = int(np.count_nonzero(marked.any(axis=(1, 2))))
        longest = longest_diameter(marked, *prediction.scan.pixel_mm)
        ml = prediction.volume_ml[kind] if slices else 0.0
        amounts.append(Amount(kind, ml, slices, 0.0 if longest is None else longest.mm))
    return amounts
