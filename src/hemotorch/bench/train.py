"""`hemotorch bench train`: the same training job on all that this machine has, beside the paper's own loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hemotorch.bench import data as bench_data
from hemotorch.bench.configs import base_configs, parse_sweep, row_numbers, sweep_configs, unique, usual
from hemotorch.bench.processes import Pace, measure
from hemotorch.bench.records import Bench, Row, busy
from hemotorch.bench.sentence import bottleneck
from hemotorch.bench.setup import set_up, settings_of
from hemotorch.bench.speedup import compared, unsteady
from hemotorch.recipe import load_recipe
from hemotorch.report.pages.numbers import duration
from hemotorch.system.events import Message, emit

#: Of timed steps in each process.
SECONDS = {"cpu": 15.0, "cuda": 5.0}
QUICK_SECONDS = 4.0
QUICK_PACE = Pace(limit_s=150.0, budget_s=450.0)
QUICK_SWEEP = "batch=1..8"


def bench_train(
    data: Path | None = None,
    recipe: str = "paper",
    settings: Sequence[str] = (),
    *,
    device: str = "auto",
    sweep: Sequence[str] = (),
    rounds: int = 3,
    quick: bool = False,
    price_per_hour: float | None = None,
) -> Bench:
    """Measures a step of a training in each way that this machine has.

    Args:
        data: a prepared dataset; None makes a phantom.
        recipe: a recipe's name or file.
        settings: changes of it, as `train.batch=2`.
        device: auto, or a list such as cpu,cuda.
        sweep: what else to vary, as `batch=1..8`.
        rounds: how often each is measured.
        quick: whether slices are small and measurements short.
        price_per_hour: of the machine.

    Raises:
        InputError, OptionError: before anything is measured; a config that fails is an error in its row.
    """
    start = time.monotonic()
    trained = load_recipe(recipe).changed(settings)
    pace, seconds = Pace(), SECONDS
    if quick:
        trained, sweep = bench_data.quick_recipe(trained), sweep or (QUICK_SWEEP,)
        pace, seconds = QUICK_PACE, dict.fromkeys(SECONDS, QUICK_SECONDS)
    varied = parse_sweep(sweep)
    with set_up(data, trained, device, quick) as setup:
        scope, notes = setup.scope, setup.notes
        pngs, reason = "", bench_data.why_no_reference(trained)
        if not reason:
            pngs = str(bench_data.write_reference_pngs(setup.dataset, trained, setup.folder / "png"))
        base, left_out = base_configs(scope)
        around = {device: usual(scope, device) for device in scope.devices}
        sweeps, not_swept = sweep_configs(varied, scope, around)
        configs = unique([*base, *(config for members in sweeps.values() for config in members)], scope.batch)
        for text in dict.fromkeys(filter(None, [reason, *left_out, *not_swept])):
            notes.append(f"Left out: {text}.")
        specs = [setup.spec(config, seconds[config.device], pngs=pngs) for config in configs]
        emit(Message(f"measuring a step of recipe {trained.name}: {len(specs)} ways, at most {rounds} rounds"))
        rows, cut_short = measure(specs, replace(pace, rounds=rounds))
    notes.append(f"Measuring took {duration(time.monotonic() - start)}.")
    rows = compared(rows, scope.machine.cores, price_per_hour)
    warnings = [busy(setup.environment), unsteady(rows)]
    warnings.append(_quick_warning(rows) if quick else "")
    warnings.append(f"Measured in {cut_short}." if cut_short else "")
    return Bench(
        kind="train",
        sentence=bottleneck(rows, scope.machine),
        settings=settings_of(setup, data) | {"price_per_hour": price_per_hour},
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
