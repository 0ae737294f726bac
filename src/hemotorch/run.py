"""Run: the folder of one training. Recipe, split, environment, choices, metrics and checkpoints.

Moved to another machine it can still be evaluated, resumed and served: a checkpoint holds all that prediction needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from hemotorch.data.dataset import Dataset
from hemotorch.data.splits import PARTS, Split
from hemotorch.errors import InputError, RunError
from hemotorch.grid import SliceSpacing
from hemotorch.recipe import Recipe, load_recipe
from hemotorch.system import records
from hemotorch.system.device import Device, Environment
from hemotorch.system.files import exclusive, explained, held_marker, read_json, text_file, write_text
from hemotorch.system.metrics import EpochMetrics
from hemotorch.system.records import record, shown

FORMAT = 5  #: of the run folder; a change that older versions cannot read raises it
OLDEST_FORMAT = 4  #: that is still read; its runs were trained without slice spacing
WITH_SLICE_SPACING = 5  #: the first format whose runs were trained with it
BEST, LAST = "best.pt", "last.pt"
LOCK = "lock"  #: held by the process that trains

_REPAIR = "put back a copy, or train again in a new folder"
Ranks = Annotated[int, Field(ge=1)]


@record
class Session:
    """On what, and how, a run is trained from an epoch and step on.

    ranks: how many processes. memory: where slices live, and why, in words.
    """

    device: Device
    ranks: Ranks
    environment: Environment
    memory: str = ""
    epoch: int = 0
    step: int = 0


@record
class RunRecord:
    """All of run.json.

    data: folder of the prepared dataset. device, ranks, environment, memory: of the first session.
    scans, masks: digests of each case of the split, by which a changed one is told.
    task, task_reason: what the network answers, and why that was chosen; runs of version 0.1 knew one task.
    slice_spacing: slice distances of the training scans; None if they have none.
    resumed: later sessions that were not like the one before.
    """

    format: int
    hemotorch: str
    data: str
    split: Split
    device: Device
    ranks: Ranks
    environment: Environment
    scans: dict[str, str]
    masks: dict[str, str]
    memory: str = ""
    task: str = "bleeding"
    task_reason: str = ""
    slice_spacing: SliceSpacing | None = None
    resumed: tuple[Session, ...] = ()

    def __post_init__(self) -> None:
        cases: set[str] = set()
        for part in PARTS:
            cases.update(self.split.part(part))
        if not cases == self.scans.keys() == self.masks.keys():
            raise ValueError("its digests are not those of the split's cases")

    @property
    def last_session(self) -> Session:
        """On what, and how, the run was trained last."""
        if self.resumed:
            return self.resumed[-1]
        return Session(self.device, self.ranks, self.environment, self.memory)


@dataclass(frozen=True)
class Run:
    """A run folder.

    recipe.toml: the whole recipe; run.json: a `RunRecord`; metrics.jsonl: one row per epoch; best.pt: the deployed
    weights; last.pt: all that resuming needs.
    """

    root: Path

    @staticmethod
    def create(root: Path | str, recipe: Recipe, run_record: RunRecord) -> Run:
        """Starts a run folder. Raises InputError if a run is there already."""
        run = Run(Path(root))
        run.must_be_new()
        records.write(run.root / "recipe.toml", recipe)
        records.write(run._record_path, run_record)
        return run

    def must_be_new(self) -> None:
        """Raises InputError if a run, or something else than what a killed `create` leaves, is there already."""
        if self._record_path.exists():
            todo = "add --resume to go on with it, or choose another folder"
            raise InputError("holds a training run already", self.root, todo)
        if not self.root.exists():
            return
        own_files = {LOCK, held_marker(Path(LOCK)).name, "recipe.toml"}
        for path in self.root.iterdir():
            if path.name not in own_files and not path.name.startswith("."):
                raise InputError("exists already and is not a run folder", self.root, "choose another folder")

    @staticmethod
    def open(root: Path | str) -> Run:
        """Opens a run folder. Raises InputError if it is none, is damaged, or has a later format."""
        run = Run(Path(root))
        if not run.root.is_dir():
            raise InputError("no such run folder", run.root, "train one with `hemotorch train DATA RUN`")
        if not run._record_path.is_file():
            raise InputError("is not a run folder (no run.json)", run.root, "name the RUN folder of `hemotorch train`")
        _ = run.record
        return run

    @property
    def _record_path(self) -> Path:
        return self.root / "run.json"

    @property
    def record(self) -> RunRecord:
        """The content of run.json. Raises InputError if it is damaged, or of another format."""
        values = read_json(self._record_path)
        if isinstance(values, dict) and "format" in values:
            _check_format(values["format"], self.root)
        return records.build(RunRecord, values, self._record_path, _REPAIR)

    def add_session(self, session: Session) -> None:
        """Notes in run.json that the training went on in another way than it was started."""
        run_record = self.record
        records.write(self._record_path, replace(run_record, resumed=(*run_record.resumed, session)))

    @property
    def split(self) -> Split:
        """The run's own copy of the split it was trained on."""
        return self.record.split

    @property
    def recipe(self) -> Recipe:
        """The recipe that was trained.

        Raises:
            InputError: if recipe.toml is missing, cut or damaged.
        """
        path = self.root / "recipe.toml"
        recipe = load_recipe(path)
        # A file by hand may leave sections out. What `create` wrote holds each of them: one that is cut must not be
        # taken for a training with default values.
        missing = [section for section in asdict(recipe) if section not in records.read_toml(path)]
        if missing:
            raise InputError(f"is cut or damaged: it has no '{missing[0]}'", path, "put back a copy")
        return recipe

    @property
    def metrics(self) -> list[EpochMetrics]:
        """The rows of metrics.jsonl; an unfinished last line is left out. Raises InputError for any other damage."""
        path = self.root / "metrics.jsonl"
        if not path.exists():
            return []
        text = text_file(path, "table of metrics").read_text(encoding="utf-8-sig", errors="replace")
        content = text.rstrip()
        # The writer ends each line; what follows the last end was being written when the process was killed.
        finished = "\n" in text[len(content) :]
        lines = content.split("\n") if content else []
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                if number == len(lines) and not finished:
                    break
                values = None
            try:
                rows.append(records.build(EpochMetrics, values, path))
            except InputError as error:
                what = f"line {number} is damaged or no epoch's: {shown(line[:40])[1:-1]}"
                raise InputError(what, path, "remove that line") from error
        return rows

    def drop_metrics(self, after_epoch: int) -> None:
        """Removes the rows of later epochs, which a resumed run will write again."""
        lines = [_line(row) for row in self.metrics if row.epoch <= after_epoch]
        write_text(self.root / "metrics.jsonl", "".join(lines))

    def add_metrics(self, row: EpochMetrics) -> None:
        """Appends one row."""
        path = self.root / "metrics.jsonl"
        with explained(path), open(path, "a", encoding="utf-8") as file:
            file.write(_line(row))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for one training process. If that fails before the run begins, no folder is left.

        Raises:
            RunError: if another process has it.
        """
        busy = RunError("another training is using this run folder", self.root, "wait, or choose another")
        lock, had_folder = self.root / LOCK, self.root.exists()
        with exclusive(lock, busy):
            try:
                yield
            except BaseException:
                if [*self.root.iterdir()] == [lock]:
                    with suppress(OSError):  # a disk on which what is open cannot be removed
                        lock.unlink()
                        if not had_folder:
                            self.root.rmdir()
                raise


def check_slices(split: Split, dataset: Dataset) -> None:
    """Raises InputError if a run's own split names slices that the dataset's scans do not have."""
    for part in PARTS:
        for case, indices in split.part(part).items():
            count = len(dataset.rows[case])
            if indices and max(indices) >= count:
                what = f"its split names slice {max(indices)} of scan {case}, which has {count}"
                raise InputError(what, "run.json", _REPAIR)


def _line(row: EpochMetrics) -> str:
    return json.dumps(row.to_dict(), allow_nan=False) + "\n"


def _check_format(version: Any, where: Path) -> None:
    if isinstance(version, int) and OLDEST_FORMAT <= version <= FORMAT:
        return
    todo = "train again" if isinstance(version, int) and version < FORMAT else "update hemotorch"
    raise InputError(f"was written in format {shown(version)}; this hemotorch reads format {FORMAT}", where, todo)
