"""All that changes while training, and the checkpoints of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hemotorch.errors import InputError
from hemotorch.inference.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hemotorch.nets import Net
from hemotorch.run import BEST, LAST, Run
from hemotorch.training.job import Job
from hemotorch.training.learner import Learner

COUNTERS = ("epoch", "step", "best", "loss_sum", "seconds")  #: fields of State that last.pt holds


@dataclass
class State:
    """All that changes while training. `epoch` and `step` say where the next step is."""

    learner: Learner
    epoch: int = 0
    step: int = 0  # within the epoch
    best: float = -math.inf
    loss_sum: float = 0.0  # of the epoch's steps so far, but for those of `unread_loss`
    seconds: float = 0.0  # of training, over all sessions of the run
    unread_steps: int = 0
    unread_loss: Tensor | None = None  # of the steps since it was last read; on the device

    def add(self, loss: Tensor) -> None:
        """Counts a step that was done. Does not wait for the device."""
        if self.unread_loss is None:
            self.unread_loss = torch.zeros_like(loss)
        self.unread_loss = self.unread_loss + loss
        self.unread_steps += 1
        self.step += 1

    def read_loss(self) -> float:
        """Waits for the device; returns the sum of losses since the last time, and adds it to `loss_sum`."""
        loss = 0.0 if self.unread_loss is None else float(self.unread_loss)
        self.loss_sum += loss
        self.unread_loss, self.unread_steps = None, 0
        return loss

    def next_epoch(self) -> None:
        """The epoch is done."""
        self.epoch, self.step, self.loss_sum = self.epoch + 1, 0, 0.0


def load_state(job: Job, run: Run, net: Net) -> State:
    """The state to begin with: fresh, or as last.pt has it.

    Raises:
        InputError: if last.pt does not fit the recipe, or best.pt is missing or damaged.
    """
    state = State(Learner(job, net))
    path = run.root / LAST
    if job.ranks.gather(path.exists())[0]:
        checkpoint = load_checkpoint(path)
        try:
            _restore(state, checkpoint)
        except (KeyError, IndexError, RuntimeError, TypeError, AttributeError, ValueError) as error:
            raise InputError("does not fit this run's recipe", path, "train again in a new folder") from error
    had_best = state.best > -math.inf or state.epoch == job.recipe.train.epochs
    if had_best and not (run.root / BEST).exists():
        raise InputError("is missing", run.root / BEST, "put it back, or train again in a new folder")
    if had_best:
        load_checkpoint(run.root / BEST)  # a training that ends well leaves a network that can be used
    if job.ranks.first:
        run.drop_metrics(after_epoch=state.epoch)
    return state


def _restore(state: State, checkpoint: Checkpoint) -> None:
    learner, stored = state.learner, checkpoint.trainer
    learner.net.load_state_dict(stored["net"])
    if learner.averaged is not None:
        learner.averaged.load_state_dict(checkpoint.weights)
    learner.load_optimizer(stored["optimizer"])
    if learner.scaler is not None and "scaler" in stored:  # not if a CPU wrote it
        learner.scaler.load_state_dict(stored["scaler"])
    if stored["epoch"] < 0 or stored["step"] < 0:
        raise ValueError("a training has no negative step")
    for name in COUNTERS:
        setattr(state, name, stored[name])


def checkpoint_of(job: Job, state: State, score: float | None = None, resumable: bool = True) -> Checkpoint:
    """The network to deploy and, if it is to be resumable, all else that the next step depends on."""
    learner = state.learner
    trainer: dict[str, Any] = {}
    if resumable:
        trainer = {"net": learner.net.state_dict(), "optimizer": learner.optimizer.state_dict()}
        for name in COUNTERS:
            trainer[name] = getattr(state, name)
        if learner.scaler is not None:
            trainer["scaler"] = learner.scaler.state_dict()
    net = learner.deployed
    return Checkpoint(
        net=net.name,
        options=net.options,
        weights=net.state_dict(),
        deployment=job.deployment_after(state.epoch),
        epoch=state.epoch,
        step=state.step,
        score=score,
        trainer=trainer,
    )


class CheckpointWriter:
    """Writes the checkpoints of a run, on the first rank, and knows when one is due."""

    def __init__(self, job: Job, run: Run, state: State):
        self._job, self._run, self._state = job, run, state
        self._started = time.perf_counter() - state.seconds
        self._saved = time.perf_counter()

    def read_clock(self) -> None:
        """Updates the seconds of training in the state."""
        self._state.seconds = time.perf_counter() - self._started

    def due(self, after_s: float) -> bool:
        """Whether the last checkpoint is older than that."""
        return time.perf_counter() - self._saved >= after_s

    def save_last(self, score: float | None = None) -> None:
        """Writes last.pt, which holds all that the next step depends on."""
        self._save(checkpoint_of(self._job, self._state, score), LAST)
        self._saved = time.perf_counter()

    def save_best(self, score: float | None) -> None:
        """Writes best.pt, the network to deploy."""
        self._save(checkpoint_of(self._job, self._state, score, resumable=False), BEST)

    def _save(self, checkpoint: Checkpoint, name: str) -> None:
        if self._job.ranks.first:
            save_checkpoint(checkpoint, self._run.root / name)
