"""`inspect`, `predict`, `prepare` and `phantom` with DICOM."""

from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset

import tiny
from hemotorch.cli import main
from hemotorch.data.layouts import open_layout
from hemotorch.errors import HemotorchError, InputError
from hemotorch.inference.inspection import inspect_paths
from hemotorch.inference.scan_files import find_scans, name_scans
from hemotorch.inference.studies import predict_files
from hemotorch.inference.study import StudyRecord
from hemotorch.io import dicom, read_mask, read_scan, write_mask
from hemotorch.io.dicom.write import write_series
from test_io_dicom import DATA, flipped, head, needs

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
    options = {"device": "cpu", "any_anatomy": True, "show_patient": True}
    ((path, result),) = predict_files(tiny_run, [source], tmp_path / "out", **options)  # type: ignore[arg-type]
    assert isinstance(result, StudyRecord), result
    assert len(result.scan) == len(scan.hu) and path.name == f"study{source.suffix}"
    assert any("was chosen: the only one of 2 series" in text for text in result.warnings)
    mask = read_mask(tmp_path / "out" / "study_mask.nii.gz", read_scan(source))
    assert mask.shape == scan.shape


def test_predict_reads_the_series_that_is_asked_for(cd: Path, tiny_run: Path, tmp_path: Path) -> None:
    (report,) = inspect_paths([cd / "P1"], pixels=False)
    bone = next(one for one in report.studies[0].series if one.kernel == "BONE")
    found, failed = find_scans([cd], tmp_path / "out", series=bone.uid)
    assert [file.name[:4] for file in found[0].files[:1]] == ["bone"] and len(found) == 1 and len(failed) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("duplicates", "3 files are copies of others and are left out"),
        ("same-place", "lie several images: the one of the first acquisition is read"),
        ("no-position-once", "1 images without a position are left out"),
    ],
)
def test_every_command_says_what_was_left_out_of_a_series(fault: str, words: str, tmp_path: Path) -> None:
    # Only the files that remained were handed on, so what had been left out was known to nobody.
    write_series(head(), tmp_path / "studies" / "images" / "one", faults=[fault])
    (found,), failed = find_scans([tmp_path / "studies"], tmp_path / "out")
    (report,) = inspect_paths([tmp_path / "studies"])
    (case,) = open_layout(tmp_path / "studies").cases
    assert not failed and report.studies[0].scan is not None
    for warnings in (found.read().warnings, report.studies[0].scan.warnings, case.read()[0].warnings):
        assert sum(words in text for text in warnings) == 1, warnings
        assert len(set(warnings)) == len(warnings)


def test_zips_that_nobody_looked_into_are_named(cd: Path, tmp_path: Path) -> None:
    (tmp_path / "zips").mkdir()
    inner = zip_of(cd / "P1", tmp_path / "inner.zip")
    with zipfile.ZipFile(tmp_path / "zips" / "outer.zip", "w") as archive:
        archive.write(inner, "inner.zip")
        archive.write(inner, "letter.docx")
    locked = bytearray(zip_of(cd / "P1", tmp_path / "zips" / "locked.zip").read_bytes())
    for start in (b"PK\x03\x04", b"PK\x01\x02"):  # the bit that says "encrypted", in both heads of each member
        at = locked.find(start)
        while at >= 0:
            locked[at + (6 if start[2] == 3 else 8)] |= 1
            at = locked.find(start, at + 4)
    (tmp_path / "zips" / "locked.zip").write_bytes(locked)
    write_series(head(), tmp_path / "zips" / "study")
    (found,), failed = find_scans([tmp_path / "zips"], tmp_path / "out")
    text = "; ".join(str(error) for _, error in failed)
    assert len(found.files) == len(head().hu) and len(failed) == 2
    assert "inner.zip: is a zip in a zip" in text and "is encrypted; unpack the zip first" in text
    assert "letter.docx" not in text
    assert not inspect_paths([tmp_path / "zips"])[0].whole


@pytest.mark.parametrize("mask", ["masks/one.nii.gz", "images/one_mask.nii.gz", "labels/one_mask.nii.gz"])
def test_the_mask_of_a_study_is_no_scan(mask: str, tmp_path: Path) -> None:
    scan = head()
    write_series(scan, tmp_path / "images" / "one" / "SE1")
    (tmp_path / mask).parent.mkdir(exist_ok=True)
    write_mask(scan, scan.hu > 50, tmp_path / mask)
    found, failed = find_scans([tmp_path], tmp_path / "out")
    assert [len(one.files) for one in found] == [len(scan.hu)] and not failed


def test_a_series_is_asked_for_where_there_is_no_dicom(tmp_path: Path) -> None:
    write_mask(head(), head().hu > 50, tmp_path / "scan.nii")
    found, failed = find_scans([tmp_path / "scan.nii"], tmp_path / "out", series="1.2")
    assert len(found) == 1 and "no series 1.2 is there" in str(failed[0][1])


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
    ((_, result),) = predict_files(tiny_run, [DATA / "head-ct-ge"], tmp_path, device="cpu", show_patient=True)
    assert isinstance(result, StudyRecord), result
    scan = read_scan(DATA / "head-ct-ge")
    mask = read_mask(tmp_path / "head-ct-ge_mask.nii.gz", scan)
    assert result.volume_ml["total"] == pytest.approx(scan.volume_ml(mask), abs=0.001)
    said = "; ".join(result.warnings)
    assert "tilted by 18.5 degrees" in said and "13 of 4.002, 1 of 1.081, 13 of 6.999 mm" in said


def seg_of(files: list[Path], mask: np.ndarray, labels: list[str], path: Path, **options: str) -> Path:
    """A segmentation as highdicom writes it, the mask in the order of the files."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    sources = [pydicom.dcmread(file) for file in files]
    algorithm = hd.AlgorithmIdentificationSequence(
        options.get("algorithm", "by hand"), codes.DCM.ArtificialIntelligence, "1"
    )
    segments = []
    for number, label in enumerate(labels, start=1):
        segments.append(
            hd.seg.SegmentDescription(
                number, label, codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Hemorrhage, "AUTOMATIC", algorithm
            )
        )
    made = hd.seg.Segmentation(
        *(sources, np.stack([mask == number for number in range(1, len(labels) + 1)], -1), "BINARY", segments),
        *(hd.UID(), 9, hd.UID(), 1, "x", "y", "1", "1"),
    )
    made.save_as(path)
    return path


@pytest.mark.parametrize("faults", [[], ["tilt", "uneven"], ["prone"], ["rotated"]], ids=str)
def test_a_segmentation_lies_on_the_voxels_it_was_drawn_on(faults: list[str], tmp_path: Path) -> None:
    scan = head()
    files = write_series(scan, tmp_path / "A" / "S", faults=faults)
    read = read_scan(tmp_path / "A" / "S")
    mask = np.zeros(scan.shape, np.uint8)
    mask[3:6, 10:20, 12:15] = 1
    mask[5:8, 25:30, 20:33] = 2
    in_file = mask
    if faults == ["prone"]:
        in_file = mask[:, ::-1, ::-1]
    if faults == ["rotated"]:
        in_file = mask.transpose(0, 2, 1)
    seg_of(files, in_file, ["Subdural hematoma", "Midline"], tmp_path / "A" / "seg.dcm")
    (case,) = open_layout(tmp_path).cases
    assert case.mask_paths == (tmp_path / "A" / "seg.dcm",) and case.mask_codes == {1: 5, 2: 0}
    both, codes = read_mask(case.mask_paths[0], read), case.read()[1]
    assert np.array_equal(both, mask)
    assert np.array_equal(codes, np.where(mask == 1, 5, 0))
    assert "not called after bleeding and are left out: Midline" in "; ".join(open_layout(tmp_path).warnings)
    other = read_scan(write_series(head(slice_mm=9.0), tmp_path / "B"))
    with pytest.raises(InputError, match="mm away from the nearest slice"):
        read_mask(case.mask_paths[0], other)
    with pytest.raises(InputError, match="read beside its scan only"):
        read_mask(case.mask_paths[0])


def test_our_own_segmentation_is_no_truth(tmp_path: Path) -> None:
    scan = head()
    files = write_series(scan, tmp_path / "A" / "S")
    mask = (scan.hu > 60).astype(np.uint8) * (scan.hu < 200)
    path = seg_of(files, mask, ["SDH"], tmp_path / "A" / "seg.dcm", algorithm="hemotorch 0.1")
    segmentation = pydicom.dcmread(path)
    segmentation.Manufacturer = "hemotorch"
    segmentation.save_as(path)
    collection = open_layout(tmp_path)
    assert collection.cases[0].mask_paths == () and "hemotorch itself made" in "; ".join(collection.warnings)


def test_contours_are_filled_at_pixels_whose_centre_they_hold(tmp_path: Path) -> None:
    """A circle with a hole, against the distance of each pixel's centre; on a tilted series."""
    write_series(head(), tmp_path / "A" / "S", faults=["tilt"])
    read = read_scan(tmp_path / "A" / "S")
    first = pydicom.dcmread(tmp_path / "A" / "S" / "0001.dcm")
    angles = np.linspace(0, 2 * np.pi, 721)[:-1]
    contours = []
    for radius in (9.3, 4.2):
        points = []
        for angle in angles:
            row, column = 20.2 + radius * np.sin(angle), 23.7 + radius * np.cos(angle)
            point = read.slice_origins_mm[4] + row * read.row_step_mm + column * read.column_step_mm
            points.extend((point * [-1, -1, 1]).tolist())
        contour = Dataset()
        contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(angles)
        contour.ContourData = [f"{value:.4f}" for value in points]
        contours.append(contour)
    region, name, whole = Dataset(), Dataset(), Dataset()
    region.ReferencedROINumber, region.ContourSequence = 700, contours
    name.ROINumber, name.ROIName = 700, "EDH"
    whole.SOPClassUID, whole.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.4"
    whole.Modality, whole.StudyInstanceUID, whole.SeriesInstanceUID = "RTSTRUCT", first.StudyInstanceUID, "1.2.3.5"
    whole.PatientID = first.PatientID
    whole.StructureSetROISequence, whole.ROIContourSequence = [name], [region]
    whole.file_meta = FileMetaDataset()
    whole.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    whole.save_as(tmp_path / "A" / "rs.dcm", enforce_file_format=True)
    (case,) = open_layout(tmp_path).cases
    assert dicom.mask_names(case.mask_paths[0]) == {1: "EDH"} and case.mask_codes == {1: 1}
    _, mask = case.read()
    rows, columns = np.mgrid[:48, :48]
    distance = np.hypot(rows - 20.2, columns - 23.7)
    expected = (distance < 9.3) & (distance > 4.2)
    unsure = (np.abs(distance - 9.3) < 0.01) | (np.abs(distance - 4.2) < 0.01)
    assert mask is not None and np.array_equal(mask[4][~unsure] == 1, expected[~unsure])
    assert mask.any(axis=(1, 2)).tolist() == [index == 4 for index in range(12)]


def test_damaged_segmentations_are_read_or_refused_in_a_line(tmp_path: Path) -> None:
    scan = head()
    files = write_series(scan, tmp_path / "S")
    path = seg_of(files, (scan.hu > 60).astype(np.uint8) * (scan.hu < 200), ["SDH"], tmp_path / "seg.dcm")
    read, good = read_scan(tmp_path / "S"), path.read_bytes()
    refused = 0
    for number in range(150):
        path.write_bytes(flipped(good, random.Random(f"seg {number}")))
        try:
            read_mask(path, read)
        except HemotorchError:
            refused += 1
    assert refused > 30


@needs("head-ct-ge")
def test_paint_keeps_the_tilted_uneven_slices(tmp_path: Path) -> None:
    out = tmp_path / "painted"
    assert main(["paint", str(DATA / "head-ct-ge"), str(out), "--per-scan", "1"]) == 0
    source = read_scan(DATA / "head-ct-ge")
    collection = open_layout(out)
    assert collection.layout == "dicom" and len(collection.cases) == 2
    for case in collection.cases:
        scan, mask = case.read()
        assert np.allclose(scan.slice_distances_mm, source.slice_distances_mm, atol=1e-4)
        assert mask is not None and (np.abs(scan.hu.astype(int) - source.hu)[mask == 0] < 400).mean() > 0.99
    same, painted = (case.read() for case in sorted(collection.cases, key=lambda case: len(case.name)))
    assert np.array_equal(same[0].hu, source.hu) and not same[1].any() and painted[1].any()
    assert len({case.patient for case in collection.cases}) == 1


@pytest.mark.parametrize("table", ["", "case,patient\nA,Mr. X\n"])
def test_one_patient_of_several_studies_is_one_patient(tmp_path: Path, table: str) -> None:
    """However the id is spelled, and if patients.csv names only one of the studies."""
    scan, _ = tiny.head(3)
    for case, patient in (("A", "0007"), ("B", "7"), ("C", " 7 "), ("D", "8")):
        write_series(scan, tmp_path / "images" / case, patient=patient)
    if table:
        (tmp_path / "patients.csv").write_text(table)
    patients = {case.name: case.patient for case in open_layout(tmp_path).cases}
    assert patients["A"] == patients["B"] == patients["C"] != patients["D"]
    assert (patients["A"] == "Mr. X") == bool(table)


def test_a_line_break_in_a_name_writes_no_line_of_its_own(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, _ = tiny.head(3)
    write_series(scan, tmp_path / "in" / "a\nhemotorch predict: a false line")
    (tmp_path / "in" / "b\nfalse.xyz").write_text("")
    common = [str(tmp_path / "in")]
    main(["inspect", *common])
    main(["predict", str(tiny_run), *common, "--out", str(tmp_path / "out"), "--device", "cpu", "--any-anatomy"])
    main(["prepare", *common, str(tmp_path / "prepared")])
    shown = capsys.readouterr()
    lines = (shown.out + shown.err).splitlines()
    assert any("a\\nhemotorch predict" in line for line in lines)
    assert not [line for line in lines if line.startswith(("hemotorch predict: a false", "false.xyz"))]
