"""The prepared dataset, read: scans as they were, from threads and spawned workers; and what is no dataset."""

from __future__ import annotations

import json
import math
import multiprocessing
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from hemotorch.data.case_record import FORMAT, Geometry, geometry_of, scan_of
from hemotorch.data.dataset import Dataset, file_name
from hemotorch.data.layouts import open_layout
from hemotorch.data.manifest import SliceRow, read_manifest, write_manifest
from hemotorch.data.prepare import prepare
from hemotorch.data.shards import write_shard
from hemotorch.data.splits import Split, read_splits, write_splits
from hemotorch.errors import InputError
from hemotorch.scan import Frame, Scan, Source, even_scan
from hemotorch.system.records import build, to_values


def same(one: Scan, other: Scan) -> None:
    """Every field of two scans is equal, to the bit."""
    for field in fields(Scan):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
        else:
            assert left == right, field.name


def middle_slices(data: Dataset, case: str) -> int:
    """Runs in a spawned worker: a number that only the right voxels give."""
    hu, mask = data.read(case, 2, 4)
    return int(hu.astype(np.int64).sum()) * 1000 + int(np.count_nonzero(mask))


def test_scans_and_masks_are_equal_to_what_was_read(tiny_data: Path, tiny_prepared: Path) -> None:
    data = Dataset(tiny_prepared)
    cases = open_layout(tiny_data).cases
    assert data.cases == tuple(case.name for case in cases)
    for case in cases:
        scan, mask = case.read()
        same(data.scan(case.name), scan)
        np.testing.assert_array_equal(data.mask(case.name), mask)
        assert data.volume_ml(case.name) == pytest.approx(scan.volume_ml(mask), rel=1e-12)


def test_geometry_keeps_every_bit_of_an_odd_scan() -> None:
    random = np.random.default_rng(3)
    scan = Scan(
        random.integers(-1024, 3000, (3, 4, 5)).astype(np.int16),
        slice_origins_mm=np.array([[0.1, 1 / 3, -7.7], [0.2, 2 / 3, 1e-9], [0.3, 1.0, 9.123456789012345]]),
        row_step_mm=np.array([0.01, -0.4, 0.02]),
        column_step_mm=np.array([-0.4, -0.01, 1e-17]),
        name="ölf/1",
        slice_numbers=(30, 20, 10),
        source=Source("png", ("a b/c.png", "d.png"), (Frame(0, 0), Frame(1, 0), Frame(1, 1))),
        warnings=("gantry tilt 18.5°",),
        spacing_known=False,
    )
    stored = json.loads(json.dumps(to_values(geometry_of(scan))))
    same(scan_of(build(Geometry, stored, "zarr.json"), scan.hu), scan)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a b/049.nii.gz"], Source("nifti", ("a b/049.nii.gz",), (Frame(0, 2), Frame(0, 1), Frame(0, 0)))),
        (
            ["x_1.PNG", "x_2.PNG", "x_3.PNG"],
            Source("png", ("x_1.PNG", "x_2.PNG", "x_3.PNG"), tuple(map(Frame, range(3), [0] * 3))),
        ),
        ([], None),
    ],
)
def test_a_record_from_before_there_were_sources_is_read(paths: list[str], expected: Source | None) -> None:
    scan = replace(even_scan(np.zeros((3, 4, 5)), 1, 5), slice_numbers=(3, 2, 1))
    stored = {**to_values(geometry_of(scan)), "paths": paths}
    del stored["source"]
    assert scan_of(build(Geometry, stored, "zarr.json"), scan.hu).source == expected


def test_reads_runs_of_slices(tiny_prepared: Path) -> None:
    data = Dataset(tiny_prepared)
    case = data.cases[5]
    hu, mask = data.read(case, 1, 4)
    assert (hu.dtype, mask.dtype, hu.shape, mask.shape) == (np.int16, np.uint8, (3, 64, 64), (3, 64, 64))
    np.testing.assert_array_equal(hu, data.scan(case).hu[1:4])
    np.testing.assert_array_equal(mask, data.mask(case)[1:4])
    with pytest.raises(IndexError):
        data.read(case, 0, 7)


def test_rows_count_what_the_masks_hold(tiny_prepared: Path) -> None:
    data = Dataset(tiny_prepared)
    assert [(row.case, row.index) for row in data.slices] == [(case, i) for case in data.cases for i in range(6)]
    for case in data.cases:
        mask, rows = data.mask(case), data.rows[case]
        assert [row.positive_pixels for row in rows] == [np.count_nonzero(one) for one in mask]
        assert [row.slice_number for row in rows] == list(data.scan(case).slice_numbers)
        assert {row.pixels for row in rows} == {64 * 64}
        np.testing.assert_allclose([row.voxel_ml for row in rows], 3.0 * 3.0 * 5.0 / 1000, rtol=1e-6)
        np.testing.assert_allclose(np.diff([row.position_mm for row in rows]), 5.0, rtol=1e-6)
        assert data.types(case) == (frozenset({"intraparenchymal"}) if mask.any() else frozenset())


def test_threads_share_a_dataset(tiny_prepared: Path) -> None:
    data = Dataset(tiny_prepared)
    jobs = [(case, start) for case in data.cases for start in range(4)] * 5
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda job: data.read(job[0], job[1], job[1] + 2), jobs))
    for (case, start), (hu, mask) in zip(jobs, read, strict=True):
        np.testing.assert_array_equal(hu, data.scan(case).hu[start : start + 2])
        np.testing.assert_array_equal(mask, data.mask(case)[start : start + 2])


def test_spawned_workers_read_it(tiny_prepared: Path) -> None:
    data = Dataset(tiny_prepared)
    expected = [middle_slices(data, case) for case in data.cases]
    assert len(set(expected)) == len(expected)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(middle_slices, [data] * len(expected), data.cases)) == expected


def test_a_pickled_dataset_is_small_and_opens_itself(tiny_prepared: Path) -> None:
    data = Dataset(tiny_prepared)
    data.scan(data.cases[0])
    pickled = pickle.dumps(data)
    assert len(pickled) < 2000
    assert pickle.loads(pickled).slices == data.slices


def test_zarr_is_not_imported_for_reading_or_preparing() -> None:
    code = "import sys, hemotorch.data.prepare; print('zarr' in sys.modules, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


def row(case: str = "a", index: int = 0, **other: object) -> SliceRow:
    """A manifest row."""
    known = SliceRow(case, "p", None, index, index + 1, 5.0 * index, (True, *[False] * 4), 16, 3, True, 0.1, "ff")
    return replace(known, **other)


def test_the_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    rows = [
        row(position_mm=1 / 3, voxel_ml=0.1 + 0.2),
        row("b,\n'\"", 7, patient=None, site="söuth", types=None, slice_number=-1),
        row("c", types=(False,) * 5, positive_pixels=0, has_mask=False, hash=""),
        row("d", positive_pixels=0),
    ]
    write_manifest(tmp_path / "manifest.csv", rows)
    assert read_manifest(tmp_path / "manifest.csv") == rows


def test_the_manifest_keeps_what_is_unknown_unknown(tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.csv", [row(position_mm=math.nan, voxel_ml=math.nan)])
    read = read_manifest(tmp_path / "manifest.csv")[0]
    assert math.isnan(read.position_mm) and math.isnan(read.voxel_ml)


def test_splits_come_back_as_they_were(tmp_path: Path) -> None:
    split = Split("x", "slice", {"a": (0, 1, 2, 5), "b": (7,)}, {}, {"a": (3, 4), "c": ()}, ("careful",))
    write_splits(tmp_path / "splits.json", {"x": split}, ["no fold"], seed=3)
    assert read_splits(tmp_path / "splits.json", {"a": 6, "b": 8, "c": 1}) == ({"x": split}, ("no fold",))
    assert '"a": "0-2,5"' in (tmp_path / "splits.json").read_text()


def test_a_part_has_a_name() -> None:
    split = Split("x", "patient", {"a": (0,)}, {"b": (1,)}, {"c": (2,)})
    assert (split.part("train"), split.part("val"), split.part("test")) == ({"a": (0,)}, {"b": (1,)}, {"c": (2,)})
    with pytest.raises(InputError, match="'tset'.*'test'"):
        split.part("tset")


def test_names_that_are_not_there_are_errors_with_the_nearest(tiny_prepared: Path) -> None:
    data = Dataset(tiny_prepared)
    with pytest.raises(InputError, match="no case '49'.*049"):
        data.scan("49")
    with pytest.raises(InputError, match="no split 'fold-9'.*fold-0, fold-1"):
        data.split("fold-9")
    assert data.split("patient").by == "patient"


@pytest.mark.parametrize("name", ["a/b", "..", ".", "_x", "__zarr", "a%b", "ü", "con:1", "049", "a\\b", "CQ500 CT 1"])
def test_case_names_become_file_names(tmp_path: Path, name: str) -> None:
    made = file_name(name)
    (tmp_path / made).mkdir()
    assert made == name or "%" in made
    assert [path.name for path in tmp_path.iterdir()] == [made]
    assert not made.startswith((".", "__"))


@pytest.fixture
def copy(tiny_prepared: Path, tmp_path: Path) -> Path:
    """A dataset's tables, to be spoilt."""
    for name in ("dataset.json", "manifest.csv", "splits.json"):
        (tmp_path / name).write_bytes((tiny_prepared / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"complete": False}, "not prepared to its end.*again"),
        ({"format": FORMAT + 1}, "newer version.*update hemotorch"),
        ({"format": 0}, "old format 0.*again"),
        ({"kind": "something else"}, "not a prepared dataset"),
        ({"cases": {}}, "holds no scans"),
    ],
)
def test_other_states_of_a_dataset_say_what_to_do(copy: Path, changes: dict, says: str) -> None:
    info = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps(info | changes))
    with pytest.raises(InputError, match=says):
        Dataset(copy)


def test_what_is_no_dataset_says_what_to_do(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder.*hemotorch prepare SRC OUT"):
        Dataset(tmp_path / "nowhere")
    (tmp_path / "scans").mkdir()
    with pytest.raises(InputError, match=r"not a prepared dataset.*hemotorch prepare SRC OUT"):
        Dataset(tmp_path / "scans")
    (copy / "manifest.csv").write_text("case,patient\n049,049\n")
    with pytest.raises(InputError, match=r"manifest.csv: cannot be read.*prepare. again"):
        Dataset(copy)
    (copy / "manifest.csv").unlink()
    with pytest.raises(InputError, match=r"manifest.csv: cannot be read.*prepare. again"):
        Dataset(copy)


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("manifest.csv", "case,patient\n", "does not list the slices"),
        ("splits.json", "{}", "splits.json: is damaged"),
        ("dataset.json", '{"kind": "hemotorch prepared dataset"}', "dataset.json: is damaged"),
    ],
)
def test_damaged_tables_are_named(tiny_prepared: Path, tmp_path: Path, file: str, text: str, says: str) -> None:
    root = shutil.copytree(tiny_prepared, tmp_path / "copy")
    (root / file).write_text(text)
    with pytest.raises(InputError, match=says):
        Dataset(root)


@pytest.mark.parametrize("name", ["hu", "mask"])
def test_voxels_that_changed_on_the_disk_are_never_used(tiny_prepared: Path, tmp_path: Path, name: str) -> None:
    root = shutil.copytree(tiny_prepared, tmp_path / "copy")
    data = Dataset(root)
    case = data.cases[-1]
    values = getattr(data, "scan" if name == "hu" else "mask")(case)
    values = (values.hu if name == "hu" else values).copy()
    place = np.argwhere(values != 0)[0]
    values[tuple(place)] ^= 1
    folder = root / "scans.zarr" / case / name
    shutil.rmtree(folder)
    write_shard(folder, values)
    with pytest.raises(InputError, match="damaged on the disk"):
        (Dataset(root).scan if name == "hu" else Dataset(root).mask)(case)


# What was altered or damaged after it was written


@pytest.fixture
def altered(tiny_prepared: Path, tmp_path: Path) -> Path:
    """A prepared dataset that may be written to."""
    return Path(shutil.copytree(tiny_prepared, tmp_path / "altered"))


@pytest.mark.parametrize(
    "runs", ["0-999999999999", "0-6", "7", "-3", "3-1", "1,1", "2-3,3-4", "x", "1-x", "9" * 5000, 3, None]
)
def test_slices_that_no_scan_has_are_refused(altered: Path, runs: object) -> None:
    splits = json.loads((altered / "splits.json").read_text())
    part = splits["splits"]["slice-80-20"]["train"]
    part[next(iter(part))] = runs
    (altered / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(InputError, match=r"splits\.json: is damaged") as error:
        Dataset(altered)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_a_case_in_two_parts_or_of_another_dataset_is_refused(altered: Path) -> None:
    text = (altered / "splits.json").read_text()
    splits = json.loads(text)
    case = next(iter(splits["splits"]["patient"]["train"]))
    splits["splits"]["patient"]["test"][case] = "0-1"
    (altered / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(InputError, match=f"split 'patient' has case '{case}' in two parts"):
        Dataset(altered)
    splits = json.loads(text)
    splits["splits"]["patient"]["test"]["stranger"] = "0-1"
    (altered / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(InputError, match="names case 'stranger', which the dataset does not hold"):
        Dataset(altered)


@pytest.mark.parametrize("name", ["dataset.json", "splits.json"])
def test_json_that_is_nested_too_deeply_is_one_line(altered: Path, name: str) -> None:
    (altered / name).write_text("[" * 200_000)
    with pytest.raises(InputError, match=rf"{name}: cannot be read as JSON") as error:
        Dataset(altered)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("shape", [6, -64, 64]), ("shape", "6"), ("shape", [6, 64]), ("patient", 3), ("has_mask", "yes"), ("shape", None)],
)
def test_damaged_values_of_dataset_json_are_one_line(altered: Path, key: str, value: object) -> None:
    info = json.loads((altered / "dataset.json").read_text())
    info["cases"]["049"][key] = value
    (altered / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match=rf"is damaged .*cases.049.{key}.*; remove the folder"):
        Dataset(altered)


@pytest.mark.parametrize(
    ("old", "new"),
    [("\n049,", '\n"049,'), (",4096,", ",-4096,"), (",4096,", ",many,"), ("\n049,049,,0,", "\n049,049,,1,")],
)
def test_a_damaged_manifest_is_one_line(altered: Path, old: str, new: str) -> None:
    text = (altered / "manifest.csv").read_text()
    assert old in text
    (altered / "manifest.csv").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=r"manifest\.csv: "):
        Dataset(altered)


@pytest.mark.parametrize("key", ["slice_origins_mm", "row_step_mm", "column_step_mm", "slice_numbers"])
def test_an_edited_geometry_is_noticed_and_prepared_anew(tiny_data: Path, altered: Path, key: str) -> None:
    before = Dataset(altered).scan("055")
    path = altered / "scans.zarr/055/zarr.json"
    stored = json.loads(path.read_text())
    scan = stored["attributes"]["hemotorch"]["scan"]
    scan[key] = (np.array(scan[key]) * 3).tolist()
    path.write_text(json.dumps(stored))
    with pytest.raises(InputError, match="geometry, counts. was altered"):
        Dataset(altered).scan("055")
    assert prepare(tiny_data, altered).done == ("055",)
    same(Dataset(altered).scan("055"), before)


def test_a_record_without_a_digest_still_opens(tiny_data: Path, altered: Path) -> None:
    path = altered / "scans.zarr/055/zarr.json"
    stored = json.loads(path.read_text())
    del stored["attributes"]["hemotorch"]["digest"], stored["attributes"]["hemotorch"]["head"]
    path.write_text(json.dumps(stored))
    assert Dataset(altered).scan("055").shape == (6, 64, 64)
    assert prepare(tiny_data, altered).done == ()
    assert "digest" in json.loads(path.read_text())["attributes"]["hemotorch"]


def test_the_split_all_trains_on_every_scan_with_a_mask(tiny_prepared: Path) -> None:
    data = Dataset(tiny_prepared)
    split = data.split("all")
    assert "all" not in data.splits  # no part of it is left to test on, so nothing chooses it by itself
    assert set(split.train) == {case for case in data.cases if data.has_mask(case)}
    assert all(split.train[case] == tuple(range(len(data.rows[case]))) for case in split.train)
    assert not split.val and not split.test
