"""Ray, started for as long as a command runs, or there already; and Ray Train, which starts lost ranks again."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO
from uuid import uuid4

from hemotorch import errors
from hemotorch.cluster.training import Devices, Training
from hemotorch.errors import HemotorchError, InputError, OptionError, RunError
from hemotorch.run import Run
from hemotorch.system import limits, threads
from hemotorch.system.events import EpochEnd, Restart, emit

POLL_S = 0.5  #: between two looks at how far the training is
ANSWER_S = 10.0  #: in which a cluster has to answer
OBJECTS_BYTES = 128 * 1024**2  #: of memory for what Ray's processes send each other: here it is little
RAYS_THREAD = "ray_listen_error_messages"  #: of the driver, which prints


@contextmanager
def cluster(address: str | None = None) -> Iterator[Devices]:
    """Ray on this machine alone, ended at the end; or the cluster at `address`. Yields what it has.

    Nothing is sent anywhere, and no dashboard is started. Raises OptionError if Ray is not installed or not there.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when ray is imported, as the others are
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "300")  # a busy machine needs more than 60
    try:
        import ray
    except ImportError as error:
        raise OptionError("Ray is not installed", "ray", "install it with `pip install 'hemotorch[ray]'`") from error
    with ExitStack() as stack:
        options: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
        if address:
            _must_answer(address)
            if limits.raised():
                options["runtime_env"] = {"env_vars": limits.raised()}
        else:
            # Its sockets lie in it: their paths must be short.
            folder = stack.enter_context(TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True))
            here = Devices.here()
            options["num_cpus"], options["num_gpus"] = here.cores, here.gpus
            options["object_store_memory"] = OBJECTS_BYTES
            options["include_dashboard"] = False
            options["_temp_dir"] = folder
        stack.enter_context(redirect_stdout(_WithoutRay(sys.stdout)))
        stack.callback(ray.shutdown)
        try:
            with _no_stderr():  # where Ray says that it heeds the log level
                ray.init(address=address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise _not_reached(error, address) from error
        resources = ray.cluster_resources()
        owner = f"the Ray cluster at {address}" if address else "this machine"
        yield Devices(int(resources.get("GPU", 0)), int(resources.get("CPU", 0)), owner)


def _not_reached(error: Exception, address: str | None) -> OptionError:
    what = f"Ray could not be started or reached ({str(error).splitlines()[0]})"
    if not address:
        return OptionError(what, "ray")
    todo = "does it run this version of Ray, and are RAY_AUTH_MODE and its token set here as they are there?"
    return OptionError(what, "--address", todo)


def _must_answer(address: str) -> None:
    """Raises OptionError if nobody listens at an address, which Ray itself notices after minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
    except (OSError, ValueError, OverflowError) as error:
        todo = "name the HOST:PORT that `ray start --head` printed, or leave --address out"
        raise OptionError(f"no Ray cluster answers at '{address}' ({error})", "--address", todo) from error


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Sends what is written to file descriptor 2, from C++ too, nowhere."""
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


class _WithoutRay(io.TextIOBase):
    """Standard output without the paragraphs that a thread of Ray's prints when a process dies; we say it in a line."""

    def __init__(self, out: TextIO):
        self._out = out

    def write(self, text: str) -> int:
        if threading.current_thread().name == RAYS_THREAD:
            return len(text)
        return self._out.write(text)

    def flush(self) -> None:
        self._out.flush()


def hush(name: str) -> None:
    """Keeps what a part of Ray logs off the terminal."""
    for handler in logging.getLogger(name).handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL + 1)


def train_on_ray(
    training: Training,
    ranks: int | None = None,
    *,
    restarts: int = 2,
    address: str | None = None,
) -> Run:
    """Trains with Ray Train. Each epoch is emitted here as soon as it is in the run's metrics.

    Args:
        ranks: how many workers; by default one per GPU of the cluster, without GPUs two.
        restarts: how often Ray starts all ranks again after one was lost; they go on from the last checkpoint.
        address: HOST:PORT of a Ray cluster; None starts Ray here, for this training.

    Raises:
        HemotorchError: what a rank raised; RunError if one was killed; OptionError; InputError.
    """
    training.check()
    if address is None:
        Devices.here().ranks(ranks, training.device)  # what is wrong is said before Ray is started
    with cluster(address) as devices:
        world, on_gpus = devices.ranks(ranks, training.device), devices.on_gpus(training.device)
        notes = _Notes(training.run, restarts)
        try:
            _fit(replace(training, resume=True), world, on_gpus, restarts, notes)
        finally:
            shutil.rmtree(notes.folder, ignore_errors=True)
    return training.run


def _fit(training: Training, world: int, on_gpus: bool, restarts: int, notes: _Notes) -> None:
    """Ray Train's fit, in a thread, so that Ctrl-C stays ours and progress can be told. Raises a rank's error."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    # gloo also between GPUs: the ranks gather Python objects, and notice a lost one, on the CPU.
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    trainer = TorchTrainer(
        _rank,
        train_loop_config={"training": training, "notes": str(notes.folder), "threads": threads.variables()},
        torch_config=TorchConfig(backend=backend, timeout_s=int(training.timeout_s)),
        scaling_config=ScalingConfig(num_workers=world, use_gpu=on_gpus),
        run_config=RunConfig(
            name="ray",
            storage_path=str(notes.folder),
            failure_config=FailureConfig(max_failures=restarts),
            callbacks=[_callback(notes.folder)],
        ),
    )
    errors_of_fit: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            errors_of_fit.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_S)
        notes.emit_new()
    notes.emit_new()
    for error in errors_of_fit:
        raise _explained(error, training) from error


class _Notes:
    """The events of a training by Ray: the run's epochs, and what its processes leave in `folder`, inside the run."""

    def __init__(self, run: Run, restarts: int):
        self.folder = run.root / f".ray-{uuid4().hex}"
        self._run, self._restarts = run, restarts
        self._epoch = max((row.epoch for row in run.metrics), default=0)
        self._lost = 0
        self.folder.mkdir(parents=True)

    def emit_new(self) -> None:
        """What is new. Raises what no start of the ranks could help against."""
        for row in self._run.metrics:
            if row.epoch > self._epoch:
                self._epoch = row.epoch
                emit(EpochEnd(row))
        # A rank notes what is fatal before its loss is noted, so the losses are read first:
        # a loss that is read here and was fatal is known as such, and no restart is announced that will not come.
        losses = _lines(self.folder / LOST)[self._lost :]
        for line in _lines(self.folder / FATAL)[:1]:
            raise errors.from_dict(json.loads(line))
        for line in losses:
            self._lost += 1
            if self._lost <= self._restarts:
                text = f"{json.loads(line)}; Ray starts the ranks again ({self._lost} of {self._restarts})"
                emit(Restart(text))


LOST, FATAL = "lost.jsonl", "fatal.jsonl"  # in the notes' folder


def _lines(path: Path) -> list[str]:
    """The whole lines of a file that others write."""
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def _note(path: Path, value: Any) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


def _rank(config: dict[str, Any]) -> None:
    """What each of Ray Train's workers runs."""
    training: Training = config["training"]
    # Ray sets OMP_NUM_THREADS itself, to the cores that a worker reserves; what counts is what the user has set.
    os.environ.update(config["threads"])
    try:
        training.start()
    except (OptionError, InputError) as error:
        _note(Path(config["notes"]) / FATAL, errors.to_dict(error))
        raise


def _callback(folder: Path) -> Any:
    from ray.train import UserCallback

    class Lost(UserCallback):
        """Runs in the process that watches the workers."""

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            error = _first(worker_exceptions)
            _note(folder / LOST, f"{error.where}: {error.what}")

    return Lost()


def _explained(error: BaseException, training: Training) -> BaseException:
    """A failed training's error in our words."""
    failures = getattr(error, "worker_failures", None)
    if not failures:
        return RunError(f"Ray Train stopped ({str(error).splitlines()[0]})", "training", training.advice())
    known = _first(failures)
    if known.todo:
        return known
    return RunError(known.what, known.where, training.advice())


def _first(failures: dict[int, Exception]) -> HemotorchError:
    """Of all ranks' errors the one that the others follow from."""
    from ray.exceptions import RayActorError

    for rank, error in failures.items():
        if isinstance(getattr(error, "health_check_failure", error), RayActorError):
            return RunError("was killed", f"rank {rank}")
    for error in failures.values():
        if isinstance(error, HemotorchError):
            return error
    rank, error = next(iter(failures.items()))
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    if "timed out" in what.lower():  # torch has no error of its own for it
        what = "another rank has not answered in time"
    return RunError(what, f"rank {rank}")
