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
from hemotorch.training.job import Job
from hemotorch.training.learner import Learner, Steps

FEW_AND_MANY = (2, 8)  #: samples of the two steps that are measured in main memory
ANEW = "train into a new folder with"  #: a run that was started keeps its recipe
MEMORY_SHARE = 0.9  #: of the free main memory may be filled


@contextmanager
def memory_explained(job: Job, net: Net, checkpoint: Path, steps: Steps) -> Iterator[None]:
    """Turns running out of memory inside the block into a RunError that names a batch which fits, as measured.

    Args:
        checkpoint: last.pt, which there may not be yet.
        steps: the steps of an epoch, as the training does them.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_lost(error):
            first_line = str(error).splitlines()[0]
            what = f"{job.device.name} was lost ({first_line})"
            raise RunError(what, "training", f"see nvidia-smi; then {GO_ON}") from error
        if not is_out_of_memory(error):
            raise
        # The frames of the error hold the step's tensors; the trial needs their memory.
        traceback.clear_frames(error.__traceback__)
        shape = "x".join(map(str, (job.recipe.train.batch, net.slices, *job.size)))
        todo = _todo(job, net, steps)
        if checkpoint.exists():
            todo += "; the last checkpoint is intact"
        raise RunError(f"out of memory on {job.device.name} with a batch of {shape}", "training", todo) from error


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
    accumulate = -(-job.recipe.train.batch * job.recipe.train.accumulate // size)
    settings = f"--set train.batch={size} --set train.accumulate={accumulate}"
    return f"a batch of {size} fits, as measured: {ANEW} {settings}"


def largest_batch(job: Job, net: Net, steps: Steps) -> int | None:
    """How many samples a step has memory for: fewer than the batch that ran out of it.

    Returns:
        0 if not even one fits. None if nothing can be measured: with several ranks, of which not all may have run out,
        or if the system does not say what a process holds.
    """
    on_cpu = job.device.torch_device.type == "cpu"
    if job.ranks.world > 1 or (on_cpu and not machine.resident(reset_peak=True)[1]):
        return None
    release_memory(job.device.torch_device)
    try:
        if on_cpu:
            return _largest_by_counting(job, net, steps)
        return _largest_by_trying(job, net, steps)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    finally:
        release_memory(job.device.torch_device)
    return 0


def _largest_by_counting(job: Job, net: Net, steps: Steps) -> int | None:
    """From a step with few samples and one with more.

    Trying is no way in main memory: a system may hand out memory that it has not, and kill the process later.
    """
    few, many = FEW_AND_MANY
    bytes_of_few = _peak(job, net, few, steps)
    bytes_per_sample = (_peak(job, net, many, steps) - bytes_of_few) / (many - few)
    if bytes_per_sample <= 0:
        return None
    bytes_without_samples = bytes_of_few - few * bytes_per_sample
    free = MEMORY_SHARE * machine.free_memory() - bytes_without_samples
    return max(0, min(job.recipe.train.batch - 1, int(free / bytes_per_sample)))


def _largest_by_trying(job: Job, net: Net, steps: Steps) -> int:
    """By halving the range between what fits and what does not, until they are an eighth apart."""
    possible, too_many = 0, job.recipe.train.batch
    while too_many - possible > max(1, too_many // 8):
        middle = (possible + too_many) // 2
        if _has_memory_for(job, net, middle, steps):
            possible = middle
        else:
            too_many = middle
    return possible


def _has_memory_for(job: Job, net: Net, size: int, steps: Steps) -> bool:
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
    before, _ = machine.resident(reset_peak=True)
    _step(job, net, size, steps)
    _, peak = machine.resident()
    return peak - before


def _step(job: Job, net: Net, size: int, steps: Steps) -> None:
    # Eagerly: graphs and compiled steps take longer to come by.
    recipe = job.recipe.changed([f"train.batch={size}", "train.accumulate=1"])
    device = replace(job.device, graphs=False, compile=False)
    job = replace(job, recipe=recipe, device=device, plan=Plan(job.slices, recipe))
    learner = Learner(job, copy.deepcopy(net))
    float(next(steps(learner, 0)))  # waits for the device
