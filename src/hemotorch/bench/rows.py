"""Config, what is measured; Round, what one process measured of it; Row, what a config came to; to and from JSON."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

#: What a step's time goes to. graph: a step replayed whole, whose parts cannot be told apart. waiting: on a CPU the
#: time in which not all threads worked, whatever for; on a GPU a metric on the host, and what no phase claims.
PHASES = ("data", "augment", "forward", "backward", "optimiser", "graph", "waiting")
TRAINING_FLOPS = 3  #: times those of a forward pass: the backward pass computes two gradients of the same size
D = TypeVar("D")


@dataclass(frozen=True)
class Config:
    """One way to run a training.

    device: "cpu" or "cuda". threads: compute threads a process, 0: the framework's own choice. ranks: processes that
    share a batch. workers: loading processes, of the reference loop only. batch: images a step, over all ranks.
    reference: the loop that the paper's authors had to write.
    """

    label: str
    device: str = "cpu"
    threads: int = 0
    ranks: int = 1
    workers: int = 0
    batch: int = 4
    precision: str = "fp32"
    compile: bool = False
    graphs: bool = False
    reference: bool = False

    @property
    def key(self) -> tuple[Any, ...]:
        """All but the label: two configs of one key are the same measurement."""
        return dataclasses.astuple(replace(self, label=""))

    @property
    def plain(self) -> bool:
        """Eager and fp32, not the reference loop."""
        return not (self.reference or self.compile or self.graphs) and self.precision == "fp32"


@dataclass(frozen=True)
class Spec:
    """What one fresh process is to measure.

    recipe: TOML. pngs: the training slices as the paper's folders, for the reference loop. seconds: how long to measure
    for; at least two steps are. cores: threads that count as all.
    """

    config: Config
    data: str
    recipe: str
    pngs: str = ""
    seconds: float = 10.0
    cores: int = 1


@dataclass(frozen=True)
class Round:
    """What one fresh process measured, of all ranks together.

    step_s: seconds of a step, one entry each (on a GPU: a block of steps each). images: of a step. shares: of a step's
    time, by phase. launch: share of the GPU's phases in which it waited for Python to launch its work, NaN on a CPU.
    image_gflop: of a forward pass of one image. peak_gflops: GFLOP/s of a matrix product with the same threads, ranks
    and precision. machine_gflops: the same with all threads. memory_mb: resident, at most. losses: first and last.
    steps, epochs: of the recipe's own training. storage: where slices lie ("resident", "stream", "png").
    size: rows and columns that the network sees. reasons: the device decisions.
    """

    step_s: tuple[float, ...]
    images: int
    shares: Mapping[str, float] = field(default_factory=dict)
    launch: float = math.nan
    image_gflop: float = math.nan
    peak_gflops: float = math.nan
    machine_gflops: float = math.nan
    memory_mb: float = math.nan
    gpu_memory_mb: float = math.nan
    losses: tuple[float, ...] = ()
    steps: int = 0
    epochs: int = 0
    storage: str = ""
    size: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def images_s(self) -> float:
        """Images a second."""
        return self.images / statistics.median(self.step_s)


@dataclass(frozen=True)
class Row:
    """What a config came to, over its rounds.

    images_s: the median over rounds; low, high: the slowest and fastest round; rounds: all of them. step_s, epoch_s,
    training_s: seconds of a step, an epoch, and the recipe's whole training without validation. gflops: GFLOP/s.
    to_cpu, to_reference: speed-up against one process with all threads of the processor, and against the reference
    loop on the same device. efficiency: against the same work on one thread (CPU) or one GPU, times as many; 1 is
    perfect. cost: of the whole training, in the unit of the price. error: why there is nothing, or less than asked.
    The others are as in Round.
    """

    config: Config
    images_s: float = math.nan
    low: float = math.nan
    high: float = math.nan
    rounds: tuple[float, ...] = ()
    step_s: float = math.nan
    epoch_s: float = math.nan
    training_s: float = math.nan
    shares: Mapping[str, float] = field(default_factory=dict)
    launch: float = math.nan
    gflops: float = math.nan
    peak_gflops: float = math.nan
    machine_gflops: float = math.nan
    memory_mb: float = math.nan
    gpu_memory_mb: float = math.nan
    to_cpu: float = math.nan
    to_reference: float = math.nan
    efficiency: float = math.nan
    cost: float = math.nan
    losses: tuple[float, ...] = ()
    storage: str = ""
    size: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()
    error: str = ""

    @property
    def measured(self) -> bool:
        """Whether at least one round came to an end."""
        return bool(self.rounds)

    @property
    def peak_share(self) -> float:
        """Arithmetic rate as a share of a matrix product's on the same device in the same minute."""
        return self.gflops / self.peak_gflops


def row_of(config: Config, rounds: Sequence[Round], errors: Sequence[str]) -> Row:
    """A config's rounds as one row: medians, the highest memory, the first loss of all and the last."""
    failed = f"{len(errors)} of {len(rounds) + len(errors)} rounds failed: {errors[-1]}" if errors else ""
    if not rounds:
        return Row(config, error=errors[-1] if errors else "not measured: no time left")
    last = rounds[-1]
    rates = tuple(one.images_s for one in rounds)
    rate = statistics.median(rates)
    step = last.images / rate
    return Row(
        config,
        rate,
        min(rates),
        max(rates),
        rates,
        step,
        step * last.steps,
        step * last.steps * last.epochs,
        {phase: middle(one.shares.get(phase, 0.0) for one in rounds) for phase in PHASES} if last.shares else {},
        middle(one.launch for one in rounds),
        rate * TRAINING_FLOPS * last.image_gflop,
        middle(one.peak_gflops for one in rounds),
        middle(one.machine_gflops for one in rounds),
        max(one.memory_mb for one in rounds),
        max(one.gpu_memory_mb for one in rounds),
        losses=(rounds[0].losses[0], last.losses[-1]) if last.losses else (),
        storage=last.storage,
        size=last.size,
        reasons=last.reasons,
        error=failed,
    )


def compared(rows: Sequence[Row], price: float | None = None) -> list[Row]:
    """The rows with what they are compared with: the CPU, the reference loop, one thread or GPU; and their cost.

    price: of an hour. Speed-ups are against the CPU and the reference loop with the first row's batch; efficiency is
    against one thread or GPU with the row's own.
    """

    def images_s(**wanted: Any) -> float:
        found = [one for one in rows if one.measured and _is(one.config, wanted)]
        return found[0].images_s if found else math.nan

    batch = rows[0].config.batch if rows else 0
    plain = {"reference": False, "compile": False, "graphs": False, "ranks": 1}
    threads = max((one.config.threads for one in rows if not one.config.reference), default=0)
    cpu = images_s(device="cpu", threads=threads, batch=batch, **plain)
    done = []
    for row in rows:
        config = row.config
        units = config.ranks * (config.threads if config.device == "cpu" else 1)
        same = {name: getattr(config, name) for name in ("device", "batch", "precision")} | plain
        if config.device == "cpu":
            same["threads"] = 1
        one = images_s(**same) if not config.reference and not config.compile and not config.graphs else math.nan
        done.append(
            replace(
                row,
                to_cpu=row.images_s / cpu,
                to_reference=row.images_s / images_s(device=config.device, reference=True, batch=batch),
                efficiency=row.images_s / (one * units) if units else math.nan,
                cost=row.training_s / 3600 * price if price is not None else math.nan,
            )
        )
    return done


def _is(config: Config, wanted: Mapping[str, Any]) -> bool:
    return all(getattr(config, name) == value for name, value in wanted.items())


def middle(values: Iterable[float]) -> float:
    """The median of those that are numbers, NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def from_json(cls: type[D], values: Mapping[str, Any]) -> D:
    """A dataclass of this file from what JSON made of it: null was NaN, lists were tuples. Unknown keys are dropped."""
    known: dict[str, Any] = {}
    for each in dataclasses.fields(cls):  # type: ignore[arg-type]
        if each.name not in values:
            continue
        value = values[each.name]
        if each.name == "config":
            value = from_json(Config, value)
        elif isinstance(value, list):
            value = tuple(math.nan if entry is None else entry for entry in value)
        known[each.name] = math.nan if value is None else value
    return cls(**known)
