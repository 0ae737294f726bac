"""How many threads a process computes with, and how they wait for one another: they spin at most for a moment.

Only the command line and the processes that it starts set variables; `import hemotorch` leaves a process as it is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from hemotorch.errors import OptionError
from hemotorch.system import machine

THREADS = "HEMOTORCH_THREADS"  #: the variable in which --threads reaches the processes that a command starts
OPENMP = "OMP_NUM_THREADS"
MOST = 4096

#: If one of these is set, the user has decided how threads wait.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
#: torch's wheels for Linux bring GNU's OpenMP runtime. Left to itself it spins for milliseconds: beside four computing
#: processes forty steps of `fast` took 67 s, and 27 s without spinning. On free cores it is the other way round: a step
#: takes 57 ms, 57 to 61 ms with a moment of spinning, and 90 ms without (docs/results.md, "Beside other work").
WITHOUT_SPINNING = {"OMP_WAIT_POLICY": "PASSIVE"}
SPINNING_SHORTLY = {"GOMP_SPINCOUNT": "1000"}


def waiting(environment: Mapping[str, str], threads: int | None = None) -> dict[str, str]:
    """The variables that say how threads wait for one another; none if the user has set one of `WAITING`.

    They work only if they are set before the OpenMP runtime, and with it torch, is loaded.

    Args:
        environment: the variables that are set.
        threads: how many are going to compute; None: as many as this process may use cores.
    """
    if any(environment.get(name) for name in WAITING):
        return {}
    others = machine.others_running()
    available = (os.cpu_count() or 1) - (others or 0)
    if others is None or available < (threads or machine.cores()):
        return dict(WITHOUT_SPINNING)
    return dict(SPINNING_SHORTLY)


def option() -> int:
    """The value of --threads, 0 if it was not given. Raises OptionError."""
    return _number(THREADS)


def wanted() -> int:
    """How many threads the user wants: --threads, else OMP_NUM_THREADS, else 0. Raises OptionError."""
    return _number(THREADS) or _number(OPENMP)


def count(recipe_threads: int = 0, processes: int = 1) -> tuple[int, str]:
    """How many threads this process computes with, and why.

    The order is --threads, the recipe's engine.threads, OMP_NUM_THREADS, this process's share of the cores.

    Args:
        recipe_threads: engine.threads of the recipe, 0 if it leaves that open.
        processes: how many processes compute on this machine together.

    Returns:
        The number, at least 1, and the reason in words.

    Raises:
        OptionError: a variable holds something else than a number of threads.
    """
    if number := _number(THREADS):
        return number, "--threads"
    if recipe_threads:
        return recipe_threads, "asked for"
    available = machine.cores()
    if number := _number(OPENMP):
        return number, OPENMP
    if processes == 1:
        return available, "every core this process may use"
    return max(1, available // processes), f"its share of {available} cores"


@contextmanager
def process_environment(threads: int | None) -> Iterator[None]:
    """Sets, for a command and the processes it starts, how threads wait and how many there are; undoes it at the end.

    Args:
        threads: the value of --threads, None if it was not given.
    """
    added: dict[str, str] = {}
    # If torch is loaded, this process belongs to a program that calls the command line as a function.
    if "torch" not in sys.modules:
        added |= waiting(os.environ, threads)
    if threads is not None:
        added |= {THREADS: str(threads), OPENMP: str(threads)}
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def variables() -> dict[str, str]:
    """The variables of this process that say how many threads there are, to be set in a process elsewhere."""
    return {name: os.environ.get(name, "") for name in (THREADS, OPENMP)}


def _number(name: str) -> int:
    # OMP_NUM_THREADS may be a list, for nested teams of threads; the first number is the outer team's.
    text = os.environ.get(name, "").partition(",")[0].strip()
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or not 1 <= len(text) <= 4 or not 1 <= int(text) <= MOST:
        todo = f"set a whole number from 1 to {MOST}, or unset it"
        raise OptionError(f"{name} is set to {text[:40]!r}, which is no number of threads", "environment", todo)
    return int(text)
