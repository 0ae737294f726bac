"""What a worker measures with: a clock for phases, the peak of a matrix product, and this process's memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from hemotorch.bench.rows import PHASES

SIDES = {"cpu": 2048, "cuda": 8192}  #: of the matrix product that stands for a device's peak
PRODUCTS = 3  #: of which the fastest counts


class Clock:
    """Where a step's time goes: call `mark` at the end of each phase.

    wait: returns once the device has finished all it was given. threads: of a CPU; the time in which they did not all
    work is waiting. On a GPU the time is kept until a phase's work was handed over, beside that until it was done.
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
        if phase != "data":
            self._handing += handed
            busy = min(seconds, worked / self._threads) if self._threads else seconds
            self.seconds[phase if phase in self.seconds else "waiting"] += busy
            self.seconds["waiting"] += seconds - busy
        else:
            self.seconds["data"] += seconds
        self.start()

    @property
    def shares(self) -> dict[str, float]:
        """Of a step, by phase."""
        total = sum(self.seconds.values())
        return {phase: seconds / total for phase, seconds in self.seconds.items()} if total else {}

    @property
    def launch(self) -> float:
        """Share of the phases after "data" in which their work was still being handed over to a GPU; else NaN."""
        working = sum(seconds for phase, seconds in self.seconds.items() if phase != "data")
        return self._handing / working if working and not self._threads else math.nan


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
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}.get(precision, torch.float32)
    wait = waiter(device)
    with _threads(threads if device.type == "cpu" else 0), _tf32(precision == "tf32"):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        best = math.inf
        for turn in range(PRODUCTS + 1):
            wait()
            began = time.perf_counter()
            torch.mm(a, b)
            wait()
            if turn:
                best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best / 1e9


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        if count:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _tf32(on: bool) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high" if on else "highest")
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def memory_mb(process: int | None = None) -> float:
    """The most main memory that a process, this one by default, ever held, in MB; NaN where the system does not say."""
    # Not getrusage where there is /proc: its figure is never below what the parent had when it started this process.
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{process or 'self'}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    with suppress(ImportError):
        import resource  # not on Windows

        if process is None:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return math.nan
