"""A workspace whose jobs are done by a process of its own, as `hemotorch serve` does them; for killing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hemotorch.app.jobs.requests import ImportWork
from hemotorch.app.schemas import AppJob, JobKind, JobState
from hemotorch.app.supervisor import Supervisor
from hemotorch.app.workspace import Workspace

ENDED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


def add_import(workspace: Workspace, *paths: Path, predict: bool = False) -> AppJob:
    """An import of files or folders of this machine."""
    request = ImportWork(paths=[str(path) for path in paths], predict=predict)
    return workspace.queue.add(JobKind.IMPORT, request.model_dump_json(), "import")


def wait_until(true: Callable[[], object], seconds: float = 240) -> None:
    """Waits for what other processes do; fails after so long."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def wait_for(workspace: Workspace, job: str, seconds: float = 240) -> AppJob:
    """Waits for a job's end."""
    wait_until(lambda: workspace.queue.get(job).state in ENDED, seconds)
    return workspace.queue.get(job)


def main() -> None:
    """python app_server.py FOLDER: runs workers until it is asked to end."""
    supervisor = Supervisor(Workspace(Path(sys.argv[1])))
    supervisor.start()
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    print(os.getpid(), flush=True)
    ending.wait()
    supervisor.stop()


if __name__ == "__main__":
    main()
