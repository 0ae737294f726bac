"""What `prepare` did, in words and for JSON."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hemotorch.data.audit import Audit
from hemotorch.data.case_record import CaseRecord
from hemotorch.data.inventory import Inventory
from hemotorch.data.png_folders import PngFolders, shared_spacing, spacing_of
from hemotorch.errors import one_line, some_of
from hemotorch.io.png import WINDOW_FILE


@dataclass(frozen=True)
class PreparedSummary:
    """What `prepare` did.

    done, kept, removed: names of cases written now, unchanged since an earlier run, and gone from the source.
    failed: why a case could not be prepared, by its name. passed_over: what of the source was not read.
    pngs: how many slices are in the PNG folders, None without. png_mm: their pixel edge and slice distance, None if
    the scans have no common one.
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
    png_mm: tuple[float | None, float | None] = (None, None)

    def lines(self) -> list[str]:
        """The summary as text."""
        lines = [self.description]
        lines += [f"warning: {text}" for text in self.warnings]
        lines += self.counts.lines(self.layout)
        lines += audit_lines([entry for index, entry in enumerate(self.audits) if index == 0 or not entry.clean])
        if self.pngs is not None:
            lines.append(f"{self.pngs} slices as PNG in {self.out / 'png'}, {self._png_spacing()}")
        lines += [f"not read: {text}" for text in self.passed_over]
        lines += [f"failed: {text}" for text in self.failed.values()]
        numbers = [f"{len(self.done)} scans prepared"]
        for names, what in ((self.kept, "unchanged"), (self.removed, "removed"), (self.failed, "failed")):
            if names:
                numbers.append(f"{len(names)} {what}")
        lines = [one_line(line) for line in lines]  # names of files may hold anything, line breaks too
        return [*lines, f"{', '.join(numbers)} in {self.seconds:.1f} s: {self.out}"]

    def _png_spacing(self) -> str:
        pixel_mm, slice_mm = self.png_mm
        pixels = "pixels of unknown size" if pixel_mm is None else f"pixels of {pixel_mm:.4g} mm"
        return f"{pixels}, {'an unknown distance' if slice_mm is None else f'{slice_mm:.4g} mm'} from slice to slice"

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
    return [*warnings, *_spacing_warnings([entry for entry in made if entry.png])]


def _spacing_warnings(made: Sequence[CaseRecord]) -> list[str]:
    """Why the PNGs lose their millimetres: `window.json` states one pixel size and one slice distance for all."""
    if not made or None not in shared_spacing(made):
        return []
    warnings = []
    spacings = {entry.case: spacing_of(entry) for entry in made}
    lost = f"{WINDOW_FILE} states no slice distance, and no mL can be made of these PNGs"
    if odd := [case for case, (pixel_mm, _) in spacings.items() if pixel_mm is None]:
        warnings.append(f"{lost}: pixels of no known size, or not square: {some_of(odd)}")
    if uneven := [case for case, (pixel_mm, slice_mm) in spacings.items() if pixel_mm and slice_mm is None]:
        warnings.append(f"{lost}: slices are uneven: {some_of(uneven)}")
    whole = Counter(spacing for spacing in spacings.values() if None not in spacing)
    if len(whole) > 1:
        texts = [f"{pixel:.4g} x {slice:.4g} mm ({count})" for (pixel, slice), count in whole.most_common()]
        warnings.append(f"{lost}: scans differ in pixel size and slice distance: {some_of(texts, 4)}")
    return warnings


def _runs_downward(made: CaseRecord) -> bool:
    return bool(np.diff(made.scan.slice_numbers).max(initial=-1) < 0)
