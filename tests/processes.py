"""Waiting for what another process does."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from hemotorch.run import Run


def until(true: Callable[[], object], process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Waits until it is true; fails where the process ends before, or after so long."""
    end = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def epochs(root: Path) -> list[int]:
    """Those whose metrics a run has."""
    return [row.epoch for row in Run(root).metrics]
