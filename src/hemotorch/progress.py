"""A progress bar with the time left, on whatever takes longer than two seconds; silent where no terminal looks on."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], label: str, total: int | None = None, unit: str = "it", done: int = 0) -> tqdm[T]:
    """Iterates over items with a bar on stderr that appears after two seconds.

    done: how many were finished by an earlier run, so that a resumed bar starts there.
    """
    quiet = not sys.stderr.isatty()
    return tqdm(items, desc=label, total=total, unit=unit, initial=done, delay=2.0, disable=quiet, leave=False)


def bar(total: int, label: str, unit: str = "it", done: int = 0, quiet: bool = False) -> Any:
    """A bar moved by hand with `.update()`; use it as a context manager. quiet: no bar after all."""
    return tqdm(total=None, disable=True) if quiet else progress((), label, total=total, unit=unit, done=done)
