"""`hemotorch bench mlp`: SGD, momentum and Adam on small networks, in steps and in seconds, and what a step costs."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hemotorch import recipe
from hemotorch.bench import data as bench_data
from hemotorch.bench.children import run_together
from hemotorch.bench.configs import Machine, devices_of, sweep_configs, unique
from hemotorch.bench.measure import Pace, look_at_machine, measure
from hemotorch.bench.result import Bench, clock
from hemotorch.bench.rows import Config, Row, Spec, compared
from hemotorch.bench.train import engine_settings, row_numbers
from hemotorch.files import write_json
from hemotorch.recipe import Recipe

#: Learning rate of each algorithm: of three tried, the one with the lowest training loss after 200 steps, or 150 of the
#: U-Net's (docs/bench.md).
RATES: Mapping[str, Mapping[str, float]] = {
    "digits": {"SGD": 0.3, "momentum": 0.1, "Adam": 3e-3},
    "mlp": {"SGD": 0.3, "momentum": 0.1, "Adam": 3e-3},
    "unet": {"SGD": 0.3, "momentum": 0.03, "Adam": 1e-2},
}
SETTINGS = {
    "SGD": ["optimizer.name=sgd", "optimizer.momentum=0"],
    "momentum": ["optimizer.name=sgd", "optimizer.momentum=0.9"],
    "Adam": ["optimizer.name=adam"],
}
NETS = {
    "mlp": ["net.name=mlp"],
    "unet": ["net.name=unet-medicaltorch", "net.options.channels=8"],
}
TITLES = {"digits": "Digits", "mlp": "Pixel windows", "unet": "The paper's U-Net, small"}
STEPS, QUICK_STEPS = {"digits": 1500, "mlp": 600, "unet": 600}, {"digits": 600, "mlp": 150, "unet": 100}
POINTS = {"digits": 30, "mlp": 10, "unet": 10}
BATCHES = (1, 2, 4, 8, 16, 32)
LIMIT_S = 1800.0  #: of a curve
QUICK_PACE = Pace(limit_s=150.0, budget_s=200.0)
ENOUGH = 0.9  #: of the best value of all at the end: when it is reached is what is compared


def bench_mlp(
    data: Path | None = None,
    net: str = "mlp",
    *,
    device: str = "auto",
    rounds: int = 3,
    quick: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Bench:
    """Learning curves of each algorithm on each device, and rows of how long a step takes over batch and threads.

    data: a prepared dataset; None makes a phantom. net: "mlp" or "unet". Raises InputError, OptionError.
    """
    used = small_recipe(net)
    if data is not None:
        bench_data.checked(data, used)
    machine, environment = look_at_machine()
    devices, notes = devices_of(device, machine), []
    with TemporaryDirectory(prefix="hemotorch-bench-") as folder:
        place = data
        if place is None:
            notes.append("Trained on a phantom, made for this; name your own data with --data.")
            say(f"no --data: making a phantom in {folder}")
            place = bench_data.make_phantom(Path(folder), quick=True)
        dataset = bench_data.checked(place, used)
        tasks = ["digits", net] if net == "mlp" else [net]
        if "digits" in tasks and importlib.util.find_spec("sklearn") is None:
            notes.append("Digits left out: scikit-learn is not installed; `pip install 'hemotorch[bench]'` brings it.")
            tasks.remove("digits")
        curves, failed = _curves(tasks, devices, place, used, quick, say)
        rows, sweeps, told = _steps(place, used, devices, machine, replace(_pace(quick), rounds=rounds), quick, say)
    notes += failed + ([f"Measured in {told}."] if told else [])
    notes += ["Quick: few steps, so that no curve is at its end."] if quick else []
    settings = {
        "recipe": used.name, "recipe_toml": used.to_toml(), "net": net, "quick": quick, **bench_data.described(dataset),
        "data": "phantom" if data is None else str(data), "rates": RATES,
    }  # fmt: skip
    said = " ".join(said_of(curves)) or "No learning curve could be measured."
    return Bench("mlp", said, settings, environment, tuple(rows), sweeps, tuple(curves), tuple(notes))


def small_recipe(net: str) -> Recipe:
    """Squares of 96 pixels at 1.2 mm around bleeding, and nothing that would hide what the algorithm does: no schedule,
    no average of weights, no augmentation."""
    return recipe.Recipe(name=f"bench-{net}").changed([
        *NETS[net], "grid.pixel_mm=1.2", "grid.size_px=192", "data.positive_share=0.75", "augment.crop_px=96",
        "train.batch=8", "train.epochs=1", "loss.name=dice-cross-entropy",
    ])  # fmt: skip


def _pace(quick: bool) -> Pace:
    return QUICK_PACE if quick else Pace()


def _curves(
    tasks: Sequence[str], devices: Sequence[str], place: Path, used: Recipe, quick: bool, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], list[str]]:
    """An entry an algorithm, task and device, in a mixed order; and what failed."""
    jobs = [(task, device, name) for task in tasks for device in devices for name in SETTINGS]
    order = random.Random(0).sample(jobs, len(jobs))
    found: dict[Any, dict[str, Any]] = {}
    failed = []
    for number, (task, device, name) in enumerate(order, 1):
        spec = curve_spec(task, device, name, place, used, quick)
        entry = curve(spec)
        label = f"{TITLES[task]}, {name}, {device}"
        if isinstance(entry, str):
            failed.append(f"{label} failed: {entry}.")
            say(failed[-1])
            continue
        several = f", {'GPU' if device == 'cuda' else 'CPU'}" if len(devices) > 1 else ""
        entry |= {"task": TITLES[task] + several, "algorithm": name, "device": device, "lr": spec["lr"]}
        entry |= {"value_name": "accuracy" if task == "digits" else "Dice", "note": _note(task, used)}
        found[task, device, name] = entry
        say(f"curve {number:>2} of {len(order)}   {label}   {entry['value_name']} {entry['value'][-1]:.2f}")
    return [found[job] for job in jobs if job in found], failed


def curve_spec(task: str, device: str, name: str, place: Path, used: Recipe, quick: bool) -> dict[str, Any]:
    """What `hemotorch.bench.curves` is to do."""
    steps = (QUICK_STEPS if quick else STEPS)[task]
    lr = RATES[task][name]
    made = used.changed([*SETTINGS[name], f"optimizer.lr={lr}", f"train.steps_per_epoch={steps}"])
    return {
        "task": "digits" if task == "digits" else "slices", "algorithm": name, "device": device, "steps": steps,
        "points": POINTS[task], "lr": lr, "data": str(place), "recipe": made.to_toml(),
    }  # fmt: skip


def curve(spec: Mapping[str, Any]) -> dict[str, Any] | str:
    """The curve, or why there is none."""
    with TemporaryDirectory(prefix="hemotorch-bench-") as folder:
        path = Path(folder) / "spec.json"
        write_json(path, spec)
        printed, error = run_together([sys.executable, "-m", "hemotorch.bench.curves", str(path)], [{}], LIMIT_S)
    return error or dict(json.loads(printed.splitlines()[-1]))


def _note(task: str, used: Recipe) -> str:
    if task == "digits":
        return (
            "8 x 8 pixels of ten handwritten digits, which come with scikit-learn; a perceptron of 64 and 32 hidden "
            "units, 64 images a step. Accuracy on the quarter that was not trained on."
        )
    net = (
        "the perceptron on the 15 x 15 pixels around each pixel"
        if task == "mlp"
        else "MedicalTorch's U-Net from 8 channels on"
    )
    return (
        f"Bleeding in slices: {net}, squares of 96 x 96 pixels, {used.train.batch} a step. Dice on validation "
        "patients, as a training validates it, with the clock stopped."
    )


def _steps(
    place: Path,
    used: Recipe,
    devices: Sequence[str],
    machine: Machine,
    pace: Pace,
    quick: bool,
    say: Callable[[str], None],
) -> tuple[list[Row], dict[str, dict[str, list[int]]], str]:
    """How long a step takes over batch and threads."""
    batch = used.train.batch
    threads = sorted({1, machine.cores})
    wanted = {"batch": BATCHES, "threads": tuple(threads)}
    sweeps, _ = sweep_configs(wanted, devices, machine, batch, reference=False)
    configs = unique((config for members in sweeps.values() for config in members), batch)
    configs.sort(key=lambda config: config.batch != batch)
    specs = [_step_spec(config, place, used, machine.cores, quick) for config in configs]
    rows, told = measure(specs, pace, say)
    return compared(rows), row_numbers(sweeps, configs), told


def _step_spec(config: Config, place: Path, used: Recipe, cores: int, quick: bool) -> Spec:
    settings = [*engine_settings(config), f"train.batch={config.batch}", *SETTINGS["Adam"]]
    return Spec(config, str(place), used.changed(settings).to_toml(), seconds=1.0 if quick else 5.0, cores=cores)


def said_of(curves: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence a task: which algorithm reached most of the best value first, and what the others took."""
    said = []
    for task in dict.fromkeys(entry["task"] for entry in curves):
        entries = [entry for entry in curves if entry["task"] == task]
        best = max(max(entry["value"]) for entry in entries)
        reached = {entry["algorithm"]: _reached(entry, ENOUGH * best) for entry in entries}
        known = {name: seconds for name, seconds in reached.items() if seconds is not None}
        first = min(known, key=lambda name: known[name])
        others = [
            f"{name} {'not at all' if at is None else f'after {clock(at)}'}"
            for name, at in reached.items()
            if name != first
        ]
        name = entries[0]["value_name"]
        said.append(
            f"{task}: {first} is the first to reach {name} {ENOUGH * best:.2f}, nine tenths of the best, after "
            f"{clock(known[first])} of training" + (f"; {', '.join(others)}." if others else ".")
        )
    return said


def _reached(entry: Mapping[str, Any], wanted: float) -> float | None:
    return next((at for at, value in zip(entry["seconds"], entry["value"], strict=True) if value >= wanted), None)
