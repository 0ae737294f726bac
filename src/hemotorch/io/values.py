"""What a file's numbers are: Hounsfield units, padding, codes of a mask, or something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from hemotorch.errors import InputError
from hemotorch.hu import AIR_HU

LARGEST_HU = np.iinfo(np.int16).max  #: that a Scan holds
MOST_METAL_HU = 31_743  #: where scanners' extended scales end; the densest metal comes to 30,000
DENSEST_BONE_HU = 2500  #: or so: above it is metal, which does not fill the corners of a picture
_TO_HU = "convert it to HU (stored value x rescale slope + rescale intercept) and try again"
_AIR = (-1300, -600)  # HU between which air lies, noise and resampling included
_AIR_SHARE = 5e-4  # of all voxels: less air than that is none
_SAMPLE = 500_000  # voxels that the checks of air and of density look at
_WRAPPED_16 = (59_000, 2**16)  # HU that padding from -5500 to -1 becomes, stored in unsigned 16 bits
# Whatever is larger is no measurement on any scale: the largest int32 or float, or -2000 stored in unsigned 32 bits.
_FILL_VALUE = 2**31 - 2**16
_ROUNDING = 1e-4  # a label saved as a float is off by no more than that


def to_hu(values: np.ndarray, path: Path | str, *, unsigned: bool = False) -> tuple[np.ndarray, list[str]]:
    """A volume of HU as int16: rounded, and clipped to -1024 (air, padding) to 32767.

    NaN and infinities become air. So does padding that was negative once and was stored unsigned: outside the scanner's
    circle stands -2000 or -1 in many files; in unsigned 16 bits these are 63536 and 65535, far above metal (30,000 HU).
    So do the values near the end of what 32 bits or floats hold, which programs write where nothing was measured, and
    one value above all bone that fills the corners.
    None of them is asked whether the rest is HU.

    Args:
        values: of any shape and real type.
        path: of the file, for messages.
        unsigned: whether the file stores integers without a sign. Then all above `MOST_METAL_HU` is padding; elsewhere
            only what 16 bits make of a small negative number, and what is too large for anything.

    Returns:
        int16 of the same shape, and warnings.

    Raises:
        InputError: if the values cannot be HU.
    """
    infinite, warnings = _infinite(values, path)
    padding, padding_warnings = _unsigned_padding(values, unsigned)
    corners, corner_warnings = _corner_padding(values, infinite | padding)
    padding |= corners
    padding_warnings += corner_warnings
    replaced = infinite | padding
    original = values
    if replaced.any():
        original = values[~replaced]
    if not original.size:
        raise InputError("holds nothing but padding", path)
    warnings += padding_warnings + _check_hu(original, path)
    with np.errstate(invalid="ignore"):  # NaN, which is replaced below
        rounded = values
        if values.dtype.kind == "f":
            rounded = np.rint(values)
        hu = np.clip(rounded, AIR_HU, LARGEST_HU).astype(np.int16)
    hu[replaced] = AIR_HU
    return hu, warnings


def _infinite(values: np.ndarray, path: Path | str) -> tuple[np.ndarray, list[str]]:
    """Which values are no number, bool of their shape; and a warning that counts them."""
    if values.dtype.kind != "f":
        return _nowhere(values), []
    infinite = ~np.isfinite(values)
    count = int(np.count_nonzero(infinite))
    if count == values.size:
        raise InputError("holds no finite value", path)
    if not count:
        return infinite, []
    return infinite, [f"{count} voxels are NaN or infinite, taken as air ({AIR_HU} HU)"]


def _nowhere(values: np.ndarray) -> np.ndarray:
    """False for every value, laid out in memory as they are: NIfTI's first axis is the fastest, and two masks of
    different orders take ten times as long to join."""
    return np.zeros_like(values, bool, subok=False)


def _unsigned_padding(values: np.ndarray, unsigned: bool) -> tuple[np.ndarray, list[str]]:
    """Which values are padding stored unsigned, bool of their shape; and a warning that counts them."""
    high = values > MOST_METAL_HU
    if not high.any():
        return high, []
    finite = np.isfinite(values)
    padding = high & finite
    if not unsigned:
        least, most = _WRAPPED_16
        wrapped = (values >= least) & (values <= most)
        padding = wrapped | (finite & (values >= _FILL_VALUE))
    warnings = []
    if count := int(np.count_nonzero(padding)):
        shown = ", ".join(f"{value:.10g}" for value in np.unique(values[padding])[:3])
        what = f"{count} voxels of {shown} HU, more than any metal has, are padding stored without its sign"
        warnings.append(f"{what} or a fill value: taken as air ({AIR_HU} HU)")
    beyond = finite & (values > LARGEST_HU) & ~padding
    if count := int(np.count_nonzero(beyond)):
        warnings.append(f"{count} voxels above {LARGEST_HU} HU are cut off there")
    return padding, warnings


def _corner_padding(values: np.ndarray, replaced: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Which values are padding that looks like metal, bool of their shape; and a warning that counts them.

    All corners of a volume hold one value that only metal or the densest bone has. What hangs together with them has
    it, too; elsewhere in the volume it may be metal.
    """
    none = _nowhere(values)
    at_corners = values[np.ix_(*[[0, -1]] * values.ndim)] if values.size else values
    value = at_corners.flat[0] if at_corners.size else np.nan
    if not np.all(at_corners == value) or not value > DENSEST_BONE_HU or replaced.flat[0]:
        return none, []
    pieces, _ = ndimage.label(values == value)
    named = np.unique(pieces[np.ix_(*[[0, -1]] * values.ndim)])
    padding = np.isin(pieces, named)
    if padding.all():
        return none, []
    count = int(np.count_nonzero(padding))
    text = f"{count} voxels of {value:.10g} HU reach into all corners: padding, taken as air ({AIR_HU} HU)"
    return padding, [text]


def _check_hu(values: np.ndarray, path: Path | str) -> list[str]:
    """Raises InputError if the values cannot be HU; warns if that is doubtful.

    HU have air at -1000, or, if only the brain is left, fluid and noise below 0 and a background of 0. Cormack
    units, values whose intercept of -1024 was lost, 8-bit greys, MRI and probabilities never fall below zero.
    """
    low = float(values.min())
    high = float(values.max())
    refusal = f"values from {low:.6g} to {high:.6g} are not Hounsfield units"
    if low >= 0:
        raise InputError(f"{refusal} ({_what_is_not_negative(high)}: none is below zero)", path, _TO_HU)
    if low > -200 and high - low < 50:
        raise InputError(f"{refusal} (the range is too small)", path, _TO_HU)
    sample = values.ravel(order="K")[:: max(1, values.size // _SAMPLE)]
    air = (sample > _AIR[0]) & (sample < _AIR[1])
    if np.mean(air) > _AIR_SHARE:
        return []
    # As float64: the sum of two numbers near the end of float32, as in a median, is infinite.
    positive = sample[sample > 0].astype(float)
    if positive.size and np.median(positive) > 500:
        raise InputError(f"{refusal} (no air at -1000, and most of the rest above 500)", path, _TO_HU)
    return ["no air near -1000 HU in this volume: cut out of its surroundings, or not HU"]


def _what_is_not_negative(high: float) -> str:
    """A guess at what a volume from 0 to `high` is."""
    if high <= 1.5:
        return "a probability or a label"
    if high <= 255:
        return "8-bit greys or labels"
    return "perhaps Cormack units, or the intercept of -1024 was lost"


def labels(values: np.ndarray, step: float | None, path: Path | str) -> tuple[np.ndarray, list[str]]:
    """The values of a mask as whole numbers.

    A mask that was computed as floats and saved under an integer header comes back as 0.988 or 1.00005: each value lies
    within half a step of the header's scaling. Such values are rounded, if steps are small enough to tell labels apart.

    Args:
        values: of any shape and real type.
        step: how far apart the values are that the header's scaling can hold, or None if it does not scale.
        path: of the file, for messages.

    Returns:
        uint8 of the same shape, and a warning if anything was rounded.

    Raises:
        InputError: for values that are not whole numbers from 0 to 255.
    """
    whole = values
    warnings: list[str] = []
    if values.dtype.kind == "f":
        whole, warnings = _rounded(values, step, path)
    if not (whole.min() >= 0 and whole.max() <= 255):
        raise _no_labels(values, path)
    return whole.astype(np.uint8), warnings


def _rounded(values: np.ndarray, step: float | None, path: Path | str) -> tuple[np.ndarray, list[str]]:
    """Floats as whole numbers, and a warning if any was off. Raises InputError if one is too far off."""
    if not np.isfinite(values).all():
        raise _no_labels(values, path)
    whole = np.rint(values)
    off = float(np.abs(values - whole).max())
    if off == 0:
        return whole, []
    allowed = _ROUNDING
    reason = "the rounding of floats"
    if step is not None:
        reason = f"the step of its header's scaling, {step:.3g}"
        # Larger steps could not tell one label from the next.
        if step <= 0.5:
            allowed = max(allowed, 0.5 * step * 1.001)
    if off > allowed:
        raise _no_labels(values, path)
    return whole, [f"mask values up to {off:.2g} off whole numbers were rounded, within {reason}"]


def _no_labels(values: np.ndarray, path: Path | str) -> InputError:
    is_label = (values >= 0) & (values <= 255) & (values == np.rint(values))
    odd = values[~is_label]
    shown = ", ".join(f"{value:.6g}" for value in np.unique(odd)[:5])
    todo = "round it, store it as uint8 without scaling, and try again (a probability: cut it at a threshold first)"
    return InputError(f"a mask holds whole numbers from 0 to 255, not values like these: {shown}", path, todo)
