"""`hemotorch bench train`: the same training job on all that this machine has, beside the paper's own loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hemotorch.bench import data as bench_data
from hemotorch.bench.configs import base_configs, parse_sweep, row_numbers, sweep_configs, unique, usual
from hemotorch.bench.processes import Pace, Say, measure
from hemotorch.bench.records import Bench, Row, busy
from hemotorch.bench.sentence import bottleneck
from hemotorch.bench.setup import set_up, settings_of
from hemotorch.bench.speedup import compared, unsteady
from hemotorch.recipe import load_recipe
from hemotorch.report.pages.numbers import duration

SECONDS = {"cpu": 15.0, "cuda": 5.0}  #: of timed steps in each process
QUICK_SECONDS = 4.0
QUICK_PACE = Pace(limit_s=150.0, budget_s=450.0)
QUICK_SWEEP = "batch=1..8"


@dataclass(frozen=True)
class TrainOptions:
    """The options of `bench train`. data: None makes a phantom. device: auto, or a list such as cpu,cuda."""

    data: Path | None = None
    recipe: str = "paper"
    settings: tuple[str, ...] = ()
    device: str = "auto"
    sweep: tuple[str, ...] = ()
    quick: bool = False
    rounds: int = 3
    price_per_hour: float | None = None


def bench_train(options: TrainOptions, say: Say = lambda text: None) -> Bench:
    """Measures, and returns what it came to. say: called with a line now and then.

    Raises:
        InputError, OptionError: before anything is measured; a config that fails is an error in its row.
    """
    quick, start = options.quick, time.monotonic()
    recipe = load_recipe(options.recipe).changed(options.settings)
    recipe = bench_data.quick_recipe(recipe) if quick else recipe
    sweep = parse_sweep(options.sweep or ((QUICK_SWEEP,) if quick else ()))
    with set_up(options.data, recipe, options.device, quick, say) as setup:
        scope, notes = setup.scope, setup.notes
        pngs, reason = "", bench_data.why_no_reference(recipe)
        if not reason:
            pngs = str(bench_data.write_reference_pngs(setup.dataset, recipe, setup.folder / "png"))
        base, left_out = base_configs(scope)
        around = {device: usual(scope, device) for device in scope.devices}
        sweeps, not_swept = sweep_configs(sweep, scope, around)
        configs = unique([*base, *(config for members in sweeps.values() for config in members)], scope.batch)
        for text in dict.fromkeys(filter(None, [reason, *left_out, *not_swept])):
            notes.append(f"Left out: {text}.")
        seconds = dict.fromkeys(SECONDS, QUICK_SECONDS) if quick else SECONDS
        specs = [setup.spec(config, seconds[config.device], pngs=pngs) for config in configs]
        say(f"measuring a step of recipe {recipe.name}: {len(specs)} ways, at most {options.rounds} rounds")
        rows, cut_short = measure(specs, replace(QUICK_PACE if quick else Pace(), rounds=options.rounds), say)
    notes.append(f"Measuring took {duration(time.monotonic() - start)}.")
    rows = compared(rows, scope.machine.cores, options.price_per_hour)
    warnings = [busy(setup.environment), unsteady(rows)]
    warnings.append(_quick_warning(rows) if quick else "")
    warnings.append(f"Measured in {cut_short}." if cut_short else "")
    return Bench(
        kind="train",
        sentence=bottleneck(rows, scope.machine),
        settings=settings_of(setup, options.data) | {"price_per_hour": options.price_per_hour},
        environment=setup.environment,
        rows=tuple(rows),
        sweeps=row_numbers(sweeps, configs),
        warnings=tuple(filter(None, warnings)),
        notes=tuple(notes),
    )


def _quick_warning(rows: Sequence[Row]) -> str:
    small, whole = bench_data.QUICK_PX, bench_data.WHOLE_PX
    sizes = sorted({row.last.size for row in rows if row.last.size})
    shown = " and ".join(" x ".join(map(str, size)) for size in sizes) or f"at most {small} x {small}"
    text = f"Quick: on slices of {shown}, with few steps per process."
    if sizes == [(small, small)]:
        factor = f"{(whole / small) ** 2:.1f} times"
        text += f" A slice of {whole} x {whole} has {factor} as many pixels, and takes about as many times as long."
    return text
