"""The two ways of scanning against each other, and both against what a filtered back-projection must do."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from hemotorch.phantom import projection, scanner
from hemotorch.phantom.fields import Noise, Points, ellipsoid, generator, grid_noise, tube
from hemotorch.phantom.presets import PRESETS, preset
from hemotorch.phantom.scanner import Kernel, Protocol

SIZE, PIXEL, RADIUS, NOISE = 128, 1.0, 46.0, 4.0
SOFT, SHARP = Kernel(0.42, 0.2, 0.0), Kernel(0.8, 0.4, 0.0)


def protocol(kernel: Kernel) -> Protocol:
    drawn = Protocol.sample(generator(1), PRESETS["small"])
    return replace(drawn, size_px=SIZE, pixel_mm=PIXEL, kernel=kernel, noise_hu=NOISE, hardening=1.0)


def disc() -> np.ndarray:
    """A water-like disc of 30 HU in air, its edge smoothed over one pixel."""
    y, x = (np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2) * PIXEL
    return (np.clip(RADIUS - np.hypot(x, y) + 0.5, 0, 1) * 1030 - 1000).astype(np.float32)


def projected(kernel: Kernel, count: int, noise: float = NOISE) -> np.ndarray:
    p = replace(protocol(kernel), noise_hu=noise)
    photons = projection.photons_for(noise, p, path_mm=2 * RADIUS * 0.93)
    return np.stack([projection.scanned(disc(), p, photons, generator(7, k)) for k in range(count)])


def spectrum(noise: np.ndarray, bands: int = 7) -> np.ndarray:
    """Share of the noise power in rings of frequency, from zero to 7/8 of what the pixels can hold."""
    power = np.mean([np.abs(np.fft.fft2(n - n.mean())) ** 2 for n in noise], axis=0)
    f = np.hypot(np.fft.fftfreq(len(power))[:, None], np.fft.fftfreq(len(power))[None])
    edges = np.linspace(0.02, 0.4375, bands + 1)
    rings = np.array([power[(f >= a) & (f < b)].mean() for a, b in pairwise(edges)])
    return rings / rings.sum()


@pytest.fixture(scope="module")
def both():
    """Noise spectra of either way for a soft and a sharp kernel."""
    middle = slice(SIZE // 2 - 24, SIZE // 2 + 24)
    out = {}
    for name, kernel in (("soft", SOFT), ("sharp", SHARP)):
        slow = projected(kernel, 10)
        slow = (slow - slow.mean(axis=0))[:, middle, middle] * np.sqrt(10 / 9)
        quick = np.stack([scanner.texture(generator(3, k), SIZE, kernel, PIXEL) for k in range(24)]) * NOISE
        out[name] = spectrum(slow), spectrum(quick[:, middle, middle]), slow.std()
    return out


def test_both_ways_give_noise_of_the_same_spectrum(both):
    for name, (slow, quick, level) in both.items():
        assert slow == pytest.approx(quick, rel=0.22), name
        assert level == pytest.approx(NOISE, rel=0.25), name


def test_the_spectrum_test_can_fail(both):
    """The two kernels differ by more than the test allows, and so does white noise."""
    white = spectrum(generator(5).standard_normal((24, 48, 48)))
    for wrong in (white, both["sharp"][1]):
        assert np.abs(wrong / both["soft"][0] - 1).max() > 0.5


def test_both_ways_give_edges_of_the_same_blur():
    """Width from 10 to 90 % of the disc's edge."""

    def width(image: np.ndarray) -> float:
        y, x = (np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2) * PIXEL
        r, values = np.hypot(x, y).ravel(), (image.ravel() + 1000) / 1030
        bins = np.arange(RADIUS - 8, RADIUS + 8, 0.5)
        line = np.array([values[(r >= b) & (r < b + 0.5)].mean() for b in bins])
        return float(np.interp(-0.1, -line, bins) - np.interp(-0.9, -line, bins))

    for kernel in (SOFT, SHARP):
        slow, quick = projected(kernel, 1, noise=0.05)[0], scanner.blurred(disc(), kernel, PIXEL, 0.01)
        assert width(slow) == pytest.approx(width(quick), rel=0.15)
    assert width(scanner.blurred(disc(), SOFT, PIXEL, PIXEL)) > 1.15 * width(
        scanner.blurred(disc(), SHARP, PIXEL, PIXEL)
    )


def test_projection_keeps_hu_without_a_pattern_of_its_own():
    middle = slice(SIZE // 2 - 20, SIZE // 2 + 20)
    inner = projected(SHARP, 1, noise=0.02)[0][middle, middle]
    assert inner.mean() == pytest.approx(30, abs=4)
    checkers = (-1) ** np.add.outer(np.arange(40), np.arange(40))
    assert abs((inner * checkers).mean()) < 0.3 and inner.std() < 2.5


def test_line_integrals_of_a_disc_are_its_chords():
    angles = np.linspace(0, np.pi, 7, endpoint=False)
    views = projection.project((disc() + 1000) / 1030, angles)
    t = np.arange(SIZE) - (SIZE - 1) / 2
    chords = 2 * np.sqrt(np.maximum(RADIUS**2 - t**2, 0))
    assert np.abs(views - chords)[:, np.abs(t) < RADIUS - 3].max() < 0.012 * 2 * RADIUS


def test_bone_darkens_what_lies_between_in_both_ways():
    """Beam hardening: the band between two petrous-like blocks is darker than brain away from it."""
    y, x = (np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2) * PIXEL
    image = disc()
    image[(np.abs(y) < 8) & (np.abs(np.abs(x) - 28) < 9)] = 1500
    band = (np.abs(y) < 4) & (np.abs(x) < 12)
    away = (np.abs(y - 28) < 5) & (np.abs(x) < 10)
    p = replace(protocol(SOFT), motion_mm=0.0, metal=False, noise_hu=0.05, hardening=2.0)
    slow = projection.scanned(image, p, 1e9, generator(2))
    quick = scanner.finish(np.stack([image] * 2), p, PIXEL)[0]
    for name, out in (("projected", slow), ("fast", quick)):
        assert out[band].mean() < out[away].mean() - 1.5, name


def test_shading_is_a_smooth_field_over_soft_tissue_alone():
    hu = np.tile(disc(), (9, 1, 1))
    hu[:, :20] = 900
    p = replace(protocol(SOFT), shading_hu=10.0)
    assert scanner.shaded(hu, replace(p, shading_hu=0.0)) is hu
    added = scanner.shaded(hu, p) - hu
    soft = (hu >= -200) & (hu <= 300)
    assert not added[~soft].any() and np.count_nonzero(added[soft]) > 0.99 * soft.sum()
    # scipy's own spline through all three axes, outer nodes on outer voxels.
    nodes = scanner.shaded(np.zeros((3, 4, 4), np.float32), p)
    expected = ndimage.zoom(nodes, (9 / 3, SIZE / 4, SIZE / 4), order=3, mode="nearest")
    assert np.abs(added - expected)[soft].max() < 1e-3
    levels = []
    for seed in range(400):
        levels.append(scanner.shaded(np.zeros((3, 4, 4), np.float32), replace(p, seed=seed)).std())
    assert np.mean(np.square(levels)) == pytest.approx(10.0**2, rel=0.05)


def test_less_even_scanners_are_drawn_apart_from_everything_else():
    usual = Protocol.sample(generator(1), PRESETS["small"])
    assert scanner.less_even(usual, generator(2), PRESETS["small"]) is usual
    asked = preset("small", shading_hu=15, offset_hu=10)
    drawn = [scanner.less_even(usual, generator(2, k), asked) for k in range(500)]
    shading = np.array([p.shading_hu for p in drawn])
    offset = np.array([p.level_hu for p in drawn]) - usual.level_hu
    assert shading.min() < 0.5 and 14.5 < shading.max() <= 15 and shading.mean() == pytest.approx(7.5, abs=0.7)
    assert -10 <= offset.min() < -9.5 and 9.5 < offset.max() <= 10
    assert all(replace(p, shading_hu=0.0, level_hu=usual.level_hu) == usual for p in drawn)


def test_a_tilt_correction_mixes_rows_of_neighbouring_slices():
    ramp = np.arange(6, dtype=np.float32)[:, None, None] * np.ones((1, 8, 4), np.float32)
    p = replace(protocol(SOFT), tilt_deg=20.0, pixel_mm=2.0, slice_mm=5.0)
    mixed = scanner.mixed_slices(ramp, p)
    back = (np.arange(8) - 3.5) * 2.0
    assert mixed[3, :, 0] == pytest.approx(3 + back * np.tan(np.radians(20)) / 5, abs=1e-4)


def test_noise_fields_have_their_size_and_shapes_their_distance():
    rng = generator(3)
    line = np.linspace(0, 400, 8000, dtype=np.float32)
    crossings = np.mean(
        [np.mean(np.diff(np.sign(Noise(rng, 12.0).at(line, 0 * line + k, 0 * line))) != 0) for k in range(12)]
    )
    assert 1 / (crossings * 8000 / 400) == pytest.approx(12, rel=0.2)
    assert grid_noise(rng, (20, 60, 60), (2.0, 1.0, 1.0), 15.0).std() == pytest.approx(1, rel=0.4)
    at = np.array([[10.0, 0, 0], [0, 13.0, 0], [0, 0, 2.0]], np.float32)
    p = Points(at[:, 0], at[:, 1], at[:, 2], 1.0)
    assert ellipsoid(p, (0, 0, 0), (8, 10, 5)) == pytest.approx([2, 3, -3], rel=0.35)
    assert tube(p, ((0, 0, -50, 1), (0, 0, 50, 1))) == pytest.approx([9, 12, -1], abs=1e-4)
