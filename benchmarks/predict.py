"""How long `hemotorch predict` takes as a user waits for it: the whole process, start included, and its memory.

    python benchmarks/predict.py RUN [SCAN] [--repeats 7] [--json FILE]

Without SCAN, a phantom of 512 x 512 x 32 is made. One run that is not counted comes first, so that files are in the
system's cache; then `--repeats` runs. `bare` starts Python and imports torch, and takes turns with it: what no torch
program can go below on this machine at this minute.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

WAYS = ("bare", "predict")  # nothing heavy is imported here: a child's peak memory is never below its parent's


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds and peak resident MB of one process."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return seconds, usage.ru_maxrss / 1024


def phantom(path: Path) -> Path:
    """A 512 x 512 x 32 head with bleeding, as .nii.gz."""
    from dataclasses import replace

    from hemotorch.io import write_scan
    from hemotorch.phantom.case import make_case
    from hemotorch.phantom.presets import preset

    scan = make_case(replace(preset("ct-ich"), vary=0.0), 4).scan
    first = max(0, len(scan.hu) - 32)
    kept = {"hu": scan.hu[first:], "slice_origins_mm": scan.slice_origins_mm[first:], "slice_numbers": ()}
    write_scan(replace(scan, **kept), path)
    return path


def machine() -> dict[str, Any]:
    """Processor and versions."""
    from hemotorch.device import environment

    return environment()


def main() -> None:
    """Measures, prints a table, and writes JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("scan", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        with ProcessPoolExecutor(1, get_context("spawn")) as apart:
            scan = arguments.scan or apart.submit(phantom, Path(folder) / "phantom.nii.gz").result()
            about = apart.submit(machine).result()
        predict = ["predict", str(arguments.run), str(scan), "--out", f"{folder}/out", "--overwrite"]
        commands = {
            "bare": [sys.executable, "-c", "import torch"],
            "predict": [sys.executable, "-m", "hemotorch.cli", *predict],
        }
        for turn in range(arguments.repeats + 1):
            for way in WAYS:
                found = measure(commands[way])
                if turn:
                    rows[way].append(found)
    result = {
        "scan": str(arguments.scan or "phantom 512 x 512 x 32"),
        "environment": about,
        "rows": [
            {
                "way": way,
                "seconds": statistics.median(s for s, _ in found),
                "fastest": min(s for s, _ in found),
                "slowest": max(s for s, _ in found),
                "peak_mb": max(mb for _, mb in found),
            }
            for way, found in rows.items()
        ],
    }
    for row in result["rows"]:
        print("{way:8} {seconds:5.2f} s ({fastest:.2f} to {slowest:.2f})   {peak_mb:5.0f} MB at most".format(**row))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
