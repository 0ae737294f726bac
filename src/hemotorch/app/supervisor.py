"""Keeps worker processes running: starts them, notices when one is lost, and ends them with the server."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from hemotorch.app.schemas import JobKind
from hemotorch.app.workspace import Workspace
from hemotorch.system.machine import cores

LOOK_S = 0.3
PAUSE_S = 5.0  #: before a worker is started in place of one that ended in error
STOP_S = 60.0  #: for workers to end by themselves: a training writes a checkpoint

QUICK = (JobKind.EXPORT_VERSION, JobKind.IMPORT, JobKind.DATASET, JobKind.PREDICT)
#: What runs for minutes to days has a worker of its own, so that predictions do not wait for it.
LONG = (JobKind.TRAIN,)


@dataclass
class _Slot:
    """A place for one worker. eager: started before there is a job."""

    kinds: tuple[JobKind, ...]
    most: int
    eager: bool
    process: subprocess.Popen[bytes] | None = None
    lease: str = ""
    not_before: float = 0.0


class Supervisor:
    """The workers of a server."""

    def __init__(self, workspace: Workspace, quick: int = 0):
        """quick: workers for all but trainings; 0 for one, or two on four cores and more."""
        self._workspace = workspace
        count = quick or (2 if cores() >= 4 else 1)
        # One more than work at a time: it has started by the time that another one ends.
        self._slots = [_Slot(QUICK, count, eager=True) for _ in range(count + 1)]
        self._slots.append(_Slot(LONG, 1, eager=False))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="workers", daemon=True)

    def start(self) -> None:
        """Starts the workers, and a thread that looks after them."""
        self._thread.start()

    def stop(self) -> None:
        """Asks the workers to end, waits for them, and puts their jobs back."""
        self._stopping.set()
        self._thread.join()
        running = [slot for slot in self._slots if slot.process is not None]
        for slot in running:
            assert slot.process is not None
            slot.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + STOP_S
        for slot in running:
            assert slot.process is not None
            try:
                slot.process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                slot.process.kill()
                slot.process.wait()
            self._workspace.queue.lost(slot.lease, "the server was stopped")

    @property
    def processes(self) -> list[int]:
        """Ids of the workers' processes."""
        return [slot.process.pid for slot in self._slots if slot.process is not None]

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self._workspace.queue.put_back_lost()
                for slot in self._slots:
                    self._look_at(slot)
            except Exception as error:  # such as a full disk, for a while
                print(f"workers: {error}", file=sys.stderr, flush=True)
                self._stopping.wait(PAUSE_S)
            self._stopping.wait(LOOK_S)

    def _look_at(self, slot: _Slot) -> None:
        if slot.process is not None:
            status = slot.process.poll()
            if status is None:
                return
            self._workspace.queue.lost(slot.lease, ending_in_words(status))
            slot.process = None
            if status > 0:  # it could not even start; a job that fails ends with 0
                slot.not_before = time.monotonic() + PAUSE_S
        if time.monotonic() < slot.not_before:
            return
        if slot.eager or self._workspace.queue.has_waiting(slot.kinds):
            slot.lease = secrets.token_hex(8)
            slot.process = start_worker(self._workspace.folder, slot.lease, slot.kinds, slot.most)


def start_worker(folder: Path, lease: str, kinds: tuple[JobKind, ...], most: int) -> subprocess.Popen[bytes]:
    """Starts a worker, in a session of its own: Ctrl-C is for the server, which ends its workers itself."""
    command = [sys.executable, "-m", "hemotorch.app.worker", str(folder), "--lease", lease]
    command += ["--parent", str(os.getpid()), "--kinds", ",".join(kinds), "--most", str(most)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)


def ending_in_words(status: int) -> str:
    """How a process ended: "killed by SIGKILL, as when memory runs out"."""
    if status >= 0:
        return f"it ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    why = ", as when memory runs out" if -status == signal.SIGKILL else ""
    return f"it was killed by {name}{why}"
