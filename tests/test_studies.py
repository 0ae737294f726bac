"""Studies in DICOM: pseudonyms, nobody's name anywhere, resumption, the change since an earlier study."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest

import tiny
from hemotorch import io
from hemotorch.cli import main
from hemotorch.errors import InputError
from hemotorch.inference.pseudonyms import KEY_FILE, Pseudonyms
from hemotorch.inference.scan_files import find_scans, name_scans
from hemotorch.inference.study import StudyRecord, followed_up, read_record, record_from
from hemotorch.io import dicom
from hemotorch.io.dicom.write import write_series
from hemotorch.scan import LeftOut
from hemotorch.system.records import to_values

OPTIONS = ("--device", "cpu", "--any-anatomy")
WORDS = ("SECRET", "NÄME", "NAEME", "ID-4711", "1950", "01.02.1950")


def study(folder: Path, seed: int, moment: str, **values: Any) -> Path:
    """A study of the patient whom nobody may know."""
    write_series(tiny.head(seed)[0], folder)
    patient = {"PatientName": "SECRET^NÄME", "PatientID": "ID-4711", "PatientBirthDate": "19500201"}
    patient |= {"StudyInstanceUID": f"1.2.{seed}.{moment[:8]}", **values}
    for file in folder.iterdir():
        d = pydicom.dcmread(file)
        d.SpecificCharacterSet = "ISO_IR 192"
        d.StudyDate, d.StudyTime = moment.split("T")
        for name, value in patient.items():
            setattr(d, name, value)
        d.SeriesDescription = "CCT Secret 01.02.1950"
        d.save_as(file)
    return folder


@pytest.fixture(scope="module")
def predicted(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A CD of two studies of one patient, a damaged file and a study of MR; and what predict made of it."""
    cd = tmp_path_factory.mktemp("cd")
    study(cd / "SECRET_NAEME_19500201" / "B", 3, "20240102T120000")
    study(cd / "SECRET_NAEME_19500201" / "A", 4, "20240101T093000")
    mr = study(cd / "MR", 5, "20240103T093000", Modality="MR")
    for file in sorted(mr.iterdir())[1:]:
        file.unlink()
    out = tmp_path_factory.mktemp("results") / "out"
    assert main(["predict", str(tiny_run), str(cd), "--out", str(out), *OPTIONS]) == 0
    return cd, out


def hidden_in(text: str) -> list[str]:
    return [word for word in WORDS if word.casefold() in text.casefold()]


def records_in(out: Path) -> list[StudyRecord]:
    return [read_record(path) for path in sorted(out.glob("study-*.json"))]


def test_no_file_but_the_key_names_the_patient(predicted: tuple[Path, Path]) -> None:
    _, out = predicted
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 12
    for path in files:
        assert not hidden_in(path.name)
        if path.suffix != ".dcm" and path.name != KEY_FILE:  # a PACS needs to know whose they are
            assert not hidden_in(path.read_bytes().decode("latin-1").replace("Ã\x84", "Ä")), path.name
    key = out / KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    text = key.read_text(encoding="utf-8")
    assert len(hidden_in(text)) >= 3 and all(
        record.name in text and record.patient in text for record in records_in(out)
    )


def test_no_line_names_the_patient(
    predicted: tuple[Path, Path], tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cd = tmp_path / "cd"
    study(cd / "SECRET_1" / "S", 3, "20240102T120000")
    damaged = study(cd / "SECRET_1" / "NÄME", 3, "20240105T120000")
    for file in damaged.iterdir():
        file.write_bytes(file.read_bytes()[:-3000])
    (cd / "SECRET_1" / "cut.dcm").write_bytes((cd / "SECRET_1" / "S" / "0001.dcm").read_bytes()[:200])
    assert main(["predict", str(tiny_run), str(cd), "--out", str(tmp_path / "out"), *OPTIONS]) == 1
    told = "".join(capfd.readouterr())
    assert not hidden_in(told) and "study-" in told and "[patient]_1" in told
    table = (tmp_path / "out" / "studies.csv").read_text(encoding="utf-8-sig")
    assert table.count(",failed,") == 2 and not hidden_in(table)


def test_of_a_refused_study_it_is_said_where_it_lies(
    tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cd = tmp_path / "cd"
    study(cd / "0017" / "S", 3, "20240102T120000")
    study(cd / "0018" / "S", 4, "20240102T120000", Modality="MR")
    study(cd / "SECRET" / "S", 5, "20240102T120000")
    study(cd / "0019" / "S", 6, "20240102T120000")
    for folder in ("0017", "SECRET"):
        for file in (cd / folder / "S").iterdir():
            d = pydicom.dcmread(file)
            d.RescaleIntercept = 3000  # no HU
            d.save_as(file)
    out = tmp_path / "out"
    assert main(["predict", str(tiny_run), str(cd), "--out", str(out), *OPTIONS]) == 1
    told = "".join(capfd.readouterr())
    assert not hidden_in(told)
    in_words = [re.sub("study-[0-9a-f]{8}", "STUDY", line) for line in told.splitlines()]
    assert any("STUDY (0018): passed over" in line for line in in_words), "it has no CT"
    assert any("STUDY (0017): " in line and line.endswith(f"its path: {KEY_FILE}") for line in in_words)
    assert any("STUDY: " in line and line.endswith(f"its path: {KEY_FILE}") for line in in_words), "SECRET is hidden"
    table = (out / "studies.csv").read_text(encoding="utf-8-sig")
    assert table.count(f"its path: {KEY_FILE}") == 2 and "0017" not in table and not hidden_in(table)
    assert f"paths: {KEY_FILE} in the same folder" in (out / "index.html").read_text(encoding="utf-8")
    assert str(cd / "0017") in (out / KEY_FILE).read_text(encoding="utf-8")


def test_the_same_command_does_only_what_is_missing(
    predicted: tuple[Path, Path], tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cd, out = predicted
    before = {path: path.stat().st_mtime_ns for path in out.glob("study-*")}
    missing = records_in(out)[0].name
    (out / f"{missing}.json").unlink()
    capsys.readouterr()
    assert main(["predict", str(tiny_run), str(cd), "--out", str(out), *OPTIONS, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["done_before"] == 1 and len(told["predictions"]) == 2
    changed = {path.name for path in out.glob("study-*") if path.stat().st_mtime_ns != before[path]}
    assert changed and all(name.startswith(missing) for name in changed)


def test_the_later_study_has_the_change(predicted: tuple[Path, Path]) -> None:
    _, out = predicted
    later = [record for record in records_in(out) if record.follow_up is not None]
    (earlier,) = (record for record in records_in(out) if record.follow_up is None)
    assert len(later) == 1 and later[0].patient == earlier.patient != ""
    change = later[0].follow_up
    assert change is not None and change.earlier == earlier.name and change.hours == 26.5
    assert later[0].total_ml is not None and earlier.total_ml is not None
    assert change.change_ml == pytest.approx(later[0].total_ml - earlier.total_ml, abs=0.001)
    assert "26 hours before" in (out / f"{later[0].name}.html").read_text(encoding="utf-8")
    assert f",{earlier.name},26.5," in (out / "studies.csv").read_text(encoding="utf-8-sig")


def test_a_study_given_twice_keeps_its_pseudonym(tmp_path: Path) -> None:
    """The name of the folder that the command was given in came before it."""
    for folder in ("one", "two"):
        study(tmp_path / folder, 3, "20240102T120000")
    scans, _ = find_scans([tmp_path / "one", tmp_path / "two"], tmp_path / "out", None, Pseudonyms(tmp_path))
    name = scans[0].named_after.name
    assert list(name_scans(scans).values()) == [name, f"{name}_2"]


def test_the_key_is_read_as_it_was_written_whatever_folders_are_called(tmp_path: Path) -> None:
    """One path that is no UTF-8, and all of the file was taken for Latin-1: MÃ¼ller, and each study had a new name."""
    patient = dicom.Identity("1.2", "Ä-1", "Müller^Li", "19500102", "20240101", "1200")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller"))
    entries = Pseudonyms(tmp_path)
    before = [entries.of(patient, tmp_path / "a"), entries.of(replace(patient, study="", patient_id="2"), odd)]
    entries.save()
    again = Pseudonyms(tmp_path)
    assert [again.of(entry.identity, path) for entry, path in zip(before, (tmp_path / "a", odd), strict=True)] == before
    assert "Müller" in (tmp_path / KEY_FILE).read_text(encoding="utf-8")


def test_the_key_has_the_path_where_a_study_lies_now(tmp_path: Path) -> None:
    earlier = dicom.Identity("1.2", "A-1", "Müller^Li", "19500102", "20240101", "1200")
    later = replace(earlier, study="1.3", date="20240102")
    entries = Pseudonyms(tmp_path)
    before = entries.of(earlier, tmp_path / "old")
    now = entries.of(earlier, tmp_path / "new")
    entries.save()
    assert now.study == before.study and (now.source, before.source) == (str(tmp_path / "new"), str(tmp_path / "old"))
    text = (tmp_path / KEY_FILE).read_text(encoding="utf-8")
    assert str(tmp_path / "new") in text and str(tmp_path / "old") not in text
    again = Pseudonyms(tmp_path)
    assert again.earlier(again.of(later, tmp_path / "b").study) == [(now.study, 24.0)]


def test_a_damaged_record_of_an_earlier_study_is_said_and_stops_nothing(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for day in (1, 2):
        cd = study(tmp_path / str(day), day, f"2024010{day}T120000")
        assert main(["predict", str(tiny_run), str(cd), "--out", str(out), *OPTIONS]) == 0
        if day == 1:
            (earlier,) = out.glob("study-*.json")
            earlier.write_text(earlier.read_text()[:100])
    assert f"earlier study, {earlier.stem}, is damaged: the change since it is not known" in capsys.readouterr().out


def test_files_for_a_pacs_are_not_left_out_in_silence_the_second_time(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cd = study(tmp_path / "cd", 3, "20240102T120000")
    command = ["predict", str(tiny_run), str(cd), "--out", str(tmp_path / "out"), *OPTIONS]
    assert main([*command, "--no-dicom"]) == 0 == main([*command, "--no-dicom"])
    assert main(command) == 1
    assert "was predicted with --no-dicom before" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0 == main(command)
    assert list((tmp_path / "out").glob("*_sr.dcm"))


def of(ml: float, interval: tuple[float, float] | None = None, **more: Any) -> StudyRecord:
    return StudyRecord((), {"total": ml}, "0", "", name="a", interval_ml=interval, **more)


@pytest.mark.parametrize(
    ("before", "after", "grown"), [(30, 36, False), (30, 36.1, True), (3, 3.9, False), (3, 4.1, True), (0, 5, False)]
)
def test_growth_is_marked_over_6_ml_or_33_percent(before: float, after: float, grown: bool) -> None:
    change = followed_up(of(after), of(before), 24.0).follow_up
    assert change is not None and change.grown == grown


def test_intervals_that_overlap_speak_against_the_change() -> None:
    apart = followed_up(of(20, (19, 21)), of(10, (9, 11)), 24.0).follow_up
    near = followed_up(of(12, (10, 14)), of(10, (9, 11)), 24.0).follow_up
    assert apart is not None and near is not None and apart.note == "" and "overlap" in near.note


def test_what_is_hidden_in_texts() -> None:
    identity = dicom.Identity("1.2", "li4", "Müller^Li", "19500102", "20240101", "1200")
    hide = dicom.hider(identity.secrets())
    assert hide("/cd/MUELLER_1950-01-02/clinic") == "/cd/[patient]_[patient]/clinic"
    assert hide("Mu\u0308ller 02.01.1950") == "[patient] [patient]"
    assert dicom.Identity("1.2", "ANON", "", "", "", "").patient is None


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Head without contrast", "Head without contrast"),
        ("CONTRA_1", "[patient]_1"),
        ("head/ContraHead/CTContra/HEADCONTRA/contra2", "[patient]/[patient]/CT[patient]/[patient]/[patient]2"),
        ("Headache, contralateral", "Headache, contralateral"),
        ("CT4711x 4711 94711 04711-x", "CT4711x 4711 94711 04711-x"),
        ("CT4711A CT-x4711a/4711A4 14711A", "CT[patient] CT-x[patient]/[patient]4 14711A"),
        ("ct19500102 1950010212 2 01 1950", "ct[patient] 1950010212 2 01 1950"),
    ],
)
def test_words_are_hidden_whole(text: str, hidden: str) -> None:
    """Of a patient called Contra, "contrast" was hidden: "Head without [patient]st"."""
    identity = dicom.Identity("1.2", "4711A", "Contra^Head", "19500102", "20240101", "1200")
    assert dicom.hider(identity.secrets())(text) == hidden.replace("Head without", "[patient] without")


def test_names_without_blanks_are_hidden_wherever_they_are() -> None:
    """Parts of one or two letters were taken for too short, and a folder 王小明 stood in every message."""
    chinese = dicom.hider(dicom.Identity("1.2", "77", "Wang^XiaoMing=王^小明", "", "", "").secrets())
    assert chinese("CD/王小明/患者王小明头部平扫, 国王") == "CD/[patient]/患者[patient]头部平扫, 国王"
    korean = dicom.hider(dicom.Identity("1.2", "77", "Hong^Gildong=洪^吉洞=홍^길동", "", "", "").secrets())
    assert korean("홍길동, 길동님, 洪吉洞") == "[patient], [patient]님, [patient]"


def partly_named(cd: Path) -> Path:
    """A study whose localizer lacks the name and the birth date that its CT has, as some scanners write it."""
    scout = {"SeriesInstanceUID": "1.2.1", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "StudyInstanceUID": "1.9"}
    study(cd / "A", 3, "20240102T120000", PatientName="", PatientBirthDate="", **scout)
    for file in sorted((cd / "A").iterdir())[1:]:
        file.unlink()
    study(cd / "B", 3, "20240102T120000", StudyInstanceUID="1.9", ContrastBolusAgent="given to Secret")
    return cd


def test_the_name_is_known_if_any_series_of_the_study_states_it(tmp_path: Path) -> None:
    cd = partly_named(tmp_path / "cd")
    (scan,), failed = find_scans([cd], tmp_path / "out", None, Pseudonyms(tmp_path))
    assert scan.identity is not None and scan.identity.patient == ("ID-4711", "19500201") and not failed
    read = scan.read()
    told = " ".join([read.contrast, read.name, *read.warnings])
    assert "[patient]" in read.contrast and "CCT [patient] [patient]" in told and not hidden_in(told)


def test_a_series_that_is_asked_for_and_refused_names_nobody(tmp_path: Path) -> None:
    cd = partly_named(tmp_path / "cd")
    scans, ((_, error),) = find_scans([cd], tmp_path / "out", "1.2.1", Pseudonyms(tmp_path))
    assert not scans and "a localizer" in str(error) and "[patient]" in str(error) and not hidden_in(str(error))


@pytest.mark.parametrize("more", [(), ("--headers-only",), ("--json",)])
def test_inspect_hides_names_in_descriptions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    main(["inspect", str(partly_named(tmp_path / "cd")), *more])
    told = capsys.readouterr().out
    assert "CCT [patient] [patient]" in told and not hidden_in(told)
    main(["inspect", str(tmp_path / "cd"), "--show-patient", *more])
    assert "CCT Secret 01.02.1950" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["HEAD^ROUTINE", "Anonymous", "Perfusion^MCA Stroke", "REMOVED"])
def test_a_name_that_names_nobody_hides_nothing(name: str) -> None:
    identity = dicom.Identity("1.2", "ANONYMOUS", name, "", "20240101", "1200")
    text = "Head routine without contrast, stroke protocol, removed table, anonymous"
    assert dicom.hider(identity.secrets())(text) == text


def test_hiding_ends_whatever_names_there_are() -> None:
    identity = dicom.Identity("1.2", "aaaa", "aaa^aaaa^aaaaa^aaaaaa^aaaaaaa", "", "", "")
    text = "a" * 5000 + "b"
    assert dicom.hider(identity.secrets())(text) == text


@pytest.mark.parametrize("damaged", [3, {}, {"pieces": "x", "ml": 1.0, "least_ml": 1.0}, {"pieces": 1e999, "ml": []}])
def test_a_damaged_note_on_small_pieces_is_said(damaged: Any) -> None:
    values = {**to_values(of(3.0)), "left_out": damaged}
    with pytest.raises(InputError, match="left_out"):
        record_from(values, "a.json")
    assert record_from(to_values(of(3.0, left_out=LeftOut(2, 0.5, 0.8))), "a.json").left_out == LeftOut(2, 0.5, 0.8)


def test_scans_in_nifti_are_followed_up_by_a_table(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "ct", tmp_path / "out"
    folder.mkdir()
    for seed, name in enumerate(("late", "early", "nobody", "undated")):
        io.write_scan(tiny.head(seed + 3)[0], folder / f"{name}.nii.gz")
    table = tmp_path / "patients.csv"
    rows = ["case,patient,date", "late.nii.gz,SECRET,2024-01-02 06:30", "early,SECRET,2024-01-01"]
    table.write_text("\n".join([*rows, "undated,SECRET,", "elsewhere,1,2024-01-01"]), encoding="utf-8")
    command = ["predict", str(tiny_run), str(folder), "--out", str(out), *OPTIONS, "--patients", str(table)]
    assert main(command) == 0
    told = "".join(capsys.readouterr())
    assert "leaves out scans, of which no follow-up is made: nobody" in told
    assert "has no date of scans, of which no follow-up is made: undated" in told and "30 hours before" in told
    records = {name: read_record(out / f"{name}.json") for name in ("late", "early", "nobody", "undated")}
    change = records["late"].follow_up
    assert change is not None and (change.earlier, change.hours) == ("early", 30.5)
    assert [name for name, record in records.items() if record.follow_up is not None] == ["late"]
    assert records["late"].patient == records["early"].patient == records["undated"].patient != ""
    assert records["nobody"].patient == ""
    for path in out.glob("*.*"):
        assert path.name == KEY_FILE or b"SECRET" not in path.read_bytes()
    assert "SECRET" in (out / KEY_FILE).read_text(encoding="utf-8")
    # A later command knows whose the scans before it were. A name for another patient is no quiet change.
    io.write_scan(tiny.head(9)[0], folder / "latest.nii.gz")
    rows[2] = "early,OTHER,2024-01-01"
    table.write_text("\n".join([*rows, "latest,SECRET,2024-01-03 06:30"]), encoding="utf-8")
    assert main(command) == 1
    assert "early_mask.nii.gz is in" in capsys.readouterr().err
    latest = read_record(out / "latest.json").follow_up
    assert latest is not None and (latest.earlier, latest.hours) == ("late", 24)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ("case,patient\na,1\n", "has no column date"),
        ("case,patient,date\na,1,yesterday\n", "line 2: 'yesterday' is no date"),
        ("case,patient,date\na,1,2024-01-01\na,1,2024-01-02\n", "line 3 contradicts an earlier one on the date of a"),
        ("case,patient,date\na,1,2024-01-01\nA,2,2024-01-01\n", "line 3 contradicts line 2"),
    ],
)
def test_a_table_of_patients_that_cannot_be_used(
    rows: str, what: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    io.write_scan(tiny.head(3)[0], tmp_path / "a.nii.gz")
    (tmp_path / "patients.csv").write_text(rows)
    command = ["predict", str(tiny_run), str(tmp_path / "a.nii.gz"), "--out", str(tmp_path / "out"), *OPTIONS]
    assert main([*command, "--patients", str(tmp_path / "patients.csv")]) == 1
    assert what in capsys.readouterr().err and not list((tmp_path / "out").glob("a*"))
    assert main([*command, "--patients", str(tmp_path / "patients.csv"), "--show-patient"]) == 1
    assert "there is no follow-up" in capsys.readouterr().err
