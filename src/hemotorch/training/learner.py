"""What the training loop moves on: the network, its average and its optimiser, on one process or as one of several
ranks; eager, compiled, or captured once as a CUDA graph and replayed. What a step does is written in `loop.train_step`.

Nothing in a step waits for the device: learning rate and loss are tensors on it, and what is random is computed on it
from each sample's key.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from hemotorch.nets import Net
from hemotorch.nets.sync import SyncBatchNorm, synchronise
from hemotorch.system.device import Device
from hemotorch.training.augment import augment
from hemotorch.training.batches import Batch
from hemotorch.training.job import Job
from hemotorch.training.optimizer import learning_rate, make_optimizer

WARM_UP = 3  #: steps before one is captured as a graph; they are real steps of the training
TrainStep = Callable[["Learner", Sequence[Batch]], Tensor]  #: one step; returns its loss, on the device
Steps = Callable[["Learner", int], Iterator[Tensor]]  #: the steps of an epoch, one each time it is asked


class Learner:
    """The network, its average and its optimiser, and how a step of them is computed on this machine.

    on_phase_end: called with "data", "augment", "forward", "backward" and "optimiser" at the end of each, for whoever
        measures; in a captured step only while it is captured. On a GPU it is called when work was handed over, not
        when it was done.
    """

    def __init__(self, job: Job, net: Net):
        self.job = job
        self.on_phase_end: Callable[[str], None] = _ignore
        device, ranks, recipe = job.device, job.ranks, job.recipe
        self.net = device.put(net).train()
        self.averaged: Net | None = None
        if recipe.train.ema:
            self.averaged = copy.deepcopy(self.net)
        if ranks.world > 1 and recipe.engine.sync_batch_norm:
            synchronise(self.net, ranks)
        self.lr = torch.tensor(recipe.optimizer.lr, device=device.torch_device)
        self.optimizer = make_optimizer(recipe.optimizer, self.net, self.lr)
        self.scaler: torch.amp.GradScaler | None = None
        if device.precision == "fp16":
            self.scaler = torch.amp.GradScaler(device.torch_device.type)
        self.loss_sums = job.loss.sums
        if device.kernels and job.loss.kernel:
            self.loss_sums = job.loss.kernel
        self.model: Any = self.net
        self._augment = augment
        if device.compile:
            self.model = _compiled(self.net, device)
            self._augment = torch.compile(augment, dynamic=False)
        self._rank_statistics: list[Tensor] = []
        if ranks.world > 1:
            self.model = _parallel(self.model, device)
            self._rank_statistics = _batch_statistics(self.net)
        self._average: _Average | None = None
        if self.averaged is not None:
            self._average = _Average(self.averaged, self.net, recipe.train.ema)
        self._graphs: dict[int, _Graph] = {}
        self._warm_steps = 0
        self._stream: torch.cuda.Stream | None = None
        if device.graphs:
            self._stream = torch.cuda.Stream()

    @property
    def deployed(self) -> Net:
        """The network that is validated and saved."""
        return self.net if self.averaged is None else self.averaged

    def is_finite(self) -> bool:
        """Whether weights and batch statistics, the averaged ones included, are; one look at the device for all."""
        checks = []
        for net in (self.net, self.deployed):
            for value in net.state_dict().values():
                if value.is_floating_point():
                    checks.append(value.isfinite().all())
        return bool(torch.stack(checks).all())

    def set_learning_rate(self, step: int) -> None:
        """The rate of a step, counted over the whole training."""
        self.lr.fill_(learning_rate(self.job.recipe.optimizer, step, self.job.total))

    def run(self, train_step: TrainStep, batches: Sequence[Batch]) -> Tensor:
        """One step on the mean loss of its batches: called as it is, or replayed as a CUDA graph.

        Returns:
            The step's loss, on the device.
        """
        if not self.job.device.graphs:
            return train_step(self, batches)
        if self._warm_steps < WARM_UP:
            self._warm_steps += 1
            return self._on_side_stream(train_step, batches)
        count = len(batches)  # an epoch's last step may have fewer of them, and needs a graph of its own
        if count not in self._graphs:
            resident = self.job.slices.memory == "resident"
            self._graphs[count] = _Graph(lambda copies: train_step(self, copies), batches, resident)
        return self._graphs[count].replay(batches)

    def augment(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The batch moved and roughened.

        Returns:
            HU (N, slices, h, w), in the type and layout that the network takes, and its target (N, 1, h, w).
        """
        job, device = self.job, self.job.device
        block = None
        if batch.corners is not None:
            block = (batch.corners, job.plan.block)
        hu, target = self._augment(
            batch.hu,
            batch.target,
            batch.rows,
            job.recipe.augment,
            batch.keys,
            block,
            device.kernels,
            bool(job.task.types),
        )
        hu = hu.to(device.dtype).contiguous(memory_format=device.memory_format)
        return hu, target

    def gradient_exchange(self, last: bool) -> AbstractContextManager[Any]:
        """The context of a batch's forward and backward. last: of the step's batches.

        Gradients of a step's earlier batches stay with their rank; the last one's message carries all.
        """
        if isinstance(self.model, DistributedDataParallel) and not last:
            return self.model.no_sync()
        return nullcontext()

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss as `backward` is called on it: in fp16 scaled, so that small gradients do not become 0."""
        if self.scaler is None:
            return loss
        return self.scaler.scale(loss)

    def update(self) -> None:
        """Moves the weights by their gradients, clears these, and moves the average toward the weights."""
        clip_norm = self.job.recipe.optimizer.clip_norm
        if clip_norm:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)  # the norm is that of the gradients themselves
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), clip_norm)
        if self.scaler is None:
            self.optimizer.step()
        else:
            # Leaves the step out if a gradient overflowed, and lowers the scale.
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.job.ranks.average_(self._rank_statistics)
        if self._average is not None:
            self._average.update()

    def load_optimizer(self, stored: dict[str, Any]) -> None:
        """Takes the optimiser's state back. How it computes stays this learner's: its device may be another one."""
        groups = self.optimizer.param_groups
        settings_here = [dict(group) for group in groups]
        self.optimizer.load_state_dict(stored)
        for group, settings in zip(self.optimizer.param_groups, settings_here, strict=True):
            settings.pop("params")
            group.update(settings)

    def _on_side_stream(self, train_step: TrainStep, batches: Sequence[Batch]) -> Tensor:
        """What a CUDA graph's warm-up must run on; one stream, since memory freed on it is kept for it."""
        assert self._stream is not None
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            loss = train_step(self, batches)
        torch.cuda.current_stream().wait_stream(self._stream)
        return loss


def _compiled(net: Net, device: Device) -> Any:
    # Inductor leaves channels-last where a convolution halves the channels, unless it is told to keep to it.
    keep = device.channels_last and device.torch_device.type == "cuda"
    # In one piece also with several ranks: older torches cannot cut it at gradients of one's own.
    torch._dynamo.config.optimize_ddp = False
    return torch.compile(net, dynamic=False, options={"force_layout_optimization": keep})


def _parallel(model: Any, device: Device) -> DistributedDataParallel:
    """Averages gradients over ranks while they are computed. Batch statistics are averaged in `Learner.update`."""
    device_ids = None
    if device.torch_device.type == "cuda":
        device_ids = [device.torch_device.index]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 renames broadcast_buffers, 2.11 knows no other
        return DistributedDataParallel(model, device_ids, broadcast_buffers=False, gradient_as_bucket_view=True)


def _batch_statistics(net: Net) -> list[Tensor]:
    """What plain batch norm collects, on each rank from its own samples: averaged after each step."""
    statistics = []
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and not isinstance(module, SyncBatchNorm):
            for values in (module.running_mean, module.running_var):
                if values is not None:
                    statistics.append(values)
    return statistics


def _ignore(phase: str) -> None:
    pass


class _Average:
    """Moves the averaged weights and batch statistics toward the network's; counters are copied.

    Lists of tensors, since one call for all of them takes a fraction of the time of one call for each.
    """

    def __init__(self, averaged: Net, net: Net, decay: float):
        self._weight = 1 - decay
        self._means: list[Tensor] = []
        self._values: list[Tensor] = []
        self._mean_counters: list[Tensor] = []
        self._counters: list[Tensor] = []
        mean = averaged.state_dict()
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                self._means.append(mean[name])
                self._values.append(value)
            else:
                self._mean_counters.append(mean[name])
                self._counters.append(value)

    @torch.no_grad()
    def update(self) -> None:
        """After each step."""
        torch._foreach_lerp_(self._means, self._values, self._weight)
        if self._counters:
            torch._foreach_copy_(self._mean_counters, self._counters)


class _Graph:
    """A step captured as a CUDA graph: launched as one, with the same memory each time."""

    def __init__(self, step: Callable[[Sequence[Batch]], Tensor], batches: Sequence[Batch], resident: bool):
        # A resident stack stays where it is; what differs from step to step gets memory that the graph reads.
        stacks = ("hu", "target") if resident else ()
        self._batches = []
        for batch in batches:
            copies: dict[str, Any] = {}
            for field in fields(Batch):
                value = getattr(batch, field.name)
                if value is not None and field.name not in stacks:
                    copies[field.name] = value.clone()
            self._batches.append(replace(batch, **copies))
        self._graph = torch.cuda.CUDAGraph()
        # Threads that read ahead pin memory meanwhile, which would break a capture that watches all threads.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._loss = step(self._batches)

    def replay(self, batches: Sequence[Batch]) -> Tensor:
        """The step on other batches of the same shapes. Returns its loss, on the device."""
        for captured, batch in zip(self._batches, batches, strict=True):
            for field in fields(Batch):
                memory, value = getattr(captured, field.name), getattr(batch, field.name)
                if value is not None and memory is not value:
                    memory.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._loss.clone()  # the next replay overwrites it


def endless(learner: Learner, steps: Steps) -> Iterator[Tensor]:
    """The steps of one epoch after the other, for whoever measures them."""
    for epoch in itertools.count():
        yield from steps(learner, epoch)
