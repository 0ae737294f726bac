"""The audit of a split: which patients and which identical slices are on both of its sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hemotorch.data.dataset import Dataset
from hemotorch.data.manifest import SliceRow
from hemotorch.data.splits import PARTS, Part, Split
from hemotorch.errors import some_of


@dataclass(frozen=True)
class Twins:
    """A slice on the far side, and one with the same pixels on the training side."""

    case: str
    slice_number: int
    same_as: str
    same_as_number: int

    def __str__(self) -> str:
        return f"{self.case} slice {self.slice_number} = {self.same_as} slice {self.same_as_number}"


@dataclass(frozen=True)
class Audit:
    """What a split has on both sides.

    patients, slices: in training or validation, and in testing as well. patients: names, or those of scans if patients
        are unknown. slices: identical ones, all-equal ones left out.
    val_patients, val_slices: in training, and in validation as well.
    by_slice: patients were never kept apart.
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

    @property
    def title(self) -> str:
        """How the split is called."""
        return f"split '{self.split}'{', by slice as in the 2021 paper' if self.by_slice else ''}"

    def lines(self) -> list[str]:
        """The findings in words, one per line, with the split's name."""
        return [f"{self.title}: {finding}" for finding in self.findings()]

    def findings(self) -> list[str]:
        """What was found, in words."""
        noun = "patients" if self.patients_known else "scans"
        lines = []
        for sides, patients, twins in (
            ("training and testing", self.patients, self.slices),
            ("training and validation", self.val_patients, self.val_slices),
        ):
            if patients:
                # By slice it is meant to be so, and names would say nothing.
                names = "" if self.by_slice else f": {some_of(patients)}"
                lines.append(f"{len(patients)} {noun} are on both sides of {sides}{names}")
            if twins:
                pairs = list(map(str, twins))
                lines.append(f"{len(pairs)} identical slices are on both sides of {sides}: {some_of(pairs)}")
        if not self.patients_known:
            lines.append("patients are unknown: the same one may be on both sides unseen")
        return lines or ["no patient and no identical slice is on both sides"]


def audit(dataset: Dataset, split: Split) -> Audit:
    """Names every patient, and every identical slice, on both sides of a split."""
    rows = {(row.case, row.index): row for row in dataset.slices}
    train, val, test = (_rows_of(split.part(part), rows) for part in PARTS)
    return Audit(
        split=split.name,
        patients_known=dataset.patients_known,
        patients=_shared_patients([*train, *val], test),
        slices=_twins([*train, *val], test),
        val_patients=_shared_patients(train, val),
        val_slices=_twins(train, val),
        by_slice=split.by == "slice",
    )


def _rows_of(part: Part, rows: Mapping[tuple[str, int], SliceRow]) -> list[SliceRow]:
    rows_of_part = []
    for case, indices in part.items():
        rows_of_part += [rows[case, index] for index in indices]
    return rows_of_part


def _shared_patients(near: Iterable[SliceRow], far: Iterable[SliceRow]) -> tuple[str, ...]:
    return tuple(sorted(_patients(near) & _patients(far)))


def _patients(rows: Iterable[SliceRow]) -> set[str]:
    return {row.patient or row.case for row in rows}


def _twins(near: Sequence[SliceRow], far: Iterable[SliceRow]) -> tuple[Twins, ...]:
    # From the end, so that of several equal slices the first one is named.
    row_by_hash = {row.hash: row for row in reversed(near) if row.hash}
    twins = []
    for row in far:
        if same := row_by_hash.get(row.hash):
            twins.append(Twins(row.case, row.slice_number, same.case, same.slice_number))
    return tuple(twins)
