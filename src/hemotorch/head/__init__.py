"""What bone encloses, whether a scan shows a head at all, what its brain looks like in HU, and how long bleeding is.

diameter  the longest line across a piece of bleeding within a slice
skull     the space inside the skull, and whether there is one
tissue    level, noise and shading of the brain
vessels   whether large veins shine, as after contrast
measured  all of these together, measured once
"""

from __future__ import annotations

from hemotorch.head.skull import (
    BODY_HU,
    BONE_HU,
    CROSS,
    check_head,
    coarse,
    cranial_space,
    depth_mm,
    enclosed,
    why_not_a_head,
)

__all__ = [
    "BODY_HU",
    "BONE_HU",
    "CROSS",
    "check_head",
    "coarse",
    "cranial_space",
    "depth_mm",
    "enclosed",
    "why_not_a_head",
]
