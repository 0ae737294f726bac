"""Corrections over REST: drafts of two tabs, versions of two readers, comparisons, measurements, exports, datasets."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

import tiny
from hemotorch.app.jobs import Work, run_job
from hemotorch.app.layers import write_layer
from hemotorch.app.refusals import Stale
from hemotorch.app.schemas import JobKind, JobState
from hemotorch.app.server import create_app, open_services
from hemotorch.app.settings import AppSettings
from hemotorch.app.versions import Versions
from hemotorch.app.workspace import Workspace
from hemotorch.data.layouts import open_layout
from hemotorch.inference.scan_files import ScanFiles, find_scans
from hemotorch.io import dicom, read_mask, read_scan, write_scan
from hemotorch.io.dicom.write import write_series
from hemotorch.labels import CODES, UNTYPED

TOKEN, READ = "w" * 43, "r" * 43
Client = Callable[..., TestClient]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "app")


@pytest.fixture
def client(workspace: Workspace) -> Client:
    """Makes clients: each is a reader of this name."""
    services = open_services(
        AppSettings(workspace.folder, TOKEN, READ, user_header="x-user", trusted_proxy="testclient")
    )
    app = create_app(services)

    def of(user: str = "anna", blind: bool = False) -> TestClient:
        made = TestClient(
            app, base_url="http://localhost/api/v1", headers={"x-user": user, "origin": "http://localhost"}
        )
        assert made.patch("session", json={"blind": blind}).status_code == 200
        return made

    return of


def add_study(workspace: Workspace, folder: Path, seed: int = 0) -> tuple[str, np.ndarray]:
    """A study with a prediction; its mask."""
    scan, mask = tiny.head(seed)
    path = folder / f"head{seed}.nii.gz"
    write_scan(scan, path)
    added = workspace.library.add(read_scan(path), ScanFiles((path,), path))
    where = workspace.library.folder(added.id)
    write_layer(where, "prediction:default", workspace.library.scan(added.id), mask, title="Model", typed=True)
    workspace.library.set_result(added.id)
    return added.id, mask


def do_next_job(workspace: Workspace) -> None:
    """Does the job that waits, in this process."""
    job = workspace.queue.lease(tuple(JobKind), "test", 9)
    assert job is not None
    run_job(Work(workspace, job))
    assert workspace.queue.get(job.id).state == JobState.DONE


def put(client: TestClient, study: str, mask: np.ndarray, seen: int = 0, **more: Any) -> Any:
    return client.put(
        f"studies/{study}/draft",
        params={"base": more.pop("base", "prediction:default")},
        content=more.pop("content", mask.tobytes()),
        headers={"if-match": f'"{seen}"', **more},
    )


def test_two_tabs_do_not_overwrite_each_other(client: Client, workspace: Workspace, tmp_path: Path) -> None:
    study, mask = add_study(workspace, tmp_path)
    one, two = client(), client()
    assert one.get(f"studies/{study}/draft").json() is None
    first = put(one, study, mask)
    assert (first.status_code, first.json()["revision"], first.headers["etag"]) == (200, 1, '"1"')
    other = np.zeros_like(mask)
    stale = put(two, study, other)
    assert stale.status_code == 412 and "another tab" in stale.json()["what"]
    assert one.get(f"studies/{study}/draft/mask").content == mask.tobytes()
    second = put(two, study, other, 1, content=gzip.compress(other.tobytes()))
    assert second.json()["revision"] == 2
    got = one.get(f"studies/{study}/draft/mask")
    assert (got.content, got.headers["x-shape"]) == (other.tobytes(), "6,64,64")
    assert put(one, study, mask, 1).status_code == 412
    # Another reader has a draft of their own.
    assert client("boris").get(f"studies/{study}/draft").json() is None
    # A draft that was thrown away and begun anew is not the one that a tab has seen.
    assert one.delete(f"studies/{study}/draft").status_code == 204
    assert put(two, study, mask, 2).status_code == 412
    assert put(one, study, mask, 0).json()["revision"] == 3
    assert put(two, study, other, 1).status_code == 412
    drafts = workspace.library.folder(study) / "drafts"
    assert len(list(drafts.iterdir())) == 1


def test_tabs_that_save_at_once(workspace: Workspace, tmp_path: Path) -> None:
    study, mask = add_study(workspace, tmp_path)

    def save(value: int) -> int:
        versions = Versions(workspace.database, workspace.library)
        try:
            versions.save_draft(study, "anna", "", np.full_like(mask, value), 0)
            return value
        except Stale:  # any other error is one
            return 0
        finally:
            workspace.database.close()

    with ThreadPoolExecutor(4) as pool:
        saved = [value for value in pool.map(save, (1, 2, 3, 4)) if value]
    assert len(saved) == 1
    draft = workspace.versions.draft(study, "anna")
    assert draft is not None and draft.revision == 1
    assert (workspace.versions.draft_mask(draft, "anna") == saved[0]).all()


def test_what_is_no_mask_is_refused(client: Client, workspace: Workspace, tmp_path: Path) -> None:
    study, mask = add_study(workspace, tmp_path)
    reader = client()
    assert put(reader, study, mask[1:]).status_code == 422
    assert put(reader, study, mask, content=mask.tobytes() + bytes(5000)).status_code == 413
    bomb = gzip.compress(bytes(50_000_000), 9)
    assert put(reader, study, mask, content=bomb[: mask.size]).status_code in (413, 422)
    assert put(reader, study, mask, content=gzip.compress(mask.tobytes())[:-20]).status_code == 422
    assert put(reader, study, mask, content=b"\x1f\x8bnothing").status_code == 422
    assert put(reader, study, np.full_like(mask, 7)).status_code == 422
    assert put(reader, study, mask, base="version:3").status_code == 404
    assert put(reader, study, mask, base="../x").status_code == 404
    assert put(reader, study, mask, **{"if-match": "*"}).status_code == 422
    assert put(reader, "study-00000000", mask).status_code == 404
    assert reader.get(f"studies/{study}/draft").json() is None


def test_versions_are_never_overwritten(client: Client, workspace: Workspace, tmp_path: Path) -> None:
    study, mask = add_study(workspace, tmp_path)
    anna, boris = client("anna"), client("boris")
    assert anna.post(f"studies/{study}/versions", json={"after": 0}).status_code == 404
    corrected = mask.copy()
    corrected[2, 10:20, 30:40] = CODES["subdural"]
    corrected[0, 30:33, 30:33] = UNTYPED
    put(anna, study, corrected)
    put(boris, study, mask)
    saved = anna.post(f"studies/{study}/versions", json={"after": 0, "comment": "missed the SDH"})
    assert saved.status_code == 201
    version = saved.json()
    assert (version["number"], version["user"], version["comment"]) == (1, "anna", "missed the SDH")
    scan = workspace.library.scan(study)
    assert version["volume_ml"]["subdural"] == pytest.approx(scan.volume_ml(corrected == CODES["subdural"]), abs=0.001)
    assert version["volume_ml"]["total"] == pytest.approx(scan.volume_ml(corrected), abs=0.001)
    assert version["changed_ml"] == pytest.approx(scan.volume_ml(corrected != mask), abs=0.001)
    assert anna.get(f"studies/{study}/draft").json() is None
    newest = boris.post(f"studies/{study}/versions", json={"after": 0})
    assert newest.status_code == 409 and newest.json() == version
    assert boris.get(f"studies/{study}/draft").json() is not None  # nothing of it is lost
    assert boris.post(f"studies/{study}/versions", json={"after": 2}).status_code == 422
    assert boris.post(f"studies/{study}/versions", json={"after": 1}).json()["number"] == 2
    assert anna.get(f"studies/{study}/mask/version:1").content == corrected.tobytes()
    assert anna.get(f"studies/{study}/mask/version:2").content == mask.tobytes()
    page = anna.get(f"studies/{study}").json()
    assert (page["state"], page["reader"], page["versions"]) == ("corrected", "boris", 2)
    assert [entry["number"] for entry in anna.get(f"studies/{study}/versions").json()] == [1, 2]
    actions = [line["detail"] for line in anna.get("audit").json()["lines"] if line["action"] == "corrected"]
    assert sorted(actions) == ["version 1", "version 2"]


def test_readers_who_save_at_once_get_versions_one_after_the_other(workspace: Workspace, tmp_path: Path) -> None:
    study, mask = add_study(workspace, tmp_path)
    readers = [f"reader {number}" for number in range(4)]
    for number, reader in enumerate(readers, start=1):
        workspace.versions.save_draft(study, reader, "", np.full_like(mask, number), 0)

    def save(reader: str) -> int:
        try:
            # Blind readers do not see each other's: each saves after none.
            return workspace.versions.save_version(study, reader, 0, "", blind=True).number
        finally:
            workspace.database.close()

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(save, readers))
    assert sorted(numbers) == [1, 2, 3, 4]
    for reader, number in zip(readers, numbers, strict=True):
        assert workspace.versions.version(study, number).user == reader
        value = readers.index(reader) + 1
        path = workspace.library.folder(study) / "versions" / str(number) / "mask.npy"
        assert (np.load(path) == value).all()


def test_a_second_reader_does_not_see_the_first(client: Client, workspace: Workspace, tmp_path: Path) -> None:
    study, mask = add_study(workspace, tmp_path)
    put(client("anna"), study, mask)
    assert client("anna").post(f"studies/{study}/versions", json={"after": 0}).status_code == 201
    blind = client("boris", blind=True)
    assert blind.get(f"studies/{study}/versions").json() == []
    assert blind.get(f"studies/{study}").json()["hidden_layers"] == 1
    for path in ("mask/version:1", "compare?a=version:1&b=prediction:default"):
        assert blind.get(f"studies/{study}/{path}").status_code == 404
    name = f"{study}_version1.json"
    assert blind.get(f"studies/{study}/versions/1/files/{name}").status_code == 404
    assert put(blind, study, mask, base="version:1").status_code == 404
    put(blind, study, np.zeros_like(mask))
    assert blind.post(f"studies/{study}/versions", json={"after": 0}).json()["number"] == 2
    assert len(blind.get(f"studies/{study}/versions").json()) == 2


def test_layers_are_compared_as_numpy_does(client: Client, workspace: Workspace, tmp_path: Path) -> None:
    study, mask = add_study(workspace, tmp_path)
    other = mask.copy()
    other[mask > 0] = CODES["subdural"]
    other[:, :, :31] = 0
    other[0, 40:44, 40:44] = CODES["intraparenchymal"]
    reader = client()
    put(reader, study, other)
    reader.post(f"studies/{study}/versions", json={"after": 0})
    got = reader.get(f"studies/{study}/compare", params={"a": "prediction:default", "b": "version:1"}).json()
    scan = workspace.library.scan(study)
    a, b = mask > 0, other > 0
    assert got["dice"]["total"] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()), abs=1e-4)
    for name in ("intraparenchymal", "subdural"):
        x, y = mask == CODES[name], other == CODES[name]
        assert got["dice"][name] == pytest.approx(2 * (x & y).sum() / (x.sum() + y.sum()), abs=1e-4)
    assert set(got["dice"]) == {"total", "intraparenchymal", "subdural"}
    assert got["only_a_ml"] == pytest.approx(scan.volume_ml(a & ~b), abs=1e-3)
    assert got["only_b_ml"] == pytest.approx(scan.volume_ml(b & ~a), abs=1e-3)
    assert reader.get(f"studies/{study}/compare", params={"a": "truth", "b": "version:1"}).status_code == 404


def test_measurements_of_two_tabs(client: Client, workspace: Workspace, tmp_path: Path) -> None:
    study, _ = add_study(workspace, tmp_path)
    reader = client()
    assert reader.get(f"studies/{study}/measurements").json() == {"items": [], "revision": 0}
    ruler = {"kind": "ruler", "plane": "axial", "index": 2, "points": [[1.5, 2], [30, 40]], "text": "12 mm"}
    saved = reader.put(f"studies/{study}/measurements", json={"items": [ruler], "revision": 0})
    assert saved.json()["revision"] == 1
    assert reader.put(f"studies/{study}/measurements", json={"items": [], "revision": 0}).status_code == 412
    assert reader.get(f"studies/{study}/measurements").json()["items"][0]["points"] == [[1.5, 2.0], [30.0, 40.0]]
    angle = {**ruler, "kind": "angle"}
    assert reader.put(f"studies/{study}/measurements", json={"items": [angle], "revision": 1}).status_code == 422
    assert client("boris").get(f"studies/{study}/measurements").json()["items"] == []


def test_a_version_is_exported_as_nifti_and_numbers(client: Client, workspace: Workspace, tmp_path: Path) -> None:
    study, mask = add_study(workspace, tmp_path)
    reader = client()
    put(reader, study, mask)
    reader.post(f"studies/{study}/versions", json={"after": 0})
    url = f"studies/{study}/versions/1/files/{study}_version1"
    listed = [file for file in reader.get(f"studies/{study}").json()["files"] if "version1" in file["name"]]
    assert [(file["name"], file["bytes"]) for file in listed] == [
        (f"{study}_version1_mask.nii.gz", 0),
        (f"{study}_version1.json", 0),
    ]
    first = reader.get(f"{url}_mask.nii.gz")
    assert first.status_code == 202 and first.json()["kind"] == "export-version"
    assert reader.get(f"{url}.json").json()["id"] == first.json()["id"]
    do_next_job(workspace)
    (tmp_path / "mask.nii.gz").write_bytes(reader.get(f"{url}_mask.nii.gz").content)
    assert np.array_equal(read_mask(tmp_path / "mask.nii.gz", workspace.library.scan(study)), mask)
    numbers = reader.get(f"{url}.json").json()
    assert numbers["version"]["number"] == 1 and numbers["notice"].startswith("Research use only")
    assert numbers["lesions"][0]["kind"] == "intraparenchymal"
    no_seg = reader.get(f"{url}_seg.dcm")
    assert no_seg.status_code == 404 and "this scan was none" in no_seg.json()["what"]
    for wrong in (f"{url}.exe", f"studies/{study}/versions/1/files/mask.npy", f"{url.replace('/1/', '/2/')}.json"):
        assert reader.get(wrong).status_code == 404


def test_a_version_of_a_dicom_study_is_exported_as_seg(client: Client, workspace: Workspace, tmp_path: Path) -> None:
    import highdicom
    import pydicom

    scan, mask = tiny.head(0)
    write_series(scan, tmp_path / "ct")
    (found,), _ = find_scans([tmp_path / "ct"], workspace.library.studies, pseudonyms=workspace.library.pseudonyms())
    study = workspace.library.add(found.read(), found).id
    mask[1, 5:9, 5:9] = UNTYPED
    reader = client()
    put(reader, study, mask, base="")
    reader.post(f"studies/{study}/versions", json={"after": 0})
    url = f"studies/{study}/versions/1/files/{study}_version1_seg.dcm"
    assert reader.get(url).status_code == 202
    do_next_job(workspace)
    seg = highdicom.seg.segread(io.BytesIO(reader.get(url).content))
    kinds = {item.SegmentLabel: item.SegmentAlgorithmType for item in seg.SegmentSequence}
    assert kinds == {"Intraparenchymal hemorrhage": "SEMIAUTOMATIC", "Hemorrhage": "SEMIAUTOMATIC"}
    assert "by a reader" in seg.SeriesDescription
    (tmp_path / "seg.dcm").write_bytes(reader.get(url).content)
    assert pydicom.dcmread(tmp_path / "seg.dcm").pixel_array.sum() == (mask > 0).sum()
    assert workspace.library.scan(study).source.format == dicom.NAME  # type: ignore[union-attr]


def test_corrected_studies_become_a_dataset(client: Client, workspace: Workspace, tmp_path: Path) -> None:
    reader = client()
    assert reader.post("datasets", json={"name": "mine"}).status_code == 404
    masks = {}
    for seed in range(3):
        study, mask = add_study(workspace, tmp_path, seed)
        masks[study] = mask
    first, second, third = masks
    masks[first] = np.roll(masks[first], 3, axis=2)
    put(reader, first, masks[first])
    reader.post(f"studies/{first}/versions", json={"after": 0})
    reader.patch(f"studies/{second}", json={"state": "agreed"})
    assert reader.post("datasets", json={"name": "mine", "studies": [third]}).status_code == 404
    assert reader.post("datasets", json={"name": "../mine"}).status_code == 422
    assert reader.post("datasets", json={"name": "mine"}).json()["kind"] == "dataset"
    do_next_job(workspace)
    (made,) = reader.get("datasets").json()
    assert sorted(made["studies"]) == sorted([first, second]) and made["patients"] == 2
    with zipfile.ZipFile(io.BytesIO(reader.get("datasets/mine.zip").content)) as archive:
        archive.extractall(tmp_path / "out")
    collection = open_layout(tmp_path / "out" / "mine")
    assert {case.name for case in collection.cases} == {first, second}
    for case in collection.cases:
        _, mask = case.read()
        assert np.array_equal(mask, masks[case.name])
    assert json.loads((tmp_path / "out" / "mine" / "labels.json").read_text())["1"] == "epidural"
    assert reader.get("datasets/other.zip").status_code == 404


def test_a_server_that_was_killed_while_it_saved(client: Client, workspace: Workspace, tmp_path: Path) -> None:
    study, mask = add_study(workspace, tmp_path)
    put(client(), study, mask)
    client().post(f"studies/{study}/versions", json={"after": 0})
    folder = workspace.library.folder(study)
    # Killed between the folder of version 2 and its row; and while the row of version 1 was not in the worklist yet.
    shutil.copytree(folder / "versions" / "1", folder / "versions" / "2")
    (folder / ".version-0123").mkdir()
    with workspace.database.write() as connection:
        connection.execute("UPDATE study SET versions = 0, state = 'unread', total_ml = NULL")
    unfinished = workspace.library.studies / f".new.{os.getppid()}.study-1"
    of_the_dead = workspace.library.studies / ".new.999999999.study-2"
    for path in (unfinished, of_the_dead):
        path.mkdir()
    open_services(AppSettings(workspace.folder, TOKEN, READ))
    page = client().get(f"studies/{study}").json()
    assert (page["versions"], page["state"]) == (1, "corrected")
    assert page["volume_ml"]["total"] == pytest.approx(workspace.library.scan(study).volume_ml(mask), abs=0.001)
    assert [layer["id"] for layer in page["layers"]] == ["prediction:default", "version:1"]
    assert not (folder / ".version-0123").exists()
    assert unfinished.exists() and not of_the_dead.exists()  # a worker outlives its server


def test_deleting_a_study_takes_its_corrections_along(client: Client, workspace: Workspace, tmp_path: Path) -> None:
    study, mask = add_study(workspace, tmp_path)
    reader = client()
    put(reader, study, mask)
    reader.post(f"studies/{study}/versions", json={"after": 0})
    put(reader, study, mask)
    reader.put(f"studies/{study}/measurements", json={"items": [], "revision": 0})
    assert reader.delete(f"studies/{study}").status_code == 204
    for table in ("draft", "version", "measurement"):
        assert workspace.database.rows(f"SELECT * FROM {table}") == []
    assert not workspace.library.folder(study).exists()


def test_predictions_are_asked_for_once(client: Client, workspace: Workspace, tmp_path: Path) -> None:
    outlined, _ = add_study(workspace, tmp_path, 0)
    reader = client()
    assert reader.post("predictions", json={}).json() == []
    (job,) = reader.post("predictions", json={"studies": [outlined, outlined]}).json()
    assert (job["study"], job["state"]) == (outlined, "waiting")
    assert reader.post("predictions", json={"studies": [outlined]}).json() == []
    assert reader.get(f"studies/{outlined}").json()["stage"] == "waiting"
    assert reader.post(f"jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert reader.get(f"studies/{outlined}").json()["stage"] == "imported"
    assert reader.post(f"jobs/{job['id']}/retry").json()["state"] == "waiting"
    assert reader.get("jobs", params={"study": outlined}).json()["jobs"][0]["id"] == job["id"]
    assert reader.get(f"jobs/{job['id']}/log").text == ""
    assert reader.get("jobs/job-000000000000").status_code == 404
    assert reader.post("predictions", json={"studies": ["study-00000000"]}).status_code == 404
    assert reader.post("predictions", json={"model": "none"}).status_code == 404


def test_models_and_recipes(client: Client) -> None:
    reader = client()
    (model,) = reader.get("models").json()
    assert (model["name"], model["current"], model["origin"]) == ("default", True, "in the box")
    assert reader.get("models/default").json()["card"]["limits"]
    assert reader.post("models/default/use").json()["current"] is True
    for path in ("models/none", "models/.."):
        assert reader.get(path).status_code == 404
    assert reader.post("models/none/use").status_code == 404
    assert "[train]" in reader.get("recipes").json()["fast"]
    keys = {key["key"]: key for key in reader.get("recipes/keys").json()}
    assert keys["train.epochs"]["minimum"] == 1 and keys["train.epochs"]["help"]
    assert "bleeding" in keys["data.task"]["choices"]
