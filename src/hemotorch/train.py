"""The training loop, visible from top to bottom, for CPU and CUDA; and how it goes on after it was killed.

Everything random is a function of (seed, epoch, step, sample), and a checkpoint is exactly the state between two
steps, so a run that was killed ends with the weights of one that never was: bit for bit on a CPU with the same number
of threads. When checkpoints are written follows the clock; what they hold does not.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hemotorch import losses, nets
from hemotorch.augment import augment, torch_seed
from hemotorch.batches import Batch, Plan, Resident, Slices, batches, open_slices
from hemotorch.dataset import PARTS, Dataset, Part, Split
from hemotorch.device import Device, choose, environment
from hemotorch.errors import InputError, OptionError, RunError
from hemotorch.evaluate import summarise
from hemotorch.nets import Net
from hemotorch.predict import Predictor, grid_of
from hemotorch.progress import bar
from hemotorch.recipe import Optimizer, Recipe, load
from hemotorch.run import BEST, LAST, Checkpoint, Run, load_checkpoint, save_checkpoint

LOSS_EVERY = 20  #: steps between two looks at the loss, each of which waits for the device
Report = Callable[[dict[str, Any]], None]


@dataclass
class State:
    """All that changes while training. `epoch` and `step` say where the next step is."""

    net: Net
    averaged: Net | None
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0  # within the epoch
    best: float = -math.inf
    loss_sum: float = 0.0  # of the epoch's steps so far
    seconds: float = 0.0  # of training, over all sessions of the run

    @property
    def deployed(self) -> Net:
        """The network that is validated and kept."""
        return self.averaged if self.averaged is not None else self.net


@dataclass(frozen=True)
class Job:
    """What does not change while training. `steps` are the optimiser's, an epoch."""

    run: Run
    used: Recipe
    dataset: Dataset
    device: Device
    slices: Slices
    plan: Plan
    loss_of: losses.Loss
    validation: Part

    @property
    def steps(self) -> int:
        return -(-self.plan.steps // self.used.train.accumulate)

    @property
    def total(self) -> int:
        return self.steps * self.used.train.epochs


def train(
    data: Path | str,
    root: Path | str,
    used: Recipe | None = None,
    *,
    device: str = "auto",
    resume: bool = False,
    report: Report | None = None,
) -> Run:
    """Trains `used` on the prepared dataset `data` into the run folder `root`.

    resume: go on with the run in `root`, with its own recipe, split, device and number of threads; start it if there
    is none. used: the recipe; None takes the run's own when resuming, else `fast`.
    report: called with each epoch's row of metrics. Raises InputError, OptionError, RunError.
    """
    run = Run(Path(root))
    with run.locked():
        dataset = Dataset(data)
        going_on = resume and (run.root / "run.json").exists()
        if going_on:
            run = Run.open(run.root)
            used, split, record = _own(run, used), run.split, run.record
            decided = choose(record["device"]["name"] if device == "auto" else device, record["device"]["threads"])
            memory = record["memory"]
            _same_scans(dataset, record)
        else:
            run.must_be_new()
            used = used or load("fast")
            split, decided, memory = dataset.split(used.data.split), choose(device), used.data.memory
        decided.use()
        training, validation = parts(split, used)
        torch.manual_seed(torch_seed(used.train.seed, 0))
        net = nets.build(used.net.name, **used.net.options)
        loss_of = losses.build(used.loss.name, **used.loss.options)
        _check_sizes(used, net)
        slices = open_slices(dataset, training, net.slices, grid_of(used, net), memory, decided.place)
        plan = Plan(slices, used.data, used.tiles, used.train.batch, used.train.steps_per_epoch, used.train.seed)
        if not going_on:
            run = Run.create(run.root, used, _record(dataset, split, decided, slices))
        job = Job(run, used, dataset, decided, slices, plan, loss_of, validation)
        with _memory_explained(job, net):
            _loop(job, _start(job, net), report or (lambda row: None))
    return run


@contextmanager
def _memory_explained(job: Job, net: Net) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "allocate memory" not in str(error):
            raise
        sides = [job.used.augment.crop_px or side for side in job.slices.sizes.max(axis=0).tolist()]
        sides = [min(side, job.used.tiles.size_px or side) for side in sides]
        shape = "x".join(map(str, (job.used.train.batch, net.slices, *sides)))
        kept = "; the last checkpoint is intact" if (job.run.root / LAST).exists() else ""
        todo = f"lower train.batch and raise train.accumulate{kept}"
        raise RunError(f"out of memory on {job.device.name} with a batch of {shape}", "training", todo) from error


def _loop(job: Job, state: State, report: Report) -> None:
    options, plan, steps = job.used.train, job.plan, job.steps
    began, saved = time.perf_counter() - state.seconds, time.perf_counter()
    with bar(job.total, "training", "step", state.epoch * steps + state.step) as shown:
        while state.epoch < options.epochs:
            source = batches(job.slices, plan, job.used.tiles, state.epoch, state.step * options.accumulate)
            loss, since = torch.zeros((), device=job.device.place), 0
            while state.step < steps:
                first = state.step * options.accumulate
                size = min(options.accumulate, plan.steps - first)
                for part in range(first, first + size):
                    loss = loss + _backward(job, state, next(source), part, size)
                _update(job, state)
                state.step, since = state.step + 1, since + 1
                shown.update()
                if since == LOSS_EVERY or state.step == steps:
                    state.loss_sum += _finite(loss, job, state)
                    loss, since = torch.zeros((), device=job.device.place), 0
                    shown.set_postfix(loss=f"{state.loss_sum / state.step:.3f}", refresh=False)
                    if time.perf_counter() - saved > options.checkpoint_s and state.step < steps:
                        state.seconds, saved = time.perf_counter() - began, time.perf_counter()
                        save_checkpoint(_checkpoint(job, state), job.run.root / LAST)
            state.seconds = time.perf_counter() - began
            report(_end_epoch(job, state))
            saved = time.perf_counter()


def _backward(job: Job, state: State, batch: Batch, part: int, size: int) -> Tensor:
    """Forward and backward of one of a step's `size` batches, the epoch's number `part`.

    Adds to the gradients and returns the batch's share of the step's loss, without waiting for the device.
    """
    key = (job.used.train.seed, state.epoch, part)
    torch.manual_seed(torch_seed(*key))  # dropout
    hu, target = augment(batch.hu, batch.mask, job.used.augment, [(*key, sample) for sample in range(len(batch.hu))])
    hu = hu.contiguous(memory_format=job.device.memory_format)
    with job.device.precision():
        logits = state.net(hu)
    loss = job.loss_of(logits, target) / size
    loss.backward()
    return loss.detach()


def _update(job: Job, state: State) -> None:
    options = job.used.optimizer
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(options, state.epoch * job.steps + state.step, job.total)
    if options.clip_norm:
        torch.nn.utils.clip_grad_norm_(state.net.parameters(), options.clip_norm)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.averaged is not None:
        _average(state.averaged, state.net, job.used.train.ema)


@torch.no_grad()
def _average(averaged: Net, net: Net, decay: float) -> None:
    """Moves the average toward the weights and the batch statistics; counters are copied."""
    mean, new = averaged.state_dict(), net.state_dict()
    floating = [name for name, value in new.items() if value.is_floating_point()]
    torch._foreach_lerp_([mean[name] for name in floating], [new[name] for name in floating], 1 - decay)
    for name in new.keys() - set(floating):
        mean[name].copy_(new[name])


def _finite(loss: Tensor, job: Job, state: State) -> float:
    """The sum of losses since the last look. Raises RunError where it, or a weight after it, is not finite."""
    value = float(loss)
    if math.isfinite(value) and not _all_finite(state.net, state.deployed):
        value = math.nan
    if not math.isfinite(value):
        where = f"epoch {state.epoch + 1}, step {state.step}"
        kept = (job.run.root / LAST).exists()
        todo = "train again with a lower optimizer.lr"
        todo += f"; the checkpoints in {job.run.root} are from before it" if kept else ", into another folder"
        raise RunError(f"the loss became {value}", where, todo)
    return value


def _all_finite(*nets: Net) -> bool:
    """Whether weights and batch statistics are; one look at the device for all of them."""
    values = [v for net in nets for v in net.state_dict().values() if v.is_floating_point()]
    return bool(torch.stack([value.isfinite().all() for value in values]).all())


def learning_rate(options: Optimizer, step: int, total: int) -> float:
    """The rate of a step counted over the whole training: constant, or up to `lr` and down again (one-cycle)."""
    warm = options.warmup * total
    rise = min(1.0, (step + 1) / (warm + 1))
    if options.schedule == "constant" or step < warm:
        return options.lr * rise
    return options.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, total - warm)))


def _end_epoch(job: Job, state: State) -> dict[str, Any]:
    """Validates, writes the epoch's row and both checkpoints, and moves the state to the next epoch."""
    options = job.used.train
    row: dict[str, Any] = {
        "epoch": state.epoch + 1,
        "step": (state.epoch + 1) * job.steps,
        "loss": state.loss_sum / job.steps,
        "lr": state.optimizer.param_groups[0]["lr"],
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
    if always or (score is not None and score >= state.best):
        state.best = state.best if score is None else score
        save_checkpoint(_checkpoint(job, state, score, trainer=False), job.run.root / BEST)
    job.run.keep_metrics(state.epoch - 1)
    job.run.add_metrics(row)
    save_checkpoint(_checkpoint(job, state, score), job.run.root / LAST)
    return row


def _validate(job: Job, state: State) -> dict[str, float]:
    model = Predictor(state.deployed.eval(), job.used, job.device, f"{job.used.name}, epoch {state.epoch}")
    found = summarise(model, job.dataset, job.validation)
    state.net.train()
    return found


_NUMBERS = ("epoch", "step", "best", "loss_sum", "seconds")  # of State, kept in last.pt


def _checkpoint(job: Job, state: State, score: float | None = None, trainer: bool = True) -> Checkpoint:
    inner: dict[str, Any] = {}
    if trainer:
        numbers = {name: getattr(state, name) for name in _NUMBERS}
        inner = {"net": state.net.state_dict(), "optimizer": state.optimizer.state_dict(), **numbers}
    net = state.deployed
    return Checkpoint(net.name, net.options, net.state_dict(), asdict(job.used), state.epoch, state.step, score, inner)


def _start(job: Job, net: Net) -> State:
    """The state to begin with: fresh, or as last.pt has it."""
    net = job.device.put(net).train()
    averaged = copy.deepcopy(net) if job.used.train.ema else None
    state = State(net, averaged, _optimizer(job.used.optimizer, net))
    path = job.run.root / LAST
    if path.exists():
        checkpoint = load_checkpoint(path)
        try:
            net.load_state_dict(checkpoint.trainer["net"])
            if averaged is not None:
                averaged.load_state_dict(checkpoint.weights)
            state.optimizer.load_state_dict(checkpoint.trainer["optimizer"])
            for name in _NUMBERS:
                setattr(state, name, checkpoint.trainer[name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise InputError("does not fit this run's recipe", path, "train again in a new folder") from error
    job.run.keep_metrics(state.epoch)
    return state


def _optimizer(options: Optimizer, net: Net) -> torch.optim.Optimizer:
    parameters = list(net.parameters())
    if options.name == "adam":
        return torch.optim.Adam(parameters, options.lr, weight_decay=options.weight_decay)
    if options.name == "adamw":
        return torch.optim.AdamW(parameters, options.lr, weight_decay=options.weight_decay)
    return torch.optim.SGD(parameters, options.lr, options.momentum, weight_decay=options.weight_decay)


def _check_sizes(used: Recipe, net: Net) -> None:
    for name, pixels in (("augment.crop_px", used.augment.crop_px), ("tiles.size_px", used.tiles.size_px)):
        if pixels % net.multiple:
            nearest = max(1, round(pixels / net.multiple)) * net.multiple
            raise OptionError(
                f"must be a multiple of {net.multiple} for '{net.name}', not {pixels}", name, f"use {nearest}"
            )


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


def parts(split: Split, used: Recipe) -> tuple[Part, Part]:
    """The slices to train on and to validate on; without validation its slices are trained on too."""
    if used.data.validation:
        if not split.val:
            todo = "add --set data.validation=false, or use another split"
            raise OptionError(f"split '{split.name}' has no validation part", "data.split", todo)
        return dict(split.train), dict(split.val)
    merged = dict(split.train)
    for case, indices in split.val.items():
        merged[case] = tuple(sorted({*merged.get(case, ()), *indices}))
    return merged, {}


def _record(dataset: Dataset, split: Split, device: Device, slices: Slices) -> dict[str, Any]:
    cases = [case for part in PARTS for case in split.part(part)]
    return {
        "data": str(dataset.root.resolve()),
        "split": asdict(split),
        "device": device.to_dict(),
        "memory": "resident" if isinstance(slices, Resident) else "stream",
        "scans": {case: dataset.digest(case) for case in cases},
        "masks": {case: dataset.mask_digest(case) for case in cases},
        "environment": environment(),
    }
