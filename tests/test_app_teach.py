"""Teaching: who is held out, what is said of few patients, and a real training that is stopped and resumed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

import tiny
from app_server import wait_for, wait_until
from hemotorch.app.jobs.teach_model import paired_score
from hemotorch.app.layers import write_layer
from hemotorch.app.schemas import JobState, TrainingRequest
from hemotorch.app.server import create_app, open_services
from hemotorch.app.settings import AppSettings
from hemotorch.app.supervisor import Supervisor
from hemotorch.app.teach import RECORD, TrainingRecord, plan_training, training_folder
from hemotorch.app.workspace import Workspace
from hemotorch.evaluation.intervals import mean_interval
from hemotorch.inference.checkpoint import load_checkpoint
from hemotorch.inference.load import load_model
from hemotorch.inference.onnx_export import export_onnx
from hemotorch.inference.scan_files import ScanFiles
from hemotorch.io import read_scan, write_scan
from hemotorch.system.files import write_text

TOKEN = "w" * 43


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "app")


@pytest.fixture
def client(workspace: Workspace) -> TestClient:
    services = open_services(AppSettings(workspace.folder, TOKEN, "r" * 43))
    headers = {"authorization": f"Bearer {TOKEN}"}
    return TestClient(create_app(services), base_url="http://localhost/api/v1", headers=headers)


@pytest.fixture(scope="module")
def base_file(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(tiny_run, tmp_path_factory.mktemp("base") / "tiny.onnx").path


def corrected(workspace: Workspace, folder: Path, seeds: range, bleeding: Callable[[int], bool] = bool) -> list[str]:
    """Studies that a reader has corrected, or agreed with if nothing bleeds."""
    folder.mkdir(exist_ok=True)
    made = []
    for seed in seeds:
        scan, mask = tiny.head(1000 + seed, bleeding(seed))
        path = folder / f"head{seed}.nii.gz"
        write_scan(scan, path)
        added = workspace.library.add(read_scan(path), ScanFiles((path,), path)).id
        write_layer(
            workspace.library.folder(added),
            "prediction:tiny",
            workspace.library.scan(added),
            np.zeros_like(mask),
            title="tiny",
            typed=False,
        )
        workspace.versions.save_draft(added, "anna", "prediction:tiny", mask, 0)
        workspace.versions.save_version(added, "anna", 0, "")
        made.append(added)
    return made


def test_no_patient_is_on_both_sides(workspace: Workspace, tmp_path: Path) -> None:
    studies = corrected(workspace, tmp_path / "scans", range(1, 9))
    with workspace.database.write() as connection:  # four patients of two studies each
        for number, study in enumerate(studies):
            connection.execute("UPDATE study SET patient = ? WHERE id = ?", (f"patient-{number // 2}", study))
    plan = plan_training(workspace, TrainingRequest(name="a"))
    assert plan.base == "default" and plan.patients == 4 and plan.held_out_patients == 1
    taught, held = ({study.patient for study in side} for side in (plan.taught, plan.held_out))
    assert len(plan.held_out) == 2 and not taught & held
    assert plan_training(workspace, TrainingRequest(name="b")).held_out == plan.held_out
    one = plan_training(workspace, TrainingRequest(name="c", studies=studies[:1]))
    assert one.held_out == [] and len(one.taught) == 1


def test_whoever_the_old_model_was_taught_with_is_not_held_out(workspace: Workspace, tmp_path: Path) -> None:
    studies = corrected(workspace, tmp_path / "scans", range(1, 5))
    first = plan_training(workspace, TrainingRequest(name="first"))
    (held,) = first.held_out
    # A model that was taught with all but one other study.
    other = next(study for study in studies if study != held.id)
    groups = [study for study in studies if study != other]
    record = TrainingRecord(
        name="first", base="default", studies=groups, held_out=[other], groups=groups, epochs=1, steps=1, painted=False,
        recipe="", created="", user="",
    )  # fmt: skip
    write_text(training_folder(workspace, "first") / RECORD, record.model_dump_json())
    (tmp_path / "first.onnx").write_bytes(b"only its name and its origin are looked at")
    workspace.models.add("first", tmp_path / "first.onnx", "first", "taught: first")
    again = plan_training(workspace, TrainingRequest(name="second", base="first"))
    assert [study.id for study in again.held_out] == [other]


def test_paired_scores() -> None:
    rng = np.random.default_rng(0)
    old, change = rng.random(12), rng.normal(0.1, 0.05, 12)
    patients = [f"p{number // 2}" for number in range(12)]
    pairs = [(a, a + d) for a, d in zip(old, change, strict=True)]
    score = paired_score("Dice", [*pairs, (math.nan, 0.5)], [*patients, "p9"])
    assert (score.scans, score.patients) == (12, 6)
    assert score.difference == pytest.approx(change.mean(), abs=1e-4)
    assert score.ci95 == pytest.approx(mean_interval(change, patients), abs=1e-4)
    assert score.ci95 is not None and score.ci95[0] > 0
    alone = paired_score("Dice", pairs[:2], patients[:2])
    assert alone.ci95 is None and alone.patients == 1
    assert paired_score("Dice", [], []).old is None


def test_what_cannot_be_begun(client: TestClient, workspace: Workspace, tmp_path: Path) -> None:
    assert client.post("trainings", json={"name": "a"}).status_code == 404
    corrected(workspace, tmp_path / "scans", range(1, 3))
    assert client.post("trainings", json={"name": "default"}).status_code == 409
    assert client.post("trainings", json={"name": "a/b"}).status_code == 422
    assert client.post("trainings", json={"name": "a", "base": "none"}).status_code == 404
    wrong = client.post("trainings", json={"name": "a", "recipe": "[train]\nepoch = 3"})
    assert wrong.status_code == 422 and "epochs" in wrong.json()["todo"]
    begun = client.post("trainings", json={"name": "a", "epochs": 2})
    assert begun.status_code == 202 and begun.json()["state"] == "waiting"
    assert client.post("trainings", json={"name": "a"}).status_code == 409
    assert client.post("trainings/a/stop").json()["state"] == "cancelled"
    assert client.post("trainings/a/resume").json()["state"] == "waiting"
    assert client.get("trainings/b").status_code == 404
    assert [entry["name"] for entry in client.get("trainings").json()] == ["a"]
    assert client.get("trainings/a/slices/0.png").status_code == 404


EPOCHS = 24  #: of a network so small that two are over before anybody can stop it


@pytest.mark.long
def test_three_corrections_stopped_resumed_compared_and_used(
    client: TestClient, workspace: Workspace, tmp_path: Path, base_file: Path
) -> None:
    workspace.models.add("tiny", base_file, "tiny", "a test's")
    workspace.models.use("tiny")
    corrected(workspace, tmp_path / "scans", range(1, 4))
    said = client.post("trainings/estimate", json={"name": "mine", "epochs": EPOCHS}).json()
    assert (said["studies"], said["held_out"], said["epochs"]) == (2, 1, EPOCHS)
    assert said["minutes"] > 0 and said["device"], said
    assert any("only 1 patient is held out" in text for text in said["problems"])
    supervisor = Supervisor(workspace)
    supervisor.start()
    try:
        begun = client.post("trainings", json={"name": "mine", "epochs": EPOCHS}).json()
        wait_until(lambda: workspace.queue.get(begun["job"]).label == "training", 400)
        assert client.post("trainings/mine/stop").status_code == 200
        assert wait_for(workspace, begun["job"]).state == JobState.CANCELLED
        run = training_folder(workspace, "mine") / "run"
        stopped_at = load_checkpoint(run / "last.pt")
        log = workspace.log_file(begun["job"]).read_text()
        assert "cancelled" in log and "did not stop" not in log
        assert client.post("trainings/mine/resume").json()["state"] in ("waiting", "running")
        ended = wait_for(workspace, begun["job"], 1200)
        assert ended.state == JobState.DONE, ended
    finally:
        supervisor.stop()
    after = load_checkpoint(run / "last.pt")
    assert (after.epoch, after.step) == (EPOCHS, 0) and (stopped_at.epoch, stopped_at.step) < (EPOCHS, 0)
    shown = client.get("trainings/mine").json()
    assert [point["epoch"] for point in shown["points"]] == list(range(1, EPOCHS + 1))
    assert all(point["dice"] is not None for point in shown["points"])
    assert [picture["epoch"] for picture in shown["slices"]] == list(range(EPOCHS + 1))
    picture = client.get(shown["slices"][2]["url"].removeprefix("/api/v1/"))
    assert picture.headers["content-type"] == "image/png" and picture.content[:4] == b"\x89PNG"
    assert shown["held_out"] == [shown["slices"][0]["study"]]
    dice = shown["comparison"][0]
    assert dice["patients"] == 1 and dice["ci95"] is None and dice["old"] > 0.3 and dice["new"] > 0.3
    assert "only 1 patient is held out" in shown["note"]
    # It is used only if a person says so; the old one stays.
    models = {model["name"]: model for model in client.get("models").json()}
    assert models["tiny"]["current"] and not models["mine"]["current"]
    assert models["mine"]["origin"] == "taught: mine"
    assert client.post("models/mine/use").json()["current"] is True
    assert client.get("models/tiny").json()["current"] is False
    scan, mask = tiny.head(7)
    new = load_model(workspace.models.file("mine")).predict(scan)
    assert new.volume_ml["total"] == pytest.approx(scan.volume_ml(mask), rel=0.5)
    # The weights began as the old ones and have moved.
    old = load_checkpoint(run / "best.pt").weights
    assert any((stopped_at.weights[name] != old[name]).any() for name in old)
