"""A run folder that was damaged is named, and nothing in it is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hemotorch.errors import InputError, RunError
from hemotorch.run import BEST, LAST, Run, load_checkpoint
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


def test_a_missing_best_checkpoint_is_named(tiny_prepared, run):
    (run / BEST).unlink()
    with pytest.raises(InputError, match=r"best.pt: is missing; put it back"):
        resumed(tiny_prepared, run)


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
        lambda record: record.update(scans=None),
    ],
)
def test_a_damaged_record_is_named(tiny_prepared, run, change):
    record = json.loads((run / "run.json").read_text())
    change(record)
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"run.json: is damaged; put back a copy"):
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
