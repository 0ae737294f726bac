"""How a training begins: from nothing, or going on after it was killed, on this machine or another.

A run that goes on has the recipe, the split and the device's settings that it was started with, so that on the same
machine it ends bit for bit like one that was never killed. What is different now is written into its record.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from typing import Any

from hemotorch import __version__
from hemotorch.data.dataset import Dataset
from hemotorch.data.splits import PARTS, Split
from hemotorch.errors import InputError, OptionError
from hemotorch.recipe import Recipe, load_recipe
from hemotorch.run import FORMAT, WITH_SLICE_SPACING, Run, RunRecord, Session, check_slices
from hemotorch.system import threads
from hemotorch.system.device import Device, choose, environment
from hemotorch.system.ranks import Ranks
from hemotorch.task import Task, task_named
from hemotorch.training.job import Job
from hemotorch.training.state import State

SWITCHES = ("channels_last", "compile", "graphs", "kernels", "keep_memory")  #: of Device and of the recipe's engine


@dataclass(frozen=True)
class Start:
    """What is decided before the first step.

    resumed: go on with a run that is there. tune: the device's settings may be measured; they are not if they are
    those of the run's record. by_index: neighbouring slices are taken by index, whatever their distance, as in runs
    that were started by a version without slice spacing. task: of a run that goes on; None: as the recipe says.
    """

    recipe: Recipe
    split: Split
    device: Device
    resumed: bool
    tune: bool
    by_index: bool
    task: Task | None


def decide_start(run: Run, dataset: Dataset, recipe: Recipe | None, device: str, resume: bool, ranks: Ranks) -> Start:
    """Goes on with the run if that is wanted and it was started, else starts it.

    Args:
        recipe: as asked for; None takes the run's own, or `fast` for a new one.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        InputError: if the folder holds a run that shall not be gone on with, or the dataset was changed since.
        OptionError: if another recipe is asked for than the run has, or the device cannot be used.
    """
    if resume and ranks.gather((run.root / "run.json").exists())[0]:
        return _resumed(Run.open(run.root), dataset, recipe, device, ranks)
    if ranks.first:
        run.must_be_new()
    recipe = recipe or load_recipe("fast")
    split = dataset.split(recipe.data.split)
    torch_device = choose(device, recipe.engine, ranks)
    return Start(recipe, split, torch_device, resumed=False, tune=True, by_index=False, task=None)


def _resumed(run: Run, dataset: Dataset, asked_for: Recipe | None, device: str, ranks: Ranks) -> Start:
    recipe, split, record = recipe_of_run(run, asked_for), run.split, run.record
    torch_device, as_before = _device_of_run(record.last_session, device, recipe, ranks)
    _check_scans(dataset, record)
    check_slices(split, dataset)
    # Ranks on unlike machines may differ in this, and measuring is done by all or none.
    tune = any(ranks.gather(not as_before))
    by_index = record.format < WITH_SLICE_SPACING
    task = task_named(record.task)
    return Start(recipe, split, torch_device, resumed=True, tune=tune, by_index=by_index, task=task)


def _device_of_run(session: Session, wanted: str, recipe: Recipe, ranks: Ranks) -> tuple[Device, bool]:
    """The device with the settings of an earlier session, so far as this machine can have them.

    Args:
        session: the first one of the run, or the last one that was not like it.

    Returns:
        The device, and whether it computes bit for bit as before.
    """
    before = session.device
    now = choose(wanted, recipe.engine, ranks)
    if wanted == "auto" and now.torch_device.type != before.torch_device.type == "cpu":
        now = choose("cpu", recipe.engine, ranks)
    if now.torch_device.type != before.torch_device.type:
        return now.with_reason(f"not as when it was started, which was on {before.name}"), False
    settings: dict[str, Any] = {"precision": before.precision}
    for name in SWITCHES:
        settings[name] = "on" if getattr(before, name) else "off"
    as_before = ranks.world == session.ranks
    if ranks.world == 1:
        as_before = as_before and _has_threads(before.threads, recipe)
        if as_before:
            settings["threads"] = before.threads
    name = wanted if ":" in wanted else now.torch_device.type
    try:
        same = choose(name, replace(recipe.engine, **settings), ranks)
    except OptionError as error:
        return now.with_reason(f"not as when it was started: {error}"), False
    if as_before:
        return same.with_reason("as when it was started"), True
    return same.with_reason("as when it was started, but for ranks or cores"), False


def _has_threads(count: int, recipe: Recipe) -> bool:
    """Whether this process may compute with so many threads. Sums depend on their number, bit for bit."""
    available, _ = threads.count()
    possible = count <= available or count == recipe.engine.threads
    return possible and threads.option() in (0, count)


def rank_timeout_s(run: Run, asked_for: Recipe | None) -> float:
    """Seconds after which a rank that does not answer is given up: as the recipe that will be trained has it."""
    if asked_for is not None:
        return asked_for.engine.rank_timeout_s
    recipe = run.recipe if (run.root / "recipe.toml").exists() else Recipe()
    return recipe.engine.rank_timeout_s


def recipe_of_run(run: Run, asked_for: Recipe | None) -> Recipe:
    """The run's recipe. Raises OptionError if another one is asked for, which resuming would ignore."""
    recipe = run.recipe
    if asked_for is None or asked_for == recipe:
        return recipe
    mine, other = _flat(asdict(recipe)), _flat(asdict(asked_for))
    key = next(key for key in mine.keys() | other.keys() if mine.get(key) != other.get(key))
    what = f"was started with {key} = {mine.get(key)!r}, not {other.get(key)!r}"
    raise OptionError(what, run.root, "resume it without --recipe, --set and --fold, or train into a new folder")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by keys like "train.batch"."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _check_scans(dataset: Dataset, record: RunRecord) -> None:
    """Raises InputError if a scan that the run was split on, or its mask, is not what it was."""
    for case, digest in record.scans.items():
        same_scan = case in dataset.rows and dataset.digest(case) == digest
        if not same_scan or dataset.mask_digest(case) != record.masks[case]:
            what = f"the mask of scan {case}" if same_scan else f"scan {case} is missing or"
            todo = "resume on the unchanged dataset, or train into a new folder"
            raise InputError(f"{what} was changed since this run was started", dataset.root, todo)


def run_record(job: Job, split: Split) -> RunRecord:
    """What run.json says of a run that is started."""
    session = session_of(job)
    cases = itertools.chain.from_iterable(split.part(part) for part in PARTS)
    scans, masks = {}, {}
    for case in cases:
        scans[case] = job.dataset.digest(case)
        masks[case] = job.dataset.mask_digest(case)
    return RunRecord(
        format=FORMAT,
        hemotorch=__version__,
        data=str(job.dataset.root.resolve()),
        split=split,
        device=session.device,
        ranks=session.ranks,
        environment=session.environment,
        memory=session.memory,
        task=job.task.name,
        task_reason=job.task_reason,
        slice_spacing=job.deployment.slice_spacing,
        scans=scans,
        masks=masks,
    )


def session_of(job: Job, epoch: int = 0, step: int = 0) -> Session:
    """On what, and how, a training is computed from that epoch and step on."""
    memory = f"{job.slices.memory}: {job.slices.why}"
    return Session(job.device, job.ranks.world, environment(), memory, epoch, step)


def start_message(job: Job, state: State) -> str:
    """What is trained on what, in one line."""
    device, options = job.device, job.recipe.train
    steps_done = state.epoch * job.steps + state.step
    what = f"{options.epochs} epochs of {job.steps:,} steps"
    if steps_done:
        what += f", going on after {steps_done:,} of them"
    on = device.reasons[0]
    if device.torch_device.type == "cpu":
        on = f"{device.name}, {device.threads} threads"
    if job.ranks.world > 1:
        on += f", {job.ranks.world} ranks"
    slices = "in memory" if job.slices.memory == "resident" else "streamed"
    task = f"task {job.task.name} ({job.task_reason})"
    what += f", batches of {job.plan.batch}"
    return f"training {job.recipe.name}: {task}; {what}; {on}, {device.precision}, slices {slices}"
