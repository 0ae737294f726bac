"""Forty steps of `fast`, start included, alone and beside processes that compute, with several ways of waiting.

    python benchmarks/beside.py --out beside [--beside 0 1 2 4] [--rounds 3]

The threads of an OpenMP runtime spin while they wait for one another. If another process has the core of the thread
that they wait for, they spin for as long as the system lets it run. The ways are measured in turns, so that what else
the machine does hits all alike. Prints a Markdown table and writes OUT/beside.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: What each way sets. GNU's runtime spins 300,000 times by default if there are not more threads than cores.
WAYS: dict[str, dict[str, str]] = {
    "spinning": {"OMP_WAIT_POLICY": "", "GOMP_SPINCOUNT": "300000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "spin 30000": {"GOMP_SPINCOUNT": "30000"},
    "hemotorch's own": {},
}
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
BUSY = "x = 0\nwhile True: x += 1"  #: a process that computes
STEPS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("beside"), help="for the data and beside.json")
    parser.add_argument("--beside", type=int, nargs="+", default=[0, 1, 2, 4], help="how many processes compute beside")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="which ways of waiting")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    prepared = options.out / "prepared"
    if not prepared.exists():
        hemotorch({}, "phantom", str(options.out / "data"), "--preset", "small")
        hemotorch({}, "prepare", str(options.out / "data"), str(prepared))
    seconds: dict[str, dict[int, list[float]]] = {way: {count: [] for count in options.beside} for way in options.ways}
    load = os.getloadavg()[0]
    for number in range(options.rounds):
        for count in options.beside:
            for way in options.ways:
                with busy_processes(count):
                    seconds[way][count].append(forty_steps(prepared, options.out / "run", WAYS[way]))
                print(f"round {number + 1}, beside {count}, {way}: {seconds[way][count][-1]:.1f} s", file=sys.stderr)
    result = {"processor": platform.processor(), "cores": os.cpu_count(), "load_before": load, "seconds": seconds}
    (options.out / "beside.json").write_text(json.dumps(result, indent=2) + "\n")
    print("\n".join(table(seconds)))


def hemotorch(way: dict[str, str], *arguments: str) -> None:
    """Runs one command of hemotorch. way: variables, an empty one for none."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= {name: value for name, value in way.items() if value}
    command = [sys.executable, "-m", "hemotorch.cli", *arguments]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def forty_steps(prepared: Path, run: Path, way: dict[str, str]) -> float:
    """Seconds of a whole process that trains forty steps."""
    shutil.rmtree(run, ignore_errors=True)
    settings = ["train.epochs=1", f"train.steps_per_epoch={STEPS}", "train.best_by=last", "data.validation=false"]
    words = [word for setting in settings for word in ("--set", setting)]
    began = time.perf_counter()
    hemotorch(way, "train", str(prepared), str(run), "--device", "cpu", *words)
    return time.perf_counter() - began


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """That many processes that compute, each on one core."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def table(seconds: dict[str, dict[int, list[float]]]) -> list[str]:
    """A row per way: the median and the range in seconds, by the number of processes beside."""
    counts = list(next(iter(seconds.values())))
    lines = [
        "| waiting | " + " | ".join(f"beside {count}" for count in counts) + " |",
        "|---" * (len(counts) + 1) + "|",
    ]
    for way, times in seconds.items():
        cells = []
        for count in counts:
            values = times[count]
            cells.append(f"{statistics.median(values):.1f} s [{min(values):.1f}, {max(values):.1f}]")
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()
