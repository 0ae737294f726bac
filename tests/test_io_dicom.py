"""DICOM in: every fault that the phantom writer makes is read right or refused in words; real files against pydicom."""

from __future__ import annotations

import base64
import os
import random
import shutil
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian

from hemotorch.errors import HemotorchError, InputError, OptionError
from hemotorch.io import dicom, read_mask, read_scan, write_mask
from hemotorch.io.dicom.faults import FAULTS
from hemotorch.io.dicom.grouping import group_series
from hemotorch.io.dicom.header import ImageHeader, read_headers
from hemotorch.io.dicom.series import kernel_kind
from hemotorch.io.dicom.slice_file import SliceFile, encoded
from hemotorch.io.dicom.write import series_files, write_series
from hemotorch.scan import Scan, even_scan

DATA = Path(__file__).parents[2] / "shared" / "data"


def needs(*folders: str) -> pytest.MarkDecorator:
    missing = [name for name in folders if not (DATA / name).is_dir()]
    return pytest.mark.skipif(bool(missing), reason=f"no {', '.join(missing)} in {DATA}")


def head(slices: int = 12, size: int = 48, slice_mm: float = 10.0) -> Scan:
    """A ball of brain in a shell of bone, with one dense spot that tells the corners apart."""
    z, y, x = np.mgrid[:slices, :size, :size]
    z = (z - (slices - 1) / 2) * slice_mm
    y = (y - (size - 1) / 2) * 3.6
    x = (x - (size - 1) / 2) * 3.6
    radius = np.sqrt(x**2 + y**2 + (z / 1.1) ** 2)
    hu = np.where(radius < 66, 35, np.where(radius < 74, 1100, -1000)).astype(np.int16)
    hu += np.random.default_rng(3).integers(-4, 5, hu.shape).astype(np.int16)
    hu[slices // 2, size // 4, size // 3] = 70
    return even_scan(hu, 3.6, slice_mm, name="head")


@pytest.fixture(scope="module")
def scan() -> Scan:
    return head()


def same_geometry(read: Scan, scan: Scan) -> None:
    assert np.allclose(read.slice_origins_mm, scan.slice_origins_mm, atol=1e-4)
    assert np.allclose(read.row_step_mm, scan.row_step_mm, atol=1e-5)
    assert np.allclose(read.column_step_mm, scan.column_step_mm, atol=1e-5)


def test_a_series_comes_back_as_it_was(scan: Scan, tmp_path: Path) -> None:
    files = write_series(scan, tmp_path / "a")
    read = read_scan(tmp_path / "a")
    assert np.array_equal(read.hu, np.maximum(scan.hu, -1024))
    same_geometry(read, scan)
    assert read.source is not None and read.source.files == tuple(map(str, files))
    assert read.slice_numbers == tuple(range(1, 13))
    assert read.warnings == ()


#: Faults after which every voxel is where it was and has its value, and what the warnings say of it.
REPAIRED = {
    "shuffled": "",
    "nested": "",
    "tilt-tag-only": "",
    "prone": "",
    "rotated": "",
    "duplicates": "3 files are copies of others",
    "same-place": "at 3 of 12 positions lie several images",
    "scanned-twice": "each of its 12 positions was scanned 2 times",
    "overlap": "slices are 20 mm thick and 10 mm apart: they overlap",
    "localizer": 'series 2 "written by hemotorch" was read: the only one of 2 series that can be read',
    "dose-page": "the only one of 2 series",
    "colour-map": "the only one of 2 series",
    "bone-kernel": "has the softer kernel",
    "contrast-series": "has no contrast agent",
    "reformat": "the only one of 2 series",
    "two-kernels-one-uid": "has the softer kernel",
    "contrast": "contrast was given: the header names a contrast agent (IOHEXOL)",
    "signed-as-unsigned": "holds values with a sign, though its header says without",
    "unsigned-as-signed": "holds values without a sign, though its header says with",
    "high-bits": "",
    "no-rescale-once": "1 of 12 slices lack their rescale and have that of the others",
    "no-direction-once": "1 images do not state their direction",
    "no-uids": "its header lacks SOPInstanceUID, StudyInstanceUID, SeriesInstanceUID",
    "no-type-2": "its header lacks ImageType, PatientID, PatientBirthDate, SliceThickness, KVP",
    "no-preamble": "",
    "no-group-2": "",
    "implicit": "",
    "big-endian": "",
    "deflated": "",
    "rle": "",
}
#: Faults that are refused, and in which words.
REFUSED = {
    "intercept-lost": "are not Hounsfield units",
    "eight-bits": "holds 8-bit grey values, not HU",
    "inverted": "stored inverted",
    "no-position": "have no position",
    "no-direction": "have no direction",
    "no-pixel-size": "pixels have no size",
    "cut-all": "12 of 12 slices cannot be read; this one is cut short",
}
#: Faults that change the picture or its geometry; each has a test of its own below.
CHANGED = {
    *("tilt", "tilt-other-sign", "uneven", "missing-slice", "overflow", "padding", "padding-in-tissue"),
    *("slope-per-slice", "no-position-once", "cut-once"),
}


def test_every_fault_is_tested() -> None:
    assert set(FAULTS) == {*REPAIRED, *REFUSED, *CHANGED}


@pytest.mark.parametrize("fault", REPAIRED)
def test_a_fault_is_repaired_and_said(fault: str, scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", faults=[fault])
    read = read_scan(tmp_path / "a")
    assert np.array_equal(read.hu, scan.hu.clip(-1024))
    same_geometry(read, scan)
    said = "; ".join(read.warnings)
    assert REPAIRED[fault] in said
    if not REPAIRED[fault]:
        assert not said


@pytest.mark.parametrize("fault", REFUSED)
def test_a_fault_is_refused_in_words(fault: str, scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", faults=[fault])
    with pytest.raises(InputError, match=REFUSED[fault]):
        read_scan(tmp_path / "a")


@pytest.mark.parametrize("fault", ["tilt", "tilt-other-sign"])
def test_tilt_comes_from_positions_not_from_the_tag(fault: str, scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", faults=[fault])
    read = read_scan(tmp_path / "a")
    assert any("tilted by 18.5 degrees" in text for text in read.warnings)
    assert np.allclose(read.slice_distances_mm, 10 * np.cos(np.deg2rad(18.5)), atol=1e-3)
    pixels = 40
    mask = np.zeros(read.shape, np.uint8)
    mask[5, 10:15, 10:18] = 1
    assert read.volume_ml(mask) == pytest.approx(pixels * 3.6**2 * 10 * np.cos(np.deg2rad(18.5)) / 1000, rel=1e-4)


def test_uneven_slices_stay_where_they_are(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", faults=["uneven"])
    read = read_scan(tmp_path / "a")
    assert np.allclose(read.slice_distances_mm, [10] * 6 + [5] * 5, atol=1e-4)
    assert any("slice distances change from foot to head (6 of 10, 5 of 5 mm)" in text for text in read.warnings)
    assert np.allclose(read.shares_mm, [10] * 6 + [7.5] + [5] * 5, atol=1e-4)


def test_a_missing_slice_is_a_gap(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", faults=["missing-slice"])
    read = read_scan(tmp_path / "a")
    assert len(read.hu) == 11
    assert any("slices are missing in 1 place, first between 6 and 8" in text for text in read.warnings)
    assert np.allclose(read.shares_mm, 10, atol=1e-4)  # what lies in the gap is not counted


@pytest.mark.parametrize(
    ("fault", "words"),
    [("cut-once", "1 slices cannot be read and are missing: 0007.dcm"), ("no-position-once", "left out: 0007.dcm")],
)
def test_a_slice_that_cannot_be_used_is_named_and_missing(fault: str, words: str, scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", faults=[fault])
    read = read_scan(tmp_path / "a")
    assert np.array_equal(read.hu, np.delete(scan.hu, 6, axis=0).clip(-1024))
    assert any(words in text for text in read.warnings)
    assert any("slices are missing in 1 place" in text for text in read.warnings)


def test_metal_that_ran_over_12_bits_is_put_right(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", faults=["overflow"])
    read = read_scan(tmp_path / "a")
    assert (read.hu[6, 23:26, 23:26] == 3500).all() and read.hu[6, 22, 22] == 3060
    assert any("9 pixels of metal ran over the end of 12 bits" in text for text in read.warnings)
    others = np.ones(read.shape, bool)
    others[6, 21:28, 21:28] = False
    assert np.array_equal(read.hu[others], scan.hu.clip(-1024)[others])


def test_padding_is_air_and_tissue_of_its_value_stays(scan: Scan, tmp_path: Path) -> None:
    size = scan.hu.shape[1]
    y, x = np.mgrid[:size, :size]
    outside = np.hypot(y - (size - 1) / 2, x - (size - 1) / 2) > size / 2
    for fault in ("padding", "padding-in-tissue"):
        write_series(scan, tmp_path / fault, faults=[fault])
        read = read_scan(tmp_path / fault)
        assert (read.hu[:, outside] == -1024).all()
        assert np.array_equal(read.hu[:, ~outside], scan.hu[:, ~outside].clip(-1024))


def test_each_slice_has_its_own_rescale(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", faults=["slope-per-slice"])
    assert np.array_equal(read_scan(tmp_path / "a").hu, scan.hu.clip(-1024))


#: Of these only one can be in a series: each says how pixels are stored.
STORED = {"signed-as-unsigned", "unsigned-as-signed", "high-bits", "no-rescale-once"}


def test_sixty_pairs_of_faults(scan: Scan, tmp_path: Path) -> None:
    rng = random.Random(1)
    for number in range(60):
        pair = rng.sample(list(REPAIRED), 2)
        if set(pair) <= STORED:
            continue
        write_series(scan, tmp_path / str(number), faults=pair)
        read = read_scan(tmp_path / str(number))
        assert np.array_equal(read.hu, scan.hu.clip(-1024)), pair
        same_geometry(read, scan)


def test_faults_can_be_combined(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", faults=["shuffled", "prone", "no-preamble", "localizer", "duplicates"])
    read = read_scan(tmp_path / "a")
    assert np.array_equal(read.hu, scan.hu.clip(-1024))
    same_geometry(read, scan)
    with pytest.raises(OptionError, match="did you mean 'padding'"):
        write_series(scan, tmp_path / "b", faults=["pading"])


def test_two_studies_are_not_one_scan(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", patient="one")
    write_series(scan, tmp_path / "b", patient="two")
    with pytest.raises(InputError, match="holds 2 studies"):
        read_scan(tmp_path)
    uid = dicom.look_into(tmp_path / "b").studies[0].series[0].uid
    assert len(read_scan(tmp_path, series=uid).hu) == 12
    with pytest.raises(OptionError, match=r"no series 1\.2\.3 is there"):
        read_scan(tmp_path, series="1.2.3")


def test_a_localizer_that_is_asked_for_is_refused(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", faults=["localizer"])
    series = dicom.look_into(tmp_path / "a").studies[0].series
    uid = next(one.uid for one in series if one.aside)
    with pytest.raises(InputError, match="cannot be read as a head CT: a localizer"):
        read_scan(tmp_path / "a", series=uid)


def test_texts_of_headers_are_safe_to_print(scan: Scan, tmp_path: Path) -> None:
    files = series_files(scan)
    for file in files:
        file.dataset.SeriesDescription = "\x1b[31mred\nline " + 300 * "x"
        file.dataset.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]
        file.dataset.PixelData = file.hu.tobytes()
        file.dataset["PixelData"].VR = "OW"
        (tmp_path / file.name).write_bytes(encoded(file))
    with pytest.raises(InputError, match=r"\\x1b\[31mred\\nline x+\": coronal slices") as caught:
        read_scan(tmp_path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600


def test_frames_of_many_directions_are_told_apart_soon() -> None:
    (header,) = header_of(series_files(head(1, 8))[0])
    angles = np.linspace(0, np.pi, 4000)
    headers = [
        replace(
            header, frame=index, orientation=(np.cos(angle), np.sin(angle), 0.0, -np.sin(angle), np.cos(angle), 0.0)
        )
        for index, angle in enumerate(angles.tolist())
    ]
    start = time.perf_counter()
    assert len(group_series(headers)) > 100
    assert time.perf_counter() - start < 10


def header_of(file: SliceFile) -> tuple[ImageHeader, ...]:
    """The header of a file that is not written."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.dcm")
        path.write_bytes(encoded(file))
        return read_headers(path)


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder.parent))
    return path


def test_a_zip_is_read_without_unpacking_it(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a")
    path = zipped(tmp_path / "a", tmp_path / "cd.zip")
    shutil.rmtree(tmp_path / "a")
    read = read_scan(path)
    assert np.array_equal(read.hu, scan.hu.clip(-1024))
    assert read.name == "cd" and read.source is not None
    assert read.source.files[0] == str(path / "a" / "0001.dcm")
    assert [entry.name for entry in tmp_path.iterdir()] == ["cd.zip"]


def test_a_zip_with_names_that_lead_out_of_it_writes_nothing(scan: Scan, tmp_path: Path) -> None:
    files = write_series(scan, tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "cd.zip", "w") as archive:
        archive.write(files[0], "../../evil.dcm")
        archive.writestr(zipfile.ZipInfo("/abs.dcm"), files[1].read_bytes())
        for file in files[2:]:
            archive.write(file, file.name)
    inventory = dicom.look_into(tmp_path / "cd.zip")
    assert sum("leads out of the zip" in reason for reason in inventory.unread.values()) == 2
    assert len(read_scan(tmp_path / "cd.zip").hu) == 10


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEMOTORCH_MAX_VOXELS", "1000000")
    bomb = b"\0" * 128 + b"DICM" + b"\0" * 60_000_000
    with zipfile.ZipFile(tmp_path / "cd.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.dcm", bomb)
    with pytest.raises(InputError, match=r"is 0.06 GB long|cannot be read as DICOM"):
        read_scan(tmp_path / "cd.zip")


def make_dicomdir(folder: Path, files: list[Path], extra: list[list[str]] = []) -> Path:  # noqa: B006
    directory = Dataset()
    records = []
    for parts in [*(list(file.relative_to(folder).parts) for file in files), *extra]:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = parts
        records.append(record)
    directory.DirectoryRecordSequence = records
    directory.file_meta = FileMetaDataset()
    directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.save_as(folder / "DICOMDIR", enforce_file_format=True)
    return folder / "DICOMDIR"


def test_a_dicomdir_names_its_files_and_leads_nowhere_else(scan: Scan, tmp_path: Path) -> None:
    files = write_series(scan, tmp_path / "cd" / "SER")
    write_series(scan, tmp_path / "cd" / "OTHER", patient="not in the directory")
    write_series(scan, tmp_path / "outside", patient="elsewhere")
    path = make_dicomdir(tmp_path / "cd", files, [["..", "outside", "0001.dcm"], ["GONE", "IM1"]])
    inventory = dicom.look_into(path)
    assert len(inventory.studies) == 1 and len(inventory.studies[0].series[0].images) == 12
    assert sorted(inventory.unread.values()) == [
        "is named by the DICOMDIR and is not there",
        "names files outside its folder, which are not read",
    ]
    assert np.array_equal(read_scan(path).hu, scan.hu.clip(-1024))


def test_a_mask_fits_an_uneven_scan_again(scan: Scan, tmp_path: Path) -> None:
    write_series(scan, tmp_path / "a", faults=["uneven", "tilt"])
    read = read_scan(tmp_path / "a")
    mask = (read.hu > 60).astype(np.uint8)
    write_mask(read, mask, tmp_path / "m.nii.gz")
    assert np.array_equal(read_mask(tmp_path / "m.nii.gz", read), mask)


def test_forty_slices_among_two_thousand_other_files(tmp_path: Path) -> None:
    """Issue: under 5 s on two cores, headers read once. Other work may run beside the tests: 15 s here."""
    write_series(head(40, 64, 4.0), tmp_path / "a")
    (other,) = write_series(head(1, 128), tmp_path / "other")
    raw = other.read_bytes()
    folder = tmp_path / "a"
    for number in range(2000):
        (folder / f"X{number:04d}").write_bytes(raw.replace(b"CS\x02\x00CT", b"CS\x02\x00MR"))
    shutil.rmtree(tmp_path / "other")
    opened: dict[str, int] = {}
    original = dicom.inventory.read_headers

    def counted(path: Path) -> object:
        opened[str(path)] = opened.get(str(path), 0) + 1
        return original(path)

    dicom.inventory.read_headers = counted  # type: ignore[assignment]
    try:
        inventory = dicom.look_into(folder)
    finally:
        dicom.inventory.read_headers = original
    assert len(opened) == 2040 and set(opened.values()) == {1}
    assert sum(len(one.images) for study in inventory.studies for one in study.series if one.aside) == 2000
    (chosen,) = [study.chosen for study in inventory.studies if study.chosen is not None]
    assert len(chosen.images) == 40


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *[("H31s", "soft"), ("Hr38", "soft"), ("H60s", "sharp"), ("Br68f\\3", "sharp"), ("STANDARD", "soft")],
        *[("BONEPLUS", "sharp"), ("FC21", "soft"), ("FC30", "sharp"), ("B", "soft"), ("D", "sharp"), ("XYZ", "")],
    ],
)
def test_kernels_by_the_names_that_makers_use(name: str, kind: str) -> None:
    assert kernel_kind(name) == kind


def enhanced(scan: Scan, path: Path) -> Path:
    """The scan as one enhanced multi-frame file, frames in disorder, each with a position and rescale of its own."""
    files = series_files(scan)
    whole = files[0].dataset
    whole.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    order = np.random.default_rng(1).permutation(len(files))
    frames = []
    stored = []
    for index in order.tolist():
        d = files[index].dataset
        frame, plane, values = Dataset(), Dataset(), Dataset()
        plane.ImagePositionPatient = d.ImagePositionPatient
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = "1", str(-1000 - index), "HU"
        frame.PlanePositionSequence = [plane]
        frame.PixelValueTransformationSequence = [values]
        frames.append(frame)
        stored.append(files[index].hu.astype(int) + 1000 + index)
    shared, axes, measures = Dataset(), Dataset(), Dataset()
    axes.ImageOrientationPatient = whole.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = whole.PixelSpacing, whole.SliceThickness
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [axes], [measures]
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(whole, name)
    del whole.RescaleIntercept, whole.SliceThickness
    whole.SharedFunctionalGroupsSequence, whole.PerFrameFunctionalGroupsSequence = [shared], frames
    whole.NumberOfFrames = len(files)
    whole.PixelData = np.stack(stored).astype("<i2").tobytes()
    whole["PixelData"].VR = "OW"
    whole.file_meta = FileMetaDataset()
    whole.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    whole.save_as(path, enforce_file_format=True)
    return path


def test_an_enhanced_file_holds_all_slices(scan: Scan, tmp_path: Path) -> None:
    path = enhanced(scan, tmp_path / "one.dcm")
    read = read_scan(path)
    assert np.array_equal(read.hu, scan.hu.clip(-1024))
    same_geometry(read, scan)
    assert read.source is not None and read.source.files == (str(path),)
    order = np.random.default_rng(1).permutation(12)
    assert [frame.number for frame in read.source.frames] == np.argsort(order).tolist()


# ---- real files ----------------------------------------------------------------------------------------------------


def by_hand(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """HU and positions along z of a folder, by pydicom alone, foot to head."""
    datasets = sorted(
        (pydicom.dcmread(path) for path in folder.iterdir() if path.is_file()),
        key=lambda d: float(d.ImagePositionPatient[2]),
    )
    hu = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in datasets])
    return hu, np.array([[float(value) for value in d.ImagePositionPatient] for d in datasets])


@needs("head-ct-ge")
def test_the_ge_head_is_tilted_and_uneven_and_its_ml_are_right() -> None:
    folder = DATA / "head-ct-ge" / "dicom"
    read = read_scan(folder)
    hu, positions = by_hand(folder)
    assert np.array_equal(read.hu, np.clip(hu, -1024, None))
    assert np.allclose(read.slice_origins_mm, positions * [-1, -1, 1])
    said = "; ".join(read.warnings)
    assert "its header lacks PatientBirthDate" in said
    assert "tilted by 18.5 degrees" in said and "13 of 4.002, 1 of 1.081, 13 of 6.999 mm" in said
    # A painted ball, and its volume from areas and true distances along the normal, without Scan.
    normal = np.array([0, np.sin(np.deg2rad(18.5)), np.cos(np.deg2rad(18.5))])
    along = positions @ np.array([0, 0.3173047, 0.9483237])
    assert np.allclose(np.diff(along), read.slice_distances_mm, atol=1e-3) and normal.shape == (3,)
    mask = np.zeros(read.shape, np.uint8)
    for index in range(6, 24):
        mask[index, 200:300, 180 : 200 + 5 * index] = 1
    gaps = np.diff(along)
    shares = (np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])) / 2
    ml = float((mask.sum((1, 2)) * 0.4882812**2 * shares).sum()) / 1000
    assert read.volume_ml(mask) == pytest.approx(ml, rel=1e-3)


@needs("head-ct-ge")
def test_nibabel_sees_the_same_geometry() -> None:
    """nibabel's reader of DICOM is a second, independent one."""
    from nibabel.nicom.dicomwrappers import wrapper_from_file

    read = read_scan(DATA / "head-ct-ge" / "dicom")
    assert read.source is not None
    for index in (0, 13, 14, 27):
        wrapped = wrapper_from_file(read.source.files[index])
        affine = wrapped.affine  # LPS, columns by rows
        assert np.allclose(affine[:3, 3] * [-1, -1, 1], read.slice_origins_mm[index], atol=1e-4)
        assert np.allclose(affine[:3, 0] * [-1, -1, 1], read.row_step_mm, atol=1e-5)
        assert np.allclose(affine[:3, 1] * [-1, -1, 1], read.column_step_mm, atol=1e-5)
        assert np.array_equal(wrapped.get_data().clip(-1024), read.hu[index])


SYNTAX = "CTImage.dcm_{}.dcm"
EXACT = (
    *("LittleEndianExplicitTransferSyntax_1.2.840.10008.1.2.1", "LittleEndianImplicitTransferSyntax_1.2.840.10008.1.2"),
    *("BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2", "RLELosslessTransferSyntax_1.2.840.10008.1.2.5"),
    "DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99",
    *("JPEGProcess14TransferSyntax_1.2.840.10008.1.2.4.57", "JPEGProcess14SV1TransferSyntax_1.2.840.10008.1.2.4.70"),
    "JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80",
    "JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90",
)
LOSSY = (
    "JPEGLSLossyTransferSyntax_1.2.840.10008.1.2.4.81",
    "JPEG2000TransferSyntax_1.2.840.10008.1.2.4.91",
)
UNREAD = {
    "JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50": "8-bit grey values of lossy JPEG",
    "JPEGProcess2_4TransferSyntax_1.2.840.10008.1.2.4.51": r"lossy JPEG \(process 2 and 4\)",
    "JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53": "progressive JPEG",
    "JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55": "progressive JPEG",
}


#: 8 x 8 pixels of 37 HU more each, from -1000 HU, without loss. imagecodecs 2026.3.6 (OpenJPH 0.26.3) wrote it:
#: htj2k_encode((np.arange(64).reshape(8, 8) * 37 - 1000).astype(np.int16), reversible=True)
HTJ2K_STREAM = base64.b64decode(
    "/0//UQApQAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABjwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQ"
    "kJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAFgAAf+TwAAl3QGHdAAAAMAAEsAAEwBQAYd0AIz6Awd0AMAAE0AAE4Ak0gEC"
    "dAAylekAo1QAwAAqIAAVYAiCIKpwgnUATjpx4uTAQgHstgD/2Q=="
)
LOSSY_HTJ2K = "1.2.840.10008.1.2.4.203"


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", LOSSY_HTJ2K])
def test_htj2k_is_decoded(syntax: str, tmp_path: Path) -> None:
    expected = (np.arange(64).reshape(8, 8) * 37 - 1000).astype(np.int16)
    for path in write_series(even_scan(np.stack([expected] * 3), 20.0, 5.0), tmp_path / "S"):
        d = pydicom.dcmread(path)
        d.PixelRepresentation, d.BitsStored, d.HighBit, d.RescaleSlope, d.RescaleIntercept = 1, 16, 15, 1, 0
        d.file_meta.TransferSyntaxUID = syntax
        d.LossyImageCompression = "01" if syntax == LOSSY_HTJ2K else "00"
        d.PixelData = encapsulate([HTJ2K_STREAM])
        d["PixelData"].VR, d["PixelData"].is_undefined_length = "OB", True
        d.save_as(path)
    read = read_scan(tmp_path / "S")
    np.testing.assert_array_equal(read.hu, np.stack([expected] * 3))
    assert any("loss" in text for text in read.warnings) == (syntax == LOSSY_HTJ2K)
    damaged = sorted((tmp_path / "S").iterdir())[0]
    d = pydicom.dcmread(damaged)
    d.PixelData = encapsulate([HTJ2K_STREAM[:60]])
    d["PixelData"].VR, d["PixelData"].is_undefined_length = "OB", True
    d.save_as(damaged)
    with pytest.raises(InputError, match="1 of 3 slices cannot be read"):
        read_scan(tmp_path / "S")


@needs("dicom-syntaxes")
def test_every_transfer_syntax_is_decoded_or_refused_by_name() -> None:
    folder = DATA / "dicom-syntaxes"
    plain = pydicom.dcmread(folder / "CTImage.dcm")
    hu = np.clip(plain.pixel_array.astype(int) - 1024, -1024, None)
    for name in EXACT:
        assert np.array_equal(read_scan(folder / SYNTAX.format(name)).hu[0], hu), name
    for name in LOSSY:
        read = read_scan(folder / SYNTAX.format(name))
        assert np.abs(read.hu[0].astype(int) - hu).max() <= 30 and (read.hu[0] != hu).any(), name
        assert any("compressed with loss" in text for text in read.warnings), name
    for name, words in UNREAD.items():
        with pytest.raises(InputError, match=words):
            read_scan(folder / SYNTAX.format(name))
    assert read_scan(folder / "CT2_J2KR").shape == (1, 512, 512)
    for name, words in {
        "no-pixel-data.dcm": "a report, no images",
        "no-pixel-spacing.dcm": "is US, not CT",
        "CT0012.fragmented_no_bot_jpeg_baseline.51.dcm": "map of computed values",
    }.items():
        with pytest.raises(InputError, match=words):
            read_scan(folder / name)


@needs("dicom-oddities")
def test_pictures_and_maps_are_not_read_as_hu() -> None:
    with pytest.raises(InputError, match="a secondary capture"):
        read_scan(DATA / "dicom-oddities" / "ctbrain1.dcm")
    with pytest.raises(InputError, match="a map of computed values"):
        read_scan(DATA / "dicom-oddities" / "eCT_Supplemental.dcm")


@needs("body-ct", "head-ct-philips-partial", "head-ct-slab")
def test_other_real_series() -> None:
    from hemotorch.head import why_not_a_head

    body = read_scan(DATA / "body-ct")
    assert "its header lacks SOPClassUID" in "; ".join(body.warnings)
    assert why_not_a_head(body) is not None
    philips = read_scan(DATA / "head-ct-philips-partial")
    said = "; ".join(philips.warnings)
    assert "slices are 3 mm thick and 1.5 mm apart: they overlap" in said
    assert "the header names a contrast agent (CONTRAST)" in said
    hu, positions = by_hand(DATA / "head-ct-philips-partial" / "dicom")
    assert np.array_equal(philips.hu, np.clip(hu, -1024, None)) and np.allclose(philips.slice_distances_mm, 1.5)
    slab = read_scan(DATA / "head-ct-slab")
    assert slab.shape == (4, 512, 512) and "RescaleType US" in "; ".join(slab.warnings)
    assert "its header lacks KVP, AcquisitionNumber" in slab.warnings
    assert np.allclose(slab.slice_distances_mm, np.diff(by_hand(DATA / "head-ct-slab" / "dicom")[1][:, 2]))
    assert positions.shape == (30, 3)


# ---- damage --------------------------------------------------------------------------------------------------------


def flipped(raw: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut, put in, or lengths changed; the header more often than pixels."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        if not data:
            break
        at = rng.randrange(len(data) if rng.random() < 0.3 else min(len(data), 1600))
        kind = rng.randrange(6)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f"))
        elif kind == 2 and len(data) > 400:
            del data[at : at + rng.choice((1, 2, 8, 200))]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.choice((1, 2, 8, 100)))
        elif kind == 4:
            data[at : at + 2] = rng.choice((b"SQ", b"UN", b"OB", b"DS", b"FD", b"UI", b"OW"))
        elif rng.random() < 0.2:
            data = data[:at]
    return bytes(data)


def deep(levels: int) -> bytes:
    """A file whose sequences are nested so many times."""
    item = b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return b"\0" * 128 + b"DICM" + b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\x00" + item * levels


def damaged_files(source: Path, folder: Path, count: int, seed: str) -> list[Path]:
    """Damaged copies of the files of a folder: seven in ten alone, two in a zip that is damaged, one a DICOMDIR."""
    good = [path for path in sorted(source.iterdir()) if path.is_file()]
    archive = zipped(source / "series", source / "good.zip").read_bytes()
    directory = (source / "series" / "DICOMDIR").read_bytes()
    files = []
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        if number % 10 < 7:
            path = folder / f"{number:05d}"
            path.write_bytes(flipped(rng.choice(good).read_bytes(), rng))
        elif number % 10 < 9:
            path = folder / f"{number:05d}.zip"
            # A zip's directory is at its end.
            turned = flipped(archive[::-1], rng)[::-1] if rng.random() < 0.6 else flipped(archive, rng)
            path.write_bytes(turned)
        else:
            path = folder / f"{number:05d}" / "DICOMDIR"
            path.parent.mkdir()
            for file in (source / "series").glob("*.dcm"):
                os.link(file, path.parent / file.name)
            path.write_bytes(flipped(directory, rng))
        files.append(path)
    return files


def sources(folder: Path) -> Path:
    """One slice in each transfer syntax that can be written or that there are files of."""
    folder.mkdir()
    small = head(1, 32)
    for fault in ("implicit", "big-endian", "deflated", "rle", "no-group-2", "padding"):
        (path,) = write_series(small, folder / fault, faults=[fault])
        shutil.copy(path, folder / f"{fault}.dcm")
        shutil.rmtree(folder / fault)
    enhanced(head(4, 16), folder / "enhanced.dcm")
    files = write_series(head(3, 16), folder / "series")
    make_dicomdir(folder / "series", files)
    for name in (*EXACT[5:], *LOSSY):
        if (path := DATA / "dicom-syntaxes" / SYNTAX.format(name)).is_file():
            shutil.copy(path, folder / f"{name}.dcm")
    return folder


def read_all(files: list[Path]) -> tuple[int, int]:
    """How many were read and refused; anything else is raised. None takes longer than 20 s."""
    read = refused = 0
    for path in files:
        start = time.perf_counter()
        try:
            read_scan(path)
            read += 1
        except HemotorchError:
            refused += 1
        assert time.perf_counter() - start < 20, path
    return read, refused


def fuzz(tmp_path: Path, count: int, seed: str) -> None:
    """Damaged files in a process of its own: a crash in a decoder would end this one, 1 GB more is too much."""
    import subprocess
    import sys

    work = tmp_path / "work"
    work.mkdir()
    files = damaged_files(sources(tmp_path / "sources"), work, count, seed)
    (work / "deep").write_bytes(deep(20_000))
    program = (
        "import sys, resource; from pathlib import Path; import test_io_dicom as t\n"
        "t.read_all(t.sorted_files(Path(sys.argv[2])))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "read, refused = t.read_all(t.sorted_files(Path(sys.argv[1])))\n"
        "print(read, refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, work, tmp_path / "sources"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    read, refused, kilobytes = map(int, done.stdout.split()[-3:])
    assert read + refused == len(files) + 1 and refused > count / 10
    assert kilobytes < 1_000_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sources", "work"]


def sorted_files(folder: Path) -> list[Path]:
    """What is read of a folder: its files, and the DICOMDIRs in folders."""
    return [path / "DICOMDIR" if path.is_dir() else path for path in sorted(folder.iterdir())]


def test_three_hundred_damaged_files_end_in_a_result_or_one_line(tmp_path: Path) -> None:
    fuzz(tmp_path, 300, "quick")


@pytest.mark.long
def test_two_thousand_damaged_files_end_in_a_result_or_one_line(tmp_path: Path) -> None:
    fuzz(tmp_path, 2000, "long")


@pytest.mark.parametrize(
    ("vr", "says"),
    [
        (b"FD", "has damaged records; files that they name are not read: give the folder"),
        (b"US", "is named by the DICOMDIR and is not there"),
    ],
)
def test_a_damaged_record_of_a_dicomdir_is_named(scan: Scan, tmp_path: Path, vr: bytes, says: str) -> None:
    path = make_dicomdir(tmp_path, write_series(scan, tmp_path / "SER"))
    data = path.read_bytes()
    file_id = b"\x04\x00\x00\x15CS"
    assert data.count(file_id) == 12
    path.write_bytes(data.replace(file_id, file_id[:4] + vr, 1))  # its text is no number
    inventory = dicom.look_into(path)
    assert len(inventory.studies[0].series[0].images) == 11
    assert list(inventory.unread.values()) == [says]
