"""When a batch does not fit into memory: the largest one that does, found by trying, and what to set."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from hemotorch import machine
from hemotorch.batches import Plan
from hemotorch.device import give_back
from hemotorch.errors import RunError
from hemotorch.nets import Net
from hemotorch.step import Job, Learner

FEW_AND_MANY = (2, 8)  #: samples of the two steps that are measured in main memory
MEMORY_SHARE = 0.9  #: of the free main memory may be filled


@contextmanager
def memory_explained(job: Job, net: Net, checkpoint: Path) -> Iterator[None]:
    """Turns running out of memory inside the block into a RunError that names a batch which fits, as measured."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_memory(error):
            raise
        # The frames of the error hold the step's tensors, which the trial needs the room of.
        traceback.clear_frames(error.__traceback__)
        shape = "x".join(map(str, (job.used.train.batch, net.slices, *_sides(job))))
        kept = "; the last checkpoint is intact" if checkpoint.exists() else ""
        what = f"out of memory on {job.device.name} with a batch of {shape}"
        raise RunError(what, "training", _todo(job, net) + kept) from error


def _todo(job: Job, net: Net) -> str:
    size = largest_batch(job, net)
    if size is None:
        return "lower train.batch and raise train.accumulate"
    if not size:
        return "not even the smallest batch fits: use smaller slices (grid.size_px, augment.crop_px) or network"
    times = -(-job.used.train.batch // size)
    return f"a batch of {size} fits, as measured: --set train.batch={size} --set train.accumulate={times}"


def largest_batch(job: Job, net: Net) -> int | None:
    """Samples that a step has room for, 0 where not even one fits. A GPU is tried with half the batch, and half again.

    A system may hand out main memory that it has not, and kill the process later: there a step with few samples and one
    with more are measured, and the rest counted. None where nothing can be measured: with several ranks, of which
    not all may have run out, or where the system does not say what a process holds.
    """
    size, cpu = job.used.train.batch, job.device.place.type == "cpu"
    if job.ranks.world > 1 or (cpu and not machine.resident(reset_peak=True)[1]):
        return None
    give_back(job.device.place)
    try:
        if cpu:
            few, many = (_peak(job, net, count) for count in FEW_AND_MANY)
            each = (many - few) / (FEW_AND_MANY[1] - FEW_AND_MANY[0])
            if each <= 0:
                return None
            room = MEMORY_SHARE * machine.free_memory() - (few - FEW_AND_MANY[0] * each)
            return max(0, min(size // 2, int(room / each)))
        while size > 1:
            size //= 2
            if _fits(job, net, size):
                return size
    except (RuntimeError, MemoryError) as error:
        if not _is_memory(error):
            raise
    finally:
        give_back(job.device.place)
    return 0


def _fits(job: Job, net: Net, size: int) -> bool:
    try:
        _step(job, net, size)
        return True
    except (RuntimeError, MemoryError) as error:
        if not _is_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
    give_back(job.device.place)
    return False


def _peak(job: Job, net: Net, size: int) -> int:
    """Bytes that a step takes at its height, above what the process holds before it."""
    give_back(job.device.place)  # what freed tensors left would hide what this step takes
    before = machine.resident(reset_peak=True)[0]
    _step(job, net, size)
    return machine.resident()[1] - before


def _step(job: Job, net: Net, size: int) -> None:
    # Eagerly: graphs and compiled steps need no more, and take longer to come by.
    used = job.used.changed([f"train.batch={size}", "train.accumulate=1"])
    device = replace(job.device, graphs=False, compile=False)
    job = replace(job, used=used, device=device, plan=Plan(job.slices, used))
    float(next(Learner(job, copy.deepcopy(net)).epoch(0)))


def _sides(job: Job) -> list[int]:
    sides = [job.used.augment.crop_px or side for side in job.slices.sizes.max(axis=0).tolist()]
    return [min(side, job.used.tiles.size_px or side) for side in sides]


def _is_memory(error: BaseException) -> bool:
    # torch.OutOfMemoryError is a RuntimeError; a CPU's allocator and its convolution library raise plain ones.
    words = ("allocate memory", "could not create a primitive", "could not create a memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in words)
