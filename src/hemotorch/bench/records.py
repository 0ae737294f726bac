"""What is measured and what came of it, as bench.json keeps it: Config and Spec, Round, Row and Curve, Bench."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError, field_validator
from pydantic.dataclasses import dataclass

from hemotorch import __version__
from hemotorch.errors import InputError
from hemotorch.system.files import jsonable, read_json

FORMAT = 2  #: of bench.json
FILE = "bench.json"
#: What a step's time goes to. graph: a step replayed whole, whose phases cannot be told apart. waiting: on a CPU the
#: time in which not all threads were busy, whatever for; on a GPU a metric on the host, and what no phase claims.
PHASES = ("data", "augment", "forward", "backward", "optimiser", "graph", "waiting")
#: FLOP of a training step, times those of a forward pass: the backward pass computes two gradients of the same size.
TRAINING_FLOPS = 3
#: Load per core at the start of a bench from which on it was not alone on its machine.
BUSY = 0.5

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]  #: JSON's null is NaN


@dataclass(frozen=True)
class Machine:
    """What there is to measure on.

    compiler: whether torch.compile works on the CPU. precisions: of the GPU, from the exact one to the one that the
    engine chooses there. compiled, graphs: what it chooses too.
    """

    cores: int = 1
    gpus: int = 0
    compiler: bool = False
    precisions: tuple[str, ...] = ("fp32",)
    compiled: bool = False
    graphs: bool = False

    @property
    def precision(self) -> str:
        """That the engine chooses on the GPU."""
        return self.precisions[-1]


@dataclass(frozen=True)
class Config:
    """One way to run a training, or a prediction.

    device: "cpu" or "cuda". threads: compute threads per process, 0: the framework's own choice. ranks: processes that
    share a batch. workers: loading processes, of the reference loop only. batch: images per step, over all ranks.
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
        """How many cores, or GPUs, it uses on a machine of `cores`; by its own choice the framework takes them all."""
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

    step_s: seconds of each step (on a GPU: of each block of steps); of a prediction, of the whole process. images: per
    step. shares: of a step's time, by phase. launch: share of the GPU's phases in which it waited for Python to launch
    its work, NaN on a CPU. image_gflop: of a forward pass of one image. peak_gflops: GFLOP/s of a matrix product with
    the same threads, ranks and precision. memory_mb: the most that was held, in 10^6 bytes as everywhere here. losses:
    of the very first step, and the mean over the later half of the timed blocks. steps, epochs: of the recipe's own
    training. storage: where slices lie ("resident", "stream", "png"). size: rows and columns that the network sees.
    reasons: the device decisions.
    """

    step_s: tuple[float, ...]
    images: int
    shares: Mapping[str, Number] = dataclasses.field(default_factory=dict)
    launch: Number = math.nan
    image_gflop: Number = math.nan
    peak_gflops: Number = math.nan
    memory_mb: Number = math.nan
    gpu_memory_mb: Number = math.nan
    losses: tuple[Number, ...] = ()
    steps: int = 0
    epochs: int = 0
    storage: str = ""
    size: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Of a step, the median."""
        return middle(self.step_s)

    @property
    def images_s(self) -> float:
        """Images per second; NaN if there are none."""
        return self.images / self.seconds if self.images and self.seconds else math.nan


NO_ROUND = Round((), 0)


@dataclass(frozen=True)
class Row:
    """A config with its rounds, and what it is compared with; NaN if that is not known.

    error: why there are no rounds, or fewer than wanted. peak_gflops: of a matrix product on as many cores or GPUs in
    the same precision. to_cpu, to_reference: speed-up against one process with all threads of the processor, and
    against the reference loop on the same device. efficiency: against the same work on one thread (CPU) or one GPU,
    times as many; 1 is perfect. cost: of the whole training, in the unit of the price.
    """

    config: Config
    rounds: tuple[Round, ...] = ()
    error: str = ""
    peak_gflops: Number = math.nan
    to_cpu: Number = math.nan
    to_reference: Number = math.nan
    efficiency: Number = math.nan
    cost: Number = math.nan

    @property
    def measured(self) -> bool:
        """Whether at least one round came to an end."""
        return bool(self.rounds)

    @property
    def last(self) -> Round:
        """The last round, for what is the same in all of them; an empty one if there is none."""
        return self.rounds[-1] if self.rounds else NO_ROUND

    @property
    def rates(self) -> tuple[float, ...]:
        """Images per second in each round."""
        return tuple(each.images_s for each in self.rounds)

    @property
    def images_s(self) -> float:
        """Images per second: the median over rounds."""
        return middle(self.rates)

    @property
    def low(self) -> float:
        """Images per second of the slowest round."""
        return min(self.rates, default=math.nan)

    @property
    def high(self) -> float:
        """Images per second of the fastest round."""
        return max(self.rates, default=math.nan)

    @property
    def step_s(self) -> float:
        """Seconds of a step, the median over rounds."""
        return middle(each.seconds for each in self.rounds)

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
        return {phase: middle(each.shares.get(phase, 0.0) for each in self.rounds) for phase in self.last.shares}

    @property
    def launch(self) -> float:
        """As in Round: the median over rounds."""
        return middle(each.launch for each in self.rounds)

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
        return highest(each.memory_mb for each in self.rounds)

    @property
    def gpu_memory_mb(self) -> float:
        """The most that any round held of a GPU's memory."""
        return highest(each.gpu_memory_mb for each in self.rounds)

    @property
    def losses(self) -> tuple[float, ...]:
        """The first loss of all and the last."""
        return (*self.rounds[0].losses[:1], *self.last.losses[-1:]) if self.rounds else ()

    def to_json(self) -> dict[str, Any]:
        """The row with all that follows from its rounds, for bench.json."""
        return asdict(self) | {name: getattr(self, name) for name in FIGURES}


#: What bench.json says of a row beside its own fields.
FIGURES = (
    *("images_s", "low", "high", "step_s", "epoch_s", "training_s", "shares", "launch", "gflops", "peak_share"),
    *("memory_mb", "gpu_memory_mb", "losses"),
)


@dataclass(frozen=True)
class Curve:
    """How an algorithm learned, at each look the median over runs with seeds of their own.

    steps, seconds: at each look, looking not counted. loss: mean since the last look. value: accuracy or Dice, by
    value_name, on what was not trained on. ends: the last value of each run. wanted: nine tenths of the best value that
    any curve of the task has; reached, reached_steps: the seconds and steps after which each run had it, None if never.
    """

    task: str
    algorithm: str
    device: str
    lr: float
    value_name: str
    note: str
    steps: tuple[int, ...]
    seconds: tuple[float, ...]
    loss: tuple[float, ...]
    value: tuple[float, ...]
    ends: tuple[float, ...] = ()
    wanted: float = math.nan
    reached: tuple[float | None, ...] = ()
    reached_steps: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class Bench:
    """What was measured, on what, and what it came to.

    kind: "train", "predict" or "mlp". sentence: the bottleneck. settings: what must be the same for two of them to be
    compared (recipe, data, quick, ...). sweeps: what was varied -> device -> numbers of its rows. curves: of learning
    algorithms. warnings: what makes the figures less than they seem, said first; notes: what was left out or made up.
    """

    kind: str
    sentence: str
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    rows: tuple[Row, ...]
    sweeps: Mapping[str, Mapping[str, tuple[int, ...]]] = dataclasses.field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @field_validator("environment")
    @classmethod
    def _check_numbers(cls, environment: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in ("cores", "load_before"):
            if not isinstance(environment.get(name) or 0, (int, float)):
                raise ValueError(f"{name} is no number")
        return environment

    def to_json(self) -> dict[str, Any]:
        """For bench.json."""
        rows = [row.to_json() for row in self.rows]
        return dict(jsonable({"format": FORMAT, "hemotorch": __version__, **asdict(self), "rows": rows}))


def read_bench(path: Path | str) -> Bench:
    """A result from bench.json, or from the folder that it is in.

    Raises:
        InputError: if it is none, of another format, or damaged.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    values = read_json(path)
    if not isinstance(values, dict) or not {"format", "kind", "rows", "settings", "environment"} <= values.keys():
        raise InputError("is not a bench's result", path, "name the bench.json of `hemotorch bench`")
    if values["format"] != FORMAT:
        raise InputError(f"has format {values['format']}; this hemotorch reads {FORMAT}", path, "measure again")
    try:
        return TypeAdapter(Bench).validate_python(values)
    except ValidationError as error:
        raise InputError("is damaged", path, "measure again") from error


def busy(environment: Mapping[str, Any], who: str = "This measurement") -> str:
    """A word of warning if other work ran on the machine before it began, else ""."""
    load, cores = environment.get("load_before") or 0, environment.get("cores") or 1
    if load <= BUSY * cores:
        return ""
    return f"{who} was not alone on its machine: a load of {load:g} on {cores} cores before it began."


def middle(values: Iterable[float]) -> float:
    """The median of those that are numbers, NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def highest(values: Iterable[float]) -> float:
    """The highest of those that are numbers, NaN without any."""
    return max((value for value in values if not math.isnan(value)), default=math.nan)
