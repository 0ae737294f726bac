"""Preparing: counts, PNGs, and above all what a second run does, after a change, a failure or a kill."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from hemotorch.cli import main
from hemotorch.data import layouts
from hemotorch.data.audit import audit
from hemotorch.data.case_record import FORMAT
from hemotorch.data.dataset import Dataset
from hemotorch.data.prepare import PreparedSummary, prepare
from hemotorch.errors import InputError, OptionError, RunError
from hemotorch.hu import to_grey
from hemotorch.io import nifti, write_mask
from hemotorch.io.dicom.write import write_series
from hemotorch.scan import CaseInfo, Scan, even_scan
from hemotorch.system.files import jsonable, write_json

TABLE = "hemorrhage_diagnosis_raw_ct.csv"


def head(seed: int, bleeding: bool, shape: tuple[int, int, int] = (4, 32, 24)) -> tuple[Scan, np.ndarray]:
    """Noise around grey matter in a box of bone in a frame of air; bleeding is a rectangle on slice 2."""
    hu = np.full(shape, -1000, np.int16)
    hu[:, 3:-3, 3:-3] = 1000
    inside = (slice(None), slice(4, -4), slice(4, -4))
    hu[inside] = np.random.default_rng(seed).normal(35, 6, hu[inside].shape)
    hu[0] = -1000
    mask = np.zeros(shape, np.uint8)
    if bleeding:
        mask[1, 10:16, 8 : 12 + seed % 3] = 5
        hu[mask > 0] += 40
    return even_scan(hu, 120 / shape[2], 5.0), mask  # wide enough for a head


def write_source(root: Path, count: int = 6, layout: str = "ct-ich", **other: tuple[int, int, int]) -> Path:
    """A source of that many cases, 049, 050, ..., every other one with subdural bleeding."""
    rows = []
    for i in range(count):
        scan, mask = head(i, i % 2 == 0, **other)
        types = {n: frozenset({"subdural"} if mask[n - 1].any() else ()) for n in scan.slice_numbers}
        rows.append(CaseInfo(f"{49 + i:03d}", f"{49 + i:03d}", 50.0, "F", types))
        layouts.write_case(layout, root, rows[-1].name, scan, mask, rows[-1])
    layouts.write_tables(layout, root, rows)
    return root


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Every file below with its inode and time: what was written again differs."""
    status = {path: path.stat() for path in root.rglob("*") if path.is_file()}
    return {str(path.relative_to(root)): (one.st_ino, one.st_mtime_ns) for path, one in status.items()}


def contents(root: Path) -> dict[str, bytes]:
    """The bytes of every file that does not tell when it was made."""
    names = ("manifest.csv", "splits.json")
    wanted = [path for path in root.rglob("*") if path.is_file() and (path.name in names or path.name != "zarr.json")]
    return {str(p.relative_to(root)): p.read_bytes() for p in wanted if p.name not in ("dataset.json", ".lock")}


def written_again(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> set[str]:
    """Cases whose voxels or PNGs are not the files they were."""
    changed = [Path(name) for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    pngs = {path.stem[:3] for path in changed if path.suffix == ".png"}
    return pngs | {path.parts[1] for path in changed if "c" in path.parts}


def grey(path: Path) -> np.ndarray:
    image = Image.open(path)
    assert image.mode == "L"
    return np.asarray(image)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_the_summary_counts_scans_slices_and_patients(source: Path, out: Path) -> None:
    summary = prepare(source, out)
    counts = summary.counts
    assert (counts.scans, counts.slices, counts.masks, counts.patients) == (6, 24, 6, 6)
    assert (counts.positive_slices_table, counts.positive_slices_mask) == (3, 3)
    assert (counts.positive_patients_table, counts.positive_patients_mask) == (3, 3)
    assert counts.differences == () and summary.failed == {} and len(summary.done) == 6
    text = "\n".join(summary.lines())
    published = (
        "6 +CT-ICH as published: 75",
        "24 +CT-ICH as published: 2814",
        "published: 318, the 2021 paper: 318 .and",
        "published: 36",
    )
    for expected in published:
        assert re.search(expected, text), expected
    assert "split 'patient': no patient and no identical slice is on both sides" in text
    assert "split 'slice-80-20', by slice as in the 2021 paper:" in text
    told = json.loads(json.dumps(jsonable(summary.to_dict())))
    assert told["counts"]["slices"] == 24 and told["done"] == [f"{n:03d}" for n in range(49, 55)]


def test_slices_on_which_table_and_mask_disagree_are_named(source: Path, out: Path) -> None:
    text = (source / TABLE).read_text()
    assert "\n49,2,0,0,0,0,1,0,0\n" in text and "\n50,1,0,0,0,0,0,1,0\n" in text
    text = text.replace("\n49,2,0,0,0,0,1,0,0\n", "\n49,2,0,0,0,0,0,1,0\n")
    (source / TABLE).write_text(text.replace("\n50,1,0,0,0,0,0,1,0\n", "\n50,1,0,0,0,1,0,0,0\n"))
    counts = prepare(source, out).counts
    assert counts.differences == (
        "049 slice 2: no bleeding in the table, 24 pixels in the mask",
        "050 slice 1: bleeding in the table, mask empty",
    )
    assert (counts.positive_slices_table, counts.positive_slices_mask) == (3, 3)
    assert (counts.positive_patients_table, counts.positive_patients_mask) == (3, 3)


def test_types_come_from_the_table_or_from_a_typed_mask_and_are_else_unknown(tmp_path: Path) -> None:
    subdural = (False, False, False, False, True)
    prepare(write_source(tmp_path / "table", 2), tmp_path / "a")
    assert [row.types for row in Dataset(tmp_path / "a").rows["049"]] == [(False,) * 5, subdural, *[(False,) * 5] * 2]
    prepare(write_source(tmp_path / "typed", 2, "folder"), tmp_path / "b")
    assert [row.types for row in Dataset(tmp_path / "b").rows["049"]] == [(False,) * 5, subdural, *[(False,) * 5] * 2]
    shutil.copytree(tmp_path / "table", tmp_path / "untyped")
    (tmp_path / "untyped" / TABLE).unlink()
    summary = prepare(tmp_path / "untyped", tmp_path / "c")
    data = Dataset(tmp_path / "c")
    assert [row.types for row in data.rows["049"]] == [(False,) * 5, None, *[(False,) * 5] * 2]
    assert data.types("049") is None and data.types("050") == frozenset()
    assert summary.counts.positive_slices_table is None and summary.counts.positive_slices_mask == 1


def test_several_sources_become_one_dataset_in_which_each_keeps_its_layout(
    source: Path, out: Path, tmp_path: Path
) -> None:
    typed = write_source(tmp_path / "typed", 2, "folder")
    summary = prepare([source, typed], out)
    data = Dataset(out)
    assert data.cases == (*(f"source-{50 + i - 1:03d}" for i in range(6)), "typed-049", "typed-050")
    assert data.layout == "ct-ich and folder"
    assert np.array_equal(data.scan("typed-049").hu, layouts.open_layout(typed).cases[0].read()[0].hu)
    # The same name in two sources is one patient: 049 is never on both sides.
    assert data.rows["typed-049"][0].patient == data.rows["source-049"][0].patient == "049"
    for split in (split for split in data.splits.values() if split.by == "patient"):
        assert ("typed-049" in split.test) == ("source-049" in split.test)
    assert any(line.startswith("ct-ich: ") and "; folder: " in line for line in summary.lines())
    assert main(["prepare", str(source), str(typed), str(out)]) == 0  # again: nothing to do
    with pytest.raises(InputError, match="was prepared from"):
        prepare(write_source(tmp_path / "third", 3), out)
    with pytest.raises(InputError, match="has the name of another source"):
        prepare([source, write_source(tmp_path / "elsewhere" / "source", 2)], tmp_path / "b")


def test_a_scan_without_a_mask_is_kept_but_trains_nothing(source: Path, out: Path) -> None:
    (source / "masks/050.nii").unlink()
    summary = prepare(source, out, png=True)
    data = Dataset(out)
    assert data.mask("050") is None and not data.has_mask("050") and np.isnan(data.volume_ml("050"))
    hu, mask = data.read("050", 0, 4)
    np.testing.assert_array_equal(hu, data.scan("050").hu)
    assert mask.shape == (4, 32, 24) and not mask.any()
    assert all("050" not in part for s in data.splits.values() for part in (s.train, s.val, s.test))
    assert not list(out.glob("png/*/050_*")) and len(list(out.glob("png/image/*.png"))) == summary.pngs == 20
    told = "\n".join(summary.warnings)
    assert "no mask, so no PNGs: 050" in told and "in no split: 050" in told and summary.counts.masks == 5


def test_a_second_run_does_nothing(source: Path, out: Path) -> None:
    prepare(source, out, png=True)
    before, held = snapshot(out), contents(out)
    summary = prepare(source, out, png=True)
    assert summary.done == () and len(summary.kept) == 6
    assert written_again(before, snapshot(out)) == set() and contents(out) == held


def test_only_a_case_whose_voxels_changed_is_done_again(source: Path, out: Path) -> None:
    prepare(source, out, png=True)
    path = source / "ct_scans/051.nii"
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    data = bytearray(path.read_bytes())
    data[352 + 2 * (32 * 24 + 10 * 24 + 10)] ^= 3  # one voxel; the header's 352 bytes come first
    path.write_bytes(data)
    os.utime(path, ns=times)  # size and time are those of before
    before = snapshot(out)
    summary = prepare(source, out, png=True)
    assert summary.done == ("051",) and len(summary.kept) == 5
    assert written_again(before, snapshot(out)) == {"051"}
    scan, _ = layouts.open_layout(source).cases[2].read()
    np.testing.assert_array_equal(Dataset(out).scan("051").hu, scan.hu)


def test_a_file_that_was_only_touched_is_read_but_not_written_again(source: Path, out: Path) -> None:
    prepare(source, out, png=True)
    (source / "ct_scans/049.nii").touch()
    shutil.copy(source / "masks/050.nii", source / "copy")
    os.replace(source / "copy", source / "masks/050.nii")
    before = snapshot(out)
    assert prepare(source, out).done == ()
    assert written_again(before, snapshot(out)) == set()


def test_a_changed_mask_or_table_concerns_its_own_case_only(source: Path, out: Path) -> None:
    prepare(source, out)
    scan, mask = head(1, True)
    layouts.write_case("ct-ich", source, "050", scan, mask, CaseInfo("050", "050"))
    assert prepare(source, out).done == ("050",)
    text = (source / TABLE).read_text()
    (source / TABLE).write_text(text.replace("\n52,3,0,0,0,0,0,1,0\n", "\n52,3,1,0,0,0,0,0,0\n"))
    assert prepare(source, out).done == ("052",)
    assert Dataset(out).rows["052"][2].types == (False, False, True, False, False)


def test_removed_and_added_cases(source: Path, out: Path) -> None:
    prepare(source, out, png=True)
    for folder in ("ct_scans", "masks"):
        os.rename(source / folder / "053.nii", source / folder / "070.nii")
    summary = prepare(source, out, png=True)
    assert (summary.done, summary.removed) == (("070",), ("053",))
    assert Dataset(out).cases == ("049", "050", "051", "052", "054", "070")
    assert not (out / "scans.zarr/053").exists()
    assert not list(out.glob("png/*/053_*")) and len(list(out.glob("png/label/070_*"))) == 4


def test_a_bad_case_is_named_and_the_others_are_done(source: Path, out: Path, tmp_path: Path) -> None:
    prepare(source, out, png=True)
    good = {name: (source / "ct_scans" / f"{name}.nii").read_bytes() for name in ("050", "052")}
    (source / "ct_scans/050.nii").write_bytes(good["050"][:3000])
    (source / "ct_scans/052.nii").write_bytes(b"no image at all")
    write_source(tmp_path / "small", 3, shape=(3, 32, 24))
    mask = (source / "masks/051.nii").read_bytes()
    shutil.copy(tmp_path / "small/masks/051.nii", source / "masks/051.nii")
    summary = prepare(source, out, png=True)
    assert list(summary.failed) == ["050", "051", "052"]
    assert "ct_scans/050.nii" in summary.failed["050"] and "masks/051.nii" in summary.failed["051"]
    assert summary.kept == ("049", "053", "054")
    assert [line for line in summary.lines() if line.startswith("failed: 052")]
    assert Dataset(out).cases == ("049", "053", "054")
    assert not list(out.glob("png/*/05[012]_*"))
    for name, data in good.items():
        (source / "ct_scans" / f"{name}.nii").write_bytes(data)
    (source / "masks/051.nii").write_bytes(mask)
    summary = prepare(source, out, png=True)
    assert summary.done == ("050", "051", "052") and summary.failed == {}


def test_no_good_case_at_all_leaves_a_dataset_that_says_so(tmp_path: Path, out: Path) -> None:
    source = write_source(tmp_path / "source", 1)
    (source / "ct_scans/049.nii").write_bytes(b"")
    summary = prepare(source, out)
    assert list(summary.failed) == ["049"] and summary.counts.scans == 0
    assert summary.lines()
    with pytest.raises(InputError, match="holds no scans"):
        Dataset(out)


@pytest.mark.parametrize("damage", ["cut voxels", "no record", "broken record", "damaged voxels", "no group"])
def test_a_damaged_group_is_done_again(source: Path, out: Path, damage: str) -> None:
    prepare(source, out)
    held, group = contents(out), out / "scans.zarr/051"
    shard = group / "hu/c/0/0/0"
    if damage == "cut voxels":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "no record":
        (group / "zarr.json").unlink()
    elif damage == "broken record":
        (group / "zarr.json").write_text('{"zarr_format": 3, "attributes"')
    elif damage == "no group":
        shutil.rmtree(group)
    else:
        data = bytearray(shard.read_bytes())
        data[-30] ^= 1
        shard.write_bytes(data)
    # Bytes that changed within a file of the right size are found when it is read, here for the PNGs.
    summary = prepare(source, out, png=damage == "damaged voxels")
    assert summary.done == ("051",)
    assert {name: data for name, data in contents(out).items() if "png" not in name} == held


@pytest.mark.parametrize("name", ["hu", "mask"])
@pytest.mark.parametrize("file", ["c/0/0/0", "zarr.json"])
def test_what_reading_a_damaged_scan_advises_mends_it(source: Path, out: Path, name: str, file: str) -> None:
    """Sizes alone do not tell: the same command again would take what is damaged for done."""
    prepare(source, out)
    path = out / "scans.zarr/051" / name / file
    size = path.stat().st_size
    path.write_bytes(b"x" * size)
    with pytest.raises(InputError, match="remove it and run `hemotorch prepare` again") as failure:
        getattr(Dataset(out), {"hu": "scan", "mask": "mask"}[name])("051")
    named = Path(str(failure.value.where))
    assert named.is_relative_to(out / "scans.zarr/051")
    shutil.rmtree(named) if named.is_dir() else named.unlink()
    assert prepare(source, out).done == ("051",)
    dataset = Dataset(out)
    assert dataset.scan("051").shape == dataset.mask("051").shape


KILLED = "import sys; from hemotorch.data import prepare as p; p.prepare(sys.argv[1], sys.argv[2], png=True, workers=1)"


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, out: Path) -> None:
    source = write_source(tmp_path / "source", 10, shape=(24, 128, 128))
    prepare(source, tmp_path / "whole", png=True)
    kept = 0
    for wanted in (1, 4):  # killed twice, each time in the middle of a case as likely as not
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(source), str(out)])
        deadline = time.monotonic() + 60
        while len(list(out.glob("scans.zarr/0*/zarr.json"))) < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        kept = len(list(out.glob("scans.zarr/0*/zarr.json")))
        assert wanted <= kept < 10
        with pytest.raises(InputError, match="not prepared to its end"):
            Dataset(out)
    before = snapshot(out)
    summary = prepare(source, out, png=True)
    assert len(summary.kept) == kept and len(summary.done) == 10 - kept
    assert written_again(before, snapshot(out)) == set(summary.done)
    assert contents(out) == contents(tmp_path / "whole")
    assert not (out / ".partial").exists()
    assert Dataset(out).slices == Dataset(tmp_path / "whole").slices


def test_pngs_are_the_papers_folders(source: Path, out: Path) -> None:
    summary = prepare(source, out, png=True)
    names = {f"{case}_{number:03d}.png" for case in Dataset(out).cases for number in range(1, 5)}
    data = Dataset(out)
    assert summary.pngs == 24
    for folder in ("image", "label"):
        assert {path.name for path in (out / "png" / folder).iterdir()} == names
    for case in data.cases:
        scan, mask = data.scan(case), data.mask(case)
        for index, number in enumerate(scan.slice_numbers):
            name = f"{case}_{number:03d}.png"
            np.testing.assert_array_equal(grey(out / "png/image" / name), to_grey(scan.hu[index], 40, 120))
            np.testing.assert_array_equal(grey(out / "png/label" / name), (mask[index] > 0) * 255)
    assert json.loads((out / "png/window.json").read_text()) == {
        "level": 40,
        "width": 120,
        "pixel_mm": 5.0,
        "slice_mm": 5.0,
    }


def test_pngs_read_again_are_the_same_pixels(source: Path, out: Path, tmp_path: Path) -> None:
    prepare(source, out, png=True, window="subdural")
    prepare(out / "png", tmp_path / "again", png=True, window="subdural")
    first, again = Dataset(out), Dataset(tmp_path / "again")
    assert again.layout == "png" and again.cases == first.cases and again.patients_known
    for path in sorted((out / "png").rglob("*.png")):
        np.testing.assert_array_equal(grey(tmp_path / "again/png" / path.relative_to(out / "png")), grey(path))
    for case in first.cases:
        assert again.volume_ml(case) == pytest.approx(first.volume_ml(case))


def test_pngs_of_positive_slices_have_the_volume_of_the_whole_scan(tmp_path: Path) -> None:
    scan, mask = head(0, bleeding=True, shape=(12, 32, 24))
    mask[2:5] = mask[10] = mask[1]
    mask[1] = 0
    hu = np.where(mask > 0, 68, scan.hu[6]).astype(np.int16)
    layouts.write_case("folder", tmp_path / "nifti", "a", replace(scan, hu=hu), mask, CaseInfo("a", "a"))
    prepare(tmp_path / "nifti", tmp_path / "whole", png=True, only_positive=True, any_anatomy=True)
    prepare(tmp_path / "whole/png", tmp_path / "positive", png=True, any_anatomy=True)
    prepare(tmp_path / "positive/png", tmp_path / "again", any_anatomy=True)
    whole = Dataset(tmp_path / "whole").volume_ml("a")
    assert whole == pytest.approx(np.count_nonzero(mask) * 25 * 5 / 1000)
    for out in ("positive", "again"):
        data = Dataset(tmp_path / out)
        assert data.volume_ml("a") == pytest.approx(whole)
        read = data.scan("a")
        assert read.slice_numbers == (3, 4, 5, 11)
        np.testing.assert_allclose(read.voxel_ml, 0.125)  # also of the scan that training and evaluation see
        assert any("between 5 and 11" in line for line in read.warnings)


def test_pngs_that_lose_their_millimetres_are_said(tmp_path: Path) -> None:
    scan, mask = head(0, bleeding=True, shape=(8, 32, 24))
    origins = scan.slice_origins_mm.copy()
    origins[4:, 2] += 3.0
    for name, each in (("a", scan), ("b", replace(scan, slice_origins_mm=origins))):
        write_series(each, tmp_path / "studies/images" / name, patient=name)
        (tmp_path / "studies/masks").mkdir(exist_ok=True)
        write_mask(each, mask, tmp_path / f"studies/masks/{name}.nii.gz")
    summary = prepare(tmp_path / "studies", tmp_path / "out", png=True, any_anatomy=True)
    assert not summary.failed and summary.png_mm == (None, None)
    (warning,) = (text for text in summary.warnings if "window.json" in text)
    assert warning.endswith("slices are uneven: b") and "no mL" in warning
    shown = [line for line in summary.lines() if "slices as PNG" in line]
    assert shown[0].endswith("pixels of unknown size, an unknown distance from slice to slice")
    finer = even_scan(scan.hu, 4.0, 4.0)
    layouts.write_case("folder", tmp_path / "two", "a", scan, mask, CaseInfo("a", "a"))
    summary = prepare(tmp_path / "two", tmp_path / "one_out", png=True, any_anatomy=True)
    assert not any("window.json" in text for text in summary.warnings)
    assert any(line.endswith("pixels of 5 mm, 5 mm from slice to slice") for line in summary.lines())
    layouts.write_case("folder", tmp_path / "two", "b", finer, mask, CaseInfo("b", "b"))
    summary = prepare(tmp_path / "two", tmp_path / "two_out", png=True, any_anatomy=True)
    (warning,) = (text for text in summary.warnings if "window.json" in text)
    assert "scans differ" in warning and "5 x 5 mm (1)" in warning and "4 x 4 mm (1)" in warning


def test_pngs_without_case_names_have_no_patients(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "a", png=True)
    for number, path in enumerate(sorted((tmp_path / "a/png/image").iterdir())):
        for folder in ("image", "label"):
            target = tmp_path / "loose" / folder / f"slice-{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "a/png" / folder / path.name, target)
    summary = prepare(tmp_path / "loose", tmp_path / "b")
    data = Dataset(tmp_path / "b")
    assert not data.patients_known and summary.counts.patients is None
    assert {split.by for split in data.splits.values()} == {"slice"}
    with pytest.raises(InputError, match=r"no split 'patient'.*patients are unknown"):
        data.split("patient")
    (said,) = [line for line in summary.lines() if "patients are unknown: the same one may be" in line]
    assert said.startswith("splits 'case', 'case-80-20', 'slice-80-20', 'fold-0'"), "once for all"
    assert np.isnan(data.volume_ml("slice-1"))


def test_assumed_patients_are_split_by_but_never_said_to_be_known(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", 6, "folder")
    prepare(source, tmp_path / "named")
    assert Dataset(tmp_path / "named").patients_known
    (source / "patients.csv").unlink()
    prepare(source, tmp_path / "assumed")
    data = Dataset(tmp_path / "assumed")
    assert not data.patients_known and data.splits["patient"].by == "patient"
    found = audit(data, data.splits["patient"])
    assert not found.clean and any("patients are unknown" in line for line in found.lines())
    prepare(source, tmp_path / "named")
    assert not Dataset(tmp_path / "named").patients_known, "a table that was removed is a change"


def test_only_positive_and_another_window_concern_pngs_alone(source: Path, out: Path) -> None:
    prepare(source, out, png=True)
    before = snapshot(out)
    summary = prepare(source, out, png=True, only_positive=True)
    assert summary.done == () and summary.pngs == 3
    assert sorted(path.name for path in (out / "png/label").iterdir()) == ["049_002.png", "051_002.png", "053_002.png"]
    summary = prepare(source, out, png=True, window=(75, 215))
    assert summary.done == () and summary.pngs == 24
    scan = Dataset(out).scan("050")
    np.testing.assert_array_equal(grey(out / "png/image/050_003.png"), to_grey(scan.hu[2], 75, 215))
    assert json.loads((out / "png/window.json").read_text())["level"] == 75
    after = snapshot(out)
    voxels = [name for name in before if "/c/" in name]
    assert len(voxels) == 12 - 3 + 3 and all(before[name] == after[name] for name in voxels)


def test_pngs_once_there_are_kept_in_step(source: Path, out: Path) -> None:
    prepare(source, out, png=True, window=(75, 215))
    (source / "ct_scans/049.nii").unlink()
    (out / "png/label/050_001.png").unlink()
    summary = prepare(source, out)
    assert summary.pngs == 20 and not list(out.glob("png/*/049_*"))
    assert (out / "png/label/050_001.png").is_file()
    assert json.loads((out / "png/window.json").read_text())["width"] == 215
    shutil.rmtree(out / "png")
    assert prepare(source, out).pngs is None and not (out / "png").exists()
    assert prepare(source, out, png=True).pngs == 20


def test_slices_in_source_order_from_head_to_foot_keep_their_numbers(tmp_path: Path, out: Path) -> None:
    source = write_source(tmp_path / "source", 2)
    for folder in ("ct_scans", "masks"):
        image = nib.load(source / folder / "049.nii", mmap=False)
        nib.save(image.as_reoriented([[0, 1], [1, 1], [2, -1]]), source / folder / "049.nii")
    summary = prepare(source, out, png=True)
    data = Dataset(out)
    assert data.scan("049").slice_numbers == (4, 3, 2, 1)
    np.testing.assert_array_equal(grey(out / "png/image/049_003.png"), to_grey(head(0, True)[0].hu[1], 40, 120))
    assert any("run from head to foot: 049" in text for text in summary.warnings)


def test_wrong_windows_and_layouts_are_errors(source: Path, out: Path) -> None:
    with pytest.raises(OptionError, match=r"'brian'.*'brain'"):
        prepare(source, out, png=True, window="brian")
    with pytest.raises(OptionError, match="above 0"):
        prepare(source, out, png=True, window=(40, 0))
    with pytest.raises(OptionError, match="unknown layout"):
        prepare(source, out, layout="ct-ish")
    assert not out.exists()


def test_a_run_killed_before_it_wrote_anything_does_not_stand_in_the_way(source: Path, out: Path) -> None:
    out.mkdir()
    (out / ".lock").touch()
    (out / ".123.part.dataset.json").touch()
    assert len(prepare(source, out).done) == 6


def test_output_that_is_something_else_is_left_alone(source: Path, out: Path, tmp_path: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        prepare(source, out)
    with pytest.raises(InputError, match="not empty"):
        prepare(source, source)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        prepare(source, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        prepare(tmp_path / "empty", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_another_sources_dataset_is_left_alone(source: Path, out: Path, tmp_path: Path) -> None:
    prepare(source, out)
    other = tmp_path / "other"
    for folder in ("ct_scans", "masks"):
        (other / folder).mkdir(parents=True)
        shutil.copy(source / folder / "049.nii", other / folder / "900.nii")
    with pytest.raises(InputError, match=r"was prepared from .*source, with other scans"):
        prepare(other, out)
    assert len(Dataset(out).cases) == 6
    same_name = tmp_path / "same-name"
    for folder in ("ct_scans", "masks"):
        (same_name / folder).mkdir(parents=True)
        shutil.copy(source / folder / "050.nii", same_name / folder / "049.nii")
    with pytest.raises(InputError, match="with other scans"):
        prepare(same_name, out)
    assert len(Dataset(out).cases) == 6
    moved = source.rename(tmp_path / "moved")
    assert len(prepare(moved, out).done) == 6
    assert Dataset(out).scan("049").source.files == (str(moved / "ct_scans/049.nii"),)


def test_another_versions_dataset(source: Path, out: Path) -> None:
    prepare(source, out)
    info = json.loads((out / "dataset.json").read_text())
    (out / "dataset.json").write_text(json.dumps(info | {"format": FORMAT + 1}))
    with pytest.raises(InputError, match="newer version"):
        prepare(source, out)
    (out / "dataset.json").write_text(json.dumps(info | {"format": FORMAT - 1}))
    for path in out.glob("scans.zarr/0*/zarr.json"):
        record = json.loads(path.read_text())
        record["attributes"]["hemotorch"]["format"] = FORMAT - 1
        path.write_text(json.dumps(record))
    assert len(prepare(source, out).done) == 6
    assert Dataset(out).cases


def test_two_at_once_into_one_folder_is_refused(source: Path, out: Path) -> None:
    prepare(source, out)
    with open(out / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"another .hemotorch prepare. is writing"):
            prepare(source, out)
    assert len(prepare(source, out).kept) == 6


def test_identical_slices_of_two_patients_are_told(tmp_path: Path, out: Path) -> None:
    source = write_source(tmp_path / "source", 8)
    shutil.copy(source / "ct_scans/050.nii", source / "ct_scans/056.nii")
    summary = prepare(source, out)
    told = [line for line in summary.lines() if "identical slices" in line and "slice-80-20" not in line]
    assert told and all("3 identical slices" in line for line in told)  # the fourth is nothing but air
    assert any("056 slice 2 = 050 slice 2" in line or "050 slice 2 = 056 slice 2" in line for line in told)


def test_the_seed_changes_splits_only(source: Path, out: Path) -> None:
    prepare(source, out, seed=0)
    before, splits = contents(out), Dataset(out).splits
    summary = prepare(source, out, seed=1)
    after = contents(out)
    assert summary.done == () and Dataset(out).splits != splits
    assert [name for name in before if before[name] != after[name]] == ["splits.json"]


def test_any_anatomy_is_prepared_if_it_is_asked_for(shared_data: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "scans").mkdir()
    shutil.copy(shared_data / "body-ct/example_ct.nii.gz", tmp_path / "scans/body.nii.gz")
    shutil.copy(shared_data / "head-ct-painted/painted1.nii.gz", tmp_path / "scans/head.nii.gz")
    shutil.copy(shared_data / "head-ct-painted/painted1_mask.nii.gz", tmp_path / "scans/head_mask.nii.gz")
    summary = prepare(tmp_path / "scans", out)
    assert summary.done == ("head",) and "does not look like a head CT" in summary.failed["body"]
    summary = prepare(tmp_path / "scans", out, any_anatomy=True)
    assert summary.done == ("body",) and not summary.failed
    assert any("of soft tissue lie inside bone" in text for text in summary.warnings)
    # 9.6 mL intraparenchymal and 21.8 mL subdural, says the data's own README.
    assert Dataset(out).volume_ml("head") == pytest.approx(31.4, abs=0.1)


@pytest.mark.parametrize("fault", ["intercept twice", "ten times", "water", "lengths in cm"])
def test_what_predict_refuses_is_named_and_left_out(tmp_path: Path, out: Path, fault: str) -> None:
    source = write_source(tmp_path / "source", 3)
    scan, mask = head(1, False)
    hu, pixel_mm, slice_mm = scan.hu.astype(int), 5.0, 5.0
    if fault == "intercept twice":
        hu = np.maximum(hu - 1024, -1024)
    if fault == "ten times":
        hu = np.where(hu < -500, -1000, hu * 10).clip(-1024, 30000)
    if fault == "water":
        hu = np.where(hu < -500, -1000, hu % 5)
    if fault == "lengths in cm":
        pixel_mm, slice_mm = 0.5, 0.5
    layouts.write_case("ct-ich", source, "050", even_scan(hu.astype(np.int16), pixel_mm, slice_mm), mask, None)
    summary = prepare(source, out)
    assert list(summary.failed) == ["050"] and summary.done == ("049", "051")
    assert "050.nii: does not look like a head CT" in summary.failed["050"]
    assert Dataset(out).cases == ("049", "051")
    assert prepare(source, out, any_anatomy=True).done == ("050",)
    assert list(prepare(source, out).failed) == ["050"]  # asked again, though the file is the same
    assert Dataset(out).cases == ("049", "051")


@pytest.mark.parametrize("layout", ["ct-ich", "folder"])
def test_masks_that_a_network_made_do_not_become_truth(tmp_path: Path, out: Path, layout: str) -> None:
    source = write_source(tmp_path / "source", 4, layout)
    (mask,) = source.glob("masks/051.nii*")
    image = nib.load(mask)
    image.header["descrip"] = nifti.PREDICTION_MARK.encode() + b" 0.1"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), mask)
    summary = prepare(source, out)
    assert "hemotorch itself predicted" in summary.passed_over[0] and ": 051;" in summary.passed_over[0]
    assert any(line.startswith("not read: masks that hemotorch") for line in summary.lines())
    assert summary.done == ("049", "050", "051", "052")
    assert [name for name in Dataset(out).cases if Dataset(out).has_mask(name)] == ["049", "050", "052"]


def test_masks_of_before_there_was_a_mark_are_told_by_the_file_beside_them(tmp_path: Path, out: Path) -> None:
    source = write_source(tmp_path / "source", 2, "folder")
    flat = tmp_path / "flat"
    flat.mkdir()
    for name in ("049", "050"):
        shutil.copy(source / f"images/{name}.nii.gz", flat / f"{name}.nii.gz")
        shutil.copy(source / f"masks/{name}.nii.gz", flat / f"{name}_mask.nii.gz")
    assert prepare(flat, out).passed_over == ()
    write_json(flat / "050.json", {"hemotorch": "0.1", "notice": "", "volume_ml": {}})
    assert ": 050;" in prepare(flat, out).passed_over[0]


def test_what_is_not_read_shows_in_the_exit_status(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(source), str(out)]) == 0
    (source / "ct_scans/060.mha").write_text("")
    capsys.readouterr()
    assert main(["prepare", str(source), str(out)]) == 1
    told = capsys.readouterr().out
    assert "not read: ct_scans/060.mha: is MetaImage, which is not read" in told
    assert "0 scans prepared, 6 unchanged" in told
    assert len(Dataset(out).cases) == 6  # everything else is done


def test_pngs_whose_window_clips_bone_are_judged_by_what_they_show(source: Path, out: Path, tmp_path: Path) -> None:
    assert prepare(source, out, png=True).failed == {}
    assert prepare(out / "png", tmp_path / "again").failed == {}  # their pixel size is known
    for path in (out / "png/image").glob("050_*.png"):
        Image.fromarray(np.minimum(grey(path), 120)).save(path)  # no skull
    assert list(prepare(out / "png", tmp_path / "again").failed) == ["050"]


def test_a_full_disk_is_an_error_and_the_run_goes_on_when_there_is_room(tmp_path: Path, tmpfs: Path) -> None:
    source = write_source(tmp_path / "source", 12, shape=(8, 96, 96))
    with pytest.raises(RunError, match="the disk is full") as error:
        prepare(source, tmpfs / "out", png=True)
    assert str(tmpfs / "out") in str(error.value)
    subprocess.run(["mount", "-o", "remount,size=40m", str(tmpfs)], check=True)
    summary = prepare(source, tmpfs / "out", png=True)
    assert summary.kept and summary.done and len(summary.kept) + len(summary.done) == 12
    prepare(source, tmp_path / "whole", png=True)
    assert contents(tmpfs / "out") == contents(tmp_path / "whole")


def test_a_read_only_disk_is_an_error(source: Path, tmpfs: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    with pytest.raises(RunError, match="read-only"):
        prepare(source, tmpfs / "out")


def test_workers_do_not_change_the_result(source: Path, tmp_path: Path) -> None:
    made = [prepare(source, tmp_path / str(workers), png=True, workers=workers) for workers in (1, 3)]
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    one, other = (replace(summary, out=Path(), seconds=0.0) for summary in made)
    assert isinstance(one, PreparedSummary) and one == other
