"""What is measured of a scan's head, in training as in prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hemotorch.head.skull import coarse, enclosed
from hemotorch.head.tissue import Level, brain_level, noise_hu
from hemotorch.head.vessels import bright_sinus_mm2
from hemotorch.scan import Scan


@dataclass(frozen=True, eq=False)
class MeasuredHead:
    """What is measured of a scan's head once.

    small: the scan on pixels of about 2 mm. inside: (slices, rows, columns) bool, what bone encloses there. level: of
    the brain, None if there is none. noise: its standard deviation, HU, NaN if there is none. sinus_mm2: see
    `head.vessels`.
    """

    small: Scan
    inside: np.ndarray
    level: Level | None
    noise: float
    sinus_mm2: float

    @staticmethod
    def of(scan: Scan) -> MeasuredHead:
        """Measures a scan of known spacing."""
        small, block = coarse(scan)
        inside = enclosed(small)
        level = brain_level(scan, (small, block), inside)
        noise = noise_hu(scan, (small, block), inside)
        return MeasuredHead(small, inside, level, noise, bright_sinus_mm2(scan, (small, block)))
