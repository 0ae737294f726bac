"""A folder of normal scans as a training set."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hemotorch.cli import main
from hemotorch.data.dataset import Dataset
from hemotorch.data.layouts import open_layout
from hemotorch.data.painted_folders import LEAST_ML, paint_folder
from hemotorch.data.prepare import prepare
from hemotorch.head import cranial_space
from hemotorch.io import read_mask, read_scan, write_mask, write_scan
from hemotorch.labels import CODES
from hemotorch.phantom import make_case
from hemotorch.phantom.presets import preset
from hemotorch.scan import even_scan

SPEC = preset("small", patients=40)


@pytest.fixture(scope="module")
def normal():
    """Three scans without bleeding."""
    indices = [i for i in range(40) if SPEC.leading_type(i, 0) is None]
    return [make_case(SPEC, index) for index in indices[:3]]


@pytest.fixture(scope="module")
def source(normal, tmp_path_factory):
    """Three normal scans, two of them of one patient, without any mask."""
    root = tmp_path_factory.mktemp("normal")
    for name, case in zip(("a", "b", "c"), normal, strict=True):
        write_scan(case.scan, root / "images" / f"{name}.nii.gz")
    (root / "patients.csv").write_text("case,patient,site\na,p1,here\nb,p1,here\nc,p2,there\n")
    return root


@pytest.fixture(scope="module")
def painted(source, tmp_path_factory):
    """The folder painted three times each, and what was said of it."""
    out = tmp_path_factory.mktemp("painted") / "out"
    return out, paint_folder(source, out, per_scan=3, seed=5)


def test_each_scan_is_painted_and_keeps_its_own_voxels_elsewhere(painted, source):
    out, summary = painted
    assert len(summary.scans) == 12 and not summary.passed_over
    for scan in summary.scans:
        before = read_scan(source / "images" / f"{scan.source}.nii.gz")
        after = read_scan(out / "images" / f"{scan.case}.nii.gz")
        mask = read_mask(out / "masks" / f"{scan.case}.nii.gz", after)
        inside = cranial_space(before)
        file = out / "inside" / f"{scan.case}.nii.gz"
        assert file.exists() == inside.any(), "a skull whose ring is open has no such file"
        if file.exists():
            assert np.array_equal(read_mask(file, after) > 0, inside | (mask > 0))
        assert np.allclose(after.affine, before.affine, atol=1e-3)
        change = after.hu.astype(int) - before.hu
        if scan.seed is None:
            assert not mask.any() and not change.any()
            continue
        assert np.median(change[mask > 0]) > 4 and np.abs(change[mask == 0]).mean() < 1
        volumes = {name: after.volume_ml(mask == code) for name, code in CODES.items() if (mask == code).any()}
        assert volumes == pytest.approx(scan.volume_ml, abs=0.01) and sum(volumes.values()) >= LEAST_ML
    assert len({scan.seed for scan in summary.scans}) == 10


def test_a_scan_that_is_added_changes_no_other(painted, source, normal, tmp_path):
    out, _ = painted
    write_scan(normal[2].scan, tmp_path / "src" / "images" / "c.nii.gz")
    paint_folder(tmp_path / "src", tmp_path / "out", per_scan=2, seed=5, workers=1)
    for name in ("c-paint1", "c-paint2"):
        alone = read_scan(tmp_path / "out" / "images" / f"{name}.nii.gz")
        assert np.array_equal(alone.hu, read_scan(out / "images" / f"{name}.nii.gz").hu)


def test_prepare_knows_that_it_is_synthetic_typed_and_of_whom(painted, tmp_path):
    out, _ = painted
    assert "9 of them with painted bleeding, which is synthetic" in open_layout(out).description
    summary = prepare(out, tmp_path / "prepared")
    assert not summary.failed and not summary.passed_over
    data = Dataset(tmp_path / "prepared")
    patients = {case: data.rows[case][0].patient for case in data.cases}
    assert {patients[f"{name}-paint{k}"] for name in "ab" for k in (1, 2, 3)} == {"p1"} and patients["c"] == "p2"
    for case in data.cases:
        marked = any("synthetic" in text for text in data.scan(case).warnings)
        assert marked == ("-paint" in case)
    assert any(map(data.has_inside, data.cases))
    assert data.mask("a-paint1").any() and not data.mask("a").any()


def test_paintings_stay_one_patient_if_nobody_says_whose_scan_it_is(normal, tmp_path):
    write_scan(normal[0].scan, tmp_path / "src" / "x.nii.gz")
    paint_folder(tmp_path / "src", tmp_path / "out", per_scan=2)
    cases = open_layout(tmp_path / "out").cases
    assert {case.patient for case in cases} == {"x"} and all(case.patient_assumed for case in cases)


def test_what_is_no_normal_head_is_named_and_the_status_is_1(normal, tmp_path, capsys):
    src = tmp_path / "src"
    clot = make_case("small", 21, 7)
    write_scan(normal[0].scan, src / "images" / "good.nii.gz")
    write_scan(clot.scan, src / "images" / "unlabelled.nii.gz")
    write_scan(normal[1].scan, src / "images" / "labelled.nii.gz")
    write_mask(normal[1].scan, (normal[1].inside).astype(np.uint8), src / "masks" / "labelled.nii.gz")
    hu = np.full((8, 64, 64), -1000, np.int16)
    hu[:, 16:48, 16:48] = 0
    water = even_scan(hu, 3.0, 5.0)
    write_scan(water, src / "images" / "water.nii.gz")
    (src / "images" / "text.nii.gz").write_text("no scan")
    assert main(["paint", str(src), str(tmp_path / "out"), "--per-scan", "1", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert set(told["passed_over"]) == {"unlabelled", "labelled", "water", "text"}
    assert "may hold bleeding already" in told["passed_over"]["unlabelled"]
    assert "--normal" in told["passed_over"]["unlabelled"]
    assert "labels say so" in told["passed_over"]["labelled"]
    assert "head CT" in told["passed_over"]["water"]
    assert [scan["case"] for scan in told["scans"]] == ["good", "good-paint1"]
    assert main(["paint", str(tmp_path / "out"), str(tmp_path / "again"), "--per-scan", "1"]) == 1
    assert "holds painted bleeding already" in capsys.readouterr().out


def test_a_real_head_is_painted_in_its_own_noise(shared_data, tmp_path):
    src = tmp_path / "src"
    src.mkdir()
    (src / "ge.nii.gz").symlink_to(shared_data / "head-ct-nifti" / "head.nii.gz")
    summary = paint_folder(src, tmp_path / "out", per_scan=1)
    assert not summary.passed_over
    before = read_scan(tmp_path / "out" / "images" / "ge.nii.gz")
    after = read_scan(tmp_path / "out" / "images" / "ge-paint1.nii.gz")
    mask = read_mask(tmp_path / "out" / "masks" / "ge-paint1.nii.gz", after) > 0

    def grain(hu):
        """Of differences between neighbours in the painted part: the median, which its edges do not change."""
        return np.median(np.abs(np.diff(hu.astype(float), axis=2)[mask[:, :, 1:] & mask[:, :, :-1]]))

    assert grain(after.hu) == pytest.approx(grain(before.hu), rel=0.35)
