"""`hemotorch bench predict`: how long a user waits for predictions, the start of the process included, and its memory.

Nothing heavy is imported here: what the system says of a child's peak memory is never below what its parent had.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hemotorch.bench.processes import Pace, child_environment, in_rounds, look_at_machine
from hemotorch.bench.records import Bench, Config, Round, Row, busy
from hemotorch.errors import RunError
from hemotorch.inference import box
from hemotorch.system.events import Message, emit
from hemotorch.system.machine import peak_memory

if TYPE_CHECKING:
    from hemotorch.inference.deployment import Deployment

#: Start: Python, libraries, the model, and the end.
PHASES = ("start", "read", "prepare", "network", "mask", "doubts", "write", "page")
#: Of the phantom; True: of a quick one.
SLICES = {False: 32, True: 24}
#: What a process imports to run a model: of a run, and of an ONNX file.
IMPORT, IMPORT_ONNX = "import torch", "import onnxruntime"
#: What to change if most of the time goes to a phase.
ADVICE = {
    "read": "store the scans on a faster disk, or uncompressed",
    "prepare": "train on larger pixels (grid.pixel_mm)",
    "mask": "train without predict.closing_px, predict.opening_px and predict.min_ml",
    "write": "choose an --out on a faster disk",
}


def bench_predict(
    model: Path | str,
    scans: Sequence[Path | str],
    *,
    device: str = "auto",
    rounds: int = 3,
    quick: bool = False,
) -> Bench:
    """Predicts the scans in processes of their own, each way once per round, after one that is not counted.

    Args:
        model: run folder, checkpoint, ONNX file, or the name of a model in the box.
        scans: NIfTI files; none: a phantom of 512 x 512 x 32, or 192 x 192 x 24 if `quick`.
        device: as `hemotorch predict --device`.
        rounds: how often each way is measured.
        quick: whether the phantom is small.

    Raises:
        InputError, RunError: if the model or a scan cannot be read, or predicting fails.
    """
    model = box.named(model)
    with TemporaryDirectory(prefix="hemotorch-bench-") as name:
        folder = Path(name)
        # Apart, since torch is imported for it.
        with ProcessPoolExecutor(1, get_context("spawn")) as apart:
            other_file = str(folder / f"other{'.onnx' if is_onnx(model) else '.pt'}")
            other, mirrors = apart.submit(mirrored_otherwise, str(model), other_file).result()
            files = [str(scan) for scan in scans]
            if not files:
                emit(Message("no SCAN: making a phantom"))
                files = [apart.submit(phantom, str(folder / "phantom.nii.gz"), quick).result()]
            slices = apart.submit(count_slices, files).result()
        machine, environment = look_at_machine()
        names = ("with mirroring", "without mirroring")
        mirroring, otherwise = names if mirrors else reversed(names)
        bare = IMPORT_ONNX if is_onnx(model) else IMPORT
        models = {bare: "", f"all cores, {mirroring}": str(model), f"all cores, {otherwise}": other}
        configs = [Config(label, batch=slices) for label in models]
        if hasattr(os, "sched_setaffinity") and machine.cores > 1:
            models[f"1 core, {mirroring}"] = str(model)
            configs.append(Config(f"1 core, {mirroring}", threads=1, batch=slices))

        def measured(index: int, number: int) -> Round:
            return once(configs[index], models[configs[index].label], files, folder, device)

        # Brings files into the system's cache.
        measured(1, 0)
        results, _ = in_rounds(list(models), measured, lambda result: f"{result.seconds:.2f} s", Pace(rounds))
    for result in results:
        if result.errors:
            raise RunError(result.errors[-1])
    rows = [Row(config, tuple(result.values)) for config, result in zip(configs, results, strict=True)]
    scan_names = [Path(file).name for file in files]
    settings = {"model": str(model), "scans": scan_names, "slices": slices, "phantom": not scans}
    settings |= {"device": device, "rounds": rounds, "quick": quick}
    return Bench(
        kind="predict",
        sentence=waiting_sentence(rows, on_gpu=device != "cpu" and machine.gpus > 0, mirrors=mirrors),
        settings=settings,
        environment=environment,
        rows=tuple(rows),
        warnings=tuple(filter(None, [busy(environment)])),
        notes=(f"{slices} slices: {', '.join(scan_names)}",),
    )


def once(config: Config, model: str, scans: Sequence[str], folder: Path, device: str) -> Round:
    """Seconds of the whole process, shares of its phases, and its peak memory.

    model: run folder, checkpoint or ONNX file; "" for a process that only imports what the label says. Raises RunError
    if it fails.
    """
    command = [sys.executable, "-c", config.label]
    if model:
        command = [sys.executable, "-m", "hemotorch.cli", "predict", model, *scans, "--json", "--device", device]
        command += ["--out", str(folder / "out"), "--overwrite"]
    bound = None
    if config.threads:
        cores = sorted(os.sched_getaffinity(0))[: config.threads]
        bound = functools.partial(os.sched_setaffinity, 0, cores)
    printed, errors = folder / "printed", folder / "errors"
    with open(printed, "wb") as stdout, open(errors, "wb") as stderr:
        start = time.perf_counter()
        # wait4 alone says what this child held at most.
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, preexec_fn=bound, env=child_environment())
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    # So that Popen does not look for the child again.
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = errors.read_text(errors="replace").splitlines()
        raise RunError(lines[-1] if lines else f"ended with status {process.returncode}", "hemotorch predict")
    phases = dict.fromkeys(PHASES, 0.0)
    predictions = json.loads(printed.read_text())["predictions"] if model else []
    for prediction in predictions:
        for phase, spent in prediction["seconds"].items():
            phases[phase] = phases.get(phase, 0.0) + spent
    phases["start"] = max(0.0, seconds - sum(phases.values()))
    shares = {phase: spent / seconds for phase, spent in phases.items()}
    return Round((seconds,), config.batch if model else 0, shares, memory_mb=peak_memory(usage) / 1e6)


def waiting_sentence(rows: Sequence[Row], on_gpu: bool, mirrors: bool) -> str:
    """What a user waits for most, and what to change.

    rows: of importing a library, and of the model as it is. on_gpu, mirrors: how the model predicted.
    """
    bare, usual = rows[0], rows[1]
    longest = max(usual.shares, key=lambda phase: usual.shares[phase])
    text = f"A user waits {usual.step_s:.1f} s, {usual.shares[longest]:.0%} of it for"
    if longest == "start":
        importing = bare.config.label.replace("import", "importing", 1)
        share = f"{importing} alone is {bare.step_s / usual.step_s:.0%}"
        return f"{text} the start ({share}): give several scans in one call, or keep a process running."
    options = {"use a GPU": not on_gpu, "train without predict.mirror": mirrors}
    network = [option for option, helps in options.items() if helps] or ["train a smaller network (--recipe fast)"]
    return f"{text} '{longest}': {ADVICE.get(longest, ', or '.join(network))}."


def is_onnx(model: Path | str) -> bool:
    """Whether it is an ONNX file; nothing is imported to tell."""
    return Path(model).suffix == ".onnx"


def phantom(path: str, quick: bool) -> str:
    """Writes a head with bleeding, 512 x 512 x 32 or 192 x 192 x 24, and returns its path."""
    from hemotorch.io import write_scan
    from hemotorch.phantom.case import make_case
    from hemotorch.phantom.presets import preset

    scan = make_case(replace(preset("small" if quick else "ct-ich"), vary=0.0), 4).scan
    first = max(0, len(scan.hu) - SLICES[quick])
    origins = scan.slice_origins_mm[first:]
    write_scan(replace(scan, hu=scan.hu[first:], slice_origins_mm=origins, slice_numbers=()), Path(path))
    return path


def mirrored_otherwise(model: str, path: str) -> tuple[str, bool]:
    """A file like the model's that mirrors if that one does not, and the other way round; whether it does."""
    if is_onnx(model):
        from hemotorch.inference.onnx_model import write_deployed_otherwise

        note = write_deployed_otherwise(Path(model), Path(path), _other_mirror)
        return path, note.deployment.predict.mirror
    from hemotorch.inference.checkpoint import load_checkpoint, save_checkpoint
    from hemotorch.run import BEST

    checkpoint = load_checkpoint(Path(model) / BEST if Path(model).is_dir() else Path(model))
    deployment = checkpoint.deployment
    save_checkpoint(replace(checkpoint, deployment=_other_mirror(deployment), trainer={}), Path(path))
    return path, deployment.predict.mirror


def _other_mirror(deployment: Deployment) -> Deployment:
    return replace(deployment, predict=replace(deployment.predict, mirror=not deployment.predict.mirror))


def count_slices(files: Sequence[str]) -> int:
    """Of all scans together. Raises InputError if one cannot be read."""
    from hemotorch.io import read_scan

    return sum(len(read_scan(file).hu) for file in files)
