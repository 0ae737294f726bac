"""`hemotorch bench predict`: how long a user waits for predictions, the start of the process included, and its memory.

Nothing heavy is imported here: what the system says of a child's peak memory is never below what its parent had.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hemotorch import NOTICE, __version__
from hemotorch.bench.children import own_environment
from hemotorch.bench.configs import Machine
from hemotorch.bench.measure import look_at_machine
from hemotorch.bench.result import FORMAT, aligned, busy
from hemotorch.errors import RunError
from hemotorch.system.machine import peak_memory

PHASES = ("start", "read", "prepare", "network", "mask", "write")  #: start: Python, torch, the model, and the end
SLICES = {False: 32, True: 24}  #: of the phantom; True: of a quick one


@dataclass(frozen=True)
class Way:
    """One way to predict. cores: that the process may use, 0 for all; model: run folder or checkpoint, "" for none."""

    label: str
    cores: int
    model: str


def bench_predict(
    model: Path | str,
    scans: Sequence[Path | str],
    *,
    device: str = "auto",
    rounds: int = 3,
    quick: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Predicts the scans in processes of their own, each way once a round, after one that is not counted.

    scans: NIfTI files; none: a phantom of 512 x 512 x 32, or 192 x 192 x 24 if `quick`. Raises InputError, RunError.
    """
    with TemporaryDirectory(prefix="hemotorch-bench-") as folder:
        place = Path(folder)
        with ProcessPoolExecutor(1, get_context("spawn")) as apart:
            other, mirrors = apart.submit(mirrored_otherwise, str(model), str(place / "other.pt")).result()
            files = [str(scan) for scan in scans]
            if not files:
                say("no SCAN: making a phantom")
                files = [apart.submit(phantom, str(place / "phantom.nii.gz"), quick).result()]
            slices = apart.submit(count_slices, files).result()
        machine, environment = look_at_machine()
        ways = _ways(str(model), other, mirrors, machine)
        found: dict[str, list[dict[str, Any]]] = {way.label: [] for way in ways}
        once(ways[1], files, place, device)  # brings files into the system's cache
        for number in range(rounds):
            turn = number % len(ways)
            for way in ways[turn:] + ways[:turn]:
                found[way.label].append(once(way, files, place, device))
                say(f"round {number + 1} of {rounds}   {way.label}   {found[way.label][-1]['seconds']:.2f} s")
    rows = [_row(way, found[way.label], slices) for way in ways]
    return {
        "format": FORMAT,
        "hemotorch": __version__,
        "kind": "predict",
        "sentence": _sentence(rows, on_gpu=device != "cpu" and machine.gpus > 0, mirrors=mirrors),
        "settings": {"model": str(model), "scans": [Path(file).name for file in files], "slices": slices,
                     "phantom": not scans, "device": device, "rounds": rounds, "quick": quick},
        "environment": environment,
        "rows": rows,
        "warnings": [told] if (told := busy(environment)) else [],
        "notice": NOTICE,
    }  # fmt: skip


def _ways(model: str, other: str, mirrors: bool, machine: Machine) -> list[Way]:
    mirror = ("with", "without") if mirrors else ("without", "with")
    ways = [
        Way("import torch", 0, ""),
        Way(f"all cores, {mirror[0]} mirroring", 0, model),
        Way(f"all cores, {mirror[1]} mirroring", 0, other),
    ]
    if hasattr(os, "sched_setaffinity") and machine.cores > 1:
        ways.append(Way(f"1 core, {mirror[0]} mirroring", 1, model))
    return ways


def once(way: Way, scans: Sequence[str], folder: Path, device: str) -> dict[str, Any]:
    """Seconds of the whole process, of its phases, and its peak memory in MB. Raises RunError where it fails."""
    predict = ["-m", "hemotorch.cli", "predict", way.model, *scans, "--out", str(folder / "out"), "--overwrite"]
    command = [sys.executable, *([*predict, "--json", "--device", device] if way.model else ["-c", "import torch"])]
    bound = functools.partial(os.sched_setaffinity, 0, _some_cores(way.cores)) if way.cores else None
    printed, told = folder / "printed", folder / "told"
    with open(printed, "wb") as out, open(told, "wb") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=errors, preexec_fn=bound, env=own_environment())
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not look for the child again
    if process.returncode:
        lines = told.read_text(errors="replace").splitlines()
        raise RunError(lines[-1] if lines else f"ended with status {process.returncode}", "hemotorch predict")
    phases = dict.fromkeys(PHASES, 0.0)
    for result in json.loads(printed.read_text())["predictions"] if way.model else ():
        for phase, spent in result["seconds"].items():
            phases[phase] = phases.get(phase, 0.0) + spent
    phases["start"] = max(0.0, seconds - sum(phases.values()))
    return {"seconds": seconds, "phases": phases, "peak_mb": peak_memory(usage) / 1e6}


def _some_cores(count: int) -> set[int]:
    return set(sorted(os.sched_getaffinity(0))[:count])


def _row(way: Way, found: Sequence[dict[str, Any]], slices: int) -> dict[str, Any]:
    seconds = [one["seconds"] for one in found]
    phases = {phase: statistics.median(one["phases"][phase] for one in found) for phase in PHASES}
    working = sum(phases.values()) - phases["start"]
    return {
        "label": way.label,
        "seconds": statistics.median(seconds),
        "low": min(seconds),
        "high": max(seconds),
        "phases": phases,
        "images_s": slices / working if working else None,
        "peak_mb": max(one["peak_mb"] for one in found),
    }


def _sentence(rows: Sequence[dict[str, Any]], on_gpu: bool, mirrors: bool) -> str:
    """What a user waits for most, and what to change. on_gpu, mirrors: how the model predicted."""
    bare, usual = rows[0], rows[1]
    whole, phases = usual["seconds"], usual["phases"]
    longest = max(phases, key=lambda phase: phases[phase])
    start = f"A user waits {whole:.1f} s"
    if longest == "start":
        share = bare["seconds"] / whole
        return (
            f"{start}, {phases['start'] / whole:.0%} of it for the start (importing torch alone is {share:.0%}): give "
            "several scans in one call, or keep a process running."
        )
    network = [*([] if on_gpu else ["use a GPU"]), *(["train without predict.mirror"] if mirrors else [])]
    todo = {
        "network": ", or ".join(network) or "train a smaller network (--recipe fast)",
        "read": "store the scans on a faster disk, or uncompressed",
        "prepare": "train on larger pixels (grid.pixel_mm)",
        "mask": "train without predict.closing_px, predict.opening_px and predict.min_ml",
        "write": "choose an --out on a faster disk",
    }[longest]
    return f"{start}, {phases[longest] / whole:.0%} of it for '{longest}': {todo}."


def lines(values: dict[str, Any]) -> list[str]:
    """The result as text."""
    table = [["", "seconds", "[low, high]", *PHASES, "images/s", "memory"]]
    for row in values["rows"]:
        spent = [f"{row['phases'][phase]:.2f}" for phase in PHASES]
        rate = "-" if row["images_s"] is None else f"{row['images_s']:.1f}"
        span = f"[{row['low']:.2f}, {row['high']:.2f}]"
        table.append([row["label"], f"{row['seconds']:.2f}", span, *spent, rate, f"{row['peak_mb']:,.0f} MB"])
    shown = ", ".join(values["settings"]["scans"])
    return [
        *aligned(table),
        "",
        f"{values['settings']['slices']} slices: {shown}",
        *values["warnings"],
        values["sentence"],
        NOTICE,
    ]


def phantom(path: str, quick: bool) -> str:
    """Writes a head with bleeding, 512 x 512 x 32 or 192 x 192 x 24, and returns its path."""
    from dataclasses import replace

    from hemotorch.io import write_scan
    from hemotorch.phantom.case import make_case
    from hemotorch.phantom.presets import preset

    scan = make_case(replace(preset("small" if quick else "ct-ich"), vary=0.0), 4).scan
    first = max(0, len(scan.hu) - SLICES[quick])
    kept: dict[str, Any] = {"hu": scan.hu[first:], "slice_origins_mm": scan.slice_origins_mm[first:]}
    write_scan(replace(scan, **kept, slice_numbers=()), Path(path))
    return path


def mirrored_otherwise(model: str, path: str) -> tuple[str, bool]:
    """A checkpoint like the model's that mirrors where that one does not, and the other way round; whether it does."""
    from dataclasses import replace

    from hemotorch.inference.checkpoint import load_checkpoint, save_checkpoint
    from hemotorch.run import BEST

    checkpoint = load_checkpoint(Path(model) / BEST if Path(model).is_dir() else Path(model))
    deployment = checkpoint.deployment
    mirrors = deployment.predict.mirror
    changed = replace(deployment, predict=replace(deployment.predict, mirror=not mirrors))
    save_checkpoint(replace(checkpoint, deployment=changed, trainer={}), Path(path))
    return path, mirrors


def count_slices(files: Sequence[str]) -> int:
    """Of all scans together. Raises InputError where one cannot be read."""
    from hemotorch.io import read_scan

    return sum(len(read_scan(file).hu) for file in files)
