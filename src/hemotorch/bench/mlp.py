"""`hemotorch bench mlp`: SGD, momentum and Adam on small networks, in steps and in seconds, and what a step costs."""

from __future__ import annotations

import importlib.util
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hemotorch.bench import data as bench_data
from hemotorch.bench.configs import Scope, row_numbers, sweep_configs, unique, usual
from hemotorch.bench.curves import CurveSpec
from hemotorch.bench.processes import Pace, answer, in_rounds, measure
from hemotorch.bench.records import Bench, Config, Curve
from hemotorch.bench.setup import Setup, set_up, settings_of
from hemotorch.bench.speedup import compared, unsteady
from hemotorch.data.dataset import Dataset
from hemotorch.recipe import Recipe
from hemotorch.report.pages.numbers import duration


@dataclass(frozen=True)
class CurveTask:
    """What is learned.

    note: for the page. rates: the learning rate of each algorithm. steps, quick_steps: of a curve. points: how often
    its value is looked at.
    """

    title: str
    value_name: str
    note: str
    rates: Mapping[str, float]
    steps: int
    quick_steps: int
    points: int


SLICES = (
    "Bleeding in slices: {net}, squares of 64 x 64 pixels around it, 8 per step. Dice on such squares of patients that "
    "were not trained on."
)
# Learning rates: of two or three tried on the phantom, a factor of three apart, the one with the lowest training loss
# after 300 steps; for SGD and momentum on slices with the best Dice of seed 0 at the end: three times as high they
# learn faster at first, and then find nothing any more.
TASKS = {
    "digits": CurveTask(
        "Digits",
        "accuracy",
        "8 x 8 pixels of ten handwritten digits, which come with scikit-learn; a perceptron of 64 and 32 hidden units, "
        "64 images per step. Accuracy on the quarter that was not trained on.",
        {"SGD": 0.3, "momentum": 0.1, "Adam": 3e-3},
        steps=1500,
        quick_steps=600,
        points=30,
    ),
    "mlp": CurveTask(
        "Pixel windows",
        "Dice",
        SLICES.format(net="a perceptron on the 15 x 15 pixels around each pixel"),
        {"SGD": 0.3, "momentum": 0.03, "Adam": 1e-3},
        steps=1500,
        quick_steps=300,
        points=10,
    ),
    "unet": CurveTask(
        "The paper's U-Net, small",
        "Dice",
        SLICES.format(net="MedicalTorch's U-Net from 8 channels on, without dropout"),
        {"SGD": 0.3, "momentum": 0.03, "Adam": 3e-3},
        steps=800,
        quick_steps=150,
        points=10,
    ),
}
ALGORITHMS = {
    "SGD": ["optimizer.name=sgd", "optimizer.momentum=0"],
    "momentum": ["optimizer.name=sgd", "optimizer.momentum=0.9"],
    "Adam": ["optimizer.name=adam"],
}
NETS = {
    "mlp": ["net.name=mlp"],
    # Its dropout takes four feature maps in ten, of eight too many: no algorithm learned anything in 800 steps, in nine
    # runs with one loss and at eight rates with another.
    "unet": ["net.name=unet-medicaltorch", "net.options.channels=8", "net.options.drop_rate=0.0"],
}
PATIENTS = 20  #: of the phantom
BATCHES = (1, 2, 4, 8, 16, 32)
CURVE_PACE = Pace(limit_s=1800.0)
QUICK_PACE = Pace(limit_s=150.0, budget_s=200.0)
#: Of timed steps in each process.
SECONDS, QUICK_SECONDS = 5.0, 1.0
#: Accuracy or Dice below which nothing was learned.
LEARNED = 0.05
#: Of the best value of all at the end: when it is reached is what is compared.
ENOUGH = 0.9

#: Steps, seconds, loss and value at each look.
Run = Mapping[str, Sequence[float]]


def bench_mlp(
    data: Path | None = None,
    net: str = "mlp",
    *,
    device: str = "auto",
    rounds: int = 3,
    quick: bool = False,
) -> Bench:
    """Learning curves of each algorithm on each device, and rows of how long a step takes over batch and threads.

    Args:
        data: a prepared dataset; None makes a phantom.
        net: "mlp" or "unet".
        device: as `--device` names it.
        rounds: how often a step is measured, and with how many seeds each curve.
        quick: whether curves are short.

    Raises:
        InputError, OptionError: before anything is measured.
    """
    recipe = small_recipe(net)
    pace, seconds, short = Pace(), SECONDS, ""
    if quick:
        pace, seconds, short = QUICK_PACE, QUICK_SECONDS, "Quick: few steps, so that no curve is at its end."
    trial = [*ALGORITHMS["Adam"], f"train.steps_per_epoch={TASKS[net].steps}"]
    setting_up = set_up(data, recipe, device, quick, check=_with_held_out, patients=PATIENTS, trial=trial)
    with setting_up as setup:
        curves = measure_curves(setup, _tasks(net, setup.notes), rounds)
        configs, sweeps = _step_configs(setup.scope)
        specs = [setup.spec(config, seconds, ALGORITHMS["Adam"]) for config in configs]
        rows, cut_short = measure(specs, replace(pace, rounds=rounds))
    rows = compared(rows, setup.scope.machine.cores)
    if cut_short:
        setup.notes.append(f"Measured in {cut_short}.")
    rates = {name: task.rates for name, task in TASKS.items()}
    return Bench(
        kind="mlp",
        sentence=" ".join(sentences(curves)) or "No learning curve could be measured.",
        settings=settings_of(setup, data) | {"net": net, "rates": rates},
        environment=setup.environment,
        rows=tuple(rows),
        sweeps=row_numbers(sweeps, configs),
        curves=tuple(curves),
        warnings=tuple(filter(None, (unsteady(rows), short))),
        notes=tuple(setup.notes),
    )


def _tasks(net: str, notes: list[str]) -> list[str]:
    """Names of the tasks; digits only beside the perceptron, and if they can be had."""
    if net != "mlp":
        return [net]
    if importlib.util.find_spec("sklearn") is None:
        notes.append("Digits left out: scikit-learn is not installed; `pip install 'hemotorch[bench]'` brings it.")
        return [net]
    return ["digits", net]


def _step_configs(scope: Scope) -> tuple[list[Config], dict[str, list[Config]]]:
    """What shows how a step's time changes with batch and threads; those of the recipe's own batch first."""
    sweep = {"batch": BATCHES, "threads": sorted({1, scope.machine.cores})}
    plain = usual(scope, "cpu")
    sweeps, _ = sweep_configs(sweep, scope, {name: replace(plain, device=name) for name in scope.devices})
    configs = unique(itertools.chain.from_iterable(sweeps.values()), scope.batch)
    return sorted(configs, key=lambda config: config.batch != scope.batch), sweeps


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


def measure_curves(setup: Setup, tasks: Sequence[str], rounds: int) -> list[Curve]:
    """A curve for each task, device and algorithm, of as many runs as rounds; what failed is noted."""
    curves, specs = [], []
    for task, device, algorithm in itertools.product(tasks, setup.scope.devices, ALGORITHMS):
        spec = curve_spec(task, device, algorithm, setup.dataset.root, setup.recipes[device], setup.scope.quick)
        curves.append(empty_curve(task, spec))
        specs.append(spec)

    def once(index: int, seed: int) -> Run:
        return run_curve(replace(specs[index], seed=seed))

    labels = [f"{curve.task}, {curve.algorithm}" for curve in curves]
    pace = replace(CURVE_PACE, rounds=rounds)
    results, _ = in_rounds(labels, once, lambda run: f"{run['value'][-1]:.2f}", pace)
    measured = []
    for label, curve, result in zip(labels, curves, results, strict=True):
        setup.notes.extend(f"{label} failed: {error}." for error in result.errors)
        if result.values:
            measured.append((curve, result.values))
    return with_runs(measured)


def curve_spec(name: str, device: str, algorithm: str, data: Path, recipe: Recipe, quick: bool) -> CurveSpec:
    """What `bench.curves` is to do; a seed is still to be added."""
    task = TASKS[name]
    steps = task.quick_steps if quick else task.steps
    lr = task.rates[algorithm]
    changed = recipe.changed([*ALGORITHMS[algorithm], f"optimizer.lr={lr}", f"train.steps_per_epoch={steps}"])
    kind = "digits" if name == "digits" else "slices"
    return CurveSpec(kind, algorithm, device, steps, task.points, lr, str(data), changed.to_toml())


def empty_curve(name: str, spec: CurveSpec) -> Curve:
    """What is said of a curve before it is measured."""
    task = TASKS[name]
    title = f"{task.title} on a GPU" if spec.device == "cuda" else task.title
    return Curve(title, spec.algorithm, spec.device, spec.lr, task.value_name, task.note, (), (), (), ())


def run_curve(spec: CurveSpec) -> Run:
    """One run, in a process of its own. Raises RunError."""
    return answer({"curve": asdict(spec)}, dict[str, list[float]], [{}], CURVE_PACE.limit_s)


def with_runs(measured: Sequence[tuple[Curve, Sequence[Run]]]) -> list[Curve]:
    """The curves with the medians of their runs, and when each run had most of the best value of their task."""
    curves = [_with_medians(curve, runs) for curve, runs in measured]
    best: dict[str, float] = {}
    for curve in curves:
        best[curve.task] = max(best.get(curve.task, 0.0), *curve.value)
    done = []
    for curve, (_, runs) in zip(curves, measured, strict=True):
        wanted = ENOUGH * best[curve.task]
        reached = [_first_look(run, wanted) for run in runs]
        seconds, steps = zip(*reached, strict=True)
        done.append(replace(curve, wanted=wanted, reached=seconds, reached_steps=steps))
    return done


def _with_medians(curve: Curve, runs: Sequence[Run]) -> Curve:
    def medians(name: str) -> tuple[float, ...]:
        return tuple(map(statistics.median, zip(*(run[name] for run in runs), strict=True)))

    steps = tuple(map(int, runs[0]["steps"]))
    ends = tuple(run["value"][-1] for run in runs)
    return replace(
        curve, steps=steps, seconds=medians("seconds"), loss=medians("loss"), value=medians("value"), ends=ends
    )


def _first_look(run: Run, wanted: float) -> tuple[float | None, int | None]:
    """The seconds and steps after which a run had that value; None, None if never."""
    for value, seconds, steps in zip(run["value"], run["seconds"], run["steps"], strict=True):
        if value >= wanted:
            return seconds, int(steps)
    return None, None


def sentences(curves: Sequence[Curve]) -> list[str]:
    """A sentence for each task: which algorithm had most of the best value first, in each of its runs before all others
    in all of theirs; or which are level."""
    tasks = dict.fromkeys(curve.task for curve in curves)
    return [_sentence([curve for curve in curves if curve.task == task]) for task in tasks]


def _sentence(curves: Sequence[Curve]) -> str:
    task, wanted = curves[0].task, curves[0].wanted
    if wanted < ENOUGH * LEARNED:
        return f"{task}: no algorithm finds anything yet; give them more steps (without --quick)."
    aim = f"{curves[0].value_name} {wanted:.2f}, nine tenths of the best,"
    latest = min(_latest(curve) for curve in curves)
    first: list[Curve] = []
    others: list[Curve] = []
    for curve in sorted(curves, key=_earliest):
        reaches = _earliest(curve) <= latest and _earliest(curve) < math.inf
        (first if reaches else others).append(curve)
    text = f"{task}: level in reaching {aim} are {_reached(first)}"
    if len(first) == 1:
        text = f"{task}: {first[0].algorithm} is the first to reach {aim} {when_reached(first[0])}"
    return f"{text}; {_reached(others)}." if others else f"{text}."


def _reached(curves: Sequence[Curve]) -> str:
    return ", ".join(f"{curve.algorithm} {when_reached(curve)}" for curve in curves)


def _earliest(curve: Curve) -> float:
    """Seconds after which the first of an algorithm's runs was there; infinite for never."""
    return min(math.inf if seconds is None else seconds for seconds in curve.reached)


def _latest(curve: Curve) -> float:
    return max(math.inf if seconds is None else seconds for seconds in curve.reached)


def when_reached(curve: Curve) -> str:
    """In how much training, from the first run to the last, a learning algorithm reached what was wanted of it."""
    seconds = [each for each in curve.reached if each is not None]
    steps = [each for each in curve.reached_steps if each is not None]
    if not seconds:
        return "not at all"
    spent = dict.fromkeys([duration(min(seconds)), duration(max(seconds))])
    done = dict.fromkeys([f"{min(steps):,}", f"{max(steps):,}"])
    runs = len(curve.reached)
    some = f", in {len(seconds)} of {runs} runs" if len(seconds) < runs else ""
    return f"after {' to '.join(spent)} ({' to '.join(done)} steps{some})"
