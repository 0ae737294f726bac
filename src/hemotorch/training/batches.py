"""Which slices make a batch, and the batches of an epoch on the device.

Which slices make a batch is a function of (seed, epoch, step); of several ranks each takes its share of it. Slices that
are streamed are read for a GPU by threads that work some batches ahead, and on a CPU, whose cores the network needs, in
between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hemotorch.errors import InputError, OptionError
from hemotorch.grid import tile_corners
from hemotorch.keyed_random import keys, rng
from hemotorch.recipe import Recipe
from hemotorch.system.device import Device
from hemotorch.system.events import progress
from hemotorch.system.ranks import Ranks
from hemotorch.task import BLEEDING_BITS
from hemotorch.training.png_pairs import ICHDataset as ICHDataset  # documented here in version 0.1
from hemotorch.training.slices import Slices

MOST_SAMPLES = 10**8  #: of an epoch, whose order is drawn when it begins


@dataclass(frozen=True)
class Batch:
    """A stack of slices, and which of them make each sample.

    hu: (S, H, W) int16. target: (S, H, W) uint8 bits, see `task`. rows: (N, inputs) indices in the stack. keys: (N,)
    int32, what the sample's augmentation and dropout are drawn from. corners: (N, 2) top-left corner of its block, or
    None for whole slices.
    """

    hu: Tensor
    target: Tensor
    rows: Tensor
    keys: Tensor
    corners: Tensor | None = None


class Plan:
    """Which items an epoch shows, in which batches. An item is a slice, or a block of one.

    All batches are of one size: if each item is to be shown once, a few are shown twice to fill the last one.

    Raises:
        InputError: if there is nothing to show.
        OptionError: if an epoch would be too large.
    """

    def __init__(self, slices: Slices, recipe: Recipe):
        self.numbers, self.corners, self.positive = _items(slices, recipe)
        if not len(self.numbers):
            raise InputError("no slice with bleeding to train on", todo="check the masks, or train on all slices")
        self.seed, self.block = recipe.train.seed, recipe.tiles.size_px
        share, batch = recipe.data.positive_share, recipe.train.batch
        #: of each batch, how many items hold bleeding; 0 if all items are shown alike
        self.positives = max(1, round(share * batch)) if share and self.positive.any() else 0
        self.batch = batch if self.positives else min(batch, len(self.numbers))
        self.steps = recipe.train.steps_per_epoch * recipe.train.accumulate or -(-len(self.numbers) // self.batch)
        samples = self.steps * self.batch
        if samples > MOST_SAMPLES:
            todo = "lower train.batch or train.steps_per_epoch"
            raise OptionError(f"an epoch of {samples:,} samples is more than {MOST_SAMPLES:,}", "train", todo)

    def epoch(self, epoch: int) -> np.ndarray:
        """(steps, batch) item numbers."""
        random = rng(self.seed, epoch, 1)
        if not self.positives:
            return _repeat(np.arange(len(self.numbers)), self.steps * self.batch, random).reshape(self.steps, -1)
        with_bleeding, without = np.flatnonzero(self.positive), np.flatnonzero(~self.positive)
        if not len(without):
            without = with_bleeding
        first = _repeat(with_bleeding, self.steps * self.positives, random)
        second = _repeat(without, self.steps * (self.batch - self.positives), random)
        return np.concatenate([first.reshape(self.steps, -1), second.reshape(self.steps, -1)], axis=1)


def _repeat(numbers: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` numbers in random order, none a second time before all had their turn."""
    if not count:
        return numbers[:0]
    rounds = [random.permutation(numbers) for _ in range(-(-count // len(numbers)))]
    return np.concatenate(rounds)[:count]


def _items(slices: Slices, recipe: Recipe) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Slice numbers (n,), corners (n, 2) of blocks or None, and whether they hold bleeding (n,)."""
    numbers = _slice_numbers(slices, recipe)
    if not recipe.tiles.size_px:
        return numbers, None, slices.positive[numbers]
    side, items, positive = recipe.tiles.size_px, [], []
    for number in progress(numbers, "blocks", unit="slice"):
        _, targets, rows = slices.take(torch.tensor([number]))
        bleeding = targets[rows[0, rows.shape[1] // 2]].cpu() & BLEEDING_BITS
        height, width = map(int, slices.sizes[slices.case_of[number]])
        for top, left in tile_corners(height, width, recipe.tiles.size_px, recipe.tiles.stride_px):
            bleeds = bool(bleeding[top : top + side, left : left + side].any())
            # Of a slice with bleeding only the blocks that hold some are shown, unless all slices were asked for.
            if bleeds or not slices.positive[number] or recipe.data.slices == "all":
                items.append((number, top, left))
                positive.append(bleeds)
    table = np.array(items, int).reshape(-1, 3)
    return table[:, 0], table[:, 1:], np.array(positive, bool)


def _slice_numbers(slices: Slices, recipe: Recipe) -> np.ndarray:
    """The numbers of the slices that `data.slices` asks for."""
    if recipe.data.slices == "all":
        return np.arange(len(slices.positive))
    positive = np.flatnonzero(slices.positive)
    if recipe.data.slices != "positive-and-one-normal":
        return positive
    random, normal = rng(recipe.train.seed, 2), []
    for case_number in np.unique(slices.case_of):
        without_bleeding = np.flatnonzero((slices.case_of == case_number) & ~slices.positive)
        if len(without_bleeding):
            normal.append(random.choice(without_bleeding))
    return np.concatenate([positive, np.array(normal, int)])


def batches(
    slices: Slices, plan: Plan, epoch: int, device: Device, ranks: Ranks | None = None, first: int = 0
) -> Iterator[Batch]:
    """This rank's part of the epoch's batches from number `first` on, on the device.

    If slices are resident nothing is copied to the device but the epoch's table, once. Streamed ones are read for a GPU
    while it computes earlier ones, and copied from pinned memory behind the step before; an error while reading is
    raised here, in the loop that waits for the batch.
    """
    ranks = ranks or Ranks()
    rank_share = slice(ranks.rank, None, ranks.world)
    items = plan.epoch(epoch)[first:, rank_share]
    epoch_keys = keys(plan.seed, epoch, plan.steps, plan.batch, device.torch_device)[first:, rank_share]
    numbers = torch.from_numpy(plan.numbers[items])
    corners = [None] * len(items)
    if plan.corners is not None:
        corners = list(_sent(torch.from_numpy(plan.corners[items]), device.torch_device))
    # On a CPU threads of torch that read beside those that compute make each step half as fast.
    if slices.memory == "resident" or device.torch_device.type == "cpu":
        for batch_numbers, key, corner in zip(_sent(numbers, device.torch_device), epoch_keys, corners, strict=True):
            yield Batch(*slices.take(batch_numbers), key, corner)
        return

    def read(batch_numbers: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.pin_memory() for tensor in slices.take(batch_numbers))

    read_batches = _read_ahead(read, numbers, min(8, device.threads))
    for pinned, key, corner in zip(read_batches, epoch_keys, corners, strict=True):
        hu, target, rows = (tensor.to(device.torch_device, non_blocking=True) for tensor in pinned)
        yield Batch(hu, target, rows, key, corner)


def _sent(table: Tensor, device: torch.device) -> Tensor:
    """On the device; a GPU's host does not wait until it is there, which it would without pinning."""
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table


def _read_ahead(
    read: Callable[[Tensor], tuple[Tensor, ...]], numbers: Tensor, workers: int
) -> Iterator[tuple[Tensor, ...]]:
    """What `read` makes of each of `numbers`, in order, by threads that are two each, and one, ahead of who asks."""
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[tuple[Tensor, ...]]] = deque()
        for index in range(len(numbers)):
            while len(ahead) < 2 * workers + 1 and index + len(ahead) < len(numbers):
                ahead.append(pool.submit(read, numbers[index + len(ahead)]))
            yield ahead.popleft().result()
