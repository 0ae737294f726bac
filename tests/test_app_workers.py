"""The app's workers, as processes that are really killed: what they do is done once, or said to have failed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import tiny
from app_server import add_import, wait_for, wait_until
from hemotorch.app.layers import read_layers, read_mask
from hemotorch.app.schemas import JobKind, JobState
from hemotorch.app.supervisor import Supervisor
from hemotorch.app.workspace import Workspace
from hemotorch.io import write_mask, write_scan
from hemotorch.scan import even_scan


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "app")


@pytest.fixture
def supervisor(workspace: Workspace) -> Iterator[Supervisor]:
    running = Supervisor(workspace)
    running.start()
    yield running
    running.stop()


def heads(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"head{number}.nii.gz" for number in range(count)]
    for number, path in enumerate(paths):
        write_scan(tiny.head(number)[0], path)
    return paths


def large_heads(folder: Path, count: int, first: int = 0) -> list[Path]:
    """Scans that take a while to import, on a fast machine too, so that there is time to end what imports them."""
    folder.mkdir()
    paths = [folder / f"head{number}.nii" for number in range(count)]
    scan, _ = tiny.head(0, slices=24)
    hu = scan.hu.repeat(5, 1).repeat(5, 2)
    for number, path in enumerate(paths):
        hu[0, 0, 0] = first + number - 1000  # no two are the same file
        write_scan(even_scan(hu, 0.6, 5.0), path)
    return paths


def studies(workspace: Workspace) -> list[str]:
    return [row["id"] for row in workspace.database.rows("SELECT id FROM study ORDER BY added")]


def test_a_folder_is_imported_and_outlined(workspace: Workspace, supervisor: Supervisor, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    heads(folder, 1)
    scan, mask = tiny.head(0)
    write_mask(scan, mask, folder / "head0_mask.nii.gz")
    (folder / "broken.nii.gz").write_bytes(b"no image")
    job = wait_for(workspace, add_import(workspace, folder, predict=True).id)
    assert job.state == JobState.DONE, job
    assert [problem.where for problem in job.problems] == [str(folder / "broken.nii.gz")]
    (study,) = studies(workspace)
    prediction = workspace.queue.page(study=study).jobs[0]
    assert prediction.kind == JobKind.PREDICT
    prediction = wait_for(workspace, prediction.id)
    assert prediction.state == JobState.DONE, prediction
    truth, outlined = read_layers(workspace.library.folder(study))
    assert (truth.layer.id, outlined.layer.id) == ("truth", "prediction:default")
    assert np.array_equal(read_mask(workspace.library.folder(study), "truth"), mask)
    assert outlined.total_ml == pytest.approx(scan.volume_ml(mask), rel=0.3)
    row = workspace.database.row("SELECT * FROM study")
    assert row is not None and row["stage"] == "predicted" and row["total_ml"] == outlined.total_ml
    files = {path.name for path in (workspace.library.folder(study) / "predictions" / "default").iterdir()}
    assert {f"{study}_mask.nii.gz", f"{study}.html", f"{study}.json", "probability.npy"} <= files
    assert "attempt 1" in workspace.log_file(prediction.id).read_text()
    # The same folder again: nothing is there twice, and nothing is outlined twice.
    assert wait_for(workspace, add_import(workspace, folder, predict=True).id).state == JobState.DONE
    assert studies(workspace) == [study]
    assert len([job for job in workspace.queue.page().jobs if job.kind == JobKind.PREDICT]) == 1


def test_png_slices_with_labels_are_imported(workspace: Workspace, supervisor: Supervisor, tmp_path: Path) -> None:
    from hemotorch.data.layouts import png
    from hemotorch.scan import CaseInfo

    scan, mask = tiny.head(3)
    info = CaseInfo("7", "7")
    png.write_case(tmp_path / "upload" / "png", "7", scan, mask, info)
    png.write_tables(tmp_path / "upload" / "png", [info])
    job = wait_for(workspace, add_import(workspace, tmp_path / "upload").id)
    assert job.state == JobState.DONE and job.problems == [], job
    (study,) = studies(workspace)
    assert workspace.library.scan(study).shape == scan.shape
    assert np.array_equal(read_mask(workspace.library.folder(study), "truth") > 0, mask > 0)


def test_a_study_that_is_no_head_says_so(workspace: Workspace, supervisor: Supervisor, tmp_path: Path) -> None:
    air = np.random.default_rng(0).normal(-900, 20, (6, 64, 64)).astype(np.int16)
    write_scan(even_scan(air, 3.0, 5.0), tmp_path / "air.nii.gz")
    wait_for(workspace, add_import(workspace, tmp_path / "air.nii.gz", predict=True).id)
    (study,) = studies(workspace)
    failed = wait_for(workspace, workspace.queue.page(study=study).jobs[0].id)
    assert failed.state == JobState.FAILED and failed.problem is not None
    row = workspace.database.row("SELECT stage, problem FROM study")
    assert row is not None and row["stage"] == "failed" and failed.problem.what in row["problem"]


def test_a_running_job_is_cancelled_and_retried(workspace: Workspace, supervisor: Supervisor, tmp_path: Path) -> None:
    earlier = 0
    for count in (
        60,
        120,
        300,
    ):  # a worker looks every two seconds whether its job is cancelled, and may be done by then
        job = add_import(workspace, *large_heads(tmp_path / f"scans{count}", count, earlier))
        wait_until(lambda job=job: workspace.queue.get(job.id).done > 0)
        workspace.queue.cancel(job.id)
        if wait_for(workspace, job.id).state == JobState.CANCELLED:
            break
        earlier = len(studies(workspace))
    assert workspace.queue.get(job.id).state == JobState.CANCELLED
    assert earlier < len(studies(workspace)) < earlier + count
    workspace.queue.retry(job.id)
    done = wait_for(workspace, job.id)
    assert done.state == JobState.DONE and done.attempts == 2
    assert len(studies(workspace)) == earlier + count


def test_a_worker_that_is_killed_takes_nothing_with_it(
    workspace: Workspace, supervisor: Supervisor, tmp_path: Path
) -> None:
    job = add_import(workspace, *large_heads(tmp_path / "scans", 60))
    wait_until(lambda: workspace.queue.get(job.id).done > 0)
    os.kill(_worker_of(workspace, job.id), signal.SIGKILL)
    done = wait_for(workspace, job.id)
    assert done.state == JobState.DONE and done.attempts == 2
    assert len(studies(workspace)) == 60


def _worker_of(workspace: Workspace, job: str) -> int:
    """The process that does a job, as its log says."""
    lines = [line for line in workspace.log_file(job).read_text().splitlines() if "process" in line]
    if not lines:
        raise ValueError("it has only just begun")
    return int(lines[-1].rpartition(" ")[2])


def start_server(folder: Path) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("app_server.py")
    process = subprocess.Popen([sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline()
    return process


def test_a_server_that_ends_puts_its_jobs_back(workspace: Workspace, tmp_path: Path) -> None:
    job = add_import(workspace, *large_heads(tmp_path / "scans", 60))
    server = start_server(workspace.folder)
    wait_until(lambda: workspace.queue.get(job.id).done > 0)
    server.terminate()
    assert server.wait(90) == 0
    assert workspace.queue.get(job.id).state == JobState.WAITING
    server = start_server(workspace.folder)
    assert wait_for(workspace, job.id).state == JobState.DONE
    server.terminate()
    server.wait(90)
    assert len(studies(workspace)) == 60


@pytest.mark.long
def test_twenty_kills_of_workers_and_servers_lose_nothing_and_double_nothing(
    workspace: Workspace, tmp_path: Path
) -> None:
    seed = 11
    chance = random.Random(seed)
    paths = heads(tmp_path / "scans", 8)
    for path in paths:
        add_import(workspace, path, predict=True)
    server = start_server(workspace.folder)
    kills = 0

    def in_state(state: JobState) -> list[str]:
        return [row["id"] for row in workspace.database.rows("SELECT id FROM job WHERE state = ?", (state,))]

    while kills < 20:
        if not in_state(JobState.WAITING):
            paths.append(tmp_path / f"more{len(paths)}.nii.gz")
            write_scan(tiny.head(100 + len(paths))[0], paths[-1])
            add_import(workspace, paths[-1], predict=True)
        wait_until(lambda: in_state(JobState.RUNNING))
        time.sleep(chance.uniform(0, 1.5))
        running = in_state(JobState.RUNNING)
        if not running:
            continue
        if chance.random() < 0.3:
            server.kill()
            server.wait()
            server = start_server(workspace.folder)
        else:
            with suppress(ProcessLookupError, ValueError, FileNotFoundError):
                os.kill(_worker_of(workspace, chance.choice(running)), signal.SIGKILL)
        kills += 1
    wait_until(lambda: not in_state(JobState.WAITING) and not in_state(JobState.RUNNING))
    server.terminate()
    server.wait(90)
    ended = workspace.queue.page(limit=500).jobs
    print([(job.kind, job.state, job.attempts) for job in ended])
    assert any(job.attempts > 1 for job in ended)  # some were hit in the middle
    for job in ended:
        reason = job.problem is not None and "was lost 3 times" in job.problem.what
        assert job.state == JobState.DONE or (job.state == JobState.FAILED and reason), job
    failed = [job for job in ended if job.kind == JobKind.IMPORT and job.state == JobState.FAILED]
    names = [row["name"] for row in workspace.database.rows("SELECT name FROM study")]
    assert len(names) == len(set(names)) and len(names) >= len(paths) - len(failed)
    # Each import that is done asked for its prediction, once.
    predictions = [job.study for job in ended if job.kind == JobKind.PREDICT]
    assert len(predictions) == len(set(predictions)) == len(paths) - len(failed)
    for job in ended:
        if job.kind == JobKind.PREDICT and job.state == JobState.DONE:
            folder = workspace.library.folder(job.study)
            assert [record.layer.id for record in read_layers(folder)] == ["prediction:default"]
            assert read_mask(folder, "prediction:default").shape == workspace.library.scan(job.study).shape
            assert not list(folder.glob(".job-*"))
