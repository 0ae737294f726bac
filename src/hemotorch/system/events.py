"""What is said while something takes long: one stream of events, and who listens to it.

Whatever works emits events; a terminal, a log, a notebook or an app listens. A listener is any function of one event:

    with listening(print):
        train(data, run)

It may stop the work by raising `Stopped`, which ends it as Ctrl-C does, a training with a checkpoint of the very step.
Without a listener progress bars are shown on stderr, and messages are not shown.

The listener belongs to the thread that called `listening`, so that several jobs of one process have one each. Of
several ranks the first one's listens.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from hemotorch.errors import one_line

if TYPE_CHECKING:  # pydantic takes a tenth of a second, which `hemotorch --help` would wait for
    from hemotorch.system.metrics import EpochMetrics

T = TypeVar("T")
BAR_AFTER_S = 2.0  #: what is over sooner shows no bar
LOG_S = 60.0  #: between two lines about one task, if no terminal looks on


@dataclass(frozen=True)
class Message:
    """What is going on, for people."""

    text: str


@dataclass(frozen=True)
class Problem:
    """What went wrong and did not end the work, such as one scan of many that cannot be read."""

    text: str


@dataclass(frozen=True)
class Restart:
    """Several processes that train together are started again after one of them was lost."""

    text: str


@dataclass(frozen=True)
class EpochEnd:
    """An epoch of a training is done. row: its metrics, as in metrics.jsonl."""

    row: EpochMetrics

    @property
    def text(self) -> str:
        """The row as people read it while a run trains."""
        row, validation = self.row, ""
        if row.val:
            dice = row.val["dice"]
            shown = "unknown" if dice is None else f"{dice:.3f}"
            validation = f"   validation Dice {shown} over {row.val['n']} scans"
        return f"epoch {row.epoch:>3}   loss {row.loss:.3f}{validation}   {row.seconds:.0f} s in all"


@dataclass(frozen=True)
class Progress:
    """How far a task is.

    task: the number of the task, of which several may be under way, one within another. label: what it is, such as
    "training". done, total: in units, such as "step"; total is None if it is not known. note: what is said beside it,
    such as "loss=0.5". ended: there are no more events of this task.
    """

    task: int
    label: str
    done: int
    total: int | None
    unit: str
    note: str = ""
    ended: bool = False


Event = Message | Problem | Restart | EpochEnd | Progress
Listener = Callable[[Event], object]


class Stopped(KeyboardInterrupt):
    """Raised by a listener to end the work, as Ctrl-C does. No handler of one scan's errors takes it for one."""


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Inside the block all events of this thread go to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def current_listener() -> Listener:
    """Who listens in this thread."""
    return _listener.get() or _BARS


def emit(event: Event) -> None:
    """Tells the listener. Raises Stopped if the listener wants the work to end."""
    current_listener()(event)


def together(*listeners: Listener) -> Listener:
    """One listener that tells all of these, in their order."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell


def ignore(event: Event) -> None:
    """A listener that shows nothing."""


class ProgressTask:
    """Work that takes long, moved on with `advance`; used as a context manager."""

    _numbers = itertools.count()

    def __init__(self, label: str, total: int | None = None, unit: str = "it", done: int = 0):
        """done: how much of it was finished by an earlier run."""
        self.label, self.total, self.unit, self.done, self.note = label, total, unit, done, ""
        self._number = next(self._numbers)
        # Kept, since a task may be moved on by other threads than the one that began it.
        self._listener = current_listener()

    def __enter__(self) -> ProgressTask:
        self._emit()
        return self

    def __exit__(self, *error: object) -> None:
        # An error on its way is not replaced by a wish to stop; and after the end there is nothing to stop.
        with suppress(Stopped):
            self._emit(ended=True)

    def advance(self, count: int = 1) -> None:
        """So much more is done. Raises Stopped if the listener wants the work to end."""
        self.done += count
        self._emit()

    def _emit(self, ended: bool = False) -> None:
        self._listener(Progress(self._number, self.label, self.done, self.total, self.unit, self.note, ended))


def progress(items: Iterable[T], label: str, total: int | None = None, unit: str = "it", done: int = 0) -> Iterator[T]:
    """Iterates over items and emits how far it is. Raises Stopped if the listener wants the work to end.

    Args:
        total: how many there are in all; by default the length of `items`.
        done: how many were finished by an earlier run.
    """
    if total is None and isinstance(items, Sized):
        total = len(items) + done
    with ProgressTask(label, total, unit, done) as task:
        for item in items:
            yield item
            task.advance()


class Terminal:
    """Shows events where a command runs: bars on stderr if it is a terminal, else a line per minute and task.

    text: print what goes on on stdout. Without it, as for output in JSON, messages and epochs are not shown.
    command: of hemotorch, named before each problem.
    """

    def __init__(self, text: bool = True, command: str = ""):
        self.text, self.command = text, command
        self._tasks: dict[int, _Bar | _Lines] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Progress():
                self._show_progress(event)
            case Problem():
                self._print(f"hemotorch {self.command}: {event.text}" if self.command else event.text, sys.stderr)
            case Restart():
                self._print(event.text, sys.stdout if self.text else sys.stderr)
            case Message() | EpochEnd():
                if self.text:
                    self._print(event.text, sys.stdout)

    def __getstate__(self) -> dict[str, Any]:
        # A copy that is sent to another process has no bars.
        return {**self.__dict__, "_tasks": {}}

    def _print(self, text: str, stream: Any) -> None:
        if not self._tasks:
            print_lines(text, stream)
            return
        # Takes the bars away while it prints, and shows them again below.
        with tqdm.external_write_mode(file=stream):
            print_lines(text, stream)

    def _show_progress(self, event: Progress) -> None:
        if event.ended:
            if task := self._tasks.pop(event.task, None):
                task.close()
            return
        if event.task not in self._tasks:
            self._tasks[event.task] = _Bar(event) if sys.stderr.isatty() else _Lines(event)
        self._tasks[event.task].show(event)


class _Bar:
    def __init__(self, event: Progress):
        self._bar = tqdm(
            total=event.total,
            desc=event.label,
            unit=event.unit,
            initial=event.done,
            leave=False,
            delay=BAR_AFTER_S,
        )

    def show(self, event: Progress) -> None:
        self._bar.set_postfix_str(event.note, refresh=False)
        self._bar.update(event.done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


class _Lines:
    def __init__(self, event: Progress):
        self._first = event.done
        self._started = self._printed = time.monotonic()

    def show(self, event: Progress) -> None:
        now = time.monotonic()
        newly_done = event.done - self._first
        if now - self._printed < LOG_S or not newly_done:
            return
        self._printed = now
        line = f"{event.label}: {event.done}"
        if event.total is not None:
            remaining_s = (now - self._started) / newly_done * (event.total - event.done)
            line += f" of {event.total}, {tqdm.format_interval(remaining_s)} left"
        if event.note:
            line += f", {event.note}"
        print_lines(line, sys.stderr)

    def close(self) -> None:
        pass


def print_lines(text: str, stream: Any = None) -> None:
    """Prints a text whose lines may hold anything, as file names do, safely for a terminal, at once."""
    lines = [one_line(line) for line in text.split("\n")]
    print("\n".join(lines), file=stream or sys.stdout, flush=True)


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_BARS = Terminal(text=False)
