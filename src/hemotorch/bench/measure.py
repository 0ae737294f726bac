"""Runs the workers: every config once a round, in another order each round, so that a noisy minute hits all alike."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hemotorch.bench.children import ask
from hemotorch.bench.configs import Machine
from hemotorch.bench.rows import Config, Round, Row, Spec, from_json, row_of
from hemotorch.errors import RunError
from hemotorch.system.threads import THREADS

WORKER = "hemotorch.bench.worker"
SETTLE_S = 900.0  #: for trying layouts
PROBE_S = 300.0  #: for a machine to say what it is; importing torch can take a minute from a slow disk


@dataclass(frozen=True)
class Pace:
    """rounds: how often each config is measured. limit_s: after which a worker hangs. budget_s: no round is begun that
    would probably not end within it."""

    rounds: int = 3
    limit_s: float = 900.0
    budget_s: float = float("inf")


def look_at_machine() -> tuple[Machine, dict[str, Any]]:
    """What there is to measure on, and the environment; asked in a process of its own, which leaves no GPU occupied."""
    told, error = ask(WORKER, None, [{}], PROBE_S)
    if error:
        raise RunError(f"could not look at this machine: {error}")
    return from_json(Machine, told["machine"]), told["environment"]


def settled_layout(spec: Spec) -> tuple[str, str]:
    """The setting of the layout that a training on this CPU takes, tried as `hemotorch train` tries it; and that in
    words."""
    told, error = ask(WORKER, {"settle": asdict(spec)}, [{}], SETTLE_S)
    last, why = (True, f"untried: {error}") if error else (bool(told["channels_last"]), str(told["reason"]))
    words = f"On the CPU in {'channels-last' if last else 'contiguous'} layout ({why})."
    return f"engine.channels_last={'on' if last else 'off'}", words


def measure(specs: Sequence[Spec], pace: Pace, say: Callable[[str], None]) -> tuple[list[Row], str]:
    """A row a spec; and why there were fewer rounds than asked for, or "".

    A config that fails in a round is left out of the next ones, and its row says why. say: called with a line for each
    measurement.
    """
    rounds: dict[Config, list[Round]] = {spec.config: [] for spec in specs}
    errors: dict[Config, list[str]] = {spec.config: [] for spec in specs}
    began, longest, told = time.monotonic(), 0.0, ""
    for number in range(pace.rounds):
        spent = time.monotonic() - began
        if number and spent + longest > pace.budget_s:
            told = f"{number} of {pace.rounds} rounds: another one would have taken too long"
            break
        order = [spec for spec in specs if not errors[spec.config]]
        random.Random(number).shuffle(order)
        for place, spec in enumerate(order, 1):
            found = once(spec, pace.limit_s)
            where = f"round {number + 1} of {pace.rounds}, {place:>2} of {len(order)}   {spec.config.label}"
            if isinstance(found, Round):
                rounds[spec.config].append(found)
                say(f"{where}   {found.images_s:.3g} images/s")
            else:
                errors[spec.config].append(found)
                say(f"{where}   failed: {found}")
        longest = max(longest, time.monotonic() - began - spent)
    return [row_of(spec.config, rounds[spec.config], errors[spec.config]) for spec in specs], told


def once(spec: Spec, limit_s: float) -> Round | str:
    """One measurement, or why there is none."""
    told, error = ask(WORKER, asdict(spec), environments(spec.config), limit_s)
    if error:
        return error
    try:
        return from_json(Round, told)
    except (TypeError, AttributeError):
        return f"gave no measurement: {told}"


def environments(config: Config) -> list[dict[str, str]]:
    """Of each rank, what torchrun would set. A config has its own number of threads, whatever --threads says."""
    if config.ranks == 1:
        return [{THREADS: ""}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = str(config.ranks)
    shared = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {THREADS: "", "OMP_NUM_THREADS": str(config.threads)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(config.ranks)]
