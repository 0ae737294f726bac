"""What a PACS is given beside the SEG: structured report and secondary capture, read by other programs' rules."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from hemotorch import NOTICE
from hemotorch.data.dataset import Dataset
from hemotorch.data.layouts.dicom import open_cases
from hemotorch.data.prepare import prepare
from hemotorch.head.diameter import longest_diameter
from hemotorch.io import dicom, read_mask, read_scan
from hemotorch.io.dicom.write import write_series
from hemotorch.labels import CODES, COLOURS, TYPES
from hemotorch.pictures.capture import DOUBT_RGB, HEIGHT, MOST_SLICES, WIDTH, CaptureText, capture
from hemotorch.scan import Doubt, LeftOut, Prediction, Scan, even_scan
from hemotorch.task import BLEEDING, TYPED
from test_dicom_seg import damaged_identity
from test_io_dicom import DATA, enhanced, head, needs

DOUBT = Doubt("noise", "it is noisier than what the model has seen", 21.0, "HU")
DATES = ("ContentDate", "ContentTime", "InstanceCreationDate", "InstanceCreationTime", "ContributionDateTime")


def predicted(scan: Scan, found: tuple[str, ...] = ("epidural", "subdural"), typed: bool = True) -> Prediction:
    """A prediction with a bar of 14 columns for each type, in slices 2 and 3."""
    mask = np.zeros(scan.shape, np.uint8)
    for number, kind in enumerate(found):
        mask[2:4, 12 + 5 * number : 15 + 5 * number, 10:24] = CODES[kind] if typed else 1
    volumes = {"total": scan.volume_ml(mask)}
    if typed:
        volumes.update({kind: scan.volume_ml(mask == code) for kind, code in CODES.items()})
    interval = (0.5 * volumes["total"], 2 * volumes["total"])
    return Prediction(
        *(scan, mask, None, volumes, "tiny (unet), epoch 1 of 1"),
        warnings=scan.warnings,
        task=TYPED if typed else BLEEDING,
        doubts=(DOUBT,),
        interval_ml=interval,
        digest="ab" * 32,
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tilted, uneven, and without what the GE series lacks."""
    folder = tmp_path_factory.mktemp("study")
    write_series(head(), folder, age=61, sex="F", faults=["tilt", "uneven", "rotated"])
    damaged_identity(folder)
    return folder


@pytest.fixture(scope="module")
def prediction(study: Path) -> Prediction:
    return predicted(read_scan(study))


@pytest.fixture(scope="module")
def written(prediction: Prediction, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("written")
    files = dicom.write_dicom(prediction, folder, "a", "0.1.0")
    assert files.missing == "" and sorted(folder.iterdir()) == sorted(files.files.values())
    return {ending: pydicom.dcmread(path) for ending, path in files.files.items()}


def items(dataset: Any) -> Iterator[Any]:
    """All content items of a report."""
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from items(item)


def name_of(item: Any) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def groups(report: Any) -> dict[str, Any]:
    """Measurement groups by what they track."""
    found = {}
    for item in items(report):
        if item.ValueType == "CONTAINER" and name_of(item) == "Measurement Group":
            (tracked,) = (part.TextValue for part in item.ContentSequence if name_of(part) == "Tracking Identifier")
            found[tracked.removeprefix("hemotorch: ")] = item
    return found


def numbers(group: Any) -> dict[str, tuple[float, str]]:
    """Value and unit of each measurement of a group."""
    found = {}
    for item in group.ContentSequence:
        if item.ValueType == "NUM":
            value = item.MeasuredValueSequence[0]
            found[name_of(item)] = (float(value.NumericValue), value.MeasurementUnitsCodeSequence[0].CodeValue)
    return found


def texts(group: Any) -> list[str]:
    return [item.TextValue for item in group.ContentSequence if item.ValueType == "TEXT" and name_of(item) == "Comment"]


def test_the_report_holds_each_type_with_units_and_those_not_found_with_0(
    written: dict[str, Any], prediction: Prediction
) -> None:
    found = groups(written[dicom.SR])
    assert list(found) == ["total", *TYPES]
    for kind in ("total", "epidural", "subdural"):
        values = numbers(found[kind])
        assert values["Volume"] == (pytest.approx(prediction.volume_ml[kind], abs=0.001), "mL")
        assert values["Number of slices that hold it"] == (2, "{slices}")
    longest = np.hypot(*(np.array([3, 14]) * prediction.scan.pixel_mm))
    assert numbers(found["epidural"])["Long axis"] == (pytest.approx(longest, abs=0.05), "mm")
    assert numbers(found["intraventricular"]) == {"Volume": (0, "mL"), "Number of slices that hold it": (0, "{slices}")}
    (volume,) = (
        item for item in found["total"].ContentSequence if item.ValueType == "NUM" and name_of(item) == "Volume"
    )
    ranges = numbers(volume)
    total = prediction.volume_ml["total"]
    assert ranges["+, range of upper measurement uncertainty"] == (pytest.approx(total, abs=0.001), "mL")
    assert ranges["-, range of lower measurement uncertainty"] == (pytest.approx(total / 2, abs=0.001), "mL")


def test_the_report_says_doubts_use_and_model(written: dict[str, Any], prediction: Prediction) -> None:
    report = written[dicom.SR]
    said = texts(groups(report)["total"])
    assert said[:2] == [NOTICE, f"Doubt (noise): {DOUBT.text}"] and any("tilted" in text for text in said)
    observer = {name_of(item): item for item in report.ContentSequence}
    assert observer["Device Observer Name"].TextValue == "hemotorch"
    assert observer["Device Observer Model Name"].TextValue == prediction.model
    assert observer["Device Observer Serial Number"].TextValue == "ab" * 8
    parameters = [item.TextValue for item in items(report) if name_of(item) == "Algorithm Parameters"]
    assert f"sha256={'ab' * 32}" in parameters
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")


def test_pieces_that_were_left_out_are_in_the_report_and_on_the_summary(prediction: Prediction, tmp_path: Path) -> None:
    with_remark = replace(prediction, left_out=LeftOut(3, 1.24, 0.8))
    files = dicom.write_dicom(with_remark, tmp_path, "a", "0.1.0").files
    said = texts(groups(pydicom.dcmread(files[dicom.SR]))["total"])
    assert "Of the mask: 3 pieces, 1.2 mL together, were left out: each is under 0.8 mL." in said
    plain = dicom.write_dicom(prediction, tmp_path, "b", "0.1.0").files
    summaries = [pydicom.dcmread(each[dicom.SC]).pixel_array[0] for each in (files, plain)]
    assert (summaries[0] != summaries[1]).any()


def test_the_report_points_at_segments_and_images(written: dict[str, Any], prediction: Prediction) -> None:
    report, seg = written[dicom.SR], written[dicom.SEG]
    labels = {item.SegmentNumber: item.SegmentLabel for item in seg.SegmentSequence}
    for kind in ("epidural", "subdural"):
        (image,) = (item for item in groups(report)[kind].ContentSequence if item.ValueType == "IMAGE")
        reference = image.ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert labels[reference.ReferencedSegmentNumber] == f"{kind.capitalize()} hemorrhage"
    assert prediction.scan.source is not None
    by_slice = [pydicom.dcmread(file).SOPInstanceUID for file in prediction.scan.source.files]
    images = [item for item in groups(report)["total"].ContentSequence if item.ValueType == "IMAGE"]
    assert {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in images} == set(by_slice[2:4])
    listed = set()
    for name in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for of_study in report.get(name, ()):
            for of_series in of_study.ReferencedSeriesSequence:
                listed.update(item.ReferencedSOPInstanceUID for item in of_series.ReferencedSOPSequence)
    assert listed == {*by_slice, seg.SOPInstanceUID}


def test_all_three_belong_to_the_source_and_have_series_of_their_own(written: dict[str, Any], study: Path) -> None:
    source = pydicom.dcmread(next(study.iterdir()))
    for d in written.values():
        for name in ("PatientName", "PatientID", "StudyInstanceUID", "PatientAge"):
            assert d[name].value == source[name].value
        for name in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
            assert name in d and not d[name].value  # absent, or not as the standard has it
        assert "research use only" in d.SeriesDescription.lower()
    for name in ("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "SOPInstanceUID", "Modality"):
        assert len({d[name].value for d in written.values()}) == 3
    capture = written[dicom.SC]
    uids = {item.ReferencedSOPInstanceUID for item in capture.SourceImageSequence}
    assert uids == {pydicom.dcmread(path).SOPInstanceUID for path in study.iterdir()}


def test_twice_written_all_is_the_same_but_for_the_day(
    written: dict[str, Any], prediction: Prediction, tmp_path: Path
) -> None:
    again = dicom.write_dicom(prediction, tmp_path, "b", "0.1.0")
    other = dicom.write_dicom(replace(prediction, doubts=()), tmp_path, "c", "0.1.0")
    for ending, path in again.files.items():
        first, second = written[ending].copy(), pydicom.dcmread(path)
        for d in (first, second):
            for element in list(d.iterall()):
                if element.keyword in DATES:
                    element.value = ""
        assert first == second
        # What is said of the same mask is another report, and other pictures; the SEG is the same.
        is_same = pydicom.dcmread(other.files[ending]).SOPInstanceUID == first.SOPInstanceUID
        assert is_same == (ending == dicom.SEG)


def test_the_pictures_are_right_reading_and_have_the_colours_of_types(
    written: dict[str, Any], prediction: Prediction
) -> None:
    d = written[dicom.SC]
    assert (d.BurnedInAnnotation, d.ConversionType, d.ImageType[0]) == ("NO", "WSD", "DERIVED")
    assert d.FrameLabelVector == ["summary", *(f"slice {number}" for number in prediction.slices_with_bleeding)]
    frames = d.pixel_array
    assert frames.shape == (3, HEIGHT, WIDTH, 3)
    for kind in TYPES:
        line = (frames == COLOURS[kind]).all(axis=3)
        assert line[0].any()  # in the table, found or not
        assert line[1:].any() == (kind in ("epidural", "subdural"))
    # The mask lies at low columns, the patient's right, and low rows, the front.
    picture = (frames[1, 70:720] == COLOURS["epidural"]).all(axis=2)
    rows, columns = np.nonzero(picture)
    assert columns.mean() < WIDTH / 2 and rows.mean() < 325
    assert (frames[:, 8:30] != frames[0, 0, 0]).any(axis=(1, 2, 3)).all()  # the notice, on each
    doubted = (frames[:, 36:56, 200:500] == DOUBT_RGB).all(axis=3).any(axis=(1, 2))
    assert doubted.tolist() == [False, True, True]  # on the slices; the summary has its sentence


def test_no_name_is_drawn_into_the_pictures(written: dict[str, Any], prediction: Prediction, tmp_path: Path) -> None:
    renamed = replace(prediction, scan=replace(prediction.scan, name="SECRET NAME"))
    other = dicom.write_dicom(renamed, tmp_path, "a", "0.1.0").files[dicom.SC]
    assert np.array_equal(pydicom.dcmread(other).pixel_array, written[dicom.SC].pixel_array)


def test_of_many_slices_with_bleeding_an_even_choice_is_shown() -> None:
    rows, columns = np.indices((48, 48))
    hu = np.where(np.hypot(rows - 24, columns - 24) < 20, 40, -1000) * np.ones((MOST_SLICES + 40, 1, 1))
    scan = even_scan(hu.astype(np.int16), 4.0, 1.0)
    mask = np.zeros(scan.shape, np.uint8)
    mask[5:-5, 20:24, 20:24] = 1
    text = CaptureText("1 mL", "", (), (), (), "tiny")
    shown = capture(scan, mask, text, typed=False)
    assert len(shown.frames) == 1 + len(shown.indices) == 1 + MOST_SLICES
    assert (shown.indices[0], shown.indices[-1]) == (5, MOST_SLICES + 34)
    assert set(np.diff(shown.indices)) <= {2, 3}


@pytest.mark.parametrize(
    ("charset", "name"),
    [(["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"), ("ISO_IR 144", "Люкceмбypг")],
    ids=["Japanese", "Cyrillic"],
)
def test_names_in_other_letters_arrive(charset: Any, name: str, tmp_path: Path) -> None:
    for path in write_series(head(), tmp_path / "study"):
        d = pydicom.dcmread(path)
        d.SpecificCharacterSet, d.PatientName = charset, name
        d.save_as(path)
    prediction = replace(predicted(read_scan(tmp_path / "study")), model="modèle ≤ 3 µ")
    files = dicom.write_dicom(prediction, tmp_path, "a", "0.1.0").files
    assert [pydicom.dcmread(path).PatientName == name for path in files.values()] == [True] * 3
    report = pydicom.dcmread(files[dicom.SR])
    assert any(item.get("TextValue") == prediction.model for item in items(report))


@pytest.mark.parametrize("typed", [True, False])
def test_nothing_found_is_reported_without_a_seg(study: Path, tmp_path: Path, typed: bool) -> None:
    files = dicom.write_dicom(predicted(read_scan(study), (), typed), tmp_path, "a", "0.1.0")
    assert list(files.files) == [dicom.SR, dicom.SC] and "no bleeding" in files.missing
    report = pydicom.dcmread(files.files[dicom.SR])
    assert numbers(groups(report)["total"])["Volume"] == (0, "mL")
    assert any("can miss bleeding" in text for text in texts(groups(report)["total"]))
    assert pydicom.dcmread(files.files[dicom.SC]).pixel_array.shape == (HEIGHT, WIDTH, 3)


def test_an_enhanced_source_is_named_once_and_by_frame(tmp_path: Path) -> None:
    scan = read_scan(enhanced(head(), tmp_path / "one.dcm"))
    files = dicom.write_dicom(predicted(scan, typed=False), tmp_path, "a", "0.1.0")
    report, capture = (pydicom.dcmread(files.files[ending]) for ending in (dicom.SR, dicom.SC))
    source = pydicom.dcmread(tmp_path / "one.dcm")
    (item,) = capture.SourceImageSequence
    assert item.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert item.ReferencedSOPClassUID == source.SOPClassUID
    (image,) = (item for item in groups(report)["total"].ContentSequence if item.ValueType == "IMAGE")
    assert image.ReferencedSOPSequence[0].ReferencedSegmentNumber == 1


def test_what_cannot_be_pointed_at_is_not_written_and_the_reason_is_said(tmp_path: Path) -> None:
    write_series(head(), tmp_path / "study", faults=["no-uids"])
    files = dicom.write_dicom(predicted(read_scan(tmp_path / "study")), tmp_path, "a", "0.1.0")
    assert files.files == {} and "the series lacks" in files.missing
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


def test_a_seg_is_truth_only_once_somebody_corrected_it(prediction: Prediction, study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "one"
    shutil.copytree(study, folder)
    files = dicom.write_dicom(prediction, folder, "a", "0.1.0").files
    assert all(dicom.is_own(path) for path in files.values()) and dicom.is_own_mask(files[dicom.SEG])
    assert not open_cases(tmp_path / "studies").cases[0].mask_paths
    d = pydicom.dcmread(files[dicom.SEG])
    pixels = bytearray(d.PixelData)
    marked = next(index for index, byte in enumerate(pixels) if byte)
    pixels[marked] &= pixels[marked] - 1  # a pixel wiped out
    d.PixelData = bytes(pixels)
    d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    d.save_as(files[dicom.SEG])
    assert not dicom.is_own_mask(files[dicom.SEG])
    assert open_cases(tmp_path / "studies").cases[0].mask_paths == (files[dicom.SEG],)
    corrected = read_mask(files[dicom.SEG], read_scan(folder))
    assert np.count_nonzero(corrected) == np.count_nonzero(prediction.mask) - 1
    prepare(tmp_path / "studies", tmp_path / "prepared", any_anatomy=True, workers=1)
    dataset = Dataset(tmp_path / "prepared")
    (case,) = dataset.cases
    mask = dataset.mask(case)
    assert mask is not None and set(np.unique(mask)) == {0, CODES["epidural"], CODES["subdural"]}


@pytest.mark.parametrize("typed", [True, False])
def test_dciodvfy_finds_no_error(typed: bool, study: Path, tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        reason = "no dciodvfy (Debian's dicom3tools)"
        _ = pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    for found in (("epidural", "subdural"), ()):
        for ending, path in dicom.write_dicom(
            predicted(read_scan(study), found, typed), tmp_path, "a", "0.1.0"
        ).files.items():
            done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
            lines = (done.stdout + done.stderr).splitlines()
            assert [line for line in lines if line.startswith("Error")] == [], ending


def test_the_longest_line_is_that_of_one_piece() -> None:
    mask = np.zeros((2, 40, 40), np.uint8)
    mask[0, 5, 0:4] = mask[0, 5, 30:40] = 1  # two pieces in a row
    mask[1, 10:14, 20:23] = 1
    longest = longest_diameter(mask, 0.5, 2.0)
    assert longest is not None and longest.slice_index == 0
    assert longest.mm == pytest.approx(np.hypot(0.5, 20.0))
    assert {longest.start[1], longest.end[1]} == {29.5, 39.5}
    assert longest_diameter(np.zeros_like(mask), 1, 1) is None
    random = np.random.default_rng(0).random((1, 24, 24)) > 0.3  # one piece: compared with every pair of corners
    corners = np.argwhere(random[0])[:, None] + np.array([[a, b] for a in (-0.5, 0.5) for b in (-0.5, 0.5)])
    points = corners.reshape(-1, 2) * [0.5, 0.7]
    most = np.linalg.norm(points[:, None] - points[None], axis=2).max()
    found = longest_diameter(random, 0.5, 0.7)
    assert found is not None and found.mm == pytest.approx(most)


@needs("head-ct-slab")
def test_the_slab_which_lacks_much_has_all_three(tmp_path: Path) -> None:
    files = dicom.write_dicom(predicted(read_scan(DATA / "head-ct-slab" / "dicom")), tmp_path, "a", "0.1.0")
    assert list(files.files) == [dicom.SEG, dicom.SR, dicom.SC]
