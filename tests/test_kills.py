"""`phantom` and `evaluate` killed with SIGKILL at a moment that is asked for: the same command again ends as if nothing
had been. What `prepare`, `train` and `predict` do is tested beside each of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hemotorch.cli import main
from hemotorch.report.run_report import FILES

#: `hemotorch ARGUMENTS` that kills itself when it has done so many calls of a function, `MODULE:NAME`.
KILLED = """
import os, signal, sys
from importlib import import_module
where, limit = sys.argv[1], int(sys.argv[2])
module, names = import_module(where.split(":")[0]), where.split(":")[1].split(".")
owner = getattr(module, names[0]) if len(names) > 1 else module
inner, calls = getattr(owner, names[-1]), 0
def counted(*arguments, **named):
    global calls
    result = inner(*arguments, **named)
    calls += 1
    if calls == limit:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, names[-1], counted)
from hemotorch.cli import main
sys.exit(main(sys.argv[3:]))
"""


def killed(where: str, calls: int, *arguments: object) -> None:
    """Runs a command up to that call."""
    command = [sys.executable, "-c", KILLED, where, str(calls), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.long
def test_a_killed_phantom_is_made_by_the_same_command(tmp_path: Path) -> None:
    out = tmp_path / "ct"
    command = ["phantom", out, "--patients", 4, "--size", 48, "--workers", 1, "--layout", "folder"]
    # In the middle of the patients, when all of them are there, and when the tables are.
    for where, calls in (
        ("hemotorch.data.layouts:write_case", 2),
        ("hemotorch.data.layouts:write_case", 4),
        ("hemotorch.data.layouts:write_tables", 1),
    ):
        killed(where, calls, *command)
        assert not (out / "phantom.json").exists()
    assert main([*map(str, command)]) == 0
    whole = tmp_path / "whole"
    assert main([str(whole) if word is out else str(word) for word in command]) == 0
    assert contents(out) == contents(whole)
    assert not list(out.rglob("*.part*")) and not (out / ".phantom.json").exists()


def test_a_killed_phantom_is_not_taken_over_by_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["phantom", str(tmp_path / "ct"), "--patients", "2", "--size", "48", "--workers", "1"]
    killed("hemotorch.data.layouts:write_case", 1, *command)
    assert main([*command, "--seed", "1"]) == 1
    assert "holds an unfinished phantom of other settings" in capsys.readouterr().err


@pytest.mark.long
def test_a_killed_evaluation_is_done_by_the_same_command(tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    command = ["evaluate", tiny_run, "--out", out, "--device", "cpu"]
    # While it measures, when the scores are written, when the tables are, and just before the page has its name.
    for where, calls in (
        ("hemotorch.inference.predictor:Predictor.predict", 1),
        ("hemotorch.evaluation.evaluate:write_json", 1),
        ("hemotorch.evaluation.evaluate:_write_csv", 2),
        ("hemotorch.report.run_report:evaluation_page", 1),
    ):
        killed(where, calls, *command)
        assert not (out / "report.html").exists()
    assert main([*map(str, command)]) == 0
    assert {path.name for path in out.iterdir()} == set(FILES)
    whole = tmp_path / "whole"
    assert main([str(whole) if word is out else str(word) for word in command]) == 0
    assert untimed(out) == untimed(whole)


def untimed(report: Path) -> dict[str, Any]:
    """The scores without what differs from one time to another."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(inner) for key, inner in value.items() if "seconds" not in key}
        return [without(inner) for inner in value] if isinstance(value, list) else value

    scores: dict[str, Any] = without(json.loads((report / "scores.json").read_text()))
    return scores
