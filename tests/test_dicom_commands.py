"""`inspect`, `predict`, `prepare` and `phantom` with DICOM."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

import tiny
from hemotorch.cli import main
from hemotorch.data.layouts import open_layout
from hemotorch.inference.inspection import inspect_paths
from hemotorch.inference.outputs import predict_files
from hemotorch.inference.scan_files import find_scans, name_scans
from hemotorch.io import read_mask, read_scan, write_mask
from hemotorch.io.dicom.write import write_series
from test_io_dicom import DATA, head, needs

SECRET = "Zorro^Diego"


@pytest.fixture
def cd(tmp_path: Path) -> Path:
    """Two patients on a CD, one with a localizer and another kernel, and a damaged file."""
    scan = head()
    write_series(scan, tmp_path / "CD" / "P1" / "DICOM", patient=SECRET, faults=["bone-kernel", "localizer"])
    write_series(scan, tmp_path / "CD" / "P2" / "DICOM", patient="two", faults=["shuffled"])
    (tmp_path / "CD" / "P2" / "broken").write_bytes(bytes(128) + b"DICM" + b"\x08\x00")
    return tmp_path / "CD"


def test_inspect_says_what_would_be_read_and_names_no_patient(cd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(cd)]) == 1  # a file is damaged
    text = capsys.readouterr().out
    assert "set aside: a localizer" in text and "it has the softer kernel" in text
    assert "not read: P2/broken: cannot be read as DICOM" in text
    assert SECRET not in text and "Phantom^Synthetic" not in text
    (cd / "P2" / "broken").unlink()
    assert main(["inspect", str(cd), "--show-patient"]) == 0
    assert f"patient Phantom^Synthetic, id {SECRET}" in capsys.readouterr().out


def test_inspect_as_json_and_one_series(cd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["inspect", str(cd), "--json", "--headers-only"])
    text = capsys.readouterr().out
    assert SECRET not in text
    studies = json.loads(text)["paths"][0]["studies"]
    assert len(studies) == 2 and all(study["scan"] is None for study in studies)
    (first,) = [study for study in studies if len(study["series"]) == 3]
    bone = next(one for one in first["series"] if one["kernel"] == "BONE")
    assert not bone["chosen"] and bone["kernel_kind"] == "sharp"
    (report,) = inspect_paths([cd / "P1"], series=bone["uid"])
    assert [one.uid for one in report.studies[0].series if one.chosen] == [bone["uid"]]
    assert main(["inspect", str(cd), "--series", "1.2"]) == 1


def test_scans_of_a_cd_are_called_after_what_tells_studies_apart(cd: Path, tmp_path: Path) -> None:
    scans, failed = find_scans([cd], tmp_path / "out")
    assert sorted(name_scans(scans).values()) == ["P1", "P2"]
    assert [str(error) for _, error in failed] == [
        f"{cd}/P2/broken: cannot be read as DICOM: nothing in it is known",
    ]
    assert all(len(scan.files) == 12 for scan in scans)
    notes = "; ".join(note for scan in scans for note in scan.notes)
    assert "was chosen: of 2 that can be read, it has the softer kernel" in notes


def zip_of(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_predict_reads_a_series_and_its_mask_lies_on_it(kind: str, tiny_run: Path, tmp_path: Path) -> None:
    scan, _ = tiny.head(3)
    write_series(scan, tmp_path / "study" / "S1", faults=["uneven", "localizer"])
    source = tmp_path / "study"
    if kind == "zip":
        source = zip_of(source, tmp_path / "study.zip")
    ((path, result),) = predict_files(tiny_run, [source], tmp_path / "out", device="cpu", any_anatomy=True)
    assert isinstance(result, dict), result
    assert len(result["scan"]) == len(scan.hu) and str(path) == result["scan"][0]
    assert any("was chosen: the only one of 2 series" in text for text in result["warnings"])
    mask = read_mask(tmp_path / "out" / "study_mask.nii.gz", read_scan(source))
    assert mask.shape == scan.shape
    assert len(result["sources"]) == (1 if kind == "zip" else len(scan.hu))


def test_predict_reads_the_series_that_is_asked_for(cd: Path, tiny_run: Path, tmp_path: Path) -> None:
    (report,) = inspect_paths([cd / "P1"], pixels=False)
    bone = next(one for one in report.studies[0].series if one.kernel == "BONE")
    found, failed = find_scans([cd], tmp_path / "out", series=bone.uid)
    assert [file.name[:4] for file in found[0].files[:1]] == ["bone"] and len(found) == 1 and len(failed) == 1


def test_prepare_takes_studies_with_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ct"
    assert main(["phantom", str(out), "--preset", "demo", "--patients", "3", "--size", "64", "--layout", "dicom"]) == 0
    summary = json.loads((out / "phantom.json").read_text())
    collection = open_layout(out)
    assert collection.layout == "dicom" and len(collection.cases) == 3 and collection.passed_over == ()
    for case in collection.cases:
        scan, mask = case.read()
        assert mask is not None and case.patient is not None
        assert scan.volume_ml(mask) == pytest.approx(summary["volume_ml"][case.name], abs=0.02)
    assert main(["prepare", str(out), str(tmp_path / "prepared")]) == 0
    assert "studies in DICOM: 3, 3 with a mask" in capsys.readouterr().out


def test_patients_of_studies_are_known_by_a_digest(cd: Path) -> None:
    (cd / "P2" / "broken").unlink()
    scan = read_scan(cd / "P1")
    write_mask(scan, (scan.hu > 60).astype(np.uint8), cd / "P1_mask.nii.gz")
    collection = open_layout(cd)
    assert collection.layout == "dicom"
    one, two = collection.cases
    assert (one.name, len(one.mask_paths), two.name, two.mask_paths) == ("P1", 1, "P2", ())
    assert one.patient != two.patient and SECRET not in str(one.patient) and not one.patient_assumed
    _, mask = one.read()
    assert mask is not None and mask.any()


def test_phantom_with_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ct"
    options = ["--preset", "demo", "--patients", "1", "--size", "64", "--layout", "dicom"]
    assert main(["phantom", str(out), *options, "--fault", "prone", "--fault", "localizer"]) == 0
    (report,) = inspect_paths([out / "images"], pixels=False)
    assert len(report.studies[0].series) == 2
    (case,) = open_layout(out).cases
    scan, mask = case.read()  # turned, and the mask still lies on it
    assert mask is not None and scan.shape == mask.shape
    assert main(["phantom", str(tmp_path / "x"), *options, "--fault", "prune"]) == 1
    assert "did you mean 'prone'" in capsys.readouterr().err
    assert main(["phantom", str(tmp_path / "y"), "--fault", "prone"]) == 1


@needs("head-ct-ge", "body-ct", "dicom-oddities")
def test_inspect_of_real_files() -> None:
    ge, body, odd = inspect_paths([DATA / "head-ct-ge", DATA / "body-ct", DATA / "dicom-oddities"])
    assert ge.whole and "1.081 to 6.999 mm apart" in "\n".join(ge.lines())
    assert "tilted 18.5 degrees" in "\n".join(ge.lines())
    assert not body.whole and "does not look like a head CT" in "\n".join(body.lines())
    assert not odd.whole and [study.scan for study in odd.studies] == [None, None]


@needs("head-ct-ge")
def test_predict_writes_a_mask_of_the_tilted_uneven_head(tiny_run: Path, tmp_path: Path) -> None:
    ((_, result),) = predict_files(tiny_run, [DATA / "head-ct-ge"], tmp_path, device="cpu")
    assert isinstance(result, dict), result
    scan = read_scan(DATA / "head-ct-ge")
    mask = read_mask(tmp_path / "head-ct-ge_mask.nii.gz", scan)
    assert result["volume_ml"]["total"] == pytest.approx(scan.volume_ml(mask), abs=0.001)
    said = "; ".join(result["warnings"])
    assert "tilted by 18.5 degrees" in said and "13 of 4.002, 1 of 1.081, 13 of 6.999 mm" in said
