"""When a batch does not fit into memory: the largest one that does, found by trying, and what to set."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from hemotorch.batches import Plan
from hemotorch.errors import RunError
from hemotorch.nets import Net
from hemotorch.step import Job, Learner


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
    if not size:
        return "not even the smallest batch fits: use smaller slices (grid.size_px, augment.crop_px) or network"
    times = -(-job.used.train.batch // size)
    return f"a batch of {size} fits, as measured: --set train.batch={size} --set train.accumulate={times}"


def largest_batch(job: Job, net: Net) -> int:
    """Samples that one step of a copy of the network has room for, halving from the recipe's; 0 where not even a rank's
    single one fits. Several ranks are not tried, as not all may have run out: half is named."""
    world, size = job.ranks.world, job.used.train.batch
    if world > 1:
        return max(world, size // 2 // world * world)
    while size > 1:
        size //= 2
        used = job.used.changed([f"train.batch={size}", "train.accumulate=1"])
        try:
            _step(replace(job, used=used, plan=Plan(job.slices, used)), net)
            return size
        except (RuntimeError, MemoryError) as error:
            if not _is_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)
        finally:
            if job.device.place.type == "cuda":
                torch.cuda.empty_cache()
    return 0


def _step(job: Job, net: Net) -> None:
    # Eagerly: graphs and compiled steps need no more, and take longer to come by.
    job = replace(job, device=replace(job.device, graphs=False, compile=False))
    float(next(Learner(job, copy.deepcopy(net)).epoch(0)))


def _sides(job: Job) -> list[int]:
    sides = [job.used.augment.crop_px or side for side in job.slices.sizes.max(axis=0).tolist()]
    return [min(side, job.used.tiles.size_px or side) for side in sides]


def _is_memory(error: BaseException) -> bool:
    # torch.OutOfMemoryError is a RuntimeError; a CPU's allocator raises a plain one.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)
