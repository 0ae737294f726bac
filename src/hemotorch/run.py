"""Run: the folder of one training. Recipe, split, environment, choices, metrics and checkpoints.

Moved to another machine it can still be evaluated, resumed and served: a checkpoint holds all that prediction needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemotorch import __version__
from hemotorch.data.dataset import Dataset
from hemotorch.data.splits import PARTS, Split
from hemotorch.errors import InputError, RunError
from hemotorch.recipe import Recipe, load_recipe
from hemotorch.system.device import Device
from hemotorch.system.files import (
    exclusive,
    explained,
    held_marker,
    jsonable,
    read_json,
    text_file,
    write_json,
    write_text,
)
from hemotorch.system.records import build

LARGEST = 1e30  #: of a value in it; larger ones cannot be drawn
FORMAT = 5  #: of the run folder and its checkpoints; a change that older versions cannot read raises it
OLDEST_FORMAT = 4  #: that is still read; it has no slice spacing
BEST, LAST = "best.pt", "last.pt"
LOCK = "lock"  #: held by the process that trains


@dataclass(frozen=True)
class Run:
    """A run folder.

    recipe.toml: the whole recipe; run.json: dataset, split, device decisions, environment, and the same of where it
    went on otherwise; metrics.jsonl: a row an epoch; best.pt: the deployed weights; last.pt: all that resuming needs.
    """

    root: Path

    @staticmethod
    def create(root: Path | str, recipe: Recipe, record: dict[str, Any]) -> Run:
        """Starts a run folder. Raises InputError where a run is there already."""
        run = Run(Path(root))
        run.must_be_new()
        write_text(run.root / "recipe.toml", recipe.to_toml())
        write_json(run.root / "run.json", {"format": FORMAT, "hemotorch": __version__, **record})
        return run

    def must_be_new(self) -> None:
        """Raises InputError where a run, or something else than what a killed `create` leaves, is there already."""
        if (self.root / "run.json").exists():
            todo = "add --resume to go on with it, or choose another folder"
            raise InputError("holds a training run already", self.root, todo)
        ours = {LOCK, held_marker(Path(LOCK)).name, "recipe.toml"}
        if self.root.exists() and any(p.name not in ours and p.name[0] != "." for p in self.root.iterdir()):
            raise InputError("exists already and is not a run folder", self.root, "choose another folder")

    @staticmethod
    def open(root: Path | str) -> Run:
        """Opens a run folder. Raises InputError where it is none, or of a later format."""
        run = Run(Path(root))
        if not run.root.is_dir():
            raise InputError("no such run folder", run.root, "train one with `hemotorch train DATA RUN`")
        if not (run.root / "run.json").is_file():
            raise InputError("is not a run folder (no run.json)", run.root, "name the RUN folder of `hemotorch train`")
        _check_record(read_json(run.root / "run.json"), run.root)
        return run

    @property
    def record(self) -> dict[str, Any]:
        """The content of run.json."""
        return dict(read_json(self.root / "run.json"))

    def shown(self, part: dict[str, Any]) -> str:
        """A part of run.json as indented JSON. Raises InputError if it is nested too deeply to be written again."""
        try:
            return json.dumps(jsonable(part), indent=2)
        except RecursionError as error:
            todo = "put back a copy, or train again in a new folder"
            raise InputError("is damaged (nested too deeply)", self.root / "run.json", todo) from error

    def add_resumed(self, told: dict[str, Any]) -> None:
        """Notes in run.json where and how a training went on that did so otherwise than it was started."""
        record = self.record
        write_json(self.root / "run.json", {**record, "resumed": [*record.get("resumed", []), told]})

    @property
    def split(self) -> Split:
        """The run's own copy of the split it was trained on."""
        return _split_of(self.record["split"])

    @property
    def recipe(self) -> Recipe:
        """The recipe that was trained."""
        return load_recipe(self.root / "recipe.toml")

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; an unfinished last line is left out. Raises InputError for any other damage."""
        path = self.root / "metrics.jsonl"
        if not path.exists():
            return []
        lines = text_file(path, "table of metrics").read_text(encoding="utf-8", errors="replace").split("\n")
        # The writer ends each line; what follows the last end was being written when the process was killed.
        unfinished = lines.pop()
        rows = []
        for number, line in enumerate([*lines, unfinished], 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                if number > len(lines):
                    break
                row = None
            if not _is_row(row):
                shown = repr(line[:40])[1:-1]
                raise InputError(f"line {number} is damaged or no epoch's: {shown}", path, "remove that line")
            rows.append(row)
        return rows

    def keep_metrics(self, up_to_epoch: int) -> None:
        """Drops the rows of epochs after `up_to_epoch`, which a resumed run will write again."""
        rows = [row for row in self.metrics if row["epoch"] <= up_to_epoch]
        write_text(self.root / "metrics.jsonl", "".join(_line(row) for row in rows))

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Appends one row."""
        path = self.root / "metrics.jsonl"
        with explained(path), open(path, "a", encoding="utf-8") as file:
            file.write(_line(row))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for one training process. Raises RunError where another one has it."""
        busy = RunError("another training is using this run folder", self.root, "wait, or choose another")
        with exclusive(self.root / LOCK, busy):
            yield


def _line(row: dict[str, Any]) -> str:
    return json.dumps(jsonable(row), allow_nan=False) + "\n"


def _is_row(row: Any) -> bool:
    """Whether a row of metrics.jsonl has all that reports and terminals show, in numbers that can be drawn."""
    if not isinstance(row, dict) or not all(_is_count(row.get(name)) for name in ("epoch", "step")):
        return False
    if not all(_is_number(row.get(name)) for name in ("loss", "lr", "seconds")):
        return False
    values = row.get("val", {})
    if not isinstance(values, dict) or ("val" in row and not _is_count(values.get("n"))):
        return False
    # null: undefined, as the Dice of scans without bleeding is.
    return ("val" not in row or "dice" in values) and all(v is None or _is_number(v) for v in values.values())


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < LARGEST  # NaN is not


def _check_record(record: Any, root: Path) -> None:
    """Raises InputError where run.json is of another format, or was damaged."""
    where = root / "run.json"
    known = isinstance(record, dict) and "format" in record
    if known:
        _check_format(record["format"], root)
    try:
        split = _split_of(record["split"])
        sides = [split.part(part) for part in PARTS]
        good = known and all(isinstance(record[name], dict) for name in ("scans", "masks", "environment"))
        good = good and all(isinstance(word, str) for word in (record["data"], split.name, *split.warnings))
        good = good and isinstance(record["split"]["warnings"], list)
        good = good and split.by in ("patient", "slice")
        good = good and record["scans"].keys() == record["masks"].keys() == {case for side in sides for case in side}
        for side in sides:
            for indices in side.values():
                good = good and all(type(index) is int and index >= 0 for index in indices)
                good = good and list(indices) == sorted(set(indices))
        for told in (record, *record.get("resumed", ())):
            build(Device, told["device"], where)
            good = good and type(told["ranks"]) is int
    except (KeyError, TypeError, AttributeError, ValueError, InputError):
        good = False
    if not good:
        raise InputError("is damaged", where, "put back a copy, or train again in a new folder")


def check_slices(split: Split, dataset: Dataset) -> None:
    """Raises InputError if a run's own split names slices that the dataset's scans do not have."""
    for part in PARTS:
        for case, indices in split.part(part).items():
            count = len(dataset.rows[case])
            if indices and max(indices) >= count:
                what = f"its split names slice {max(indices)} of scan {case}, which has {count}"
                raise InputError(what, "run.json", "put back a copy, or train again in a new folder")


def _split_of(stored: dict[str, Any]) -> Split:
    sides = {part: {case: tuple(ids) for case, ids in stored[part].items()} for part in PARTS}
    return Split(stored["name"], stored["by"], **sides, warnings=tuple(stored["warnings"]))


def _check_format(found: Any, where: Path) -> None:
    if not (isinstance(found, int) and OLDEST_FORMAT <= found <= FORMAT):
        todo = "train again" if isinstance(found, int) and found < FORMAT else "update hemotorch"
        raise InputError(f"was written in format {found}; this hemotorch reads format {FORMAT}", where, todo)
