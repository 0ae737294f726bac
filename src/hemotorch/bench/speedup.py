"""What the rows of a bench are compared with: the CPU, the reference loop, one thread or GPU, a matrix product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hemotorch.bench.records import Config, Row, highest

#: Times the slowest round: a machine that does nothing else differs less.
UNSTEADY = 1.3


def compared(rows: Sequence[Row], cores: int, price: float | None = None) -> list[Row]:
    """The rows with their speed-ups, efficiency, share of the peak, and cost.

    The CPU's row has all threads, fp32 and the first row's batch; reference loop, thread or GPU have the row's own
    batch. All rows on as many cores or GPUs in the same precision have the same peak: the highest of theirs.

    Args:
        rows: as measured.
        cores: of the machine.
        price: of an hour.
    """
    if not rows:
        return []
    cpu = Config("", "cpu", cores, batch=rows[0].config.batch)
    return [_compared(row, rows, cpu, price) for row in rows]


def _compared(row: Row, rows: Sequence[Row], cpu: Config, price: float | None) -> Row:
    config, cores = row.config, cpu.threads
    eager = replace(config, ranks=1, workers=0, compile=False, graphs=False)
    reference = images_s(rows, replace(eager, reference=True), anything=("precision", "threads"))
    one_unit = replace(config, ranks=1, reference=False)
    if config.device == "cpu":
        alone = images_s(rows, replace(one_unit, threads=1))
    else:
        alone = images_s(rows, one_unit, anything=("threads",))
    # Each process measured its peak in its own minute, and several cores share their clock: the highest is the one that
    # the machine can do.
    peaks = []
    for other in rows:
        if _peak_of(other.config, cores) == _peak_of(config, cores):
            peaks += [each.peak_gflops for each in other.rounds]
    return replace(
        row,
        peak_gflops=highest(peaks),
        to_cpu=row.images_s / images_s(rows, cpu),
        to_reference=row.images_s / reference,
        efficiency=math.nan if config.reference else row.images_s / (alone * config.units(cores)),
        cost=math.nan if price is None else row.training_s / 3600 * price,
    )


def images_s(rows: Sequence[Row], wanted: Config, anything: Sequence[str] = ()) -> float:
    """Images per second of the first row that was measured so; NaN if none was.

    anything: names of fields of which any value will do.
    """
    free: dict[str, Any] = {name: getattr(wanted, name) for name in anything}
    for row in rows:
        if row.measured and replace(row.config, **free).key == wanted.key:
            return row.images_s
    return math.nan


def _peak_of(config: Config, cores: int) -> tuple[str, int, str]:
    """What rows of the same peak have in common."""
    return config.device, config.units(cores), config.precision


def unsteady(rows: Sequence[Row]) -> str:
    """A word of warning if rounds differ more than a machine that does nothing else would let them."""
    spread = max((row.high / row.low for row in rows if row.measured), default=1.0)
    rounds = max((len(row.rounds) for row in rows), default=0)
    if spread >= UNSTEADY:
        return (
            f"This machine was not steady: the fastest round of a config is up to {spread:.1f} times the slowest. "
            "Measure again while nothing else runs."
        )
    return "Measured once: nothing tells noise from a difference." if rounds == 1 else ""
