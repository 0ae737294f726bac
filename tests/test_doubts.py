"""What speaks against a prediction: each doubt where it belongs, and none about what was seen."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from hemotorch.grid import SliceSpacing
from hemotorch.head import check_head
from hemotorch.inference.deployment import Deployment
from hemotorch.inference.doubts import Answer, doubts_about, outside_by_network
from hemotorch.inference.outputs import write_prediction
from hemotorch.inference.predictor import Predictor
from hemotorch.inference.second_look import SecondLook
from hemotorch.inference.seen import Seen
from hemotorch.io import read_scan
from hemotorch.recipe import GridSection, Predict, Tiles
from hemotorch.task import BLEEDING, TYPED

SPACING = SliceSpacing(6.0, 2.0, 9.0)


class Bright:
    """Calls bleeding what is over 58 HU and under 100, on a mean of three by three pixels: a network's worst habit."""

    multiple = 1
    spacings = (SPACING,)

    def batch(self, rows, columns):
        """All at once."""
        return 100

    def probabilities(self, hu, positions_mm=None, slices=None):
        """See `Model`."""
        chosen = hu if slices is None else hu[list(slices)]
        values = np.clip(chosen, -200, 300).astype(np.float32)
        padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="edge")
        size = values.shape[1:]
        mean = sum(padded[:, r : r + size[0], c : c + size[1]] for r in range(3) for c in range(3)) / 9
        return ((mean > 58) & (mean < 100)).astype(np.float32)[None]

    def without_mirror(self):
        """Itself."""
        return self


@pytest.fixture(scope="module")
def predictor():
    """A predictor whose model takes bright for bleeding."""
    deployment = Deployment("bleeding", GridSection(), Tiles(), Predict(min_ml=0.5), "auto", SPACING, "bright")
    return Predictor(Bright(), deployment)


@pytest.fixture(scope="module")
def cases(small_cases):
    """Patients with and without bleeding."""
    return small_cases


def _changed(scan, change):
    soft = (scan.hu > -200) & (scan.hu < 300)
    hu = np.clip(scan.hu + np.rint(change * soft), -1024, 3071)
    return replace(scan, hu=hu.astype(np.int16))


def _codes(scan, mask=None, seen=None):
    outlined = np.zeros(scan.shape, np.uint8) if mask is None else mask
    return {doubt.code for doubt in doubts_about(scan, Answer(outlined), seen or Seen(), (SPACING,))}


def test_phantoms_of_usual_scanners_are_not_doubted(cases):
    assert [_codes(case.scan, case.mask) for case in cases] == [set()] * len(cases)


def test_a_real_head_with_its_true_mask_is_not_doubted(shared_data):
    folder = shared_data / "head-ct-painted"
    scan = read_scan(folder / "painted3.nii.gz")
    assert _codes(scan) == set()


def test_each_change_has_its_doubt_and_its_number(cases):
    for case in cases:
        scan = case.scan
        rows = np.linspace(-18, 18, scan.shape[1])[None, :, None]
        noise = np.random.default_rng(1).normal(0, 24, scan.shape)
        assert "level" in _codes(_changed(scan, 40))
        assert "level" in _codes(_changed(scan, -30)) or "no-brain" in _codes(_changed(scan, -30))
        assert "shading" in _codes(_changed(scan, rows))
        assert "noise" in _codes(_changed(scan, noise))
    (doubt,) = (
        d for d in doubts_about(_changed(scan, noise), Answer(case.mask), Seen(), (SPACING,)) if d.code == "noise"
    )
    assert doubt.unit == "HU" and 18 < doubt.value < 32 and f"{doubt.value:.0f} HU" in doubt.text


def test_what_was_seen_is_the_models_own(cases):
    scan = cases[0].scan
    assert _codes(scan, seen=Seen(level_hu=(10.0, 20.0))) == {"level"}
    assert _codes(scan, seen=Seen(noise_hu=1.0, shading_hu=1.0)) == {"noise", "shading"}


def test_parts_contrast_and_slices_are_doubted(cases):
    scan = cases[0].scan
    middle = len(scan.hu) // 2

    def part(first, last):
        origins = scan.slice_origins_mm[first:last]
        return replace(scan, hu=scan.hu[first:last], slice_origins_mm=origins, slice_numbers=(), source=None)

    assert _codes(part(0, middle)) == {"part"} and _codes(part(middle - 3, middle + 3)) == {"part"}
    assert _codes(replace(scan, contrast="the header names it")) == {"contrast"}
    thin = replace(scan, slice_origins_mm=scan.slice_origins_mm * np.array([1, 1, 3.0]))
    assert "slices" in _codes(thin)
    assert _codes(replace(scan, spacing_known=False)) == {"spacing"}


def test_bleeding_outside_the_skull_and_too_much_of_it(cases):
    scan, inside = cases[0].scan, cases[0].inside
    outside = np.zeros(scan.shape, np.uint8)
    outside[5:15, 5:25, 60:130] = 1
    assert "outside" in _codes(scan, outside)
    assert _codes(scan, inside.astype(np.uint8)) == {"volume"}


def _second_look(scan, mask, low, high, agreement=0.9):
    answer = Answer(mask, second=SecondLook((low, high), agreement))
    return [doubt for doubt in doubts_about(scan, answer, Seen(), (SPACING,)) if doubt.code == "unsteady"]


def test_what_depends_on_how_it_is_looked_at_is_doubted(cases):
    case = next(case for case in cases if case.mask.any())
    total = case.scan.volume_ml(case.mask > 0)
    assert not _second_look(case.scan, case.mask, 0.85 * total, 1.15 * total)
    assert not _second_look(case.scan, 0 * case.mask, 0.0, 2.0, agreement=0.0), "nothing was outlined, and little is"
    (doubt,) = _second_look(case.scan, 0 * case.mask, 0.0, 6.0)
    assert doubt.value == 6.0 and "0.0 to 6.0 mL" in doubt.text
    (doubt,) = _second_look(case.scan, case.mask, total, total, agreement=0.4)
    assert "only 40 %" in doubt.text


def test_pieces_of_which_the_model_is_not_sure_are_doubted(cases):
    case = next(case for case in cases if case.scan.volume_ml(case.mask > 0) > 5)
    mask = (case.mask > 0).astype(np.uint8)

    def codes(mask, probability):
        return {doubt.code for doubt in doubts_about(case.scan, Answer(mask, probability), Seen(), (SPACING,))}

    sure = np.where(mask, 0.95, 0.02).astype(np.float32)
    assert not codes(mask, sure) and "faint" in codes(mask, np.where(mask, 0.7, 0.02).astype(np.float32))
    space = np.argwhere(case.inside & (mask == 0))[::400]
    false, probability = mask.copy(), sure.copy()
    for index, row, column in space[:6]:
        block = (index, slice(row, row + 12), slice(column, column + 12))
        false[block], probability[block] = 1, 0.6
    extra = case.scan.volume_ml(false) - case.scan.volume_ml(mask)
    assert ("faint" in codes(false, probability)) == (extra > 0.25 * case.scan.volume_ml(false))


def test_what_is_too_bright_for_blood_is_doubted(cases):
    case = next(case for case in cases if case.scan.volume_ml(case.mask > 0) > 5)
    mask = (case.mask > 0).astype(np.uint8)
    assert _codes(case.scan, mask) == set()
    bone = mask.copy()
    bone[len(mask) // 2] |= case.scan.hu[len(mask) // 2] > 300
    assert "dense" in _codes(case.scan, bone)


def test_what_the_network_itself_has_outside_the_skull_is_counted():
    bleeding = np.zeros((2, 64, 64), np.float32)
    bleeding[0, 10:14, 10:40] = bleeding[1, 30:34, 10:40] = 0.9
    channels = {index: np.zeros((len(TYPED.channels), 64, 64), np.float32) for index in (0, 1)}
    for index in (0, 1):
        free = 1 - bleeding[index]
        channels[index][TYPED.channels.index("outside")] = free * (index == 0)
        channels[index][TYPED.channels.index("inside")] = free * (index == 1)
    ml = outside_by_network(bleeding, channels, TYPED, 0.5, (1.2, 1.2), np.array([0.01, 0.5]))
    assert ml == pytest.approx(4 * 30 * 0.01), "the first slice's alone"
    assert outside_by_network(bleeding, channels, BLEEDING, 0.5, (1.2, 1.2), np.array([0.01, 0.5])) == 0


def test_the_interval_is_about_what_the_shifted_scans_hold(predictor, cases):
    for case in cases:
        result = predictor.predict(case.scan, doubts=True)
        low, high = result.interval_ml
        assert low <= result.volume_ml["total"] <= high
        shifted = predictor.predict(_changed(case.scan, 6)).volume_ml["total"]
        assert (high > result.volume_ml["total"] + 1) >= (shifted > result.volume_ml["total"] + 10)
    plain = predictor.predict(case.scan)
    assert plain.doubts is None and np.array_equal(plain.mask, result.mask)


def test_what_is_outlined_wrongly_by_5_ml_is_doubted_nine_times_of_ten(predictor, cases):
    wrong = doubted = 0
    rng = np.random.default_rng(0)
    for case in cases:
        scan = case.scan
        rows = np.linspace(-5, 35, scan.shape[1])[None, :, None]
        for change in (12.0, 25.0, rows, rng.normal(0, 25, scan.shape)):
            result = predictor.predict(_changed(scan, change), doubts=True)
            if scan.volume_ml((result.mask > 0) & (case.mask == 0)) > 5:
                wrong += 1
                doubted += bool(result.doubts)
    assert wrong >= 10 and doubted >= 0.9 * wrong


def test_doubts_are_written_and_shown(predictor, cases, tmp_path):
    shaded = _changed(cases[0].scan, np.linspace(-18, 18, cases[0].scan.shape[1])[None, :, None])
    result = predictor.predict(shaded, doubts=True)
    write_prediction(result, tmp_path, "one")
    stored = json.loads((tmp_path / "one.json").read_text())
    codes = [doubt["code"] for doubt in stored["doubts"]]
    assert "shading" in codes and {"code", "text", "value", "unit"} == set(stored["doubts"][0])
    assert stored["interval_ml"][0] <= stored["volume_ml"]["total"] <= stored["interval_ml"][1]
    assert "its brain is shaded" in result._repr_html_()


def test_a_part_of_a_real_head_is_taken_and_doubted_and_a_body_refused(shared_data):
    from hemotorch.errors import InputError
    from hemotorch.inference.scan_files import find_scans

    for name, expected in (("head-ct-philips-partial", {"part", "contrast", "level"}), ("head-ct-slab", {"part"})):
        found, _ = find_scans([shared_data / name / "dicom"], shared_data / "nowhere", None)
        scan = found[0].read()
        assert check_head(scan, any_anatomy=False), "taken, with a warning"
        assert expected <= _codes(scan)
    with pytest.raises(InputError, match="head CT"):
        check_head(read_scan(shared_data / "body-ct" / "example_ct.nii.gz"), any_anatomy=False)
