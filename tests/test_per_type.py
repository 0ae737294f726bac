"""Types of bleeding measured: against loops written independently, and cases worked out by hand."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny
from hemotorch.data.dataset import Dataset
from hemotorch.data.splits import Split
from hemotorch.evaluation.comparison import Comparison, ScanComparison, compare
from hemotorch.evaluation.confusion import NAMES, confuse, counts_of
from hemotorch.evaluation.counts import Counts
from hemotorch.evaluation.evaluate import evaluate, summarise, write_scores
from hemotorch.evaluation.intervals import macro_interval, mean_interval
from hemotorch.evaluation.summary import brief, summary
from hemotorch.labels import CODES, TYPES, UNTYPED
from hemotorch.scan import Prediction, Scan, even_scan
from hemotorch.task import TYPED

EPIDURAL, INTRAPARENCHYMAL, SUBDURAL = CODES["epidural"], CODES["intraparenchymal"], CODES["subdural"]


def scan_of(shape: tuple[int, int, int], spacing_known: bool = True) -> Scan:
    """Voxels of 1 x 1 x 5 mm, but the second slice stands for 7.5 mm and the last for 10."""
    scan = even_scan(np.zeros(shape, np.int16), 1.0, 5.0, spacing_known=spacing_known)
    heights = np.cumsum([0, *[5] * (shape[0] - 2), 10])
    return replace(scan, slice_origins_mm=scan.slice_origins_mm * [1, 1, 0] + np.outer(heights, [0, 0, 1]))


def compared(truth: np.ndarray, predicted: np.ndarray, scan: Scan | None = None, name: str = "a") -> ScanComparison:
    comparison = compare(truth, predicted, scan or scan_of(truth.shape), range(len(truth)), typed=True)
    return ScanComparison(name, name, (None,) * len(truth), comparison)


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth of codes 0 to 6 and a prediction of codes 0 to 5 that is half right."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 0, 0, *range(UNTYPED + 1)], (4, 9, 8)).astype(np.uint8)
    if seed % 2:
        truth[truth == SUBDURAL] = 0
    wrong = rng.choice([0, 0, 0, *range(UNTYPED)], truth.shape).astype(np.uint8)
    right = (rng.random(truth.shape) < 0.5) & (truth != UNTYPED)
    return truth, np.where(right, truth, wrong)


def test_a_case_by_hand() -> None:
    truth, predicted = np.zeros((3, 4, 10), np.uint8), np.zeros((3, 4, 10), np.uint8)
    truth[0, 0, :8], predicted[0, 0, :6] = SUBDURAL, SUBDURAL  # 8 voxels of 5 mm: 6 right ...
    predicted[0, 0, 6] = EPIDURAL  # ... one of the wrong type, one missed
    truth[2, 0, :4], predicted[2, 0, :4] = INTRAPARENCHYMAL, SUBDURAL  # 4 voxels of 10 mm, all of the wrong type
    predicted[1, 3, :2] = SUBDURAL  # 2 voxels of 7.5 mm where there is nothing
    truth[1, 0, :5], predicted[1, 0, :3] = UNTYPED, EPIDURAL  # decides nothing about types
    entry = compared(truth, predicted)
    confusion = np.array(entry.comparison.confusion)
    expected = np.zeros((6, 6))
    expected[SUBDURAL, SUBDURAL] = 6 * 0.005
    expected[SUBDURAL, EPIDURAL] = 0.005
    expected[SUBDURAL, 0] = 0.005
    expected[INTRAPARENCHYMAL, SUBDURAL] = 4 * 0.010
    expected[0, SUBDURAL] = 2 * 0.0075
    expected[0, 0] = (40 - 8) * 0.005 + (40 - 7) * 0.0075 + (40 - 4) * 0.010
    assert confusion == pytest.approx(expected)
    subdural = counts_of(entry.comparison.confusion, "subdural")
    assert subdural.tp == pytest.approx(0.030) and subdural.fp == pytest.approx(0.055)
    assert subdural.fn == pytest.approx(0.010) and subdural.tn == pytest.approx(confusion.sum() - 0.095)
    # All bleeding is measured as without types: untyped voxels count.
    assert entry.comparison.truth_ml == pytest.approx(0.040 + 0.040 + 5 * 0.0075)
    assert entry.comparison.predicted_ml == pytest.approx(0.035 + 0.040 + 5 * 0.0075)

    values = summary([entry])
    assert list(values["types"]) == ["intraparenchymal", "subdural"]
    assert values["types"]["subdural"]["dice"]["mean"] == pytest.approx(2 * 0.030 / (2 * 0.030 + 0.055 + 0.010))
    assert values["types"]["subdural"]["sensitivity"] == pytest.approx(7 / 8), "called bleeding, of whatever type"
    assert values["types"]["subdural"]["volume"]["bias_ml"] == pytest.approx(0.085 - 0.040)
    assert values["types"]["intraparenchymal"]["dice"]["mean"] == 0
    assert values["types"]["intraparenchymal"]["volume"]["bias_ml"] == pytest.approx(-0.040)
    assert values["macro"]["dice"] == pytest.approx(values["types"]["subdural"]["dice"]["mean"] / 2)
    assert values["macro"]["types"] == 2 and np.isnan(values["macro"]["ci95"]).all()
    assert values["confusion"]["names"] == ["none", *TYPES] and values["confusion"]["unit"] == "mL"
    assert np.array(values["confusion"]["amounts"]) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_confusion_and_dice_agree_with_plain_loops(seed: int) -> None:
    truth, predicted = random_case(seed)
    scan = scan_of(truth.shape)
    entry = compared(truth, predicted, scan)
    expected = [[0.0] * 6 for _ in range(6)]
    per_type = {name: [0.0, 0.0, 0.0] for name in TYPES}  # both, only truth, only prediction
    for index, (true, guess) in enumerate(zip(truth, predicted, strict=True)):
        for t, p in zip(true.ravel().tolist(), guess.ravel().tolist(), strict=True):
            if t == UNTYPED:
                continue
            expected[t][p] += float(scan.voxel_ml[index])
            for name, sums in per_type.items():
                sums[0] += float(scan.voxel_ml[index]) * (t == CODES[name] == p)
                sums[1] += float(scan.voxel_ml[index]) * (t == CODES[name] != p)
                sums[2] += float(scan.voxel_ml[index]) * (t != CODES[name] == p)
    assert np.array(entry.comparison.confusion) == pytest.approx(np.array(expected))
    types = summary([entry])["types"]
    assert set(types) == {name for name, code in CODES.items() if (truth == code).any()}
    for name, (both, missed, invented) in per_type.items():
        if name in types:
            assert types[name]["dice"]["mean"] == pytest.approx(2 * both / (2 * both + missed + invented))
            assert types[name]["volume"]["bias_ml"] == pytest.approx(invented - missed)


def test_means_are_over_the_scans_that_hold_the_type() -> None:
    cases = [random_case(seed) for seed in range(6)]
    entries = [compared(*case, name=str(number)) for number, case in enumerate(cases)]
    values = summary(entries, seed=3)
    holding = [entry for entry, (truth, _) in zip(entries, cases, strict=True) if (truth == SUBDURAL).any()]
    assert len(holding) == 3
    dice = [counts_of(entry.comparison.confusion, "subdural").dice for entry in holding]
    subdural = values["types"]["subdural"]
    assert subdural["dice"]["n"] == subdural["scans"] == 3
    assert subdural["dice"]["mean"] == pytest.approx(np.mean(dice))
    assert subdural["dice"]["ci95"] == mean_interval(dice, [entry.patient for entry in holding], seed=3)
    without = [entry for entry in entries if entry not in holding]
    false_ml = [counts_of(entry.comparison.confusion, "subdural").fp for entry in without]
    assert subdural["false_positive_ml"]["mean"] == pytest.approx(np.mean(false_ml))
    assert subdural["false_positive_ml"]["n"] == 3
    means = [values["types"][name]["dice"]["mean"] for name in TYPES]
    assert values["macro"]["dice"] == pytest.approx(np.mean(means)) == brief(entries)["macro_dice"]
    low, high = values["macro"]["ci95"]
    assert low < values["macro"]["dice"] < high
    summed = sum(np.array(entry.comparison.confusion) for entry in entries)
    assert np.array(values["confusion"]["amounts"]) == pytest.approx(summed) and values["confusion"]["scans"] == 6


def test_without_spacing_amounts_are_voxels_and_are_not_added_to_ml() -> None:
    truth, predicted = random_case(0)
    unknown = compared(truth, predicted, scan_of(truth.shape, spacing_known=False), "unknown")
    values = summary([unknown])
    assert values["confusion"]["unit"] == "voxels"
    assert np.sum(values["confusion"]["amounts"]) == np.count_nonzero(truth != UNTYPED)
    assert math.isnan(values["types"]["subdural"]["volume"]["bias_ml"])
    assert 0 < values["types"]["subdural"]["dice"]["mean"] < 1
    known = compared(truth, predicted, name="known")
    both = summary([unknown, known])
    assert both["confusion"]["unit"] == "mL" and both["confusion"]["scans"] == 1
    assert both["confusion"]["amounts"] == summary([known])["confusion"]["amounts"]
    assert both["types"]["subdural"]["dice"]["n"] == 2 and both["types"]["subdural"]["volume"]["n"] == 1


def test_truth_without_any_type_leaves_nothing_to_say_of_types() -> None:
    truth, predicted = np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4, 4), np.uint8)
    truth[0, :2], predicted[0, :2] = UNTYPED, SUBDURAL
    values = summary([compared(truth, predicted)])
    assert values["types"] == {} and values["dice"]["scan"]["mean"] == 1
    assert math.isnan(values["macro"]["dice"]) and values["macro"]["types"] == 0
    assert np.sum(values["confusion"]["amounts"]) == pytest.approx(8 * 0.005 + 16 * 0.0075 + 16 * 0.010)


def test_predictors_without_types_have_none() -> None:
    truth, predicted = random_case(2)
    plain = compare(truth, (predicted > 0).astype(np.uint8), scan_of(truth.shape), range(len(truth)))
    values = summary([ScanComparison("a", "a", (None,) * 4, plain)])
    assert plain.confusion is None and "confusion" not in values and "macro" not in values
    assert set(values["types"]["epidural"]) == {"sensitivity", "ci95", "scans", "voxels"}
    assert "macro_dice" not in brief([ScanComparison("a", "a", (None,) * 4, plain)])


def test_a_macro_interval_draws_patients_once_for_all_groups() -> None:
    groups = [([0.0, 1.0], ["a", "b"]), ([1.0, 0.0], ["a", "b"])]
    # Each patient is right in one group and wrong in the other: whoever is drawn, the mean over both is a half.
    assert macro_interval(groups) == [0.5, 0.5]
    single = [([0.2, 0.4, 0.9], ["a", "b", "c"])]
    assert macro_interval(single, seed=4) == pytest.approx(mean_interval([0.2, 0.4, 0.9], ["a", "b", "c"], seed=4))
    assert np.isnan(macro_interval([([0.5], ["a"])])).all() and np.isnan(macro_interval([])).all()
    # A group that only one of two patients is in is left out whenever that one is not drawn.
    assert macro_interval([([0.0], ["a"]), ([1.0], ["b"])]) == [0.0, 1.0]


def test_counts_of_an_empty_confusion() -> None:
    nothing = confuse(np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 2), np.uint8), [1.0])
    assert counts_of(nothing, "epidural") == Counts(0, 0, 0, 4) and NAMES[0] == "none"


class Typed:
    """Outlines the truth one column off, as intraparenchymal in the lower slices and as subdural in the upper ones."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def predict(self, scan: Scan) -> Prediction:
        mask = np.roll(self.dataset.mask(scan.name) > 0, 1, axis=2).astype(np.uint8)
        mask[:3] *= INTRAPARENCHYMAL
        mask[3:] *= SUBDURAL
        return Prediction(scan, mask, None, {"total": scan.volume_ml(mask)}, "typed", task=TYPED)


@pytest.fixture
def dataset(tiny_prepared: Path) -> Dataset:
    return Dataset(tiny_prepared)


@pytest.fixture
def everyone(dataset: Dataset) -> Split:
    return Split("all", "patient", {}, {}, {case: tuple(range(tiny.SLICES)) for case in dataset.cases})


def test_a_typed_network_is_measured_and_written(dataset: Dataset, everyone: Split, tmp_path: Path) -> None:
    scores = evaluate(Typed(dataset), dataset, everyone, examples=False)
    dice = {}
    for case in dataset.cases:
        truth = dataset.mask(case) > 0  # intraparenchymal by the slice labels
        predicted = Typed(dataset).predict(dataset.scan(case)).mask == INTRAPARENCHYMAL
        if truth.any():
            dice[case] = 2 * (truth & predicted).sum() / (truth.sum() + predicted.sum())
    values = scores.summary["types"]
    assert list(values) == ["intraparenchymal"]
    assert values["intraparenchymal"]["dice"]["mean"] == pytest.approx(np.mean(list(dice.values())))
    amounts = np.array(scores.summary["confusion"]["amounts"])
    assert amounts[INTRAPARENCHYMAL, SUBDURAL] > 0 and amounts[0, SUBDURAL] > 0
    assert amounts[INTRAPARENCHYMAL].sum() == pytest.approx(sum(dataset.volume_ml(case) for case in dataset.cases))
    light = summarise(Typed(dataset), dataset, everyone.test)
    assert light["macro_dice"] == scores.summary["macro"]["dice"]
    assert "confusion" not in scores.baseline_summary, "rules know no types"

    write_scores(scores, tmp_path)
    written = json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)
    assert written["confusion"]["unit"] == "mL" and {"types.dice", "macro", "confusion"} <= set(written["definitions"])
    rows = {row["case"]: row for row in csv.DictReader((tmp_path / "scans.csv").read_text().splitlines())}
    for case, expected in dice.items():
        assert float(rows[case]["intraparenchymal_dice"]) == pytest.approx(expected, abs=1e-5)
        assert float(rows[case]["intraparenchymal_truth_ml"]) == pytest.approx(dataset.volume_ml(case), rel=1e-5)
        assert rows[case]["epidural_dice"] == "" and float(rows[case]["epidural_predicted_ml"]) == 0
    typed_line = next(line for line in scores.lines() if line.startswith("Dice per type"))
    assert "intraparenchymal 0." in typed_line


def test_comparisons_are_plain_values() -> None:
    truth, predicted = random_case(1)
    first, second = (compared(truth, predicted).comparison for _ in range(2))
    assert isinstance(first, Comparison) and first == second
