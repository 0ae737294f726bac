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
from hemotorch.bench.records import Round, Spec
from hemotorch.bench.reference import ReferenceLoop
from hemotorch.data.dataset import Dataset
from hemotorch.data.png_folders import IMAGE
from hemotorch.io import png
from hemotorch.nets import Net
from hemotorch.recipe import Recipe, recipe_from_toml
from hemotorch.system.device import choose
from hemotorch.system.ranks import Ranks
from hemotorch.training.job import Job, open_job, training_parts
from hemotorch.training.learner import Learner, endless
from hemotorch.training.loop import steps

#: Side of the slice whose arithmetic is counted; a convolution's grows with the pixels.
FLOPS_PX = 256


@dataclass(frozen=True)
class Loop:
    """A training that can be moved on by a step.

    step: does one and returns its loss, on the device. listen: takes what is called with each phase's name at its end.
    facts: what is known of a measurement before it is made.
    """

    step: Callable[[], Tensor]
    listen: Callable[[Callable[[str], None]], None]
    device: torch.device
    facts: Round


def open_training(spec: Spec, ranks: Ranks) -> tuple[Job, Net]:
    """A training as `hemotorch train` opens it, before it measures anything. Raises OptionError, InputError."""
    recipe, dataset = recipe_from_toml(spec.recipe, "recipe"), Dataset(spec.data)
    device = choose(spec.config.device, recipe.engine, ranks)
    device.use()
    return open_job(dataset, *training_parts(dataset.split(recipe.data.split), recipe), recipe, device, ranks)


def training_loop(spec: Spec, ranks: Ranks) -> Loop:
    """The step that `hemotorch train` repeats, as this rank of `ranks` does it. Raises OptionError, InputError."""
    job, net = open_training(spec, ranks)
    # Before the learner compiles the network.
    gflop = image_gflop(net, job.size)
    learner = Learner(job, net)
    losses = endless(learner, steps)

    def listen(on_phase_end: Callable[[str], None]) -> None:
        learner.on_phase_end = on_phase_end

    facts = Round(
        step_s=(),
        images=job.plan.batch * job.recipe.train.accumulate,
        image_gflop=gflop,
        steps=job.steps,
        epochs=job.recipe.train.epochs,
        storage=job.slices.memory,
        size=job.size,
        reasons=job.device.reasons,
    )
    return Loop(lambda: next(losses), listen, job.device.torch_device, facts)


def image_gflop(net: Net, size: tuple[int, int]) -> float:
    """GFLOP of a forward pass of one image."""
    return nets.flops(net, FLOPS_PX) / FLOPS_PX**2 * size[0] * size[1]


def reference_loop(spec: Spec) -> Loop:
    """The paper's way, on the PNGs of `spec`."""
    recipe = recipe_from_toml(spec.recipe, "recipe")
    size, count = png_size(spec.pngs, recipe)
    loop = ReferenceLoop(spec.pngs, recipe, spec.config.workers, spec.config.device, size)
    batch = min(recipe.train.batch, count)

    def listen(on_phase_end: Callable[[str], None]) -> None:
        loop.on_phase_end = on_phase_end

    facts = Round(
        step_s=(),
        images=batch,
        image_gflop=image_gflop(loop.net, size),
        steps=recipe.train.steps_per_epoch or math.ceil(count / batch),
        epochs=recipe.train.epochs,
        storage="png",
        size=size,
        reasons=("as the framework does it by default",),
    )
    return Loop(loop.step, listen, loop.device, facts)


def png_size(root: str, recipe: Recipe) -> tuple[tuple[int, int], int]:
    """Rows and columns that all PNGs are brought to, what the network needs a multiple of; and how many PNGs."""
    sizes = [png.size(path) for path in sorted((Path(root) / IMAGE).glob("*.png"))]
    side = recipe.grid.size_px
    rows, columns = (side, side) if side else np.array(sizes).max(axis=0).tolist()
    multiple = nets.build(recipe.net.name, **recipe.net.options).multiple
    return (math.ceil(rows / multiple) * multiple, math.ceil(columns / multiple) * multiple), len(sizes)
