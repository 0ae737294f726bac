"""`hemotorch bench mlp`: SGD, momentum and Adam on small networks, in steps and in seconds, and what a step costs."""

from __future__ import annotations

import importlib.util
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from hemotorch.bench import data as bench_data
from hemotorch.bench.configs import row_numbers, sweep_configs, unique, usual
from hemotorch.bench.curves import CurveSpec
from hemotorch.bench.processes import Pace, Say, answer, in_rounds, measure
from hemotorch.bench.records import Bench, Curve
from hemotorch.bench.setup import Setup, set_up, settings_of
from hemotorch.bench.speedup import compared, unsteady
from hemotorch.data.dataset import Dataset
from hemotorch.recipe import Recipe
from hemotorch.report.pages.numbers import duration

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
TITLES = {"digits": "Digits", "mlp": "Pixel windows", "unet": "The paper's U-Net, small"}
DIGITS = (
    "8 x 8 pixels of ten handwritten digits, which come with scikit-learn; a perceptron of 64 and 32 hidden units, 64 "
    "images per step. Accuracy on the quarter that was not trained on."
)
SLICES = (
    "Bleeding in slices: {net}, squares of 64 x 64 pixels around it, 8 per step. Dice on such squares of patients that "
    "were not trained on."
)
NOTES = {
    "digits": DIGITS,
    "mlp": SLICES.format(net="a perceptron on the 15 x 15 pixels around each pixel"),
    "unet": SLICES.format(net="MedicalTorch's U-Net from 8 channels on, without dropout"),
}
STEPS, QUICK_STEPS = {"digits": 1500, "mlp": 1500, "unet": 800}, {"digits": 600, "mlp": 300, "unet": 150}
POINTS = {"digits": 30, "mlp": 10, "unet": 10}
PATIENTS = 20  #: of the phantom
BATCHES = (1, 2, 4, 8, 16, 32)
CURVE_PACE = Pace(limit_s=1800.0)
QUICK_PACE = Pace(limit_s=150.0, budget_s=200.0)
LEARNED = 0.05  #: accuracy or Dice below which nothing was learned
ENOUGH = 0.9  #: of the best value of all at the end: when it is reached is what is compared

Run = Mapping[str, Sequence[float]]


def bench_mlp(
    data: Path | None = None,
    net: str = "mlp",
    *,
    device: str = "auto",
    rounds: int = 3,
    quick: bool = False,
    say: Say = lambda text: None,
) -> Bench:
    """Learning curves of each algorithm on each device, and rows of how long a step takes over batch and threads.

    Args:
        data: a prepared dataset; None makes a phantom.
        net: "mlp" or "unet".
        device: as `--device` names it.
        rounds: how often a step is measured, and with how many seeds each curve.
        quick: whether curves are short.
        say: called with a line now and then.

    Raises:
        InputError, OptionError: before anything is measured.
    """
    recipe = small_recipe(net)
    trial = [*SETTINGS["Adam"], f"train.steps_per_epoch={STEPS[net]}"]
    with set_up(
        data, recipe, device, quick, say, check=_with_held_out, patients=PATIENTS, small=True, trial=trial
    ) as setup:
        tasks = ["digits", net] if net == "mlp" else [net]
        if "digits" in tasks and importlib.util.find_spec("sklearn") is None:
            tasks.remove("digits")
            setup.notes.append(
                "Digits left out: scikit-learn is not installed; `pip install 'hemotorch[bench]'` brings it."
            )
        curves = _curves(setup, tasks, rounds, say)
        scope, cores = setup.scope, setup.scope.machine.cores
        plain = {name: replace(usual(scope, "cpu"), device=name) for name in scope.devices}
        sweeps, _ = sweep_configs({"batch": BATCHES, "threads": sorted({1, cores})}, scope, plain)
        configs = unique((config for members in sweeps.values() for config in members), scope.batch)
        configs.sort(key=lambda config: config.batch != scope.batch)
        specs = [setup.spec(config, 1.0 if quick else 5.0, SETTINGS["Adam"]) for config in configs]
        rows, cut_short = measure(specs, replace(QUICK_PACE if quick else Pace(), rounds=rounds), say)
    rows = compared(rows, cores)
    if cut_short:
        setup.notes.append(f"Measured in {cut_short}.")
    short = "Quick: few steps, so that no curve is at its end." if quick else ""
    return Bench(
        kind="mlp",
        sentence=" ".join(sentences(curves)) or "No learning curve could be measured.",
        settings=settings_of(setup, data) | {"net": net, "rates": RATES},
        environment=setup.environment,
        rows=tuple(rows),
        sweeps=row_numbers(sweeps, configs),
        curves=tuple(curves),
        warnings=tuple(filter(None, (unsteady(rows), short))),
        notes=tuple(setup.notes),
    )


def small_recipe(net: str) -> Recipe:
    """Squares of 64 pixels of 2.4 mm around bleeding, and nothing that would hide what the algorithm does: no schedule,
    no average of weights, no augmentation."""
    return Recipe(name=f"bench-{net}").changed([
        *NETS[net], "grid.pixel_mm=2.4", "grid.size_px=96", "data.positive_share=0.75", "augment.crop_px=64",
        "train.batch=8", "train.epochs=1", "loss.name=negative-dice", "engine.precision=fp32", "engine.compile=off",
        "engine.graphs=off",
    ])  # fmt: skip


def _with_held_out(data: Path | str, recipe: Recipe) -> Dataset:
    dataset = bench_data.checked(data, recipe)
    bench_data.held_out(dataset, recipe)
    return dataset


def _curves(setup: Setup, tasks: Sequence[str], rounds: int, say: Say) -> list[Curve]:
    """A curve for each task, device and algorithm, of as many runs as rounds; what failed is noted."""
    curves, specs = [], []
    for task in tasks:
        for device in setup.scope.devices:
            for algorithm in SETTINGS:
                recipe = setup.recipes[device]
                specs.append(curve_spec(task, device, algorithm, setup.dataset.root, recipe, setup.scope.quick))
                curves.append(empty_curve(task, specs[-1]))
    results, _ = in_rounds(
        [f"{curve.task}, {curve.algorithm}, {curve.device}" for curve in curves],
        lambda index, seed: run_curve(replace(specs[index], seed=seed)),
        lambda run: f"{run['value'][-1]:.2f}",
        replace(CURVE_PACE, rounds=rounds),
        say,
    )
    measured = []
    for curve, result in zip(curves, results, strict=True):
        setup.notes.extend(f"{curve.task}, {curve.algorithm} failed: {error}." for error in result.errors)
        if result.values:
            measured.append((curve, result.values))
    return with_runs(measured)


def curve_spec(task: str, device: str, algorithm: str, data: Path, recipe: Recipe, quick: bool) -> CurveSpec:
    """What `bench.curves` is to do; a seed is still to be added."""
    steps = (QUICK_STEPS if quick else STEPS)[task]
    lr = RATES[task][algorithm]
    changed = recipe.changed([*SETTINGS[algorithm], f"optimizer.lr={lr}", f"train.steps_per_epoch={steps}"])
    kind = "digits" if task == "digits" else "slices"
    return CurveSpec(kind, algorithm, device, steps, POINTS[task], lr, str(data), changed.to_toml())


def empty_curve(task: str, spec: CurveSpec) -> Curve:
    """What is said of a curve before it is measured."""
    title = f"{TITLES[task]} on a GPU" if spec.device == "cuda" else TITLES[task]
    value_name = "accuracy" if task == "digits" else "Dice"
    return Curve(title, spec.algorithm, spec.device, spec.lr, value_name, NOTES[task], (), (), (), ())


def run_curve(spec: CurveSpec) -> Run:
    """One run, in a process of its own. Raises RunError."""
    return answer({"curve": asdict(spec)}, dict[str, list[float]], [{}], CURVE_PACE.limit_s)


def with_runs(measured: Sequence[tuple[Curve, Sequence[Run]]]) -> list[Curve]:
    """The curves with the medians of their runs, and when each run had most of the best value of their task."""
    curves = []
    for curve, runs in measured:
        curves.append(
            replace(
                curve,
                steps=tuple(int(step) for step in runs[0]["steps"]),
                seconds=_medians(run["seconds"] for run in runs),
                loss=_medians(run["loss"] for run in runs),
                value=_medians(run["value"] for run in runs),
                ends=tuple(run["value"][-1] for run in runs),
            )
        )
    best: dict[str, float] = {}
    for curve in curves:
        best[curve.task] = max(best.get(curve.task, 0.0), *curve.value)
    done = []
    for curve, (_, runs) in zip(curves, measured, strict=True):
        wanted = ENOUGH * best[curve.task]
        looks = [_first_look(run["value"], wanted) for run in runs]
        seconds = [None if look is None else run["seconds"][look] for look, run in zip(looks, runs, strict=True)]
        steps = [None if look is None else curve.steps[look] for look in looks]
        done.append(replace(curve, wanted=wanted, reached=tuple(seconds), reached_steps=tuple(steps)))
    return done


def _medians(runs: Iterable[Sequence[float]]) -> tuple[float, ...]:
    return tuple(map(statistics.median, zip(*runs, strict=True)))


def _first_look(values: Sequence[float], wanted: float) -> int | None:
    return next((look for look, value in enumerate(values) if value >= wanted), None)


def sentences(curves: Sequence[Curve]) -> list[str]:
    """A sentence for each task: which algorithm had most of the best value first, in each of its runs before all others
    in all of theirs; or which are level."""
    texts = []
    for task in dict.fromkeys(curve.task for curve in curves):
        members = sorted((curve for curve in curves if curve.task == task), key=_earliest)
        wanted = members[0].wanted
        if wanted < ENOUGH * LEARNED:
            texts.append(f"{task}: no algorithm finds anything yet; give them more steps (without --quick).")
            continue
        aim = f"{members[0].value_name} {wanted:.2f}, nine tenths of the best,"
        reaching = [curve for curve in members if _earliest(curve) < math.inf]
        first = [curve for curve in reaching if _earliest(curve) <= min(map(_latest, reaching))]
        others = [f"{curve.algorithm} {when_reached(curve)}" for curve in members if curve not in first]
        if len(first) == 1:
            text = f"{task}: {first[0].algorithm} is the first to reach {aim} {when_reached(first[0])}"
        else:
            level = ", ".join(f"{curve.algorithm} {when_reached(curve)}" for curve in first)
            text = f"{task}: level in reaching {aim} are {level}"
        texts.append("; ".join([text, *([", ".join(others)] if others else [])]) + ".")
    return texts


def _earliest(curve: Curve) -> float:
    """Seconds after which the first of an algorithm's runs was there; infinite for never."""
    return min(math.inf if seconds is None else seconds for seconds in curve.reached)


def _latest(curve: Curve) -> float:
    return max(math.inf if seconds is None else seconds for seconds in curve.reached)


def when_reached(curve: Curve) -> str:
    """In how much training, from the first run to the last, a learning algorithm reached what was wanted of it."""
    seconds = [reached for reached in curve.reached if reached is not None]
    steps = [reached for reached in curve.reached_steps if reached is not None]
    if not seconds:
        return "not at all"
    spent = _range(duration(min(seconds)), duration(max(seconds)))
    done = _range(f"{min(steps):,}", f"{max(steps):,}")
    runs = len(curve.reached)
    some = f", in {len(seconds)} of {runs} runs" if len(seconds) < runs else ""
    return f"after {spent} ({done} steps{some})"


def _range(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"
