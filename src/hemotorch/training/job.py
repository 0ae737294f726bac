"""What a training is made of and does not change while it runs: recipe, slices, plan of batches, loss, network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from hemotorch import nets
from hemotorch.data.dataset import Dataset
from hemotorch.data.splits import Part, Split
from hemotorch.errors import OptionError
from hemotorch.inference.deployment import Deployment
from hemotorch.keyed_random import torch_seed
from hemotorch.nets import Net
from hemotorch.recipe import Recipe
from hemotorch.system.device import Device
from hemotorch.system.ranks import Ranks
from hemotorch.task import Task
from hemotorch.training import losses
from hemotorch.training.batches import Plan
from hemotorch.training.seen_heads import seen_in
from hemotorch.training.slices import Slices, check_size, open_slices, slice_spacing
from hemotorch.training.task_choice import choose_task


@dataclass(frozen=True)
class Job:
    """A training before its first step.

    plan: which slices make a batch. validation: the slices of each case that are validated on, none for no validation.
    deployment: how the network is used as it is before the first epoch. task_reason: why the task is what it is.
    """

    recipe: Recipe
    dataset: Dataset
    device: Device
    ranks: Ranks
    slices: Slices
    plan: Plan
    loss: losses.Loss
    validation: Part
    deployment: Deployment
    task_reason: str

    @property
    def steps(self) -> int:
        """Steps of the optimiser per epoch; the last one may have fewer batches."""
        return -(-self.plan.steps // self.recipe.train.accumulate)

    @property
    def total(self) -> int:
        """Steps of the whole training."""
        return self.steps * self.recipe.train.epochs

    @property
    def task(self) -> Task:
        """What the network answers."""
        return self.deployment.task

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns that the network sees while training."""
        rows, columns = (int(length) for length in self.slices.sizes.max(axis=0))
        side = self.recipe.augment.crop_px or self.recipe.tiles.size_px
        if not side:
            return rows, columns
        return min(side, rows), min(side, columns)

    def deployment_after(self, epoch: int) -> Deployment:
        """How the network is used as it is after that epoch."""
        return Deployment.of(self.recipe, self.task, self.deployment.slice_spacing, epoch, self.deployment.seen)


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
    """A training on those slices, and its network as it starts, on the CPU.

    Args:
        training: the slices of each case to train on.
        validation: those to validate on.
        by_index: take neighbouring slices by index whatever their distance, as runs did that were started by versions
            without slice spacing.
        task: of a run that is gone on with; None chooses it as the recipe says.

    Raises:
        OptionError: if the recipe fits neither the network nor the number of ranks.
        InputError: if the dataset cannot be trained on.
    """
    task_reason = "as when it was started"
    if task is None:
        task, task_reason = choose_task(recipe.data.task, dataset, training)
    torch.manual_seed(torch_seed(recipe.train.seed, 0))
    net = nets.build_for(task, recipe.net.name, recipe.net.options)
    loss = losses.build(recipe.loss.name, task=task, **recipe.loss.options)
    _check_sizes(recipe, net)
    spacing = None if by_index else slice_spacing(dataset, training)
    deployment = Deployment.of(recipe, task, spacing, epoch=0)
    grid = deployment.grid_for(net.multiple)
    for part in (training, validation):
        check_size(dataset, part, grid)
    slices = open_slices(
        dataset,
        training,
        net.slices,
        grid,
        recipe.data.memory,
        device.torch_device,
        ranks.beside,
        spacing,
        task,
    )
    plan = Plan(slices, recipe)
    if plan.batch % ranks.world:
        what = f"a batch of {plan.batch} is not shared evenly by {ranks.world} ranks"
        raise OptionError(what, "train.batch", f"choose a multiple of {ranks.world}, or another number of ranks")
    job = Job(
        recipe=recipe,
        dataset=dataset,
        device=device,
        ranks=ranks,
        slices=slices,
        plan=plan,
        loss=loss,
        validation=validation,
        deployment=replace(deployment, seen=seen_in(dataset, training, recipe.augment)),
        task_reason=task_reason,
    )
    return job, net


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


def _check_sizes(recipe: Recipe, net: Net) -> None:
    """Raises OptionError if crops or tiles have a side that the network cannot halve as often as it does."""
    sides = {"augment.crop_px": recipe.augment.crop_px, "tiles.size_px": recipe.tiles.size_px}
    for key, pixels in sides.items():
        if pixels % net.multiple:
            nearest = max(1, round(pixels / net.multiple)) * net.multiple
            what = f"must be a multiple of {net.multiple} for '{net.name}', not {pixels}"
            raise OptionError(what, key, f"use {nearest}")
