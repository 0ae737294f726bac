"""What a model has seen in training, apart from slice distances: the brain's level, noise and shading."""

from __future__ import annotations

from pydantic import Field

from hemotorch.system.records import HU, record


@record
class Seen:
    """Ranges of what was trained on, as `head.tissue` measures them.

    The defaults are those of hemotorch's phantoms with the recipe `fast`: a level of 21 to 46 HU, up to 13 HU of noise
    and up to 7.5 HU of shading were measured on 16 of them, and augmentation adds 6 HU to the level. Models from before
    ranges were stored are taken to have seen that.
    """

    level_hu: tuple[float, float] = Field(default=(18.0, 48.0), description="median of the brain", json_schema_extra=HU)
    noise_hu: float = Field(default=15.0, ge=0, description="most noise in the brain", json_schema_extra=HU)
    shading_hu: float = Field(
        default=10.0, ge=0, description="largest range of the brain's level from place to place", json_schema_extra=HU
    )
