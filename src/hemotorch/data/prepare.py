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
from typing import Any

import numpy as np

from hemotorch import __version__
from hemotorch.data.audit import Audit, audit
from hemotorch.data.case_record import Record, make_record, rows_of, same_content, slice_hash, source_of, untouched
from hemotorch.data.dataset import (
    FORMAT,
    KIND,
    Dataset,
    group_folder,
    read_info,
    read_record,
    write_group,
    write_record,
)
from hemotorch.data.layouts import Case, Collection, open_layout
from hemotorch.data.layouts.case import some
from hemotorch.data.make_splits import make_splits
from hemotorch.data.manifest import volume_ml, write_manifest
from hemotorch.data.png_folders import IMAGE, LABEL, PngFolders
from hemotorch.data.shards import group_metadata, open_shard
from hemotorch.data.splits import write_splits
from hemotorch.data.summary import Counts, count
from hemotorch.errors import HemotorchError, InputError, explain, one_line
from hemotorch.head import check_head
from hemotorch.hu import window as named_window
from hemotorch.hu import window_bounds
from hemotorch.io.png import WINDOW_FILE
from hemotorch.system.files import exclusive, explained, output_folder, write_json, write_text
from hemotorch.system.machine import cores
from hemotorch.system.progress import bar

MOVED_TRIES = 3  #: scans compared to tell a source that was moved from another one
PARTIAL = ".partial"  #: folder in OUT for scans that are being written


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
    counts: Counts
    audits: tuple[Audit, ...]
    pngs: int | None
    warnings: tuple[str, ...]
    seconds: float

    def lines(self) -> list[str]:
        """The summary as text."""
        lines = [self.description]
        lines += [f"warning: {text}" for text in self.warnings]
        lines += self.counts.lines(self.layout)
        lines += [line for one in self.audits if not one.clean or one is self.audits[0] for line in one.lines()]
        if self.pngs is not None:
            lines.append(f"{self.pngs} slices as PNG in {self.out / 'png'}")
        lines += [f"not read: {text}" for text in self.passed_over]
        lines += [f"failed: {text}" for text in self.failed.values()]
        parts = [f"{len(self.done)} scans prepared", f"{len(self.kept)} unchanged" if self.kept else ""]
        parts += [
            f"{len(names)} {what}" for what, names in (("removed", self.removed), ("failed", self.failed)) if names
        ]
        return [*lines, f"{', '.join(filter(None, parts))} in {self.seconds:.1f} s: {self.out}"]

    def to_dict(self) -> dict[str, Any]:
        """The summary for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Job:
    """What is prepared, into where, after what. previous: dataset.json of an earlier run, or {}.

    any_anatomy: take scans too that do not look like a head.
    """

    out: Path
    collection: Collection
    previous: Record
    folders: PngFolders | None
    any_anatomy: bool


@dataclass(frozen=True)
class _Outcome:
    """What became of a case: its record, or why there is none."""

    record: Record | None
    written: bool = False
    error: str | None = None


def prepare(
    src: Path | str,
    out: Path | str,
    *,
    layout: str = "auto",
    png: bool = False,
    window: str | tuple[float, float] = "brain",
    only_positive: bool = False,
    workers: int | None = None,
    seed: int = 0,
    any_anatomy: bool = False,
) -> PreparedSummary:
    """Prepares a folder of scans into `out`; into an earlier result, does only what changed since.

    layout: one of `layouts.LAYOUTS`, or auto. png: also write OUT/png/image and OUT/png/label; once there, later runs
    keep them in step without `png` too. window: its name, or (level, width) in HU. only_positive: PNGs of slices with
    bleeding only. workers: threads, by default one a core. seed: of the splits.
    any_anatomy: also take scans that do not look like a head in HU, with a warning, instead of leaving them out.
    A case that cannot be read is named in `.failed` and the others are done. Raises InputError for a source or output
    folder that cannot be used, OptionError for an unknown layout or window, RunError where the disk is full or
    read-only.
    """
    started = time.perf_counter()
    level, width = _level_and_width(window)
    collection = open_layout(Path(src).absolute(), layout)
    out = Path(out).absolute()
    with explained(out):
        previous = _previous(out, collection)
        with _alone(out):
            folders = PngFolders(out / "png", level, width, only_positive) if png else _earlier_pngs(out, previous)
            job = _Job(out, collection, previous, folders, any_anatomy)
            _begin(job)
            outcomes = _each(collection.cases, lambda case: _prepare_case(case, job), workers)
            records = [one.record for one in outcomes if one.record is not None]
            _remove_others(job, records)
            missing = _write_tables(job, records, _failed(job, outcomes), seed)
            return _summary(job, outcomes, records, missing, time.perf_counter() - started)


def _level_and_width(window: str | tuple[float, float]) -> tuple[float, float]:
    if isinstance(window, str):
        return named_window(window).level, named_window(window).width
    window_bounds(*window)
    return window


def _previous(out: Path, collection: Collection) -> Record:
    """dataset.json of an earlier run into `out`, {} for a new folder.

    Raises InputError where the folder holds something else, another source's scans, or a newer version's.
    """
    if not (out / "dataset.json").is_file():
        # A run that was killed before it wrote anything leaves its lock, and no more than hidden files.
        only_hidden = out.is_dir() and all(entry.name.startswith(".") for entry in os.scandir(out))
        output_folder(out, may_exist=only_hidden)
        return {}
    info = read_info(out, any_older=True)
    if info["source"] != str(collection.root) and not _moved(out, info, collection):
        raise InputError(f"was prepared from {info['source']}, with other scans", out, "choose another output folder")
    return info


def _moved(out: Path, info: Record, collection: Collection) -> bool:
    """Whether a source at another place is the same one: one of the first scans of a name that both have is equal."""
    common = [case for case in collection.cases if case.name in info["planned"]]
    compared = 0
    for case in common:
        stored = _stored(group_folder(out, case.name))
        if stored is None or compared == MOVED_TRIES:
            continue
        compared += 1
        with suppress(HemotorchError, OSError):
            if [slice_hash(one) for one in case.read()[0].hu] == stored["slices"]["hash"]:
                return True
    return bool(common) and not compared  # nothing was finished there: nothing can be lost


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Holds a lock that the system releases however the process ends. Raises InputError where another has it."""
    with exclusive(out / ".lock", InputError("another `hemotorch prepare` is writing here", out, "wait for it to end")):
        yield


def _earlier_pngs(out: Path, previous: Record) -> PngFolders | None:
    """The PNG folders of an earlier run, which are kept in step; None where there are none, or they were removed."""
    there = previous.get("png") and (out / "png" / WINDOW_FILE).is_file()
    return PngFolders(out / "png", **previous["png"]) if there else None


def _begin(job: _Job) -> None:
    shutil.rmtree(job.out / PARTIAL, ignore_errors=True)
    write_json(job.out / "dataset.json", _info(job, complete=False, cases=job.previous.get("cases", {})))
    write_text(job.out / "scans.zarr" / "zarr.json", group_metadata({"hemotorch_format": FORMAT}))
    if job.folders:
        for folder in (IMAGE, LABEL):
            (job.folders.root / folder).mkdir(parents=True, exist_ok=True)


def _info(job: _Job, **more: Any) -> Record:
    source = job.collection
    return {
        "kind": KIND,
        "format": FORMAT,
        "hemotorch": __version__,
        "source": str(source.root),
        "layout": source.layout,
        "description": source.description,
        "planned": [case.name for case in source.cases],
        "png": job.folders.options if job.folders else None,
        **more,
    }


def _each(cases: Sequence[Case], work: Callable[[Case], _Outcome], workers: int | None) -> list[_Outcome]:
    """The outcome of each case, in their order. Threads: reading, hashing and packing leave the interpreter free."""
    with ThreadPoolExecutor(workers or cores()) as pool, bar(len(cases), "preparing", unit="scan") as shown:
        futures: list[Future[_Outcome]] = [pool.submit(work, case) for case in cases]
        try:
            for future in as_completed(futures):
                future.result()
                shown.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _prepare_case(case: Case, job: _Job) -> _Outcome:
    out, folders = job.out, job.folders
    group = group_folder(out, case.name)
    stored = _stored(group)
    try:
        if stored is not None and untouched(stored, case) and _same_anatomy(stored, job):
            return _Outcome(_refresh_pngs(stored, group, folders))
    except InputError:
        stored = None  # its voxels are damaged: from the source once more
    try:
        source = source_of(case)
        scan, mask = case.read()
        inside = case.read_inside(scan)
        doubts = check_head(scan, job.any_anatomy)
        scan = replace(scan, warnings=scan.warnings + doubts)
    except Exception as error:
        _discard(group)
        return _Outcome(None, error=one_line(f"{case.name}: {explain(error, case.scan_paths[0])}"))
    record = make_record(case, scan, mask, source, inside)
    record["head"] = {"any_anatomy": job.any_anatomy, "doubts": list(doubts)}
    if stored is not None and same_content(stored, record):
        stored["source"], stored["head"] = source, record["head"]
        write_record(group, stored)
        return _Outcome(_refresh_pngs(stored, group, folders))
    _discard(group)
    partial = out / PARTIAL / group.name
    try:
        record["bytes"] = write_group(partial, scan, mask, inside)
        record["png"] = _pngs(record, scan.hu, mask, folders)
        write_record(partial, record)
        os.rename(partial, group)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _Outcome(record, written=True)


def _same_anatomy(stored: Record, job: _Job) -> bool:
    """Whether a stored scan was asked about being a head, and what was answered still holds."""
    head = stored.get("head")
    if head is None:
        return False  # by a version that asked nothing
    return head["any_anatomy"] == job.any_anatomy or not head["doubts"]


def _stored(group: Path) -> Record | None:
    """The record of a group that is whole, else None. Sizes are checked, since nothing is synced to the disk."""
    try:
        record = read_record(group)
        whole = all((group / name / "c/0/0/0").stat().st_size == size for name, size in record["bytes"].items())
    except (InputError, OSError, KeyError):
        return None
    return record if whole else None


def _discard(group: Path) -> None:
    """Removes a group, its record first, so that a half-removed one does not count."""
    (group / "zarr.json").unlink(missing_ok=True)
    shutil.rmtree(group, ignore_errors=True)


def _refresh_pngs(record: Record, group: Path, folders: PngFolders | None) -> Record:
    """Writes the PNGs of an unchanged case where they are missing or of other options."""
    if folders is None or record["slices"]["positive_pixels"] is None:
        return record
    there = record["png"] or {}
    if there.get("options") == folders.options and not folders.missing(record["case"], there["numbers"]):
        return record
    hu, mask = open_shard(group / "hu").read(), open_shard(group / "mask").read()
    write_record(group, {**record, "png": None})
    record = {**record, "png": _pngs(record, hu, mask, folders)}
    write_record(group, record)
    return record


def _pngs(record: Record, hu: np.ndarray, mask: np.ndarray | None, folders: PngFolders | None) -> Record | None:
    if folders is None or mask is None:
        return None
    numbers = folders.write(record["case"], record["scan"]["slice_numbers"], hu, mask)
    return {"options": folders.options, "numbers": numbers}


def _remove_others(job: _Job, records: Sequence[Record]) -> None:
    """Removes groups and PNGs of cases that are no longer in the source, or failed."""
    wanted = {group_folder(job.out, record["case"]).name for record in records}
    for entry in list(os.scandir(job.out / "scans.zarr")):
        if entry.is_dir() and entry.name not in wanted:
            _discard(Path(entry.path))
    shutil.rmtree(job.out / PARTIAL, ignore_errors=True)
    if job.folders:
        drawn = [record for record in records if record["png"]]
        job.folders.keep_only((record["case"], record["png"]["numbers"]) for record in drawn)
        job.folders.write_window(drawn)
        job.folders.write_patients(drawn)


def _write_tables(job: _Job, records: Sequence[Record], failed: dict[str, str], seed: int) -> tuple[str, ...]:
    """Writes manifest, splits and, last, dataset.json. Returns why splits are missing."""
    rows = [row for record in records for row in rows_of(record)]
    splits, missing = make_splits(rows, seed)
    write_manifest(job.out / "manifest.csv", rows)
    write_splits(job.out / "splits.json", splits, missing, seed)
    entries = {record["case"]: _entry(record) for record in records}
    counts = asdict(_counts(records))
    write_json(job.out / "dataset.json", _info(job, complete=True, counts=counts, failed=failed, cases=entries))
    return missing


def _summary(
    job: _Job, outcomes: Sequence[_Outcome], records: Sequence[Record], missing: Sequence[str], seconds: float
) -> PreparedSummary:
    """What was done; the dataset is opened for the audit."""
    names = [case.name for case in job.collection.cases]
    dataset = Dataset(job.out) if records else None
    splits = list(dataset.splits.values()) if dataset else []
    warnings = [*job.collection.warnings, *_scan_warnings(records), *_png_warnings(records, job.folders), *missing]
    audits = tuple(audit(dataset, split) for split in splits) if dataset else ()
    write_json(job.out / "audit.json", {one.split: asdict(one) for one in audits})
    return PreparedSummary(
        out=job.out,
        layout=job.collection.layout,
        description=job.collection.description,
        done=tuple(name for name, one in zip(names, outcomes, strict=True) if one.written),
        kept=tuple(name for name, one in zip(names, outcomes, strict=True) if one.record and not one.written),
        removed=tuple(sorted(set(job.previous.get("cases", {})) - set(names))),
        failed=_failed(job, outcomes),
        passed_over=job.collection.passed_over,
        counts=_counts(records),
        audits=audits,
        pngs=sum(len(record["png"]["numbers"]) for record in records if record["png"]) if job.folders else None,
        warnings=(*warnings, *(text for split in splits for text in split.warnings)),
        seconds=seconds,
    )


def _failed(job: _Job, outcomes: Sequence[_Outcome]) -> dict[str, str]:
    return {
        case.name: one.error for case, one in zip(job.collection.cases, outcomes, strict=True) if one.error is not None
    }


def _counts(records: Sequence[Record]) -> Counts:
    rows = [row for record in records for row in rows_of(record)]
    return count(rows, [record["case"] for record in records if record["types_from"] == "table"])


def _entry(record: Record) -> Record:
    """A case's line in dataset.json."""
    keys = ("patient", "patient_assumed", "site", "age", "sex", "shape", "types_from")
    masked = record["slices"]["positive_pixels"] is not None
    bounded = record.get("inside_hash") is not None
    volume = volume_ml(rows_of(record)) if masked else None
    warnings = record["scan"]["warnings"]
    known = {key: record[key] for key in keys}
    return {**known, "has_mask": masked, "has_inside": bounded, "volume_ml": volume, "warnings": warnings}


def _scan_warnings(records: Sequence[Record]) -> list[str]:
    """What was noticed while reading, each text once, with the scans it is about."""
    about: dict[str, list[str]] = {}
    for record in records:
        for text in record["scan"]["warnings"]:
            about.setdefault(text, []).append(record["case"])
    return [f"{some(cases)}: {text}" for text, cases in about.items()]


def _png_warnings(records: Sequence[Record], folders: PngFolders | None) -> list[str]:
    if not folders:
        return []
    without = [record["case"] for record in records if record["png"] is None]
    downward = [r["case"] for r in records if r["png"] and np.diff(r["scan"]["slice_numbers"]).max(initial=-1) < 0]
    warnings = [f"no mask, so no PNGs: {some(without)}"] if without else []
    if downward:
        warnings.append(f"slice numbers, and with them PNG names, run from head to foot: {some(downward)}")
    return warnings
