"""Truth as sets, from files to the dataset: what lies inside the skull, and slice labels that narrow types down."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hemotorch.data import layouts
from hemotorch.data.dataset import Dataset
from hemotorch.data.prepare import prepare
from hemotorch.data.shards import write_shard
from hemotorch.errors import InputError
from hemotorch.io import nifti
from hemotorch.labels import CODES, TYPES, UNTYPED
from hemotorch.scan import CaseInfo
from hemotorch.task import BLEEDING, BLEEDING_BITS, INSIDE_BIT, OUTSIDE_BIT, TYPED
from tiny import head

SUBDURAL, EPIDURAL = 1 << (CODES["subdural"] - 1), 1 << (CODES["epidural"] - 1)


def write_source(root: Path, layout: str, inside: bool = True) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two tiny heads whose bleeding is epidural and subdural; their masks, and what lies inside their skulls."""
    truth, rows = [], []
    for index in range(2):
        scan, mask = head(index)
        mask[mask > 0] = CODES["epidural"]
        mask[..., 32:][mask[..., 32:] > 0] = CODES["subdural"]
        within = (scan.hu > -100) & (scan.hu < 300)
        types = {
            number: frozenset(name for name in TYPES if (mask[slice_index] == CODES[name]).any())
            for slice_index, number in enumerate(scan.slice_numbers)
        }
        name = f"{49 + index:03d}"
        rows.append(CaseInfo(name, name, 60.0, "F", types, hemorrhage=True))
        layouts.write_case(layout, root, name, scan, mask, rows[-1], within if inside else None)
        truth.append((mask, within))
    layouts.write_tables(layout, root, rows)
    return truth


@pytest.mark.parametrize("layout", ["folder", "ct-ich"])
def test_what_lies_inside_the_skull_comes_from_the_files_into_the_dataset(tmp_path: Path, layout: str) -> None:
    truth = write_source(tmp_path / "source", layout)
    opened = layouts.open_layout(tmp_path / "source")
    assert opened.passed_over == () and opened.warnings == ()
    prepare(tmp_path / "source", tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    for case, (_, inside) in zip(dataset.cases, truth, strict=True):
        assert dataset.has_inside(case)
        np.testing.assert_array_equal(dataset.inside(case), inside)
    assert prepare(tmp_path / "source", tmp_path / "out").done == ()


def test_typed_masks_and_the_inside_say_exactly_what_each_voxel_is(tmp_path: Path) -> None:
    truth = write_source(tmp_path / "source", "folder")
    prepare(tmp_path / "source", tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    for case, (mask, inside) in zip(dataset.cases, truth, strict=True):
        expected = np.where(inside, INSIDE_BIT, OUTSIDE_BIT).astype(np.uint8)
        expected[mask == CODES["epidural"]] = EPIDURAL
        expected[mask == CODES["subdural"]] = SUBDURAL
        target = dataset.target(case, TYPED)
        assert target.dtype == np.uint8 and (target == SUBDURAL).any()
        np.testing.assert_array_equal(target, expected)
        hu, part = dataset.read_target(case, 1, 4, TYPED)
        np.testing.assert_array_equal(part, target[1:4])
        np.testing.assert_array_equal(hu, dataset.scan(case).hu[1:4])
        np.testing.assert_array_equal(dataset.target(case, BLEEDING), mask > 0)
        np.testing.assert_array_equal(dataset.read_target(case, 1, 4, BLEEDING)[1], mask[1:4] > 0)


def test_labels_of_slices_narrow_down_what_a_binary_mask_leaves_open(tmp_path: Path) -> None:
    truth = write_source(tmp_path / "source", "ct-ich", inside=False)
    prepare(tmp_path / "source", tmp_path / "out")
    dataset, met = Dataset(tmp_path / "out"), set()
    for case, (mask, _) in zip(dataset.cases, truth, strict=True):
        assert not dataset.has_inside(case) and dataset.inside(case) is None
        assert set(np.unique(dataset.mask(case))) == {0, UNTYPED}
        for target, drawn in zip(dataset.target(case, TYPED), mask, strict=True):
            assert not target[drawn == 0].any(), "neither inside nor outside is known"
            possible = np.bitwise_or.reduce([1 << (code - 1) for code in np.unique(drawn[drawn > 0])] or [0])
            assert (target[drawn > 0] == possible).all()
            met.add(int(possible))
    assert EPIDURAL | SUBDURAL in met


def test_without_labels_bleeding_may_be_of_every_type(tmp_path: Path) -> None:
    write_source(tmp_path / "source", "folder", inside=False)
    (tmp_path / "source" / "labels.json").write_text(json.dumps({"1": "bleeding", "5": "bleeding"}))
    prepare(tmp_path / "source", tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert set(np.unique(dataset.target(dataset.cases[0], TYPED))) == {0, BLEEDING_BITS}


def test_an_inside_that_comes_goes_or_changes_is_prepared_again(tmp_path: Path) -> None:
    write_source(tmp_path / "source", "folder")
    prepare(tmp_path / "source", tmp_path / "out")
    path = tmp_path / "source" / "inside" / "049.nii.gz"
    path.unlink()
    assert prepare(tmp_path / "source", tmp_path / "out").done == ("049",)
    assert not Dataset(tmp_path / "out").has_inside("049")
    shutil.copy(tmp_path / "source" / "inside" / "050.nii.gz", path)
    assert prepare(tmp_path / "source", tmp_path / "out").done == ("049",)
    assert Dataset(tmp_path / "out").has_inside("049")


def test_datasets_prepared_before_the_inside_was_kept_open(tmp_path: Path) -> None:
    write_source(tmp_path / "source", "folder", inside=False)
    prepare(tmp_path / "source", tmp_path / "out")
    path = tmp_path / "out" / "dataset.json"
    info = json.loads(path.read_text())
    for entry in info["cases"].values():
        del entry["has_inside"]
    path.write_text(json.dumps(info))
    dataset = Dataset(tmp_path / "out")
    assert dataset.inside("049") is None and dataset.target("049", TYPED).any()


def test_an_inside_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    write_source(tmp_path / "source", "folder")
    scan, mask = head(0)
    nifti.write_mask(scan, mask * 7, tmp_path / "source" / "inside" / "049.nii.gz")
    nifti.write_mask(scan, mask, tmp_path / "source" / "inside" / "other.nii.gz")
    summary = prepare(tmp_path / "source", tmp_path / "out")
    assert "049.nii.gz: holds other values than 0 (outside the skull) and 1 (inside)" in summary.failed["049"]
    assert any("1 files in inside/ have no scan and are left out: other" in text for text in summary.warnings)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda inside, mask: np.zeros_like(inside), "marks nothing as inside the skull"),
        (lambda inside, mask: ~inside, "marks mostly air as inside the skull"),
        (lambda inside, mask: inside & (mask == 0), "leaves most of the bleeding outside the skull"),
    ],
)
def test_an_inside_that_cannot_be_the_inside_of_a_skull_is_refused(
    tmp_path: Path, wrong: Callable[[np.ndarray, np.ndarray], np.ndarray], reason: str
) -> None:
    (mask, inside), _ = write_source(tmp_path / "source", "folder")
    scan, _ = head(0)
    nifti.write_mask(scan, wrong(inside, mask).astype(np.uint8), tmp_path / "source" / "inside" / "049.nii.gz")
    summary = prepare(tmp_path / "source", tmp_path / "out")
    assert list(summary.failed) == ["049"] and f"049.nii.gz: {reason}; " in summary.failed["049"]


def test_a_damaged_inside_is_noticed(tmp_path: Path) -> None:
    write_source(tmp_path / "source", "folder")
    prepare(tmp_path / "source", tmp_path / "out")
    folder = tmp_path / "out" / "scans.zarr" / "049" / "inside"
    shutil.rmtree(folder)
    write_shard(folder, np.ones(Dataset(tmp_path / "out").scan("049").shape, np.uint8))
    with pytest.raises(InputError, match="inside its skull was damaged"):
        Dataset(tmp_path / "out").inside("049")
