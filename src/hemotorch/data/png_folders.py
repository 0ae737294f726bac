"""The paper's PNG folders of a prepared dataset: OUT/png/image/CASE_SSS.png and OUT/png/label/CASE_SSS.png."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from hemotorch.data.case_record import CaseRecord, PngOptions
from hemotorch.data.dataset import file_name
from hemotorch.data.layouts.patients import PATIENTS
from hemotorch.data.layouts.tables import write_table
from hemotorch.hu import to_grey
from hemotorch.io import png
from hemotorch.scan import UNEVEN_TOLERANCE

IMAGE, LABEL = "image", "label"
_ROWS = 64  # whose 64-bit indices stay in a core's cache: 0.25 ms per slice instead of 0.4


@dataclass(frozen=True)
class PngFolders:
    """8-bit slices of one window, level and width in HU, in `root`; of slices with bleeding only, if asked for."""

    root: Path
    level: float
    width: float
    only_positive: bool = False

    @property
    def options(self) -> PngOptions:
        """What makes one set of PNGs differ from another."""
        return PngOptions(float(self.level), float(self.width), self.only_positive)

    @cached_property
    def _grey(self) -> np.ndarray:
        """(65536,) uint8: the grey of each HU, by its bits read as unsigned."""
        return to_grey(np.arange(2**16, dtype=np.uint16).view(np.int16), self.level, self.width)

    def _windowed(self, hu: np.ndarray) -> np.ndarray:
        """`to_grey` of a slice, looked up some rows at a time: NumPy first turns indices into 64-bit ones."""
        grey = np.empty(hu.shape, np.uint8)
        for first in range(0, len(hu), _ROWS):
            rows = slice(first, first + _ROWS)
            self._grey.take(hu[rows].view(np.uint16), out=grey[rows], mode="wrap")
        return grey

    def write(self, case: str, numbers: Sequence[int], hu: np.ndarray, mask: np.ndarray) -> list[int]:
        """Writes a case's slices; returns the numbers of those written. hu, mask: (slices, rows, columns)."""
        written = []
        image, label = os.path.join(self.root, IMAGE, ""), os.path.join(self.root, LABEL, "")
        for number, slice_hu, slice_mask in zip(numbers, hu, mask, strict=True):
            bleeds = bool(slice_mask.any())
            if self.only_positive and not bleeds:
                continue
            name = png.slice_file(file_name(case), number)
            white = (slice_mask != 0) * np.uint8(255)
            _write(image + name, png.encode(self._windowed(slice_hu)))
            _write(label + name, png.encode(white) if bleeds else _black(*slice_mask.shape))
            written.append(number)
        return written

    def missing(self, case: str, numbers: Iterable[int]) -> bool:
        """Whether one of these slices' files is not there."""
        names = [png.slice_file(file_name(case), number) for number in numbers]
        return any(not (self.root / folder / name).is_file() for folder in (IMAGE, LABEL) for name in names)

    def keep_only(self, wanted: Iterable[tuple[str, Iterable[int]]]) -> None:
        """Removes slices of other cases, or of other numbers: what an earlier source or option left behind."""
        names: set[str] = set()
        for case, numbers in wanted:
            names.update(png.slice_file(file_name(case), number) for number in numbers)
        for folder in (IMAGE, LABEL):
            for entry in os.scandir(self.root / folder):
                if entry.name not in names and entry.name.endswith(".png") and png.case_and_number(entry.name):
                    os.unlink(entry.path)

    def write_window(self, cases: Sequence[CaseRecord]) -> None:
        """Writes `window.json`: the window, and pixel and slice distance if all these scans share them."""
        pixel_mm, slice_mm = shared_spacing(cases)
        png.write_window(self.root, png.PngWindow(self.level, self.width, pixel_mm, slice_mm))

    def write_patients(self, cases: Iterable[CaseRecord]) -> None:
        """Writes `patients.csv`, so that who is whose is not lost; none if patients are not known."""
        rows = []
        for case in cases:
            if case.patient is not None and not case.patient_assumed:
                rows.append((file_name(case.case), case.patient))
        table = self.root / PATIENTS
        if rows:
            write_table(table, [("case", "patient"), *rows])
        else:
            table.unlink(missing_ok=True)


def shared_spacing(cases: Iterable[CaseRecord]) -> tuple[float | None, float | None]:
    """Pixel edge and slice distance in mm that `window.json` states for all scans; None if they have no common one."""
    spacings = {spacing_of(case) for case in cases}
    return next(iter(spacings)) if len(spacings) == 1 else (None, None)


def spacing_of(case: CaseRecord) -> tuple[float | None, float | None]:
    """A scan's pixel edge and distance from one slice number to the next, in mm; None if PNGs cannot hold them."""
    scan = case.scan
    row_mm = float(np.linalg.norm(scan.row_step_mm))
    column_mm = float(np.linalg.norm(scan.column_step_mm))
    if not scan.spacing_known or abs(row_mm - column_mm) > UNEVEN_TOLERANCE * row_mm:
        return None, None
    pixel_mm = round(row_mm, 6)
    if len(scan.slice_numbers) < 2:
        return pixel_mm, scan.slice_mm
    positions = np.array(case.slices.position_mm, float)
    distances = np.diff(positions) / np.diff(scan.slice_numbers)
    if np.ptp(distances) > UNEVEN_TOLERANCE * abs(distances[0]):
        return pixel_mm, None
    return pixel_mm, round(abs(float(np.median(distances))), 6)


def _write(path: str, data: bytes) -> None:
    """A whole file in three system calls: thousands are written."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        if os.write(file, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(file)


@lru_cache(maxsize=64)
def _black(rows: int, columns: int) -> bytes:
    return png.encode(np.zeros((rows, columns), np.uint8))
