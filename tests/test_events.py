"""Progress and messages as one stream: what a listener gets, how it stops the work, and what a terminal shows."""

from __future__ import annotations

import pickle
import re
import threading
import time
from typing import Any

import pytest

from hemotorch.system import events
from hemotorch.system.events import (
    EpochEnd,
    Event,
    Message,
    Problem,
    Progress,
    ProgressTask,
    Restart,
    Stopped,
    Terminal,
    emit,
    listening,
    progress,
    together,
)
from hemotorch.system.metrics import EpochMetrics

ROW = EpochMetrics(epoch=3, step=60, loss=0.25, lr=1e-3, seconds=9.6, val={"dice": None, "n": 4})


def test_a_listener_gets_each_event_in_order() -> None:
    seen: list[Event] = []
    with listening(seen.append):
        emit(Message("begins"))
        for letter in progress("ab", "reading", unit="letter", done=1):
            emit(Message(letter))
    number = seen[1].task  # type: ignore[union-attr]
    states = [Progress(number, "reading", done, 3, "letter") for done in (1, 2, 3)]
    ended = Progress(number, "reading", 3, 3, "letter", ended=True)
    begins, a, b = (Message(text) for text in ("begins", "a", "b"))
    assert seen == [begins, states[0], a, states[1], b, states[2], ended]


def test_tasks_within_tasks_have_numbers_of_their_own() -> None:
    seen: list[Any] = []
    with listening(seen.append), ProgressTask("outer"), ProgressTask("inner") as inner:
        inner.advance(5)
    assert seen[0].task != seen[1].task == seen[2].task and seen[2].done == 5
    assert [event.ended for event in seen] == [False, False, False, True, True]


def test_a_listener_stops_the_work_between_two_items() -> None:
    done: list[int] = []

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 2:
            raise Stopped

    with listening(stop), pytest.raises(Stopped):
        for number in progress(range(9), "counting"):
            done.append(number)
    assert done == [0, 1]


def test_no_handler_of_one_items_errors_takes_a_stop_for_one() -> None:
    done: list[int] = []

    def stop(event: Event) -> None:
        if event == Message("item 2"):
            raise Stopped

    with listening(stop), pytest.raises(Stopped):
        for number in range(9):
            try:
                emit(Message(f"item {number}"))
                done.append(number)
            except Exception:
                pytest.fail("the stop was taken for an error of this item")
    assert done == [0, 1]


def test_threads_have_listeners_of_their_own() -> None:
    mine: list[Event] = []
    theirs: list[Event] = []

    def job() -> None:
        with listening(theirs.append):
            emit(Message("theirs"))

    with listening(mine.append):
        task = ProgressTask("shared")
        thread = threading.Thread(target=job)
        thread.start()
        thread.join()
        other = threading.Thread(target=task.advance)  # a pool's: the task stays with who began it
        other.start()
        other.join()
    assert theirs == [Message("theirs")] and [event.done for event in mine if isinstance(event, Progress)] == [1]


def test_several_listen_together() -> None:
    first: list[Event] = []
    second: list[Event] = []
    with listening(together(first.append, second.append)):
        emit(Message("x"))
    assert first == second == [Message("x")]


@pytest.mark.parametrize("text", [True, False], ids=["text", "json"])
def test_what_a_terminal_prints_where(text: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with listening(pickle.loads(pickle.dumps(Terminal(text, "predict")))):
        emit(Message("line one\nline\x1b two"))
        emit(EpochEnd(ROW))
        emit(Problem("scan 7: is damaged"))
        emit(Restart("started again"))
    captured = capsys.readouterr()
    shown = ["line one", "line\\x1b two", "epoch   3   loss 0.250   validation Dice unknown over 4 scans   10 s in all"]
    problem = "hemotorch predict: scan 7: is damaged"
    if text:
        assert captured.out.splitlines() == [*shown, "started again"] and captured.err.splitlines() == [problem]
    else:
        assert captured.out == "" and captured.err.splitlines() == [problem, "started again"]


def test_a_line_now_and_then_in_a_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(events, "LOG_S", 0.1)
    began = time.perf_counter()
    with ProgressTask("training", 60, "step", done=10) as task:
        for _ in range(50):
            time.sleep(0.01)
            task.note = "loss=0.5"
            task.advance()
    most = (time.perf_counter() - began) / events.LOG_S
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert 2 <= len(lines) <= most and captured.out == ""
    assert all(re.fullmatch(r"training: \d+ of 60, \d\d:\d\d left, loss=0\.5", line) for line in lines)


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(events, "BAR_AFTER_S", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with listening(Terminal()), ProgressTask("training", 4, "step") as task:
        for _ in range(4):
            time.sleep(0.15)  # tqdm draws at most every tenth of a second
            task.note = "loss=0.5"
            task.advance()
            emit(Message("between"))
    captured = capsys.readouterr()
    assert "training:  50%" in captured.err and "loss=0.5" in captured.err
    assert captured.out.splitlines() == ["between"] * 4


def test_what_is_over_at_once_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(5), "reading")) == list(range(5))
    emit(Message("without a listener"))
    assert capsys.readouterr() == ("", "")
