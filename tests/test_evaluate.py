"""Evaluation on a tiny prepared dataset: what is scored, what is left out, and that it adds up."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

import tiny
from hemotorch.cli import main
from hemotorch.data.audit import audit
from hemotorch.data.dataset import Dataset, group_folder
from hemotorch.data.prepare import prepare
from hemotorch.data.splits import Split
from hemotorch.errors import InputError, OptionError
from hemotorch.evaluation.comparison import compare
from hemotorch.evaluation.evaluate import evaluate, summarise, truth_of, write_scores
from hemotorch.evaluation.examples import telling_slices
from hemotorch.evaluation.volume import bland_altman
from hemotorch.inference.baseline import RuleBaseline
from hemotorch.labels import CODES
from hemotorch.report.run_report import evaluate_run
from hemotorch.scan import Prediction, Scan, even_scan
from hemotorch.system.events import Problem, listening


class Shifted:
    """Outlines the truth, one to three columns off, and marks a 2 x 5 box in the first slice of every scan."""

    def __init__(self, dataset: Dataset, fails: tuple[str, ...] = ()):
        self.dataset, self.fails, self.seen = dataset, fails, []

    def predict(self, scan: Scan) -> Prediction:
        if scan.name in self.fails:
            raise RuntimeError("the network choked")
        self.seen.append((scan.name, scan.shape))
        mask = self.dataset.mask(scan.name)
        mask = np.zeros(scan.shape, np.uint8) if mask is None else mask
        mask = np.roll(mask > 0, 1 + int(scan.name) % 3, axis=2).astype(np.uint8)
        mask[0, :2, :5] = 1
        return Prediction(scan, mask, None, {"total": scan.volume_ml(mask)}, "shifted")


@pytest.fixture
def dataset(tiny_prepared: Path) -> Dataset:
    return Dataset(tiny_prepared)


@pytest.fixture
def everyone(dataset: Dataset) -> Split:
    """All ten scans as a test part, none trained on."""
    return Split("all", "patient", {}, {}, {case: tuple(range(tiny.SLICES)) for case in dataset.cases})


def test_dice_is_over_scans_with_bleeding_and_normal_ones_never_enter_it(dataset: Dataset, everyone: Split) -> None:
    predictor = Shifted(dataset)
    scores = evaluate(predictor, dataset, everyone)
    expected = {}
    for case in dataset.cases:
        truth = dataset.mask(case) > 0
        if truth.any():
            expected[case] = f1_score(truth.ravel(), predictor.predict(dataset.scan(case)).mask.ravel())
    dice = scores.summary["dice"]["scan"]
    assert dice["n"] == len(expected) == 7
    assert dice["mean"] == pytest.approx(np.mean(list(expected.values())))
    assert dice["std"] == pytest.approx(np.std(list(expected.values())))
    assert {s.case: s.network.volume.dice for s in scores.scans if s.network.bleeding} == pytest.approx(expected)
    low, high = dice["ci95"]
    assert low < dice["mean"] < high
    # The three normal scans hold ten wrong pixels each, 3 x 3 x 5 mm: they appear here only.
    assert scores.summary["false_positive_ml"]["mean"] == pytest.approx(10 * 0.045)
    assert scores.summary["false_positive_ml"]["n"] == 3
    scan = scores.summary["detection"]["scan"]
    assert (scan["sensitivity"], scan["specificity"], scan["positive"], scan["negative"]) == (1, 0, 7, 3)
    assert scan["ranking"] == 1


def test_the_baseline_is_measured_beside_it_in_the_same_way(dataset: Dataset, everyone: Split) -> None:
    scores = evaluate(Shifted(dataset), dataset, everyone)
    alone = evaluate(RuleBaseline(), dataset, everyone, baseline=None)
    assert scores.baseline_summary == alone.summary
    assert scores.to_json()["baseline"]["dice"]["scan"]["mean"] > 0.7, "tiny heads are easy"
    assert alone.to_json()["baseline"] == {"model": "", "scans": 0}


def test_volumes_and_table_1_follow_from_the_slices(dataset: Dataset, everyone: Split) -> None:
    scores = evaluate(Shifted(dataset), dataset, everyone)
    truth = {case: dataset.volume_ml(case) for case in dataset.cases if dataset.volume_ml(case)}
    by_hand = bland_altman(list(truth.values()), [ml + 0.45 for ml in truth.values()], list(truth))
    assert scores.summary["volume"]["bias_ml"] == pytest.approx(by_hand["bias_ml"]) == pytest.approx(0.45)
    assert scores.summary["volume"]["limits_ml"] == pytest.approx([0.45, 0.45], abs=1e-9)
    pixel = scores.summary["table1"]["pixel"]
    means = []
    for case in truth:
        mask, found = dataset.mask(case) > 0, Shifted(dataset).predict(dataset.scan(case)).mask
        means.append(np.mean([f1_score(t.ravel(), f.ravel()) for t, f in zip(mask, found, strict=True) if t.any()]))
    assert pixel["dice"]["mean"] == pytest.approx(np.mean(means))
    assert (pixel["dice"]["n"], pixel["dice"]["undefined"]) == (7, 3)


def test_scans_of_one_patient_are_one_subject_and_one_draw(dataset: Dataset, everyone: Split) -> None:
    scores = evaluate(Shifted(dataset), dataset, everyone, examples=False)
    apart = scores.summary
    together = replace(scores, scans=tuple(replace(s, patient="same") for s in scores.scans)).summary
    assert together["table1"]["pixel"]["dice"]["n"] == 1
    assert np.isnan(together["dice"]["scan"]["ci95"]).all() and np.isfinite(apart["dice"]["scan"]["ci95"]).all()
    assert together["dice"]["scan"]["mean"] == apart["dice"]["scan"]["mean"]


def test_a_slice_wise_split_scores_its_own_slices_of_whole_predictions(dataset: Dataset) -> None:
    split = dataset.splits["slice-80-20"]
    predictor = Shifted(dataset)
    scores = evaluate(predictor, dataset, split, examples=False)
    assert {shape for _, shape in predictor.seen} == {(tiny.SLICES, tiny.SIZE, tiny.SIZE)}, "whole scans are predicted"
    assert {scan.case: scan.indices for scan in scores.scans} == {c: i for c, i in split.test.items() if i}
    case, indices = next((c, i) for c, i in split.test.items() if (dataset.mask(c)[list(i)] > 0).any())
    one = next(scan for scan in scores.scans if scan.case == case)
    truth = (dataset.mask(case) > 0)[list(indices)]
    found = Shifted(dataset).predict(dataset.scan(case)).mask[list(indices)]
    assert one.network.volume.dice == pytest.approx(f1_score(truth.ravel(), found.ravel()))
    assert one.network.truth_ml == pytest.approx(truth.sum() * 0.045)
    assert one.network.lesions is None, "parts of lesions are not counted as lesions"
    told = scores.to_json()["split"]
    assert told["by"] == "slice" and told["name"] == "slice-80-20" and told["patients_known"] is True
    assert told["patients_on_both_sides"] == len(audit(dataset, split).patients) > 0
    assert f"{told['patients_on_both_sides']} of the {told['patients']} scored patients" in scores.lines()[0]


def test_a_split_by_patient_has_nothing_to_warn_of(dataset: Dataset) -> None:
    scores = evaluate(Shifted(dataset), dataset, dataset.splits["patient"], examples=False)
    assert scores.split["patients_on_both_sides"] == scores.split["identical_slices"] == 0
    assert scores.lines()[0].startswith("Dice ")
    trained_on = evaluate(Shifted(dataset), dataset, dataset.splits["patient"], "train", examples=False)
    assert "trained on" in trained_on.lines()[0]


def test_uneven_slices_weigh_what_they_stand_for() -> None:
    even = even_scan(np.zeros((5, 10, 10), np.int16), 1.0, 5.0)
    # Slices at 0, 5, 10, 20 and 30 mm stand for 5, 5, 7.5, 10 and 10 mm.
    scan = replace(even, slice_origins_mm=even.slice_origins_mm * [1, 1, 0] + np.outer([0, 5, 10, 20, 30], [0, 0, 1]))
    truth, found = np.zeros((5, 10, 10), np.uint8), np.zeros((5, 10, 10), np.uint8)
    truth[0, :2], found[0, :2] = 6, 1  # 20 pixels right
    truth[4, :1] = 6  # 10 missed
    score = compare(truth, found, scan, range(5))
    assert score.truth_ml == pytest.approx((20 * 5 + 10 * 10) / 1000) and score.predicted_ml == pytest.approx(0.1)
    assert score.volume.dice == pytest.approx(2 * 100 / (2 * 100 + 100))
    assert compare(truth, found, even, range(5)).volume.dice == pytest.approx(2 * 20 / (2 * 20 + 10))
    unknown = compare(truth, found, replace(scan, spacing_known=False), range(5))
    assert unknown.volume.dice == pytest.approx(2 * 20 / (2 * 20 + 10)) and math.isnan(unknown.truth_ml)


def test_scans_without_a_mask_count_only_where_labels_exclude_bleeding(tmp_path: Path) -> None:
    root = tiny.write_dataset(tmp_path / "data", patients=4, normal=1)
    (root / "masks" / "049.nii").unlink()  # normal by its labels
    (root / "masks" / "051.nii").unlink()  # bleeding by its labels
    prepare(root, tmp_path / "prepared")
    dataset = Dataset(tmp_path / "prepared")
    scores = evaluate(Shifted(dataset), dataset, next(iter(dataset.splits.values())), "all", examples=False)
    assert scores.unscored == ("051",) and [scan.case for scan in scores.scans] == ["049", "050", "052"]
    assert scores.summary["dice"]["scan"]["n"] == 2 and scores.summary["false_positive_ml"]["n"] == 1
    only = Split("none", "patient", {}, {}, {"051": (0, 1, 2)})
    with pytest.raises(InputError, match="none of the 1 scans"):
        evaluate(Shifted(dataset), dataset, only)


def test_untyped_masks_take_the_type_their_labels_name(dataset: Dataset, everyone: Split) -> None:
    case = dataset.cases[-1]
    truth = truth_of(dataset, case, range(tiny.SLICES))
    assert set(np.unique(dataset.mask(case))) == {0, 6}
    assert set(np.unique(truth)) == {0, CODES["intraparenchymal"]}
    types = evaluate(Shifted(dataset), dataset, everyone, examples=False).summary["types"]
    assert list(types) == ["intraparenchymal"] and types["intraparenchymal"]["scans"] == 7
    assert 0.6 < types["intraparenchymal"]["sensitivity"] < 1


def test_each_scan_is_predicted_once_and_examples_again(dataset: Dataset, everyone: Split) -> None:
    predictor = Shifted(dataset)
    evaluate(predictor, dataset, everyone, examples=False)
    assert [name for name, _ in predictor.seen] == list(dataset.cases)
    scores = evaluate(predictor, dataset, everyone)
    assert [example.kind for example in scores.examples] == ["best", "median", "worst", "false alarm"]
    ranked = sorted(s.network.volume.dice for s in scores.scans if s.network.bleeding)
    assert [e.dice for e in scores.examples[:3]] == [ranked[6], ranked[3], ranked[0]]
    for example in scores.examples:
        assert example.hu.shape == example.truth.shape == example.predicted.shape and len(example.hu) <= 4


def test_a_scan_that_fails_does_not_end_the_others(dataset: Dataset, everyone: Split) -> None:
    case = dataset.cases[4]
    events = []
    with listening(events.append):
        scores = evaluate(Shifted(dataset, fails=(case,)), dataset, everyone)
    whole = evaluate(Shifted(dataset), dataset, everyone)
    assert list(scores.failed) == [case] and "the network choked" in scores.failed[case]
    assert [event.text for event in events if isinstance(event, Problem)] == [scores.failed[case]]
    assert [scan.network for scan in scores.scans] == [s.network for s in whole.scans if s.case != case]
    assert scores.to_json()["failed"] == scores.failed and whole.to_json()["failed"] == {}
    assert f"1 of 10 scans could not be measured: {case}" in scores.lines()
    with pytest.raises(InputError, match=r"none of the 10 scans .* could be measured \(049: .*choked"):
        evaluate(Shifted(dataset, fails=dataset.cases), dataset, everyone)


def test_a_damaged_scan_is_named_and_the_status_is_1(
    tiny_run: Path, tiny_prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = tmp_path / "prepared"
    shutil.copytree(tiny_prepared, prepared)
    case = next(iter(Dataset(prepared).splits["patient"].test))
    shard = next(
        path for path in (group_folder(prepared, case) / "hu").rglob("*") if path.is_file() and path.name != "zarr.json"
    )
    content = bytearray(shard.read_bytes())
    content[300:500] = bytes(200)
    shard.write_bytes(content)
    report = tmp_path / "report"
    assert main(["evaluate", str(tiny_run), "--data", str(prepared), "--out", str(report)]) == 1
    assert "damaged" in capsys.readouterr().err
    scores = json.loads((report / "scores.json").read_text())
    assert list(scores["failed"]) == [case] and scores["scans"] > 0
    assert f"could not be read or predicted: {scores['failed'][case]}"[:60] in unescape(
        (report / "report.html").read_text()
    )


def test_the_training_loop_sees_the_same_dice(dataset: Dataset, everyone: Split) -> None:
    scores = evaluate(Shifted(dataset), dataset, everyone, examples=False)
    light = summarise(Shifted(dataset), dataset, everyone.test)
    assert light["dice"] == scores.summary["dice"]["scan"]["mean"] and light["n"] == 7
    assert light["jaccard"] == scores.summary["jaccard"]["scan"]["mean"]
    assert light["fp_ml"] == pytest.approx(0.45) and light["normal"] == 3
    part = dataset.splits["slice-80-20"].test
    of_slices = evaluate(Shifted(dataset), dataset, dataset.splits["slice-80-20"], examples=False)
    assert summarise(Shifted(dataset), dataset, part)["dice"] == of_slices.summary["dice"]["scan"]["mean"]
    normal = summarise(Shifted(dataset), dataset, {case: everyone.test[case] for case in dataset.cases[:3]})
    assert normal["n"] == 0 and math.isnan(normal["dice"])


def test_the_written_tables_agree_with_the_summary(dataset: Dataset, everyone: Split, tmp_path: Path) -> None:
    scores = evaluate(Shifted(dataset), dataset, everyone, about={"recipe": {"name": "none"}})
    write_scores(scores, tmp_path)
    told = json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)
    assert told["table1"]["pixel"]["dice"]["undefined"] == 3 and told["baseline"]["model"].startswith("rule-based")
    assert told["dice"]["scan"]["mean"] == scores.summary["dice"]["scan"]["mean"]
    assert len(told["dice"]["scan"]["ci95"]) == 2 and told["dice"]["scan"]["n"] == 7
    assert 0 <= told["baseline"]["dice"]["scan"]["mean"] <= 1 and told["split"]["by"] == "patient"
    for reading in ("pixel", "slice"):
        for value in ("jaccard", "dice", "sensitivity", "specificity"):
            assert {"min", "max", "std", "mean"} <= set(told["table1"][reading][value])
    assert "Research use only" in told["notice"] and told["about"]["recipe"]["name"] == "none"
    scans, slices = (
        list(csv.DictReader((tmp_path / name).read_text().splitlines())) for name in ("scans.csv", "slices.csv")
    )
    assert len(scans) == 10 and len(slices) == 10 * tiny.SLICES
    bleeding = [float(row["dice"]) for row in scans if row["bleeding"] == "1"]
    assert np.mean(bleeding) == pytest.approx(told["dice"]["scan"]["mean"], abs=1e-5)
    pixels = sum(int(row["tp"]) + int(row["fn"]) for row in slices)
    assert pixels == sum(row.positive_pixels for row in dataset.slices)
    assert {row["dice"] for row in slices if int(row["tp"]) + int(row["fp"]) + int(row["fn"]) == 0} == {""}


def test_telling_slices() -> None:
    assert telling_slices([0, 0, 0, 0, 0]) == [2]
    assert telling_slices([0, 3, 0, 0, 9]) == [1, 4]
    assert telling_slices([1] * 12) == [1, 4, 7, 10]
    assert telling_slices([0, 100, 1, 1, 0, 1, 0]) == [1, 2, 3, 5]


def test_wrong_parts_are_named(dataset: Dataset) -> None:
    with pytest.raises(OptionError, match="did you mean 'test'"):
        evaluate(Shifted(dataset), dataset, dataset.splits["patient"], "tets")
    with pytest.raises(OptionError, match="no val part; it has: train, test"):
        evaluate(Shifted(dataset), dataset, dataset.splits["slice-80-20"], "val")


def test_a_run_is_measured_from_its_folder(tiny_run: Path, tiny_prepared: Path, tmp_path: Path) -> None:
    scores = evaluate_run(tiny_run, tmp_path / "report", device="cpu")
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "report.html",
        "scans.csv",
        "scores.json",
        "slices.csv",
    }
    assert {scan.case for scan in scores.scans} == set(Dataset(tiny_prepared).splits["patient"].test)
    assert scores.summary["dice"]["scan"]["mean"] > 0.5
    assert scores.about["recipe"]["name"] == "fast" and not scores.split["external"]
    with pytest.raises(InputError, match="holds a report already"):
        evaluate_run(tiny_run, tmp_path / "report", device="cpu")
    same_names = tiny.write_dataset(tmp_path / "other", patients=5, normal=2, seed=500)
    prepare(same_names, tmp_path / "prepared")
    abroad = evaluate_run(
        tiny_run, tmp_path / "report", data=tmp_path / "prepared", part="all", device="cpu", overwrite=True
    )
    assert abroad.split["external"] and len(abroad.scans) == 5
    assert "Another dataset" in abroad.lines()[0]
    # Half of the scans it was trained on, under a fresh split, would be scored as new.
    prepare(tiny.write_dataset(tmp_path / "half", patients=5), tmp_path / "halved")
    with pytest.raises(InputError, match="holds only 5 of the 10 scans"):
        evaluate_run(tiny_run, tmp_path / "never", data=tmp_path / "halved", device="cpu")
