"""One contender as a process of its own: how long it may take, and how much memory it and its workers take."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

POLL_S = 1.0


def run_alone(command: list[str], environment: Mapping[str, str], log: Path, limit_s: float) -> tuple[int, float]:
    """Runs it with its output in `log`; its exit status and the peak MB of all its processes together.

    Memory that processes share is counted once (Linux's proportional set size). Past the limit it is stopped, with
    all that it started, and the status is negative.
    """
    peak, began = 0.0, time.monotonic()
    with open(log, "ab") as out:
        child = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
        try:
            while child.poll() is None:
                if time.monotonic() - began > limit_s:
                    break
                peak = max(peak, _session_mb(child.pid))
                time.sleep(POLL_S)
        finally:
            _end(child)
    return child.returncode, peak


def _end(child: subprocess.Popen[bytes]) -> None:
    """The child and whatever of its session is left, a worker that outlived it among them."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sign)
        except ProcessLookupError:
            break
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            continue
    child.wait()


def _session_mb(session: int) -> float:
    kilobytes = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # pid (comm) state ppid pgrp session ...: comm may hold blanks and brackets.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                kilobytes += _pss(entry)
        except (OSError, ValueError, IndexError):  # it ended meanwhile
            continue
    return kilobytes / 1024


def _pss(entry: Path) -> int:
    for line in (entry / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
