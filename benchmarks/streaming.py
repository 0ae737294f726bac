"""Main memory of a training that streams, on a phantom and on one of ten times as many patients.

    python benchmarks/streaming.py [--patients 12] [--times 10] [--rounds 3] [--json FILE]

Each training is a process of its own, `fast` with data.memory=stream for two epochs of 40 steps, validation included;
they take turns. What is compared is the most that a process held, as the system counts it. Needs Linux or macOS.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HEMOTORCH = [sys.executable, "-m", "hemotorch.cli"]
KIB = 1 if sys.platform == "darwin" else 1024  #: what ru_maxrss counts in
SETTINGS = ("data.memory=stream", "train.epochs=2", "train.steps_per_epoch=40", "train.validate_every=2")


def dataset(folder: Path, patients: int) -> Path:
    """A prepared phantom of so many patients."""
    subprocess.run(
        [*HEMOTORCH, "phantom", str(folder / "ct"), "--preset", "small", "--patients", str(patients)], check=True
    )
    subprocess.run([*HEMOTORCH, "prepare", str(folder / "ct"), str(folder / "prepared")], check=True)
    return folder / "prepared"


def peak_mb(data: Path, run: Path) -> float:
    """The most memory that a training on `data` held."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    child = subprocess.Popen(
        [*HEMOTORCH, "train", str(data), str(run), "--recipe", "fast", *settings], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"training failed with status {status}")
    return usage.ru_maxrss * KIB / 1e6


def main() -> None:
    """Makes both datasets, trains on them in turns, prints peaks and ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = (a.patients, a.patients * a.times)
        places = {count: dataset(Path(folder) / str(count), count) for count in sizes}
        bytes_ = {n: sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) for n, root in places.items()}
        peaks: dict[int, list[float]] = {count: [] for count in sizes}
        for number in range(a.rounds):
            for count in sizes if number % 2 else sizes[::-1]:
                peaks[count].append(peak_mb(places[count], Path(folder) / f"run-{count}-{number}"))
    for count in sizes:
        each = ", ".join(f"{peak:.0f}" for peak in peaks[count])
        print(f"{count} patients, {bytes_[count] / 1e6:.0f} MB on disk: {each} MB")
    small, large = (statistics.median(peaks[count]) for count in sizes)
    print(f"{a.times} times the patients: {100 * (large / small - 1):+.1f} % memory")
    if a.json:
        a.json.write_text(json.dumps({"megabytes": peaks, "on_disk": bytes_}, indent=1) + "\n")


if __name__ == "__main__":
    main()
