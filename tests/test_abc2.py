"""ABC/2 against ellipsoids whose volume is known, and its rules for slices."""

from __future__ import annotations

import numpy as np
import pytest

from hemotorch.inference.abc2 import abc2
from hemotorch.inference.study import record_of
from hemotorch.io.dicom.amounts import amounts_of
from hemotorch.scan import Prediction, Scan, even_scan, upright_scan

PIXEL_MM = 0.5


def ellipsoid(half_mm: tuple[float, float, float], slice_mm: float, angle: float = 0.0) -> tuple[Scan, np.ndarray]:
    """A scan and a mask of an ellipsoid: half its height, length and width; its length turned in the slices."""
    height, length, width = half_mm
    z = (np.arange(30) - 14.5)[:, None, None] * slice_mm
    rows, columns = (np.mgrid[:200, :200] - 99.5) * PIXEL_MM
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = columns * np.cos(angle) - rows * np.sin(angle)
    mask = (z / height) ** 2 + (along / length) ** 2 + (across / width) ** 2 < 1
    return even_scan(np.zeros(mask.shape, np.int16), PIXEL_MM, slice_mm), mask.astype(np.uint8)


@pytest.mark.parametrize("angle", [0.0, 0.6, 1.3])
def test_of_an_ellipsoid_it_is_the_volume_but_for_pi(angle: float) -> None:
    scan, mask = ellipsoid((20.0, 30.0, 15.0), 2.0, angle)
    made = abc2(scan, mask)
    assert made is not None
    assert (
        made.of_ml
        == pytest.approx(scan.volume_ml(mask))
        == pytest.approx(4 / 3 * np.pi * 20 * 30 * 15 / 1000, rel=0.01)
    )
    assert made.a_mm == pytest.approx(60, rel=0.02) and made.b_mm == pytest.approx(30, rel=0.03)
    # Of an ellipsoid's slices those within half its half height hold over 75 %, those to 0.866 of it over 25 %.
    assert made.c_mm == pytest.approx(20 * (2 * 0.5 + 0.366), rel=0.1)
    assert made.ml == pytest.approx(made.a_mm * made.b_mm * made.c_mm / 2000)


def test_it_is_of_the_largest_piece_whatever_its_type() -> None:
    scan, mask = ellipsoid((10.0, 20.0, 15.0), 2.0)
    alone = abc2(scan, mask)
    mask[:, :100] *= 5  # two types that touch are one piece
    mask[14, 5:12, 5:12] = 2
    assert abc2(scan, mask) == alone


def test_uneven_slices_count_with_their_own_thickness() -> None:
    hu = np.zeros((4, 40, 40), np.int16)
    mask = np.zeros(hu.shape, np.uint8)
    mask[1, 10:30, 10:30], mask[2, 10:20, 10:30], mask[3, 10:12, 10:12] = 1, 1, 1
    scan = upright_scan(hu, 1.0, np.array([0.0, 4.0, 8.0, 14.0]))
    made = abc2(scan, mask)
    assert made is not None
    assert made.c_mm == pytest.approx(4.0 + 0.5 * 5.0), "the whole slice, half of that with 50 %, none of that with 1 %"
    assert made.a_mm == pytest.approx(20 * np.sqrt(2)) and made.b_mm == pytest.approx(20 * np.sqrt(2))


def test_the_longest_line_of_the_record_is_that_of_the_report() -> None:
    scan, mask = ellipsoid((10.0, 20.0, 15.0), 2.0)
    mask[12:16, 180:183, 5:190] = 1  # a thin piece, less of it but longer, and in a slice of its own the longest
    mask[20, 20:24, 2:199] = 1
    prediction = Prediction(scan, mask, None, {"total": scan.volume_ml(mask)}, "drawn by hand")
    record = record_of(prediction, "a")
    (amount,) = amounts_of(prediction)
    assert record.longest_mm == pytest.approx(amount.longest_mm, abs=0.0005)
    assert record.longest_mm == pytest.approx(PIXEL_MM * np.hypot(4, 197), abs=0.0005)
    by_hand = abc2(scan, mask)
    assert by_hand is not None and by_hand.a_mm == pytest.approx(40, rel=0.03), "ABC/2 is of the largest piece alone"


def test_a_and_b_are_of_one_area_of_the_slice() -> None:
    """A piece that two slices join has two areas in the slice between: no line is drawn from one to the other."""
    scan = even_scan(np.zeros((3, 60, 60), np.int16), 1.0, 5.0)
    mask = np.zeros(scan.shape, np.uint8)
    mask[0, 30, 5:55] = 1
    mask[1, 20:40, 5:15], mask[1, 20:40, 45:55] = 1, 1
    made = abc2(scan, mask)
    assert made is not None
    assert made.a_mm == pytest.approx(np.hypot(20, 10)) and made.b_mm < 20


def test_without_bleeding_or_without_millimetres_there_is_none() -> None:
    scan, mask = ellipsoid((10.0, 20.0, 15.0), 2.0)
    assert abc2(scan, mask * 0) is None
    assert abc2(even_scan(scan.hu, 1, 1, spacing_known=False), mask) is None
