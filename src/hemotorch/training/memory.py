"""When memory runs out: the largest batch that fits, as measured, and what to set; or that a GPU was lost."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hemotorch.errors import RunError
from hemotorch.nets import Net
from hemotorch.system import machine
from hemotorch.system.device import is_lost, is_out_of_memory, release_memory
from hemotorch.system.ranks import GO_ON
from hemotorch.training.batches import Plan
from hemotorch.training.learner import Job, Learner, Steps

FEW_AND_MANY = (2, 8)  #: samples of the two steps that are measured in main memory
ANEW = "train into a new folder with"  #: a run that was started keeps its recipe
MEMORY_SHARE = 0.9  #: of the free main memory may be filled


@contextmanager
def memory_explained(job: Job, net: Net, checkpoint: Path, steps: Steps) -> Iterator[None]:
    """Turns running out of memory inside the block into a RunError that names a batch which fits, as measured."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_lost(error):
            first = str(error).splitlines()[0]
            raise RunError(
                f"{job.device.name} was lost ({first})", "training", f"see nvidia-smi; then {GO_ON}"
            ) from error
        if not is_out_of_memory(error):
            raise
        # The frames of the error hold the step's tensors, which the trial needs the room of.
        traceback.clear_frames(error.__traceback__)
        shape = "x".join(map(str, (job.recipe.train.batch, net.slices, *job.size)))
        kept = "; the last checkpoint is intact" if checkpoint.exists() else ""
        what = f"out of memory on {job.device.name} with a batch of {shape}"
        raise RunError(what, "training", _todo(job, net, steps) + kept) from error


@contextmanager
def loading_explained() -> Iterator[None]:
    """Turns running out of memory while slices are loaded into a RunError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        what, todo = "out of memory while the slices were loaded", f"{ANEW} --set data.memory=stream"
        raise RunError(what, "training", todo) from error


def _todo(job: Job, net: Net, steps: Steps) -> str:
    size = largest_batch(job, net, steps)
    if size is None:
        return "lower train.batch and raise train.accumulate"
    if not size:
        return "not even the smallest batch fits: use smaller slices (grid.size_px, augment.crop_px) or network"
    times = -(-job.recipe.train.batch * job.recipe.train.accumulate // size)
    settings = f"--set train.batch={size} --set train.accumulate={times}"
    return f"a batch of {size} fits, as measured: {ANEW} {settings}"


def largest_batch(job: Job, net: Net, steps: Steps) -> int | None:
    """Samples that a step has room for, 0 where not even one fits: fewer than the batch that did not.

    A GPU is tried, between what fits and what does not, until they are an eighth apart.

    A system may hand out main memory that it has not, and kill the process later: there a step with few samples and one
    with more are measured, and the rest counted. None where nothing can be measured: with several ranks, of which
    not all may have run out, or where the system does not say what a process holds.
    """
    size, cpu = job.recipe.train.batch, job.device.torch_device.type == "cpu"
    if job.ranks.world > 1 or (cpu and not machine.resident(reset_peak=True)[1]):
        return None
    release_memory(job.device.torch_device)
    try:
        if cpu:
            few, many = (_peak(job, net, count, steps) for count in FEW_AND_MANY)
            each = (many - few) / (FEW_AND_MANY[1] - FEW_AND_MANY[0])
            if each <= 0:
                return None
            room = MEMORY_SHARE * machine.free_memory() - (few - FEW_AND_MANY[0] * each)
            return max(0, min(size - 1, int(room / each)))
        fits = 0
        while size - fits > max(1, size // 8):
            middle = (fits + size) // 2
            fits, size = (middle, size) if _fits(job, net, middle, steps) else (fits, middle)
        return fits
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    finally:
        release_memory(job.device.torch_device)
    return 0


def _fits(job: Job, net: Net, size: int, steps: Steps) -> bool:
    try:
        _step(job, net, size, steps)
        return True
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
    release_memory(job.device.torch_device)
    return False


def _peak(job: Job, net: Net, size: int, steps: Steps) -> int:
    """Bytes that a step takes at its height, above what the process holds before it."""
    release_memory(job.device.torch_device)  # what freed tensors left would hide what this step takes
    before = machine.resident(reset_peak=True)[0]
    _step(job, net, size, steps)
    return machine.resident()[1] - before


def _step(job: Job, net: Net, size: int, steps: Steps) -> None:
    # Eagerly: graphs and compiled steps take longer to come by.
    recipe = job.recipe.changed([f"train.batch={size}", "train.accumulate=1"])
    device = replace(job.device, graphs=False, compile=False)
    job = replace(job, recipe=recipe, device=device, plan=Plan(job.slices, recipe))
    float(next(steps(Learner(job, copy.deepcopy(net)), 0)))
