"""A worker process: takes one job from the queue, does it, and ends.

    python -m hemotorch.app.worker FOLDER --lease TOKEN --parent PID --kinds import,predict --most 1

It starts before there is a job, so that its imports are done when one comes. A job that crashes or runs out of memory
takes this process with it and no other. The server that started it may be killed: the job goes on to its end.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from hemotorch.app.database import now
from hemotorch.app.jobs import Work, import_modules, run_job
from hemotorch.app.queue import HEARTBEAT_S, LEASE_S, LeasedJob, LeaseLost
from hemotorch.app.schemas import JobKind, Refusal
from hemotorch.app.workspace import Workspace
from hemotorch.errors import HemotorchError, explain
from hemotorch.system.device import is_out_of_memory
from hemotorch.system.events import Event, Problem, Progress, Stopped, listening, print_lines

POLL_S = 0.2
REPORT_S = 0.5  #: between two reports of progress
GRACE_S = {JobKind.TRAIN: 120.0}  #: to stop by itself after it was cancelled: a training writes a checkpoint
USUAL_GRACE_S = 10.0
NICENESS = 5  #: so that the pages stay quick while networks compute
LOST = 3  #: exit status of a worker whose lease ran out


def main(arguments: Sequence[str] | None = None) -> int:
    """Waits for a job and does it. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m hemotorch.app.worker")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lease", required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--kinds", required=True)
    parser.add_argument("--most", type=int, required=True)
    options = parser.parse_args(arguments)
    faulthandler.enable()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    workspace = Workspace(options.folder)
    kinds = [JobKind(kind) for kind in options.kinds.split(",")]
    signal.signal(signal.SIGTERM, _leave)
    try:
        import_modules(kinds)
        while (job := workspace.queue.lease(kinds, options.lease, options.most)) is None:
            if os.getppid() != options.parent:  # the server is gone
                return 0
            time.sleep(POLL_S)
    except _Asked:
        return 0
    return _Worker(workspace, job).run()


class _Asked(Exception):
    """The server asks an idle worker to end."""


def _leave(number: int, frame: FrameType | None) -> None:
    raise _Asked


class _Worker:
    """A job on its way."""

    def __init__(self, workspace: Workspace, job: LeasedJob):
        self._workspace, self._job = workspace, job
        self._ended = threading.Event()
        self._cancelled_at: float | None = None
        self._asked_to_end = False
        self._reported = 0.0
        self._task: int | None = None
        self._hide = workspace.library.hider(job.study)

    def run(self) -> int:
        """Does it, and says in the queue what became of it."""
        signal.signal(signal.SIGTERM, self._on_term)
        workspace, job = self._workspace, self._job
        _log_into(workspace.log_file(job.id))
        print_lines(f"{now()} {job.kind}, attempt {job.attempts}, process {os.getpid()}")
        heart = threading.Thread(target=self._beat, daemon=True)
        heart.start()
        status = 0
        try:
            try:
                with listening(self._listen):
                    run_job(Work(workspace, job))
            except LeaseLost:
                raise
            except Stopped:
                self._end_stopped()
            except Exception as error:
                workspace.queue.fail(job, self._refusal(error))
        except LeaseLost as lost:
            print_lines(f"{now()} {lost}")
            status = LOST
        finally:
            self._ended.set()
        print_lines(f"{now()} ended with status {status}")
        return status

    def _end_stopped(self) -> None:
        if self._cancelled_at is not None:
            print_lines(f"{now()} cancelled")
            self._workspace.queue.stopped(self._job)
        else:
            print_lines(f"{now()} stopped with the server; it goes on when the server does")
            self._workspace.queue.give_back(self._job)

    def _refusal(self, error: Exception) -> Refusal:
        hide = self._hide
        if not isinstance(error, HemotorchError):
            print_lines(hide("".join(traceback.format_exception(error))))
        known = explain(error, self._job.study or self._job.training or self._job.id)
        print_lines(f"{now()} {hide(str(known))}")
        if isinstance(error, (MemoryError, RuntimeError)) and is_out_of_memory(error):
            return Refusal(what="there is not enough memory for this", todo="do it on a larger machine")
        return Refusal(what=hide(known.what), where=hide(known.where or ""), todo=hide(known.todo or ""))

    def _listen(self, event: Event) -> None:
        """Passes events on to the queue and the log. Raises Stopped if the job is to end."""
        if self._cancelled_at is not None or self._asked_to_end:
            raise Stopped
        if isinstance(event, Progress):
            self._report(event)
            return
        text = self._hide(event.text)
        print_lines(f"{now()} {text}")
        if isinstance(event, Problem):
            self._workspace.queue.add_problem(self._job, Refusal(what=text))

    def _report(self, event: Progress) -> None:
        """The outermost task is shown, since those within it begin anew again and again."""
        if self._task is None:
            self._task = event.task
        if event.task != self._task:
            return
        clock = time.monotonic()
        is_last = event.ended or event.done == event.total
        if clock - self._reported >= REPORT_S or is_last:
            self._reported = clock
            self._workspace.queue.report(self._job, event.label, event.done, event.total, event.unit)
        if event.ended:
            self._task = None

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_end = True
        raise Stopped

    def _beat(self) -> None:
        """Renews the lease, and ends the process if it is lost, or if the job does not stop when it is cancelled."""
        queue, job = self._workspace.queue, self._job
        renewed = time.monotonic()
        while not self._ended.wait(HEARTBEAT_S):
            try:
                if queue.renew(job) and self._cancelled_at is None:
                    self._cancelled_at = time.monotonic()
                renewed = time.monotonic()
                grace = GRACE_S.get(job.kind, USUAL_GRACE_S)
                if self._cancelled_at is not None and time.monotonic() - self._cancelled_at > grace:
                    queue.stopped(job)
                    print_lines(f"{now()} cancelled, and ended since it did not stop within {grace:.0f} s")
                    os._exit(0)
            except LeaseLost as lost:
                if self._ended.is_set():  # the job's own end, just now
                    return
                print_lines(f"{now()} {lost}")
                os._exit(LOST)
            except Exception as error:  # the disk may be full for a while
                print_lines(f"{now()} no heartbeat: {error}")
                if time.monotonic() - renewed > LEASE_S:
                    os._exit(LOST)


def _log_into(path: Path) -> None:
    """Sends all that this process and its libraries print into a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


if __name__ == "__main__":
    sys.exit(main())
