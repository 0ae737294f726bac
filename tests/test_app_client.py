"""The Python client against a real server: from files to a correction, a dataset and a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tiny
from app_process import Running, running
from hemotorch.app.client import AppClient, RefusedByServer
from hemotorch.app.schemas import JobKind, JobState, TrainingRequest
from hemotorch.errors import InputError, RunError
from hemotorch.io import write_mask, write_scan
from hemotorch.labels import CODES


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("client") / "app") as server:
        yield server


def test_from_files_to_a_correction_and_a_dataset(server: Running, tmp_path: Path) -> None:
    scan, mask = tiny.head(0)
    folder = tmp_path / "scans"
    folder.mkdir()
    write_scan(scan, folder / "head.nii.gz")
    write_mask(scan, mask, folder / "head_mask.nii.gz")
    (folder / "notes.nii.gz").write_bytes(b"no image")
    app = AppClient(f"{server.url}/open?token={server.token}")
    assert app.session().role == "write"
    imported = app.wait(app.add(folder))
    assert [problem.where for problem in imported.problems] == ["scans/notes.nii.gz"]
    (study,) = app.studies()
    (outlining,) = [job for job in app.jobs(study=study.id) if job.kind == JobKind.PREDICT]
    app.wait(outlining)
    assert "attempt 1" in app.log(outlining.id)
    assert np.array_equal(app.hu(study.id), scan.hu)
    assert np.array_equal(app.mask(study.id, "truth"), mask)
    assert app.probability(study.id, "prediction:default").max() > 200
    page = app.study(study.id)
    (nifti,) = [file for file in page.files if file.name.endswith("_mask.nii.gz")]
    assert app.download(nifti.url, tmp_path / "mask.nii.gz").stat().st_size == nifti.bytes
    corrected = app.mask(study.id, "prediction:default").copy()
    corrected[1, 30:34, 30:34] = CODES["subdural"]
    version = app.correct(study.id, corrected, "prediction:default", "an SDH was missed")
    assert version.number == 1 and app.versions(study.id) == [version]
    dice = app.compare(study.id, "prediction:default", "version:1").dice["total"]
    assert dice is not None and 0.9 < dice <= 1
    app.wait(app.make_dataset("mine"))
    assert [made.studies for made in app.datasets()] == [[study.id]]
    assert app.predict() == []
    assert app.use("default").current
    said = app.estimate(TrainingRequest(name="x", epochs=1))
    assert (said.studies, said.held_out) == (1, 0) and said.problems
    app.delete(study.id)
    assert list(app.studies()) == []


def test_what_the_client_says_of_errors(server: Running, tmp_path: Path) -> None:
    app = AppClient(server.url, server.token)
    with pytest.raises(InputError, match="no such file"):
        app.add(tmp_path / "none")
    with pytest.raises(RefusedByServer, match="no such study") as refused:
        app.study("study-00000000")
    assert refused.value.status == 404
    with pytest.raises(RefusedByServer) as refused:
        AppClient(server.url, "wrong" * 9).session()
    assert refused.value.status == 401
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("nothing")
    job = app.wait(app.add(tmp_path / "empty"))
    assert job.state == JobState.DONE and "no scan" in job.problems[0].what
    with pytest.raises(RunError, match="does not answer"):
        AppClient("http://127.0.0.1:9", "x").session()


def test_the_example_of_the_docs(server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    write_scan(tiny.head(5)[0], folder / "head.nii.gz")
    text = (Path(__file__).parents[1] / "docs" / "app.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(example, {"LINK": f"{server.url}/open?token={server.token}", "FOLDER": folder})
    assert "'total': " in capsys.readouterr().out
    assert (server.folder / "datasets" / "mine" / "mine.zip").is_file()
