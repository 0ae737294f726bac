"""What a model has seen in training, apart from slice distances: the brain's level, noise and shading, contrast."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from hemotorch.head.measured import MeasuredHead
from hemotorch.head.vessels import SINUS_MM2
from hemotorch.recipe import Augment
from hemotorch.system.records import HU, record

LEAST_SCANS = 4  #: fewer say nothing of the range that was trained on
USUAL = (2, 98)  #: percentiles: what one odd scan in fifty is like, a network has hardly learned
GAIN_CENTRE_HU = 40.0  #: around which augmentation changes the contrast
#: Range of the brain's level that augmentation's shading of amplitude 1 adds, as `head.tissue` measures it: mean of 24
#: random fields over phantoms (1.0 to 1.2 at amplitudes of 4 to 12 HU).
SHADING_RANGE = 1.1
CONTRAST_SHARE = 0.02  #: of the scans that was given contrast; a network trained on fewer does not know it


@record
class Seen:
    """Ranges of what was trained on, as `head.measured` measures them.

    The defaults are those of hemotorch's phantoms with the recipe `fast`: a level of 21 to 46 HU, up to 13 HU of noise
    and up to 7.5 HU of shading were measured on 16 of them, and augmentation adds 6 HU to the level. Models from before
    ranges were stored are taken to have seen that.
    """

    level_hu: tuple[float, float] = Field(default=(18.0, 48.0), description="median of the brain", json_schema_extra=HU)
    noise_hu: float = Field(default=15.0, ge=0, description="most noise in the brain", json_schema_extra=HU)
    shading_hu: float = Field(
        default=10.0, ge=0, description="largest range of the brain's level from place to place", json_schema_extra=HU
    )
    contrast: bool = Field(default=False, description="whether scans with contrast were among them")

    @staticmethod
    def of(heads: Sequence[MeasuredHead], augment: Augment) -> Seen:
        """The ranges of heads, widened by what augmentation does to them.

        The defaults, if fewer than LEAST_SCANS of the heads have a brain.

        Args:
            heads: of scans that are trained on.
            augment: what is done to each.
        """
        with_brain = [head for head in heads if head.level is not None and not math.isnan(head.noise)]
        if len(with_brain) < LEAST_SCANS:
            return Seen()
        low, high = np.percentile([head.level.median for head in with_brain if head.level is not None], USUAL)
        shading = np.percentile([head.level.shading_hu for head in with_brain if head.level is not None], USUAL[1])
        noise = np.percentile([head.noise for head in with_brain], USUAL[1])
        wider = [augment.gain * abs(level - GAIN_CENTRE_HU) + augment.offset_hu for level in (low, high)]
        shining = sum(head.sinus_mm2 >= SINUS_MM2 for head in with_brain)
        return Seen(
            level_hu=(round(float(low - wider[0]), 1), round(float(high + wider[1]), 1)),
            noise_hu=round(math.hypot(noise, augment.noise_hu), 1),
            shading_hu=round(math.hypot(shading, SHADING_RANGE * augment.shading_hu), 1),
            contrast=shining >= max(1.0, CONTRAST_SHARE * len(with_brain)),
        )

    @staticmethod
    def by_all(models: Sequence[Seen]) -> Seen:
        """What each of several models has seen."""
        return Seen(
            level_hu=(max(seen.level_hu[0] for seen in models), min(seen.level_hu[1] for seen in models)),
            noise_hu=min(seen.noise_hu for seen in models),
            shading_hu=min(seen.shading_hu for seen in models),
            contrast=all(seen.contrast for seen in models),
        )
