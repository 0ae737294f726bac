"""The training loop, visible from top to bottom, for CPU and CUDA; and how it goes on after it was killed.

Everything random is a function of (seed, epoch, step, sample), and a checkpoint is exactly the state between two
steps, so a run that was killed ends with the weights of one that never was: bit for bit on a CPU with the same number
of threads. When checkpoints are written follows the clock; what they hold does not.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hemotorch import losses, nets
from hemotorch.augment import augment, torch_seed
from hemotorch.batches import Batch, Part, Plan, Slices, batches, open_slices
from hemotorch.dataset import Dataset, Split
from hemotorch.device import Device, choose, environment
from hemotorch.errors import InputError, OptionError, RunError
from hemotorch.evaluate import summarise
from hemotorch.nets import Net
from hemotorch.predict import Predictor, grid_of
from hemotorch.progress import bar
from hemotorch.recipe import Optimizer, Recipe
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


def train(
    data: Path | str,
    root: Path | str,
    used: Recipe,
    *,
    device: str = "auto",
    resume: bool = False,
    report: Report | None = None,
) -> Run:
    """Trains `used` on the prepared dataset `data` into the run folder `root`.

    resume: go on with the run in `root`, with its own recipe, split and number of threads; start it if there is none.
    report: called with each epoch's row of metrics. Raises InputError, OptionError, RunError.
    """
    run = Run(Path(root))
    with run.locked():
        dataset = Dataset(data)
        if resume and (run.root / "run.json").exists():
            run = Run.open(run.root)
            used = run.recipe
            record = run.record
            decided = choose(device, record["device"]["threads"])
            if not (run.root / LAST).exists():
                record = {}
        else:
            decided, record = choose(device), None
        decided.use()
        split = _split(run, dataset, used, record)
        training, validation = parts(split, used)
        net = _build(used)
        slices = open_slices(dataset, training, net.slices, grid_of(used, net), used.data.memory, decided.place)
        if record is None:
            run = Run.create(run.root, used, _record(dataset, split, decided, slices))
        _loop(run, used, dataset, slices, sorted(validation), net, decided, report or (lambda row: None))
    return run


def _loop(
    run: Run,
    used: Recipe,
    dataset: Dataset,
    slices: Slices,
    validation: list[str],
    net: Net,
    device: Device,
    report: Report,
) -> None:
    options = used.train
    plan = Plan(slices, used.data, used.tiles, options.batch, options.steps_per_epoch, options.seed)
    state = _start(run, used, net, device)
    loss_of = losses.build(used.loss.name, **used.loss.options)
    steps = -(-plan.steps // options.accumulate)
    began, saved = time.perf_counter() - state.seconds, time.perf_counter()
    total = options.epochs * steps
    with bar(total, "training", "step", state.epoch * steps + state.step) as shown:
        while state.epoch < options.epochs:
            source = batches(slices, plan, used.tiles, state.epoch, state.step * options.accumulate)
            loss, since = torch.zeros((), device=device.place), 0
            while state.step < steps:
                rate = learning_rate(used.optimizer, state.epoch * steps + state.step, total)
                size = min(options.accumulate, plan.steps - state.step * options.accumulate)
                for part in range(size):
                    batch = next(source)
                    key = (options.seed, state.epoch, state.step * options.accumulate + part)
                    loss = loss + _backward(state.net, batch, loss_of, used, device, key) / size
                _update(state, used, rate)
                state.step, since = state.step + 1, since + 1
                shown.update()
                if since == LOSS_EVERY or state.step == steps:
                    state.loss_sum += _finite(loss, state, run)
                    loss, since = torch.zeros((), device=device.place), 0
                    shown.set_postfix(loss=f"{state.loss_sum / state.step:.3f}", refresh=False)
                    if time.perf_counter() - saved > options.checkpoint_s and state.step < steps:
                        state.seconds, saved = time.perf_counter() - began, time.perf_counter()
                        save_checkpoint(_checkpoint(state, used, None), run.root / LAST)
            state.seconds = time.perf_counter() - began
            report(_end_epoch(run, used, dataset, validation, device, state, steps, rate))
            saved = time.perf_counter()


def _backward(
    net: Net,
    batch: Batch,
    loss_of: losses.Loss,
    used: Recipe,
    device: Device,
    key: tuple[int, int, int],
) -> Tensor:
    """Forward and backward of one batch; adds to the gradients and returns the loss without waiting for it."""
    torch.manual_seed(torch_seed(*key))  # dropout
    hu, target = augment(batch.hu, batch.mask, used.augment, [(*key, sample) for sample in range(len(batch.hu))])
    hu = hu.contiguous(memory_format=device.memory_format)
    try:
        with device.precision():
            logits = net(hu)
        loss = loss_of(logits, target)
        (loss / used.train.accumulate if used.train.accumulate > 1 else loss).backward()
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):
            shape = "x".join(str(n) for n in hu.shape)
            todo = "lower train.batch and raise train.accumulate; the last checkpoint is intact, go on with --resume"
            raise RunError(f"out of memory on {device.name} with a batch of {shape}", "training", todo) from error
        raise
    return loss.detach()


def _update(state: State, used: Recipe, rate: float) -> None:
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    if used.optimizer.clip_norm:
        torch.nn.utils.clip_grad_norm_(state.net.parameters(), used.optimizer.clip_norm)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.averaged is not None:
        _average(state.averaged, state.net, used.train.ema)


@torch.no_grad()
def _average(averaged: Net, net: Net, decay: float) -> None:
    """Moves the average toward the weights and the batch statistics; counters are copied."""
    mean, new = averaged.state_dict(), net.state_dict()
    floating = [name for name, value in new.items() if value.is_floating_point()]
    torch._foreach_lerp_([mean[name] for name in floating], [new[name] for name in floating], 1 - decay)
    for name in new.keys() - set(floating):
        mean[name].copy_(new[name])


def _finite(loss: Tensor, state: State, run: Run) -> float:
    """The sum of losses since the last look. Raises RunError where it, or a weight after it, is not finite."""
    value = float(loss)
    if math.isfinite(value) and not all(bool(p.isfinite().all()) for p in state.net.parameters()):
        value = math.nan
    if not math.isfinite(value):
        where = f"epoch {state.epoch + 1}, step {state.step}"
        todo = f"train again with a lower optimizer.lr; the checkpoints in {run.root} are from before it"
        raise RunError(f"the loss became {value}", where, todo)
    return value


def learning_rate(options: Optimizer, step: int, total: int) -> float:
    """The rate of a step counted over the whole training: constant, or up to `lr` and down again (one-cycle)."""
    warm = options.warmup * total
    rise = min(1.0, (step + 1) / (warm + 1))
    if options.schedule == "constant" or step < warm:
        return options.lr * rise
    return options.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, total - warm)))


def _end_epoch(
    run: Run,
    used: Recipe,
    dataset: Dataset,
    validation: list[str],
    device: Device,
    state: State,
    steps: int,
    rate: float,
) -> dict[str, Any]:
    """Validates, writes the epoch's row and both checkpoints, and moves the state to the next epoch."""
    options = used.train
    state.epoch, state.step = state.epoch + 1, 0
    row: dict[str, Any] = {
        "epoch": state.epoch,
        "step": state.epoch * steps,
        "loss": state.loss_sum / steps,
        "lr": rate,
        "seconds": round(state.seconds, 2),
    }
    state.loss_sum = 0.0
    score = None
    last = state.epoch == options.epochs
    if validation and (last or state.epoch % options.validate_every == 0):
        model = Predictor(state.deployed.eval(), used, device, f"{used.name}, epoch {state.epoch}")
        row["val"] = summarise(model, dataset, validation)
        state.net.train()
        # Validation scans that hold no bleeding give no Dice: the fewer mL found in them, the better.
        score = row["val"][options.best_by] if row["val"]["n"] else -row["val"]["fp_ml"]
    if not validation or (score is not None and score >= state.best):
        state.best = score if score is not None else state.best
        save_checkpoint(_checkpoint(state, used, score, deployed_only=True), run.root / BEST)
    run.keep_metrics(state.epoch - 1)
    run.add_metrics(row)
    save_checkpoint(_checkpoint(state, used, score), run.root / LAST)
    return row


def _checkpoint(state: State, used: Recipe, score: float | None, deployed_only: bool = False) -> Checkpoint:
    trainer: dict[str, Any] = {}
    if not deployed_only:
        numbers = {n: getattr(state, n) for n in ("epoch", "step", "best", "loss_sum", "seconds")}
        trainer = {"net": state.net.state_dict(), "optimizer": state.optimizer.state_dict(), **numbers}
    net = state.deployed
    return Checkpoint(net.name, net.options, net.state_dict(), asdict(used), state.epoch, state.step, score, trainer)


def _start(run: Run, used: Recipe, net: Net, device: Device) -> State:
    """The state to begin with: fresh, or as last.pt has it."""
    net = device.put(net)
    averaged = copy.deepcopy(net) if used.train.ema else None
    state = State(net.train(), averaged, _optimizer(used.optimizer, net))
    if not (run.root / LAST).exists():
        run.keep_metrics(0)
        return state
    checkpoint = load_checkpoint(run.root / LAST)
    trainer = checkpoint.trainer
    try:
        net.load_state_dict(trainer["net"])
        if averaged is not None:
            averaged.load_state_dict(checkpoint.weights)
        state.optimizer.load_state_dict(trainer["optimizer"])
        for name in ("epoch", "step", "best", "loss_sum", "seconds"):
            setattr(state, name, trainer[name])
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError("does not fit this run's recipe", run.root / LAST, "train again in a new folder") from error
    run.keep_metrics(state.epoch)
    return state


def _optimizer(options: Optimizer, net: Net) -> torch.optim.Optimizer:
    parameters = list(net.parameters())
    if options.name == "adam":
        return torch.optim.Adam(parameters, options.lr, weight_decay=options.weight_decay)
    if options.name == "adamw":
        return torch.optim.AdamW(parameters, options.lr, weight_decay=options.weight_decay)
    return torch.optim.SGD(parameters, options.lr, options.momentum, weight_decay=options.weight_decay)


def _build(used: Recipe) -> Net:
    torch.manual_seed(torch_seed(used.train.seed, 0))
    return nets.build(used.net.name, **used.net.options)


def parts(split: Split, used: Recipe) -> tuple[Part, Part]:
    """The slices to train on and to validate on; without validation its slices are trained on too."""
    if used.data.validation:
        if not split.val:
            todo = "set data.validation=false, or use another split"
            raise OptionError(f"split '{split.name}' has no validation part", "data.split", todo)
        return dict(split.train), dict(split.val)
    merged = dict(split.train)
    for case, indices in split.val.items():
        merged[case] = tuple(sorted({*merged.get(case, ()), *indices}))
    return merged, {}


def _split(run: Run, dataset: Dataset, used: Recipe, record: dict[str, Any] | None) -> Split:
    """The recipe's split, or on resuming the run's own copy of it."""
    if record:
        return run.split
    return dataset.split(used.data.split)


def _record(dataset: Dataset, split: Split, device: Device, slices: Slices) -> dict[str, Any]:
    return {
        "data": str(dataset.root.resolve()),
        "split": asdict(split),
        "device": device.to_dict(),
        "memory": type(slices).__name__.lower(),
        "environment": environment(),
    }
