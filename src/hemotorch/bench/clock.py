"""What a worker measures with: a clock for phases, the peak of a matrix product, and what memory is held."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from hemotorch.bench.records import PHASES
from hemotorch.system import machine

#: Of the matrix product that stands for a device's peak.
SIDES = {"cpu": 2048, "cuda": 8192}
PRODUCTS = 3  #: of which the fastest counts
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}


class Clock:
    """Where a step's time goes: call `mark` at the end of each phase.

    threads: of a CPU; the time in which they were not all busy is waiting. A thread that spins until the others are
    done is busy. On a GPU the time is kept until a phase's work was handed over, beside that until it was done.
    """

    def __init__(self, device: torch.device, threads: int):
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._threads = threads if device.type == "cpu" else 0
        self._wait = waiter(device)
        self._handing = 0.0
        self.start()

    def start(self) -> None:
        """Begins a step."""
        self._wait()
        self._last, self._worked = time.perf_counter(), time.process_time()

    def mark(self, phase: str) -> None:
        """Ends a phase; what is not among PHASES counts as waiting."""
        handed = time.perf_counter() - self._last
        self._wait()
        seconds, worked = time.perf_counter() - self._last, time.process_time() - self._worked
        if phase == "data":
            # Reading is waiting whatever else is busy.
            self.seconds["data"] += seconds
        else:
            self._handing += handed
            busy = seconds
            if self._threads:
                busy = min(seconds, worked / self._threads)
            known = phase if phase in self.seconds else "waiting"
            self.seconds[known] += busy
            self.seconds["waiting"] += seconds - busy
        self.start()

    @property
    def shares(self) -> dict[str, float]:
        """Of a step, by phase."""
        total = sum(self.seconds.values())
        return {phase: seconds / total for phase, seconds in self.seconds.items()} if total else {}

    @property
    def launch(self) -> float:
        """Share of the phases after "data" in which their work was still being handed over to a GPU; else NaN."""
        working = sum(self.seconds.values()) - self.seconds["data"]
        if self._threads or not working:
            return math.nan
        return self._handing / working


def waiter(device: torch.device) -> Callable[[], None]:
    """Returns once the device has done all it was given; a CPU always has."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def peak_gflops(device: torch.device, precision: str, threads: int, side: int = 0) -> float:
    """GFLOP/s of a large square matrix product on this device now, the fastest of three after one more.

    precision: as in a recipe's `engine.precision`. threads: of a CPU.
    """
    side = side or SIDES[device.type]
    wait = waiter(device)
    best = math.inf
    with _set_for_product(threads if device.type == "cpu" else 0, precision):
        a, b, c = (torch.randn(side, side, device=device, dtype=DTYPES.get(precision)) for _ in range(3))
        for turn in range(PRODUCTS + 1):
            wait()
            start = time.perf_counter()
            # Into memory that is there: with a result of its own it measured 153 GFLOP/s in a process that had freed
            # none before and 181 in one that had.
            torch.mm(a, b, out=c)
            wait()
            if turn:
                best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best / 1e9


@contextmanager
def _set_for_product(threads: int, precision: str) -> Iterator[None]:
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        torch.set_num_threads(threads or before[0])
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])


def memory_mb() -> float:
    """The most main memory that this process ever held, and what its loading processes hold besides now, in MB.

    What these share with it, as forked processes do, is counted once. NaN if the system does not say.
    """
    peak = machine.peak_memory()
    loaders = sum(machine.private_memory(child.pid or 0) for child in multiprocessing.active_children())
    return (peak + loaders) / 1e6 if peak else math.nan
