"""Splits: by patient, stratified, even for few patients; and an audit that finds what is on both sides."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hemotorch.data.audit import Twins, audit
from hemotorch.data.make_splits import make_splits
from hemotorch.data.manifest import SliceRow
from hemotorch.data.splits import Split
from hemotorch.labels import TYPES

SLICES = 4


def case(
    name: str, volume_ml: float = 0.0, types: Iterable[str] = (), patient: str | None = "", **other: Any
) -> list[SliceRow]:
    """Four slices of a scan; bleeding of that volume is on the middle two. Its patient is the case itself."""
    flags = tuple(kind in types for kind in TYPES)
    pixels = [0, round(volume_ml * 50), round(volume_ml * 50), 0]
    rows = [
        SliceRow(
            name, name if patient == "" else patient, None, i, i + 1, 5.0 * i,
            flags if pixels[i] else (False,) * 5, 10_000, pixels[i], True, 0.01, f"{name}-{i}",
        )
        for i in range(SLICES)
    ]  # fmt: skip
    return [replace(row, **other) for row in rows]


def cohort(positive: int, normal: int) -> list[SliceRow]:
    """Patients with bleeding of several types and volumes, and without."""
    random = np.random.default_rng(positive * 100 + normal)
    rows = []
    for i in range(positive):
        kinds = random.choice(TYPES, size=1 + (i % 3 == 0), replace=False, p=[0.1, 0.3, 0.1, 0.2, 0.3])
        rows += case(f"p{i:03d}", float(np.exp(random.uniform(-1.5, 4))), kinds)
    for i in range(normal):
        rows += case(f"n{i:03d}")
    return [rows[i] for block in random.permutation(len(rows) // SLICES) for i in range(block * 4, block * 4 + 4)]


def names(part: dict[str, tuple[int, ...]]) -> set[str]:
    return set(part)


def bleeding(part: dict[str, tuple[int, ...]]) -> int:
    return sum(name.startswith("p") for name in part)


def test_published_size_gives_the_shares_asked_for() -> None:
    splits, missing = make_splits(cohort(36, 39), seed=0)
    assert list(splits) == ["patient", "patient-80-20", "slice-80-20", *(f"fold-{k}" for k in range(5))]
    assert missing == ()
    sizes = {
        name: [(len(part), bleeding(part)) for part in (splits[name].train, splits[name].val, splits[name].test)]
        for name in ("patient", "patient-80-20")
    }
    assert sizes["patient"] == [(45, 21), (7, 4), (23, 11)]
    assert sizes["patient-80-20"] == [(60, 29), (0, 0), (15, 7)]
    for k in range(5):
        fold = splits[f"fold-{k}"]
        assert [len(part) for part in (fold.train, fold.val, fold.test)] == [45, 15, 15]
        assert bleeding(fold.test) in (7, 8)
        assert fold.val == splits[f"fold-{(k + 1) % 5}"].test


@pytest.mark.parametrize("positive", [0, 1, 2, 3, 4, 5, 7, 12, 36])
@pytest.mark.parametrize("normal", [0, 1, 2, 3, 6, 20])
def test_every_number_of_patients_is_dealt_out_whole(positive: int, normal: int) -> None:
    rows = cohort(positive, normal)
    everybody = {row.case for row in rows}
    count = len(everybody)
    splits, missing = make_splits(rows, seed=1)
    by_patient = [split for split in splits.values() if split.by == "patient"]
    if count < 2:
        assert not by_patient
        assert bool(splits) == bool(count) and missing
        return
    for split in by_patient:
        parts = [names(split.train), names(split.val), names(split.test)]
        assert parts[0] | parts[1] | parts[2] == everybody
        assert sum(map(len, parts)) == count
        assert parts[0] and parts[2]
        assert bool(parts[1]) == (count > 2 and split.name != "patient-80-20")
        assert all(
            indices == (0, 1, 2, 3) for part in (split.train, split.val, split.test) for indices in part.values()
        )
        if positive > 1 and not split.name.startswith("fold"):
            assert bleeding(split.train) and bleeding(split.test)
    tests = [names(split.test) for split in by_patient if split.name.startswith("fold-")]
    assert set.union(*tests) == everybody and sum(map(len, tests)) == count
    assert max(map(len, tests)) - min(map(len, tests)) <= 1
    with_bleeding = [bleeding(split.test) for split in by_patient if split.name.startswith("fold-")]
    assert max(with_bleeding) - min(with_bleeding) <= 1
    assert (len(tests) < 5) == any("folds instead of 5" in text for text in missing)


def test_too_few_patients_reduce_the_folds_and_say_so() -> None:
    splits, missing = make_splits(cohort(4, 20))
    assert [name for name in splits if name.startswith("fold")] == ["fold-0", "fold-1", "fold-2", "fold-3"]
    assert missing == ("4 folds instead of 5: there are 24 patients, 4 of them with bleeding",)
    splits, _ = make_splits(cohort(1, 20))
    assert [name for name in splits if name.startswith("fold")] == ["fold-0", "fold-1", "fold-2"]
    bare = [split for split in splits.values() if "no bleeding in its test part" in " ".join(split.warnings)]
    assert {split.name for split in bare} >= {"patient"} and len(bare) >= 3


def test_one_and_two_patients() -> None:
    splits, missing = make_splits(case("a", 10, ["subdural"]))
    assert list(splits) == ["slice-80-20"]
    assert missing == ("no split but by slice, since there is one patient only",)
    splits, _ = make_splits(case("a", 10, ["subdural"]) + case("b", 5, ["subdural"]))
    assert (len(splits["patient"].train), len(splits["patient"].val), len(splits["patient"].test)) == (1, 0, 1)
    assert "too few patients for a val part" in " ".join(splits["patient"].warnings)
    assert names(splits["fold-0"].test) == names(splits["fold-1"].train) != names(splits["fold-1"].test)


def test_same_rows_and_seed_same_splits_and_other_seed_other_splits() -> None:
    rows = cohort(20, 20)
    assert make_splits(rows, 5) == make_splits(rows, 5)
    different = {tuple(sorted(make_splits(rows, seed)[0]["patient"].test)) for seed in range(10)}
    assert len(different) == 10


def test_every_patient_is_tested_on_about_as_often_as_the_share_says() -> None:
    rows = cohort(10, 10)
    seeds = 300
    counts = dict.fromkeys({row.case for row in rows}, 0)
    for seed in range(seeds):
        for name in make_splits(rows, seed)[0]["patient"].test:
            counts[name] += 1
    # 0.3 of 300 is 90, and four standard deviations of a fair draw are 32.
    assert all(abs(count - 90) < 32 for count in counts.values()), counts


def test_types_and_volumes_are_spread() -> None:
    rows = []
    for i in range(10):
        rows += case(f"pe{i}", 1.0 + i, ["epidural"])
    for i in range(30):
        rows += case(f"ps{i}", 1.0 + i, ["subdural", "epidural"] if i == 0 else ["subdural"])
    for seed in range(20):
        splits, _ = make_splits(rows, seed)
        tested = splits["patient"].test
        assert sum(name.startswith("pe") for name in tested) in (2, 3, 4)
        ranks = sorted(int(name[2:]) for name in tested if name.startswith("ps"))
        assert 10 <= np.mean(ranks) <= 19  # the middle of 0 to 29 is 14.5; nine drawn at random scatter by 2.4
        assert ranks[0] <= 6 and ranks[-1] >= 23
        assert max(np.diff(ranks)) <= 8
        for k in range(5):
            assert sum(name.startswith("pe") for name in splits[f"fold-{k}"].test) in (1, 2, 3)


def test_a_patients_scans_stay_together() -> None:
    rows = [row for i in range(30) for row in case(f"c{i:02d}", float(i % 3), ["subdural"], patient=f"x{i // 3}")]
    splits, _ = make_splits(rows)
    for split in splits.values():
        if split.by == "patient":
            sides = [{int(name[1:]) // 3 for name in part} for part in (split.train, split.val, split.test)]
            assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]


def test_by_slice_keeps_shares_of_slices_with_bleeding_and_without() -> None:
    rows = cohort(10, 15)
    split = make_splits(rows, 2)[0]["slice-80-20"]
    assert split.by == "slice" and split.val == {}
    bleeds = {(row.case, row.index) for row in rows if row.positive_pixels}
    train, test = ({(name, i) for name, indices in part.items() for i in indices} for part in (split.train, split.test))
    assert not train & test and len(train | test) == 100
    assert (len(test & bleeds), len(test - bleeds)) == (4, 16)
    assert len(names(split.train) & names(split.test)) > 10  # which is what is wrong with it


def test_unknown_patients_are_never_called_a_split_by_patient() -> None:
    rows = [row for i in range(10) for row in case(f"p{i}", 5.0, ["subdural"], patient=None if i else "x")]
    splits, missing = make_splits(rows)
    assert list(splits)[:3] == ["case", "case-80-20", "slice-80-20"]
    assert {split.by for split in splits.values()} == {"slice"}
    assert "patients are unknown" in missing[0]
    assert not names(splits["case"].train) & names(splits["case"].test)


def test_scans_without_a_mask_are_in_no_split() -> None:
    unlabelled = case("u", 0, has_mask=False)
    splits, missing = make_splits(cohort(6, 6) + unlabelled)
    assert all("u" not in names(part) for s in splits.values() for part in (s.train, s.val, s.test))
    assert missing[0] == "1 scans without a mask are in no split: u"
    assert make_splits(unlabelled) == (
        {},
        (
            "1 scans without a mask are in no split: u",
            "no split, since no scan has a mask: nothing can be trained or scored on this dataset",
        ),
    )
    assert make_splits([])[0] == {}


def test_unknown_spacing_and_types_are_dealt_with() -> None:
    rows = [row for i in range(20) for row in case(f"p{i:02d}", i + 1.0, voxel_ml=math.nan)]
    rows = [replace(row, types=None) for row in rows]
    splits, _ = make_splits(rows)
    ranks = sorted(int(name[1:]) for name in splits["patient"].test)
    assert ranks[0] <= 5 and ranks[-1] >= 14  # by share of pixels


def dataset(rows: list[SliceRow], patients_known: bool = True) -> Any:
    """What the audit needs of a dataset."""
    return SimpleNamespace(slices=rows, patients_known=patients_known)


def test_the_audit_names_patients_and_identical_slices_on_both_sides() -> None:
    rows = case("a", patient="x") + case("b", patient="x") + case("c", patient="z") + case("d", patient="y")
    rows[13] = replace(rows[13], hash="a-2")  # slice 2 of d is slice 3 of a
    rows[6] = replace(rows[6], hash="c-0")  # slice 3 of b is slice 1 of c
    every = (0, 1, 2, 3)
    split = Split("s", "patient", {"a": every}, {"c": every}, {"b": every, "d": every})
    found = audit(dataset(rows), split)
    assert found.patients == ("x",)
    assert found.slices == (Twins("b", 3, "c", 1), Twins("d", 2, "a", 3))
    assert (found.val_patients, found.val_slices) == ((), ())
    assert not found.clean
    assert found.lines() == [
        "split 's': 1 patients are on both sides of training and testing: x",
        "split 's': 2 identical slices are on both sides of training and testing: b slice 3 = c slice 1, "
        "d slice 2 = a slice 3",
    ]
    by_slice = audit(dataset(rows), replace(split, by="slice")).lines()
    assert all(line.startswith("split 's', by slice as in the 2021 paper: ") for line in by_slice)
    moved = audit(dataset(rows), Split("s", "patient", {"a": every, "c": every}, {"b": every}, {"d": every}))
    assert moved.val_patients == ("x",) and moved.val_slices == (Twins("b", 3, "c", 1),)
    assert moved.patients == () and moved.slices == (Twins("d", 2, "a", 3),)


def test_the_audit_looks_at_the_slices_of_the_split_only() -> None:
    rows = case("a") + case("b")
    rows[7] = replace(rows[7], hash="a-0")
    assert audit(dataset(rows), Split("s", "patient", {"a": (1, 2, 3)}, {}, {"b": (0, 1, 2, 3)})).clean
    assert audit(dataset(rows), Split("s", "patient", {"a": (0,)}, {}, {"b": (3,)})).slices == (Twins("b", 4, "a", 1),)


def test_slices_of_nothing_but_air_are_not_called_identical() -> None:
    rows = [replace(row, hash="") for row in case("a") + case("b")]
    found = audit(dataset(rows), Split("s", "patient", {"a": (0, 1)}, {}, {"b": (0, 1)}))
    assert found.clean
    assert found.lines() == ["split 's': no patient and no identical slice is on both sides"]


def test_the_audit_never_calls_unknown_patients_clean() -> None:
    rows = case("a", patient=None) + case("b", patient=None)
    found = audit(dataset(rows, patients_known=False), Split("s", "slice", {"a": (0, 1)}, {}, {"b": (0, 1)}))
    assert not found.clean and found.patients == ()
    assert found.lines() == [
        "split 's', by slice as in the 2021 paper: patients are unknown: the same one may be on both sides unseen"
    ]
    found = audit(dataset(rows, patients_known=False), Split("s", "slice", {"a": (0, 1)}, {}, {"a": (2,), "b": (0,)}))
    assert found.patients == ("a",)
    assert (
        found.lines()[0]
        == "split 's', by slice as in the 2021 paper: 1 scans are on both sides of training and testing"
    )


def test_splits_by_patient_pass_the_audit_and_the_paper_s_does_not() -> None:
    rows = cohort(12, 12)
    splits, _ = make_splits(rows)
    for split in splits.values():
        assert audit(dataset(rows), split).clean == (split.by == "patient")
