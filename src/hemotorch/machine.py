"""What this process may use of the machine it runs on: processors and memory, containers and batch systems included."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
UNKNOWN_MEMORY = 4 * 1024**3  #: taken where a system does not say


def cores() -> int:
    """Processors this process may use: those it is bound to, and no more than a container's share of time."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        mine = min(mine, max(1, round(int(quota) / int(period))))
    return mine


def free_memory() -> int:
    """Bytes of main memory that can still be taken."""
    free = UNKNOWN_MEMORY
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                free = int(line.split()[1]) * 1024
    # cgroup v2, then v1. What is only cached of files can be given back.
    for limit, used, cached in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        with suppress(OSError, ValueError):
            most, taken = (int((CGROUP / name).read_text()) for name in (limit, used))
            return min(free, max(0, most - taken + _inactive(CGROUP / cached)))
    return free


def _inactive(path: Path) -> int:
    with suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0
