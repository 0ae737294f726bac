"""An archive of scans predicted with Ray Data: one model load per worker, restartable, no scan lost or done twice.

A scan is done when its NAME.json is there, which is written last and names its scan. The output folder belongs to one
set of weights, which `.model.json` in it tells.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hemotorch import errors
from hemotorch.cluster import ray as engine
from hemotorch.cluster.training import Devices
from hemotorch.errors import HemotorchError, InputError, RunError, explain
from hemotorch.inference import box
from hemotorch.inference.load import load_model, model_file
from hemotorch.inference.outputs import MASK, RECORD, make_room
from hemotorch.inference.pseudonyms import Pseudonyms
from hemotorch.inference.scan_files import ScanFiles, find_scans, name_scans
from hemotorch.inference.studies import busy, change_since, predict_file
from hemotorch.inference.study import StudyRecord, read_record, record_from
from hemotorch.inference.visits import with_visits
from hemotorch.io import dicom
from hemotorch.report.study_files import write_study
from hemotorch.system import records, threads
from hemotorch.system.files import (
    clear_parts,
    exclusive,
    held_marker,
    output_folder,
    read_json,
    write_json,
)

MODEL, LOADS, LOCK = ".model.json", ".loads.jsonl", ".lock"  #: in the output folder
STARTED = ".begun"  #: ending of a file with the number of each process that started a scan
TRIES = 3  #: of a scan whose worker died
AGAIN = "run the same command again"  #: since it does what is missing
Result = StudyRecord | HemotorchError
BLOCKS = 10_000  #: that Ray Data is given at most; a block is what a worker takes, and what is taken again if it dies


@dataclass(frozen=True)
class Archive:
    """What there is to do.

    models: the files of the networks. weights: their digest. folder: of the results. done: records of the scans that
    are done. todo: what the files of each other scan are called. scans: all of them by path. unreadable: paths without
    a scan.
    """

    models: tuple[Path, ...]
    weights: str
    folder: Path
    done: dict[Path, StudyRecord]
    todo: dict[Path, str]
    scans: dict[Path, ScanFiles]
    unreadable: tuple[tuple[Path, HemotorchError], ...]


@contextmanager
def open_archive(
    model: Path | str | Sequence[Path | str],
    scans: Sequence[Path | str],
    out: Path | str,
    series: str | None = None,
    patients: Path | str | None = None,
) -> Iterator[Archive]:
    """Looks through scans and the output folder, which nobody else writes into inside the block.

    Args:
        model: a run folder, a checkpoint, an ONNX file or the name of a model in the box; several are averaged.
        scans: files, and folders of them.
        out: the folder of the results.
        series: of DICOM, the only series to predict, by its SeriesInstanceUID.
        patients: a table that says whose scans outside DICOM are and when they were made, see `visits.with_visits`.

    Raises:
        InputError: for a table or a checkpoint that cannot be used, or a folder that holds something else than this
            model's predictions.
        RunError: if another process predicts into the folder.
    """
    named = [model] if isinstance(model, (Path, str)) else list(model)
    models = tuple(model_file(box.named(each)).resolve() for each in named)
    weights, folder = load_model(models, "cpu").digest, Path(out).resolve()
    output_folder(folder, may_exist=(folder / MODEL).exists() or _is_new(folder))
    with exclusive(folder / LOCK, busy(folder)):
        if not (folder / MODEL).exists():
            write_json(folder / MODEL, {"models": [str(path) for path in models], "weights": weights})
        elif read_json(folder / MODEL).get("weights") != weights:
            raise InputError("holds the predictions of another model", folder, "choose another --out")
        for file in folder.glob(f".*{STARTED}"):
            file.unlink()
        clear_parts(folder)
        pseudonyms = Pseudonyms(folder)
        to_predict, unreadable = find_scans(scans, folder, series, pseudonyms)
        by_path = {}
        for scan in to_predict:
            # Absolute, but links not followed: a scan is called what the user calls it.
            files = tuple(Path(os.path.abspath(file)) for file in scan.files)
            named_after = scan.named_after if scan.hidden else Path(os.path.abspath(scan.named_after))
            by_path[files[0]] = replace(scan, files=files, named_after=named_after)
        done = _done(folder, by_path)
        todo = _names(folder, done, [scan for path, scan in by_path.items() if path not in done])
        if patients is not None:
            names = {path: record.name for path, record in done.items()} | todo
            by_path = {scan.path: scan for scan in with_visits([*by_path.values()], names, patients, pseudonyms)}
        pseudonyms.save()
        done_here = {}
        for path, scan in by_path.items():
            record = done.get(path)
            if record is not None and scan.patient and record.patient != scan.patient:
                (folder / f"{record.name}{RECORD}").unlink()  # whose it is was not known, or is another one now
                todo[path] = record.name
            elif record is not None:
                done_here[path] = record
        yield Archive(models, weights, folder, done_here, todo, by_path, tuple(unreadable))


def _done(folder: Path, scans: Mapping[Path, ScanFiles]) -> dict[Path, StudyRecord]:
    """The records in the output folder by scan; of `scans`, those that hold no longer are removed, to be done again.

    A scan in DICOM is known by its pseudonym, any other by its path.
    """
    by_name = {scan.named_after.name: path for path, scan in scans.items() if scan.hidden}
    done: dict[Path, StudyRecord] = {}
    for name, record in _records(folder).items():
        path = Path(record.scan[0]) if record.scan else by_name.get(name, Path(name))
        scan = scans.get(path)
        is_current = (folder / f"{name}{MASK}").is_file() and (scan is None or record.source_digest == scan.digest)
        if is_current:
            done[path] = record
        elif scan is not None:
            (folder / f"{name}{RECORD}").unlink()  # the scan or its mask changed since
    return done


def _names(folder: Path, done: Iterable[Path], todo: Sequence[ScanFiles]) -> dict[Path, str]:
    """What the files of each scan that is to do are called."""
    names = name_scans([*done, *todo])
    taken = {path.stem for path in folder.glob("*.json")}
    names_of_todo = {}
    for scan in todo:
        name = names[scan.path]
        while name in taken:  # by a scan that was named before there were others of its name
            name += "_"
        taken.add(name)
        names_of_todo[scan.path] = name
    return names_of_todo


def predict_archive(
    archive: Archive,
    workers: int | None = None,
    *,
    device: str = "auto",
    any_anatomy: bool = False,
    address: str | None = None,
) -> Iterator[tuple[Path, Result]]:
    """Predicts what is to do and yields each scan once, with its record or its error, in the order they are ready.

    Args:
        workers: processes, each with a model of its own; by default one per GPU, without GPUs one per two cores.
        device: "auto", "cpu" or "cuda".
        address: HOST:PORT of a Ray cluster; None starts Ray here.

    Raises:
        OptionError: if there are not so many GPUs or cores.
        RunError: if Ray itself fails.
    """
    yield from archive.unreadable
    if not archive.todo:
        return
    if address is None:
        Devices.here().workers(workers, device)  # what is wrong is said before Ray is started
    with engine.cluster(address) as devices:
        import ray.data

        engine.hush("ray.data")
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = rows_of(archive)
        count = min(devices.workers(workers, device), len(rows))
        thread_count = threads.wanted() or max(1, devices.cores // count)
        on_gpus = devices.on_gpus(device)
        dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS)).flat_map(
            Worker,
            fn_constructor_args=(
                archive.models,
                archive.weights,
                archive.folder,
                device,
                any_anatomy,
                thread_count,
            ),
            compute=ray.data.ActorPoolStrategy(size=count),
            num_gpus=1 if on_gpus else None,
            num_cpus=None if on_gpus else 1,
        )
        # A block whose worker died is done again: its scans may come twice.
        missing = set(archive.todo)
        for row in _rows(dataset, archive.folder):
            path = Path(row["path"])
            if path in missing:
                missing.remove(path)
                yield archive.scans[path].named_after, _result(json.loads(row["result"]))
    if missing:
        raise RunError(f"Ray Data gave no answer for {len(missing)} scans", min(missing), AGAIN)


def rows_of(archive: Archive) -> list[dict[str, str]]:
    """What Ray Data hands to workers, each row to one of them: a scan, or all scans of a patient in the order of time.

    So the earlier study of a patient is predicted when the later one asks for the change between them.
    """
    groups: dict[str, list[dict[str, str]]] = {}
    for path, scan in archive.scans.items():
        if path in archive.todo:
            groups.setdefault(scan.patient or str(path), []).append(as_entry(scan, archive.todo[path]))
    return [as_row(*entries) for entries in groups.values()]


def as_row(*entries: dict[str, str]) -> dict[str, str]:
    """A row of Ray Data. entries: of its scans."""
    return {"entries": json.dumps(entries)}


def as_entry(scan: ScanFiles, name: str) -> dict[str, str]:
    """A scan as text. name: what its files are called."""
    values = {
        "files": [str(file) for file in scan.files],
        "named_after": str(scan.named_after),
        "notes": scan.notes,
        "identity": None if scan.identity is None else asdict(scan.identity),
        "patient": scan.patient,
        "hidden": scan.hidden,
        "location": scan.location,
        "secrets": sorted(scan.secrets),
    }
    return {"path": str(scan.path), "name": name, "scan": json.dumps(values)}


def _scan(text: str) -> ScanFiles:
    """The scan of an entry."""
    values = json.loads(text)
    identity = values["identity"]
    return ScanFiles(
        tuple(map(Path, values["files"])),
        Path(values["named_after"]),
        tuple(values["notes"]),
        None if identity is None else dicom.Identity(**identity),
        values["patient"],
        values["hidden"],
        values["location"],
        frozenset(values["secrets"]),
    )


def _result(value: dict[str, Any]) -> Result:
    """The record or the error of a scan, from what its worker returned."""
    if "error" in value:
        return errors.from_dict(value["error"])
    return record_from(value, "a worker's answer")


def _rows(dataset: Any, folder: Path) -> Iterator[dict[str, Any]]:
    """What Ray Data computes, as it comes. Raises RunError if Ray, and not a scan, fails."""
    from ray.exceptions import RayError

    try:
        yield from dataset.iter_rows()
    except RayError as error:
        what = f"Ray stopped ({type(error).__name__}: {error}".splitlines()[0]
        raise RunError(f"{what})", folder, AGAIN) from error


class Worker:
    """A process of the pool: the model, loaded once, and one scan after the other."""

    def __init__(
        self,
        models: tuple[Path, ...],
        weights: str,
        folder: Path,
        device: str,
        any_anatomy: bool,
        thread_count: int,
    ):
        start = time.perf_counter()
        self._models, self._folder, self._any_anatomy = models, folder, any_anatomy
        with threads.process_environment(thread_count):  # which ONNX files look at
            self._predictor = load_model(models, device)
        torch.set_num_threads(thread_count)
        self._changed = self._predictor.digest != weights
        self._pseudonyms = Pseudonyms(folder)
        load = {"host": platform.node(), "pid": os.getpid(), "seconds": round(time.perf_counter() - start, 2)}
        with open(folder / LOADS, "a", encoding="utf-8") as file:
            file.write(json.dumps(load) + "\n")

    def __call__(self, row: dict[str, str]) -> list[dict[str, str]]:
        """Predicts the scans of a row, one after the other.

        Args:
            row: as `as_row` makes it.

        Returns:
            For each scan its entry with "result" added: the JSON of a result, or of {"error": ...}.
        """
        return [self._with_result(entry) for entry in json.loads(row["entries"])]

    def _with_result(self, entry: dict[str, str]) -> dict[str, str]:
        name, scan = entry["name"], _scan(entry["scan"])
        started = self._folder / f".{name}{STARTED}"
        result: Any
        try:
            result = records.to_values(self._predict(scan, name, started))
        except Exception as error:  # one scan, whatever is wrong with it, does not stop an archive
            result = {"error": errors.to_dict(scan.hide(explain(error, scan.named_after)))}
        started.unlink(missing_ok=True)
        return {**entry, "result": json.dumps(result)}

    def _predict(self, scan: ScanFiles, name: str, started: Path) -> StudyRecord:
        if self._changed:
            raise RunError("was trained on while scans were predicted with it", self._models[0], "try again")
        record = self._folder / f"{name}{RECORD}"
        if record.exists():  # its worker died after it had written it
            return read_record(record)
        make_room(self._folder, name, scan, overwrite=False)
        with open(started, "a") as file:
            file.write(f"{os.getpid()}\n")
        if len(started.read_text().splitlines()) > TRIES:
            todo = "is there enough memory? the same command tries it again"
            raise RunError(f"the worker that had it died {TRIES} times", scan.named_after, todo)
        change = change_since(self._folder, name, self._pseudonyms)
        return predict_file(
            self._predictor, scan, self._folder, name, self._any_anatomy, write_page=write_study, change=change
        )


def _records(folder: Path) -> dict[str, StudyRecord]:
    """The records in the output folder, by name; other JSON files are left alone."""
    found = {}
    for path in folder.glob(f"*{RECORD}"):
        with suppress(InputError):
            found[path.stem] = read_record(path)
    return found


def _is_new(folder: Path) -> bool:
    """Whether a folder is not there, or holds no more than what is left of a start that was killed."""
    if not folder.is_dir():
        return True
    lock_files = {LOCK, held_marker(Path(LOCK)).name}
    for path in folder.iterdir():
        unfinished = path.name.startswith(".") and ".part." in path.name
        if path.name not in lock_files and not unfinished:
            return False
    return True
