"""Which configs are measured: on a CPU and on GPUs, the reference loop, and what --sweep asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hemotorch.bench.rows import Config
from hemotorch.errors import OptionError, nearest

SWEEPS = ("batch", "threads", "workers", "ranks")  #: what --sweep can vary
LEAST = {"batch": 1, "threads": 1, "workers": 0, "ranks": 1}
MOST = 4096
EXAMPLE = "for example --sweep batch=1..32 threads=1,2 workers=0..2"


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
class Scope:
    """What is to be measured, and on what.

    batch: images a step. shared: those of one pass, which ranks share evenly: fewer, where a step has several passes.
    reference: whether the reference loop can train the recipe.
    """

    machine: Machine
    devices: tuple[str, ...]
    batch: int
    shared: int
    reference: bool = False
    quick: bool = False


def parse_devices(text: str) -> list[str]:
    """The devices that `--device cpu,cuda` names; auto names none. Raises OptionError."""
    if text == "auto":
        return []
    wanted = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in wanted:
        if name not in ("cpu", "cuda"):
            raise OptionError(f"unknown device '{name}'", "--device", "use cpu, cuda, cpu,cuda or auto")
    return wanted


def devices_of(wanted: Sequence[str], machine: Machine) -> list[str]:
    """Those devices, or all that are there where none was named. Raises OptionError."""
    if not wanted:
        return ["cpu", "cuda"] if machine.gpus else ["cpu"]
    if "cuda" in wanted and not machine.gpus:
        raise OptionError("'cuda' was asked for, but torch finds no CUDA GPU", "--device", "use --device cpu or auto")
    return list(wanted)


def base_configs(scope: Scope) -> tuple[list[Config], list[str]]:
    """What every `bench train` measures; and what was left out, in words."""
    found: list[Config] = []
    left: list[str] = []
    for device in scope.devices:
        if scope.reference:
            found.append(_reference(device, scope))
        one, many = _on_cpu(scope) if device == "cpu" else _on_gpus(scope)
        if device == "cpu" and scope.machine.compiler and scope.quick:
            left.append("compiling on a CPU, which takes a minute or two a round: measured without --quick")
        found += one
        for config in many:
            if why := _why_no_ranks(config.ranks, device, scope):
                left.append(why)
            else:
                found.append(config)
    return unique(found, scope.batch), list(dict.fromkeys(left))


def usual(scope: Scope) -> dict[str, Config]:
    """What sweeps vary of each device: all cores, and on a GPU what the engine chooses there."""
    machine = scope.machine
    one = Config("", threads=machine.cores, batch=scope.batch)
    ways: dict[str, Any] = {"precision": machine.precision, "compile": machine.compiled, "graphs": machine.graphs}
    return {"cpu": one, "cuda": replace(one, device="cuda", **ways)}


def _reference(device: str, scope: Scope) -> Config:
    # What the framework does unless told otherwise: on a GPU that has TF32, its convolutions use it.
    usual = "tf32" if device == "cuda" and "tf32" in scope.machine.precisions else "fp32"
    return Config("", device, batch=scope.batch, precision=usual, reference=True)


def _on_cpu(scope: Scope) -> tuple[list[Config], list[Config]]:
    """One process, and several."""
    cores = scope.machine.cores
    one = usual(scope)["cpu"]
    found = [replace(one, threads=1), one]
    if scope.machine.compiler and not scope.quick:
        found.append(replace(one, compile=True))
    return found, [
        replace(one, threads=cores // ranks, ranks=ranks) for ranks in sorted({2, cores}) if 1 < ranks <= cores
    ]


def _on_gpus(scope: Scope) -> tuple[list[Config], list[Config]]:
    """One GPU, and all."""
    machine = scope.machine
    best = usual(scope)["cuda"]
    eager = replace(best, precision="fp32", compile=False, graphs=False)
    if scope.quick:
        return [eager, replace(eager, precision=best.precision), best], []
    found = [
        replace(eager, precision=precision, compile=compiled, graphs=graphs)
        for precision in machine.precisions
        for compiled in ((False, True) if machine.compiled else (False,))
        for graphs in ((False, True) if precision != "fp16" else (False,))  # scaled gradients are not captured
    ]
    if machine.gpus == 1:
        return found, []
    many = replace(eager, ranks=machine.gpus, threads=max(1, machine.cores // machine.gpus))
    return found, [replace(many, precision=name) for name in dict.fromkeys(("fp32", machine.precision))]


def parse_sweep(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """`name=1..32` (both ends and the powers of two between them) or `name=1,2,3`, a name each. Raises OptionError."""
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals:
            raise OptionError(f"'{text}' is not NAME=VALUES", "--sweep", EXAMPLE)
        if name not in SWEEPS:
            raise OptionError(f"cannot vary '{name}'", "--sweep", nearest(name, SWEEPS))
        if name in found:
            raise OptionError(f"names {name} twice", "--sweep", EXAMPLE)
        first, dots, last = values.partition("..")
        if dots:
            low, high = _whole(first, text, name), _whole(last, text, name)
            if low > high:
                raise OptionError(f"'{text}' runs backwards", "--sweep", f"write {name}={high}..{low}")
            powers = (2**n for n in range(13))
            found[name] = (low, *(one for one in powers if low < one < high), *([high] if high > low else []))
        else:
            found[name] = tuple(sorted({_whole(part, text, name) for part in values.split(",")}))
    return found


def _whole(text: str, where: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or not LEAST[name] <= int(text) <= MOST:
        wanted = f"whole numbers from {LEAST[name]} to {MOST}"
        raise OptionError(f"'{where}' does not give {wanted}", "--sweep", EXAMPLE)
    return int(text)


def sweep_configs(
    sweep: Mapping[str, Sequence[int]], scope: Scope, around: Mapping[str, Config]
) -> tuple[dict[str, list[Config]], list[str]]:
    """The configs of each name that is varied, one at a time around each device's config in `around`; and what was left
    out, in words.

    Threads are a CPU's; workers are the reference loop's, the only one that has them. Processes on a CPU have one
    thread each, so that more of them use more cores.
    """
    found: dict[str, list[Config]] = {}
    left: list[str] = []
    if "workers" in sweep and not scope.reference:
        left.append("workers: only the reference loop has them, and it cannot train this recipe")
    if "threads" in sweep and "cpu" not in scope.devices:
        left.append("threads: they are varied on a CPU only")
    for name, values in sweep.items():
        for device in scope.devices:
            if (name == "workers" and not scope.reference) or (name == "threads" and device != "cpu"):
                continue
            for value in values:
                why = _why_no_ranks(value, device, scope) if name == "ranks" else ""
                if name == "threads" and value > scope.machine.cores:
                    why = f"{value} threads: this machine has {_many(scope.machine.cores, 'core')}"
                if why:
                    left.append(why)
                else:
                    found.setdefault(name, []).append(_varied(around[device], name, value, scope))
    return {name: unique(configs, scope.batch) for name, configs in found.items()}, list(dict.fromkeys(left))


def _varied(base: Config, name: str, value: int, scope: Scope) -> Config:
    changed: dict[str, Any] = {name: value}
    if name == "workers":
        base = _reference(base.device, scope)
    elif name == "ranks" and base.device == "cpu":
        changed["threads"] = 1
    elif name == "ranks":
        # Several ranks talk within a step, which no graph takes.
        changed |= {"threads": max(1, scope.machine.cores // value), "graphs": False}
    return replace(base, **changed)


def _why_no_ranks(ranks: int, device: str, scope: Scope) -> str:
    """Why there cannot be so many, or ""."""
    most, kind = (scope.machine.cores, "core") if device == "cpu" else (scope.machine.gpus, "GPU")
    who = _many(ranks, "process" if device == "cpu" else "GPU")
    if ranks > most:
        return f"{who}: this machine has {_many(most, kind)}"
    return f"{who}: they cannot share a batch of {scope.shared} evenly" if scope.shared % ranks else ""


def unique(configs: Iterable[Config], batch: int) -> list[Config]:
    """Each measurement once, named; another batch than this one is part of the name."""
    named = {config.key: replace(config, label=label(config, batch)) for config in configs}
    return list(named.values())


def label(config: Config, batch: int) -> str:
    """A config in words; its batch too, if it is another one than this."""
    where = "CPU" if config.device == "cpu" else "GPU"
    if config.reference:
        parts = ["reference loop", where, _many(config.workers, "worker") if config.workers else ""]
    elif config.device == "cpu":
        threads = _many(config.threads, "thread")
        parts = ["CPU", f"{config.ranks} processes of {threads}" if config.ranks > 1 else threads]
        parts.append("" if config.precision == "fp32" else config.precision)
    else:
        parts = [
            f"{config.ranks} GPUs" if config.ranks > 1 else "GPU",
            config.precision.replace("tf32", "TF32"),
        ]
    parts += ["compiled" if config.compile else "", "graphs" if config.graphs else ""]
    parts.append(f"batch {config.batch}" if config.batch != batch else "")
    return ", ".join(part for part in parts if part)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"
