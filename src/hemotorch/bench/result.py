"""Bench: a whole measurement as it is kept in bench.json, and as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hemotorch import __version__
from hemotorch.bench.rows import Row, from_json
from hemotorch.errors import InputError
from hemotorch.system.files import jsonable, read_json

FORMAT = 2  #: of bench.json
FILE = "bench.json"
BUSY = 0.5  #: load a core at the start of a bench from which on it was not alone on its machine
KINDS = ("train", "mlp")  #: of results that have rows of configs


@dataclass(frozen=True)
class Bench:
    """What was measured, on what, and what it came to.

    kind: "train" or "mlp". sentence: the bottleneck. settings: what must be the same for two of them to be compared
    (recipe, data, quick, ...). sweeps: what was varied -> device -> numbers of its rows. curves: of learning
    algorithms. warnings: what makes the figures less than they seem, said first; notes: what was left out or made up.
    """

    kind: str
    sentence: str
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    rows: tuple[Row, ...]
    sweeps: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)
    curves: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For bench.json."""
        rows = [row.to_json() for row in self.rows]
        return dict(jsonable({"format": FORMAT, "hemotorch": __version__, **asdict(self), "rows": rows}))

    @staticmethod
    def read(path: Path | str) -> Bench:
        """From bench.json, or the folder it is in. Raises InputError."""
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        values = read_json(path)
        todo = "name the bench.json of `hemotorch bench train` or `hemotorch bench mlp`"
        if not isinstance(values, dict) or not {"format", "kind", "rows", "settings", "environment"} <= values.keys():
            raise InputError("is not a bench's result", path, todo)
        if values["format"] != FORMAT:
            raise InputError(f"has format {values['format']}; this hemotorch reads {FORMAT}", path, "measure again")
        if values["kind"] not in KINDS:
            raise InputError(f"is a result of `hemotorch bench {values['kind']}`", path, todo)
        try:
            _check_environment(values["environment"])
            return Bench(
                values["kind"], values["sentence"], dict(values["settings"]), dict(values["environment"]),
                tuple(from_json(Row, row) for row in values["rows"]), dict(values["sweeps"]), tuple(values["curves"]),
                tuple(values["warnings"]), tuple(values["notes"]),
            )  # fmt: skip
        except (TypeError, AttributeError, KeyError, ValueError) as error:
            raise InputError("is damaged", path, "measure again") from error

    def lines(self) -> list[str]:
        """The table and the sentence as text."""
        return [*text_table(self.rows, self.kind), "", *self.notes, *self.warnings, self.sentence]


def busy(environment: Mapping[str, Any], who: str = "This measurement") -> str:
    """A word of warning where other work ran on the machine before it began, else ""."""
    load, cores = environment.get("load_before") or 0, environment.get("cores") or 1
    if load <= BUSY * cores:
        return ""
    return f"{who} was not alone on its machine: a load of {load:g} on {cores} cores before it began."


def _check_environment(found: Mapping[str, Any]) -> None:
    """Raises TypeError where what is computed with is no number."""
    for name in ("cores", "load_before"):
        if not isinstance(found.get(name) or 0, (int, float)):
            raise TypeError(f"{name} is {found[name]!r}")


def text_table(rows: Sequence[Row], kind: str) -> list[str]:
    """A line a row, columns aligned. A small network (kind "mlp") has no training to project."""
    whole = kind == "train"
    heads = ["", "images/s", "[low, high]", *(["epoch", "training"] if whole else ["a step"]), "GFLOP/s", "of peak"]
    heads += ["efficiency", "memory", "x CPU", "x reference"]
    priced = any(not math.isnan(row.cost) for row in rows)
    table = [heads + (["cost"] if priced else [])]
    for row in rows:
        if not row.measured:
            continue
        gpu = f" + {row.gpu_memory_mb:,.0f} MB" if not math.isnan(row.gpu_memory_mb) else ""
        cells = [
            row.config.label,
            f"{row.images_s:.3g}",
            f"[{row.low:.3g}, {row.high:.3g}]",
            *([clock(row.epoch_s), clock(row.training_s)] if whole else [clock(row.step_s)]),
            _number(row.gflops, 0),
            percent(row.peak_share),
            percent(row.efficiency),
            f"{_number(row.memory_mb, 0)} MB{gpu}",
            _number(row.to_cpu, 2),
            _number(row.to_reference, 2),
        ]
        table.append(cells + ([_number(row.cost, 2)] if priced else []))
    return aligned(table) + [f"{row.config.label}: {row.error}" for row in rows if row.error]


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """A line a row; the first column to the left, the others to the right."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]


def clock(seconds: float) -> str:
    """Seconds in the unit that one reads best, one decimal where it is small."""
    if math.isnan(seconds):
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            value = seconds / size
            return f"{value:.0f} {unit}" if value >= 20 else f"{value:.1f} {unit}"
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def when(entry: Mapping[str, Any]) -> str:
    """In how much training, from the first run to the last, a learning algorithm reached what was wanted of it."""
    seconds, steps = ([at for at in entry[name] if at is not None] for name in ("reached", "reached_steps"))
    if not seconds:
        return "not at all"
    spent = _range([clock(min(seconds)), clock(max(seconds))])
    done = _range([f"{min(steps):,}", f"{max(steps):,}"])
    runs = len(entry["reached"])
    some = f", in {len(seconds)} of {runs} runs" if len(seconds) < runs else ""
    return f"after {spent} ({done} steps{some})"


def _range(ends: Sequence[str]) -> str:
    return " to ".join(dict.fromkeys(ends))


def percent(share: float) -> str:
    """A share as per cent, a dash where there is none."""
    return "-" if math.isnan(share) else f"{share:.0%}"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:,.{digits}f}"
