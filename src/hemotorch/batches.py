"""Prepared dataset -> batches of HU and masks on the network's grid; and the paper's ICHDataset.

Slices are resident on the device where they fit, else streamed in constant memory by a thread that works two batches
ahead. Which slices make a batch is a function of (seed, epoch, step).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hemotorch.augment import rng
from hemotorch.dataset import Dataset, Part
from hemotorch.device import free_memory
from hemotorch.errors import InputError
from hemotorch.grid import Grid, Placement, hu_to_working, mask_to_working, place
from hemotorch.hu import AIR_HU
from hemotorch.progress import progress
from hemotorch.recipe import Data, Tiles

RESIDENT_SHARE = 0.4  #: of the free memory; the rest is for the network


@dataclass(frozen=True)
class Batch:
    """hu: (N, slices, H, W) int16; mask: (N, 1, H, W) uint8, 0 or 1."""

    hu: Tensor
    mask: Tensor


class Slices(Protocol):
    """Slices on the network's grid, taken by their number in the training part."""

    positive: np.ndarray  # (n,) bool
    case_of: np.ndarray  # (n,) int
    sizes: np.ndarray  # (cases, 2) rows and columns on the grid; slices are filled up to the largest of each

    def take(self, numbers: np.ndarray) -> Batch:
        """The slices of those numbers with their neighbours."""


@dataclass(frozen=True)
class _Index:
    """The training part as a table: a row a slice."""

    cases: tuple[str, ...]
    case_of: np.ndarray  # (n,)
    index_of: np.ndarray  # (n,) slice index within its case
    neighbours: np.ndarray  # (n, slices) slice indices within its case, the end slices repeated
    positive: np.ndarray  # (n,) bool

    @staticmethod
    def of(dataset: Dataset, part: Part, slices: int) -> _Index:
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
        return _Index(cases, case_of, index_of, neighbours, positive)


class Resident:
    """All slices as two tensors on the device."""

    def __init__(self, dataset: Dataset, index: _Index, grid: Grid, device: torch.device):
        self.positive, self.case_of = index.positive, index.case_of
        hu, masks, rows, first = [], [], np.empty_like(index.neighbours), 0
        with ThreadPoolExecutor(2) as pool:
            loaded = pool.map(lambda i: _load(dataset, index, grid, i), range(len(index.cases)))
            for i, (case_hu, case_mask, kept) in enumerate(progress(loaded, "loading", len(index.cases), "scan")):
                mine = index.case_of == i
                rows[mine] = first + np.searchsorted(kept, index.neighbours[mine])
                hu.append(case_hu)
                masks.append(case_mask)
                first += len(kept)
        self.sizes = np.array([part.shape[1:] for part in hu])
        frame = self.sizes.max(axis=0)
        self._hu, self._mask = _stack(hu, frame, AIR_HU).to(device), _stack(masks, frame, 0).to(device)
        self._rows = torch.from_numpy(rows).to(device)
        self._device = device

    def take(self, numbers: np.ndarray) -> Batch:
        """The slices of those numbers with their neighbours."""
        rows = self._rows[torch.from_numpy(numbers).to(self._device)]
        flat = self._hu.index_select(0, rows.flatten())
        hu = flat.view(*rows.shape, *flat.shape[1:])
        return Batch(hu, self._mask.index_select(0, rows[:, rows.shape[1] // 2])[:, None])


def _load(dataset: Dataset, index: _Index, grid: Grid, i: int) -> tuple[Tensor, Tensor, np.ndarray]:
    scan = dataset.scan(index.cases[i])
    kept = np.unique(index.neighbours[index.case_of == i])
    placement = place(grid, scan)
    mask = dataset.mask(index.cases[i])
    mask = np.zeros(scan.shape, np.uint8) if mask is None else mask
    return hu_to_working(scan.hu[kept], placement), mask_to_working(mask[kept], placement), kept


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

    def __init__(self, dataset: Dataset, index: _Index, grid: Grid, device: torch.device):
        self.positive, self.case_of = index.positive, index.case_of
        self._dataset, self._index, self._device = dataset, index, device
        scans = progress(index.cases, "measuring", unit="scan")
        self._places: list[Placement] = [place(grid, dataset.scan(case)) for case in scans]
        self.sizes = np.array([(one.rows.working, one.columns.working) for one in self._places])
        self._frame = self.sizes.max(axis=0)

    def take(self, numbers: np.ndarray) -> Batch:
        """The slices of those numbers with their neighbours."""
        hu, masks = [], []
        for number in numbers:
            i, wanted = self._index.case_of[number], self._index.neighbours[number]
            start = int(wanted.min())
            source_hu, source_mask = self._dataset.read(self._index.cases[i], start, int(wanted.max()) + 1)
            middle = wanted[len(wanted) // 2] - start
            hu.append(hu_to_working(source_hu[wanted - start], self._places[i]))
            masks.append(mask_to_working(source_mask[middle : middle + 1], self._places[i]))
        shape = (len(hu), len(hu[0]))
        stacked = _stack(hu, self._frame, AIR_HU)
        batch_hu = stacked.view(*shape, *stacked.shape[1:])
        return Batch(batch_hu.to(self._device), _stack(masks, self._frame, 0)[:, None].to(self._device))


def open_slices(dataset: Dataset, part: Part, slices: int, grid: Grid, memory: str, device: torch.device) -> Slices:
    """The training part on a grid: resident where it fits or as `memory` ("resident", "stream") says.

    slices: how many neighbouring slices a sample holds (odd). Raises InputError for an empty part or missing masks.
    """
    unlabelled = [case for case, indices in part.items() if indices and not dataset.has_mask(case)]
    if unlabelled:
        names = ", ".join(unlabelled[:5]) + (" ..." if len(unlabelled) > 5 else "")
        raise InputError(
            f"{len(unlabelled)} training scans have no mask ({names})", dataset.root, "train on labelled ones"
        )
    if not any(part.values()):
        raise InputError("the training part of this split is empty", dataset.root, "prepare more scans")
    index = _Index.of(dataset, part, slices)
    if memory == "auto":
        kept = sum(len(np.unique(index.neighbours[index.case_of == i])) for i in range(len(index.cases)))
        needed = 2 * kept * _pixels(dataset, grid, index.cases) * 3  # twice: stacking makes a second copy
        memory = "resident" if needed < RESIDENT_SHARE * free_memory(device) else "stream"
    return (Resident if memory == "resident" else Streamed)(dataset, index, grid, device)


def _pixels(dataset: Dataset, grid: Grid, cases: Sequence[str]) -> int:
    """Pixels of the largest slice on the grid."""
    if grid.size_px:
        return (grid.size_px + grid.multiple) ** 2
    sides = (place(grid, dataset.scan(case)) for case in cases) if grid.pixel_mm else ()
    on_grid = max((one.rows.working * one.columns.working for one in sides), default=0)
    return on_grid or max(dataset.rows[case][0].pixels for case in cases)


@dataclass(frozen=True)
class Item:
    """One thing to show: a slice, and the corner of a block in it (0, 0 for whole slices)."""

    number: int
    top: int = 0
    left: int = 0


class Plan:
    """Which items an epoch shows, in which batches."""

    def __init__(self, slices: Slices, data: Data, tiles: Tiles, batch: int, steps: int, seed: int):
        self.items, self.positive = _items(slices, data, tiles, seed)
        if not len(self.items):
            raise InputError("no slice with bleeding to train on", todo="check the masks, or train on all slices")
        self.batch, self.seed = batch, seed
        wanted = max(1, round(data.positive_share * batch)) if data.positive_share else 0
        self.positives = wanted if self.positive.any() else 0
        self.steps = steps or -(-len(self.items) // batch)

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """(batch,) item numbers of each step; the last batch may be smaller where each item is shown once."""
        random = rng(self.seed, epoch, 1)
        if not self.positives:
            order = _repeat(np.arange(len(self.items)), min(self.steps * self.batch, _whole(self)), random)
            return [order[i * self.batch : (i + 1) * self.batch] for i in range(self.steps)]
        with_bleeding, rest = np.flatnonzero(self.positive), np.flatnonzero(~self.positive)
        rest = rest if len(rest) else with_bleeding
        first = _repeat(with_bleeding, self.steps * self.positives, random).reshape(self.steps, -1)
        second = _repeat(rest, self.steps * (self.batch - self.positives), random).reshape(self.steps, -1)
        return list(np.concatenate([first, second], axis=1))


def _whole(plan: Plan) -> int:
    """Items of an epoch: all of them once, or full batches where more steps were asked for than that takes."""
    return len(plan.items) if plan.steps * plan.batch - len(plan.items) < plan.batch else plan.steps * plan.batch


def _repeat(numbers: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` numbers in random order, none a second time before all had their turn."""
    if not count:
        return numbers[:0]
    rounds = [random.permutation(numbers) for _ in range(-(-count // len(numbers)))]
    return np.concatenate(rounds)[:count]


def _items(slices: Slices, data: Data, tiles: Tiles, seed: int) -> tuple[list[Item], np.ndarray]:
    chosen = np.flatnonzero(slices.positive)
    if data.slices == "all":
        chosen = np.arange(len(slices.positive))
    normal = np.array([], int)
    if data.slices == "positive-and-one-normal":
        random = rng(seed, 2)
        groups = [np.flatnonzero((slices.case_of == c) & ~slices.positive) for c in np.unique(slices.case_of)]
        normal = np.array([random.choice(group) for group in groups if len(group)], int)
    if not tiles.size_px:
        numbers = np.concatenate([chosen, normal])
        return [Item(int(n)) for n in numbers], slices.positive[numbers]
    items, positive = [], []
    for number in np.concatenate([chosen, normal]):
        mask = slices.take(np.array([number])).mask[0, 0].cpu()
        bleeds = bool(slices.positive[number])
        for top, left in tiles.corners(*map(int, slices.sizes[slices.case_of[number]])):
            block = bool(mask[top : top + tiles.size_px, left : left + tiles.size_px].any())
            # Of a slice with bleeding only the blocks that hold some are shown, unless all slices were asked for.
            if block or not bleeds or data.slices == "all":
                items.append(Item(int(number), top, left))
                positive.append(block)
    return items, np.array(positive, bool)


def batches(slices: Slices, plan: Plan, tiles: Tiles, epoch: int, first: int = 0) -> Iterator[Batch]:
    """The batches of an epoch from step `first` on; streamed ones are read while earlier ones are computed.

    An error while reading is raised here, in the loop that waits for the batch.
    """
    steps = plan.epoch(epoch)[first:]

    def read(numbers: np.ndarray) -> Batch:
        return _cut(slices, [plan.items[n] for n in numbers], tiles)

    if isinstance(slices, Resident):
        yield from map(read, steps)
        return
    with ThreadPoolExecutor(1) as pool:
        ahead: list[Future[Batch]] = []
        for numbers in steps:
            ahead.append(pool.submit(read, numbers))
            if len(ahead) > 2:
                yield ahead.pop(0).result()
        while ahead:
            yield ahead.pop(0).result()


def _cut(slices: Slices, items: Sequence[Item], tiles: Tiles) -> Batch:
    whole = slices.take(np.array([item.number for item in items]))
    if not tiles.size_px:
        return whole
    size = tiles.size_px
    hu = whole.hu.new_full((*whole.hu.shape[:2], size, size), AIR_HU)
    mask = whole.mask.new_zeros((len(items), 1, size, size))
    for i, item in enumerate(items):
        block = whole.hu[i, :, item.top : item.top + size, item.left : item.left + size]
        hu[i, :, : block.shape[1], : block.shape[2]] = block
        mask[i, :, : block.shape[1], : block.shape[2]] = whole.mask[
            i, :, item.top : item.top + size, item.left : item.left + size
        ]
    return Batch(hu, mask)


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
        pair = {"input": _grey(self.root / "image" / name), "gt": _grey(self.root / "label" / name)}
        if self.transform is not None:
            return self.transform(pair)
        image, label = (torch.from_numpy(np.array(pair[key]))[None] for key in ("input", "gt"))
        return {"input": image.float() / 255, "gt": (label > 0).float()}


def _grey(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("L")
    except OSError as error:
        raise InputError("cannot be read as an image", path) from error
