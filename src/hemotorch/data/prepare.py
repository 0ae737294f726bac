"""Cases of any layout -> prepared dataset, and the paper's PNG folders. Again into the same folder: only what changed.

A case is done when its Zarr group is in place: voxels and PNGs are written first, its record next, and the group is
moved in last. Whatever kills a run leaves a case whole or not there.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from hemotorch import __version__
from hemotorch.data.audit import audit
from hemotorch.data.case_record import (
    FORMAT,
    CaseRecord,
    HeadCheck,
    PngFiles,
    known,
    read_record,
    rows_of,
    slice_hash,
    write_record,
)
from hemotorch.data.case_source import make_record, same_content, source_of, untouched
from hemotorch.data.dataset import KIND, CaseEntry, Dataset, DatasetInfo, group_folder, read_info, write_group
from hemotorch.data.inventory import Inventory, take_inventory
from hemotorch.data.layouts import Case, Collection, open_sources
from hemotorch.data.make_splits import make_splits
from hemotorch.data.manifest import SliceRow, volume_ml, write_manifest
from hemotorch.data.png_folders import IMAGE, LABEL, PngFolders, shared_spacing
from hemotorch.data.prepared_summary import PreparedSummary, png_warnings, scan_warnings
from hemotorch.data.shards import group_metadata, open_shard
from hemotorch.data.splits import write_splits
from hemotorch.errors import HemotorchError, InputError, explain, one_line
from hemotorch.head import check_head
from hemotorch.head.tissue import odd_level
from hemotorch.hu import window as named_window
from hemotorch.hu import window_bounds
from hemotorch.io.png import WINDOW_FILE
from hemotorch.system import records
from hemotorch.system.events import ProgressTask
from hemotorch.system.files import exclusive, explained, output_folder, write_json, write_text
from hemotorch.system.machine import cores

MOVED_TRIES = 3  #: scans compared to tell a source that was moved from another one
PARTIAL = ".partial"  #: folder in OUT for scans that are being written


@dataclass(frozen=True)
class _Job:
    """What is prepared, into where, after what.

    source: the folders that it is prepared from. previous: dataset.json of an earlier run, None if there was none.
    folders: of PNGs, None if none are written. any_anatomy: take scans too that do not look like a head.
    """

    out: Path
    collection: Collection
    source: str
    previous: DatasetInfo | None
    folders: PngFolders | None
    any_anatomy: bool


@dataclass(frozen=True)
class _Outcome:
    """What became of a case: its record, or why there is none."""

    record: CaseRecord | None
    written: bool = False
    error: str | None = None


def prepare(
    src: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    layout: str = "auto",
    png: bool = False,
    window: str | tuple[float, float] = "brain",
    only_positive: bool = False,
    workers: int | None = None,
    seed: int = 0,
    any_anatomy: bool = False,
    series: Sequence[str] = (),
) -> PreparedSummary:
    """Prepares a folder of scans into `out`; into an earlier result, does only what changed since.

    Args:
        src: folder of scans, in any layout; or several, which become one dataset.
        out: of the prepared dataset.
        layout: one of `layouts.LAYOUTS`, or auto.
        png: also write OUT/png/image and OUT/png/label; once there, later runs keep them in step without `png` too.
        window: of the PNGs, its name or (level, width) in HU.
        only_positive: PNGs of slices with bleeding only.
        workers: threads, by default one per core.
        seed: of the splits.
        any_anatomy: also take scans that do not look like a head in HU, with a warning, instead of leaving them out.
        series: of DICOM, SeriesInstanceUIDs to read instead of the best series of their studies.

    Returns:
        What was done. A case that cannot be read is named in `.failed`, and the others are done.

    Raises:
        InputError: for a source or output folder that cannot be used.
        OptionError: for an unknown layout or window.
        RunError: if the disk is full or read-only.
    """
    started = time.perf_counter()
    level, width = _level_and_width(window)
    roots = [src] if isinstance(src, (str, Path)) else list(src)
    collection = open_sources(roots, layout, series)
    source = str(collection.root) if len(roots) == 1 else ", ".join(str(Path(root).absolute()) for root in roots)
    out = Path(out).absolute()
    with explained(out):
        previous = _previous(out, collection, source)
        with _alone(out):
            folders = PngFolders(out / "png", level, width, only_positive) if png else _earlier_pngs(out, previous)
            job = _Job(out, collection, source, previous, folders, any_anatomy)
            _begin(job)
            outcomes = _each(collection.cases, lambda case: _prepare_case(case, job), workers)
            made = [outcome.record for outcome in outcomes if outcome.record is not None]
            _remove_others(job, made)
            missing = _write_tables(job, made, _failed(job, outcomes), seed)
            return _summary(job, outcomes, made, missing, time.perf_counter() - started)


def _level_and_width(window: str | tuple[float, float]) -> tuple[float, float]:
    if isinstance(window, str):
        return named_window(window).level, named_window(window).width
    window_bounds(*window)
    return window


def _previous(out: Path, collection: Collection, source: str) -> DatasetInfo | None:
    """dataset.json of an earlier run into `out`, None for a new folder.

    Raises:
        InputError: if the folder holds something else, another source's scans, or a newer version's.
    """
    if not (out / "dataset.json").is_file():
        # A run that was killed before it wrote anything leaves its lock, and no more than hidden files.
        only_hidden = out.is_dir() and all(entry.name.startswith(".") for entry in os.scandir(out))
        output_folder(out, may_exist=only_hidden)
        return None
    info = read_info(out, any_older=True)
    if info.source != source and not _moved(out, info, collection):
        raise InputError(f"was prepared from {info.source}, with other scans", out, "choose another output folder")
    return info


def _moved(out: Path, info: DatasetInfo, collection: Collection) -> bool:
    """Whether a source at another path is the same one: one of the first scans of a name that both have is equal."""
    planned = set(info.planned)
    common = [case for case in collection.cases if case.name in planned]
    compared = 0
    for case in common:
        stored = _stored(group_folder(out, case.name))
        if stored is None or compared == MOVED_TRIES:
            continue
        compared += 1
        with suppress(HemotorchError, OSError):
            scan, _ = case.read()
            if tuple(map(slice_hash, scan.hu)) == stored.slices.hash:
                return True
    return bool(common) and not compared  # nothing was finished there: nothing can be lost


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Holds a lock that the system releases however the process ends. Raises InputError if another has it."""
    busy = InputError("another `hemotorch prepare` is writing here", out, "wait for it to end")
    with exclusive(out / ".lock", busy):
        yield


def _earlier_pngs(out: Path, previous: DatasetInfo | None) -> PngFolders | None:
    """The PNG folders of an earlier run, which are kept in step; None if there are none, or they were removed."""
    if previous is None or previous.png is None or not (out / "png" / WINDOW_FILE).is_file():
        return None
    options = previous.png
    return PngFolders(out / "png", options.level, options.width, options.only_positive)


def _begin(job: _Job) -> None:
    # What a killed run left behind.
    shutil.rmtree(job.out / PARTIAL, ignore_errors=True)
    cases = job.previous.cases if job.previous else {}
    records.write(job.out / "dataset.json", replace(_info(job), cases=cases))
    write_text(job.out / "scans.zarr" / "zarr.json", group_metadata({"hemotorch_format": FORMAT}))
    if job.folders:
        for folder in (IMAGE, LABEL):
            (job.folders.root / folder).mkdir(parents=True, exist_ok=True)


def _info(job: _Job) -> DatasetInfo:
    """dataset.json of a dataset that is not complete yet and has no cases."""
    collection = job.collection
    return DatasetInfo(
        kind=KIND,
        format=FORMAT,
        hemotorch=__version__,
        complete=False,
        layout=collection.layout,
        source=job.source,
        planned=tuple(case.name for case in collection.cases),
        cases={},
        description=collection.description,
        png=job.folders.options if job.folders else None,
    )


def _each(cases: Sequence[Case], work: Callable[[Case], _Outcome], workers: int | None) -> list[_Outcome]:
    """The outcome of each case, in their order.

    Threads: reading, hashing and packing leave the interpreter free.
    """
    with ThreadPoolExecutor(workers or cores()) as pool, ProgressTask("preparing", len(cases), "scan") as task:
        futures: list[Future[_Outcome]] = [pool.submit(work, case) for case in cases]
        try:
            for future in as_completed(futures):
                future.result()
                task.advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _prepare_case(case: Case, job: _Job) -> _Outcome:
    group = group_folder(job.out, case.name)
    stored = _stored(group)
    try:
        if stored is not None and untouched(stored, case) and _same_anatomy(stored, job):
            return _Outcome(_refresh_pngs(stored, group, job.folders))
    except InputError:
        stored = None  # its voxels are damaged: from the source once more
    try:
        source = source_of(case)
        scan, mask = case.read()
        inside = case.read_inside(scan, mask)
        doubts = check_head(scan, job.any_anatomy)
        if mask is not None:
            case.check_mask(scan, mask)
        if level_doubt := odd_level(scan):
            doubts = (*doubts, level_doubt)
        scan = replace(scan, warnings=scan.warnings + doubts)
    except Exception as error:
        # Whatever is wrong with one scan, the others are prepared.
        _discard(group)
        return _Outcome(None, error=one_line(f"{case.name}: {explain(error, case.scan_paths[0])}"))
    made = make_record(case, scan, mask, source, inside)
    made = replace(made, head=HeadCheck(job.any_anatomy, doubts))
    if stored is not None and same_content(stored, made):
        # Files were copied or touched: only what tells that is written again.
        stored = replace(stored, source=made.source, head=made.head)
        write_record(group, stored)
        return _Outcome(_refresh_pngs(stored, group, job.folders))
    _discard(group)
    partial = job.out / PARTIAL / group.name
    try:
        made = replace(made, bytes=write_group(partial, scan, mask, inside))
        made = replace(made, png=_pngs(made, scan.hu, mask, job.folders))
        write_record(partial, made)
        os.rename(partial, group)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _Outcome(made, written=True)


def _same_anatomy(stored: CaseRecord, job: _Job) -> bool:
    """Whether a stored scan was asked about being a head, and what was answered still holds."""
    if stored.head is None:
        return False
    return stored.head.any_anatomy == job.any_anatomy or not stored.head.doubts


def _stored(group: Path) -> CaseRecord | None:
    """The record of a group that is whole, else None. Sizes are checked, since nothing is synced to the disk."""
    try:
        stored = read_record(group)
        for name, size in (stored.bytes or {}).items():
            if (group / name / "c/0/0/0").stat().st_size != size:
                return None
    except (InputError, OSError):
        return None
    return stored if stored.bytes else None


def _discard(group: Path) -> None:
    """Removes a group, its record first, so that a half-removed one does not count."""
    (group / "zarr.json").unlink(missing_ok=True)
    shutil.rmtree(group, ignore_errors=True)


def _refresh_pngs(stored: CaseRecord, group: Path, folders: PngFolders | None) -> CaseRecord:
    """Writes the PNGs of an unchanged case if some are missing or of other options."""
    if folders is None or not stored.has_mask:
        return stored
    pngs = stored.png
    if pngs and pngs.options == folders.options and not folders.missing(stored.case, pngs.numbers):
        return stored
    hu, mask = open_shard(group / "hu").read(), open_shard(group / "mask").read()
    write_record(group, replace(stored, png=None))  # if this process is killed, they are written again
    stored = replace(stored, png=_pngs(stored, hu, mask, folders))
    write_record(group, stored)
    return stored


def _pngs(made: CaseRecord, hu: np.ndarray, mask: np.ndarray | None, folders: PngFolders | None) -> PngFiles | None:
    if folders is None or mask is None:
        return None
    numbers = folders.write(made.case, made.scan.slice_numbers, hu, mask)
    return PngFiles(folders.options, tuple(numbers))


def _remove_others(job: _Job, made: Sequence[CaseRecord]) -> None:
    """Removes groups and PNGs of cases that are no longer in the source, or failed."""
    wanted = {group_folder(job.out, entry.case).name for entry in made}
    for folder in list(os.scandir(job.out / "scans.zarr")):
        if folder.is_dir() and folder.name not in wanted:
            _discard(Path(folder.path))
    shutil.rmtree(job.out / PARTIAL, ignore_errors=True)
    if job.folders:
        numbers_by_case = {entry.case: entry.png.numbers for entry in made if entry.png}
        job.folders.keep_only(numbers_by_case.items())
        with_pngs = [entry for entry in made if entry.png]
        job.folders.write_window(with_pngs)
        job.folders.write_patients(with_pngs)


def _write_tables(job: _Job, made: Sequence[CaseRecord], failed: dict[str, str], seed: int) -> tuple[str, ...]:
    """Writes manifest, splits and, last, dataset.json. Returns why splits are missing."""
    rows = _rows(made)
    splits, missing = make_splits(rows, seed)
    write_manifest(job.out / "manifest.csv", rows)
    write_splits(job.out / "splits.json", splits, missing, seed)
    info = replace(
        _info(job),
        complete=True,
        cases={entry.case: _entry(entry) for entry in made},
        counts=asdict(_inventory(made)),
        failed=failed,
    )
    records.write(job.out / "dataset.json", info)
    return missing


def _summary(
    job: _Job, outcomes: Sequence[_Outcome], made: Sequence[CaseRecord], missing: Sequence[str], seconds: float
) -> PreparedSummary:
    """What was done; the dataset is opened for the audit."""
    warnings = [*job.collection.warnings, *scan_warnings(made), *png_warnings(made, job.folders), *missing]
    audits = []
    if made:
        dataset = Dataset(job.out)
        for split in dataset.splits.values():
            audits.append(audit(dataset, split))
            warnings += split.warnings
    write_json(job.out / "audit.json", {entry.split: asdict(entry) for entry in audits})
    done, kept = [], []
    for case, outcome in zip(job.collection.cases, outcomes, strict=True):
        if outcome.written:
            done.append(case.name)
        elif outcome.record:
            kept.append(case.name)
    earlier = job.previous.cases.keys() if job.previous else set()
    return PreparedSummary(
        out=job.out,
        layout=job.collection.layout,
        description=job.collection.description,
        done=tuple(done),
        kept=tuple(kept),
        removed=tuple(sorted(earlier - {case.name for case in job.collection.cases})),
        failed=_failed(job, outcomes),
        passed_over=job.collection.passed_over,
        counts=_inventory(made),
        audits=tuple(audits),
        pngs=sum(len(entry.png.numbers) for entry in made if entry.png) if job.folders else None,
        warnings=tuple(warnings),
        seconds=seconds,
        png_mm=shared_spacing([entry for entry in made if entry.png]),
    )


def _failed(job: _Job, outcomes: Sequence[_Outcome]) -> dict[str, str]:
    failed = {}
    for case, outcome in zip(job.collection.cases, outcomes, strict=True):
        if outcome.error is not None:
            failed[case.name] = outcome.error
    return failed


def _rows(made: Sequence[CaseRecord]) -> list[SliceRow]:
    rows = []
    for entry in made:
        rows += rows_of(entry)
    return rows


def _inventory(made: Sequence[CaseRecord]) -> Inventory:
    return take_inventory(_rows(made), [entry.case for entry in made if entry.types_from == "table"])


def _entry(made: CaseRecord) -> CaseEntry:
    """A case's entry in dataset.json."""
    volume = known([volume_ml(rows_of(made))])[0] if made.has_mask else None
    return CaseEntry(
        patient=made.patient,
        patient_assumed=made.patient_assumed,
        site=made.site,
        age=made.age,
        sex=made.sex,
        shape=made.shape,
        types_from=made.types_from,
        has_mask=made.has_mask,
        has_inside=made.inside_hash is not None,
        volume_ml=volume,
        warnings=made.scan.warnings,
    )
