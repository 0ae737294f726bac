"""A progress bar with the time left, on whatever takes longer than two seconds; where no terminal looks on a line a
minute instead."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
LOG_S = 60.0  #: between two lines
LINE = "{desc}: {n_fmt} of {total_fmt}, {remaining} left{postfix}"


def progress(items: Iterable[T], label: str, total: int | None = None, unit: str = "it", done: int = 0) -> tqdm[T]:
    """Iterates over items with a bar on stderr that appears after two seconds, or lines, the first after a minute.

    done: how many were finished by an earlier run, so that a resumed bar starts there.
    """
    options: dict[str, Any] = {"desc": label, "total": total, "unit": unit, "initial": done, "leave": False}
    if sys.stderr.isatty():
        return tqdm(items, delay=2.0, **options)
    return _Lines(items, delay=LOG_S, mininterval=LOG_S, maxinterval=LOG_S, bar_format=LINE, **options)


class _Lines(tqdm):
    """Its bar in words, each time on a line of its own."""

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Prints it. tqdm calls this."""
        text = str(self) if msg is None else msg
        if text:
            print(text, file=sys.stderr, flush=True)
        return True

    def close(self) -> None:
        """tqdm would wipe its line."""
        if not self.disable:
            self.disable: bool = True
            self._decr_instances(self)


def bar(total: int, label: str, unit: str = "it", done: int = 0, quiet: bool = False) -> Any:
    """A bar moved by hand with `.update()`; use it as a context manager. quiet: no bar after all."""
    return tqdm(total=None, disable=True) if quiet else progress((), label, total=total, unit=unit, done=done)
