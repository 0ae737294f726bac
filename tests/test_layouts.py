"""Recognising layouts; plain NIfTI folders; the paper's PNG folders."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from hemotorch.data.layouts import open_layout, recognise, write_case, write_tables
from hemotorch.data.layouts.patients import identity
from hemotorch.errors import InputError, OptionError
from hemotorch.hu import from_grey, to_grey
from hemotorch.labels import UNTYPED
from hemotorch.scan import CaseInfo, even_scan

SHAPE = (6, 5, 3)  # x, y, z


def scan_file(path: Path) -> Path:
    return save(path, np.linspace(-1000, 1000, 90).astype(np.int16).reshape(SHAPE))


def mask_file(path: Path, *values: int) -> Path:
    mask = np.zeros(SHAPE, np.uint8)
    mask.flat[: len(values)] = values
    return save(path, mask)


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([-0.5, 0.5, 5.0, 1.0])), path)
    return path


def png_file(path: Path, grey: np.ndarray | int, size: tuple[int, int] = (6, 5)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.broadcast_to(np.asarray(grey, np.uint8), size)).save(path)
    return path


def codes(root: Path, case: int = 0) -> list[int]:
    mask = open_layout(root).cases[case].read()[1]
    assert mask is not None
    return [int(value) for value in np.unique(mask)]


# Recognising


def test_folders_that_hold_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_layout(tmp_path / "missing")
    with pytest.raises(InputError, match="is an empty folder"):
        open_layout(tmp_path)
    (tmp_path / ".DS_Store").write_text("")
    with pytest.raises(InputError, match="is an empty folder"):
        open_layout(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="is a file, not a dataset's folder"):
        open_layout(tmp_path / "notes.txt")
    (tmp_path / "ct_scans").mkdir()
    with pytest.raises(InputError, match=r"ct_scans/ .*\(ct-ich\).*images/.*\(folder\).*image/.*\(png\)"):
        recognise(tmp_path)


def test_a_layout_that_was_asked_for(tmp_path: Path) -> None:
    scan_file(tmp_path / "ct_scans" / "049.nii")
    scan_file(tmp_path / "images" / "a.nii")
    png_file(tmp_path / "image" / "a_001.png", 7)
    assert recognise(tmp_path) == "ct-ich"
    for layout in ("ct-ich", "folder", "png"):
        assert open_layout(tmp_path, layout).layout == layout
    with pytest.raises(OptionError, match="did you mean 'folder'"):
        open_layout(tmp_path, "folders")
    with pytest.raises(InputError, match="looked here and one level below for image/"):
        open_layout(tmp_path / "images", "png")


def test_several_datasets_below(tmp_path: Path) -> None:
    scan_file(tmp_path / "one" / "a.nii")
    assert open_layout(tmp_path).root == tmp_path / "one"
    scan_file(tmp_path / "two" / "images" / "a.nii")
    with pytest.raises(InputError, match="holds 2 folders that look like datasets: one, two; give one of them"):
        open_layout(tmp_path)


# Plain folders


@pytest.mark.parametrize(
    ("scan", "mask", "place"),
    [
        ("images/a.nii.gz", "masks/a.nii", "images/ and masks/"),
        ("images/a.nii", "labels/a.nii.gz", "images/ and labels/"),
        ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTr/ and labelsTr/"),
        ("a.nii.gz", "a_mask.nii.gz", "one folder"),
    ],
)
def test_pairs(tmp_path: Path, scan: str, mask: str, place: str) -> None:
    scan_file(tmp_path / scan)
    mask_file(tmp_path / mask, 1)
    found = open_layout(tmp_path)
    assert found.warnings == ()
    assert f"volumes in {place}: 1 scans, 1 with a mask (bleeding of unknown type)" in found.description
    (case,) = found.cases
    assert (case.name, case.patient, case.site, case.slice_types) == ("a", "a", None, None)
    assert codes(tmp_path) == [0, UNTYPED]


def test_scans_alone(tmp_path: Path) -> None:
    for name in ("a.nii", "b.nii.gz", "b_mask_of_c.nii"):
        scan_file(tmp_path / name)
    found = open_layout(tmp_path)
    assert found.warnings == ()
    assert [case.name for case in found.cases] == ["a", "b", "b_mask_of_c"]
    assert found.cases[0].read()[1] is None


def test_unpaired_files_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        scan_file(tmp_path / "images" / f"{name}.nii")
    for name in ("b", "c"):
        mask_file(tmp_path / "masks" / f"{name}.nii", 1)
    found = open_layout(tmp_path)
    assert found.warnings == ("1 of 2 scans have no mask: a", "1 masks have no scan and are left out: c")
    assert [len(case.mask_paths) for case in found.cases] == [0, 1]


def test_binary_is_decided_for_the_whole_dataset(tmp_path: Path) -> None:
    for name, values in {"a": (1,), "b": (255,), "c": ()}.items():
        scan_file(tmp_path / "images" / f"{name}.nii")
        mask_file(tmp_path / "masks" / f"{name}.nii", *values)
    assert codes(tmp_path, 0) == codes(tmp_path, 1) == [0, UNTYPED]
    mask_file(tmp_path / "masks" / "c.nii", 1, 5)
    found = open_layout(tmp_path)
    assert "no labels.json: mask values are taken as 1 epidural" in found.warnings[0]
    assert codes(tmp_path, 0) == [0, 1]  # now it is a type
    assert codes(tmp_path, 2) == [0, 1, 5]
    with pytest.raises(InputError, match=r"b\.nii: holds mask values nobody declared: 255"):
        codes(tmp_path, 1)


def test_declared_labels(tmp_path: Path) -> None:
    scan_file(tmp_path / "images" / "a.nii")
    mask_file(tmp_path / "masks" / "a.nii", 1, 2, 9)
    declared = {"0": "background", "1": "subdural", "2": "bleeding", "9": "epidural"}
    (tmp_path / "labels.json").write_text(json.dumps(declared))
    assert open_layout(tmp_path).warnings == ()
    assert codes(tmp_path) == [0, 1, 5, UNTYPED]
    del declared["2"]
    (tmp_path / "labels.json").write_text(json.dumps(declared))
    with pytest.raises(InputError, match=r"a\.nii: holds mask values nobody declared: 2 \(declared are 0, 1, 9\)"):
        codes(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[1]", "must map mask values to names"),
        ("{}", "must map mask values to names"),
        ('{"one": "epidural"}', "'one' is not a whole number"),
        ('{"256": "epidural"}', "'256' is not a whole number"),
        ('{"1": "subdurla"}', "unknown label 'subdurla'; did you mean 'subdural'"),
        ('{"1": ["subdural"]}', "unknown label"),
        ('{"0": "epidural"}', "0 can only be background"),
    ],
)
def test_declarations_that_cannot_be_used(tmp_path: Path, content: str, reason: str) -> None:
    scan_file(tmp_path / "images" / "a.nii")
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(InputError, match=reason):
        open_layout(tmp_path)


VERSION_2 = {"background": 0, "EDH": 1, "SDH": 2, "SAH": 3, "IPH": 4, "IVH": 5}


@pytest.mark.parametrize(
    "labels",
    [
        VERSION_2,
        {str(value): name for name, value in VERSION_2.items()},
        {
            "background": 0,
            "epidural": 1,
            "sub-dural": 2,
            "Subarachnoid Haemorrhage": 3,
            "ICH": 4,
            "ventricular bleed": 5,
        },
        {
            "Any bleeding": [1, 2, 3, 4, 5],
            "extradural_hematoma": 1,
            "acute-on-chronic SDH": [2],
            "sah": "3",
            "i.p.h.": 4,
            "IVH": 5,
        },
    ],
)
def test_labels_of_nnunet(tmp_path: Path, labels: dict[str, object]) -> None:
    scan_file(tmp_path / "imagesTr" / "a_0000.nii.gz")
    mask_file(tmp_path / "labelsTr" / "a.nii.gz", 1, 2, 3, 4, 5)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    _, mask = open_layout(tmp_path).cases[0].read()
    assert mask is not None
    names = {value: open_layout(tmp_path).cases[0].mask_codes[value] for value in range(1, 6)}
    assert names == {1: 1, 2: 5, 3: 4, 4: 2, 5: 3}  # epidural, subdural, subarachnoid, parenchymal, ventricular
    (tmp_path / "labels.json").write_text('{"1": "bleeding", "2": "SDH", "3": "SAH", "4": "IPH", "5": "background"}')
    assert open_layout(tmp_path).cases[0].mask_codes[1] == UNTYPED  # it has the last word


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_labels_of_nnunet_in_any_encoding_of_json(tmp_path: Path, encoding: str) -> None:
    scan_file(tmp_path / "imagesTr" / "a_0000.nii.gz")
    mask_file(tmp_path / "labelsTr" / "a.nii.gz", 1)
    (tmp_path / "dataset.json").write_bytes(json.dumps({"labels": {"background": 0, "SDH": 1}}).encode(encoding))
    assert open_layout(tmp_path).cases[0].mask_codes == {1: 5}


def test_one_label_of_nnunet_is_bleeding_of_unknown_type(tmp_path: Path) -> None:
    scan_file(tmp_path / "imagesTr" / "a_0000.nii.gz")
    mask_file(tmp_path / "labelsTr" / "a.nii.gz", 1)
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "ICH": 1}}')
    found = open_layout(tmp_path)
    assert codes(tmp_path) == [0, UNTYPED]
    assert "bleeding of unknown type" in found.description
    assert "'ICH' (1) is taken as bleeding of unknown type" in found.warnings[0]
    (tmp_path / "dataset.json").write_text('{"name": "something else"}')
    assert open_layout(tmp_path).warnings == ()


def test_a_mask_value_that_is_declared_twice_is_refused(tmp_path: Path) -> None:
    scan_file(tmp_path / "images" / "a.nii")
    scan_file(tmp_path / "masks" / "a.nii")
    (tmp_path / "labels.json").write_text('{"1": "subdural", "2": "epidural", "1": "epidural"}')
    with pytest.raises(InputError, match=r"labels.json: cannot be read as JSON \('1' stands twice in one table\)"):
        open_layout(tmp_path)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"background": 0, "edema": 1}, "mask value 1 is called 'edema', which is no known type .* labels.json"),
        ({"SDH": 0}, "0 can only be background"),
        ({"SDH": [1, 2], "EDH": [2, 3]}, "mask value 2 is both 'SDH' and 'EDH'"),
        ({"SDH": "9" * 5000}, "is not a whole number from 0 to 255"),
        ({"SDH": -1}, "'-1' is not a whole number"),
        ({"SDH": {"a": 1}}, "is not a whole number"),
        (["background", "SDH"], "must map names to mask values"),
    ],
)
def test_labels_of_nnunet_that_cannot_be_used(tmp_path: Path, labels: object, reason: str) -> None:
    scan_file(tmp_path / "imagesTr" / "a_0000.nii.gz")
    mask_file(tmp_path / "labelsTr" / "a.nii.gz", 1)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(InputError, match=reason):
        open_layout(tmp_path)


def test_a_label_that_counts_neither_way_is_refused_only_in_masks_that_hold_it(tmp_path: Path) -> None:
    for name, values in (("a", (1,)), ("b", (1, 3))):
        scan_file(tmp_path / "imagesTr" / f"{name}_0000.nii.gz")
        mask_file(tmp_path / "labelsTr" / f"{name}.nii.gz", *values)
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "all": [1, 2], "SDH": [1], "ignore": 3}}')
    with pytest.raises(InputError, match="called 'all', which is no known type"):
        open_layout(tmp_path)
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "any": [1, 2], "SDH": [1], "ignore": 3}}')
    collection = open_layout(tmp_path)
    assert "'ignore' (3) marks what nothing is known of" in collection.warnings[0]
    assert codes(tmp_path) == [0, 5]
    with pytest.raises(InputError, match=r"nobody declared: 3 .*say what each value means in labels\.json"):
        collection.cases[1].read()


@pytest.mark.parametrize("other", ["labels", "labelsTr"])
def test_two_folders_of_masks_are_refused(tmp_path: Path, other: str) -> None:
    scan_file(tmp_path / "images" / "a.nii")
    mask_file(tmp_path / "masks" / "a.nii", 1)
    (tmp_path / other).symlink_to(tmp_path / "masks")
    assert codes(tmp_path) == [0, UNTYPED]  # the same folder once more
    (tmp_path / other).unlink()
    mask_file(tmp_path / other / "a.nii", 0, 1)
    with pytest.raises(InputError, match=f"holds masks in masks/ and {other}/"):
        open_layout(tmp_path)


def test_patients(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        scan_file(tmp_path / "images" / f"{name}.nii")
    (tmp_path / "patients.csv").write_text("case;patient;site\na;P1;north\nb;P1;\nd;P2;north\n")
    found = open_layout(tmp_path)
    assert [(case.patient, case.site) for case in found.cases] == [("P1", "north"), ("P1", None), ("c", None)]
    assert found.warnings == (
        "patients.csv has cases without a scan: d",
        "patients.csv leaves out cases, each then taken as a patient of its own: c",
    )
    (tmp_path / "patients.csv").write_text("case,patient\na,P1\na,P2\n")
    with pytest.raises(InputError, match="line 3 contradicts an earlier one on case a"):
        open_layout(tmp_path)
    (tmp_path / "patients.csv").write_text("case,patient\na,\n")
    with pytest.raises(InputError, match="line 2 names no case or no patient"):
        open_layout(tmp_path)


def test_channels_of_nnunet(tmp_path: Path) -> None:
    scan_file(tmp_path / "imagesTr" / "a_0000.nii.gz")
    scan_file(tmp_path / "imagesTr" / "a_0001.nii.gz")
    with pytest.raises(InputError, match="must end in _0000, one channel for each case, but not a_0001"):
        open_layout(tmp_path)


def test_a_broken_mask_says_so_when_it_is_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        scan_file(tmp_path / "images" / f"{name}.nii")
    mask_file(tmp_path / "masks" / "a.nii", 1)
    (tmp_path / "masks" / "b.nii").write_bytes(b"cut")
    assert codes(tmp_path) == [0, UNTYPED]
    with pytest.raises(InputError, match=r"masks/b\.nii"):
        codes(tmp_path, 1)


def test_real_pairs(shared_data: Path) -> None:
    found = open_layout(shared_data / "head-ct-painted")
    assert [case.name for case in found.cases] == ["painted1", "painted3"]
    assert codes(shared_data / "head-ct-painted", 1) == [0, 1, 3, 4]
    with pytest.raises(InputError, match="folders that look like datasets"):
        open_layout(shared_data)


# PNG folders


def test_slices_are_grouped_into_cases(tmp_path: Path) -> None:
    for case, numbers in {"049": (12, 9), "050": (1,)}.items():
        for number in numbers:
            png_file(tmp_path / "image" / f"{case}_{number:03d}.png", number)
            png_file(tmp_path / "label" / f"{case}_{number:03d}.png", 255 if number == 9 else 0)
    (tmp_path / "window.json").write_text('{"level": 127.5, "width": 255, "pixel_mm": 0.5, "slice_mm": 5}')
    found = open_layout(tmp_path)
    assert found.warnings == ()
    assert "3 slices, 3 with a label, 2 cases" in found.description
    scan, mask = found.cases[0].read()
    assert (scan.name, found.cases[0].patient, scan.slice_numbers) == ("049", "049", (9, 12))
    assert scan.hu[:, 0, 0].tolist() == [9, 12]
    assert mask is not None
    assert mask[:, 0, 0].tolist() == [UNTYPED, 0]
    assert scan.spacing_known


def test_other_names_are_slices_of_unknown_patients(tmp_path: Path) -> None:
    for name in ("first", "scan-12", "7"):
        png_file(tmp_path / "image" / f"{name}.png", 100)
        png_file(tmp_path / "label" / f"{name}.png", 1)
    found = open_layout(tmp_path)
    assert [(case.name, case.patient) for case in found.cases] == [("7", None), ("first", None), ("scan-12", None)]
    assert "patients are not known of 3 of 3 cases" in found.warnings[0]
    assert "greys are taken as level 40, width 120 HU" in found.warnings[1]
    scan, mask = found.cases[0].read()
    assert np.array_equal(scan.hu[0], from_grey(np.full((6, 5), 100, np.uint8), 40, 120))
    assert not scan.spacing_known
    assert mask is not None
    assert (mask == UNTYPED).all()


def test_labels_and_images_without_their_other_half(tmp_path: Path) -> None:
    for name in ("a_001", "a_002", "b_001"):
        png_file(tmp_path / "image" / f"{name}.png", 100)
    for name in ("a_001", "c_001"):
        png_file(tmp_path / "label" / f"{name}.png", 255)
    found = open_layout(tmp_path)
    assert "2 of 3 images have no label: a_002, b_001" in found.warnings
    assert "1 labels have no image and are left out: c_001" in found.warnings
    first, second = found.cases
    scan, mask = first.read()
    assert scan.slice_numbers == (1,)
    assert "slices left out since they have no label: a_002" in scan.warnings
    assert mask is not None
    assert second.read()[1] is None


@pytest.mark.parametrize("value", [7, 128])
def test_png_labels_nobody_declared(tmp_path: Path, value: int) -> None:
    png_file(tmp_path / "image" / "a_001.png", 100)
    png_file(tmp_path / "label" / "a_001.png", value)
    with pytest.raises(InputError, match=rf"label/a_001\.png: holds mask values nobody declared: {value}"):
        codes(tmp_path)


def test_png_sizes_that_differ(tmp_path: Path) -> None:
    png_file(tmp_path / "image" / "a_001.png", 100)
    png_file(tmp_path / "image" / "a_002.png", 100, (7, 5))
    with pytest.raises(InputError, match=r"a_002\.png: size \(7, 5\) differs from \(6, 5\)"):
        open_layout(tmp_path).cases[0].read()
    png_file(tmp_path / "image" / "a_002.png", 100)
    for number in (1, 2):
        png_file(tmp_path / "label" / f"a_00{number}.png", 0, (6, 6))
    with pytest.raises(InputError, match=r"label/a_001\.png: this label.s size .*image/a_001\.png"):
        open_layout(tmp_path).cases[0].read()


# Written and read again


@pytest.mark.parametrize("layout", ["folder", "png"])
def test_what_is_written_reads_back(tmp_path: Path, layout: str) -> None:
    rng = np.random.default_rng(0)
    cases = []
    for name, kind in (("p_01", 1), ("p_02", 4)):
        scan = even_scan(rng.integers(-1024, 1000, (3, 6, 5)).astype(np.int16), 0.5, 5.0, name)
        mask = np.zeros(scan.shape, np.uint8)
        mask[1, 2:4, 1:3] = kind
        cases.append((scan, mask, CaseInfo(name, name.upper())))
        write_case(layout, tmp_path, name, scan, mask, cases[-1][2])
    write_tables(layout, tmp_path, [info for _, _, info in cases])
    found = open_layout(tmp_path)
    assert found.layout == layout
    assert found.warnings == ()
    for case, (scan, mask, info) in zip(found.cases, cases, strict=True):
        read, read_mask = case.read()
        assert (case.name, read.name, read.slice_numbers) == (info.name, info.name, (1, 2, 3))
        if layout == "folder":
            assert np.array_equal(read.hu, scan.hu)
            np.testing.assert_allclose(read.affine, scan.affine, atol=1e-5)
            assert np.array_equal(read_mask, mask)
            assert case.patient == info.patient
        else:
            assert np.array_equal(to_grey(read.hu, 40, 120), to_grey(scan.hu, 40, 120))
            assert np.array_equal(read_mask, np.where(mask, UNTYPED, 0))
            assert not read.spacing_known


def test_a_mask_of_ones_alone_stays_typed_when_written(tmp_path: Path) -> None:
    scan = even_scan(np.linspace(-1000, 1000, 90).astype(np.int16).reshape(3, 6, 5), 0.5, 5.0)
    write_case("folder", tmp_path, "a", scan, (scan.hu > 0).astype(np.uint8), CaseInfo("a", "a"))
    write_tables("folder", tmp_path, [CaseInfo("a", "a")])
    assert codes(tmp_path) == [0, 1]


@pytest.mark.parametrize("layout", ["folder", "png", "ct-ich"])
def test_a_scan_without_a_mask(tmp_path: Path, layout: str) -> None:
    scan = even_scan(np.linspace(-1000, 1000, 90).astype(np.int16).reshape(3, 6, 5), 0.5, 5.0)
    write_case(layout, tmp_path, "049", scan, None, CaseInfo("049", "049"))
    assert open_layout(tmp_path).cases[0].read()[1] is None


def test_writing_an_unknown_layout(tmp_path: Path) -> None:
    scan = even_scan(np.zeros((3, 6, 5), np.int16), 0.5, 5.0)
    with pytest.raises(OptionError, match="unknown layout 'bids'; known are: ct-ich, dicom, folder, png"):
        write_case("bids", tmp_path, "a", scan, None, CaseInfo("a", "a"))
    with pytest.raises(OptionError, match="unknown layout"):
        write_tables("bids", tmp_path, [])


def test_patients_are_assumed_where_no_table_names_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        scan_file(tmp_path / f"images/{name}.nii.gz")
    assert [case.patient_assumed for case in open_layout(tmp_path).cases] == [True, True]
    (tmp_path / "patients.csv").write_text("case,patient\na,p1\n")
    assert [(case.patient, case.patient_assumed) for case in open_layout(tmp_path).cases] == [
        ("p1", False),
        ("b", True),
    ]


def test_dicom_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "series/IM0001").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(InputError, match="holds no study in DICOM that can be read: series/IM0001"):
        open_layout(tmp_path)


def test_masks_of_other_names_are_told_what_they_would_have_to_be_called(tmp_path: Path) -> None:
    scan_file(tmp_path / "images/p1.nii.gz")
    mask_file(tmp_path / "masks/p1_seg.nii.gz", 1)
    assert any("p1_seg.nii.gz would have to be called p1.nii.gz" in text for text in open_layout(tmp_path).warnings)


# patients.csv, the same in every layout


def layout_with_patients(root: Path, layout: str, names: list[str], table: str | None) -> list[tuple[str | None, bool]]:
    """The patient of each case of a made-up dataset, and whether it is assumed."""
    scan = even_scan(np.linspace(-1000, 1000, 90).astype(np.int16).reshape(3, 6, 5), 0.5, 5.0)
    for name in names:
        write_case(layout, root, name, scan, (scan.hu > 0).astype(np.uint8), CaseInfo(name, name))
    if table is not None:
        (root / "patients.csv").write_text(table, encoding="utf-8")
    return [(case.patient, case.patient_assumed) for case in open_layout(root, layout).cases]


@pytest.mark.parametrize("layout", ["folder", "png", "ct-ich"])
def test_patients_are_read_in_every_layout(tmp_path: Path, layout: str) -> None:
    table = "case,patient\n001,P1\n002,P1\n003,P2\n"
    patients = layout_with_patients(tmp_path, layout, ["001", "002", "003", "004"], table)
    assert patients[:3] == [("P1", False), ("P1", False), ("P2", False)]
    assert patients[3] == ("004", True)
    warning = "patients.csv leaves out cases, each then taken as a patient of its own: 004"
    assert warning in open_layout(tmp_path, layout).warnings


@pytest.mark.parametrize("layout", ["folder", "png", "ct-ich"])
def test_without_a_table_patients_are_assumed_and_it_is_said(tmp_path: Path, layout: str) -> None:
    patients = layout_with_patients(tmp_path, layout, ["001", "002"], None)
    assert patients == [("001", True), ("002", True)]
    said = "each scan taken for a patient of its own, as there is no patients.csv"
    assert said in open_layout(tmp_path, layout).description


def test_patients_of_nnunet_by_the_names_of_its_files(tmp_path: Path) -> None:
    for name in ("ich_001", "ich_002", "ich_003"):
        scan_file(tmp_path / "imagesTr" / f"{name}_0000.nii.gz")
    (tmp_path / "patients.csv").write_text("case,patient\nich_001,A\nich_002_0000,A\nich_003_0000.nii.gz,B\n")
    opened = open_layout(tmp_path)
    assert [case.patient for case in opened.cases] == ["A", "A", "B"]
    assert not any("without a scan" in text for text in opened.warnings)


def test_a_table_one_level_above_the_only_dataset_counts(tmp_path: Path) -> None:
    scan_file(tmp_path / "data" / "images" / "a.nii")
    (tmp_path / "Patients.CSV").write_text("case,patient\na,P7\n")
    assert open_layout(tmp_path).cases[0].patient == "P7"


SPELLINGS = [
    ("P01", "p1"),
    ("2", "2.0"),
    ("2", "0002"),
    ("2", "2,00"),
    ("P 1", "P1"),
    ("P\u00a01", "P 1"),
    ("M\u00fcller", "Mu\u0308ller"),
    ("\uff30\uff11", "P1"),
    ("\u0661\u0662", "12"),
    ("P\u20131", "P-1"),
    ("P\u200b1", "P1"),
    ("'007", "7"),
    ("STRASSE", "Stra\u00dfe"),
]
DIFFERENT = [("P1", "P2"), ("10", "1"), ("1002", "102"), ("2.5", "25"), ("P10", "P100"), ("A1", "1"), ("1-2", "12")]


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
def test_spellings_of_one_patient_are_joined_and_it_is_said(tmp_path: Path, one: str, other: str) -> None:
    for name in ("a", "b"):
        scan_file(tmp_path / "images" / f"{name}.nii")
    (tmp_path / "patients.csv").write_text(f'case,patient\na,"{one}"\nb,"{other}"\n', encoding="utf-8")
    opened = open_layout(tmp_path)
    assert [case.patient for case in opened.cases] == [one, one]
    assert any("spellings taken for one and the same patient" in text for text in opened.warnings)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_other_patients_stay_apart(one: str, other: str) -> None:
    assert identity(one) != identity(other)


@pytest.mark.parametrize("layout", ["folder", "png", "ct-ich"])
def test_cases_that_a_spreadsheet_spells_otherwise_are_found(tmp_path: Path, layout: str) -> None:
    patients = layout_with_patients(tmp_path, layout, ["001", "002"], "case,patient\n1,A\n2.0,A\n")
    assert patients == [("A", False), ("A", False)]
    assert any("cases spelled otherwise than their files: '1' is '001'" in t for t in open_layout(tmp_path).warnings)


def test_a_case_that_may_be_two_files_or_has_two_patients_is_refused(tmp_path: Path) -> None:
    for name in ("01", "001"):
        scan_file(tmp_path / "images" / f"{name}.nii")
    (tmp_path / "patients.csv").write_text("case,patient\n1,A\n")
    with pytest.raises(InputError, match="line 2: case 1 may be any of 001, 01; spell it as the file is"):
        open_layout(tmp_path)
    (tmp_path / "patients.csv").write_text("case,patient\n01,A\n01.nii,B\n001,C\n")
    with pytest.raises(InputError, match="line 3 contradicts line 2: both are about case 01"):
        open_layout(tmp_path)
    (tmp_path / "patients.csv").write_text("case,patient\n01,A\n001,B\n")
    assert [case.patient for case in open_layout(tmp_path).cases] == ["B", "A"]


def test_patient_numbers_of_ct_ich_are_known_only_if_a_table_names_them(tmp_path: Path) -> None:
    scan = even_scan(np.linspace(-1000, 1000, 90).astype(np.int16).reshape(3, 6, 5), 0.5, 5.0)
    info = CaseInfo("049", "049", slice_types={n: frozenset() for n in (1, 2, 3)})
    for name in ("049", "050"):
        write_case("ct-ich", tmp_path, name, scan, None, info)
    write_tables("ct-ich", tmp_path, [info])
    assert [case.patient_assumed for case in open_layout(tmp_path).cases] == [False, True]


@pytest.mark.parametrize("row", ['"P1', 'P1\nb,"P2', '"P1,\nb,"P2'])
def test_a_stray_quote_in_patients_csv_is_refused(tmp_path: Path, row: str) -> None:
    scan_file(tmp_path / "images" / "a.nii")
    (tmp_path / "patients.csv").write_text(f"case,patient\na,{row}\nc,P3\n")
    with pytest.raises(InputError, match=r"patients\.csv: cannot be read as CSV: .* is a quote missing or too many"):
        open_layout(tmp_path)


# What is not read


def dicom_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM")
    return path


@pytest.mark.parametrize("layout", ["folder", "ct-ich", "png", "flat"])
def test_what_looks_like_a_scan_and_is_not_read_is_named(tmp_path: Path, layout: str) -> None:
    scans = tmp_path / {"folder": "images", "ct-ich": "ct_scans", "png": "image", "flat": ""}[layout]
    if layout == "png":
        png_file(scans / "a_001.png", 100)
    else:
        scan_file(scans / "a.nii.gz")
    for name in ("README.md", "notes.txt", "Thumbs.db", ".hidden.nrrd", "table.csv"):
        (tmp_path / name).write_text("")
    assert open_layout(tmp_path).passed_over == ()
    (scans / "gone.nii.gz").symlink_to(tmp_path / "nowhere")
    (scans / "loop.nii").symlink_to(scans / "loop.nii")
    (scans / "named.nii.gz").mkdir()
    (scans / "other.MGZ").write_text("")
    (scans / "other.mha").write_text("")
    os.mkfifo(scans / "pipe.nii")
    for number in range(8):
        dicom_file(tmp_path / "series" / f"IM{number}")
    (tmp_path / "linked").symlink_to(tmp_path.parent)
    (tmp_path / "twice").symlink_to(tmp_path / "series")  # what is there is named once
    text = "\n".join(open_layout(tmp_path).passed_over)
    assert "gone.nii.gz" in text and "is a link that leads nowhere" in text and "loop.nii" in text
    assert "named.nii.gz: is a folder, though it is named like a scan" in text
    assert "other.MGZ: is FreeSurfer, which is not read" in text and "other.mha: is MetaImage" in text
    assert "pipe.nii: is no ordinary file" in text
    assert "series/IM4 and 3 more: is DICOM" in text
    assert "linked: is a link to a folder, which is not followed" in text
    assert len(text.splitlines()) == 7


def test_folders_of_a_layout_may_be_links(tmp_path: Path) -> None:
    scan_file(tmp_path / "disk" / "scans" / "a.nii")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "images").symlink_to(tmp_path / "disk" / "scans")
    found = open_layout(tmp_path / "set")
    assert [case.name for case in found.cases] == ["a"] and found.passed_over == ()


def test_a_link_to_a_folder_is_followed_if_it_is_given_itself(tmp_path: Path) -> None:
    scan_file(tmp_path / "disk" / "images" / "a.nii")
    scan_file(tmp_path / "elsewhere" / "b.nii")
    (tmp_path / "disk" / "more").symlink_to(tmp_path / "elsewhere")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "disk")
    dataset = open_layout(link)
    assert [case.name for case in dataset.cases] == ["a"]
    assert dataset.passed_over == ("more: is a link to a folder, which is not followed; give the folder itself",)


def test_scans_and_pictures_of_another_kind_are_named(tmp_path: Path) -> None:
    png_file(tmp_path / "image" / "a_001.png", 100)
    png_file(tmp_path / "logo.png", 100)
    png_file(tmp_path / "image" / "a_002.jpg", 100)
    scan_file(tmp_path / "more" / "b.nii")
    text = open_layout(tmp_path).passed_over
    assert text == (
        "image/a_002.jpg: is no part of any case",
        "more/b.nii: is NIfTI beside folders of slices, which are read",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
def test_a_forbidden_folder_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        scan_file(root / "set" / "images" / "a.nii")
        scan_file(root / "set" / "forbidden" / "b.nii")
        root.chmod(0o755)
        (root / "set" / "forbidden").chmod(0)
        os.seteuid(65534)
        try:
            found = open_layout(root / "set")
        finally:
            os.seteuid(0)
        assert found.passed_over == ("forbidden: cannot be read (Permission denied)",)
