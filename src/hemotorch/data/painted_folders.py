"""A folder of normal scans as a training set: the phantom's bleeding painted into each of them, several times."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hemotorch import __version__
from hemotorch.data.layouts import Case, Collection, dicom, open_layout, write_case
from hemotorch.data.layouts.mask_values import LABELS, MEANINGS
from hemotorch.data.layouts.painted import PAINTED, SYNTHETIC, PaintedScan, PaintedSet
from hemotorch.data.layouts.patients import PATIENTS
from hemotorch.data.layouts.tables import write_table
from hemotorch.errors import HemotorchError, InputError, explain, some_of
from hemotorch.head import check_head, cranial_space
from hemotorch.head.tissue import bright_ml
from hemotorch.labels import CODES
from hemotorch.phantom import paint
from hemotorch.phantom.fields import generator
from hemotorch.phantom.presets import LEADING
from hemotorch.scan import CaseInfo, Scan
from hemotorch.system import records
from hemotorch.system.events import ProgressTask
from hemotorch.system.files import output_folder, write_json
from hemotorch.system.machine import cores

LAYOUT = "folder"  #: of what is written; of studies in DICOM, DICOM, since NIfTI cannot hold uneven slices
BRIGHT_ML = 4.0  #: a piece of the brain as bright as blood that is this large may be blood, see `bright_ml`
LEAST_ML, TRIES = 0.2, 12  #: less painted bleeding is not worth a scan; other bleeding is tried so often,
TRIES_OF_A_TYPE = 3  #: then led by another type: a part of a head may have no room for this one


@dataclass(frozen=True)
class PaintedSummary:
    """What `paint_folder` did.

    scans: everything that was written. passed_over: why a scan was not painted, by its name. unread: what else of the
    source was not read.
    """

    out: Path
    description: str
    scans: tuple[PaintedScan, ...]
    passed_over: dict[str, str]
    unread: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The summary as text."""
        painted = [scan for scan in self.scans if scan.seed is not None]
        normal = len(self.scans) - len(painted)
        lines = [self.description, *(f"warning: {text}" for text in self.warnings)]
        lines += [f"not read: {text}" for text in self.unread]
        lines += [f"passed over: {text}" for text in self.passed_over.values()]
        passed = f", {len(self.passed_over)} passed over" if self.passed_over else ""
        return [*lines, f"{len(painted)} paintings of {normal} scans{passed}: {self.out}"]


@dataclass(frozen=True)
class _Job:
    """How each scan is painted; see `paint_folder`."""

    out: Path
    layout: str
    per_scan: int
    seed: int
    normal: bool
    any_anatomy: bool


@dataclass(frozen=True)
class _Outcome:
    """What became of a case: what was written, or why it was passed over."""

    scans: tuple[PaintedScan, ...] = ()
    site: str | None = None
    error: HemotorchError | None = None
    warnings: tuple[str, ...] = field(default=())


def paint_folder(
    src: Path | str,
    out: Path | str,
    *,
    per_scan: int = 4,
    seed: int = 0,
    layout: str = "auto",
    normal: bool = False,
    any_anatomy: bool = False,
    workers: int | None = None,
) -> PaintedSummary:
    """Paints bleeding of the five types into scans without bleeding, and writes them as a dataset to `prepare`.

    Noise, kernel and shading stay the scan's own. Each scan itself is written too, with an empty mask.

    Args:
        src: folder of scans in any layout that `prepare` reads; masks and labels are not needed.
        out: a new folder: images/, masks/, inside/, labels.json, painted.json, and patients.csv if patients are known.
        per_scan: paintings of each scan.
        seed: another one gives other bleeding.
        layout: one of `layouts.LAYOUTS`, or auto.
        normal: all scans are known to hold no bleeding; those that look as if they did are painted too.
        any_anatomy: also try what does not look like a head.
        workers: threads, by default one per core.

    Returns:
        What was done. A scan that is no head, or holds bleeding already, is named in `.passed_over`.

    Raises:
        InputError: for a source or output folder that cannot be used.
        OptionError: for an unknown layout.
    """
    collection = open_layout(Path(src).absolute(), layout)
    out_layout = dicom.NAME if collection.layout == dicom.NAME else LAYOUT
    job = _Job(output_folder(Path(out).absolute()), out_layout, per_scan, seed, normal, any_anatomy)
    outcomes = _each(collection.cases, lambda case: _paint_case(case, job), workers or cores())
    scans = tuple(scan for outcome in outcomes for scan in outcome.scans)
    if scans:
        _write_tables(job, scans, outcomes)
    passed_over = {}
    for case, outcome in zip(collection.cases, outcomes, strict=True):
        if outcome.error is not None:
            passed_over[case.name] = str(outcome.error)
    warnings = _warnings(collection, outcomes)
    return PaintedSummary(job.out, collection.description, scans, passed_over, collection.passed_over, warnings)


def _warnings(collection: Collection, outcomes: list[_Outcome]) -> tuple[str, ...]:
    """What was noticed of the folder, and of its scans: each sentence once."""
    scans: dict[str, list[str]] = {}
    for case, outcome in zip(collection.cases, outcomes, strict=True):
        for text in outcome.warnings:
            scans.setdefault(text, []).append(case.name)
    of_scans = (f"{some_of(names)}: {text}" for text, names in scans.items())
    return (*collection.warnings, *of_scans)


def _each(cases: tuple[Case, ...], work: Callable[[Case], _Outcome], workers: int) -> list[_Outcome]:
    """What became of each case, in their order."""
    outcomes: dict[int, _Outcome] = {}
    with ThreadPoolExecutor(workers) as pool, ProgressTask("painting", len(cases), "scan") as task:
        futures: dict[Future[_Outcome], int] = {pool.submit(work, case): index for index, case in enumerate(cases)}
        try:
            for future in as_completed(futures):
                outcomes[futures[future]] = future.result()
                task.advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [outcomes[index] for index in range(len(cases))]


def _paint_case(case: Case, job: _Job) -> _Outcome:
    """Writes a scan and its paintings, or says why not."""
    try:
        scan, mask = case.read()
        warnings = _check(case, scan, mask, job)
        # Without its source it is written upright, or as a series of its own, and so is its mask.
        scan = replace(scan, source=None)
        inside = cranial_space(scan)
        scans = []
        for number in range(job.per_scan):
            scans.append(_write_painting(case, job, scan, inside, number))
        _write(job, case.name, scan, np.zeros(scan.shape, np.uint8), inside)
        scans.insert(0, _entry(case, case.name, None, None, {}))
        return _Outcome(tuple(scans), case.site, None, warnings)
    except Exception as error:
        return _Outcome(error=explain(error, case.name))


def _check(case: Case, scan: Scan, mask: np.ndarray | None, job: _Job) -> tuple[str, ...]:
    """Warnings about a scan that can be painted. Raises InputError for one that is no head or holds bleeding."""
    where = str(scan.source or case.name)
    if SYNTHETIC in case.warnings:
        raise InputError("holds painted bleeding already", where, "give the scans that were painted on")
    is_labelled = case.slice_types is not None and any(case.slice_types.values())
    if is_labelled or (mask is not None and mask.any()):
        raise InputError("holds bleeding already: its mask or its labels say so", where)
    doubts = check_head(scan, job.any_anatomy)
    ml = bright_ml(scan) if scan.spacing_known else 0.0
    if ml > BRIGHT_ML:
        text = f"{ml:.1f} mL in one piece are as bright as fresh blood"
        if mask is None and not job.normal:
            raise InputError(f"may hold bleeding already: {text}", where, "if you know that it does not, add --normal")
        doubts = (*doubts, text)
    return doubts


def _write_painting(case: Case, job: _Job, scan: Scan, inside: np.ndarray, number: int) -> PaintedScan:
    """One painting of a scan. Raises InputError if no bleeding finds room in it."""
    name = f"{case.name}-paint{number + 1}"
    # A function of seed, name and number: scans that are added change no other.
    key = zlib.crc32(case.name.encode("utf-8", "surrogateescape"))
    for attempt in range(TRIES):
        leading = LEADING[(key + number + attempt // TRIES_OF_A_TYPE) % len(LEADING)]
        seed = int(generator(job.seed, key, number, attempt).integers(2**31))
        painted, mask = paint(scan, seed=seed, leading=leading)
        if scan.volume_ml(mask) >= LEAST_ML:
            break
    else:
        raise InputError("no bleeding finds room in it", case.name)
    volumes = {kind: round(scan.volume_ml(mask == code), 3) for kind, code in CODES.items() if (mask == code).any()}
    _write(job, name, painted, mask, inside)
    return _entry(case, name, seed, leading, volumes)


def _entry(case: Case, name: str, seed: int | None, leading: str | None, volume_ml: dict[str, float]) -> PaintedScan:
    patient = case.patient or case.name
    assumed = case.patient_assumed or case.patient is None
    return PaintedScan(name, case.name, patient, assumed, seed, leading, volume_ml)


def _write(job: _Job, name: str, scan: Scan, mask: np.ndarray, inside: np.ndarray) -> None:
    known = inside | (mask > 0) if inside.any() else None
    write_case(job.layout, job.out, name, scan, mask, CaseInfo(name, name), known)


def _write_tables(job: _Job, scans: tuple[PaintedScan, ...], outcomes: list[_Outcome]) -> None:
    """labels.json, patients.csv of the scans whose patients are known, and, last, painted.json."""
    write_json(job.out / LABELS, {str(code): name for name, code in MEANINGS.items()})
    rows: list[tuple[str, ...]] = list(_patients(outcomes))
    if rows:
        write_table(job.out / PATIENTS, [("case", "patient", "site"), *rows])
    records.write(job.out / PAINTED, PaintedSet(__version__, job.seed, job.per_scan, scans))


def _patients(outcomes: list[_Outcome]) -> Iterator[tuple[str, str, str]]:
    """Case, patient and site of each scan whose patient somebody named."""
    for outcome in outcomes:
        for scan in outcome.scans:
            if not scan.patient_assumed:
                yield scan.case, scan.patient, outcome.site or ""
