"""Which configs are measured: on a CPU and on GPUs, the reference loop, and what --sweep asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hemotorch.bench.rows import Config
from hemotorch.errors import OptionError, nearest

SWEEPS = ("batch", "threads", "workers", "ranks")  #: what --sweep can vary
LEAST = {"batch": 1, "threads": 1, "workers": 0, "ranks": 1}
MOST = 4096
PRECISIONS = {"fp32": "fp32", "tf32": "TF32", "bf16": "bf16"}  #: of a GPU, and how one writes them
EXAMPLE = "for example --sweep batch=1..32 threads=1,2 workers=0..2"


@dataclass(frozen=True)
class Machine:
    """What there is to measure on. bf16: whether the GPU has it; compiler: whether torch.compile works on the CPU."""

    cores: int = 1
    gpus: int = 0
    bf16: bool = False
    compiler: bool = False


def devices_of(text: str, machine: Machine) -> list[str]:
    """The devices of `--device cpu,cuda` (auto: all that are there). Raises OptionError."""
    if text == "auto":
        return ["cpu", "cuda"] if machine.gpus else ["cpu"]
    wanted = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in wanted:
        if name not in ("cpu", "cuda"):
            raise OptionError(f"unknown device '{name}'", "--device", "use cpu, cuda, cpu,cuda or auto")
    if "cuda" in wanted and not machine.gpus:
        raise OptionError("'cuda' was asked for, but torch finds no CUDA GPU", "--device", "use --device cpu or auto")
    return wanted


def base_configs(devices: Sequence[str], machine: Machine, batch: int, reference: bool, quick: bool) -> list[Config]:
    """What every `bench train` measures. reference: whether the reference loop can train the recipe."""
    found = []
    for device in devices:
        if reference:
            found.append(_reference(device, batch))
        found += _on_cpu(machine, batch, quick) if device == "cpu" else _on_gpus(machine, batch)
    return unique(found, batch)


def _reference(device: str, batch: int) -> Config:
    # What the framework does unless told otherwise: on a GPU its convolutions use TF32.
    return Config("", device, batch=batch, precision="tf32" if device == "cuda" else "fp32", reference=True)


def _on_cpu(machine: Machine, batch: int, quick: bool) -> list[Config]:
    cores = machine.cores
    found = [Config("", threads=1, batch=batch), Config("", threads=cores, batch=batch)]
    # Compiling takes a minute or two for each round: not for those in a hurry.
    if machine.compiler and not quick:
        found.append(Config("", threads=cores, batch=batch, compile=True))
    for ranks in sorted({2, cores}):
        if 1 < ranks <= cores and batch % ranks == 0:
            found.append(Config("", threads=cores // ranks, ranks=ranks, batch=batch))
    return found


def _on_gpus(machine: Machine, batch: int) -> list[Config]:
    precisions = [name for name in PRECISIONS if name != "bf16" or machine.bf16]
    ways = [(compiled, graphs) for compiled in (False, True) for graphs in (False, True)]
    one = Config("", "cuda", threads=machine.cores, batch=batch)
    found = [
        replace(one, precision=precision, compile=compiled, graphs=graphs)
        for precision in precisions
        for compiled, graphs in ways
    ]
    ranks = machine.gpus
    if ranks > 1 and batch % ranks == 0:
        threads = max(1, machine.cores // ranks)
        found += [
            replace(one, precision=name, ranks=ranks, threads=threads) for name in (precisions[0], precisions[-1])
        ]
    return found


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
    sweep: dict[str, tuple[int, ...]], devices: Sequence[str], machine: Machine, batch: int, reference: bool
) -> tuple[dict[str, list[Config]], list[str]]:
    """The configs of each name that is varied, one at a time around the plain config of each device; and what was left
    out, in words. Threads are a CPU's; workers are the reference loop's, the only one that has them."""
    found: dict[str, list[Config]] = {}
    left: list[str] = []
    for name, values in sweep.items():
        if name == "workers" and not reference:
            left.append("workers: only the reference loop has them, and it cannot train this recipe")
            continue
        for device in devices:
            if name == "threads" and device == "cuda":
                continue
            base = Config("", device, machine.cores, batch=batch)
            if name == "workers":
                base = _reference(device, batch)
            for value in values:
                if name == "ranks" and (why := _why_no_ranks(value, device, machine, batch)):
                    left.append(f"ranks={value}: {why}")
                    continue
                threads = max(1, machine.cores // value) if name == "ranks" else base.threads
                changed: dict[str, Any] = {"threads": threads, name: value}
                found.setdefault(name, []).append(replace(base, **changed))
    return {name: unique(configs, batch) for name, configs in found.items()}, left


def _why_no_ranks(ranks: int, device: str, machine: Machine, batch: int) -> str:
    most = machine.cores if device == "cpu" else machine.gpus
    if ranks > most:
        return f"this machine has {most} {'cores' if device == 'cpu' else 'GPUs'}"
    return f"a batch of {batch} is not shared evenly" if batch % ranks else ""


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
        parts = [f"{config.ranks} GPUs" if config.ranks > 1 else "GPU", PRECISIONS.get(config.precision, "")]
    parts += ["compiled" if config.compile else "", "graphs" if config.graphs else ""]
    parts.append(f"batch {config.batch}" if config.batch != batch else "")
    return ", ".join(part for part in parts if part)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
