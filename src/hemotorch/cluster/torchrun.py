"""Several ranks on this machine, started, watched and stopped together by torchrun's agent (torch.distributed.run)."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import NoReturn

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from hemotorch import errors
from hemotorch.cluster.training import Devices, Training
from hemotorch.errors import HemotorchError, RankLost, RunError
from hemotorch.run import Run
from hemotorch.system.events import Listener, Restart, current_listener, emit, listening
from hemotorch.system.files import read_json, write_json

INTERRUPT_S = 2.0  #: a terminal sends Ctrl-C to ranks and launcher at once, and the ranks may be quicker
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  #: that the agent takes


def train_here(
    training: Training,
    ranks: int | None = None,
    *,
    restarts: int = 0,
) -> Run:
    """Trains on several processes of this machine.

    The events of the training go to a copy of the current listener in the first rank's process, to which it is sent;
    here Restart is emitted.

    Args:
        ranks: how many processes; by default one per GPU, without GPUs two.
        restarts: how often a training whose rank was lost goes on from its last checkpoint by itself; errors that a
            rank explained, and a signal to this process, end it.

    Raises:
        HemotorchError: what a rank raised; RankLost if one was killed; OptionError.
    """
    training.check()
    world = Devices.here().ranks(ranks, training.device)
    for restart in range(1, restarts + 2):
        try:
            _launch(training, world)
            break
        except RankLost as error:
            if restart > restarts:
                raise
            text = f"{error.where}: {error.what}; starting the ranks again ({restart} of {restarts})"
            emit(Restart(text))
            training = replace(training, resume=True)
    return training.run


def _launch(training: Training, world: int) -> None:
    """One start of all ranks. Raises the first one's error that failed, KeyboardInterrupt at Ctrl-C."""
    children_before = set(multiprocessing.active_children())
    with tempfile.TemporaryDirectory(prefix="hemotorch-ranks-") as folder, _without_agents_log(), _own_signals():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=world,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, _rank)(training, current_listener(), Path(folder))
        except SignalException as error:
            # The signal may come before the agent has noted the ranks that it started.
            for rank in set(multiprocessing.active_children()) - children_before:
                rank.kill()
                rank.join()
            _stopped(error.sigval)
        except ChildFailedError as error:
            number, failure = error.get_first_failure()
            if failure.exitcode == -signal.SIGINT:
                _take_interrupt()
                raise KeyboardInterrupt from None
            raise _explained(number, failure, training, Path(folder)) from None


def _rank(training: Training, listener: Listener, folder: Path) -> None:
    """What each process runs. folder: takes the error that it ends with, for the launcher."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        with listening(listener):
            training.start()
    except HemotorchError as error:
        write_json(_error_file(folder, int(os.environ["RANK"])), errors.to_dict(error))
        raise
    except KeyboardInterrupt:
        # Gone at once: the agent sends the signal a second time, into whatever Python does at its end.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


def _take_interrupt() -> None:
    """Waits for the Ctrl-C that the ranks had first: it would come once more, in the middle of whatever follows."""
    if threading.current_thread() is threading.main_thread():
        interrupted = threading.Event()
        signal.signal(signal.SIGINT, lambda *_: interrupted.set())
        interrupted.wait(INTERRUPT_S)


def _stopped(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt from None
    todo = "go on from the last checkpoint with --resume"
    raise RunError(f"was stopped by {signal.Signals(number).name}", "training", todo) from None


def _error_file(folder: Path, rank: int) -> Path:
    return folder / f"error-{rank}.json"


def _explained(rank: int, failure: ProcessFailure, training: Training, folder: Path) -> HemotorchError:
    """A failed rank's own error, or what is known of one that could not say it any more."""
    where = f"rank {rank}"
    if (file := _error_file(folder, rank)).exists():
        error = errors.from_dict(read_json(file))
        if error.where == where:
            return error
        return type(error)(str(error), where)
    if failure.exitcode < 0:
        what = f"was killed by {failure.signal_name()}"
        if failure.exitcode == -signal.SIGKILL:
            what += ", as the system does when memory runs out"
        return RankLost(what, where, training.advice())
    message = failure.message
    if not isinstance(message, dict):
        return RankLost(f"ended with exit status {failure.exitcode}", where, training.advice())
    print(message["extraInfo"]["py_callstack"], file=sys.stderr)
    return RunError(message["message"].splitlines()[0], where, training.advice())


@contextmanager
def _without_agents_log() -> Iterator[None]:
    """Keeps torchrun's account of a failure, tens of lines, off the terminal; the failed rank's own error is one."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Puts back the signal handlers that the agent replaces, and lets ranks start with Ctrl-C held back.

    A terminal sends Ctrl-C to all processes; one that is still importing torch would answer with a page of traceback.
    What holds it back is a mask of the thread that starts them, so that another thread takes the signal here.
    """
    _start_tracker()
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
    # The thread that takes the signal while this one holds it back.
    done = threading.Event()
    threading.Thread(target=done.wait, daemon=True).start()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        done.set()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _start_tracker() -> None:
    """Starts the process in which Python keeps account of semaphores, before Ctrl-C is held back, which it would undo.

    At its end it warns of those that a killed rank left behind and clears them away: no news for anybody.
    """
    before = os.environ.get("PYTHONWARNINGS")
    filters = "ignore:resource_tracker"
    if before:
        filters = f"{before},{filters}"
    os.environ["PYTHONWARNINGS"] = filters
    try:
        resource_tracker.ensure_running()
    finally:
        os.environ.pop("PYTHONWARNINGS")
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before
