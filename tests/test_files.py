"""Locks: who holds one is told from what fails while it is held."""

from __future__ import annotations

from pathlib import Path

import pytest

from hemotorch.errors import RunError
from hemotorch.system.files import exclusive


def test_a_lock_is_held_by_one_and_given_back(tmp_path: Path) -> None:
    busy = RunError("somebody else has it")
    again = exclusive(tmp_path / "lock", busy)
    with exclusive(tmp_path / "lock", busy), pytest.raises(RunError, match="somebody else"), again:
        pass
    with exclusive(tmp_path / "lock", busy):
        pass


def test_what_fails_inside_is_not_taken_for_a_held_lock(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError, match="a pipe is full"), exclusive(tmp_path / "lock", RunError("busy")):
        raise BlockingIOError("a pipe is full")
