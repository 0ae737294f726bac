"""One step of the optimiser: batches, augmentation, forward, loss, backward, update. On one process or as one of
several ranks; eager, compiled, or captured once as a CUDA graph and replayed.

Nothing in a step waits for the device: learning rate and loss are tensors on it, and what is random is drawn on it from
each sample's key.
"""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from hemotorch import nets
from hemotorch.data.dataset import Dataset, Part
from hemotorch.errors import OptionError
from hemotorch.grid import SliceSpacing
from hemotorch.inference.predictor import grid_of
from hemotorch.keyed_random import torch_seed
from hemotorch.nets import Net
from hemotorch.nets.sync import SyncBatchNorm, synchronise
from hemotorch.recipe import Optimizer, Recipe
from hemotorch.system.device import Device
from hemotorch.system.ranks import Ranks
from hemotorch.training import losses
from hemotorch.training.augment import augment
from hemotorch.training.batches import Batch, Plan, Slices, batches, open_slices, slice_spacing

WARM_UP = 3  #: steps before one is captured as a graph; they are real steps of the training


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
    spacing: SliceSpacing | None = None  # of the slices that are trained on

    @property
    def steps(self) -> int:
        return -(-self.plan.steps // self.recipe.train.accumulate)

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
) -> tuple[Job, Net]:
    """A training on those slices, and its network as it starts, on the CPU. Raises OptionError, InputError.

    by_index: take neighbouring slices by index whatever their distance, as runs did that were started by versions
    without slice spacing.
    """
    torch.manual_seed(torch_seed(recipe.train.seed, 0))
    net = nets.build(recipe.net.name, **recipe.net.options)
    loss = losses.build(recipe.loss.name, **recipe.loss.options)
    _check_sizes(recipe, net)
    spacing = None if by_index else slice_spacing(dataset, training)
    slices = open_slices(
        dataset,
        training,
        net.slices,
        grid_of(recipe, net),
        recipe.data.memory,
        device.torch_device,
        ranks.beside,
        spacing,
    )
    plan = Plan(slices, recipe)
    if plan.batch % ranks.world:
        todo = f"choose a multiple of {ranks.world}, or another number of ranks"
        raise OptionError(f"a batch of {plan.batch} is not shared evenly by {ranks.world} ranks", "train.batch", todo)
    return Job(recipe, dataset, device, ranks, slices, plan, loss, validation, spacing), net


class Learner:
    """What learns: the network, its average, its optimiser. `step` moves them on.

    mark: called with "data", "augment", "forward", "backward" and "optimiser" at the end of each, for whoever measures;
    in a captured step only while it is captured. On a GPU it marks when work was handed over, not when it was done.
    """

    def __init__(self, job: Job, net: Net):
        self.job = job
        self.mark: Callable[[str], None] = _nothing
        device, ranks = job.device, job.ranks
        self.net = device.put(net).train()
        self.averaged = copy.deepcopy(self.net) if job.recipe.train.ema else None
        if ranks.world > 1 and job.recipe.engine.sync_batch_norm:
            synchronise(self.net, ranks)
        self.lr = torch.tensor(job.recipe.optimizer.lr, device=device.torch_device)
        self.optimizer = _optimizer(job.recipe.optimizer, self.net, self.lr)
        self.scaler = torch.amp.GradScaler(device.torch_device.type) if device.precision == "fp16" else None
        self._average = _Average(self.averaged, self.net, job.recipe.train.ema) if self.averaged else None
        self._unshared = _batch_statistics(self.net) if ranks.world > 1 else []
        self._augment = torch.compile(augment, dynamic=False) if device.compile else augment
        self._model: Any = _compiled(self.net, device) if device.compile else self.net
        if ranks.world > 1:
            self._model = _parallel(self._model, device)
        self._sums = job.loss.kernel if device.kernels and job.loss.kernel else job.loss.sums
        self._graphs: dict[int, _Graph] = {}
        self._warm = 0
        self._stream = torch.cuda.Stream() if device.graphs else None

    @property
    def deployed(self) -> Net:
        """The network that is validated and kept."""
        return self.averaged if self.averaged is not None else self.net

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Tensor]:
        """Does the epoch's steps from `first` on, one each time it is asked, and gives its loss, on the device."""
        job, many = self.job, self.job.recipe.train.accumulate
        source = batches(job.slices, job.plan, epoch, job.device, job.ranks, first * many)
        for step in range(first, job.steps):
            parts = list(itertools.islice(source, many))
            self.mark("data")
            yield self.step(parts, epoch * job.steps + step)

    def step(self, parts: Sequence[Batch], number: int) -> Tensor:
        """One step on the mean loss of its batches; number: the step's, over the whole training."""
        self.lr.fill_(learning_rate(self.job.recipe.optimizer, number, self.job.total))
        if not self.job.device.graphs:
            return self._whole(parts)
        if self._warm < WARM_UP:
            self._warm += 1
            return self._on_side_stream(parts)
        if len(parts) not in self._graphs:
            self._graphs[len(parts)] = _Graph(self._whole, parts, self.job.slices.memory == "resident")
        return self._graphs[len(parts)].replay(parts)

    def load(self, optimizer: dict[str, Any]) -> None:
        """Takes the optimiser's state back. How it computes stays this learner's: its device may be another one."""
        own = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(optimizer)
        for group, kept in zip(self.optimizer.param_groups, own, strict=True):
            group.update(kept)

    def _on_side_stream(self, parts: Sequence[Batch]) -> Tensor:
        """What a CUDA graph's warm-up must run on; one stream, since memory freed on it is kept for it."""
        assert self._stream is not None
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            value = self._whole(parts)
        torch.cuda.current_stream().wait_stream(self._stream)
        return value

    def _whole(self, parts: Sequence[Batch]) -> Tensor:
        total = torch.zeros((), device=self.job.device.torch_device)
        for place, part in enumerate(parts):
            total = total + self._backward(part, 1 / len(parts), last=place == len(parts) - 1)
        self._update()
        return total

    def _backward(self, part: Batch, share: float, last: bool) -> Tensor:
        """Adds to the gradients; returns the batch's share of the step's loss."""
        job, device = self.job, self.job.device
        block = None if part.corners is None else (part.corners, job.plan.block)
        hu, target = self._augment(part.hu, part.mask, part.rows, job.recipe.augment, part.keys, block, device.kernels)
        hu = hu.to(device.dtype).contiguous(memory_format=device.memory_format)
        self.mark("augment")
        self.net.draw(part.keys)
        # Gradients of a step's earlier batches stay with their rank; the last one's message carries all.
        quiet = isinstance(self._model, DistributedDataParallel) and not last
        with self._model.no_sync() if quiet else nullcontext():
            with device.autocast():
                logits = self._model(hu)
            loss = job.loss.value(job.ranks.all_sum(self._sums(logits, target))) * share
            self.mark("forward")
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        self.mark("backward")
        return loss.detach()

    def _update(self) -> None:
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
        self.job.ranks.average_(self._unshared)
        if self._average is not None:
            self._average.update()
        self.mark("optimiser")


def _compiled(net: Net, device: Device) -> Any:
    # Inductor leaves channels-last where a convolution halves the channels, unless it is told to keep to it.
    keep = device.channels_last and device.torch_device.type == "cuda"
    # In one piece also with several ranks: older torches cannot cut it at gradients of one's own.
    torch._dynamo.config.optimize_ddp = False
    return torch.compile(net, dynamic=False, options={"force_layout_optimization": keep})


def _parallel(model: Any, device: Device) -> DistributedDataParallel:
    """Averages gradients over ranks while they are computed. Batch statistics are looked after in `_update`."""
    gpu = [device.torch_device.index] if device.torch_device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 renames broadcast_buffers, 2.11 knows no other
        return DistributedDataParallel(model, gpu, broadcast_buffers=False, gradient_as_bucket_view=True)


def _nothing(phase: str) -> None:
    pass


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

    def __init__(self, run: Callable[[Sequence[Batch]], Tensor], parts: Sequence[Batch], resident: bool):
        # A resident stack stays where it is; what differs from step to step gets a place of its own.
        own = [f.name for f in fields(Batch) if not (resident and f.name in ("hu", "mask"))]
        copies: list[dict[str, Any]] = [{name: _copy(getattr(part, name)) for name in own} for part in parts]
        self._parts = [replace(part, **mine) for part, mine in zip(parts, copies, strict=True)]
        self._graph = torch.cuda.CUDAGraph()
        # Threads that read ahead pin memory meanwhile, which would break a capture that watches all threads.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._loss = run(self._parts)

    def replay(self, parts: Sequence[Batch]) -> Tensor:
        """The step on other batches of the same shapes."""
        for mine, part in zip(self._parts, parts, strict=True):
            for f in fields(Batch):
                place, value = getattr(mine, f.name), getattr(part, f.name)
                if value is not None and place is not value:
                    place.copy_(value, non_blocking=True)
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
