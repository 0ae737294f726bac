"""Named splits: which slices of which cases train, validate and test; and splits.json, which holds them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hemotorch.errors import InputError, nearest
from hemotorch.system import records
from hemotorch.system.records import record

PARTS = ("train", "val", "test")
Part = dict[str, tuple[Annotated[int, Field(ge=0)], ...]]  #: case name -> indices of its slices, in order
Runs = dict[str, str]  #: case name -> its slices as splits.json has them, "0-11,14" being indices 0 to 11 and 14

_AGAIN = "run the same `hemotorch prepare` again"


@record
class Split:
    """Which slices train, validate and test. by: "slice" if a patient may be on both sides."""

    name: str
    by: Literal["patient", "slice"]
    train: Part
    val: Part
    test: Part
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in PARTS:
            for case, indices in self.part(name).items():
                if list(indices) != sorted(set(indices)):
                    raise ValueError(f"slices of case {case!r} stand twice or out of order")

    def part(self, name: str) -> Part:
        """The part called train, val or test. Raises InputError for another name."""
        if name not in PARTS:
            raise InputError(f"a split has no part '{name}'", todo=nearest(name, PARTS))
        return {"train": self.train, "val": self.val, "test": self.test}[name]


@record
class StoredSplit:
    """A split as splits.json has it."""

    by: Literal["patient", "slice"]
    warnings: tuple[str, ...]
    train: Runs
    val: Runs
    test: Runs


@record
class StoredSplits:
    """All of splits.json. warnings: why splits are missing; seed: that the splits were made with."""

    seed: int
    warnings: tuple[str, ...]
    splits: dict[str, StoredSplit]


def write_splits(path: Path, splits: dict[str, Split], warnings: Iterable[str], seed: int) -> None:
    """Writes splits.json. warnings: why splits are missing."""
    stored = {}
    for split in splits.values():
        train, val, test = (_runs_of(split.part(name)) for name in PARTS)
        stored[split.name] = StoredSplit(split.by, split.warnings, train, val, test)
    records.write(path, StoredSplits(seed, tuple(warnings), stored))


def read_splits(path: Path, slice_counts: dict[str, int]) -> tuple[dict[str, Split], tuple[str, ...]]:
    """All splits of splits.json, and why splits are missing.

    Args:
        path: of splits.json.
        slice_counts: how many slices each case has, which bounds what is read.

    Raises:
        InputError: if the file is damaged, or names cases or slices that the dataset does not hold.
    """
    stored = records.read(path, StoredSplits, _AGAIN)
    splits = {}
    try:
        for name, entry in stored.splits.items():
            label = f"split '{name}'"
            train = _part(entry.train, label, slice_counts)
            val = _part(entry.val, label, slice_counts)
            test = _part(entry.test, label, slice_counts)
            _check_apart((train, val, test), entry.by, label)
            splits[name] = Split(name, entry.by, train, val, test, entry.warnings)
    except ValueError as error:
        raise InputError(f"is damaged ({error})", path, _AGAIN) from error
    return splits, stored.warnings


def _part(runs: Runs, label: str, slice_counts: dict[str, int]) -> Part:
    part: Part = {}
    for case, text in runs.items():
        if case not in slice_counts:
            raise ValueError(f"{label} names case {case!r}, which the dataset does not hold")
        part[case] = _indices(text, slice_counts[case], f"{label}, case {case!r}")
    return part


def _check_apart(parts: Iterable[Part], by: str, label: str) -> None:
    """Raises ValueError if a slice, or in a split by patient a case, stands in two parts."""
    seen: dict[str, set[int]] = {}
    for part in parts:
        for case, indices in part.items():
            earlier = seen.setdefault(case, set())
            if earlier.intersection(indices) or (earlier and by == "patient"):
                raise ValueError(f"{label} has case {case!r} in two parts")
            earlier.update(indices)


def _runs_of(part: Part) -> Runs:
    return {case: _runs(indices) for case, indices in part.items()}


def _runs(indices: Iterable[int]) -> str:
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _indices(runs: str, count: int, label: str) -> tuple[int, ...]:
    """The indices of runs like "0-11,14". Raises ValueError for any beyond `count` slices."""
    indices: list[int] = []
    for run in runs.split(","):
        if not run:
            continue
        first, _, last = run.partition("-")
        start, end = int(first), int(last or first)
        # "0-999999999999" would take all memory.
        if not 0 <= start <= end < count:
            raise ValueError(f"{label}: slices {run[:40]} of {count} slices")
        if indices and start <= indices[-1]:
            raise ValueError(f"{label}: slices {run[:40]} stand twice or out of order")
        indices.extend(range(start, end + 1))
    return tuple(indices)
