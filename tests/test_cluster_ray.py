"""Ray: a killed worker is started again; an archive loses no scan and does none twice, whatever is killed."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from conftest import require
from hemotorch import errors, io
from hemotorch.cli import main
from hemotorch.cluster import archive, ray
from hemotorch.cluster.archive import LOADS, TRIES, Worker, as_entry, as_row, open_archive, rows_of
from hemotorch.errors import InputError, OptionError, RunError
from hemotorch.io.dicom.header import read_headers
from hemotorch.io.dicom.write import write_series
from hemotorch.report.study_list import StudyList
from hemotorch.run import Run
from hemotorch.scan import even_scan
from hemotorch.system.events import listening
from processes import epochs, until
from slurmd import free_ports

require("ray")


def started(*command: object) -> subprocess.Popen[str]:
    """`hemotorch cluster ...`"""
    words = [sys.executable, "-m", "hemotorch.cli", "cluster", *map(str, command)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def descendants(ancestor: int) -> dict[int, str]:
    """Process numbers and names of all that a process has started, and they."""
    parents, names = {}, {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        except (OSError, IndexError):
            continue
    found, new = {}, [ancestor]
    while new:
        new = [number for number, parent in parents.items() if parent in new]
        found.update({number: names.get(number, "") for number in new})
    return found


def workers(ancestor: int, name: str) -> list[int]:
    return [number for number, command in sorted(descendants(ancestor).items()) if command.startswith(f"ray::{name}")]


@pytest.mark.long
def test_a_killed_worker_is_started_again_and_the_run_goes_on(tiny_prepared, tmp_path):
    run, recipe = tmp_path / "run", tmp_path / "tiny.toml"
    recipe.write_text(tiny.recipe("train.epochs=4", "train.steps_per_epoch=30").to_toml())
    driver = started("ray", tiny_prepared, run, "--recipe", recipe, "--device", "cpu", "--ranks", 2)
    until(lambda: epochs(run) and (run / "last.pt").exists(), driver)
    first, at_work = Run(run).metrics[0], workers(driver.pid, "RayTrainWorker")
    assert len(at_work) == 2
    os.kill(at_work[1], signal.SIGKILL)
    out, error = driver.communicate(timeout=180)
    assert driver.returncode == 0, error
    assert re.search(r"^rank \d: was killed; Ray starts the ranks again \(1 of 2\)$", out, re.M), out
    assert re.findall(r"^epoch +(\d)", out, re.M) == ["1", "2", "3", "4"]
    assert epochs(run) == [1, 2, 3, 4] and Run(run).record.ranks == 2
    # An epoch is done again if the worker was killed between its row and its checkpoint: only its seconds differ.
    again = Run(run).metrics[0]
    assert replace(again, seconds=0) == replace(first, seconds=0)
    assert not list(run.glob(".ray*")) and descendants(driver.pid) == {}


@pytest.mark.long
def test_what_no_restart_helps_against_is_said_at_once(tiny_prepared, tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(tiny.recipe("train.batch=3").to_toml())
    driver = started("ray", tiny_prepared, tmp_path / "run", "--recipe", recipe, "--device", "cpu", "--ranks", 2)
    out, error = driver.communicate(timeout=120)
    assert (driver.returncode, out) == (1, ""), error
    assert "train.batch: a batch of 3 is not shared evenly by 2 ranks" in error and error.count("\n") == 1


def test_no_restart_is_announced_that_will_not_come(tmp_path):
    """Whatever is read when, a fatal error is noted before the loss that it causes."""
    notes = ray._Notes(Run(tmp_path), restarts=2)
    ray._note(notes.folder / ray.FATAL, errors.to_dict(OptionError("is wrong", "train.batch", "choose another")))
    ray._note(notes.folder / ray.LOST, "train.batch: is wrong")
    said: list[object] = []
    with listening(said.append), pytest.raises(OptionError, match="is wrong"):
        notes.emit_new()
    assert said == []


@pytest.mark.long
def test_a_cluster_that_is_there(tiny_run, tmp_path, monkeypatch):
    """Started as its owner would, with a token."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    (port,), paths = free_ports(1), scans(tmp_path / "archive", 2)
    command = ["predict", str(tiny_run), *map(str, paths), "--out", str(tmp_path / "out"), "--device", "cpu"]
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        start = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}"]
        start += ["--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"]
        with open(tmp_path / "head.log", "w") as log:
            head = subprocess.Popen(start, stdout=log, stderr=log)
        try:
            until(lambda: "Ray runtime started" in (tmp_path / "head.log").read_text(), head)
            too_many = started(*command, "--address", f"127.0.0.1:{port}", "--workers", 3)
            error = too_many.communicate(timeout=120)[1]
            assert f"3 workers were asked for, but the Ray cluster at 127.0.0.1:{port} has 2 core(s)" in error
            fitting = started(*command, "--address", f"127.0.0.1:{port}", "--workers", 2)
            out, error = fitting.communicate(timeout=120)
            assert fitting.returncode == 0 and "2 scans predicted, 0 done before, 0 failed" in out, error
            monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
            (more,) = scans(tmp_path / "archive", 1, first=2)
            stranger = started(*command[:2], more, *command[4:], "--address", f"127.0.0.1:{port}")
            error = stranger.communicate(timeout=120)[1]
            assert stranger.returncode == 1 and "are RAY_AUTH_MODE and its token set here" in error
        finally:
            head.terminate()
            head.wait(60)


def test_a_cluster_that_does_not_answer(tiny_prepared, tmp_path, capsys):
    for address in ("127.0.0.1:1", "nowhere"):
        assert main(["cluster", "ray", str(tiny_prepared), str(tmp_path / "run"), "--address", address]) == 1
        error = capsys.readouterr().err
        assert f"no Ray cluster answers at '{address}'" in error and error.count("\n") == 1


def test_more_ranks_than_cores(tiny_prepared, tmp_path, capsys):
    command = ["cluster", "ray", str(tiny_prepared), str(tmp_path / "run"), "--device", "cpu", "--ranks", "9999"]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "9999 ranks were asked for, but this machine has" in error and error.count("\n") == 1


def test_without_ray_it_is_said_how_to_get_it(tiny_prepared, tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    io.write_scan(tiny.head(1)[0], tmp_path / "scan.nii.gz")
    for command in (
        ["ray", str(tiny_prepared), str(tmp_path / "run")],
        ["predict", str(tiny_run), str(tmp_path / "scan.nii.gz"), "--out", str(tmp_path / "out")],
    ):
        assert main(["cluster", *command]) == 1
        error = capsys.readouterr().err
        assert "Ray is not installed; install it with `pip install 'hemotorch[ray]'`" in error
        assert error.count("\n") == 1


def scans(folder: Path, count: int, first: int = 0) -> list[Path]:
    paths = [folder / f"scan{first + i}.nii.gz" for i in range(count)]
    folder.mkdir(exist_ok=True)
    for i, path in enumerate(paths):
        io.write_scan(tiny.head(300 + first + i, bleeding=i % 3 > 0)[0], path)
    return paths


def written(out: Path) -> dict[str, int]:
    """When each file of a scan was written."""
    return {path.name: path.stat().st_mtime_ns for path in out.rglob("scan*") if path.is_file()}


def loads(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / LOADS).read_text().splitlines()] if (out / LOADS).exists() else []


@pytest.mark.long
def test_an_archive_loses_no_scan_and_does_none_twice(tiny_run, tmp_path):
    paths, out = scans(tmp_path / "archive", 8), tmp_path / "out"
    slow = np.kron(tiny.head(7, slices=40)[0].hu, np.ones((1, 8, 8), np.int16))  # long enough to be killed in
    io.write_scan(even_scan(slow, tiny.PIXEL_MM / 8, 5.0), paths[3])
    (tmp_path / "archive/bad.nii").write_bytes(b"no scan")
    command = ("predict", tiny_run, tmp_path / "archive", "--out", out, "--device", "cpu", "--workers", 2)

    first = started(*command)
    begun = out / ".scan3.begun"
    until(lambda: begun.exists() and begun.read_text(), first)
    os.kill(int(begun.read_text()), signal.SIGKILL)
    told, error = first.communicate(timeout=180)
    assert first.returncode == 1 and error.count("\n") == 1 and "bad.nii" in error, error
    assert "8 scans predicted, 0 done before, 1 failed" in told
    named = re.findall(r"^(\S+\.nii\.gz) ", told, re.M)
    assert sorted(named) == sorted(map(str, paths)), "each once"
    assert 2 <= len(loads(out)) <= 3, "one model load a worker, and one for the worker in the place of the killed one"
    results = [json.loads(path.read_text()) for path in out.glob("scan*.json")]
    assert sorted(result["scan"][0] for result in results) == sorted(map(str, paths))
    assert len(written(out)) == 5 * 8 and not list(out.glob(".*.begun"))

    (tmp_path / "archive/bad.nii").unlink()
    files, models = written(out), len(loads(out))
    (more,) = scans(tmp_path / "archive", 1, first=8)
    second = started(*command, "--json")
    told, error = second.communicate(timeout=180)
    assert second.returncode == 0, error
    result = json.loads(told)
    assert [one["scan"] for one in result["predictions"]] == [[str(more)]] and result["done_before"] == 8
    assert {name: when for name, when in written(out).items() if name in files} == files
    assert len(loads(out)) == models + 1, "one scan needs one worker"

    third = started(*command)
    told, error = third.communicate(timeout=60)
    assert third.returncode == 0 and "0 scans predicted, 9 done before, 0 failed" in told, error
    assert (
        len(loads(out)) == models + 1
        and len(written(out)) == 5 * 9
        and "scan8.html" in (out / "index.html").read_text()
    )


def test_what_failed_before_is_not_listed_once_it_is_done(tiny_run: Path, tmp_path: Path) -> None:
    (path,) = scans(tmp_path / "archive", 1)
    out = tmp_path / "out"
    with open_archive(tiny_run, [path], out) as work:
        studies = StudyList(out)
        for name in ("scan0", "archive", "another"):
            studies.add_failed(name, InputError("cannot be read"))
        studies.write()
        Worker(work.models, work.weights, out, "cpu", False, 1)(as_row(as_entry(work.scans[path], "scan0")))
    assert main(["cluster", "predict", str(tiny_run), str(tmp_path / "archive"), "--out", str(out)]) == 0
    table = (out / "studies.csv").read_text(encoding="utf-8-sig")
    assert table.count(",failed,") == 1 and "another,failed" in table and "scan0,done" in table


@pytest.fixture
def one_scan(tiny_run: Path, tmp_path: Path) -> Iterator[Any]:
    """An archive of one scan, opened, and what makes a worker for it, which predicts it at each call."""
    (path,) = scans(tmp_path / "archive", 1)
    with open_archive(tiny_run, [path], tmp_path / "out") as work:

        def worker(weights: str = work.weights) -> Callable[[], Any]:
            made = Worker(work.models, weights, work.folder, "cpu", False, 1)
            return lambda: json.loads(made(as_row(as_entry(work.scans[path], "scan0")))[0]["result"])

        yield path, work.folder, worker


def test_a_worker_gives_up_a_scan_that_killed_others(one_scan):
    path, out, worker = one_scan
    predict = worker()
    (out / ".scan0.begun").write_text("1\n" * (TRIES - 1))
    assert predict()["scan"] == [str(path)], "the last of its tries"
    (out / "scan0.json").unlink()
    (out / ".scan0.begun").write_text("1\n" * TRIES)
    error = predict()["error"]
    assert (error["kind"], error["what"]) == ("RunError", f"the worker that had it died {TRIES} times")
    assert not (out / ".scan0.begun").exists() and not (out / "scan0.json").exists()


def test_a_scan_that_was_written_before_its_worker_died_is_not_done_again(one_scan):
    _, out, worker = one_scan
    predict = worker()
    first, files = predict(), written(out)
    assert predict() == first and written(out) == files and len(loads(out)) == 1


def test_one_scan_with_whatever_is_wrong_does_not_stop_an_archive(one_scan, monkeypatch):
    path, _, worker = one_scan
    monkeypatch.setattr(archive, "predict_file", lambda *_, **options: 1 / 0)
    error = errors.from_dict(worker()()["error"])
    assert isinstance(error, RunError)
    assert (error.what, error.where) == ("unexpected ZeroDivisionError: division by zero", str(path))


def test_a_model_that_is_trained_on_meanwhile_is_not_used(one_scan):
    _, _, worker = one_scan
    assert "was trained on" in worker("the digest of before")()["error"]["what"]


def test_whose_folder_it_is(tiny_run, tmp_path):
    (path,) = scans(tmp_path / "archive", 1)
    with (
        pytest.raises(InputError, match="exists already and is not empty"),
        open_archive(tiny_run, [path], path.parent),
    ):
        pass
    with open_archive(tiny_run, [path], tmp_path / "out"):
        busy = pytest.raises(RunError, match="another prediction is writing into this folder")
        with busy, open_archive(tiny_run, [path], tmp_path / "out"):
            pass
    model = tmp_path / "other.pt"
    model.write_bytes((tiny_run / "last.pt").read_bytes())
    with (
        pytest.raises(InputError, match="the predictions of another model"),
        open_archive(model, [path], tmp_path / "out"),
    ):
        pass
    with (
        pytest.raises(InputError, match="no such checkpoint"),
        open_archive(tmp_path / "none.pt", [path], tmp_path / "new"),
    ):
        pass
    assert not (tmp_path / "new").exists()


def test_a_scan_is_known_by_its_place_not_by_its_name(tiny_run, tmp_path):
    """Scans that come later, or are named another way, neither take another's files nor are done again."""
    out = tmp_path / "out"
    (a,), (b,) = scans(tmp_path / "a", 1), scans(tmp_path / "b", 1)
    with open_archive(tiny_run, [a], out) as work:
        assert work.todo == {a: "scan0"}
        Worker(work.models, work.weights, out, "cpu", False, 1)(*rows_of(work))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with open_archive(tiny_run, [a, tmp_path / "link", b], out) as work:
        linked = tmp_path / "link" / a.name
        assert list(work.done) == [a] and work.todo == {linked: "link_scan0", b: "b_scan0"}
    with open_archive(tiny_run, [b], out) as work:
        assert work.done == {} and list(work.todo) == [b] and work.todo[b] != "scan0"


def test_the_series_that_is_asked_for_is_predicted(tiny_run, tmp_path, capsys):
    study = tmp_path / "study"
    write_series(tiny.head(1)[0], study, faults=["bone-kernel"])
    kernels = {header.kernel: header.series for file in study.iterdir() for header in read_headers(file)}
    assert len(kernels) == 2
    for kernel, uid in kernels.items():
        with open_archive(tiny_run, [study], tmp_path / f"out{kernel}", uid) as work:
            (scan,) = work.scans.values()
            read = [header for file in scan.files for header in read_headers(file)]
            assert {header.series for header in read} == {uid} and len(read) == tiny.SLICES
    command = ["cluster", "predict", str(tiny_run), str(study), "--out", str(tmp_path / "none"), "--series", "1.2.9"]
    assert main(command) == 1
    assert "no series 1.2.9 is there" in capsys.readouterr().err


def test_a_worker_gets_the_studies_of_a_patient_in_the_order_of_time(tiny_run, tmp_path):
    folder = tmp_path / "archive"
    scans(folder, 3)
    table = tmp_path / "patients.csv"
    table.write_text("case,patient,date\nscan0,1,2024-01-02\nscan1,1,2024-01-01 12:00\nscan2,2,2024-01-01\n")
    out = tmp_path / "out"
    with open_archive(tiny_run, [folder], out) as work:  # before it was known whose they are
        for row in rows_of(work):
            Worker(work.models, work.weights, out, "cpu", False, 1)(row)
    with open_archive(tiny_run, [folder], out, patients=table) as work:
        assert len(work.todo) == 3 and not work.done, "their records do not say whose they are"
        rows = rows_of(work)
        assert [len(json.loads(row["entries"])) for row in rows] == [2, 1]
        worker = Worker(work.models, work.weights, out, "cpu", False, 1)
        results = {entry["name"]: json.loads(entry["result"]) for row in rows for entry in worker(row)}
    assert list(results) == ["scan1", "scan0", "scan2"]
    assert results["scan0"]["follow_up"]["earlier"] == "scan1" and results["scan0"]["follow_up"]["hours"] == 12
    assert results["scan1"]["follow_up"] is None and results["scan2"]["follow_up"] is None
    assert results["scan0"]["patient"] == results["scan1"]["patient"] != results["scan2"]["patient"]
    assert "12 hours before" in (out / "scan0.html").read_text()
    with open_archive(tiny_run, [folder], out, patients=table) as work:
        assert len(work.done) == 3 and not work.todo


def test_more_workers_than_cores(tiny_run, tmp_path, capsys):
    (path,) = scans(tmp_path / "archive", 1)
    command = ["cluster", "predict", str(tiny_run), str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*command, "--workers", "9999"]) == 1
    error = capsys.readouterr().err
    assert "9999 workers were asked for, but this machine has" in error and error.count("\n") == 1


def test_gpus_that_are_not_there(tiny_run, tmp_path, capsys):
    (path,) = scans(tmp_path / "archive", 1)
    command = ["cluster", "predict", str(tiny_run), str(path), "--out", str(tmp_path / "out"), "--device", "cuda"]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "'cuda' was asked for, but this machine has no CUDA GPU" in error and error.count("\n") == 1


def test_a_start_that_was_killed_leaves_a_folder_that_is_new(tiny_run, tmp_path):
    (path,) = scans(tmp_path / "archive", 1)
    out = tmp_path / "out"
    out.mkdir()
    for name in (".lock", ".lock.held", ".model.json.part.77"):
        (out / name).touch()
    with open_archive(tiny_run, [path], out) as work:
        assert list(work.todo) == [path]


def test_what_stops_ray_is_told_in_a_line(tmp_path):
    from ray.exceptions import RaySystemError

    class Broken:
        def iter_rows(self):
            yield {"path": "a", "result": "{}"}
            raise RaySystemError("the cluster is gone\nand more")

    rows = archive._rows(Broken(), tmp_path)
    assert next(rows)["path"] == "a"
    with pytest.raises(RunError) as caught:
        next(rows)
    assert "the cluster is gone" in str(caught.value) and "run the same command again" in str(caught.value)
    assert "\n" not in str(caught.value)
