"""Hounsfield units against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hemotorch import hu
from hemotorch.errors import OptionError


def test_from_attenuation() -> None:
    # water 0.19 /cm at 70 keV: water is 0 HU, air -1000, and 5 % more attenuation than water 50
    assert hu.from_attenuation(0.19, 0.19, 0.0) == 0
    assert hu.from_attenuation(0.0, 0.19, 0.0) == -1000
    assert hu.from_attenuation(0.1995, 0.19, 0.0) == pytest.approx(50)
    # air that attenuates a little: 1000 (0.3 - 0.2) / (0.2 - 0.0002)
    np.testing.assert_allclose(hu.from_attenuation(np.array([0.0002, 0.2, 0.3]), 0.2, 0.0002), [-1000, 0, 500.5005])
    assert torch.allclose(hu.from_attenuation(torch.tensor([0.0, 0.4]), 0.2, 0.0), torch.tensor([-1000.0, 1000.0]))


def test_water_must_attenuate_more_than_air() -> None:
    with pytest.raises(OptionError, match="must be above that of air"):
        hu.from_attenuation(0.2, 0.1, 0.1)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("brain", -20, 100),
        ("brain-narrow", 0, 80),
        ("subdural", -32.5, 182.5),
        ("stroke", 28, 36),
        ("blood", 20, 90),
        ("bone", -800, 2000),
        ("bone-hssayeni", -900, 2300),
    ],
)
def test_named_windows(name: str, low: float, high: float) -> None:
    window = hu.window(name)
    assert window.bounds == (low, high) == hu.window_bounds(window.level, window.width)
    assert window.source
    assert name in hu.WINDOWS


def test_every_window_is_tested_and_unknown_ones_name_the_nearest() -> None:
    assert len(hu.WINDOWS) == 7
    with pytest.raises(OptionError, match="did you mean 'subdural'"):
        hu.window("subdual")


@pytest.mark.parametrize("width", [0, -1, math.nan])
def test_width_must_be_above_zero(width: float) -> None:
    with pytest.raises(OptionError, match="width"):
        hu.window_bounds(40, width)


VALUES = [-3024, -1024, -21, -20, -19, 10, 40, 70, 99, 100, 101, 3071]
EXPECTED = [0, 0, 0, 0, 1 / 120, 0.25, 0.5, 0.75, 119 / 120, 1, 1, 1]


def test_window_by_hand() -> None:
    np.testing.assert_allclose(hu.apply_window(np.array(VALUES, np.int16), 40, 120), EXPECTED, atol=1e-7)
    assert hu.apply_window(40, 40, 120) == 0.5


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.float16, torch.bfloat16, torch.float32])
def test_torch_and_numpy_agree(dtype: torch.dtype) -> None:
    values = torch.tensor(VALUES).to(dtype)  # bfloat16 rounds some of them: both sides get the rounded ones
    windowed = hu.apply_window(values, 40, 120)
    assert windowed.dtype == torch.float32
    expected = hu.apply_window(values.to(torch.float64).numpy(), 40, 120)
    assert expected.dtype == np.float64
    np.testing.assert_allclose(windowed.numpy(), expected, atol=1e-6)


def test_half_precision_is_computed_in_single() -> None:
    # 96 - (-20) = 116, over 120: bfloat16 would give 0.96875 or 0.9648, not 0.96667
    windowed = hu.apply_window(torch.tensor([96.0], dtype=torch.bfloat16), 40, 120)
    assert windowed.item() == pytest.approx(116 / 120, abs=1e-6)


def test_double_stays_double() -> None:
    values = torch.linspace(-100, 200, 50, dtype=torch.float64)
    windowed = hu.apply_window(values, 40, 120)
    assert windowed.dtype == torch.float64
    np.testing.assert_allclose(windowed.numpy(), hu.apply_window(values.numpy(), 40, 120), atol=1e-15)


def test_grey_and_back() -> None:
    grey = hu.to_grey(np.array([-500, -20, 40, 100, 900], np.int16), 40, 120)
    assert grey.dtype == np.uint8
    assert grey.tolist() == [0, 0, 128, 255, 255]  # 127.5 goes to the even neighbour
    inside = np.arange(-20, 101, dtype=np.int16)
    back = hu.from_grey(hu.to_grey(inside, 40, 120), 40, 120)
    assert back.dtype == np.int16
    assert np.array_equal(back, inside)  # a grey step is 0.47 HU, so every whole HU comes back
    wide = np.arange(-900, 2301, dtype=np.int16)
    back = hu.from_grey(hu.to_grey(wide, 700, 3200), 700, 3200).astype(int)
    assert np.abs(back - wide).max() <= 7  # half a step of 12.5, rounded


def test_every_grey_comes_back() -> None:
    grey = np.arange(256, dtype=np.uint8)
    assert np.array_equal(hu.to_grey(hu.from_grey(grey, 700, 3200), 700, 3200), grey)
