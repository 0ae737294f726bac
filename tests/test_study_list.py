"""index.html of a folder of predictions: what it holds as studies come, fail, and were predicted before."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

import tiny
from hemotorch.errors import HemotorchError, InputError
from hemotorch.inference.study import StudyRecord
from hemotorch.io import nifti
from hemotorch.report import study_list
from hemotorch.report.predict_studies import predict_studies
from hemotorch.report.study_list import StudyList
from hemotorch.scan import Doubt
from hemotorch.system import records


def rows(folder: Path) -> list[dict[str, Any]]:
    """What index.html holds, in its order."""
    html = (folder / "index.html").read_text(encoding="utf-8")
    match = re.search(r'id="data">(.*?)</script>', html, re.DOTALL)
    assert match
    held: list[dict[str, Any]] = json.loads(match[1])
    return held


def add(studies: StudyList, folder: Path, name: str, ml: float = 1.0, doubts: int = 0) -> None:
    """A study whose record lies in the folder."""
    doubt = Doubt("level", "its brain is at 60 HU", 60.0, "HU")
    record = StudyRecord((), {"total": ml}, "0", "", name=name, model="m", doubts=(doubt,) * doubts)
    records.write(folder / f"{name}.json", record)
    studies.add(record)


def test_predict_writes_a_page_for_each_and_the_list(tiny_run: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    for seed, name in enumerate("ab"):
        nifti.write_scan(tiny.head(120 + seed)[0], scans / f"{name}.nii.gz")
    (scans / "bad.nii.gz").write_bytes(b"no image")
    out = tmp_path / "out"
    results = dict(predict_studies(tiny_run, [scans], out, device="cpu"))
    assert sum(isinstance(result, HemotorchError) for result in results.values()) == 1
    held = {row["name"]: row for row in rows(out)}
    assert held.keys() == {"a", "b", "bad"} and held["bad"]["failed"]
    for name in "ab":
        result = results[scans / f"{name}.nii.gz"]
        assert isinstance(result, StudyRecord) and held[name]["total_ml"] == result.volume_ml["total"]
        assert held[name]["slices"] == tiny.SLICES and len(held[name]["doubts"]) == len(result.doubts)
        for file in (held[name]["page"], held[name]["thumbnail"], *held[name]["files"].values()):
            assert (out / file).is_file(), file
    table = {cells["study"]: cells for cells in csv.DictReader((out / "studies.csv").open(encoding="utf-8-sig"))}
    assert [table[name]["state"] for name in ("a", "b", "bad")] == ["done", "done", "failed"]
    assert float(table["a"]["total_ml"]) == held["a"]["total_ml"] and table["a"]["epidural_ml"] == ""
    assert table["bad"]["reason"] == held["bad"]["failed"]
    html = (out / "index.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in html, "paths may name patients"


def test_a_caller_that_stops_leaves_the_list_of_what_is_done(tiny_run: Path, tmp_path: Path) -> None:
    for name in "ab":
        nifti.write_scan(tiny.head(120)[0], tmp_path / "scans" / f"{name}.nii.gz")
    out = tmp_path / "out"
    studies = predict_studies(tiny_run, [tmp_path / "scans"], out, device="cpu")
    next(studies)
    studies.close()
    assert [row["name"] for row in rows(out)] == ["a"]
    list(predict_studies(tiny_run, [tmp_path / "scans" / "b.nii.gz"], out, device="cpu"))
    assert {row["name"] for row in rows(out)} == {"a", "b"}, "those of earlier runs stay"


def failed_in(out: Path) -> dict[str, str]:
    return {row["name"]: row["failed"] for row in rows(out) if row["failed"]}


def test_of_two_scans_of_one_name_the_one_that_failed_stays_in_the_list(tiny_run: Path, tmp_path: Path) -> None:
    """Both were "scan.nii.gz" there, and the one that succeeded took the other one's row away."""
    nifti.write_scan(tiny.head(120)[0], tmp_path / "s" / "y" / "scan.nii.gz")
    (tmp_path / "s" / "x").mkdir()
    (tmp_path / "s" / "x" / "scan.nii.gz").write_bytes(b"no image")
    out = tmp_path / "out"
    list(predict_studies(tiny_run, [tmp_path / "s"], out, device="cpu"))
    assert failed_in(out).keys() == {"x_scan"} and len(rows(out)) == 2
    nifti.write_scan(tiny.head(121)[0], tmp_path / "s" / "x" / "scan.nii.gz")
    list(predict_studies(tiny_run, [tmp_path / "s"], out, device="cpu"))
    assert not failed_in(out) and len(rows(out)) == 2


def test_all_that_is_not_read_of_a_folder_is_listed_until_it_is_gone(tiny_run: Path, tmp_path: Path) -> None:
    nifti.write_scan(tiny.head(120)[0], tmp_path / "CD" / "a.nii.gz")
    others = [tmp_path / "CD" / "b.mha", tmp_path / "CD" / "bad.dcm"]
    others[0].write_text("ObjectType = Image")
    others[1].write_bytes(bytes(128) + b"DICM" + bytes(50))
    out = tmp_path / "out"
    list(predict_studies(tiny_run, [tmp_path / "CD"], out, device="cpu"))
    assert "MetaImage" in failed_in(out)["CD"] and "cannot be read as DICOM" in failed_in(out)["CD"]
    for path in others:
        path.unlink()
    list(predict_studies(tiny_run, [tmp_path / "CD"], out, device="cpu"))
    assert not failed_in(out) and [row["name"] for row in rows(out)] == ["a"]


def test_a_scan_called_index_keeps_its_page(tiny_run: Path, tmp_path: Path) -> None:
    nifti.write_scan(tiny.head(120)[0], tmp_path / "Index.nii.gz")
    for _ in range(2):
        ((_, result),) = predict_studies(tiny_run, [tmp_path / "Index.nii.gz"], tmp_path / "out", overwrite=True)
        assert isinstance(result, StudyRecord) and result.name == "_Index"
    (row,) = rows(tmp_path / "out")
    assert row["page"] == "_Index.html" and (tmp_path / "out" / "_Index.html").is_file()


def test_the_list_names_the_models_of_its_rows(tmp_path: Path) -> None:
    add(StudyList(tmp_path), tmp_path, "a")
    studies = StudyList(tmp_path)
    studies.add(StudyRecord((), {"total": 1.0}, "0", "", name="a", model="another"))
    page = studies.write().read_text(encoding="utf-8")
    assert '<p class="faint">another ·' in page, "nothing is left of what m predicted"


def test_records_that_another_process_wrote_meanwhile_are_in_the_list(tmp_path: Path) -> None:
    studies = StudyList(tmp_path)
    add(StudyList(tmp_path), tmp_path, "theirs")
    add(studies, tmp_path, "ours")
    studies.write()
    assert {row["name"] for row in rows(tmp_path)} == {"theirs", "ours"}


def test_a_damaged_note_of_what_failed_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / study_list.FAILED).write_text("[]")
    studies = StudyList(tmp_path)
    studies.add_failed("a", InputError("is no head"))
    studies.write()
    assert failed_in(tmp_path) == {"a": "is no head"}


def test_doubtful_studies_stand_first(tmp_path: Path) -> None:
    studies = StudyList(tmp_path)
    add(studies, tmp_path, "small", 1)
    add(studies, tmp_path, "large", 50)
    add(studies, tmp_path, "doubted", 0, 1)
    add(studies, tmp_path, "more", 0, 2)
    studies.add_failed("failed", InputError("is no head", "/home/of/a/patient"))
    studies.add_failed("=1+1", InputError("is no head"))
    studies.write()
    lines = (tmp_path / "studies.csv").read_text(encoding="utf-8-sig").splitlines()
    assert lines[2].split(",")[11] == "level" and lines[4].startswith("'=1+1,")
    assert [row["name"] for row in rows(tmp_path) if row["name"] != "=1+1"] == [
        "more",
        "doubted",
        "failed",
        "large",
        "small",
    ]


def test_a_long_run_writes_the_list_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(study_list.time, "monotonic", lambda: now)
    studies, written = StudyList(tmp_path), []
    write = StudyList.write
    monkeypatch.setattr(StudyList, "write", lambda self: (written.append(now), write(self)))
    for number in range(100):
        now += 1.0
        add(studies, tmp_path, f"{number}")
    assert written == [11.0, 22.0, 33.0, 44.0, 55.0, 66.0, 77.0, 88.0, 99.0]
    monkeypatch.setattr(studies, "_took", 2.0)  # then at most a twentieth of the time goes to it
    now += 39.0
    add(studies, tmp_path, "next")
    assert len(written) == 9
    now += 2.0
    add(studies, tmp_path, "last")
    assert len(written) == 10


@pytest.mark.parametrize("name", ["index.html", "studies.csv"])
def test_a_file_of_somebody_else_is_not_replaced(tiny_run: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="not written by hemotorch"):
        list(predict_studies(tiny_run, [tmp_path / "a.nii"], tmp_path, device="cpu"))
    assert (tmp_path / name).read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
