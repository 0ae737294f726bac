"""The CT-ICH layout: as published, as spreadsheets mangle it, and as the phantom writes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hemotorch.data.layouts import open_layout, recognise, write_case, write_tables
from hemotorch.data.layouts.ct_ich import COLUMNS, Person, read_demographics, read_diagnosis
from hemotorch.errors import InputError
from hemotorch.labels import UNTYPED
from hemotorch.scan import CaseInfo, Scan, even_scan

HEADER = ",".join(COLUMNS)
ROWS = ["49,1,0,0,0,0,0,1,0", "49,2,0,1,0,0,1,0,1", "49,3,0,0,0,0,0,1,0", "58,1,0,0,0,0,0,1,0", "58,2,0,0,0,0,0,1,0"]


def volume(slices: int) -> np.ndarray:
    """HU as stored: (x, y, z)."""
    return np.linspace(-1000, 1000, 6 * 5 * slices).astype(np.int16).reshape(6, 5, slices)


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([-0.5, 0.5, 5.0, 1.0])), path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two subjects of three and two slices; slice 2 of 049 bleeds."""
    mask = np.zeros((6, 5, 3), np.uint8)
    mask[2:4, 2:4, 1] = 255
    save(tmp_path / "ct_scans" / "049.nii", volume(3))
    save(tmp_path / "ct_scans" / "058.nii.gz", volume(2))
    save(tmp_path / "masks" / "049.nii", mask)
    save(tmp_path / "masks" / "058.nii", np.zeros((6, 5, 2), np.uint8))
    (tmp_path / "hemorrhage_diagnosis_raw_ct.csv").write_text("\n".join([HEADER, *ROWS]) + "\n")
    return tmp_path


def table(root: Path, text: str, encoding: str = "utf-8") -> Path:
    path = root / "hemorrhage_diagnosis_raw_ct.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_as_published(root: Path) -> None:
    assert recognise(root) == "ct-ich"
    found = open_layout(root)
    assert found.layout == "ct-ich"
    assert found.warnings == ()
    assert found.description.startswith("ct-ich: PhysioNet CT-ICH by its ct_scans/: 2 scans, 2 with a mask, types of 5")
    first, second = found.cases
    assert (first.name, first.patient, first.site) == ("049", "049", None)
    assert first.slice_types == {1: frozenset(), 2: frozenset({"intraparenchymal", "subdural"}), 3: frozenset()}
    scan, mask = first.read()
    assert scan.name == "049"
    assert mask is not None
    assert np.unique(mask).tolist() == [0, UNTYPED]
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [1]
    assert np.array_equal(mask[1, 1:3, 2:4], np.full((2, 2), UNTYPED))  # rows are stored from the back
    assert not second.read()[1].any()  # type: ignore[union-attr]


def test_one_level_down(root: Path, tmp_path: Path) -> None:
    above = tmp_path / "download"
    above.mkdir()
    inner = above / "computed-tomography-images-for-intracranial-hemorrhage-detection-and-segmentation-1.3.1"
    inner.mkdir()
    for entry in ("ct_scans", "masks", "hemorrhage_diagnosis_raw_ct.csv"):
        (root / entry).rename(inner / entry)
    found = open_layout(above)
    assert found.root == inner
    assert len(found.cases) == 2
    assert str(inner) in found.description


@pytest.mark.parametrize(
    "write",
    [
        lambda lines: "\ufeff" + "\r\n".join(lines),
        lambda lines: "\n".join(lines).replace(",", ";"),
        lambda lines: "\ufeff" + "\r\n\r\n".join(line.replace(",", ";") for line in lines) + "\r\n;;;;;;;;\r\n\r\n",
        lambda lines: "\n\n" + "\n".join(line + "," for line in lines),
        lambda lines: "\n".join(" , ".join(f'"{cell}"' for cell in line.split(",")) for line in lines).replace(
            '" ,', '",'
        ),
        lambda lines: "\n".join([lines[0].upper(), *(line.replace("49,", "049.0,") for line in lines[1:])]),
        lambda lines: "\n".join(",".join(reversed(line.split(","))) for line in lines),
        lambda lines: "\n".join(lines).replace(",", "\t"),
        lambda lines: "\ufeff" + "\r\n".join(["sep=;", *lines]).replace(",", ";"),
    ],
    ids=["bom", "semicolons", "excel", "trailing comma", "quotes", "upper case", "other order", "tabs", "sep="],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_table_as_spreadsheets_save_it(root: Path, write: Callable[[list[str]], str], encoding: str) -> None:
    text = write([HEADER, *ROWS])
    if encoding == "utf-16":
        text = text.removeprefix("\ufeff")
    found = open_layout(_with(root, text, encoding))
    assert found.warnings == ()
    assert [len(case.slice_types or {}) for case in found.cases] == [3, 2]
    assert found.cases[0].slice_types[2] == frozenset({"intraparenchymal", "subdural"})  # type: ignore[index]


def _with(root: Path, text: str, encoding: str = "utf-8") -> Path:
    table(root, text, encoding)
    return root


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            ["PatientNumber,SliceNumber,Epidural", "49,1,0"],
            "has no column Intraventricular, Intraparenchymal, Subarach",
        ),
        ([], "its columns are: none"),
        ([HEADER, "49,1,0,0,0,0"], "line 2 has 6 cells"),
        ([HEADER, "49,1,0,0,0,0,2,0,0"], "line 2: Subdural is '2', not 0 to 1"),
        ([HEADER, "49,1,0,0,0,0,,0,0"], "line 2: Subdural is ''"),
        ([HEADER, "forty,1,0,0,0,0,1,0,0"], "line 2: PatientNumber is 'forty', not a whole number"),
        ([HEADER, "49,1.5,0,0,0,0,1,0,0"], "line 2: SliceNumber is '1.5'"),
        ([HEADER, *ROWS, "49,2,0,0,0,0,1,0,0"], r"049 slice 2 \(line 7\) contradicts line 3"),
    ],
)
def test_tables_that_cannot_be_used(root: Path, lines: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        open_layout(_with(root, "\n".join(lines)))
    assert "hemorrhage_diagnosis_raw_ct.csv" in str(caught.value)


def test_a_table_that_is_no_text(root: Path) -> None:
    table(root, "").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="not a text file"):
        open_layout(root)


def test_rows_that_repeat(root: Path) -> None:
    found = open_layout(_with(root, "\n".join([HEADER, *ROWS, ROWS[1]])))
    assert found.warnings == ("hemorrhage_diagnosis_raw_ct.csv: rows that repeat an earlier one: 049 slice 2 (line 7)",)
    assert len(found.cases[0].slice_types or {}) == 3


def test_slices_that_do_not_exist(root: Path) -> None:
    found = open_layout(_with(root, "\n".join([HEADER, *ROWS, "58,3,0,0,0,0,0,1,0", "58,9,0,0,0,0,0,1,0"])))
    expected = "hemorrhage_diagnosis_raw_ct.csv names slices that do not exist, of 2: 3, 9"
    assert found.warnings == (f"058: {expected}",)
    assert found.cases[1].read()[0].warnings == (expected,)


def test_slices_and_patients_that_the_table_leaves_out(root: Path) -> None:
    found = open_layout(_with(root, "\n".join([HEADER, *ROWS[:2], "77,1,0,0,0,0,0,1,0"])))
    assert found.warnings == (
        "hemorrhage_diagnosis_raw_ct.csv has patients without a scan: 077",
        "049: slices whose types hemorrhage_diagnosis_raw_ct.csv does not tell: 3",
        "058: not in hemorrhage_diagnosis_raw_ct.csv: the types in its slices are not known",
    )
    assert found.cases[1].slice_types is None


def test_a_row_that_disagrees_with_itself(root: Path) -> None:
    types, warnings = read_diagnosis(table(root, "\n".join([HEADER, "49,1,0,0,0,1,0,1,0", "49,2,0,0,0,0,0,0,0"])))
    assert types == {"049": {1: frozenset({"epidural"})}}  # slice 2 is not known
    assert "No_Hemorrhage disagrees with the types" in warnings[0]
    assert "049 slice 1 (line 2), 049 slice 2 (line 3)" in warnings[0]


def test_missing_masks_and_scans_are_named(root: Path) -> None:
    (root / "masks" / "058.nii").rename(root / "masks" / "059.nii")
    found = open_layout(root)
    assert "1 of 2 scans have no mask: 058" in found.warnings
    assert "1 masks have no scan and are left out: 059" in found.warnings
    assert found.cases[1].mask_paths == ()
    assert found.cases[1].read()[1] is None


def test_without_tables(root: Path) -> None:
    (root / "hemorrhage_diagnosis_raw_ct.csv").unlink()
    found = open_layout(root)
    assert found.warnings == ("no hemorrhage_diagnosis_raw_ct.csv: the types of bleeding in each slice are not known",)
    assert [case.slice_types for case in found.cases] == [None, None]


def test_two_files_for_one_case(root: Path) -> None:
    save(root / "ct_scans" / "049.nii.gz", volume(3))
    with pytest.raises(InputError, match=r"049\.nii\.gz: stands beside 049\.nii"):
        open_layout(root)


def test_hidden_files_are_left_out(root: Path) -> None:
    (root / "ct_scans" / "._049.nii").write_bytes(b"finder")
    assert len(open_layout(root).cases) == 2


@pytest.mark.parametrize("value", [1, 255])
def test_masks_of_0_and_1_or_0_and_255(root: Path, value: int) -> None:
    save(root / "masks" / "049.nii", np.where(volume(3) > 500, value, 0).astype(np.uint8))
    mask = open_layout(root).cases[0].read()[1]
    assert np.unique(mask).tolist() == [0, UNTYPED]


def test_mask_values_nobody_declared(root: Path) -> None:
    mask = np.zeros((6, 5, 3), np.uint8)
    mask[0, 0] = [3, 7, 255]
    save(root / "masks" / "049.nii", mask)
    with pytest.raises(InputError, match=r"masks/049\.nii: holds mask values nobody declared: 3, 7 .* 0, 1, 255"):
        open_layout(root).cases[0].read()


def test_a_mask_of_another_shape(root: Path) -> None:
    save(root / "masks" / "049.nii", np.zeros((6, 5, 4), np.uint8))
    with pytest.raises(InputError, match=r"masks/049\.nii: .*shape \(4, 5, 6\).*\(3, 5, 6\).*ct_scans/049\.nii"):
        open_layout(root).cases[0].read()


def test_a_cut_scan_says_so_when_it_is_read(root: Path) -> None:
    path = root / "ct_scans" / "058.nii.gz"
    path.write_bytes(path.read_bytes()[:100])
    found = open_layout(root)
    with pytest.raises(InputError, match=r"058\.nii\.gz"):
        found.cases[1].read()
    assert found.cases[0].read()[1] is not None


DEMOGRAPHICS = (
    'Patient Number,"Age\n(years)",Gender,Hemorrhage type based on the radiologists diagnosis ,,,,,'
    "Fracture (yes 1/no 0),Note1\n"
    ",,,Intraventricular,Intraparenchymal,Subarachnoid,Epidural,Subdural,,\n"
    "49,44.5,Male,,1,,,1,1,\n"
    '58,0,Female ,,,,,,0,"a remark,\nover two lines"\n'
    "66,unknown,,,,,,,0,\n"
    "\n"
    "Note1: years\n"
)


def test_demographics(root: Path) -> None:
    path = root / "Patient_demographics.csv"
    path.write_text(DEMOGRAPHICS)
    assert read_demographics(path) == {"049": Person(44.5, "M"), "058": Person(0, "F"), "066": Person(None, None)}
    found = open_layout(root)
    assert [(case.age, case.sex) for case in found.cases] == [(44.5, "M"), (0, "F")]
    assert found.warnings == ("Patient_demographics.csv has patients without a scan: 066",)
    path.write_text("Number,Age,Gender\n1,2,Male\n")
    with pytest.raises(InputError, match="has no column patient number"):
        open_layout(root)


def made(number: int, slices: int = 3) -> tuple[Scan, np.ndarray, CaseInfo]:
    """A case with subdural bleeding in slice 2."""
    name = f"{number:03d}"
    hu = np.random.default_rng(number).integers(-1000, 1000, (slices, 5, 6)).astype(np.int16)
    mask = np.zeros(hu.shape, np.uint8)
    mask[1, 1:3, 1:4] = 5
    types = {n: frozenset({"subdural"} if n == 2 else set()) for n in range(1, slices + 1)}
    return even_scan(hu, 0.5, 5.0), mask, CaseInfo(name, name, 61.5, "F", types, frozenset({2}), True, "made")


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    cases = [made(number) for number in (66, 49)]
    for scan, mask, info in cases:
        write_case("ct-ich", tmp_path, info.name, scan, mask, info)
    write_tables("ct-ich", tmp_path, [info for _, _, info in cases])
    found = open_layout(tmp_path)
    assert found.warnings == ()
    assert [case.name for case in found.cases] == ["049", "066"]
    for case, (scan, mask, info) in zip(found.cases, reversed(cases), strict=True):
        read, read_mask = case.read()
        assert np.array_equal(read.hu, scan.hu)
        np.testing.assert_allclose(read.affine, scan.affine, atol=1e-5)
        assert np.array_equal(read_mask, np.where(mask > 0, UNTYPED, 0))
        assert case.slice_types == info.slice_types
        assert (case.age, case.sex) == (61.5, "F")
    stored = np.asarray(nib.load(tmp_path / "masks" / "049.nii").dataobj)
    assert np.unique(stored).tolist() == [0, 255]
    lines = (tmp_path / "hemorrhage_diagnosis_raw_ct.csv").read_text().splitlines()
    assert lines[:3] == [HEADER, "49,1,0,0,0,0,0,1,0", "49,2,0,0,0,0,1,0,1"]
    text = (tmp_path / "Patient_demographics.csv").read_text()
    assert text.startswith(DEMOGRAPHICS[: DEMOGRAPHICS.index("49,")])
    assert "49,61.5,Female,,,,,1,1,made" in text


def test_only_numbers_are_written_as_names(tmp_path: Path) -> None:
    scan, mask, info = made(49)
    with pytest.raises(InputError, match="names its cases by number"):
        write_case("ct-ich", tmp_path, "first", scan, mask, info)
