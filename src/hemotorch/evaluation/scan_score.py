"""One scan's score: how both predictors did on its slices, also as rows of tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hemotorch.evaluation.comparison import Comparison, ScanComparison
from hemotorch.evaluation.confusion import Confusion, counts_of
from hemotorch.evaluation.counts import VALUES
from hemotorch.labels import TYPES

Cell = str | float | None  #: of a table; None and NaN are empty
COUNT_NAMES = ("tp", "fp", "fn", "tn")
LESION_NAMES = ("lesions", "found", "false")


@dataclass(frozen=True)
class ScanScore:
    """One scan's scored slices: what they are and how both predictors did on them.

    indices: the scored slices, from 0; whole: whether they are all of the scan.
    labelled: per slice, whether the slice labels say bleeding, None if there are none.
    seconds: what predicting took. doubts: codes of what speaks against the prediction, None if that was not looked for.
    """

    case: str
    patient: str | None
    site: str | None
    indices: tuple[int, ...]
    slice_numbers: tuple[int, ...]
    labelled: tuple[bool | None, ...]
    whole: bool
    network: Comparison
    baseline: Comparison | None
    seconds: float
    doubts: tuple[str, ...] | None = None

    @property
    def by_predictor(self) -> dict[str, Comparison]:
        """The comparisons that there are, by what precedes their columns in tables."""
        return {"": self.network} if self.baseline is None else {"": self.network, "baseline_": self.baseline}

    def compared(self, comparison: Comparison) -> ScanComparison:
        """The scan as one predictor's summary sees it. If no patient is known the scan stands for one."""
        return ScanComparison(self.case, self.patient or self.case, self.labelled, comparison)

    def row(self) -> Mapping[str, Cell]:
        """The scan's row of scans.csv."""
        cells: dict[str, Cell] = {
            "case": self.case,
            "patient": self.patient,
            "site": self.site,
            "slices": len(self.indices),
            "bleeding": int(self.network.bleeding),
            "truth_ml": self.network.truth_ml,
        }
        for prefix, comparison in self.by_predictor.items():
            cells[f"{prefix}predicted_ml"] = comparison.predicted_ml
            for value in VALUES:
                cells[f"{prefix}{value}"] = getattr(comparison.volume, value)
            for name in LESION_NAMES:
                cells[f"{prefix}{name}"] = getattr(comparison.lesions, name) if comparison.lesions else None
        if self.network.confusion is not None:
            cells |= _type_cells(self.network, self.network.confusion)
        cells["seconds"] = self.seconds
        if self.doubts is not None:
            cells["doubts"] = " ".join(self.doubts)
        return cells

    def slice_rows(self) -> list[Mapping[str, Cell]]:
        """The rows of its scored slices in slices.csv."""
        rows: list[Mapping[str, Cell]] = []
        for position, index in enumerate(self.indices):
            label = self.labelled[position]
            cells: dict[str, Cell] = {
                "case": self.case,
                "patient": self.patient,
                "index": index,
                "slice_number": self.slice_numbers[position],
                "labelled": None if label is None else int(label),
            }
            for prefix, comparison in self.by_predictor.items():
                counts = comparison.slices[position]
                for name in COUNT_NAMES:
                    cells[f"{prefix}{name}"] = int(getattr(counts, name))
                for value in VALUES:
                    cells[f"{prefix}{value}"] = getattr(counts, value)
            rows.append(cells)
        return rows


def _type_cells(comparison: Comparison, confusion: Confusion) -> dict[str, Cell]:
    """True and predicted mL of each type, NaN if spacing is unknown, and Dice."""
    cells: dict[str, Cell] = {}
    for name in TYPES:
        counts = counts_of(confusion, name)
        cells[f"{name}_truth_ml"] = counts.positives if comparison.has_ml else math.nan
        cells[f"{name}_predicted_ml"] = counts.predicted if comparison.has_ml else math.nan
        cells[f"{name}_dice"] = counts.dice
    return cells
