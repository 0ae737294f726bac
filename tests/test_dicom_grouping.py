"""Which images are one series, and which voxels a mask in DICOM marks, where files mislead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from hemotorch.data.layouts import open_layout
from hemotorch.data.prepare import prepare
from hemotorch.errors import InputError, OptionError
from hemotorch.io import dicom, read_mask, read_scan, write_scan
from hemotorch.io.dicom.slice_file import SliceFile, encoded
from hemotorch.io.dicom.write import series_files, write_series
from structures import structure_set
from test_dicom_commands import seg_of
from test_io_dicom import enhanced, head


def write(files: list[SliceFile], folder: Path, change: Callable[[Dataset, int], None], label: str = "") -> list[Path]:
    """Writes the files of a series, each dataset changed; a label tells a further copy from the first."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, file in enumerate(files):
        if label:
            file.dataset.SOPInstanceUID += f".{len(label)}"
        change(file.dataset, index)
        paths.append(folder / f"{label}{file.name}")
        paths[-1].write_bytes(encoded(file))
    return paths


def test_two_patients_with_the_same_uids_are_two_studies(tmp_path: Path) -> None:
    """Slices of both, 2.5 mm apart in turns, were one volume, of which only "they overlap" was said."""

    def other_patient(d: Dataset, index: int) -> None:
        d.PatientID = "B"
        d.ImagePositionPatient[2] = float(d.ImagePositionPatient[2]) + 2.5

    write_series(head(), tmp_path / "a", patient="A")
    write(series_files(head(), patient="A"), tmp_path / "b", other_patient, "b")
    studies = dicom.look_into(tmp_path).studies
    assert {study.identity.patient_id for study in studies} == {"A", "B"}
    for study in studies:
        (series,) = study.series
        assert len(series.images) == 12 and len({image.path.parent for image in series.images}) == 1


def test_images_without_an_id_belong_to_the_only_patient(tmp_path: Path) -> None:
    def without_id(d: Dataset, index: int) -> None:
        d.PatientID = "" if index % 2 else "A"

    write(series_files(head()), tmp_path, without_id)
    (study,) = dicom.look_into(tmp_path).studies
    assert [len(series.images) for series in study.series] == [12]


@pytest.mark.parametrize(
    ("description", "with_contrast"),
    [
        ("SCHAEDEL OHNE KM", False),
        ("Schädel mit KM", True),
        ("Head non-enhanced", False),
        ("HEAD W/O IV CONTRAST", False),
        ("HEAD WITHOUT & WITH CONTRAST", True),
        ("HEAD C+", True),
        ("CTA_HEAD_0.75", True),
        ("CCT nativ", False),
    ],
)
def test_contrast_by_the_description(tmp_path: Path, description: str, with_contrast: bool) -> None:
    def described(d: Dataset, index: int) -> None:
        d.SeriesDescription = description

    write(series_files(head()), tmp_path, described)
    ((series,),) = (study.series for study in dicom.look_into(tmp_path).studies)
    assert bool(series.contrast) == with_contrast


def test_a_projection_is_known_by_words_that_underscores_part(tmp_path: Path) -> None:
    def projection(d: Dataset, index: int) -> None:
        d.SeriesDescription = "AX_MIP_5mm"

    write(series_files(head()), tmp_path, projection)
    ((series,),) = (study.series for study in dicom.look_into(tmp_path).studies)
    assert series.aside == "a projection (MIP) of other slices"


def test_projections_within_a_series_are_set_aside(tmp_path: Path) -> None:
    """Workstations add thick MIPs to the series that they were made from, at positions between its slices."""

    def projection(d: Dataset, index: int) -> None:
        d.ImageType = ["DERIVED", "SECONDARY", "MIP"]
        d.ImagePositionPatient[2] = float(d.ImagePositionPatient[2]) + 5.0

    scan = head()
    write_series(scan, tmp_path)
    write(series_files(scan)[3:6], tmp_path, projection, "mip")
    (study,) = dicom.look_into(tmp_path).studies
    assert study.chosen is not None and len(study.chosen.images) == 12
    assert [entry.aside for entry in study.series if entry.aside] == ["a projection (MIP) of other slices"]
    assert np.array_equal(read_scan(tmp_path).hu, scan.hu.clip(-1024))


def second_pass(d: Dataset, index: int) -> None:
    d.AcquisitionNumber = 2
    d.ImagePositionPatient[2] = float(d.ImagePositionPatient[2]) + 0.4


def test_two_passes_a_little_apart_are_two_series(tmp_path: Path) -> None:
    """Before and after contrast: interleaved they would be one scan of twice the slices."""
    scan = head()
    write_series(scan, tmp_path)
    write(series_files(scan)[:10], tmp_path, second_pass, "again")
    (study,) = dicom.look_into(tmp_path).studies
    assert sorted(len(entry.images) for entry in study.series) == [10, 12]
    read = read_scan(tmp_path)
    assert np.array_equal(read.hu, scan.hu.clip(-1024))
    assert "2 acquisitions cover the same part of the body: taken as 2 series" in "; ".join(read.warnings)


def test_acquisitions_that_follow_each_other_are_one_series(tmp_path: Path) -> None:
    def second_half(d: Dataset, index: int) -> None:
        d.AcquisitionNumber = 1 + (index >= 6)

    scan = head()
    write(series_files(scan), tmp_path, second_half)
    assert len(read_scan(tmp_path).hu) == 12


def test_many_frames_at_one_position_are_refused(tmp_path: Path) -> None:
    path = enhanced(head(), tmp_path / "one.dcm")
    whole = pydicom.dcmread(path)
    whole.ImagePositionPatient = ["0", "0", "0"]
    for frame in whole.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence
    whole.save_as(path)
    with pytest.raises(InputError, match="its images have no position"):
        read_scan(path)


def test_a_brain_around_a_bleeding_does_not_hide_it(tmp_path: Path) -> None:
    files = write_series(head(), tmp_path / "A" / "S")
    read = read_scan(tmp_path / "A" / "S")
    study = pydicom.dcmread(files[0]).StudyInstanceUID
    path = structure_set(read, tmp_path / "A" / "rs.dcm", [("Brain", 15.0), ("EDH", 5.3)], study)
    (case,) = open_layout(tmp_path).cases
    scan, mask = case.read()
    assert mask is not None and np.count_nonzero(mask == 1) == pytest.approx(np.pi * 5.3**2, rel=0.1)
    assert "lie in several of the 2 regions of the mask: the smallest one counts" in "; ".join(scan.warnings)
    path.unlink()
    whole = np.zeros(scan.shape, np.uint8)
    whole[3:7, 10:30, 10:30] = 1
    seg_of(files, whole, ["Brain"], path)
    edh = pydicom.dcmread(path)
    assert np.array_equal(read_mask(path, read), whole)
    # The same frames once more, as a second segment with one pixel: what highdicom would not write, others do.
    small = np.zeros(scan.shape, np.uint8)
    small[4, 20, 20] = 2
    one = seg_of(files, np.where(small > 0, 2, 0).astype(np.uint8), ["Brain", "EDH"], tmp_path / "one.dcm")
    both = pydicom.dcmread(one)
    assert len(both.PerFrameFunctionalGroupsSequence) == 1
    pixels = np.concatenate([edh.pixel_array.reshape(-1, 48, 48), both.pixel_array.reshape(-1, 48, 48)])
    for dataset, number in ((edh, 1), (both, 2)):
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            frame.SegmentIdentificationSequence = [Dataset()]
            frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = number
    both.PerFrameFunctionalGroupsSequence = [
        *edh.PerFrameFunctionalGroupsSequence,
        *both.PerFrameFunctionalGroupsSequence,
    ]
    both.NumberOfFrames = len(pixels)
    both.PixelData = np.packbits(pixels.ravel(), bitorder="little").tobytes()
    both.save_as(one)
    assert np.array_equal(read_mask(one, read), np.where(small > 0, 2, whole))


def test_the_series_that_a_mask_was_drawn_on_is_read(tmp_path: Path) -> None:
    """Thin slices of a sharp kernel are the worse series for bleeding, but the mask lies on them."""
    write_series(head(), tmp_path / "A", faults=["bone-kernel"])
    (study,) = dicom.look_into(tmp_path / "A").studies
    worse = next(entry for entry in study.series if entry is not study.chosen)
    assert study.chosen is not None
    path = structure_set(head(), tmp_path / "A" / "rs.dcm", [("SDH", 6.0)], study.uid, worse.uid)
    (case,) = open_layout(tmp_path).cases
    assert case.scan_paths == worse.files and "its mask was drawn on it" in case.warnings[0]
    path.unlink()
    structure_set(head(), tmp_path / "A" / "rs.dcm", [("SDH", 6.0)], study.uid)
    assert open_layout(tmp_path).cases[0].scan_paths == study.chosen.files


def test_two_masks_of_one_series_are_not_one(tmp_path: Path) -> None:
    files = write_series(head(), tmp_path / "A" / "S")
    study = pydicom.dcmread(files[0]).StudyInstanceUID
    for name, radius in (("a", 5.0), ("b", 9.0)):
        structure_set(head(), tmp_path / "A" / f"{name}.dcm", [("SDH", radius)], study)
    collection = open_layout(tmp_path)
    assert collection.cases[0].mask_paths == ()
    assert "has 2 masks in DICOM (a.dcm, b.dcm), and which is meant is not known" in "; ".join(collection.warnings)


def test_prepare_reads_the_series_that_is_asked_for(tmp_path: Path) -> None:
    write_series(head(), tmp_path / "ct" / "A", faults=["bone-kernel"])
    write_series(head(), tmp_path / "ct" / "B", patient="other")
    study = next(entry for entry in dicom.look_into(tmp_path / "ct").studies if len(entry.series) > 1)
    other = next(entry for entry in study.series if entry is not study.chosen)
    by_name = {case.name: case for case in open_layout(tmp_path / "ct", series=[other.uid]).cases}
    assert by_name["A"].scan_paths == other.files and len(by_name["B"].scan_paths) == 12
    assert len(prepare(tmp_path / "ct", tmp_path / "out", series=[other.uid]).done) == 2
    with pytest.raises(OptionError, match="no series 1.2.3 is there"):
        prepare(tmp_path / "ct", tmp_path / "out", series=["1.2.3"])
    write_scan(head(), tmp_path / "volumes" / "a.nii.gz")
    with pytest.raises(OptionError, match="is no DICOM"):
        open_layout(tmp_path / "volumes", series=["1.2.3"])
