"""Measurements in fresh processes, round by round: all end together, and one that fails leaves its last words."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

import hemotorch
from hemotorch.bench.records import Machine, Round, Row, Spec
from hemotorch.errors import RunError
from hemotorch.system.events import Message, emit
from hemotorch.system.files import write_json
from hemotorch.system.threads import THREADS, waiting

WORKER = "hemotorch.bench.worker"
SOURCE = Path(hemotorch.__file__).parents[1]
POLL_S = 0.02
WORDS = 240  #: characters of the last words
SETTLE_S = 900.0  #: for trying layouts
#: For a machine to say what it is; importing torch can take a minute from a slow disk.
PROBE_S = 300.0
T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """rounds: how often each is measured. limit_s: after which a process hangs. budget_s: no round is begun that would
    probably not end within it."""

    rounds: int = 3
    limit_s: float = 900.0
    budget_s: float = float("inf")


@dataclass
class Results(Generic[T]):
    """What the rounds of one measurement gave, and why some gave nothing."""

    values: list[T] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def in_rounds(
    labels: Sequence[str], once: Callable[[int, int], T], show: Callable[[T], str], pace: Pace
) -> tuple[list[Results[T]], str]:
    """Measures each once per round, in another order each round, so that a noisy minute hits all alike.

    Emits a message about each measurement.

    Args:
        labels: of what is measured.
        once: measures number n in round m; a RunError leaves it out of the next rounds.
        show: a measurement in a few words.
        pace: how often, and for how long.

    Returns:
        Results in the labels' order; and why there were fewer rounds than wanted, or "".
    """
    results: list[Results[T]] = [Results() for _ in labels]
    start, longest = time.monotonic(), 0.0
    for number in range(pace.rounds):
        spent = time.monotonic() - start
        if number and spent + longest > pace.budget_s:
            return results, f"{number} of {pace.rounds} rounds: another one would have taken too long"
        order = [index for index, result in enumerate(results) if not result.errors]
        random.Random(number).shuffle(order)
        for turn, index in enumerate(order, 1):
            head = f"round {number + 1} of {pace.rounds}, {turn:>2} of {len(order)}   {labels[index]}"
            try:
                results[index].values.append(once(index, number))
                emit(Message(f"{head}   {show(results[index].values[-1])}"))
            except RunError as error:
                results[index].errors.append(str(error))
                emit(Message(f"{head}   failed: {error}"))
        longest = max(longest, time.monotonic() - start - spent)
    return results, ""


def measure(specs: Sequence[Spec], pace: Pace) -> tuple[list[Row], str]:
    """A row for each spec; and why there were fewer rounds than wanted, or ""."""
    results, note = in_rounds(
        [spec.config.label for spec in specs],
        lambda index, _: once(specs[index], pace.limit_s),
        lambda result: f"{result.images_s:.3g} images/s",
        pace,
    )
    return [row_of(spec, result) for spec, result in zip(specs, results, strict=True)], note


def row_of(spec: Spec, result: Results[Round]) -> Row:
    """A config's row: its rounds, and what is said of those that failed."""
    rounds, errors = result.values, result.errors
    if not errors:
        return Row(spec.config, tuple(rounds), "" if rounds else "not measured: no time left")
    some = f"{len(errors)} of {len(rounds) + len(errors)} rounds failed: " if rounds else ""
    return Row(spec.config, tuple(rounds), some + errors[-1])


def once(spec: Spec, limit_s: float) -> Round:
    """One measurement. Raises RunError if there is none."""
    return answer({"round": asdict(spec)}, Round, rank_variables(spec), limit_s)


def look_at_machine() -> tuple[Machine, dict[str, Any]]:
    """What there is to measure on, and the environment; asked in a process of its own, which leaves no GPU occupied."""
    try:
        machine = answer({"machine": None}, dict[str, Any], [{}], PROBE_S)
    except RunError as error:
        raise RunError(f"could not look at this machine: {error}") from error
    return Machine(**machine["machine"]), machine["environment"]


def chosen_layout(spec: Spec) -> tuple[str, str]:
    """The setting of the layout that a training on this CPU takes, tried as `hemotorch train` tries it; and that in
    words."""
    try:
        layout = answer({"layout": asdict(spec)}, dict[str, Any], [{}], SETTLE_S)
    except RunError as error:
        layout = {"channels_last": True, "reason": f"untried: {error}"}
    switch, name = ("on", "channels-last") if layout["channels_last"] else ("off", "contiguous")
    return f"engine.channels_last={switch}", f"On the CPU in {name} layout ({layout['reason']})."


def rank_variables(spec: Spec) -> list[dict[str, str]]:
    """Of each rank, what torchrun would set. A config has its own number of threads, whatever --threads says."""
    config = spec.config
    if config.ranks == 1:
        return [{THREADS: ""}]
    # The system names a port that is free now.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = str(config.ranks)
    shared = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {THREADS: "", "OMP_NUM_THREADS": str(config.threads)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(config.ranks)]


def answer(question: Any, kind: type[T], environments: Sequence[Mapping[str, str]], limit_s: float) -> T:
    """What a worker answers: the last line that it prints, read as that kind.

    Args:
        question: for the worker, see there.
        kind: what its JSON is to be.
        environments: variables of each process.
        limit_s: seconds after which all are stopped.

    Raises:
        RunError: if there is no answer, with the worker's last words.
    """
    with TemporaryDirectory(prefix="hemotorch-bench-") as folder:
        path = Path(folder) / "question.json"
        write_json(path, question)
        printed, error = run_together([sys.executable, "-m", WORKER, str(path)], environments, limit_s)
    if error:
        raise RunError(error)
    try:
        return TypeAdapter(kind).validate_python(json.loads(printed.splitlines()[-1]))
    except (ValidationError, ValueError, IndexError) as cause:
        raise RunError(f"gave no answer: {printed[-WORDS:]!r}") from cause


def run_together(command: Sequence[str], environments: Sequence[Mapping[str, str]], limit_s: float) -> tuple[str, str]:
    """Runs the command once for each environment, all at once; what the first of them printed, and why it failed or "".

    environments: additions to this process's own. If one fails, or `limit_s` seconds are over, all are killed, and
    whatever they started.
    """
    with TemporaryDirectory(prefix="hemotorch-bench-") as folder:
        outputs = [Path(folder) / f"{number}.out" for number in range(len(environments))]
        errors = [path.with_suffix(".err") for path in outputs]
        children: list[subprocess.Popen[bytes]] = []
        try:
            for added, out, err in zip(environments, outputs, errors, strict=True):
                variables = {**child_environment(), **added}
                # In a session of its own, so that whatever it starts can be killed with it.
                with open(out, "wb") as stdout, open(err, "wb") as stderr:
                    child = subprocess.Popen(
                        command, stdout=stdout, stderr=stderr, env=variables, start_new_session=True
                    )
                children.append(child)
            failed = _first_failure(children, time.monotonic() + limit_s)
        finally:
            for child in children:
                _kill(child)
        if failed is None:
            return outputs[0].read_text(errors="replace"), ""
        if failed < 0:
            return "", f"did not finish within {limit_s:.0f} s and was stopped{_last_words(errors[0])}"
        return "", _cause(children[failed].returncode, errors[failed])


def child_environment() -> dict[str, str]:
    """This process's environment, in which its children find this very hemotorch, and wait without spinning."""
    # A thread that spins while it waits takes a core from whatever else runs: beside two computing processes forty
    # steps took 330 s spinning and 72 s without.
    path = os.pathsep.join(filter(None, (str(SOURCE), os.environ.get("PYTHONPATH"))))
    return {**os.environ, **waiting(dict(os.environ)), "PYTHONPATH": path}


def end_with_parent() -> None:
    """In a child: ends it within seconds of its parent, which may be killed without a word."""
    parent = os.getppid()

    # A parent that is killed tells nobody; its children get another one.
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _first_failure(children: Sequence[subprocess.Popen[bytes]], deadline: float) -> int | None:
    """Waits for all: None if all ended well, else the number of the first that did not, -1 if time ran out."""
    while True:
        states = [child.poll() for child in children]
        failed = [number for number, state in enumerate(states) if state]
        if failed:
            # The one that was killed, not those that miss it.
            return min(failed, key=lambda number: states[number] or 0)
        if all(state == 0 for state in states):
            return None
        if time.monotonic() > deadline:
            return -1
        time.sleep(POLL_S)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """The child and all it started, which share its process group."""
    if sys.platform == "win32":
        child.kill()
    else:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _cause(status: int, errors: Path) -> str:
    words = _last_words(errors)
    if status >= 0:
        return words.removeprefix(": ") or f"ended with status {status} and without a word"
    name = signal.Signals(-status).name
    memory = ", as the system does if memory runs out" if -status == signal.SIGKILL else ""
    return f"was killed by signal {name}{memory}{words}"


def _last_words(errors: Path) -> str:
    lines = [line.strip() for line in errors.read_text(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1][:WORDS]}" if lines else ""
