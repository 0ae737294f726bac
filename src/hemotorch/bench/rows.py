"""Config, what is measured; Round, what one process measured of it; Row, a config with its rounds; to and from JSON."""

from __future__ import annotations

import dataclasses
import math
import statistics
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar, get_type_hints

#: What a step's time goes to. graph: a step replayed whole, whose parts cannot be told apart. waiting: on a CPU the
#: time in which not all threads were busy, whatever for; on a GPU a metric on the host, and what no phase claims.
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

    def units(self, cores: int) -> int:
        """How many cores, or GPUs, it uses on a machine of `cores`; of its own choice the framework takes them all."""
        return self.ranks * ((self.threads or cores) if self.device == "cpu" else 1)


@dataclass(frozen=True)
class Spec:
    """What one fresh process is to measure.

    recipe: TOML. pngs: the training slices as the paper's folders, for the reference loop. seconds: how long to measure
    for; at least two steps are.
    """

    config: Config
    data: str
    recipe: str
    pngs: str = ""
    seconds: float = 10.0


@dataclass(frozen=True)
class Round:
    """What one fresh process measured, of all ranks together.

    step_s: seconds of a step, one entry each (on a GPU: a block of steps each). images: of a step. shares: of a step's
    time, by phase. launch: share of the GPU's phases in which it waited for Python to launch its work, NaN on a CPU.
    image_gflop: of a forward pass of one image. peak_gflops: GFLOP/s of a matrix product with the same threads, ranks
    and precision. memory_mb: the most that was held, in 10^6 bytes as everywhere here. losses: of the very first
    step, and the mean over the later half of the timed blocks. steps, epochs: of the recipe's own training. storage:
    where slices lie ("resident", "stream", "png"). size: rows and columns that the network sees. reasons: the device
    decisions.
    """

    step_s: tuple[float, ...]
    images: int
    shares: Mapping[str, float] = field(default_factory=dict)
    launch: float = math.nan
    image_gflop: float = math.nan
    peak_gflops: float = math.nan
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
    """A config with its rounds, and what it is compared with; NaN where that is not known.

    error: why there are no rounds, or fewer than asked. peak_gflops: of a matrix product on as many cores or GPUs in
    the same precision. to_cpu, to_reference: speed-up against one process with all threads of the processor, and
    against the reference loop on the same device. efficiency: against the same work on one thread (CPU) or one GPU,
    times as many; 1 is perfect. cost: of the whole training, in the unit of the price.
    """

    config: Config
    rounds: tuple[Round, ...] = ()
    error: str = ""
    peak_gflops: float = math.nan
    to_cpu: float = math.nan
    to_reference: float = math.nan
    efficiency: float = math.nan
    cost: float = math.nan

    @property
    def measured(self) -> bool:
        """Whether at least one round came to an end."""
        return bool(self.rounds)

    @property
    def last(self) -> Round:
        """The last round, for what is the same in all of them; an empty one where there is none."""
        return self.rounds[-1] if self.rounds else Round((), 0)

    @property
    def rates(self) -> tuple[float, ...]:
        """Images a second in each round."""
        return tuple(one.images_s for one in self.rounds)

    @property
    def images_s(self) -> float:
        """Images a second: the median over rounds."""
        return middle(self.rates)

    @property
    def low(self) -> float:
        """Images a second of the slowest round."""
        return min(self.rates, default=math.nan)

    @property
    def high(self) -> float:
        """Images a second of the fastest round."""
        return max(self.rates, default=math.nan)

    @property
    def step_s(self) -> float:
        """Seconds of a step."""
        return self.last.images / self.images_s

    @property
    def epoch_s(self) -> float:
        """Seconds of an epoch of the recipe, without validation."""
        return self.step_s * self.last.steps

    @property
    def training_s(self) -> float:
        """Seconds of the recipe's whole training, without validation."""
        return self.epoch_s * self.last.epochs

    @property
    def shares(self) -> dict[str, float]:
        """Of a step's time, by phase: the medians over rounds."""
        phases = PHASES if self.last.shares else ()
        return {phase: middle(one.shares.get(phase, 0.0) for one in self.rounds) for phase in phases}

    @property
    def launch(self) -> float:
        """As in Round: the median over rounds."""
        return middle(one.launch for one in self.rounds)

    @property
    def gflops(self) -> float:
        """GFLOP/s."""
        return self.images_s * TRAINING_FLOPS * self.last.image_gflop

    @property
    def peak_share(self) -> float:
        """Arithmetic rate as a share of a matrix product's."""
        return self.gflops / self.peak_gflops

    @property
    def memory_mb(self) -> float:
        """The most that any round held."""
        return highest(one.memory_mb for one in self.rounds)

    @property
    def gpu_memory_mb(self) -> float:
        """The most that any round held of a GPU's memory."""
        return highest(one.gpu_memory_mb for one in self.rounds)

    @property
    def losses(self) -> tuple[float, ...]:
        """The first loss of all and the last."""
        return (*self.rounds[0].losses[:1], *self.last.losses[-1:]) if self.rounds else ()

    def to_json(self) -> dict[str, Any]:
        """The row with all that follows from its rounds, for bench.json."""
        return {**asdict(self), **{name: getattr(self, name) for name in FIGURES}}


#: What bench.json says of a row beside its own fields.
FIGURES = (
    *("images_s", "low", "high", "step_s", "epoch_s", "training_s", "shares", "launch", "gflops", "peak_share"),
    *("memory_mb", "gpu_memory_mb", "losses"),
)


def row_of(config: Config, rounds: Sequence[Round], errors: Sequence[str]) -> Row:
    """A config's row: its rounds, and what is said of those that failed."""
    error = errors[-1] if errors else "" if rounds else "not measured: no time left"
    if rounds and errors:
        error = f"{len(errors)} of {len(rounds) + len(errors)} rounds failed: {error}"
    return Row(config, tuple(rounds), error)


def compared(rows: Sequence[Row], cores: int, price: float | None = None) -> list[Row]:
    """The rows with what they are compared with: the CPU, the reference loop, one thread or GPU, a matrix product; and
    their cost.

    cores: of the machine. price: of an hour. The CPU's row has all threads, fp32 and the first row's batch; reference
    loop, thread or GPU have the row's own batch. All rows on as many cores or GPUs in the same precision have the same
    peak: the highest that any of them measured.
    """

    def images_s(**wanted: Any) -> float:
        found = [one for one in rows if one.measured and _is(one.config, wanted)]
        return found[0].images_s if found else math.nan

    alone: dict[str, Any] = {"ranks": 1, "reference": False}
    eager: dict[str, Any] = {"precision": "fp32", "compile": False, "graphs": False}
    cpu = images_s(device="cpu", threads=cores, batch=rows[0].config.batch, **alone, **eager) if rows else math.nan
    peaks: dict[tuple[Any, ...], float] = {}
    for row in rows:
        for one in row.rounds:
            alike = _alike(row.config, cores)
            peaks[alike] = highest((peaks.get(alike, math.nan), one.peak_gflops))
    done = []
    for row in rows:
        config = row.config
        same = {name: getattr(config, name) for name in ("device", "batch", "precision", "compile", "graphs")} | alone
        if config.device == "cpu":
            same["threads"] = 1
        one_unit = math.nan if config.reference else images_s(**same)
        reference = images_s(device=config.device, reference=True, workers=0, batch=config.batch)
        done.append(
            replace(
                row,
                peak_gflops=peaks.get(_alike(config, cores), math.nan),
                to_cpu=row.images_s / cpu,
                to_reference=row.images_s / reference,
                efficiency=row.images_s / (one_unit * config.units(cores)),
                cost=row.training_s / 3600 * price if price is not None else math.nan,
            )
        )
    return done


def _alike(config: Config, cores: int) -> tuple[Any, ...]:
    """What rows of the same peak have in common."""
    return config.device, config.units(cores), config.precision


def _is(config: Config, wanted: Mapping[str, Any]) -> bool:
    return all(getattr(config, name) == value for name, value in wanted.items())


def middle(values: Iterable[float]) -> float:
    """The median of those that are numbers, NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def highest(values: Iterable[float]) -> float:
    """The highest of those that are numbers, NaN without any."""
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def from_json(cls: type[D], values: Mapping[str, Any]) -> D:
    """A dataclass of this file from what JSON made of it: null was NaN, lists were tuples. Unknown keys are dropped.

    Raises TypeError where a value is not of its type.
    """
    known: dict[str, Any] = {}
    hints = get_type_hints(cls)
    for each in dataclasses.fields(cls):  # type: ignore[arg-type]
        if each.name not in values:
            continue
        value = values[each.name]
        if each.name == "config":
            value = from_json(Config, value)
        elif each.name == "rounds":
            value = tuple(from_json(Round, one) for one in value)
        elif isinstance(value, list):
            value = tuple(math.nan if entry is None else entry for entry in value)
        known[each.name] = value = math.nan if value is None else value
        if not _fits(value, hints[each.name]):
            raise TypeError(f"{each.name} is {value!r}")
    return cls(**known)


def _fits(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(entry, typing.get_args(hint)[0]) for entry in value)
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint if hint in (int, bool, str) else True
