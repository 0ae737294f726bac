"""How many scans, slices and patients a prepared dataset holds, beside what was published of CT-ICH."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hemotorch.data.manifest import SliceRow

#: Scans, slices, slices with bleeding, patients with bleeding. Hssayeni et al. 2020, Data 5(1):14, and PhysioNet CT-ICH
#: v1.3.1. Sokolovskyy et al. 2021 count 318 slices with bleeding and 2491 without, 5 fewer in all.
PUBLISHED = {"ct-ich": (75, 2814, 318, 36)}
PAPER = {"ct-ich": (318, 2491)}
NAMED = 10  #: differences in a summary


@dataclass(frozen=True)
class Inventory:
    """What there is, by the table of slice labels and by the masks; None if there is no table, or no mask.

    patients: None if unknown. differences: slices on which table and mask disagree, each in words.
    """

    scans: int
    slices: int
    masks: int
    patients: int | None
    positive_slices_table: int | None
    positive_slices_mask: int | None
    positive_patients_table: int | None
    positive_patients_mask: int | None
    differences: tuple[str, ...]

    def lines(self, layout: str) -> list[str]:
        """A table of the numbers, for CT-ICH beside the published ones, then the differences."""
        rows = [
            ("scans", str(self.scans)),
            ("slices", str(self.slices)),
            ("slices with bleeding", _by_table_and_mask(self.positive_slices_table, self.positive_slices_mask)),
            ("patients with bleeding", _by_table_and_mask(self.positive_patients_table, self.positive_patients_mask)),
        ]
        lines = [f"{label:<23} {value}" for label, value in rows]
        if layout in PUBLISHED:
            lines = _beside_published(lines, layout)
        if self.masks < self.scans:
            lines.append(f"{'scans with a mask':<23} {self.masks}")
        lines += [f"    {text}" for text in self.differences[:NAMED]]
        if len(self.differences) > NAMED:
            lines.append(f"    and {len(self.differences) - NAMED} more slices on which table and mask disagree")
        return lines


def take_inventory(rows: Sequence[SliceRow], cases_with_table: Iterable[str]) -> Inventory:
    """Counts what a manifest lists.

    Args:
        rows: of the manifest.
        cases_with_table: cases whose slice types come from a table of the source.
    """
    table = set(cases_with_table)
    by_table = [row for row in rows if row.case in table and row.types is not None]
    by_mask = [row for row in rows if row.has_mask]
    in_table = [row for row in by_table if any(row.types or ())]
    in_mask = [row for row in by_mask if row.positive_pixels]
    patients_known = all(row.patient is not None for row in rows)
    return Inventory(
        scans=len({row.case for row in rows}),
        slices=len(rows),
        masks=len({row.case for row in by_mask}),
        patients=_patients(rows) if patients_known else None,
        positive_slices_table=len(in_table) if by_table else None,
        positive_slices_mask=len(in_mask) if by_mask else None,
        positive_patients_table=_patients(in_table) if by_table and patients_known else None,
        positive_patients_mask=_patients(in_mask) if by_mask and patients_known else None,
        differences=tuple(filter(None, map(_difference, by_table))),
    )


def _beside_published(lines: list[str], layout: str) -> list[str]:
    width = max(map(len, lines)) + 3
    published = []
    for line, number in zip(lines, PUBLISHED[layout], strict=True):
        published.append(f"{line:<{width}}CT-ICH as published: {number}")
    positive, negative = PAPER[layout]
    published[2] += f", the 2021 paper: {positive} (and {negative} without)"
    return published


def _patients(rows: Iterable[SliceRow]) -> int:
    return len({row.patient for row in rows})


def _difference(row: SliceRow) -> str | None:
    bleeds = any(row.types or ())
    if not row.has_mask:
        return f"{row.case} slice {row.slice_number}: bleeding in the table, no mask" if bleeds else None
    if bleeds == (row.positive_pixels > 0):
        return None
    if bleeds:
        return f"{row.case} slice {row.slice_number}: bleeding in the table, mask empty"
    return f"{row.case} slice {row.slice_number}: no bleeding in the table, {row.positive_pixels} pixels in the mask"


def _by_table_and_mask(table: int | None, mask: int | None) -> str:
    numbers = []
    if table is not None:
        numbers.append(f"{table} by table")
    if mask is not None:
        numbers.append(f"{mask} by mask")
    return ", ".join(numbers) or "unknown"
