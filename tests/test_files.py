"""Locks: who holds one is told from what fails while it is held."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
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


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO])
def test_a_disk_without_locks_is_locked_by_a_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", no_flock)
    (tmp_path / "lock").touch()  # as versions before this one left it
    busy = RunError("somebody else writes here", tmp_path)
    again = exclusive(tmp_path / "lock", busy)
    with exclusive(tmp_path / "lock", busy), pytest.raises(RunError, match="somebody else"), again:
        pass
    with exclusive(tmp_path / "lock", busy):
        pass


def test_a_marker_of_a_process_that_was_killed_does_not_count(tmp_path: Path) -> None:
    """A real process holds the marker and is killed with SIGKILL."""
    holds = (
        "import fcntl, errno, os, signal\n"
        "def no_flock(*_): raise OSError(errno.ENOLCK, 'no locks')\n"
        "fcntl.flock = no_flock\n"
        "from hemotorch.errors import RunError\n"
        "from hemotorch.system.files import exclusive\n"
        f"with exclusive({str(tmp_path / 'lock')!r}, RunError('busy')):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", holds], check=False)
    assert (tmp_path / "lock.held").exists()
    then = holds.replace("os.kill(os.getpid(), signal.SIGKILL)", "print('held')")
    done = subprocess.run([sys.executable, "-c", then], capture_output=True, text=True, check=False)
    assert done.stdout == "held\n", done.stderr
