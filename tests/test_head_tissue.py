"""Level, shading and noise of the brain, against what the phantom's scanner was told to do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hemotorch.head import cranial_space, enclosed
from hemotorch.head.tissue import brain_level, bright_ml, noise_hu, odd_level
from hemotorch.io import read_scan
from hemotorch.phantom import make_case
from hemotorch.phantom.presets import preset
from hemotorch.scan import even_scan


@pytest.fixture(scope="module")
def cases():
    """A few patients, with and without bleeding."""
    return [make_case("small", index, 7) for index in (0, 2, 3, 9, 13, 21)]


def test_noise_is_the_scanners(cases):
    for case in cases:
        assert noise_hu(case.scan) == pytest.approx(case.protocol.noise_hu, rel=0.3), case.scan.name
    assert np.ptp([case.protocol.noise_hu for case in cases]) > 8


def test_the_level_follows_the_scanner_and_its_shading(cases):
    scan = cases[0].scan
    median = brain_level(scan).median
    soft = (scan.hu > -200) & (scan.hu < 300)
    brighter = replace(scan, hu=(scan.hu + 9 * soft).astype(np.int16))
    assert brain_level(brighter).median == pytest.approx(median + 9, abs=0.6)
    rows = np.linspace(-18, 18, scan.shape[1])[:, None]
    shaded = replace(scan, hu=(scan.hu + np.rint(rows) * soft).astype(np.int16))
    plain, tilted = brain_level(scan), brain_level(shaded)
    middle = len(scan.hu) // 2
    size = scan.shape[1:]
    found = tilted.on_slice(middle, size) - plain.on_slice(middle, size)
    inside = enclosed(scan)[middle]
    assert found[inside] == pytest.approx(np.broadcast_to(rows, size)[inside], abs=5)
    assert np.corrcoef(found[inside], np.broadcast_to(rows, size)[inside])[0, 1] > 0.98


def test_a_lost_slope_is_said(cases):
    for case in cases:
        assert odd_level(case.scan) == ""
        for factor in (0.5, 2.0):
            hu = np.clip(case.scan.hu * factor, -1024, 32767).astype(np.int16)
            assert "is the rescale slope right?" in odd_level(replace(case.scan, hu=hu)), (case.scan.name, factor)


def test_bleeding_does_not_pull_the_level_up(cases):
    for case in cases:
        level = brain_level(case.scan)
        brain = case.scan.hu[case.inside & (case.mask == 0)]
        assert level.median == pytest.approx(np.median(brain[(brain > 0) & (brain < 80)]), abs=3)


def test_what_has_no_brain_has_no_level():
    water = even_scan(np.zeros((6, 64, 64), np.int16), 2.0, 5.0)
    assert brain_level(water) is None and np.isnan(noise_hu(water)) and np.isnan(bright_ml(water))
    assert not cranial_space(water).any()


def test_the_space_inside_the_skull_is_nearly_the_phantoms(cases):
    *closed, _, last = cases
    for case in (*closed, last):
        found = cranial_space(case.scan)
        dice = 2 * np.count_nonzero(found & case.inside) / (found.sum() + case.inside.sum())
        assert dice > 0.93, case.scan.name
        assert np.count_nonzero(found & ~case.inside) < 0.03 * case.inside.sum()


def test_nothing_is_said_of_a_skull_whose_ring_is_open(cases):
    scan = cases[0].scan
    assert cranial_space(scan).any()
    hu = scan.hu.copy()
    hu[: len(hu) // 2, scan.shape[1] // 2 :] = -1000  # the back of the head is outside the picture
    assert not cranial_space(replace(scan, hu=hu)).any()


def test_large_clots_are_seen_and_a_normal_real_head_has_none(shared_data):
    assert bright_ml(read_scan(shared_data / "head-ct-nifti" / "head.nii.gz")) < 4
    assert bright_ml(read_scan(shared_data / "head-ct-painted" / "painted3.nii.gz")) > 40
    assert bright_ml(make_case(preset("small"), 21, 7).scan) > 4
