"""An archive of scans predicted with Ray Data: one model load a worker, restartable, no scan lost or done twice.

A scan is done when its NAME.json is there, which is written last and names its scan. The output folder belongs to one
set of weights, which `.model.json` in it tells.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hemotorch import errors
from hemotorch.cluster import ray as engine
from hemotorch.cluster.training import Devices
from hemotorch.errors import HemotorchError, InputError, RunError, explain
from hemotorch.inference.checkpoint import load_checkpoint
from hemotorch.inference.load import load_model
from hemotorch.inference.outputs import ENDINGS, Result, is_result, make_room, predict_file
from hemotorch.inference.scan_files import find_scans, name_scans
from hemotorch.run import BEST
from hemotorch.system import threads
from hemotorch.system.files import (
    clear_parts,
    exclusive,
    file_status,
    held_marker,
    output_folder,
    read_json,
    write_json,
)

MODEL, LOADS, LOCK = ".model.json", ".loads.jsonl", ".lock"  #: in the output folder
BEGUN = ".begun"  #: ending of a file with the number of each process that began a scan
TRIES = 3  #: of a scan whose worker died
AGAIN = "run the same command again"  #: since it does what is missing
BLOCKS = 10_000  #: that Ray Data is given at most; a block is what a worker takes, and what is taken again if it dies


@dataclass(frozen=True)
class Archive:
    """What there is to do. done: results of scans that are done; todo: the others and what their files are called;
    unreadable: what was named but holds no scan; weights: the digest of the checkpoint file."""

    model: Path
    weights: str
    folder: Path
    done: dict[Path, dict[str, Any]]
    todo: dict[Path, str]
    unreadable: tuple[tuple[Path, HemotorchError], ...]


@contextmanager
def opened(model: Path | str, scans: Sequence[Path | str], out: Path | str) -> Iterator[Archive]:
    """Looks through scans and the output folder, which is ours alone inside the block.

    Raises InputError for a checkpoint that cannot be used, or a folder that holds something else than this model's
    predictions; RunError where another process has it.
    """
    best = (Path(model) / BEST if Path(model).is_dir() else Path(model)).resolve()
    load_checkpoint(best)
    weights, folder = _digest(best), Path(out).resolve()
    output_folder(folder, may_exist=(folder / MODEL).exists() or _is_new(folder))
    with exclusive(folder / LOCK, RunError("another prediction is writing into this folder", folder, "wait for it")):
        if not (folder / MODEL).exists():
            write_json(folder / MODEL, {"checkpoint": str(best), "weights": weights})
        elif read_json(folder / MODEL).get("weights") != weights:
            raise InputError("holds the predictions of another model", folder, "choose another --out")
        for file in folder.glob(f".*{BEGUN}"):
            file.unlink()
        clear_parts(folder)
        given, unreadable = find_scans(scans, folder)
        # Absolute, but links not followed: a scan is called what the user calls it.
        paths, results = [Path(os.path.abspath(path)) for path in given], _results(folder)
        done: dict[Path, dict[str, Any]] = {}
        for name, result in results.items():
            if _is_current(folder, name, result):
                done |= {Path(path): result for path in result["scan"]}
            elif any(Path(path) in paths for path in result["scan"]):
                (folder / f"{name}.json").unlink()  # the scan or its mask changed since: it is done again
        names = name_scans([*done, *(path for path in paths if path not in done)])
        todo: dict[Path, str] = {}
        taken = {path.stem for path in folder.glob("*.json")}
        for path in paths:
            if path not in done:
                name = names[path]
                while name in taken:  # by a scan that was named before there were others of its name
                    name += "_"
                taken.add(name)
                todo[path] = name
        mine = {path: done[path] for path in paths if path in done}
        yield Archive(best, weights, folder, mine, todo, tuple(unreadable))


def predict_archive(
    archive: Archive,
    workers: int | None = None,
    *,
    device: str = "auto",
    any_anatomy: bool = False,
    address: str | None = None,
) -> Iterator[tuple[Path, Result]]:
    """Predicts what is to do and yields each scan once, with its result or its error, in the order they are ready.

    workers: processes, each with a model of its own; by default one a GPU, without GPUs one for two cores. Raises
    OptionError, and RunError where Ray itself fails.
    """
    yield from archive.unreadable
    if not archive.todo:
        return
    if address is None:
        Devices.here().workers(workers, device)  # what is wrong is said before Ray is started
    with engine.cluster(address) as has:
        import ray.data

        engine.hush("ray.data")
        ray.data.DataContext.get_current().enable_progress_bars = False
        count = min(has.workers(workers, device), len(archive.todo))
        settings = (
            archive.model,
            archive.weights,
            archive.folder,
            device,
            any_anatomy,
            threads.wanted() or max(1, has.cores // count),
        )
        rows = [{"path": str(path), "name": name} for path, name in archive.todo.items()]
        dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS)).map(
            Worker,
            fn_constructor_args=settings,
            compute=ray.data.ActorPoolStrategy(size=count),
            **({"num_gpus": 1} if has.on_gpus(device) else {"num_cpus": 1}),
        )
        missing = set(archive.todo)
        for row in _rows(dataset, archive.folder):
            path = Path(row["path"])
            if path in missing:
                missing.remove(path)
                yield path, _result(json.loads(row["result"]))
    if missing:
        raise RunError(f"Ray Data gave no answer for {len(missing)} scans", min(missing), AGAIN)


def _result(value: dict[str, Any]) -> Result:
    """The result or the error of a scan, from what its worker returned."""
    return errors.from_dict(value["error"]) if "error" in value else value


def _rows(dataset: Any, folder: Path) -> Iterator[dict[str, Any]]:
    """What Ray Data computes, as it comes. Raises RunError where Ray, and not a scan, is what fails."""
    from ray.exceptions import RayError

    try:
        yield from dataset.iter_rows()
    except RayError as error:
        what = f"Ray stopped ({type(error).__name__}: {error}".splitlines()[0]
        raise RunError(f"{what})", folder, AGAIN) from error


class Worker:
    """A process of the pool: the model, loaded once, and one scan after the other."""

    def __init__(self, model: Path, weights: str, folder: Path, device: str, any_anatomy: bool, thread_count: int):
        began = time.perf_counter()
        self._model, self._folder, self._any_anatomy = model, folder, any_anatomy
        self._predictor = load_model(model, device)
        torch.set_num_threads(thread_count)
        self._changed = _digest(model) != weights
        who = {"host": platform.node(), "pid": os.getpid(), "seconds": round(time.perf_counter() - began, 2)}
        with open(folder / LOADS, "a", encoding="utf-8") as file:
            file.write(json.dumps(who) + "\n")

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        """row: "path" and "name"; adds "result", the JSON of a result or of {"error": ...}."""
        path, written = Path(row["path"]), self._folder / f"{row['name']}.json"
        begun = self._folder / f".{row['name']}{BEGUN}"
        result: Any
        try:
            if self._changed:
                raise RunError("was trained on while scans were predicted with it", self._model, "try again")
            # There where a worker died between writing and telling.
            result = read_json(written) if written.exists() else None
            if result is None:
                make_room(self._folder, row["name"], path, overwrite=False)
                with open(begun, "a") as file:
                    file.write(f"{os.getpid()}\n")
                if len(begun.read_text().splitlines()) > TRIES:
                    todo = "is there enough memory? the same command tries it again"
                    raise RunError(f"the worker that had it died {TRIES} times", path, todo)
                result = predict_file(self._predictor, path, self._folder, row["name"], self._any_anatomy)
        except Exception as error:  # one scan, whatever is wrong with it, does not stop an archive
            result = {"error": errors.to_dict(explain(error, path))}
        begun.unlink(missing_ok=True)
        return {**row, "result": json.dumps(result)}


def _results(folder: Path) -> dict[str, dict[str, Any]]:
    """The predictions in the output folder, by name; other JSON files are left alone."""
    results = {}
    for path in folder.glob("*.json"):
        with suppress(InputError):
            value = read_json(path)
            if is_result(value):
                results[path.stem] = value
    return results


def _is_current(folder: Path, name: str, result: dict[str, Any]) -> bool:
    """Whether the mask is there and the scan is the one that was read; what is missing now was not replaced."""
    if not (folder / f"{name}{ENDINGS[0]}").is_file():
        return False
    for before in result.get("sources", ()):
        if Path(before["path"]).exists() and file_status(before["path"]) != before:
            return False
    return True


def _is_new(folder: Path) -> bool:
    """Whether a folder is not there, or holds no more than what is left of a start that was killed."""
    inside = folder.iterdir() if folder.is_dir() else ()
    ours = {LOCK, held_marker(Path(LOCK)).name}
    return all(path.name in ours or (path.name[0] == "." and ".part." in path.name) for path in inside)


def _digest(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
