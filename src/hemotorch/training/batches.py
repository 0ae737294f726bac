"""Prepared dataset -> batches of HU and masks on the network's grid; and the paper's ICHDataset.

Slices are resident on the device where they fit, else streamed in constant memory: for a GPU by threads that work some
batches ahead, on a CPU, whose cores the network has, in between. Which slices make a batch is a function of (seed,
epoch, step); of several ranks each takes its share of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hemotorch.data.dataset import Dataset
from hemotorch.data.splits import Part
from hemotorch.errors import InputError, OptionError
from hemotorch.grid import (
    Grid,
    Placement,
    SliceSpacing,
    hu_to_working,
    mask_share,
    mask_stacks_to_working,
    mask_to_working,
    place,
    stack_weights,
    stacks_to_working,
    taken_by_index,
    typical_distance_mm,
)
from hemotorch.hu import AIR_HU
from hemotorch.io import png
from hemotorch.keyed_random import keys, rng
from hemotorch.recipe import Recipe
from hemotorch.system.device import ASKED, Device, free_memory
from hemotorch.system.progress import progress
from hemotorch.system.ranks import Ranks

MOST_SAMPLES = 10**8  #: of an epoch, whose order is drawn when it begins
RESIDENT_SHARE = 0.4  #: of the free memory; the rest is for the network


@dataclass(frozen=True)
class Batch:
    """A stack of slices, and which of them make each sample.

    hu: (S, H, W) int16; mask: (S, H, W) uint8, 0 or 1, where a sample needs it; rows: (N, slices) places in the stack;
    keys: (N,) int32, what the sample's augmentation and dropout are drawn from; corners: (N, 2) of its block, or None.
    """

    hu: Tensor
    mask: Tensor
    rows: Tensor
    keys: Tensor
    corners: Tensor | None = None


class Slices(Protocol):
    """Slices on the network's grid, taken by their number in the training part."""

    memory: str  # resident or stream
    why: str  # so
    positive: np.ndarray  # (n,) bool
    case_of: np.ndarray  # (n,) int
    sizes: np.ndarray  # (cases, 2) rows and columns on the grid; slices are filled up to the largest of each

    def take(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The slices of those numbers with their neighbours: `hu`, `mask` and `rows` of a Batch."""


@dataclass(frozen=True)
class _Index:
    """The training part as a table: a row a slice."""

    cases: tuple[str, ...]
    case_of: np.ndarray  # (n,)
    index_of: np.ndarray  # (n,) slice index within its case
    neighbours: np.ndarray  # (n, slices) slice indices within its case, the end slices repeated
    positive: np.ndarray  # (n,) bool
    positions_mm: tuple[np.ndarray | None, ...]  # of each case's slices; None if its neighbours are taken by index
    distance_mm: float  # between the network's slices, for the other cases

    @staticmethod
    def of(dataset: Dataset, part: Part, slices: int, spacing: SliceSpacing | None) -> _Index:
        cases = tuple(sorted(case for case, indices in part.items() if indices))
        missing = [case for case in cases if max(part[case]) >= len(dataset.rows.get(case, ()))]
        if missing:
            todo = "name the dataset that the run was started on"
            raise InputError(f"lacks scans or slices of the run's split ({missing[0]} first)", dataset.root, todo)
        case_of = np.concatenate([np.full(len(part[case]), i) for i, case in enumerate(cases)]).astype(int)
        index_of = np.concatenate([np.array(part[case], int) for case in cases])
        last = np.array([len(dataset.rows[cases[i]]) - 1 for i in case_of])
        offsets = np.arange(slices) - slices // 2
        neighbours = np.clip(index_of[:, None] + offsets, 0, last[:, None])
        positive = np.array(
            [dataset.rows[cases[c]][i].positive_pixels > 0 for c, i in zip(case_of, index_of, strict=True)]
        )
        positions = tuple(_positions_mm(dataset, case) for case in cases)
        resampled = tuple(None if taken_by_index(one, spacing, slices) else one for one in positions)
        distance = spacing.usual_mm if spacing is not None else 0.0
        return _Index(cases, case_of, index_of, neighbours, positive, resampled, distance)

    def held(self, i: int) -> int:
        """How many slices of case number i are held in memory."""
        neighbours = self.neighbours[self.case_of == i]
        return neighbours.size if self.positions_mm[i] is not None else len(np.unique(neighbours))

    def weights(self, i: int, indices: np.ndarray) -> np.ndarray | None:
        """(m, slices, n) weights of the case's slices in the samples of those slice indices; None if by index."""
        positions = self.positions_mm[i]
        if positions is None:
            return None
        return stack_weights(positions, self.distance_mm, self.neighbours.shape[1], indices)


def slice_spacing(dataset: Dataset, part: Part) -> SliceSpacing | None:
    """The slice distances of the scans that are trained on; None if no scan's are known."""
    positions = [_positions_mm(dataset, case) for case, indices in sorted(part.items()) if indices]
    return SliceSpacing.of([typical_distance_mm(one) for one in positions if one is not None])


def _positions_mm(dataset: Dataset, case: str) -> np.ndarray | None:
    """(slices,) positions along the normal; None if they are unknown or there is one slice."""
    rows = dataset.rows.get(case, ())
    if len(rows) < 2 or any(np.isnan(row.voxel_ml) for row in rows):
        return None
    positions = np.array([row.position_mm for row in rows])
    # Slices at one place are no distance to train on.
    return positions if typical_distance_mm(positions) > 0 else None


class Resident:
    """All slices as two tensors on the device."""

    memory = "resident"

    def __init__(self, dataset: Dataset, index: _Index, grid: Grid, device: torch.device, why: str):
        self.why = why
        self.positive, self.case_of = index.positive, index.case_of
        hu, masks, rows, first = [], [], np.empty_like(index.neighbours), 0
        with ThreadPoolExecutor(2) as pool:
            loaded = pool.map(lambda i: _load(dataset, index, grid, i), range(len(index.cases)))
            for i, (case_hu, case_mask, kept) in enumerate(progress(loaded, "loading", len(index.cases), "scan")):
                mine = index.case_of == i
                # A scan of another slice distance has slices of its own made for each sample, see stack_weights.
                rows[mine] = first + kept
                hu.append(case_hu)
                masks.append(case_mask)
                first += len(case_hu)
        self.sizes = np.array([part.shape[1:] for part in hu])
        frame = self.sizes.max(axis=0)
        self._hu, self._mask = _stack(hu, frame, AIR_HU).to(device), _stack(masks, frame, 0).to(device)
        self._rows = torch.from_numpy(rows).to(device)

    def take(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The slices of those numbers with their neighbours: the whole stack, and their places in it."""
        return self._hu, self._mask, self._rows.index_select(0, numbers.to(self._rows.device))


def _load(dataset: Dataset, index: _Index, grid: Grid, i: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """One case's HU and masks on the grid, and (samples, slices) which of them make each sample."""
    scan = dataset.scan(index.cases[i])
    mine = index.case_of == i
    placement = place(grid, scan)
    mask = dataset.mask(index.cases[i])
    mask = np.zeros(scan.shape, np.uint8) if mask is None else mask
    weights = index.weights(i, index.index_of[mine])
    if weights is None:
        kept = np.unique(index.neighbours[mine])
        rows = np.searchsorted(kept, index.neighbours[mine])
        return hu_to_working(scan.hu[kept], placement), mask_to_working(mask[kept], placement), rows
    working = hu_to_working(scan.hu, placement)
    # Sample by sample, since averages are made in float32, twice the size of what is kept.
    hu = torch.cat([stacks_to_working(working, one) for one in weights])
    share = mask_share(mask, placement)
    masks = torch.cat([mask_stacks_to_working(share, one) for one in weights])
    rows = np.arange(len(hu)).reshape(weights.shape[:2])
    return hu, masks, rows


def _stack(parts: list[Tensor], frame: np.ndarray, fill: int) -> Tensor:
    """Slices of several sizes in one tensor of `frame` rows and columns, filled up at the bottom and right."""
    out = torch.full((sum(map(len, parts)), *map(int, frame)), fill, dtype=parts[0].dtype)
    first = 0
    for part in parts:
        out[first : first + len(part), : part.shape[1], : part.shape[2]] = part
        first += len(part)
    return out


class Streamed:
    """Slices read from the dataset when they are needed; memory does not grow with the dataset."""

    memory = "stream"

    def __init__(self, dataset: Dataset, index: _Index, grid: Grid, why: str):
        self.why = why
        self.positive, self.case_of = index.positive, index.case_of
        self._dataset, self._index = dataset, index
        scans = progress(index.cases, "measuring", unit="scan")
        self._places: list[Placement] = [place(grid, dataset.scan(case)) for case in scans]
        self.sizes = np.array([(one.rows.working, one.columns.working) for one in self._places])
        self._frame = self.sizes.max(axis=0)

    def take(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The slices of those numbers with their neighbours, read now."""
        hu, masks = [], []
        for number in numbers.tolist():
            i, wanted = self._index.case_of[number], self._index.neighbours[number]
            weights = self._index.weights(i, self._index.index_of[number : number + 1])
            if weights is not None:
                case_hu, case_mask = self._read_resampled(i, weights[0])
                hu.append(case_hu)
                masks.append(case_mask)
                continue
            start = int(wanted.min())
            source_hu, source_mask = self._dataset.read(self._index.cases[i], start, int(wanted.max()) + 1)
            hu.append(hu_to_working(source_hu[wanted - start], self._places[i]))
            masks.append(mask_to_working(source_mask[wanted - start], self._places[i]))
        rows = torch.arange(sum(map(len, hu))).view(len(hu), -1)
        return _stack(hu, self._frame, AIR_HU), _stack(masks, self._frame, 0), rows

    def _read_resampled(self, i: int, weights: np.ndarray) -> tuple[Tensor, Tensor]:
        """HU and masks (slices, H, W) of one sample of a scan whose slices lie at another distance."""
        used = np.flatnonzero(weights.any(axis=0))
        start, stop = int(used[0]), int(used[-1]) + 1
        hu, mask = self._dataset.read(self._index.cases[i], start, stop)
        weights = weights[:, start:stop]
        working = hu_to_working(hu, self._places[i])
        share = mask_share(mask, self._places[i])
        return stacks_to_working(working, weights), mask_stacks_to_working(share, weights)


def open_slices(
    dataset: Dataset,
    part: Part,
    slices: int,
    grid: Grid,
    memory: str,
    device: torch.device,
    beside: int = 1,
    spacing: SliceSpacing | None = None,
) -> Slices:
    """The training part on a grid: resident where it fits or as `memory` ("resident", "stream") says.

    slices: how many neighbouring slices a sample holds (odd); beside: how many ranks of this machine each hold the
    part; spacing: at whose usual distance neighbours are taken, None takes them by index. Raises InputError for an
    empty part or missing masks.
    """
    must_be_labelled(dataset, part, "training")
    if not any(part.values()):
        raise InputError("the training part of this split is empty", dataset.root, "prepare more scans")
    index, why = _Index.of(dataset, part, slices, spacing), ASKED
    if memory == "auto":
        kept = sum(index.held(i) for i in range(len(index.cases)))
        needed = 2 * kept * _pixels(dataset, grid, index.cases) * 3  # twice: stacking makes a second copy
        free = free_memory(device, beside)
        memory = "resident" if needed < RESIDENT_SHARE * free else "stream"
        why = f"loading takes {needed / 1e9:.2g} of {free / 1e9:.2g} GB, and may take {RESIDENT_SHARE:.0%}"
    if memory == "resident":
        return Resident(dataset, index, grid, device, why)
    return Streamed(dataset, index, grid, why)


def must_be_labelled(dataset: Dataset, part: Part, name: str) -> None:
    """Raises InputError where scans of the part have no mask."""
    missing = [case for case, indices in part.items() if indices and not dataset.has_mask(case)]
    if missing:
        names = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        what = f"{len(missing)} {name} scans have no mask ({names})"
        raise InputError(what, dataset.root, "train on labelled ones")


def _pixels(dataset: Dataset, grid: Grid, cases: Sequence[str]) -> int:
    """Pixels of the largest slice on the grid."""
    if grid.size_px:
        return (grid.size_px + grid.multiple) ** 2
    sides = (place(grid, dataset.scan(case)) for case in cases) if grid.pixel_mm else ()
    on_grid = max((one.rows.working * one.columns.working for one in sides), default=0)
    return on_grid or max(dataset.rows[case][0].pixels for case in cases)


class Plan:
    """Which items an epoch shows, in which batches. An item is a slice, or a block of one.

    All batches are of one size: where each item is to be shown once, a few are shown twice to fill the last one.
    """

    def __init__(self, slices: Slices, recipe: Recipe):
        self.numbers, self.corners, self.positive = _items(slices, recipe)
        if not len(self.numbers):
            raise InputError("no slice with bleeding to train on", todo="check the masks, or train on all slices")
        self.seed, self.block = recipe.train.seed, recipe.tiles.size_px
        share, batch = recipe.data.positive_share, recipe.train.batch
        self.positives = max(1, round(share * batch)) if share and self.positive.any() else 0
        self.batch = batch if self.positives else min(batch, len(self.numbers))
        self.steps = recipe.train.steps_per_epoch * recipe.train.accumulate or -(-len(self.numbers) // self.batch)
        if (samples := self.steps * self.batch) > MOST_SAMPLES:
            todo = "lower train.batch or train.steps_per_epoch"
            raise OptionError(f"an epoch of {samples:,} samples is more than {MOST_SAMPLES:,}", "train", todo)

    def epoch(self, epoch: int) -> np.ndarray:
        """(steps, batch) item numbers."""
        random = rng(self.seed, epoch, 1)
        if not self.positives:
            return _repeat(np.arange(len(self.numbers)), self.steps * self.batch, random).reshape(self.steps, -1)
        with_bleeding, rest = np.flatnonzero(self.positive), np.flatnonzero(~self.positive)
        rest = rest if len(rest) else with_bleeding
        first = _repeat(with_bleeding, self.steps * self.positives, random).reshape(self.steps, -1)
        second = _repeat(rest, self.steps * (self.batch - self.positives), random).reshape(self.steps, -1)
        return np.concatenate([first, second], axis=1)


def _repeat(numbers: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` numbers in random order, none a second time before all had their turn."""
    if not count:
        return numbers[:0]
    rounds = [random.permutation(numbers) for _ in range(-(-count // len(numbers)))]
    return np.concatenate(rounds)[:count]


def _items(slices: Slices, recipe: Recipe) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Slice numbers (n,), corners (n, 2) of blocks or None, and whether bleeding is in them (n,)."""
    data, tiles = recipe.data, recipe.tiles
    chosen = np.flatnonzero(slices.positive)
    if data.slices == "all":
        chosen = np.arange(len(slices.positive))
    normal = np.array([], int)
    if data.slices == "positive-and-one-normal":
        random = rng(recipe.train.seed, 2)
        groups = [np.flatnonzero((slices.case_of == c) & ~slices.positive) for c in np.unique(slices.case_of)]
        normal = np.array([random.choice(group) for group in groups if len(group)], int)
    numbers = np.concatenate([chosen, normal])
    if not tiles.size_px:
        return numbers, None, slices.positive[numbers]
    items, positive = [], []
    for number in progress(numbers, "blocks", unit="slice"):
        _, masks, rows = slices.take(torch.tensor([number]))
        mask = masks[rows[0, rows.shape[1] // 2]].cpu()
        bleeds = bool(slices.positive[number])
        for top, left in tiles.corners(*map(int, slices.sizes[slices.case_of[number]])):
            block = bool(mask[top : top + tiles.size_px, left : left + tiles.size_px].any())
            # Of a slice with bleeding only the blocks that hold some are shown, unless all slices were asked for.
            if block or not bleeds or data.slices == "all":
                items.append((number, top, left))
                positive.append(block)
    table = np.array(items, int).reshape(-1, 3)
    return table[:, 0], table[:, 1:], np.array(positive, bool)


def batches(
    slices: Slices, plan: Plan, epoch: int, device: Device, ranks: Ranks | None = None, first: int = 0
) -> Iterator[Batch]:
    """This rank's part of the epoch's batches from number `first` on, on the device.

    Where slices are resident nothing is copied to the device but the epoch's table, once. Streamed ones are read for a
    GPU while it computes earlier ones, and copied from pinned memory behind the step before; an error while reading is
    raised here, in the loop that waits for the batch.
    """
    ranks = ranks or Ranks()
    own = slice(ranks.rank, None, ranks.world)
    items = plan.epoch(epoch)[first:, own]
    drawn = keys(plan.seed, epoch, plan.steps, plan.batch, device.torch_device)[first:, own]
    numbers = torch.from_numpy(plan.numbers[items])
    corners = [None] * len(items)
    if plan.corners is not None:
        corners = list(_sent(torch.from_numpy(plan.corners[items]), device.torch_device))
    # On a CPU threads of torch that read beside those that compute make each step half as fast.
    if slices.memory == "resident" or device.torch_device.type == "cpu":
        for taken, key, corner in zip(_sent(numbers, device.torch_device), drawn, corners, strict=True):
            yield Batch(*slices.take(taken), key, corner)
        return

    def read(taken: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.pin_memory() for part in slices.take(taken))

    for pinned, key, corner in zip(_read_ahead(read, numbers, min(8, device.threads)), drawn, corners, strict=True):
        hu, mask, rows = (part.to(device.torch_device, non_blocking=True) for part in pinned)
        yield Batch(hu, mask, rows, key, corner)


def _sent(table: Tensor, device: torch.device) -> Tensor:
    """On the device; a GPU's host does not wait until it is there, which it would without pinning."""
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table


def _read_ahead(
    read: Callable[[Tensor], tuple[Tensor, ...]], numbers: Tensor, workers: int
) -> Iterator[tuple[Tensor, ...]]:
    """What `read` makes of each of `numbers`, in order, by threads that are two each, and one, ahead of who asks."""
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[tuple[Tensor, ...]]] = deque()
        for place in range(len(numbers)):
            while len(ahead) < 2 * workers + 1 and place + len(ahead) < len(numbers):
                ahead.append(pool.submit(read, numbers[place + len(ahead)]))
            yield ahead.popleft().result()


class ICHDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """The 2021 paper's dataset class: pairs of PNGs of the same name in ROOT/image and ROOT/label.

    Each element is {"input": ..., "gt": ...}: without a transform float32 tensors (1, H, W) in [0, 1] and {0, 1};
    a transform gets and returns that dictionary with PIL images of mode "L", as MedicalTorch's transforms expect.
    Raises InputError where folders or labels are missing.
    """

    def __init__(self, root: str | Path, transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None):
        self.root, self.transform = Path(root), transform
        self.names = sorted(path.name for path in (self.root / "image").glob("*.png"))
        if not self.names:
            raise InputError("holds no image/*.png", self.root, "make them with `hemotorch prepare SRC OUT --png`")
        missing = [name for name in self.names if not (self.root / "label" / name).is_file()]
        if missing:
            raise InputError(f"{len(missing)} images have no label, {missing[0]} first", self.root / "label")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        image = png.read_image(self.root / "image" / name)
        label = png.read_label(self.root / "label" / name)
        pair = {"input": Image.fromarray(image), "gt": Image.fromarray(label)}
        if self.transform is not None:
            return self.transform(pair)
        grey, marked = torch.from_numpy(image)[None], torch.from_numpy(label)[None]
        return {"input": grey.float() / 255, "gt": (marked > 0).float()}
