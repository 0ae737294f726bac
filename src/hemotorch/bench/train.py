"""`hemotorch bench train`: the same training job on all that this machine has, beside the paper's own loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hemotorch.bench import data as bench_data
from hemotorch.bench.configs import (
    Scope,
    base_configs,
    devices_of,
    parse_devices,
    parse_sweep,
    sweep_configs,
    unique,
    usual,
)
from hemotorch.bench.measure import Pace, look_at_machine, measure, settled_layout
from hemotorch.bench.reference import why_not
from hemotorch.bench.result import Bench, busy, clock
from hemotorch.bench.rows import Config, Row, Spec, compared
from hemotorch.bench.sentence import bottleneck
from hemotorch.data.dataset import Dataset
from hemotorch.recipe import Recipe, load_recipe

SECONDS = {"cpu": 15.0, "cuda": 5.0}  #: of timed steps in each process
QUICK_SECONDS = 4.0
QUICK_PACE = Pace(limit_s=150.0, budget_s=450.0)
QUICK_SWEEP = "batch=1..8"
UNSTEADY = 1.3  #: times the slowest round


@dataclass(frozen=True)
class Asked:
    """What a user asks of `bench train`. data: None makes a phantom. device: auto, or a list such as cpu,cuda."""

    data: Path | None = None
    recipe: str = "paper"
    settings: tuple[str, ...] = ()
    device: str = "auto"
    sweep: tuple[str, ...] = ()
    quick: bool = False
    rounds: int = 3
    price_per_hour: float | None = None


def bench_train(asked: Asked, say: Callable[[str], None] = lambda text: None) -> Bench:
    """Measures, and returns what it came to. say: called with a line now and then.

    Raises InputError and OptionError before anything is measured; a config that fails is an error in its row.
    """
    recipe = load_recipe(asked.recipe).changed(asked.settings)
    recipe = bench_data.quick_recipe(recipe) if asked.quick else recipe
    named = parse_devices(asked.device)
    sweep = parse_sweep(asked.sweep or ((QUICK_SWEEP,) if asked.quick else ()))
    if asked.data is not None:
        bench_data.checked(asked.data, recipe)
    machine, environment = look_at_machine()
    devices = devices_of(named, machine)
    notes, began = [], time.monotonic()
    with TemporaryDirectory(prefix="hemotorch-bench-") as folder:
        place = asked.data
        if place is None:
            side = bench_data.QUICK_PX if asked.quick else bench_data.WHOLE_PX
            size = f"{side} x {side}"
            notes.append(f"Trained on a phantom with slices of {size}, made for this; name your own data with --data.")
            say(f"no --data: making a phantom with slices of {size} in {folder}")
            place = bench_data.make_phantom(Path(folder), asked.quick)
        dataset = bench_data.checked(place, recipe)
        reason = why_not(recipe)
        pngs = "" if reason else str(bench_data.reference_pngs(dataset, recipe, Path(folder) / "png"))
        batch = recipe.train.batch * recipe.train.accumulate
        scope = Scope(machine, tuple(devices), batch, recipe.train.batch, not reason, asked.quick)
        configs, sweeps, left = _configs(scope, sweep)
        notes += [f"Left out: {text}." for text in ([reason] if reason else []) + left]
        on_cpu = recipe
        if "cpu" in devices:
            say("trying layouts, as a training does before its first step")
            trial = _spec(usual(scope)["cpu"], place, recipe, "", asked.quick)
            layout, why = settled_layout(trial)
            on_cpu = recipe.changed([layout])
            notes.append(why)
        own = {"cpu": on_cpu, "cuda": recipe}
        specs = [_spec(config, place, own[config.device], pngs, asked.quick) for config in configs]
        pace = replace(QUICK_PACE if asked.quick else Pace(), rounds=asked.rounds)
        say(f"measuring a step of recipe {recipe.name}: {len(specs)} ways, at most {asked.rounds} rounds")
        rows, told = measure(specs, pace, say)
    notes.append(f"Measuring took {clock(time.monotonic() - began)}.")
    rows = compared(rows, machine.cores, asked.price_per_hour)
    warnings = [
        busy(environment),
        unsteady(rows),
        _quick(rows) if asked.quick else "",
        f"Measured in {told}." if told else "",
    ]
    return Bench(
        "train", bottleneck(rows, machine), _settings(asked, recipe, dataset), environment, tuple(rows),
        row_numbers(sweeps, configs), warnings=tuple(filter(None, warnings)), notes=tuple(notes),
    )  # fmt: skip


def _configs(
    scope: Scope, sweep: dict[str, tuple[int, ...]]
) -> tuple[list[Config], dict[str, list[Config]], list[str]]:
    """All configs, each once; those of each sweep; what was left out."""
    base, left = base_configs(scope)
    sweeps, more = sweep_configs(sweep, scope, usual(scope))
    swept = (config for configs in sweeps.values() for config in configs)
    return unique([*base, *swept], scope.batch), sweeps, list(dict.fromkeys([*left, *more]))


def _spec(config: Config, place: Path, recipe: Recipe, pngs: str, quick: bool) -> Spec:
    """The config's own engine, and its batch; a config of another batch than the recipe's does not accumulate."""
    settings = [] if config.reference else engine_settings(config)
    if config.reference or config.batch != recipe.train.batch * recipe.train.accumulate:
        settings += [f"train.batch={config.batch}", "train.accumulate=1"]
    seconds = QUICK_SECONDS if quick else SECONDS[config.device]
    return Spec(config, str(place), recipe.changed(settings).to_toml(), pngs, seconds)


def engine_settings(config: Config) -> list[str]:
    """The config as a recipe says it."""
    switch = {True: "on", False: "off"}
    return [
        f"engine.precision={config.precision}",
        f"engine.compile={switch[config.compile]}",
        f"engine.graphs={switch[config.graphs]}",
        f"engine.threads={config.threads}",
    ]


def row_numbers(sweeps: dict[str, list[Config]], configs: Sequence[Config]) -> dict[str, dict[str, list[int]]]:
    """Of each sweep the numbers of its rows, a device at a time."""
    place = {config.key: number for number, config in enumerate(configs)}
    found: dict[str, dict[str, list[int]]] = {}
    for name, members in sweeps.items():
        for config in members:
            found.setdefault(name, {}).setdefault(config.device, []).append(place[config.key])
    return found


def _settings(asked: Asked, recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    return {
        "recipe": recipe.name,
        "recipe_toml": recipe.to_toml(),
        "quick": asked.quick,
        "data": "phantom" if asked.data is None else str(asked.data),
        **bench_data.described(dataset),
        "price_per_hour": asked.price_per_hour,
    }


def unsteady(rows: Sequence[Row]) -> str:
    """A word of warning where rounds differ more than a machine that does nothing else would let them."""
    spread = max((row.high / row.low for row in rows if row.measured), default=1.0)
    if spread < UNSTEADY:
        alone = max((len(row.rounds) for row in rows), default=0) == 1
        return "Measured once: nothing tells noise from a difference." if alone else ""
    return (
        f"This machine was not steady: the fastest round of a config is up to {spread:.1f} times the slowest. Measure "
        "again while nothing else runs."
    )


def _quick(rows: Sequence[Row]) -> str:
    small, whole = bench_data.QUICK_PX, bench_data.WHOLE_PX
    sizes = {row.last.size for row in rows if row.last.size}
    shown = " and ".join(" x ".join(map(str, size)) for size in sorted(sizes))
    told = f"Quick: on slices of {shown or f'at most {small} x {small}'}, with few steps a process."
    if sizes == {(small, small)}:
        times = f"{(whole / small) ** 2:.1f} times"
        told += f" A slice of {whole} x {whole} has {times} as many pixels, and takes about as many times as long."
    return told
