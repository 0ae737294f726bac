"""What is said while something takes long, where no terminal looks on."""

from __future__ import annotations

import re
import time

import pytest

from hemotorch.system import progress
from hemotorch.system.progress import bar


def test_a_line_now_and_then_in_a_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "LOG_S", 0.1)
    began = time.perf_counter()
    with bar(60, "training", "step", done=10) as moved:
        for _ in range(50):
            time.sleep(0.01)
            moved.set_postfix(loss="0.5", refresh=False)
            moved.update()
    most = (time.perf_counter() - began) / progress.LOG_S
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert 2 <= len(lines) <= most and captured.out == ""
    assert all(re.fullmatch(r"training: \d+ of 60, \d\d:\d\d left, loss=0\.5", line) for line in lines)


def test_what_is_over_at_once_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.progress(range(5), "reading")) == list(range(5))
    with bar(5, "training", quiet=True) as moved:
        moved.update()
    assert capsys.readouterr().err == ""
