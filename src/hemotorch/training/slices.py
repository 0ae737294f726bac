"""The slices that are trained on, HU and target on the network's grid: held on the device, or read when needed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hemotorch.data.dataset import Dataset
from hemotorch.data.splits import Part
from hemotorch.errors import InputError
from hemotorch.grid import (
    Grid,
    Placement,
    SliceSpacing,
    TargetShares,
    hu_to_working,
    place,
    stack_weights,
    stacks_to_working,
    taken_by_index,
    target_to_working,
    typical_distance_mm,
)
from hemotorch.hu import AIR_HU
from hemotorch.scan import Scan
from hemotorch.system import limits
from hemotorch.system.device import ASKED, free_memory
from hemotorch.system.events import progress
from hemotorch.task import BLEEDING, Task

RESIDENT_SHARE = 0.4  #: of the free memory; the rest is for the network
BYTES_PER_PIXEL = 3  #: int16 HU and uint8 target


class Slices(Protocol):
    """Slices on the network's grid, taken by their number in the training part."""

    memory: str  #: "resident" or "stream"
    why: str  #: the reason for that
    positive: np.ndarray  #: (slices,) bool, which hold bleeding
    case_of: np.ndarray  #: (slices,) int, number of each one's case
    sizes: np.ndarray  #: (cases, 2) rows and columns on the grid; slices are filled up to the largest of each

    def take(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The slices of those numbers with their neighbours: `hu`, `target` and `rows` of a Batch."""


@dataclass(frozen=True)
class SliceTable:
    """The training part as a table, one row per slice.

    case_of: (slices,) number of its case. index_of: (slices,) its index within the case. neighbours: (slices, inputs)
    indices within the case of what the network sees, the end slices repeated. positive: (slices,) bool.
    positions_mm: of each case's slices; None if its neighbours are taken by index. distance_mm: between the network's
    slices, for the other cases.
    """

    cases: tuple[str, ...]
    case_of: np.ndarray
    index_of: np.ndarray
    neighbours: np.ndarray
    positive: np.ndarray
    positions_mm: tuple[np.ndarray | None, ...]
    distance_mm: float

    @staticmethod
    def of(dataset: Dataset, part: Part, inputs: int, spacing: SliceSpacing | None) -> SliceTable:
        """The table of a part, for a network that sees so many slices at once.

        Raises:
            InputError: if the dataset lacks a case or slice of the part.
        """
        cases = _trained_cases(part)
        _check_holds(dataset, part, cases)
        counts = [len(part[case]) for case in cases]
        case_of = np.repeat(np.arange(len(cases)), counts)
        index_of = np.concatenate([np.array(part[case], int) for case in cases])
        last_index = np.repeat([len(dataset.rows[case]) - 1 for case in cases], counts)
        offsets = np.arange(inputs) - inputs // 2
        neighbours = np.clip(index_of[:, None] + offsets, 0, last_index[:, None])
        positive = [dataset.rows[case][index].positive_pixels > 0 for case in cases for index in part[case]]
        positions: list[np.ndarray | None] = []
        for case in cases:
            positions_mm = _positions_mm(dataset, case)
            if taken_by_index(positions_mm, spacing, inputs):
                positions_mm = None
            positions.append(positions_mm)
        distance_mm = 0.0 if spacing is None else spacing.usual_mm
        return SliceTable(cases, case_of, index_of, neighbours, np.array(positive), tuple(positions), distance_mm)

    def held(self, case_number: int) -> int:
        """How many slices of a case are held in memory."""
        neighbours = self.neighbours[self.case_of == case_number]
        if self.positions_mm[case_number] is None:
            return len(np.unique(neighbours))
        # A scan of another slice distance has slices of its own made for each sample, see stack_weights.
        return neighbours.size

    def weights(self, case_number: int, indices: np.ndarray) -> np.ndarray | None:
        """(m, inputs, n) weights of the case's slices in the samples of those slice indices; None if by index."""
        positions_mm = self.positions_mm[case_number]
        if positions_mm is None:
            return None
        return stack_weights(positions_mm, self.distance_mm, self.neighbours.shape[1], indices)


def _check_holds(dataset: Dataset, part: Part, cases: Sequence[str]) -> None:
    for case in cases:
        if max(part[case]) >= len(dataset.rows.get(case, ())):
            what = f"lacks scans or slices of the run's split ({case} first)"
            raise InputError(what, dataset.root, "name the dataset that the run was started on")


def slice_spacing(dataset: Dataset, part: Part) -> SliceSpacing | None:
    """The slice distances of the scans that are trained on; None if no scan's are known."""
    distances_mm = []
    for case in _trained_cases(part):
        positions_mm = _positions_mm(dataset, case)
        if positions_mm is not None:
            distances_mm.append(typical_distance_mm(positions_mm))
    return SliceSpacing.of(distances_mm)


def _trained_cases(part: Part) -> tuple[str, ...]:
    """The cases of which the part has slices."""
    return tuple(case for case in sorted(part) if part[case])


def _positions_mm(dataset: Dataset, case: str) -> np.ndarray | None:
    """(slices,) positions along the normal; None if they are unknown or there is one slice."""
    rows = dataset.rows.get(case, ())
    if len(rows) < 2 or any(np.isnan(row.voxel_ml) for row in rows):
        return None
    positions_mm = np.array([row.position_mm for row in rows])
    # Slices that all lie at one position are no distance to train on.
    return positions_mm if typical_distance_mm(positions_mm) > 0 else None


class Resident:
    """All slices as two tensors on the device."""

    memory = "resident"

    def __init__(self, dataset: Dataset, table: SliceTable, grid: Grid, task: Task, device: torch.device, why: str):
        self.why = why
        self.positive, self.case_of = table.positive, table.case_of
        hu, targets = [], []
        rows, count = np.empty_like(table.neighbours), 0
        numbers = range(len(table.cases))
        with ThreadPoolExecutor(2) as pool:
            loaded = pool.map(lambda number: _load(dataset, table, grid, task, number), numbers)
            for number, loaded_case in enumerate(progress(loaded, "loading", len(table.cases), "scan")):
                case_hu, case_target, case_rows = loaded_case
                rows[table.case_of == number] = count + case_rows
                hu.append(case_hu)
                targets.append(case_target)
                count += len(case_hu)
        self.sizes = np.array([case_hu.shape[1:] for case_hu in hu])
        frame = self.sizes.max(axis=0)
        self._hu = _stack(hu, frame, AIR_HU).to(device)
        self._target = _stack(targets, frame, 0).to(device)
        self._rows = torch.from_numpy(rows).to(device)

    def take(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The slices of those numbers with their neighbours: the whole stack, and their indices in it."""
        return self._hu, self._target, self._rows.index_select(0, numbers.to(self._rows.device))


def _load(
    dataset: Dataset, table: SliceTable, grid: Grid, task: Task, number: int
) -> tuple[Tensor, Tensor, np.ndarray]:
    """One case's HU and target on the grid, and (samples, inputs) which of its slices make each sample."""
    case, samples = table.cases[number], table.case_of == number
    scan, target = dataset.scan(case), dataset.target(case, task)
    placement = _place(grid, scan, case)
    neighbours = table.neighbours[samples]
    weights = table.weights(number, table.index_of[samples])
    if weights is None:
        seen = np.unique(neighbours)
        rows = np.searchsorted(seen, neighbours)
        hu, targets = hu_to_working(scan.hu[seen], placement), target_to_working(target[seen], placement)
        return torch.from_numpy(hu), torch.from_numpy(targets), rows
    working, shares = hu_to_working(scan.hu, placement), TargetShares.of(target, placement)
    # Sample by sample, since averages are made in float32, twice the size of what is held.
    hu = np.concatenate([stacks_to_working(working, sample) for sample in weights])
    targets = np.concatenate([shares.decided(sample) for sample in weights])
    return torch.from_numpy(hu), torch.from_numpy(targets), np.arange(len(hu)).reshape(neighbours.shape)


def check_size(dataset: Dataset, part: Part, grid: Grid) -> None:
    """Raises InputError if a scan takes more voxels on a grid of fixed size than `predict` allows, as it would later.

    From the manifest alone: with grid.size_px=4096, loading took 9.7 GB for 8 small scans before anything was said.
    """
    if grid.size_px:
        side = -(-grid.size_px // grid.multiple) * grid.multiple
        for case in _trained_cases(part):
            limits.check_voxels((len(dataset.rows.get(case, ())), side, side), _on_grid(case))


def _place(grid: Grid, scan: Scan, case: str) -> Placement:
    """Lays the grid on a scan. Raises InputError if it takes more voxels there than `predict` allows."""
    placement = place(grid, scan)
    limits.check_voxels((len(scan.hu), *placement.working), _on_grid(case))
    return placement


def _on_grid(case: str) -> str:
    return f"{case} on the network's grid (grid.size_px, grid.pixel_mm)"


def _stack(stacks: list[Tensor], frame: np.ndarray, fill: int) -> Tensor:
    """Slices of several sizes in one tensor of `frame` rows and columns, filled up at the bottom and right."""
    out = torch.full((sum(map(len, stacks)), *map(int, frame)), fill, dtype=stacks[0].dtype)
    first = 0
    for stack in stacks:
        out[first : first + len(stack), : stack.shape[1], : stack.shape[2]] = stack
        first += len(stack)
    return out


class Streamed:
    """Slices read from the dataset when they are needed; memory does not grow with the dataset."""

    memory = "stream"

    def __init__(self, dataset: Dataset, table: SliceTable, grid: Grid, task: Task, why: str):
        self.why = why
        self.positive, self.case_of = table.positive, table.case_of
        self._dataset, self._table, self._task = dataset, table, task
        cases = progress(table.cases, "measuring", unit="scan")
        self._placements: list[Placement] = [_place(grid, dataset.scan(case), case) for case in cases]
        self.sizes = np.array([(axes.rows.working, axes.columns.working) for axes in self._placements])
        self._frame = self.sizes.max(axis=0)

    def take(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The slices of those numbers with their neighbours, read now."""
        hu, targets = [], []
        for number in numbers.tolist():
            sample_hu, sample_target = self._read(number)
            hu.append(torch.from_numpy(sample_hu))
            targets.append(torch.from_numpy(sample_target))
        rows = torch.arange(sum(map(len, hu))).view(len(hu), -1)
        return _stack(hu, self._frame, AIR_HU), _stack(targets, self._frame, 0), rows

    def _read(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """HU and target of one sample, both (inputs, H, W)."""
        table, case_number = self._table, self._table.case_of[number]
        case, placement = table.cases[case_number], self._placements[case_number]
        weights = table.weights(case_number, table.index_of[number : number + 1])
        needed = table.neighbours[number] if weights is None else np.flatnonzero(weights[0].any(axis=0))
        start, stop = int(needed.min()), int(needed.max()) + 1
        hu, target = self._dataset.read_target(case, start, stop, self._task)
        if weights is None:
            seen = needed - start
            return hu_to_working(hu[seen], placement), target_to_working(target[seen], placement)
        sample = weights[0][:, start:stop]
        working = hu_to_working(hu, placement)
        return stacks_to_working(working, sample), TargetShares.of(target, placement).decided(sample)


def open_slices(
    dataset: Dataset,
    part: Part,
    inputs: int,
    grid: Grid,
    memory: str,
    device: torch.device,
    beside: int = 1,
    spacing: SliceSpacing | None = None,
    task: Task = BLEEDING,
) -> Slices:
    """The training part on a grid: resident if it fits or as `memory` says.

    Args:
        inputs: how many neighbouring slices a sample holds, an odd number.
        memory: "resident", "stream", or "auto" to decide by the free memory.
        beside: how many ranks of this machine each hold the part.
        spacing: at whose usual distance neighbours are taken; None takes them by index.
        task: what the network answers, which says what the target's bits mean.

    Raises:
        InputError: for an empty part, missing masks, or scans that are too large on the grid.
    """
    must_be_labelled(dataset, part, "training")
    if not any(part.values()):
        raise InputError("the training part of this split is empty", dataset.root, "prepare more scans")
    table, why = SliceTable.of(dataset, part, inputs, spacing), ASKED
    if memory == "auto":
        held = sum(table.held(number) for number in range(len(table.cases)))
        # Twice, since stacking makes a second copy.
        needed = 2 * held * _pixels(dataset, grid, table.cases) * BYTES_PER_PIXEL
        free = free_memory(device, beside)
        memory = "resident" if needed < RESIDENT_SHARE * free else "stream"
        why = f"loading takes {needed / 1e9:.2g} of {free / 1e9:.2g} GB, and may take {RESIDENT_SHARE:.0%}"
    if memory == "resident":
        return Resident(dataset, table, grid, task, device, why)
    return Streamed(dataset, table, grid, task, why)


def must_be_labelled(dataset: Dataset, part: Part, name: str) -> None:
    """Raises InputError if scans of the part have no mask. name: what the part is called."""
    missing = [case for case in _trained_cases(part) if not dataset.has_mask(case)]
    if missing:
        names = ", ".join(missing[:5])
        if len(missing) > 5:
            names += " ..."
        what = f"{len(missing)} {name} scans have no mask ({names})"
        raise InputError(what, dataset.root, "train on labelled ones")


def _pixels(dataset: Dataset, grid: Grid, cases: Sequence[str]) -> int:
    """Pixels of the largest slice on the grid."""
    if grid.size_px:
        return (grid.size_px + grid.multiple) ** 2
    largest = 0
    if grid.pixel_mm:
        for case in cases:
            placement = place(grid, dataset.scan(case))
            largest = max(largest, placement.rows.working * placement.columns.working)
    return largest or max(dataset.rows[case][0].pixels for case in cases)
