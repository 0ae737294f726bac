"""The rows of a bench as a table, for its page and for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from hemotorch import NOTICE
from hemotorch.bench.predict import PHASES as WAITED_FOR
from hemotorch.bench.records import Bench, Row
from hemotorch.report.pages.numbers import DASH, duration, number, percent, rate
from hemotorch.report.pages.table import Cell, Column, Table, table, text_lines

LABEL = Column("", lambda row: row.config.label)
RATE = Column("images/s", lambda row: Cell(rate(row.images_s), beneath=f"{rate(row.low)} to {rate(row.high)}"))
TRAINING = Column("training", lambda row: Cell(duration(row.training_s), beneath=f"{duration(row.epoch_s)} per epoch"))
STEP = Column("a step", lambda row: duration(row.step_s))
ARITHMETIC = (
    Column("GFLOP/s", lambda row: number(row.gflops, 0)),
    Column("of peak", lambda row: percent(row.peak_share)),
    Column("efficiency", lambda row: percent(row.efficiency)),
)
MEMORY = Column("memory, GB", lambda row: _memory(row))
TO_CPU = Column("× CPU", lambda row: number(row.to_cpu))
TO_REFERENCE = Column("× reference", lambda row: number(row.to_reference))
COST = Column("cost", lambda row: number(row.cost))


def bench_table(bench: Bench) -> Table:
    """A row for each config that was measured."""
    rows = [row for row in bench.rows if row.measured]
    return table(_columns(bench.kind, rows), rows)


def _columns(kind: str, rows: Sequence[Row]) -> list[Column]:
    if kind == "predict":
        phases = [Column(phase, _seconds_of(phase)) for phase in WAITED_FOR]
        return [LABEL, Column("seconds", _whole_process), *phases, MEMORY]
    columns = [LABEL, RATE, TRAINING if kind == "train" else STEP, *ARITHMETIC, MEMORY, TO_CPU]
    if any(row.config.reference for row in rows):
        columns.append(TO_REFERENCE)
    if any(not math.isnan(row.cost) for row in rows):
        columns.append(COST)
    return columns


def _seconds_of(phase: str) -> Callable[[Row], str]:
    return lambda row: number(row.shares[phase] * row.step_s) if row.shares.get(phase) else DASH


def _whole_process(row: Row) -> Cell:
    seconds = [each.seconds for each in row.rounds]
    return Cell(number(row.step_s), beneath=f"{number(min(seconds))} to {number(max(seconds))}")


def _memory(row: Row) -> str:
    main, gpu = number(row.memory_mb / 1000, 1), number(row.gpu_memory_mb / 1000, 1)
    return main if gpu == DASH else f"{main} + {gpu}"


def bench_lines(bench: Bench) -> list[str]:
    """The table and the sentence for a terminal."""
    failed = [f"{row.config.label}: {row.error}" for row in bench.rows if row.error]
    lines = [*text_lines(bench_table(bench)), *failed, "", *bench.notes, *bench.warnings, bench.sentence]
    return [*lines, NOTICE] if bench.kind == "predict" else lines
