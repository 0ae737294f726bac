"""A run folder that was damaged is named, and nothing in it is lost."""

from __future__ import annotations

import errno
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from hemotorch.data.dataset import Dataset
from hemotorch.errors import HemotorchError, InputError, RunError
from hemotorch.inference.checkpoint import load_checkpoint
from hemotorch.report import plots
from hemotorch.report.run_report import evaluate_run, split_for
from hemotorch.run import BEST, LAST, Run
from hemotorch.system.events import EpochEnd
from hemotorch.training.loop import train


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A finished run that may be damaged."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def resumed(data: Path, run: Path) -> Run:
    return train(data, run, device="cpu", resume=True)


@pytest.mark.parametrize("line", ['{"epoch": 1, "x', "7", '{"epoch": "one"}', "\udcff", "[" * 100_000])
def test_a_damaged_line_of_metrics_is_named_and_the_others_are_kept(tiny_prepared, run, line):
    path = run / "metrics.jsonl"
    rows = path.read_bytes().splitlines(keepends=True)
    damaged = b"".join([rows[0], line.encode(errors="surrogateescape") + b"\n", *rows[2:]])
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"metrics.jsonl: line 2 is damaged"):
        resumed(tiny_prepared, run)
    assert path.read_bytes() == damaged


def test_an_unfinished_last_line_of_metrics_is_left_out(tiny_prepared, run):
    before = Run(run).metrics
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(b'{"epoch": 7, "lo\xff')
    assert resumed(tiny_prepared, run).metrics == before


@pytest.mark.parametrize(("start", "end"), [("\ufeff", ""), ("", "\n\n"), ("", "  \n "), ("\ufeff", "\r\n")])
def test_metrics_that_an_editor_saved_are_read(run, start, end):
    """A mark of byte order, and blank lines at the end."""
    path, before = run / "metrics.jsonl", Run(run).metrics
    path.write_text(f"{start}{path.read_text()}{end}", encoding="utf-8")
    assert Run(run).metrics == before
    path.write_text(path.read_text().rstrip() + "x\n\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"line {len(before)} is damaged"):
        _ = Run(run).metrics


def test_a_missing_best_checkpoint_is_named(tiny_prepared, run):
    (run / BEST).unlink()
    with pytest.raises(InputError, match=r"best.pt: is missing; put it back"):
        resumed(tiny_prepared, run)


@pytest.mark.parametrize("content", [b"", b"PK", b"no checkpoint"])
def test_a_damaged_best_checkpoint_is_named_when_its_training_goes_on(tiny_prepared, run, content):
    (run / BEST).write_bytes(content)
    with pytest.raises(InputError, match=r"best.pt: is cut, damaged or not a checkpoint"):
        resumed(tiny_prepared, run)


@pytest.mark.parametrize("section", ["data", "optimizer", "predict"])
def test_a_cut_recipe_is_not_taken_for_one_of_default_values(tiny_prepared, run, tmp_path, section):
    path = run / "recipe.toml"
    path.write_text(path.read_text().partition(f"[{section}]")[0])
    with pytest.raises(InputError, match=rf"recipe.toml: is cut or damaged: it has no '{section}'; put back a copy"):
        resumed(tiny_prepared, run)
    with pytest.raises(InputError, match=r"recipe.toml: is cut or damaged"):
        evaluate_run(run, tmp_path / "report", data=tiny_prepared, device="cpu")


def _without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda record: record.pop(key)


@pytest.mark.parametrize(
    "change",
    [
        *map(_without, ("format", "split", "device", "ranks", "scans", "masks", "environment")),
        lambda record: record.update(split=None),
        lambda record: record["split"].update(val=None),
        lambda record: record["split"]["train"].update({next(iter(record["split"]["train"])): ["1"]}),
        lambda record: record["device"].update(name="tpu"),
        lambda record: record["device"].update(threads="x"),
        lambda record: record["device"].update(other=1),
        lambda record: record["device"].pop("precision"),
        lambda record: record["masks"].popitem(),
        lambda record: record.update(resumed=[{"device": {}}]),
        lambda record: record.update(resumed=1),
        lambda record: record["split"].update(warnings="abc"),
        lambda record: record.update(scans=None),
    ],
)
def test_a_damaged_record_is_named(tiny_prepared, run, change):
    record = json.loads((run / "run.json").read_text())
    change(record)
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"run.json: is damaged \(.*\); put back a copy"):
        resumed(tiny_prepared, run)


@pytest.mark.parametrize("text", ["1", "[]", "{}", "null"])
def test_a_record_that_is_none(tiny_prepared, run, text):
    (run / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run.json: is damaged"):
        resumed(tiny_prepared, run)


def test_another_format_is_named(run):
    (run / "run.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="was written in format 99; this hemotorch reads format"):
        Run.open(run)


def test_folders_where_files_should_be(tiny_prepared, run):
    for name, says in ((LAST, "last.pt: is a folder, not a checkpoint"), ("lock", "lock: is a folder, not a file")):
        (run / name).rename(run / "kept")
        (run / name).mkdir()
        with pytest.raises((InputError, RunError), match=says):
            resumed(tiny_prepared, run)
        (run / name).rmdir()
        (run / "kept").rename(run / name)
    assert load_checkpoint(run / LAST).epoch == 6


ROW = {"epoch": 1, "step": 7, "loss": 0.5, "lr": 1e-3, "seconds": 1.0, "val": {"dice": None, "n": 0}}


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "x"}, {"loss": float("nan")}, {"loss": None}, {"lr": float("inf")}, {"lr": True}, {"seconds": []},
        {"seconds": 1e300}, {"step": -1}, {"epoch": 10**400}, {"val": 1}, {"val": {"dice": 1.0}}, {"val": {"n": 1}},
        {"val": {"n": 1, "dice": "x"}},
    ],
)  # fmt: skip
def test_a_damaged_number_of_metrics_is_refused_by_its_line(tmp_path, change):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, **change}) + "\n")
    with pytest.raises(InputError, match=r"metrics.jsonl: line 2 is damaged or no epoch's"):
        _ = Run(tmp_path).metrics
    path.write_text(json.dumps(ROW) + "\n")
    assert [row.to_dict() for row in Run(tmp_path).metrics] == [ROW]


def test_evaluate_reads_all_it_needs_before_it_measures(tiny_prepared, run, tmp_path, monkeypatch):
    monkeypatch.setattr("hemotorch.report.run_report.evaluate", lambda *_, **__: pytest.fail("it measured"))
    before = (run / "metrics.jsonl").read_text()
    for name, text in (("metrics.jsonl", before.replace('"loss": ', '"loss": "', 1)), ("recipe.toml", "train = 3")):
        original = (run / name).read_bytes()
        (run / name).write_text(text)
        with pytest.raises(HemotorchError, match=name):
            evaluate_run(run, tmp_path / "report", data=tiny_prepared, device="cpu")
        (run / name).write_bytes(original)


def test_a_record_too_deep_for_the_report_is_refused_before_measuring(tiny_prepared, run, tmp_path, monkeypatch):
    monkeypatch.setattr("hemotorch.report.run_report.evaluate", lambda *_, **__: pytest.fail("it measured"))
    text = (run / "run.json").read_text().rstrip()
    (run / "run.json").write_text(text[:-1] + ', "memory": ' + "[" * 900 + "]" * 900 + "}")
    with pytest.raises(InputError, match=r"run.json: (is damaged|cannot be read as JSON) \(.*\)"):
        evaluate_run(run, tmp_path / "report", data=tiny_prepared, device="cpu")


def test_slices_that_a_scan_does_not_have(tiny_prepared, run, tmp_path):
    record = json.loads((run / "run.json").read_text())
    case = next(iter(record["split"]["test"]))
    record["split"]["test"][case] = [0, 10**9]
    (run / "run.json").write_text(json.dumps(record))
    says = rf"run.json: its split names slice 1000000000 of scan {case}, which has 6"
    with pytest.raises(InputError, match=says):
        evaluate_run(run, tmp_path / "report", data=tiny_prepared, device="cpu")
    with pytest.raises(InputError, match=says):
        resumed(tiny_prepared, run)


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.json", "recipe.toml"])
def test_mutated_files_of_a_run_end_in_one_line_or_in_a_page(tiny_prepared, run, name):
    """Reads what evaluating and resuming read, and draws what is drawn of it."""
    text, rng, good = (run / name).read_text(), random.Random(0), 0
    dataset = Dataset(tiny_prepared)
    for _ in range(300):
        (run / name).write_bytes(tiny.mutated(text, rng))
        try:
            opened = Run.open(run)
            split_for(opened.split, opened.record.scans, dataset)
            lines = [EpochEnd(row).text for row in opened.metrics]
            assert opened.recipe.to_toml() and len(lines) == len(opened.metrics)
            if name == "metrics.jsonl" and good < 10:
                assert plots.training(opened.metrics) or not lines
            good += 1
        except HemotorchError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
    assert 0 < good < 250


def test_a_new_run_is_started_on_a_disk_without_locks(tmp_path, monkeypatch):
    """There the lock is a marker file, which is no sign of somebody else's folder."""

    def no_flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", no_flock)
    run = Run(tmp_path / "run")
    with run.locked():
        assert (run.root / "lock.held").exists()
        run.must_be_new()


@pytest.mark.parametrize("had_folder", [False, True])
def test_a_training_that_cannot_begin_leaves_nothing(tiny_prepared, tmp_path, had_folder):
    root = tmp_path / "run"
    if had_folder:
        root.mkdir()
    with pytest.raises(HemotorchError, match="no split 'nothing'"):
        train(tiny_prepared, root, tiny.recipe("data.split=nothing"), device="cpu")
    assert root.exists() == had_folder and not list(root.glob("*"))


def test_a_run_that_fails_later_keeps_its_files(tmp_path):
    run = Run(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), run.locked():
        (run.root / "recipe.toml").write_text("")
        _ = 1 / 0
    assert {file.name for file in run.root.iterdir()} == {"recipe.toml", "lock"}
