"""What this process may use of the machine it runs on: processors and memory, containers and batch systems included."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

CGROUP = Path("/sys/fs/cgroup")
CPUS = Path("/sys/devices/system/cpu")
LOADAVG = Path("/proc/loadavg")  #: its fourth field is "threads that run or could / all of them", see proc(5)
LOOKS = 5
#: Limit, usage and statistics of a container's memory, as cgroup v2 and v1 call them.
MEMORY_FILES = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
UNKNOWN_MEMORY = 4 * 1024**3  #: bytes, assumed if a system does not say


def cores() -> int:
    """Processors this process may use: those it is bound to, and no more than a container's share of time."""
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        count = min(count, max(1, round(int(quota) / int(period))))
    return count


def physical_cores() -> int:
    """Those of `cores` that have arithmetic units of their own: hardware threads of one core share them."""
    numbers = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(cores())
    siblings = set()
    for number in numbers:
        try:
            siblings.add((CPUS / f"cpu{number}/topology/thread_siblings_list").read_text())
        except OSError:
            return cores()
    return min(cores(), len(siblings))


def others_running() -> int | None:
    """How many threads of other programs run now or wait for a core; None if the system does not say.

    The median of some looks, since a moment's may be chance. Takes about 20 ms.
    """
    looks: list[int] = []
    for _ in range(LOOKS):
        try:
            running = LOADAVG.read_text().split()[3].partition("/")[0]
            looks.append(int(running) - 1)  # this one runs too
        except (OSError, ValueError, IndexError):
            return None
        time.sleep(0.005)
    return sorted(looks)[LOOKS // 2]


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself. Without, it takes hundreds of times as long as float32."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return bool({"avx512_bf16", "amx_bf16", "bf16", "avx_ne_convert"} & set(line.split()))
    return False


def has_compiler() -> bool:
    """Whether there is a C++ compiler, which torch.compile needs on a CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++"))


def free_memory() -> int:
    """Bytes of main memory that can still be taken."""
    free = UNKNOWN_MEMORY
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                free = int(line.split()[1]) * 1024
    for limit, usage, statistics in MEMORY_FILES:
        with suppress(OSError, ValueError):
            most = int((CGROUP / limit).read_text())
            taken = int((CGROUP / usage).read_text())
            # What is only cached of files can be given back.
            return min(free, max(0, most - taken + _inactive(CGROUP / statistics)))
    return free


def resident(reset_peak: bool = False) -> tuple[int, int]:
    """Bytes of main memory that this process holds, and the most that it held since it started or the last reset.

    (0, 0) if the system does not say.
    """
    kilobytes = {}
    with suppress(OSError, ValueError):
        if reset_peak:
            Path("/proc/self/clear_refs").write_text("5")
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                kilobytes[name] = int(value.split()[0])
    return 1024 * kilobytes.get("VmRSS", 0), 1024 * kilobytes.get("VmHWM", 0)


def peak_memory(usage: Any = None) -> int:
    """The most bytes of main memory that this process ever held; 0 if the system does not say.

    Args:
        usage: of a child that ended, as os.wait4 gives it: the most that it held.
    """
    if usage is None:
        # If there is /proc, not what the system accounts for: that is never below what the parent had at the start.
        if most := resident()[1]:
            return most
        try:
            import resource
        except ImportError:  # Windows
            return 0
        usage = resource.getrusage(resource.RUSAGE_SELF)
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def private_memory(process: int) -> int:
    """Bytes of main memory that a process shares with no other; 0 if it has ended or the system does not say."""
    with suppress(OSError, ValueError):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return 0


def _inactive(path: Path) -> int:
    with suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0
