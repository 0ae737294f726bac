"""What is measured, seen alike from outside: hemotorch's own training step, and the reference loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hemotorch import nets
from hemotorch.bench.reference import ReferenceLoop
from hemotorch.bench.rows import Spec
from hemotorch.data.dataset import Dataset
from hemotorch.data.png_folders import IMAGE
from hemotorch.io import png
from hemotorch.nets import Net
from hemotorch.recipe import Recipe, recipe_from_toml
from hemotorch.system.device import choose
from hemotorch.system.ranks import Ranks
from hemotorch.training.learner import Job, Learner, endless, open_job, training_parts
from hemotorch.training.loop import steps

FLOPS_PX = 256  #: side of the slice whose arithmetic is counted; a convolution's grows with the pixels


@dataclass(frozen=True)
class Loop:
    """A training that can be moved on by a step.

    step: does one and returns its loss, on the device. listen: takes what is called with each phase's name at its end.
    The others are as in `rows.Round`.
    """

    step: Callable[[], Tensor]
    listen: Callable[[Callable[[str], None]], None]
    device: torch.device
    images: int
    image_gflop: float
    steps: int
    epochs: int
    storage: str
    size: tuple[int, int]
    reasons: tuple[str, ...]


def own_job(spec: Spec, ranks: Ranks) -> tuple[Job, Net]:
    """A training as `hemotorch train` opens it, before it measures anything. Raises OptionError, InputError."""
    recipe, dataset = recipe_from_toml(spec.recipe, "recipe"), Dataset(spec.data)
    device = choose(spec.config.device, recipe.engine, ranks)
    device.use()
    return open_job(dataset, *training_parts(dataset.split(recipe.data.split), recipe), recipe, device, ranks)


def own_loop(spec: Spec, ranks: Ranks) -> Loop:
    """The step that `hemotorch train` repeats, as this rank of `ranks` does it. Raises OptionError, InputError."""
    job, net = own_job(spec, ranks)
    recipe, device, size = job.recipe, job.device, job.size
    gflop = image_gflop(net, size)
    learner = Learner(job, net)
    moving = endless(learner, steps)

    def listen(mark: Callable[[str], None]) -> None:
        learner.on_phase_end = mark

    images = job.plan.batch * recipe.train.accumulate
    return Loop(
        lambda: next(moving), listen, device.torch_device, images, gflop, job.steps, recipe.train.epochs,
        job.slices.memory, size, device.reasons,
    )  # fmt: skip


def image_gflop(net: Net, size: tuple[int, int]) -> float:
    """GFLOP of a forward pass of one image."""
    return nets.flops(net, FLOPS_PX) / FLOPS_PX**2 * size[0] * size[1]


def reference_loop(spec: Spec) -> Loop:
    """The paper's way, on the PNGs of `spec`."""
    recipe, config = recipe_from_toml(spec.recipe, "recipe"), spec.config
    size, count = png_size(spec.pngs, recipe)
    loop = ReferenceLoop(spec.pngs, recipe, config.workers, config.device, size)

    def listen(mark: Callable[[str], None]) -> None:
        loop.mark = mark

    batch = min(recipe.train.batch, count)
    steps = recipe.train.steps_per_epoch or math.ceil(count / batch)
    reasons = ("as the framework does it when it is told nothing",)
    return Loop(
        loop.step, listen, loop.device, batch, image_gflop(loop.net, size), steps, recipe.train.epochs, "png", size,
        reasons,
    )  # fmt: skip


def png_size(root: str, recipe: Recipe) -> tuple[tuple[int, int], int]:
    """Rows and columns that all PNGs are brought to, what the network needs a multiple of; and how many PNGs."""
    sizes = []
    for path in sorted((Path(root) / IMAGE).glob("*.png")):
        sizes.append(png.size(path))
    side = recipe.grid.size_px
    rows, columns = (side, side) if side else np.array(sizes).max(axis=0).tolist()
    multiple = nets.build(recipe.net.name, **recipe.net.options).multiple
    return (-(-rows // multiple) * multiple, -(-columns // multiple) * multiple), len(sizes)
