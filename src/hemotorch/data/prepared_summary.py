"""What `prepare` did, in words and for JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hemotorch.data.audit import Audit
from hemotorch.data.case_record import CaseRecord
from hemotorch.data.inventory import Inventory
from hemotorch.data.png_folders import PngFolders
from hemotorch.errors import one_line, some_of


@dataclass(frozen=True)
class PreparedSummary:
    """What `prepare` did.

    done, kept, removed: names of cases written now, unchanged since an earlier run, and gone from the source.
    failed: why a case could not be prepared, by its name. passed_over: what of the source was not read.
    pngs: how many slices are in the PNG folders, None without.
    """

    out: Path
    layout: str
    description: str
    done: tuple[str, ...]
    kept: tuple[str, ...]
    removed: tuple[str, ...]
    failed: dict[str, str]
    passed_over: tuple[str, ...]
    counts: Inventory
    audits: tuple[Audit, ...]
    pngs: int | None
    warnings: tuple[str, ...]
    seconds: float

    def lines(self) -> list[str]:
        """The summary as text."""
        lines = [self.description]
        lines += [f"warning: {text}" for text in self.warnings]
        lines += self.counts.lines(self.layout)
        lines += audit_lines([entry for index, entry in enumerate(self.audits) if index == 0 or not entry.clean])
        if self.pngs is not None:
            lines.append(f"{self.pngs} slices as PNG in {self.out / 'png'}")
        lines += [f"not read: {text}" for text in self.passed_over]
        lines += [f"failed: {text}" for text in self.failed.values()]
        numbers = [f"{len(self.done)} scans prepared"]
        for names, what in ((self.kept, "unchanged"), (self.removed, "removed"), (self.failed, "failed")):
            if names:
                numbers.append(f"{len(names)} {what}")
        lines = [one_line(line) for line in lines]  # names of files may hold anything, line breaks too
        return [*lines, f"{', '.join(numbers)} in {self.seconds:.1f} s: {self.out}"]

    def to_dict(self) -> dict[str, Any]:
        """The summary for JSON."""
        return asdict(self)


def audit_lines(audits: Sequence[Audit]) -> list[str]:
    """What was found in splits, in words; what several of them share, once."""
    audits_by_finding: dict[str, list[Audit]] = defaultdict(list)
    for entry in audits:
        for finding in entry.findings():
            audits_by_finding[finding].append(entry)
    lines = []
    for finding, sharing in audits_by_finding.items():
        names = sharing[0].title
        if len(sharing) > 1:
            names = f"splits {', '.join(repr(entry.split) for entry in sharing)}"
        lines.append(f"{names}: {finding}")
    return lines


def scan_warnings(made: Sequence[CaseRecord]) -> list[str]:
    """What was noticed while reading, each text once, with the scans it is about."""
    cases_by_text: dict[str, list[str]] = defaultdict(list)
    for entry in made:
        for text in entry.scan.warnings:
            cases_by_text[text].append(entry.case)
    return [f"{some_of(cases)}: {text}" for text, cases in cases_by_text.items()]


def png_warnings(made: Sequence[CaseRecord], folders: PngFolders | None) -> list[str]:
    """What is to be known of the PNGs that were written, or not."""
    if not folders:
        return []
    warnings = []
    if without := [entry.case for entry in made if entry.png is None]:
        warnings.append(f"no mask, so no PNGs: {some_of(without)}")
    if downward := [entry.case for entry in made if entry.png and _runs_downward(entry)]:
        warnings.append(f"slice numbers, and with them PNG names, run from head to foot: {some_of(downward)}")
    return warnings


def _runs_downward(made: CaseRecord) -> bool:
    return bool(np.diff(made.scan.slice_numbers).max(initial=-1) < 0)
