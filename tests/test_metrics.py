"""Metrics against scikit-learn, MONAI, SciPy and cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_confusion_matrix_metric, compute_dice, compute_iou, get_confusion_matrix
from scipy.stats import binomtest
from sklearn import metrics as reference

from hemotorch.errors import InputError
from hemotorch.evaluation.confusion import count_types
from hemotorch.evaluation.counts import VALUES, Counts, count, count_flags, count_slices, spread, total
from hemotorch.evaluation.detection import detection, ranking
from hemotorch.evaluation.intervals import mean_interval, ratio_interval, share_interval
from hemotorch.evaluation.lesion import Lesions, count_lesions
from hemotorch.evaluation.table1 import is_positive, table1
from hemotorch.evaluation.volume import bland_altman


def masks(seed: int, share: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Two random masks of (5, 12, 9), the prediction partly right."""
    draw = np.random.default_rng(seed)
    truth = draw.random((5, 12, 9)) < share
    return truth.astype(np.uint8), np.where(draw.random(truth.shape) < 0.2, ~truth, truth).astype(np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_values_agree_with_scikit_learn(seed: int) -> None:
    truth, predicted = masks(seed)
    counts = count(truth, predicted)
    t, p = truth.ravel(), predicted.ravel()
    tn, fp, fn, tp = reference.confusion_matrix(t, p).ravel()
    assert (counts.tp, counts.fp, counts.fn, counts.tn) == (tp, fp, fn, tn)
    assert counts.dice == pytest.approx(reference.f1_score(t, p))
    assert counts.jaccard == pytest.approx(reference.jaccard_score(t, p))
    assert counts.sensitivity == pytest.approx(reference.recall_score(t, p))
    assert counts.specificity == pytest.approx(reference.recall_score(t, p, pos_label=0))


@pytest.mark.parametrize("seed", range(3))
def test_values_agree_with_monai(seed: int) -> None:
    truth, predicted = masks(seed, share=0.1)
    t, p = (torch.from_numpy(mask)[:, None].float() for mask in (truth, predicted))
    slices = count_slices(truth, predicted)
    assert [c.dice for c in slices] == pytest.approx(compute_dice(p, t).ravel().tolist())
    assert [c.jaccard for c in slices] == pytest.approx(compute_iou(p, t).ravel().tolist())
    matrix = get_confusion_matrix(p, t)
    for value in ("sensitivity", "specificity"):
        theirs = compute_confusion_matrix_metric(value, matrix).ravel().tolist()
        assert [getattr(c, value) for c in slices] == pytest.approx(theirs)


def test_empty_masks_of_every_kind() -> None:
    none, one = np.zeros((1, 4, 4), np.uint8), np.zeros((1, 4, 4), np.uint8)
    one[0, 1, 1] = 1
    full = np.ones_like(none)
    both = count(none, none)
    assert math.isnan(both.dice) and math.isnan(both.jaccard) and math.isnan(both.sensitivity) and both.specificity == 1
    missed = count(one, none)
    assert (missed.dice, missed.jaccard, missed.sensitivity, missed.specificity) == (0, 0, 0, 1)
    invented = count(none, one)
    assert (invented.dice, invented.jaccard) == (0, 0) and math.isnan(invented.sensitivity)
    assert invented.specificity == pytest.approx(15 / 16)
    everywhere = count(full, full)
    assert (everywhere.dice, everywhere.sensitivity) == (1, 1) and math.isnan(everywhere.specificity)
    assert math.isnan(compute_dice(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)).item()), "MONAI's rule is ours"


def test_any_code_above_zero_is_bleeding_and_shapes_must_agree() -> None:
    typed = np.array([[[0, 3, 6, 0]]], np.uint8)
    assert count(typed, (typed > 0) * 255) == Counts(2, 0, 0, 2)
    with pytest.raises(InputError, match="scored"):
        count(typed, typed[..., :3])


def test_counts_are_summed_first_and_weighted_by_their_slices() -> None:
    slices = [Counts(10, 0, 0, 90), Counts(0, 10, 10, 80)]
    assert total(slices).dice == pytest.approx(20 / 40)
    assert sum(slices, Counts()) == total(slices)
    # The first slice stands for 9 mm, the second for 3: volume overlap is 2*90 / (2*90 + 30 + 30).
    assert total(slices, [9, 3]).dice == pytest.approx(180 / 240)
    assert total(slices, [2.5, 2.5]).dice == pytest.approx(total(slices).dice)
    assert total([]) == Counts()


def test_spread_leaves_out_what_is_undefined_and_counts_it() -> None:
    found = spread([0.2, math.nan, 0.6, 1.0])
    assert found == pytest.approx(
        {"min": 0.2, "max": 1.0, "std": np.std([0.2, 0.6, 1.0]), "mean": 0.6, "median": 0.6, "n": 3, "undefined": 1}
    )
    nothing = spread([math.nan])
    assert nothing["n"] == 0 and nothing["undefined"] == 1 and math.isnan(nothing["mean"])


def test_table_1_of_three_subjects_by_hand() -> None:
    # Slices of 64 x 64: 400 pixels at 640 x 640 are 4 here, so 5 pixels make a slice positive and 4 do not.
    size = 64 * 64

    def slice_counts(tp: int, fp: int, fn: int) -> Counts:
        return Counts(tp, fp, fn, size - tp - fp - fn)

    subjects = {
        "a": [slice_counts(8, 2, 0), slice_counts(0, 0, 4), slice_counts(0, 0, 0), slice_counts(0, 5, 0)],
        "b": [slice_counts(6, 6, 6), slice_counts(0, 4, 0)],
        "normal": [slice_counts(0, 0, 0), slice_counts(0, 9, 0), slice_counts(0, 0, 0), slice_counts(0, 0, 0)],
    }
    pixel, by_slice = (table1(subjects)[reading] for reading in ("pixel", "slice"))
    # a: Dice (16/18 + 0) / 2, Jaccard (8/10 + 0) / 2, sensitivity (1 + 0) / 2; b: 12/24, 6/18, 6/12; normal: undefined.
    a_dice, b_dice = 16 / 18 / 2, 0.5
    assert pixel["dice"] == pytest.approx(
        {
            "min": a_dice,
            "max": b_dice,
            "mean": (a_dice + b_dice) / 2,
            "std": (b_dice - a_dice) / 2,
            "median": (a_dice + b_dice) / 2,
            "n": 2,
            "undefined": 1,
        }
    )
    assert pixel["jaccard"]["mean"] == pytest.approx((0.4 + 1 / 3) / 2)
    assert pixel["sensitivity"]["mean"] == pytest.approx(0.5)
    a_spec = ((size - 10) / (size - 8) + 1) / 2
    assert pixel["specificity"]["mean"] == pytest.approx((a_spec + (size - 18) / (size - 12)) / 2)
    # a: one positive slice found, the 4-pixel one is negative, one false alarm: 1/2, 2/3, 1, 2/3. b: 1 found, 4 false
    # pixels do not count: 1, 1, 1, 1. normal: one false alarm of four: 0, 0, undefined, 3/4.
    assert by_slice["jaccard"]["mean"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert by_slice["dice"]["mean"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert by_slice["sensitivity"]["mean"] == 1 and by_slice["sensitivity"]["undefined"] == 1
    assert by_slice["specificity"]["mean"] == pytest.approx((2 / 3 + 1 + 3 / 4) / 3)
    assert by_slice["specificity"]["min"] == pytest.approx(2 / 3)
    assert set(pixel) == set(by_slice) == set(VALUES)


@pytest.mark.parametrize(("side", "limit"), [(640, 400), (512, 256), (192, 36), (160, 25)])
def test_a_slice_is_positive_above_its_share_of_400_pixels(side: int, limit: int) -> None:
    area = Counts(tn=side * side)
    assert not is_positive(limit, area) and is_positive(limit + 1, area)


def test_intervals_are_repeatable_and_resample_patients() -> None:
    values = list(np.random.default_rng(1).random(12))
    alone = [str(i) for i in range(12)]
    assert mean_interval(values, alone, seed=3) == mean_interval(values, alone, seed=3)
    assert mean_interval(values, alone, seed=3) != mean_interval(values, alone, seed=4)
    low, high = mean_interval(values, alone)
    assert low < np.mean(values) < high
    # Three scans a patient that say the same are one fact, not three: copies must not narrow the interval.
    copies = mean_interval(values * 3, alone * 3)
    assert copies == pytest.approx([low, high])
    assert np.isnan(mean_interval([0.4, 0.6], ["same", "same"])).all()
    assert mean_interval([*values, math.nan], [*alone, "undefined"]) == pytest.approx([low, high])


def test_intervals_agree_with_the_normal_theory() -> None:
    values = np.random.default_rng(0).normal(0.7, 0.1, 200)
    low, high = mean_interval(values.tolist(), list(range(200)))
    half = 1.96 * values.std() / np.sqrt(200)
    assert low == pytest.approx(values.mean() - half, abs=0.002)
    assert high == pytest.approx(values.mean() + half, abs=0.002)


def test_a_ratio_is_of_sums() -> None:
    # One big and one small patient: every resample is of 90/100, 1/10 or their sum.
    low, high = ratio_interval([90, 1], [100, 10], ["big", "small"])
    assert low == pytest.approx(0.1) and high == pytest.approx(0.9)
    assert ratio_interval([1.0, 0.0], [1.0, 0.0], ["a", "empty"]) == [1.0, 1.0]


def test_a_share_that_is_all_right_is_not_certain() -> None:
    exact = binomtest(9, 9).proportion_ci(method="exact")
    assert share_interval([1] * 9, [1] * 9, list(range(9))) == pytest.approx([exact.low, exact.high])
    exact = binomtest(0, 4).proportion_ci(method="exact")
    assert share_interval([0] * 8, [1] * 8, [0, 0, 1, 1, 2, 2, 3, 3]) == pytest.approx([exact.low, exact.high])
    mixed = ([1, 0, 1, 1], [1, 1, 1, 1], "abcd")
    assert share_interval(*mixed) == ratio_interval(*mixed)
    assert np.isnan(share_interval([], [], [])).all()


def test_lesions_by_hand() -> None:
    truth, predicted = np.zeros((4, 30, 30), np.uint8), np.zeros((4, 30, 30), np.uint8)
    truth[0:2, 2:7, 2:6] = 2  # 40 voxels, half found
    predicted[0, 2:7, 2:6] = 1
    truth[0, 15:25, 15:25] = 5  # 100 voxels; one stray voxel and its neighbours outside are no finding
    predicted[0, 14:16, 15] = 1
    truth[3, 0, 0] = 4  # missed
    predicted[3, 20:22, 3] = 1  # nothing there
    predicted[2, 22, 4] = 1  # touches the one above by a corner: one false finding, not two
    assert count_lesions(truth, predicted) == Lesions(lesions=3, found=1, false=1)
    assert count_types(truth, predicted) == {
        "intraparenchymal": (20, 40),
        "subarachnoid": (0, 1),
        "subdural": (1, 100),
    }
    assert count_lesions(np.zeros_like(truth), np.zeros_like(truth)) == Lesions(0, 0, 0)


def test_bland_altman_by_hand() -> None:
    found = bland_altman([10, 20, 30, 5], [12, 19, 33, math.nan], ["a", "b", "c", "d"])
    differences = np.array([2.0, -1.0, 3.0])
    assert found["bias_ml"] == pytest.approx(4 / 3) and found["n"] == 3 and found["undefined"] == 1
    sd = differences.std(ddof=1)
    assert found["limits_ml"] == pytest.approx([4 / 3 - 1.96 * sd, 4 / 3 + 1.96 * sd])
    assert found["mean_absolute_ml"] == pytest.approx(2) and found["median_absolute_ml"] == pytest.approx(2)
    assert found["bias_ci95"][0] == pytest.approx(-1) and found["bias_ci95"][1] == pytest.approx(3)
    alone = bland_altman([1.0], [2.0], ["a"])
    assert alone["bias_ml"] == 1 and math.isnan(alone["sd_ml"])


def test_detection_agrees_with_scikit_learn() -> None:
    draw = np.random.default_rng(5)
    truth, called = draw.random(40) < 0.4, draw.random(40) < 0.5
    found = detection(truth.tolist(), called.tolist(), [str(i // 2) for i in range(40)])
    tn, fp, fn, tp = reference.confusion_matrix(truth, called).ravel()
    assert found["sensitivity"] == pytest.approx(tp / (tp + fn)) and found["specificity"] == pytest.approx(
        tn / (tn + fp)
    )
    assert (found["positive"], found["negative"], found["missed"], found["false_alarms"]) == (tp + fn, tn + fp, fn, fp)
    for name in ("sensitivity", "specificity"):
        low, high = found[f"{name}_ci95"]
        assert low < found[name] < high
    amounts = np.round(draw.random(40) * 5)
    assert ranking(truth.tolist(), amounts.tolist()) == pytest.approx(reference.roc_auc_score(truth, amounts))
    assert math.isnan(ranking([True, True], [1, 2]))
    assert count_flags([True, False], [True, True]) == Counts(1, 1, 0, 0)
