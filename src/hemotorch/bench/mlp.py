"""`hemotorch bench mlp`: SGD, momentum and Adam on small networks, in steps and in seconds, and what a step costs."""

from __future__ import annotations

import importlib.util
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hemotorch.bench import data as bench_data
from hemotorch.bench.children import ask
from hemotorch.bench.configs import Scope, devices_of, parse_devices, sweep_configs, unique, usual
from hemotorch.bench.measure import Pace, look_at_machine, measure, settled_layout
from hemotorch.bench.result import Bench, when
from hemotorch.bench.rows import Config, Row, Spec, compared
from hemotorch.bench.train import engine_settings, row_numbers, unsteady
from hemotorch.recipe import Recipe

#: Learning rate of each algorithm: of two or three tried on the phantom, a factor of three apart, the one with the
#: lowest training loss after 300 steps; for SGD and momentum on slices with the best Dice of seed 0 at the end: three
#: times as high they learn faster at first, and then find nothing any more.
RATES: Mapping[str, Mapping[str, float]] = {
    "digits": {"SGD": 0.3, "momentum": 0.1, "Adam": 3e-3},
    "mlp": {"SGD": 0.3, "momentum": 0.03, "Adam": 1e-3},
    "unet": {"SGD": 0.3, "momentum": 0.03, "Adam": 3e-3},
}
SETTINGS = {
    "SGD": ["optimizer.name=sgd", "optimizer.momentum=0"],
    "momentum": ["optimizer.name=sgd", "optimizer.momentum=0.9"],
    "Adam": ["optimizer.name=adam"],
}
NETS = {
    "mlp": ["net.name=mlp"],
    # So narrow, its dropout of four features in ten keeps it from learning anything in these steps.
    "unet": ["net.name=unet-medicaltorch", "net.options.channels=8", "net.options.drop_rate=0.0"],
}
DESCRIBED = {
    "mlp": "a perceptron on the 15 x 15 pixels around each pixel",
    "unet": "MedicalTorch's U-Net from 8 channels on, without dropout",
}
TITLES = {"digits": "Digits", "mlp": "Pixel windows", "unet": "The paper's U-Net, small"}
STEPS, QUICK_STEPS = {"digits": 1500, "mlp": 1500, "unet": 800}, {"digits": 600, "mlp": 300, "unet": 150}
POINTS = {"digits": 30, "mlp": 10, "unet": 10}
PATIENTS = 20  #: of the phantom
BATCHES = (1, 2, 4, 8, 16, 32)
LIMIT_S = 1800.0  #: of a curve
QUICK_PACE = Pace(limit_s=150.0, budget_s=200.0)
LEARNED = 0.05  #: accuracy or Dice below which nothing was learned
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

    data: a prepared dataset; None makes a phantom. net: "mlp" or "unet". rounds: how often a step is measured, and with
    how many seeds each curve. Raises InputError, OptionError.
    """
    recipe, named = small_recipe(net), parse_devices(device)
    if data is not None:
        bench_data.held_out(bench_data.checked(data, recipe), recipe)
    machine, environment = look_at_machine()
    devices, notes = devices_of(named, machine), []
    with TemporaryDirectory(prefix="hemotorch-bench-") as folder:
        place = data
        if place is None:
            notes.append("Trained on a phantom, made for this; name your own data with --data.")
            say(f"no --data: making a phantom in {folder}")
            place = bench_data.make_phantom(Path(folder), True, PATIENTS)
        dataset = bench_data.checked(place, recipe)
        bench_data.held_out(dataset, recipe)
        tasks = ["digits", net] if net == "mlp" else [net]
        if "digits" in tasks and importlib.util.find_spec("sklearn") is None:
            notes.append("Digits left out: scikit-learn is not installed; `pip install 'hemotorch[bench]'` brings it.")
            tasks.remove("digits")
        scope = Scope(machine, tuple(devices), recipe.train.batch, recipe.train.batch, quick=quick)
        own = dict.fromkeys(devices, recipe)
        if "cpu" in devices:
            say("trying layouts, as a training does before its first step")
            trial = recipe.changed([f"train.steps_per_epoch={STEPS[net]}"])
            layout, why = settled_layout(_step_spec(usual(scope)["cpu"], place, trial, scope))
            own["cpu"] = recipe.changed([layout])
            notes.append(why)
        specs = [
            curve_spec(task, where, name, place, own[where], quick)
            for task in tasks
            for where in devices
            for name in SETTINGS
        ]
        curves, failed = _curves(specs, rounds, say)
        rows, sweeps, told = _steps(place, own, scope, rounds, say)
    notes += failed + ([f"Measured in {told}."] if told else [])
    short = "Quick: few steps, so that no curve is at its end." if quick else ""
    warnings = tuple(filter(None, (unsteady(rows), short)))
    settings = {
        "recipe": recipe.name, "recipe_toml": recipe.to_toml(), "net": net, "quick": quick,
        **bench_data.described(dataset),
        "data": "phantom" if data is None else str(data), "rates": RATES,
    }  # fmt: skip
    said = " ".join(said_of(curves)) or "No learning curve could be measured."
    return Bench("mlp", said, settings, environment, tuple(rows), sweeps, tuple(curves), warnings, tuple(notes))


def small_recipe(net: str) -> Recipe:
    """Squares of 64 pixels of 2.4 mm around bleeding, and nothing that would hide what the algorithm does: no schedule,
    no average of weights, no augmentation."""
    return Recipe(name=f"bench-{net}").changed([
        *NETS[net], "grid.pixel_mm=2.4", "grid.size_px=96", "data.positive_share=0.75", "augment.crop_px=64",
        "train.batch=8", "train.epochs=1", "loss.name=negative-dice", "engine.precision=fp32", "engine.compile=off",
        "engine.graphs=off",
    ])  # fmt: skip


def _curves(
    specs: Sequence[Mapping[str, Any]], rounds: int, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], list[str]]:
    """An entry an algorithm, task and device, of as many runs as rounds, in a mixed order; and what failed."""
    jobs = [(number, seed) for seed in range(rounds) for number in range(len(specs))]
    order = random.Random(0).sample(jobs, len(jobs))
    found: dict[int, list[dict[str, Any]]] = {number: [] for number in range(len(specs))}
    failed = []
    for place, (number, seed) in enumerate(order, 1):
        spec = specs[number]
        run, error = curve({**spec, "seed": seed})
        label = f"{spec['title']}, {spec['algorithm']}, {spec['device']}, seed {seed}"
        if error:
            failed.append(f"{label} failed: {error}.")
            say(failed[-1])
            continue
        found[number].append(run)
        say(f"curve {place:>2} of {len(order)}   {label}   {spec['value_name']} {run['value'][-1]:.2f}")
    entries = [entry_of(specs[number], runs) for number, runs in found.items() if runs]
    return with_reached(entries), sorted(failed)


def entry_of(spec: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An algorithm's curve: at each look the medians of its runs; and the runs."""
    middle = {
        name: [statistics.median(values) for values in zip(*(run[name] for run in runs), strict=True)]
        for name in ("seconds", "loss", "value")
    }
    told = {name: spec[name] for name in ("algorithm", "device", "lr", "value_name", "note")}
    return {**told, "task": spec["title"], "steps": runs[0]["steps"], **middle, "runs": list(runs)}


def with_reached(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The entries with `wanted`, nine tenths of the best value that any of their task's curves has, and when each run
    had it: `reached` in seconds and `reached_steps`, None where it never had. Of the runs themselves the last values
    are kept, as `ends`."""
    best: dict[str, float] = {}
    for entry in entries:
        best[entry["task"]] = max(*entry["value"], best.get(entry["task"], 0.0))
    done = []
    for entry in entries:
        wanted = ENOUGH * best[entry["task"]]
        places = [next((n for n, value in enumerate(run["value"]) if value >= wanted), None) for run in entry["runs"]]
        reached = {
            name: [None if at is None else run[over][at] for at, run in zip(places, entry["runs"], strict=True)]
            for name, over in (("reached", "seconds"), ("reached_steps", "steps"))
        }
        ends = [run["value"][-1] for run in entry["runs"]]
        kept = {name: entry[name] for name in entry if name != "runs"}
        done.append({**kept, "ends": ends, "wanted": wanted, **reached})
    return done


def curve_spec(task: str, device: str, name: str, place: Path, recipe: Recipe, quick: bool) -> dict[str, Any]:
    """What `hemotorch.bench.curves` is to do, and what is told of it. A seed is still to be added."""
    steps = (QUICK_STEPS if quick else STEPS)[task]
    lr = RATES[task][name]
    made = recipe.changed([*SETTINGS[name], f"optimizer.lr={lr}", f"train.steps_per_epoch={steps}"])
    return {
        "task": "digits" if task == "digits" else "slices", "algorithm": name, "device": device, "steps": steps,
        "points": POINTS[task], "lr": lr, "data": str(place), "recipe": made.to_toml(),
        "title": f"{TITLES[task]} on a GPU" if device == "cuda" else TITLES[task],
        "value_name": "accuracy" if task == "digits" else "Dice", "note": _note(task, recipe),
    }  # fmt: skip


def curve(spec: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """One run's curve; and why there is none, or ""."""
    return ask("hemotorch.bench.curves", spec, [{}], LIMIT_S)


def _note(task: str, recipe: Recipe) -> str:
    if task == "digits":
        return (
            "8 x 8 pixels of ten handwritten digits, which come with scikit-learn; a perceptron of 64 and 32 hidden "
            "units, 64 images a step. Accuracy on the quarter that was not trained on."
        )
    net, side = DESCRIBED[task], recipe.augment.crop_px
    return (
        f"Bleeding in slices: {net}, squares of {side} x {side} pixels around it, {recipe.train.batch} a step. "
        "Dice on such squares of patients that were not trained on."
    )


def _steps(
    place: Path, own: Mapping[str, Recipe], scope: Scope, rounds: int, say: Callable[[str], None]
) -> tuple[list[Row], dict[str, dict[str, list[int]]], str]:
    """How long a step takes over batch and threads. own: the recipe of each device."""
    wanted = {"batch": BATCHES, "threads": tuple(sorted({1, scope.machine.cores}))}
    one = usual(scope)["cpu"]
    sweeps, _ = sweep_configs(wanted, scope, {"cpu": one, "cuda": replace(one, device="cuda")})
    configs = unique((config for members in sweeps.values() for config in members), scope.batch)
    configs.sort(key=lambda config: config.batch != scope.batch)
    specs = [_step_spec(config, place, own[config.device], scope) for config in configs]
    rows, told = measure(specs, replace(QUICK_PACE if scope.quick else Pace(), rounds=rounds), say)
    return compared(rows, scope.machine.cores), row_numbers(sweeps, configs), told


def _step_spec(config: Config, place: Path, recipe: Recipe, scope: Scope) -> Spec:
    settings = [*engine_settings(config), f"train.batch={config.batch}", *SETTINGS["Adam"]]
    seconds = 1.0 if scope.quick else 5.0
    return Spec(config, str(place), recipe.changed(settings).to_toml(), seconds=seconds)


def said_of(curves: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence a task: which algorithm had most of the best value first, in each of its runs before all others in all
    of theirs; or which are level."""
    said = []
    for task in dict.fromkeys(entry["task"] for entry in curves):
        entries = sorted((entry for entry in curves if entry["task"] == task), key=lambda one: _from_to(one)[0])
        if entries[0]["wanted"] < ENOUGH * LEARNED:
            said.append(f"{task}: no algorithm finds anything yet; give them more steps (without --quick).")
            continue
        aim = f"{entries[0]['value_name']} {entries[0]['wanted']:.2f}, nine tenths of the best,"
        there = [entry for entry in entries if _from_to(entry)[0] < math.inf]
        first = [entry for entry in there if not any(_from_to(one)[1] < _from_to(entry)[0] for one in there)]
        others = [f"{one['algorithm']} {when(one)}" for one in entries if one not in first]
        if len(first) == 1:
            start = f"{first[0]['algorithm']} is the first to reach {aim} {when(first[0])}"
        else:
            names = ", ".join(f"{one['algorithm']} {when(one)}" for one in first)
            start = f"level in reaching {aim} are {names}"
        said.append("; ".join([f"{task}: {start}", *([", ".join(others)] if others else [])]) + ".")
    return said


def _from_to(entry: Mapping[str, Any]) -> tuple[float, float]:
    """The seconds after which the first of an algorithm's runs and the last were there; infinite for never."""
    seconds = [math.inf if at is None else at for at in entry["reached"]]
    return min(seconds), max(seconds)
