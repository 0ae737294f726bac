"""How many scans, slices and patients a prepared dataset holds, beside what was published of CT-ICH."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hemotorch.data.manifest import SliceRow

#: Scans, slices, slices with bleeding, patients with bleeding. Hssayeni et al. 2020, Data 5(1):14, and PhysioNet CT-ICH
#: v1.3.1. Sokolovskyy et al. 2021 count 318 slices with bleeding and 2491 without, 5 fewer in all.
PUBLISHED = {"ct-ich": (75, 2814, 318, 36)}
PAPER = {"ct-ich": (318, 2491)}
_NAMED = 10


@dataclass(frozen=True)
class Counts:
    """What there is, by the table of slice labels and by the masks; None where there is no table, or no mask.

    patients: None where unknown. differences: slices on which table and mask disagree, each in words.
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
        """A table of the counts, for CT-ICH beside the published ones, then the differences."""
        rows = [
            ("scans", self.scans),
            ("slices", self.slices),
            ("slices with bleeding", _either(self.positive_slices_table, self.positive_slices_mask)),
            ("patients with bleeding", _either(self.positive_patients_table, self.positive_patients_mask)),
        ]
        lines = [f"{label:<23} {value}" for label, value in rows]
        if layout in PUBLISHED:
            width = max(map(len, lines)) + 3
            lines = [
                f"{line:<{width}}CT-ICH as published: {known}"
                for line, known in zip(lines, PUBLISHED[layout], strict=True)
            ]
            positive, negative = PAPER[layout]
            lines[2] += f", the 2021 paper: {positive} (and {negative} without)"
        if self.masks < self.scans:
            lines.append(f"{'scans with a mask':<23} {self.masks}")
        lines += [f"    {text}" for text in self.differences[:_NAMED]]
        if len(self.differences) > _NAMED:
            lines.append(f"    and {len(self.differences) - _NAMED} more slices on which table and mask disagree")
        return lines


def count(rows: Sequence[SliceRow], cases_with_table: Iterable[str]) -> Counts:
    """Counts a manifest. cases_with_table: those whose slice types come from a table of the source."""
    table = set(cases_with_table)
    by_table = [row for row in rows if row.case in table and row.types is not None]
    by_mask = [row for row in rows if row.has_mask]
    in_table = [row for row in by_table if any(row.types or ())]
    in_mask = [row for row in by_mask if row.positive_pixels]
    known = all(row.patient is not None for row in rows)
    return Counts(
        scans=len({row.case for row in rows}),
        slices=len(rows),
        masks=len({row.case for row in by_mask}),
        patients=len({row.patient for row in rows}) if known else None,
        positive_slices_table=len(in_table) if by_table else None,
        positive_slices_mask=len(in_mask) if by_mask else None,
        positive_patients_table=_patients(in_table) if by_table and known else None,
        positive_patients_mask=_patients(in_mask) if by_mask and known else None,
        differences=tuple(filter(None, map(_difference, by_table))),
    )


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


def _either(table: int | None, mask: int | None) -> str:
    if table is None and mask is None:
        return "unknown"
    if table is None or mask is None:
        return f"{mask if table is None else table} by {'mask' if table is None else 'table'}"
    return f"{table} by table, {mask} by mask"
