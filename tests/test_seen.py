"""What a model has seen: measured on the scans of its training, widened by augmentation, carried by its files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tiny
from hemotorch.data.dataset import Dataset
from hemotorch.data.prepare import prepare
from hemotorch.head.measured import MeasuredHead
from hemotorch.head.vessels import SINUS_MM2, bright_sinus_mm2
from hemotorch.inference.load import load_model
from hemotorch.inference.scan_files import find_scans
from hemotorch.inference.seen import Seen
from hemotorch.io import read_scan
from hemotorch.recipe import Augment
from hemotorch.training.seen_heads import seen_in

NONE = Augment(flip=False, rotate_deg=0, shift=0, shear=0, zoom=0, offset_hu=0, gain=0, noise_hu=0, blur=0, elastic=0)


@pytest.fixture(scope="module")
def scans(small_cases):
    """Phantoms without bleeding and with."""
    return [case.scan for case in small_cases]


def with_contrast(scan, hu=160.0):
    """The scan with a superior sagittal sinus of 8 mm filled with contrast, along the back of the skull."""
    head = MeasuredHead.of(scan)
    brighter = scan.hu.copy()
    side = max(1, round(8 / scan.pixel_mm[0]))
    block = scan.shape[1] // head.small.shape[1]
    for index, inside in enumerate(head.inside):
        if np.count_nonzero(inside) < 0.6 * np.count_nonzero(head.inside, axis=(1, 2)).max():
            continue
        middle = int(np.median(np.nonzero(inside)[1]))
        last = int(np.flatnonzero(inside[:, middle]).max())
        rows = slice((last + 1) * block - side, (last + 1) * block)
        columns = slice(middle * block - side // 2, middle * block - side // 2 + side)
        brighter[index, rows, columns] = hu
    return replace(scan, hu=brighter)


def test_sinuses_shine_after_contrast_and_never_without(scans, shared_data):
    assert [bright_sinus_mm2(scan) for scan in scans] == [0.0] * len(scans)
    assert all(bright_sinus_mm2(with_contrast(scan)) > SINUS_MM2 for scan in scans)
    assert all(bright_sinus_mm2(with_contrast(scan, 75.0)) == 0 for scan in scans), "clots are darker"
    found, _ = find_scans([shared_data / "head-ct-slab" / "dicom"], shared_data / "nowhere", None)
    assert bright_sinus_mm2(found[0].read()) == 0
    assert bright_sinus_mm2(read_scan(shared_data / "head-ct-painted-2" / "painted6.nii.gz")) == 0
    found, _ = find_scans([shared_data / "head-ct-philips-partial" / "dicom"], shared_data / "nowhere", None)
    assert bright_sinus_mm2(found[0].read()) > SINUS_MM2


def test_the_ranges_are_those_of_the_heads(scans):
    heads = [MeasuredHead.of(scan) for scan in scans]
    levels = [head.level.median for head in heads]
    seen = Seen.of(heads, NONE)
    assert min(levels) - 0.1 <= seen.level_hu[0] <= np.median(levels) <= seen.level_hu[1] <= max(levels) + 0.1
    assert np.median([head.noise for head in heads]) < seen.noise_hu <= max(head.noise for head in heads) + 0.1
    assert seen.shading_hu <= max(head.level.shading_hu for head in heads) + 0.1 and not seen.contrast
    wider = Seen.of(heads, replace(NONE, offset_hu=10.0, noise_hu=9.0, shading_hu=12.0))
    assert wider.level_hu == pytest.approx((seen.level_hu[0] - 10, seen.level_hu[1] + 10), abs=0.11)
    assert wider.noise_hu > max(9, seen.noise_hu) and wider.shading_hu > max(12, seen.shading_hu)
    assert Seen.of([*heads, MeasuredHead.of(with_contrast(scans[0]))], NONE).contrast
    assert Seen.of(heads[:3], NONE) == Seen(), "three say nothing of a range"


def test_models_that_are_averaged_have_seen_what_each_has():
    both = Seen.by_all([Seen((10, 40), 9, 5, True), Seen((20, 50), 7, 8, False)])
    assert both == Seen((20, 40), 7, 5, False)


def test_training_measures_its_scans_and_the_model_files_say_so(tmp_path):
    from hemotorch.training.loop import train

    prepare(tiny.write_dataset(tmp_path / "source", patients=8, normal=2), tmp_path / "prepared")
    recipe = tiny.recipe("train.epochs=1", "train.steps_per_epoch=1")
    train(tmp_path / "prepared", tmp_path / "run", recipe)
    dataset = Dataset(tmp_path / "prepared")
    part = dict(dataset.split(recipe.data.split).train)
    expected = seen_in(dataset, part, recipe.augment)
    assert expected != Seen()
    assert load_model(tmp_path / "run").deployment.seen == expected
