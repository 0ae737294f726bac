"""The audit of a split: which patients and which identical slices are on both of its sides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hemotorch.data.dataset import Dataset
from hemotorch.data.manifest import SliceRow
from hemotorch.data.splits import PARTS, Split
from hemotorch.errors import some_of


@dataclass(frozen=True)
class Twins:
    """A slice on the far side, and one with the same pixels on the training side."""

    case: str
    slice_number: int
    same_as: str
    same_as_number: int


@dataclass(frozen=True)
class Audit:
    """What a split has on both sides.

    patients, slices: in training or validation, and in testing as well. val_patients, val_slices: in training, and in
    validation as well. patients: names, or those of scans where patients are unknown. slices: identical ones, all-equal
    ones left out. by_slice: patients were never kept apart.
    """

    split: str
    patients_known: bool
    patients: tuple[str, ...]
    slices: tuple[Twins, ...]
    val_patients: tuple[str, ...]
    val_slices: tuple[Twins, ...]
    by_slice: bool = False

    @property
    def clean(self) -> bool:
        """Whether nothing was found, and patients are known, so that it would have been."""
        return self.patients_known and not (self.patients or self.slices or self.val_patients or self.val_slices)

    def lines(self) -> list[str]:
        """The finding in words, each a line."""
        noun = "patients" if self.patients_known else "scans"
        lines = []
        for sides, units, twins in (
            ("training and testing", self.patients, self.slices),
            ("training and validation", self.val_patients, self.val_slices),
        ):
            if units:
                lines.append(f"{len(units)} {noun} are on both sides of {sides}: {some_of(units)}")
            if twins:
                pairs = [f"{t.case} slice {t.slice_number} = {t.same_as} slice {t.same_as_number}" for t in twins]
                lines.append(f"{len(pairs)} identical slices are on both sides of {sides}: {some_of(pairs)}")
        if not self.patients_known:
            lines.append("patients are unknown: the same one may be on both sides unseen")
        lines = lines or ["no patient and no identical slice is on both sides"]
        name = f"split '{self.split}'" + (", by slice as in the 2021 paper" if self.by_slice else "")
        return [f"{name}: {line}" for line in lines]


def audit(dataset: Dataset, split: Split) -> Audit:
    """Names every patient, and every identical slice, on both sides of a split."""
    rows = {(row.case, row.index): row for row in dataset.slices}
    train, val, test = (
        [rows[case, index] for case, indices in split.part(part).items() for index in indices] for part in PARTS
    )
    return Audit(
        split.name,
        dataset.patients_known,
        _shared_patients([*train, *val], test),
        _twins([*train, *val], test),
        _shared_patients(train, val),
        _twins(train, val),
        split.by == "slice",
    )


def _shared_patients(near: Iterable[SliceRow], far: Iterable[SliceRow]) -> tuple[str, ...]:
    sides = ({row.patient or row.case for row in side} for side in (near, far))
    return tuple(sorted(set.intersection(*sides)))


def _twins(near: Iterable[SliceRow], far: Iterable[SliceRow]) -> tuple[Twins, ...]:
    seen = {row.hash: row for row in reversed(list(near)) if row.hash}
    pairs = ((row, seen[row.hash]) for row in far if row.hash in seen)
    return tuple(Twins(row.case, row.slice_number, same.case, same.slice_number) for row, same in pairs)
