"""The training loop, visible from top to bottom, for CPU and CUDA, alone or as one of several ranks; and how it goes on
after it was killed.

Everything random is a function of (seed, epoch, step, sample), and a checkpoint is exactly the state between two
steps, so a run that was killed ends with the weights of one that never was: bit for bit on a CPU with the same number
of threads and ranks. When checkpoints are written follows the clock; what they hold does not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hemotorch.data.dataset import PARTS, Dataset, Part, Split
from hemotorch.errors import InputError, OptionError, RunError
from hemotorch.evaluation.evaluate import summarise
from hemotorch.inference.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hemotorch.inference.predictor import Predictor
from hemotorch.nets import Net
from hemotorch.recipe import Recipe, load_recipe
from hemotorch.run import BEST, LAST, Run, check_slices
from hemotorch.system import threads
from hemotorch.system.device import Device, choose, environment
from hemotorch.system.progress import bar
from hemotorch.system.ranks import Ranks, joined
from hemotorch.training.autotune import settle
from hemotorch.training.learner import Job, Learner, learning_rate, open_job
from hemotorch.training.memory import loading_explained, memory_explained

LOSS_EVERY = 20  #: steps between two looks at the loss, each of which waits for the device
SHORT_S = 10.0  #: epochs shorter than this share a checkpoint: on a GPU they would take as long as what they keep
AS_BEFORE = "as when it was started"  #: the last reason of a device whose decisions are those of the run's record
Report = Callable[[dict[str, Any]], None]


@dataclass
class State:
    """All that changes while training. `epoch` and `step` say where the next step is."""

    learner: Learner
    epoch: int = 0
    step: int = 0  # within the epoch
    best: float = -math.inf
    loss_sum: float = 0.0  # of the epoch's steps so far
    seconds: float = 0.0  # of training, over all sessions of the run


def train(
    data: Path | str,
    root: Path | str,
    recipe: Recipe | None = None,
    *,
    device: str = "auto",
    resume: bool = False,
    report: Report | None = None,
    say: Callable[[str], None] | None = None,
) -> Run:
    """Trains `recipe` on the prepared dataset `data` into the run folder `root`.

    resume: go on with the run in `root`, with its own recipe, split and device decisions; start it if there is none.
    recipe: the recipe; None takes the run's own when resuming, else `fast`. report: called with each epoch's row of
    metrics; say: before the first step, with what is trained on what. Started by torchrun, SLURM or Ray, each process
    is a rank and calls this alike; the first one writes and reports. Raises InputError, OptionError, RunError.
    """
    run = Run(Path(root))
    with joined(rank_timeout_s(run, recipe)) as ranks, run.locked() if ranks.first else nullcontext():
        ranks.gather(None)  # the first rank holds the folder: nobody looks into it before
        dataset = Dataset(data)
        going_on = resume and ranks.gather((run.root / "run.json").exists())[0]
        if going_on:
            run = Run.open(run.root)
            recipe, split, record = _own(run, recipe), run.split, run.record
            decided = _as_before((record, *record.get("resumed", ()))[-1], device, recipe, ranks)
            _same_scans(dataset, record)
            check_slices(split, dataset)
        else:
            if ranks.first:
                run.must_be_new()
            recipe = recipe or load_recipe("fast")
            split, decided = dataset.split(recipe.data.split), choose(device, recipe.engine, ranks)
        decided.use()
        by_index = going_on and "slice_spacing" not in record  # a run that an earlier version started
        with loading_explained():
            job, net = open_job(dataset, *parts(split, recipe), recipe, decided, ranks, by_index)
        with memory_explained(job, net, run.root / LAST):
            # Ranks on unlike machines may find otherwise, and measuring is done by all or none.
            anew = any(ranks.gather(decided.reasons[-1] != AS_BEFORE))
            if anew:
                job = replace(job, device=settle(job, net))
            if not going_on and ranks.first:
                run = Run.create(run.root, recipe, _record(job, split))
            state = _start(job, run, net)
            if going_on and anew and ranks.first:
                run.add_resumed({"epoch": state.epoch, "step": state.step, **_decisions(job)})
            if say is not None and ranks.first:
                say(_begun(job, state))
            _loop(job, run, state, report or (lambda row: None))
    return run


def _loop(job: Job, run: Run, state: State, report: Report) -> None:
    options, steps, first = job.recipe.train, job.steps, job.ranks.first
    began, saved = time.perf_counter() - state.seconds, time.perf_counter()
    with bar(job.total, "training", "step", state.epoch * steps + state.step, quiet=not first) as shown:
        while state.epoch < options.epochs:
            loss, since = torch.zeros((), device=job.device.torch_device), 0
            for one in state.learner.epoch(state.epoch, state.step):
                loss, since, state.step = loss + one, since + 1, state.step + 1
                shown.update()
                if since == LOSS_EVERY or state.step == steps:
                    job.ranks.gather(None)  # a lost rank is noticed here, not by a GPU that waits for it
                    state.loss_sum += _finite(loss, job, run, state)
                    loss, since = torch.zeros((), device=job.device.torch_device), 0
                    shown.set_postfix(loss=f"{state.loss_sum / state.step:.3f}", refresh=False)
                    if first and time.perf_counter() - saved > options.checkpoint_s and state.step < steps:
                        state.seconds, saved = time.perf_counter() - began, time.perf_counter()
                        save_checkpoint(_checkpoint(job, state), run.root / LAST)
            state.seconds = time.perf_counter() - began
            due = time.perf_counter() - saved >= min(options.checkpoint_s, SHORT_S)
            row, written = _end_epoch(job, run, state, due)
            if first:
                report(row)
            saved = time.perf_counter() if written else saved


def _finite(loss: Tensor, job: Job, run: Run, state: State) -> float:
    """The sum of losses since the last look. Raises RunError where it, or a weight after it, is not finite."""
    value = float(loss)
    if math.isfinite(value) and not _all_finite(state.learner.net, state.learner.deployed):
        value = math.nan
    if not math.isfinite(value):
        where = f"epoch {state.epoch + 1}, step {state.step}"
        kept = (run.root / LAST).exists()
        todo = "train again with a lower optimizer.lr"
        todo += f"; the checkpoints in {run.root} are from before it" if kept else ", into another folder"
        raise RunError(f"the loss became {value}", where, todo)
    return value


def _all_finite(*nets: Net) -> bool:
    """Whether weights and batch statistics are; one look at the device for all of them."""
    values = [v for net in nets for v in net.state_dict().values() if v.is_floating_point()]
    return bool(torch.stack([value.isfinite().all() for value in values]).all())


def _end_epoch(job: Job, run: Run, state: State, due: bool) -> tuple[dict[str, Any], bool]:
    """Validates, writes the epoch's row and both checkpoints, and moves the state to the next epoch.

    Returns the row, and whether checkpoints were written: where they are due, after a validation, and at the end.
    """
    options, done = job.recipe.train, (state.epoch + 1) * job.steps
    row: dict[str, Any] = {
        "epoch": state.epoch + 1,
        "step": done,
        "loss": state.loss_sum / job.steps,
        "lr": learning_rate(job.recipe.optimizer, done - 1, job.total),
        "seconds": round(state.seconds, 2),
    }
    state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, 0.0
    score = None
    if job.validation and (state.epoch == options.epochs or state.epoch % options.validate_every == 0):
        row["val"] = _validate(job, state)
        # Validation scans that hold no bleeding give no Dice: the fewer mL found in them, the better.
        measure = "dice" if options.best_by == "last" else options.best_by
        score = row["val"][measure] if row["val"]["n"] else -row["val"]["fp_ml"]
    always = options.best_by == "last" or not job.validation
    better = always or (score is not None and score >= state.best)
    if better:
        state.best = state.best if score is None else score
    due = due or "val" in row or state.epoch == options.epochs
    if job.ranks.first:
        if better and due:
            save_checkpoint(_checkpoint(job, state, score, trainer=False), run.root / BEST)
        run.keep_metrics(state.epoch - 1)
        run.add_metrics(row)
        if due:
            save_checkpoint(_checkpoint(job, state, score), run.root / LAST)
    return row, due


def _validate(job: Job, state: State) -> dict[str, float]:
    learner = state.learner
    name = f"{job.recipe.name}, epoch {state.epoch}"
    model = Predictor(learner.deployed.eval(), job.recipe, job.device, name, job.spacing)
    found = summarise(model, job.dataset, job.validation, job.ranks)
    learner.net.train()
    return found


_NUMBERS = ("epoch", "step", "best", "loss_sum", "seconds")  # of State, kept in last.pt


def _checkpoint(job: Job, state: State, score: float | None = None, trainer: bool = True) -> Checkpoint:
    inner: dict[str, Any] = {}
    learner = state.learner
    if trainer:
        numbers = {name: getattr(state, name) for name in _NUMBERS}
        inner = {"net": learner.net.state_dict(), "optimizer": learner.optimizer.state_dict(), **numbers}
        if learner.scaler is not None:
            inner["scaler"] = learner.scaler.state_dict()
    net = learner.deployed
    spacing = asdict(job.spacing) if job.spacing is not None else None
    return Checkpoint(
        net.name, net.options, net.state_dict(), asdict(job.recipe), state.epoch, state.step, score, inner, spacing
    )


def _start(job: Job, run: Run, net: Net) -> State:
    """The state to begin with: fresh, or as last.pt has it."""
    state = State(Learner(job, net))
    learner, path = state.learner, run.root / LAST
    if job.ranks.gather(path.exists())[0]:
        checkpoint = load_checkpoint(path)
        try:
            learner.net.load_state_dict(checkpoint.trainer["net"])
            if learner.averaged is not None:
                learner.averaged.load_state_dict(checkpoint.weights)
            learner.load(checkpoint.trainer["optimizer"])
            if learner.scaler is not None and "scaler" in checkpoint.trainer:  # not where a CPU wrote it
                learner.scaler.load_state_dict(checkpoint.trainer["scaler"])
            for name in _NUMBERS:
                setattr(state, name, checkpoint.trainer[name])
        except (KeyError, IndexError, RuntimeError, TypeError, AttributeError, ValueError) as error:
            raise InputError("does not fit this run's recipe", path, "train again in a new folder") from error
    if (state.best > -math.inf or state.epoch == job.recipe.train.epochs) and not (run.root / BEST).exists():
        raise InputError("is missing", run.root / BEST, "put it back, or train again in a new folder")
    if job.ranks.first:
        run.keep_metrics(state.epoch)
    return state


def _begun(job: Job, state: State) -> str:
    device, options = job.device, job.recipe.train
    on = f"{device.name}, {device.threads} threads" if device.torch_device.type == "cpu" else device.reasons[0]
    after = f", going on after {state.epoch * job.steps + state.step:,} of them" if state.epoch or state.step else ""
    ranks = f", {job.ranks.world} ranks" if job.ranks.world > 1 else ""
    what = f"{options.epochs} epochs of {job.steps:,} steps{after}, batches of {job.plan.batch}"
    kept = "in memory" if job.slices.memory == "resident" else "streamed"
    return f"training {job.recipe.name}: {what}; {on}{ranks}, {device.precision}, slices {kept}"


def _as_before(told: dict[str, Any], wanted: str, recipe: Recipe, ranks: Ranks) -> Device:
    """What the run decided when it was started, or last went on elsewhere, of which `told` is the record; anew where it
    goes on elsewhere now."""
    before = Device.from_dict(told["device"])
    now = choose(wanted, recipe.engine, ranks)
    if wanted == "auto" and now.torch_device.type != before.torch_device.type == "cpu":
        now = choose("cpu", recipe.engine, ranks)
    if now.torch_device.type != before.torch_device.type:
        return now.with_reason(f"not as when it was started, which was on {before.name}")
    switches = ("channels_last", "compile", "graphs", "kernels", "keep_memory")
    same: dict[str, Any] = {"precision": before.precision} | {
        name: "on" if getattr(before, name) else "off" for name in switches
    }
    # Bit for bit needs the threads too; several ranks share the cores.
    available, _ = threads.count()
    fits = before.threads <= available or before.threads == recipe.engine.threads
    fits = fits and threads.option() in (0, before.threads)
    alike = ranks.world == told["ranks"] and (ranks.world > 1 or fits)
    if alike and ranks.world == 1:
        same["threads"] = before.threads
    try:
        engine = replace(recipe.engine, **same)
        there = choose(wanted if ":" in wanted else now.torch_device.type, engine, ranks)
        return there.with_reason(AS_BEFORE if alike else "as when it was started, but for ranks or cores")
    except OptionError as error:
        return now.with_reason(f"not as when it was started: {error}")


def rank_timeout_s(run: Run, asked: Recipe | None) -> float:
    """After which a rank is given up: as asked for, as the run's own recipe has it, or as recipes have it."""
    own = run.recipe if (run.root / "recipe.toml").exists() else Recipe()
    return (asked or own).engine.rank_timeout_s


def _own(run: Run, asked: Recipe | None) -> Recipe:
    """The run's recipe. Raises OptionError where another one was asked for, which resuming would ignore."""
    own = run.recipe
    if asked is not None and asked != own:
        mine, other = (_flat(asdict(one)) for one in (own, asked))
        key = next(key for key in mine.keys() | other.keys() if mine.get(key) != other.get(key))
        what = f"was started with {key} = {mine.get(key)!r}, not {other.get(key)!r}"
        raise OptionError(what, run.root, "resume it without --recipe, --set and --fold, or train into a new folder")
    return own


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    pairs = [(_flat(v, f"{prefix}{k}.") if isinstance(v, dict) else {f"{prefix}{k}": v}) for k, v in values.items()]
    return {key: value for part in pairs for key, value in part.items()}


def _same_scans(dataset: Dataset, record: dict[str, Any]) -> None:
    for case, digest in record["scans"].items():
        there = case in dataset.rows and dataset.digest(case) == digest
        if not there or dataset.mask_digest(case) != record["masks"][case]:
            what = f"the mask of scan {case}" if there else f"scan {case} is missing or"
            todo = "resume on the unchanged dataset, or train into a new folder"
            raise InputError(f"{what} was changed since this run was started", dataset.root, todo)


def parts(split: Split, recipe: Recipe) -> tuple[Part, Part]:
    """The slices to train on and to validate on; without validation its slices are trained on too."""
    if recipe.data.validation:
        if not split.val:
            todo = "add --set data.validation=false, or use another split"
            raise OptionError(f"split '{split.name}' has no validation part", "data.split", todo)
        return dict(split.train), dict(split.val)
    merged = dict(split.train)
    for case, indices in split.val.items():
        merged[case] = tuple(sorted({*merged.get(case, ()), *indices}))
    return merged, {}


def _record(job: Job, split: Split) -> dict[str, Any]:
    cases = [case for part in PARTS for case in split.part(part)]
    return {
        "data": str(job.dataset.root.resolve()),
        "split": asdict(split),
        **_decisions(job),
        "slice_spacing": asdict(job.spacing) if job.spacing is not None else None,
        "scans": {case: job.dataset.digest(case) for case in cases},
        "masks": {case: job.dataset.mask_digest(case) for case in cases},
    }


def _decisions(job: Job) -> dict[str, Any]:
    """On what, and how, a training is computed, with why."""
    memory = f"{job.slices.memory}: {job.slices.why}"
    return {
        "device": job.device.to_dict(),
        "ranks": job.ranks.world,
        "memory": memory,
        "environment": environment(),
    }
