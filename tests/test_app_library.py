"""The studies of a workspace: added whole or not at all, once, pseudonymous; listed, sorted, searched, deleted."""

from __future__ import annotations

import csv
import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from hemotorch.app import library as library_module
from hemotorch.app.database import Database
from hemotorch.app.layers import read_layer, read_layers, read_mask, write_layer
from hemotorch.app.library import Library
from hemotorch.app.schemas import ReadingState, StudyDoubt, StudyStage
from hemotorch.app.worklist import AnyOrNone, Sort, Wanted, Worklist
from hemotorch.errors import InputError, RunError
from hemotorch.inference.scan_files import ScanFiles, find_scans
from hemotorch.io import nifti, read_scan
from hemotorch.labels import CODES, UNTYPED
from hemotorch.scan import Scan, even_scan


@pytest.fixture
def library(tmp_path: Path) -> Library:
    folder = tmp_path / "app"
    folder.mkdir()
    return Library(folder, Database(folder, library_module.TABLES))


def small_scan(seed: int = 0, slices: int = 6) -> Scan:
    hu = np.random.default_rng(seed).integers(-1000, 1500, (slices, 20, 24)).astype(np.int16)
    return even_scan(hu, 1.0, 5.0)


def add_volume(library: Library, folder: Path, seed: int = 0) -> str:
    path = folder / f"batch{seed}" / "in" / f"scan{seed}.nii.gz"
    path.parent.mkdir(parents=True)
    nifti.write_scan(small_scan(seed), path)
    files = ScanFiles((path,), path)
    return library.add(files.read(), files, batch=folder / f"batch{seed}").id


def a_mask(scan: Scan) -> np.ndarray:
    mask = np.zeros(scan.shape, np.uint8)
    mask[1:3, 2:6, 2:6] = CODES["subdural"]
    mask[4, 10:12, 10:12] = CODES["epidural"]
    return mask


def test_a_scan_comes_back_as_it_was_read(library: Library, tmp_path: Path) -> None:
    study = add_volume(library, tmp_path)
    original = read_scan(tmp_path / "batch0" / "in" / "scan0.nii.gz")
    shutil.rmtree(tmp_path / "batch0")  # the study has its own files
    stored = library.scan(study)
    assert isinstance(stored.hu, np.memmap)
    assert np.array_equal(stored.hu, original.hu)
    assert np.array_equal(stored.slice_origins_mm, original.slice_origins_mm)
    assert np.array_equal(stored.voxel_ml, original.voxel_ml)
    assert stored.slice_numbers == original.slice_numbers
    again = library.scan_files(study).read()
    assert np.array_equal(again.hu, original.hu)
    assert again.name == study


def test_one_scan_is_there_once(library: Library, tmp_path: Path) -> None:
    study = add_volume(library, tmp_path)
    path = tmp_path / "batch0" / "in" / "scan0.nii.gz"
    files = ScanFiles((path,), path)
    added = library.add(files.read(), files)
    assert (added.id, added.is_new) == (study, False)
    assert os.listdir(library.studies) == [study]


def test_dicom_has_pseudonyms_and_no_names(library: Library, shared_data: Path, tmp_path: Path) -> None:
    batch = tmp_path / "batch"
    shutil.copytree(shared_data / "head-ct-slab" / "dicom", batch / "Doe^John")
    found, failed = find_scans([batch], tmp_path / "none", pseudonyms=library.pseudonyms())
    assert not failed
    (files,) = found
    study = library.add(files.read(), files, batch=batch).id
    again, _ = find_scans([batch], tmp_path / "none", pseudonyms=library.pseudonyms())
    assert again[0].named_after.name == study
    hidden = Worklist(library.database, show_patient=False).page(Wanted(), "", 10).studies[0]
    assert (hidden.name, hidden.date, hidden.source) == ("", "", "DICOM")
    assert files.identity is not None
    shown = Worklist(library.database, show_patient=True).page(Wanted(), "", 10).studies[0]
    assert files.identity.patient_id in shown.name
    # Outlined again, its texts name nobody either, and no file that is not there.
    stored = library.scan_files(study)
    assert stored.secrets == files.identity.secrets()
    word = max(stored.secrets, key=len)
    said = stored.hide(InputError(f"{word} is damaged", "a.dcm"))
    assert (said.what, said.where, said.todo) == ("[patient] is damaged", study, None)
    shutil.rmtree(batch)
    assert np.array_equal(library.scan_files(study).read().hu, library.scan(study).hu)


def test_a_killed_import_and_a_killed_deletion_leave_nothing(library: Library, tmp_path: Path) -> None:
    kept, gone = add_volume(library, tmp_path, 1), add_volume(library, tmp_path, 2)
    (library.studies / ".new.999999999.study-00000000").mkdir()
    os.replace(library.folder(gone), library.studies / f".deleted.{gone}")
    library.sweep()
    assert os.listdir(library.studies) == [kept]
    assert [study.id for study in Worklist(library.database, False).page(Wanted(), "", 10).studies] == [kept]


def test_a_full_disk_is_said_and_leaves_nothing(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "scan.nii.gz"
    nifti.write_scan(small_scan(), path)
    files = ScanFiles((path,), path)
    scan = files.read()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises((RunError, OSError)):
            library.add(scan, files, batch=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(library.studies) == []
    assert library.add(scan, files, batch=tmp_path).is_new


def test_layers(library: Library, tmp_path: Path) -> None:
    study = add_volume(library, tmp_path)
    scan, folder = library.scan(study), library.folder(study)
    mask = a_mask(scan)
    probability = np.linspace(0, 1, mask.size, dtype=np.float32).reshape(mask.shape)
    record = write_layer(folder, "prediction:a", scan, mask, title="a", typed=True, probability=probability)
    assert record.layer.volume_ml["total"] == pytest.approx(scan.volume_ml(mask))
    assert record.layer.volume_ml["subdural"] == pytest.approx(32 * 5 / 1000)
    assert record.layer.volume_ml["subarachnoid"] == 0
    assert record.layer.slices_with_bleeding == [1, 2, 4]
    first, second = record.lesions
    assert (first.kind, first.first_slice, first.last_slice, first.ml) == ("subdural", 1, 2, 0.16)
    assert second.kind == "epidural"
    assert mask[first.centre] == CODES["subdural"]
    assert np.array_equal(read_mask(folder, "prediction:a"), mask)
    untyped = write_layer(folder, "truth", scan, (mask > 0).astype(np.uint8), title="Truth", typed=False)
    assert np.array_equal(np.unique(read_mask(folder, "truth")), [0, UNTYPED])
    assert untyped.layer.volume_ml == {"total": record.layer.volume_ml["total"]}
    assert [entry.layer.id for entry in read_layers(folder)] == ["truth", "prediction:a"]
    for wrong in ("prediction:../../etc", "version:0", "version:../1", "draft", "prediction:"):
        with pytest.raises(InputError):
            read_layer(folder, wrong)


def test_results_readings_and_growth(library: Library, tmp_path: Path) -> None:
    early, late = add_volume(library, tmp_path, 1), add_volume(library, tmp_path, 2)
    with library.database.write() as connection:
        for hours, study in ((0, early), (5, late)):
            moment = (datetime(2020, 1, 1) + timedelta(hours=hours)).isoformat()
            query = "UPDATE study SET patient = 'patient-1', moment = ? WHERE id = ?"
            connection.execute(query, (moment, study))
    worklist = Worklist(library.database, show_patient=False)
    for study, code in ((late, CODES["subdural"]), (early, 0)):
        scan = library.scan(study)
        mask = np.where(a_mask(scan) == code, a_mask(scan), 0).astype(np.uint8) if code else a_mask(scan) * 0
        write_layer(library.folder(study), "prediction:a", scan, mask, title="a", typed=True)
        library.set_result(study, [StudyDoubt(code="head", text="odd")] if code else [], StudyStage.PREDICTED)
    shown = worklist.one(late)
    assert shown is not None
    assert shown.growth_ml == pytest.approx(0.16)
    assert shown.doubts[0].code == "head"
    assert [study.id for study in worklist.page(Wanted(), "", 10).studies] == [late, early]
    library.set_reading(late, ReadingState.AGREED, "Reader", "seen")
    assert [study.id for study in worklist.page(Wanted(), "", 10).studies] == [early, late]
    revision = worklist.one(late).revision  # type: ignore[union-attr]
    library.set_reading(late, note="seen twice")
    again = worklist.one(late)
    assert again is not None
    assert (again.state, again.reader, again.revision) == (ReadingState.AGREED, "Reader", revision + 1)
    library.delete(early)
    assert worklist.one(late).growth_ml is None  # type: ignore[union-attr]
    assert worklist.one(early) is None


def many(library: Library, count: int) -> None:
    """Rows without folders, in every state."""
    states = [state.value for state in ReadingState]
    random = np.random.default_rng(0)
    with library.database.write() as connection:
        for number in range(count):
            values = (
                f"study-{number:08x}", f"patient-{number // 3:08x}", f"n{random.integers(100)}.nii", number % 2,
                f"2020-01-{1 + number % 28:02d}T00:00:00", f"2021-01-01T00:00:{number % 60:02d}", "NIfTI", "", 30, "",
                str(number), states[number % len(states)], None if number % 7 == 0 else float(number % 11),
                int(random.integers(3)),
            )  # fmt: skip
            connection.execute(
                "INSERT INTO study (id, patient, name, hidden, moment, added, source, description, slices, origin, "
                "digest, state, total_ml, doubt_count) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )


@pytest.mark.parametrize("sort", list(Sort))
@pytest.mark.parametrize("falling", [None, False, True])
@pytest.mark.parametrize("show_patient", [False, True])
def test_pages_hold_every_study_once(library: Library, sort: Sort, falling: bool | None, show_patient: bool) -> None:
    many(library, 230)
    worklist = Worklist(library.database, show_patient)
    wanted = Wanted(sort=sort, falling=falling)
    ids: list[str] = []
    cursor = ""
    while True:
        page = worklist.page(wanted, cursor, 50)
        assert page.total == 230
        ids += [study.id for study in page.studies]
        cursor = page.next
        if not cursor:
            break
    assert len(ids) == len(set(ids)) == 230
    table = list(csv.DictReader("".join(worklist.table(wanted)).splitlines()))
    assert [row["study"] for row in table] == ids


def test_filters(library: Library) -> None:
    many(library, 100)
    worklist = Worklist(library.database, show_patient=False)

    everything = library.database.rows("SELECT * FROM study")
    found = worklist.page(Wanted(bleeding=AnyOrNone.ANY), "", 200)
    assert found.total == sum((row["total_ml"] or 0) > 0 for row in everything)
    found = worklist.page(Wanted(bleeding=AnyOrNone.NONE), "", 200)
    assert found.total == sum(row["total_ml"] == 0 for row in everything)
    found = worklist.page(Wanted(doubts=AnyOrNone.NONE, state=ReadingState.WRONG), "", 200)
    assert found.total == sum(row["state"] == "wrong" and not row["doubt_count"] for row in everything)
    named = {row["id"] for row in everything if "n7.nii" in row["name"] and not row["hidden"]}
    assert {study.id for study in worklist.page(Wanted(query="N7.nii"), "", 200).studies} == named
    assert worklist.page(Wanted(query="%"), "", 200).total == 0
    for wrong in ("x", "bm9uZQ", "W10", "é"):
        with pytest.raises(InputError):
            worklist.page(Wanted(), wrong, 10)
