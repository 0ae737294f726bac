"""A synthetic head, its bleeding, and the CT that scans it."""

from __future__ import annotations

from hemotorch.phantom.case import PhantomCase, make_case
from hemotorch.phantom.paint import paint
from hemotorch.phantom.presets import PRESETS, VERSION, Preset

__all__ = ["PRESETS", "VERSION", "PhantomCase", "Preset", "make_case", "paint"]
