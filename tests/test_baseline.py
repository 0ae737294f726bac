"""The rule-based baseline on heads simple enough to know what it must find."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hemotorch.evaluation.counts import count
from hemotorch.inference.baseline import RuleBaseline
from hemotorch.io import read_mask, read_scan
from hemotorch.scan import Scan, even_scan

BLOOD, BRAIN, BONE, AIR = 70, 32, 900, -1000


def head(pixel_mm: float = 1.2, noise: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """HU (12, rows, columns) of an egg of brain in a skull in a scalp on a table, slices 5 mm; and its radius map."""
    side = round(230 / pixel_mm)
    z, y, x = np.ogrid[:12, :side, :side]
    middle = (side - 1) / 2
    radius = np.sqrt(
        ((y - middle) * pixel_mm / 90) ** 2 + ((x - middle) * pixel_mm / 72) ** 2 + ((z - 2) * 5 / 90) ** 2
    )
    hu = np.full(radius.shape, AIR, float)
    hu[radius < 1.08] = 20
    hu[radius < 1.0] = BONE
    hu[radius < 0.92] = BRAIN
    hu[:, round(side * 0.94) :, round(side * 0.2) : round(side * 0.8)] = 60  # the table, as bright as blood
    soft = hu > AIR
    hu[soft] += np.random.default_rng(0).normal(0, noise, np.count_nonzero(soft))
    return hu, radius


def with_ball(hu: np.ndarray, radius: np.ndarray, pixel_mm: float, size_mm: float) -> np.ndarray:
    """Paints a ball of blood of that radius beside the middle, 5 mm slices; returns its mask."""
    z, y, x = np.ogrid[: len(hu), : hu.shape[1], : hu.shape[2]]
    middle = (hu.shape[1] - 1) / 2
    away = np.sqrt(((y - middle) * pixel_mm) ** 2 + ((x - middle) * pixel_mm - 30) ** 2 + ((z - 4) * 5) ** 2)
    ball = (away < size_mm) & (radius < 0.9)
    hu[ball] += BLOOD - BRAIN
    return ball


@pytest.mark.parametrize("pixel_mm", [0.6, 1.2])
def test_a_bleeding_is_outlined_and_the_table_is_not(pixel_mm: float) -> None:
    hu, radius = head(pixel_mm)
    ball = with_ball(hu, radius, pixel_mm, 15)
    scan = even_scan(hu.astype(np.int16), pixel_mm, 5)
    found = RuleBaseline().predict(scan)
    assert found.mask.shape == scan.shape and found.mask.dtype == np.uint8 and found.probability is None
    assert count(ball, found.mask).dice > 0.9
    assert not found.mask[radius >= 0.92].any(), "nothing in bone, scalp, air or table"
    assert found.volume_ml["total"] == pytest.approx(scan.volume_ml(ball), rel=0.15)


def test_a_normal_head_stays_empty_and_small_pieces_are_dropped_by_ml() -> None:
    hu, radius = head()
    assert not RuleBaseline().predict(even_scan(hu.astype(np.int16), 1.2, 5)).mask.any()
    small = with_ball(hu, radius, 1.2, 4)
    scan = even_scan(hu.astype(np.int16), 1.2, 5)
    assert 0.1 < scan.volume_ml(small) < 0.5
    assert not RuleBaseline().predict(scan).mask.any()
    assert RuleBaseline(min_ml=0.1, open_mm=1.2).predict(scan).mask[small].any()


def test_thin_bright_lines_are_opened_away() -> None:
    hu, radius = head(0.6, noise=0)
    middle = hu.shape[2] // 2
    line = (radius < 0.9) & (np.abs(np.arange(hu.shape[2]) - middle) <= 1)
    hu[line] = 80  # a falx of 1.8 mm
    scan = even_scan(hu.astype(np.int16), 0.6, 5)
    assert not RuleBaseline(open_mm=3).predict(scan).mask.any()
    assert RuleBaseline(open_mm=0.6).predict(scan).mask.any()


def test_no_skull_one_slice_and_unknown_spacing_are_handled() -> None:
    hu, radius = head()
    ball = with_ball(hu, radius, 1.2, 15)
    scan = even_scan(hu.astype(np.int16), 1.2, 5)
    bare = even_scan(np.where(radius < 0.9, hu, 0).astype(np.int16), 1.2, 5)
    found = RuleBaseline().predict(bare)
    assert not found.mask.any() and any("no skull" in text for text in found.warnings)
    one = Scan(scan.hu[4:5], scan.slice_origins_mm[4:5], scan.row_step_mm, scan.column_step_mm)
    assert count(ball[4:5], RuleBaseline().predict(one).mask).dice > 0.9
    unknown = replace(scan, spacing_known=False)
    found = RuleBaseline().predict(unknown)
    assert np.isnan(found.volume_ml["total"]) and count(ball, found.mask).sensitivity > 0.8


def test_it_finds_painted_bleeding_in_a_real_head(shared_data: Path) -> None:
    scan = read_scan(shared_data / "head-ct-painted" / "painted1.nii.gz")
    truth = read_mask(shared_data / "head-ct-painted" / "painted1_mask.nii.gz", scan)
    assert count(truth, RuleBaseline().predict(scan).mask).dice > 0.4
