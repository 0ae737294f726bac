"""What a prediction leaves in its folder, what it may replace, and how it goes on after it was killed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
from PIL import Image

import tiny
from hemotorch.data.layouts.tables import read_cells, write_table
from hemotorch.errors import HemotorchError, InputError, explain, one_line
from hemotorch.inference.predictor import Predictor
from hemotorch.inference.scan_files import find_scans, name_scans
from hemotorch.inference.studies import DoneBefore, Result, predict_files
from hemotorch.inference.study import StudyRecord
from hemotorch.io import nifti, read_mask, read_scan
from hemotorch.report.study_files import write_study
from hemotorch.system.files import clear_parts, exclusive, quoted, short_name, unquoted


def head_file(path: Path) -> Path:
    nifti.write_scan(tiny.head(123)[0], path)
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return head_file(tmp_path / "scans" / "a.nii.gz")


def predict(run: Path, scans: Path, out: Path, overwrite: bool = False) -> list[Result]:
    return [result for _, result in predict_files(run, [scans], out, device="cpu", overwrite=overwrite)]


def error_of(results: list[Result]) -> str:
    (result,) = results
    assert isinstance(result, HemotorchError), result
    return str(result)


def test_a_prediction_is_replaced_only_if_asked_for(tiny_run: Path, scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (first,) = predict(tiny_run, scan, out)
    assert isinstance(first, StudyRecord) and nifti.is_predicted(out / "a_mask.nii.gz")
    (before,) = predict(tiny_run, scan, out)
    assert before == DoneBefore(first)
    nifti.write_scan(tiny.head(124)[0], scan)
    assert "already" in error_of(predict(tiny_run, scan, out)), "the scan is another one now"
    (again,) = predict(tiny_run, scan, out, overwrite=True)
    assert isinstance(again, StudyRecord)


def test_a_mask_that_was_corrected_by_hand_is_never_replaced(tiny_run: Path, scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(tiny_run, scan, out)
    mask = out / "a_mask.nii.gz"
    nifti.write_mask(read_scan(scan), read_mask(mask) * 0 + 1, mask, nifti.PREDICTION_MARK)
    drawn = mask.read_bytes()
    assert "changed since, and is not replaced" in error_of(predict(tiny_run, scan, out, overwrite=True))
    assert mask.read_bytes() == drawn


@pytest.mark.parametrize("name", ["a_mask.nii.gz", "a.png", "a.html", "a.json", "thumbnails/a.jpg"])
def test_what_no_prediction_wrote_is_never_replaced(tiny_run: Path, scan: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    if name == "a_mask.nii.gz":
        nifti.write_mask(read_scan(scan), read_scan(scan).hu > 60, out / name)
    else:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text('{"EchoTime": 1}')  # as dcm2niix leaves beside a scan
    before = (out / name).read_bytes()
    for overwrite in (False, True):
        assert "is not replaced" in error_of(predict(tiny_run, scan, out, overwrite))
    assert (out / name).read_bytes() == before and len(list(out.rglob("a*"))) == 1


def test_a_page_and_a_thumbnail_are_replaced_with_the_rest(tiny_run: Path, scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pictures = [out / "a.html", out / "thumbnails" / "a.jpg"]
    for _ in range(2):
        ((_, result),) = predict_files(tiny_run, [scan], out, device="cpu", overwrite=True, write_page=write_study)
        assert isinstance(result, StudyRecord) and result.sha256.keys() >= {"a.html", "thumbnails/a.jpg"}
        assert all(path.stat().st_size > 500 for path in pictures)
    (out / "a.json").unlink()  # a process was killed before it wrote the record
    assert isinstance(predict(tiny_run, scan, out)[0], StudyRecord) and not any(path.exists() for path in pictures)
    list(predict_files(tiny_run, [scan], out, device="cpu", overwrite=True, write_page=write_study))
    pictures[0].write_text("notes of my own")
    assert "changed since, and is not replaced" in error_of(predict(tiny_run, scan, out, overwrite=True))


def test_a_scan_is_not_overwritten_by_the_mask_of_another(tiny_run: Path, tmp_path: Path) -> None:
    scan = head_file(tmp_path / "b_mask.nii.gz")
    shutil.copy(scan, tmp_path / "b.nii.gz")
    before = scan.read_bytes()
    assert "is not replaced" in error_of(predict(tiny_run, tmp_path / "b.nii.gz", tmp_path, overwrite=True))
    assert scan.read_bytes() == before


def test_what_a_killed_prediction_left_is_done_again(tiny_run: Path, scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(tiny_run, scan, out)
    (out / "a.json").unlink()  # it is written last
    (out / ".4711.part.a.json").write_text("{")
    (result,) = predict(tiny_run, scan, out)
    assert isinstance(result, StudyRecord) and not list(out.glob(".*.part.*"))


def test_one_folder_is_written_by_one_process(tiny_run: Path, scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with exclusive(out / ".lock", InputError("held")), pytest.raises(HemotorchError, match="another prediction"):
        predict(tiny_run, scan, out)


def test_an_error_that_nobody_expected_leaves_the_other_scans_done(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        head_file(tmp_path / "scans" / f"{name}.nii.gz")
    whole = Predictor.predict

    def fails_once(self: Predictor, scan: object, any_anatomy: bool = True, doubts: bool = False) -> object:
        if scan.name == "b":  # type: ignore[attr-defined]
            raise TypeError("a fault\nof ours")
        return whole(self, scan, any_anatomy, doubts)  # type: ignore[arg-type]

    monkeypatch.setattr(Predictor, "predict", fails_once)
    results = predict(tiny_run, tmp_path / "scans", tmp_path / "out")
    errors = [str(result) for result in results if isinstance(result, HemotorchError)]
    assert len(results) == 3 and len(errors) == 1
    assert "unexpected TypeError: a fault\\nof ours; please report it" in errors[0] and "\n" not in errors[0]


def test_a_name_with_a_line_break_has_its_contact_sheet(tiny_run: Path, tmp_path: Path) -> None:
    head_file(tmp_path / "scans" / "a\nb.nii.gz")
    (result,) = predict(tiny_run, tmp_path / "scans", tmp_path / "out")
    assert isinstance(result, StudyRecord)
    with Image.open(tmp_path / "out" / "a\nb.png") as sheet:
        assert sheet.size[0] > 100 and np.asarray(sheet).std() > 1


def test_a_link_to_a_folder_is_followed_if_it_is_given_itself(tmp_path: Path) -> None:
    head_file(tmp_path / "disk" / "a.nii.gz")
    head_file(tmp_path / "elsewhere" / "b.nii.gz")
    (tmp_path / "disk" / "more").symlink_to(tmp_path / "elsewhere")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "disk")
    scans, failed = find_scans([link], tmp_path / "out")
    assert [scan.path for scan in scans] == [link / "a.nii.gz"]
    assert [str(error) for _, error in failed] == [
        f"{link / 'more'}: is a link to a folder, which is not followed; give the folder itself"
    ]


def test_scans_of_any_format_are_predicted_alike(tiny_run: Path, tmp_path: Path) -> None:
    scan, _ = tiny.head(123)
    affine = scan.affine[:, [2, 1, 0, 3]]
    to_lps = np.diag([-1.0, -1.0, 1.0])
    header = {"space": "LPS", "space directions": (to_lps @ affine[:3, :3]).T, "space origin": to_lps @ affine[:3, 3]}
    head_file(tmp_path / "scans" / "a.nii.gz")
    nrrd.write(str(tmp_path / "scans" / "b.nrrd"), scan.hu.transpose(2, 1, 0), header)
    nib.save(nib.Nifti1Pair(scan.hu.transpose(2, 1, 0), affine), tmp_path / "scans" / "c.hdr")
    results = predict(tiny_run, tmp_path / "scans", tmp_path / "out")
    assert all(isinstance(result, StudyRecord) for result in results)
    volumes = [result.volume_ml["total"] for result in results]  # type: ignore[union-attr]
    assert volumes[0] > 0 and volumes == [volumes[0]] * 3
    first = read_mask(tmp_path / "out" / "a_mask.nii.gz", scan)
    for name in "bc":
        np.testing.assert_array_equal(read_mask(tmp_path / "out" / f"{name}_mask.nii.gz", scan), first)
    assert results[2].scan == tuple(str(tmp_path / "scans" / f"c.{end}") for end in ("hdr", "img"))  # type: ignore[union-attr]


def test_names_are_apart_on_every_disk(tmp_path: Path) -> None:
    paths = [tmp_path / "1" / "A.nii", tmp_path / "2" / "a.nii", tmp_path / "e\u0301.nii", tmp_path / "\u00e9.nii"]
    paths += [tmp_path / ("\u0449" * 120 + f"{number}.nii") for number in range(2)]
    names = list(name_scans(paths).values())
    assert len({name.casefold() for name in names}) == len(paths)
    assert all(len(os.fsencode(name)) <= 180 for name in names)


def test_long_names_stay_apart() -> None:
    one, other = "\u0449" * 200, "\u0449" * 199 + "x"
    assert short_name("short") == "short"
    assert short_name(one) != short_name(other) and len(os.fsencode(short_name(one))) <= 180


def test_what_is_printed_of_a_name_is_one_line() -> None:
    assert one_line("K\udcf6ln\n\x1b[31m\u202egpj") == "K\\xf6ln\\n\\x1b[31m\\u202egpj"
    assert one_line("\u041a\u0438\u0457\u0432, a b") == "\u041a\u0438\u0457\u0432, a b"
    assert "\n" not in str(InputError("one\ntwo", "a\nb"))
    assert str(explain(PermissionError(13, "Permission denied"), "scan.nii")).startswith("scan.nii: cannot be read")


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@x", "'=x", "''-x", "\uff1dx"])
def test_formulas_are_quoted_in_tables_and_read_back(tmp_path: Path, text: str) -> None:
    assert quoted(text) == f"'{text}" and unquoted(quoted(text)) == text
    write_table(tmp_path / "t.csv", [("case", "patient"), ("a", text)])
    assert f"'{text}" in (tmp_path / "t.csv").read_text()
    assert read_cells(tmp_path / "t.csv")[1][1] == ["a", text]


@pytest.mark.parametrize("cell", ["-3.5", "+1e-7", "nan", "plain", "it's", "", -3.5, None])
def test_numbers_and_plain_text_are_not_quoted(cell: object) -> None:
    assert quoted(cell) == cell


def test_only_unfinished_files_of_ours_are_cleared(tmp_path: Path) -> None:
    for name in (".12.part.x.json", ".hidden.part.x", "12.part.x", "x.json"):
        (tmp_path / name).write_text(json.dumps(name))
    clear_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden.part.x", "12.part.x", "x.json"]
