"""Hounsfield units: attenuation to HU, windows, and the way back from 8-bit images.

Equations 1 to 3 of Sokolovskyy et al. 2021. Functions take NumPy arrays and torch tensors alike, and scalars; they do
not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hemotorch.errors import OptionError, nearest

AIR_HU = -1024  #: what is written where there is no data: outside the scanner's circle, padding, non-finite values
GAIN_CENTRE_HU = 40.0  #: brightness changes turn around the brain's own level, so that air and bone hardly matter
LARGEST_HU = 100_000  #: beyond any window: metal is at 30,000


@dataclass(frozen=True)
class Window:
    """A display window: HU from level - width / 2 to level + width / 2 are spread over [0, 1]."""

    level: float
    width: float
    source: str = ""

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest HU shown."""
        return window_bounds(self.level, self.width)


SOKOLOVSKYY = "Sokolovskyy et al. 2021, and Hssayeni et al. 2020 (Data 5(1):14): level 40, width 120 for CT-ICH"
RADIOPAEDIA = "Radiopaedia, 'Windowing (CT)': typical head settings"
HSSAYENI = "the description of PhysioNet CT-ICH (Hssayeni et al. 2020): bone level 700, width 3200"

WINDOWS = {
    "brain": Window(40, 120, SOKOLOVSKYY),
    "brain-narrow": Window(40, 80, RADIOPAEDIA + " (brain W:80 L:40)"),
    "subdural": Window(75, 215, RADIOPAEDIA + " (subdural W:130-300 L:50-100; the middle of both ranges)"),
    "stroke": Window(32, 8, RADIOPAEDIA + " (stroke W:8 L:32)"),
    "blood": Window(55, 70, "ours: 20 to 90 HU, from grey matter to dense clot, so that fresh blood fills the range"),
    "bone": Window(600, 2800, RADIOPAEDIA + " (temporal bones W:2800 L:600)"),
    "bone-hssayeni": Window(700, 3200, HSSAYENI),
}


def window(name: str) -> Window:
    """The named window. Raises OptionError naming the nearest one."""
    if name not in WINDOWS:
        raise OptionError(f"unknown window '{name}'", todo=nearest(name, WINDOWS))
    return WINDOWS[name]


def from_attenuation(mu: Any, mu_water: float, mu_air: float) -> Any:
    """HU from linear attenuation: 1000 (mu - mu_water) / (mu_water - mu_air), all in the same unit (1/cm, say)."""
    if mu_water <= mu_air:
        raise OptionError(f"attenuation of water ({mu_water}) must be above that of air ({mu_air})")
    return 1000.0 * (mu - mu_water) / (mu_water - mu_air)


def window_bounds(level: float, width: float) -> tuple[float, float]:
    """Lowest and highest HU of a window. Raises OptionError for a width that is not above zero."""
    if not width > 0:
        raise OptionError(f"a window's width must be above 0 HU, not {width}")
    if not (abs(level) <= LARGEST_HU and width <= LARGEST_HU):
        raise OptionError(f"a window of level {level} and width {width} holds no HU", todo="give both in HU")
    return level - width / 2, level + width / 2


def apply_window(hu: Any, level: float, width: float) -> Any:
    """HU to brightness.

    Args:
        hu: an array, a tensor or a number. Integers become float32; half-precision tensors are computed in float32,
            since bfloat16 rounds HU.
        level, width: of the window, in HU.

    Returns:
        Floating point in [0, 1], of hu's shape: 0 at and below the window's lower bound, 1 at and above the upper one.
    """
    low, _ = window_bounds(level, width)
    if isinstance(hu, (np.ndarray, np.generic, int, float)):
        array = np.asarray(hu)
        if array.dtype != np.float64:
            array = array.astype(np.float32)
        return np.clip((array - low) / width, 0.0, 1.0)
    is_double = hu.is_floating_point() and hu.element_size() == 8
    tensor = hu if is_double else hu.float()
    return ((tensor - low) / width).clamp(0.0, 1.0)


def to_grey(hu: np.ndarray, level: float, width: float) -> np.ndarray:
    """HU to 8-bit grey: round(255 * windowed), uint8, same shape."""
    return np.rint(apply_window(hu, level, width) * 255).astype(np.uint8)


def from_grey(grey: np.ndarray, level: float, width: float) -> np.ndarray:
    """The inverse of `to_grey`: uint8 grey to HU (int16), exact to half a grey step inside the window.

    Black and white, which stand for all that lies outside, become whole HU that are black and white again.
    """
    low, high = window_bounds(level, width)
    hu = np.rint(grey.astype(np.float32) / 255 * width + low)
    hu[grey == 0] = np.floor(low)
    hu[grey == 255] = np.ceil(high)
    return hu.astype(np.int16)
