"""What the training loop moves on: the network, its average and its optimiser, on one process or as one of several
ranks; eager, compiled, or captured once as a CUDA graph and replayed. What a step does is written in `loop.train_step`.

Nothing in a step waits for the device: learning rate and loss are tensors on it, and what is random is computed on it
from each sample's key.
"""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from hemotorch import nets
from hemotorch.data.dataset import Dataset
from hemotorch.data.splits import Part, Split
from hemotorch.errors import OptionError
from hemotorch.inference.deployment import Deployment
from hemotorch.keyed_random import torch_seed
from hemotorch.nets import Net
from hemotorch.nets.sync import SyncBatchNorm, synchronise
from hemotorch.recipe import Optimizer, Recipe
from hemotorch.system.device import Device
from hemotorch.system.ranks import Ranks
from hemotorch.task import Task
from hemotorch.training import losses
from hemotorch.training.augment import augment
from hemotorch.training.batches import Batch, Plan
from hemotorch.training.slices import Slices, open_slices, slice_spacing
from hemotorch.training.task_choice import choose_task

WARM_UP = 3  #: steps before one is captured as a graph; they are real steps of the training
TrainStep = Callable[["Learner", Sequence[Batch]], Tensor]  #: one step; returns its loss, on the device
Steps = Callable[["Learner", int], Iterator[Tensor]]  #: the steps of an epoch, one each time it is asked


@dataclass(frozen=True)
class Job:
    """What does not change while training. `steps` are the optimiser's, an epoch."""

    recipe: Recipe
    dataset: Dataset
    device: Device
    ranks: Ranks
    slices: Slices
    plan: Plan
    loss: losses.Loss
    validation: Part
    deployment: Deployment  # as it is before the first epoch
    task_reason: str  # why the task is what it is

    @property
    def steps(self) -> int:
        return -(-self.plan.steps // self.recipe.train.accumulate)

    @property
    def task(self) -> Task:
        """What the network answers."""
        return self.deployment.task

    def deployment_after(self, epoch: int) -> Deployment:
        """How the network is used as it is after that epoch."""
        return Deployment.of(self.recipe, self.task, self.deployment.slice_spacing, epoch)

    @property
    def total(self) -> int:
        return self.steps * self.recipe.train.epochs

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns that the network sees while training."""
        side = self.recipe.augment.crop_px or self.recipe.tiles.size_px
        rows, columns = (int(length) for length in self.slices.sizes.max(axis=0))
        return (min(side, rows), min(side, columns)) if side else (rows, columns)


def open_job(
    dataset: Dataset,
    training: Part,
    validation: Part,
    recipe: Recipe,
    device: Device,
    ranks: Ranks,
    by_index: bool = False,
    task: Task | None = None,
) -> tuple[Job, Net]:
    """A training on those slices, and its network as it starts, on the CPU. Raises OptionError, InputError.

    by_index: take neighbouring slices by index whatever their distance, as runs did that were started by versions
    without slice spacing. task: of a run that is gone on with; None chooses it as the recipe says.
    """
    task, task_reason = (task, "as when it was started") if task else choose_task(recipe.data.task, dataset, training)
    torch.manual_seed(torch_seed(recipe.train.seed, 0))
    net = nets.build_for(task, recipe.net.name, recipe.net.options)
    loss = losses.build(recipe.loss.name, task=task, **recipe.loss.options)
    _check_sizes(recipe, net)
    spacing = None if by_index else slice_spacing(dataset, training)
    deployment = Deployment.of(recipe, task, spacing, epoch=0)
    slices = open_slices(
        dataset,
        training,
        net.slices,
        deployment.grid_for(net.multiple),
        recipe.data.memory,
        device.torch_device,
        ranks.beside,
        spacing,
        task,
    )
    plan = Plan(slices, recipe)
    if plan.batch % ranks.world:
        todo = f"choose a multiple of {ranks.world}, or another number of ranks"
        raise OptionError(f"a batch of {plan.batch} is not shared evenly by {ranks.world} ranks", "train.batch", todo)
    return Job(recipe, dataset, device, ranks, slices, plan, loss, validation, deployment, task_reason), net


def training_parts(split: Split, recipe: Recipe) -> tuple[Part, Part]:
    """The slices to train on and to validate on; without validation its slices are trained on too.

    Raises:
        OptionError: if the recipe wants a validation and the split has no part for it.
    """
    if recipe.data.validation:
        if not split.val:
            todo = "add --set data.validation=false, or use another split"
            raise OptionError(f"split '{split.name}' has no validation part", "data.split", todo)
        return dict(split.train), dict(split.val)
    merged = dict(split.train)
    for case, indices in split.val.items():
        merged[case] = tuple(sorted({*merged.get(case, ()), *indices}))
    return merged, {}


class Learner:
    """The network, its average and its optimiser, and how a step of them is computed on this machine.

    on_phase_end: called with "data", "augment", "forward", "backward" and "optimiser" at the end of each, for whoever
        measures; in a captured step only while it is captured. On a GPU it is called when work was handed over, not
        when it was done.
    """

    def __init__(self, job: Job, net: Net):
        self.job = job
        self.on_phase_end: Callable[[str], None] = _ignore
        device, ranks = job.device, job.ranks
        self.net = device.put(net).train()
        self.averaged = copy.deepcopy(self.net) if job.recipe.train.ema else None
        if ranks.world > 1 and job.recipe.engine.sync_batch_norm:
            synchronise(self.net, ranks)
        self.lr = torch.tensor(job.recipe.optimizer.lr, device=device.torch_device)
        self.optimizer = _optimizer(job.recipe.optimizer, self.net, self.lr)
        self.scaler = torch.amp.GradScaler(device.torch_device.type) if device.precision == "fp16" else None
        self.loss_sums = job.loss.kernel if device.kernels and job.loss.kernel else job.loss.sums
        self.model: Any = _compiled(self.net, device) if device.compile else self.net
        if ranks.world > 1:
            self.model = _parallel(self.model, device)
        self._average = _Average(self.averaged, self.net, job.recipe.train.ema) if self.averaged else None
        self._rank_statistics = _batch_statistics(self.net) if ranks.world > 1 else []
        self._augment = torch.compile(augment, dynamic=False) if device.compile else augment
        self._graphs: dict[int, _Graph] = {}
        self._warm_steps = 0
        self._stream = torch.cuda.Stream() if device.graphs else None

    @property
    def deployed(self) -> Net:
        """The network that is validated and saved."""
        return self.averaged if self.averaged is not None else self.net

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
        """The batch moved and roughened: HU (N, slices, h, w) as the network takes it, target (N, 1, h, w)."""
        job, device = self.job, self.job.device
        block = None if batch.corners is None else (batch.corners, job.plan.block)
        stack, options, typed = (batch.hu, batch.target, batch.rows), job.recipe.augment, bool(job.task.types)
        hu, target = self._augment(*stack, options, batch.keys, block, device.kernels, typed)
        return hu.to(device.dtype).contiguous(memory_format=device.memory_format), target

    def gradient_exchange(self, last: bool) -> AbstractContextManager[Any]:
        """The context of a batch's forward and backward. last: of the step's batches.

        Gradients of a step's earlier batches stay with their rank; the last one's message carries all.
        """
        if isinstance(self.model, DistributedDataParallel) and not last:
            return self.model.no_sync()
        return nullcontext()

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss as `backward` is called on it: in fp16 scaled, so that small gradients do not become 0."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def update(self) -> None:
        """Moves the weights by their gradients, clears these, and moves the average toward the weights."""
        clip = self.job.recipe.optimizer.clip_norm
        if clip:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), clip)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.job.ranks.average_(self._rank_statistics)
        if self._average is not None:
            self._average.update()

    def load_optimizer(self, stored: dict[str, Any]) -> None:
        """Takes the optimiser's state back. How it computes stays this learner's: its device may be another one."""
        here = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(stored)
        for group, settings in zip(self.optimizer.param_groups, here, strict=True):
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
    gpu = [device.torch_device.index] if device.torch_device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 renames broadcast_buffers, 2.11 knows no other
        return DistributedDataParallel(model, gpu, broadcast_buffers=False, gradient_as_bucket_view=True)


def _ignore(phase: str) -> None:
    pass


def endless(learner: Learner, steps: Steps) -> Iterator[Tensor]:
    """The steps of one epoch after the other, for whoever measures them."""
    for epoch in itertools.count():
        yield from steps(learner, epoch)


class _Average:
    """Moves the averaged weights and batch statistics toward the network's; counters are copied."""

    def __init__(self, averaged: Net, net: Net, decay: float):
        self._share = 1 - decay
        mean, new = averaged.state_dict(), net.state_dict()
        names = [name for name, value in new.items() if value.is_floating_point()]
        self._floating = [mean[name] for name in names], [new[name] for name in names]
        others = [name for name in new if name not in set(names)]
        self._counting = [mean[name] for name in others], [new[name] for name in others]

    @torch.no_grad()
    def update(self) -> None:
        """After each step."""
        torch._foreach_lerp_(*self._floating, self._share)
        if self._counting[0]:
            torch._foreach_copy_(*self._counting)


class _Graph:
    """A step captured as a CUDA graph: launched as one, with the same memory each time."""

    def __init__(self, step: Callable[[Sequence[Batch]], Tensor], batches: Sequence[Batch], resident: bool):
        # A resident stack stays where it is; what differs from step to step gets memory that the graph reads.
        shared = ("hu", "mask") if resident else ()
        copied = [field.name for field in fields(Batch) if field.name not in shared]
        self._batches = []
        for batch in batches:
            copies: dict[str, Any] = {name: _copy(getattr(batch, name)) for name in copied}
            self._batches.append(replace(batch, **copies))
        self._graph = torch.cuda.CUDAGraph()
        # Threads that read ahead pin memory meanwhile, which would break a capture that watches all threads.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._loss = step(self._batches)

    def replay(self, batches: Sequence[Batch]) -> Tensor:
        """The step on other batches of the same shapes."""
        for mine, batch in zip(self._batches, batches, strict=True):
            for field in fields(Batch):
                memory, value = getattr(mine, field.name), getattr(batch, field.name)
                if value is not None and memory is not value:
                    memory.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._loss.clone()


def _copy(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.clone()


def _batch_statistics(net: Net) -> list[Tensor]:
    """What plain batch norm collects, on each rank from its own samples: averaged after each step."""
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    norms = [norm for norm in norms if not isinstance(norm, SyncBatchNorm)]
    return [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]


def _optimizer(options: Optimizer, net: Net, lr: Tensor) -> torch.optim.Optimizer:
    parameters, decay = list(net.parameters()), options.weight_decay
    if options.name == "sgd":
        sgd = torch.optim.SGD(parameters, lr, options.momentum, weight_decay=decay, fused=True)
        for parameter in parameters if options.momentum else ():
            # Where scaled gradients overflow in the first step, it is left out, and its memory would stay as it was.
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    kind = torch.optim.Adam if options.name == "adam" else torch.optim.AdamW
    # One kernel for all parameters; on a GPU nothing of it, step count included, is on the host.
    return kind(parameters, lr, weight_decay=decay, fused=True, capturable=lr.is_cuda)


def learning_rate(options: Optimizer, step: int, total: int) -> float:
    """The rate of a step counted over the whole training: constant, or up to `lr` and down again (one-cycle)."""
    warm = options.warmup * total
    rise = min(1.0, (step + 1) / (warm + 1))
    if options.schedule == "constant" or step < warm:
        return options.lr * rise
    return options.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, total - warm)))


def _check_sizes(recipe: Recipe, net: Net) -> None:
    for name, pixels in (("augment.crop_px", recipe.augment.crop_px), ("tiles.size_px", recipe.tiles.size_px)):
        if pixels % net.multiple:
            nearest = max(1, round(pixels / net.multiple)) * net.multiple
            raise OptionError(
                f"must be a multiple of {net.multiple} for '{net.name}', not {pixels}", name, f"use {nearest}"
            )
