"""Which configs are measured: on a CPU and on GPUs, the reference loop, and what --sweep asks for."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hemotorch.bench.records import Config, Machine
from hemotorch.errors import OptionError, nearest

#: What --sweep can vary, and the least of each.
SWEEPS = {"batch": 1, "threads": 1, "workers": 0, "ranks": 1}
MOST = 4096
EXAMPLE = "for example --sweep batch=1..32 threads=1,2 workers=0..2"


@dataclass(frozen=True)
class Scope:
    """What is to be measured, and on what.

    batch: images per step. shared: those of one pass, which ranks share evenly: fewer, if a step has several passes.
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
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in ("cpu", "cuda"):
            raise OptionError(f"unknown device '{name}'", "--device", "use cpu, cuda, cpu,cuda or auto")
    return names


def devices_of(names: Sequence[str], machine: Machine) -> list[str]:
    """Those devices, or all that are there if none was named. Raises OptionError."""
    if not names:
        return ["cpu", "cuda"] if machine.gpus else ["cpu"]
    if "cuda" in names and not machine.gpus:
        raise OptionError("'cuda' was asked for, but torch finds no CUDA GPU", "--device", "use --device cpu or auto")
    return list(names)


def usual(scope: Scope, device: str) -> Config:
    """What sweeps vary: all cores, and on a GPU what the engine chooses there."""
    machine = scope.machine
    config = Config("", device, machine.cores, batch=scope.batch)
    if device == "cpu":
        return config
    return replace(config, precision=machine.precision, compile=machine.compiled, graphs=machine.graphs)


def base_configs(scope: Scope) -> tuple[list[Config], list[str]]:
    """What every `bench train` measures; and what was left out, in words."""
    candidates: list[Config] = []
    reasons: list[str] = []
    for device in scope.devices:
        if scope.reference:
            candidates.append(_reference(device, scope))
        candidates += _on_cpu(scope, reasons) if device == "cpu" else _on_gpus(scope)
    return _possible(candidates, scope, reasons), list(dict.fromkeys(reasons))


def _reference(device: str, scope: Scope, workers: int = 0) -> Config:
    # What the framework does unless it is set otherwise: on a GPU that has TF32, its convolutions use it.
    tf32 = device == "cuda" and "tf32" in scope.machine.precisions
    precision = "tf32" if tf32 else "fp32"
    return Config("", device, workers=workers, batch=scope.batch, precision=precision, reference=True)


def _on_cpu(scope: Scope, reasons: list[str]) -> list[Config]:
    """One process, compiled or not, and several."""
    cores = scope.machine.cores
    whole = usual(scope, "cpu")
    configs = [replace(whole, threads=1), whole]
    if scope.machine.compiler and scope.quick:
        reasons.append("compiling on a CPU, which takes a minute or two a round: measured without --quick")
    elif scope.machine.compiler:
        configs.append(replace(whole, compile=True))
    for ranks in sorted({2, cores}):
        if 1 < ranks <= cores:
            configs.append(replace(whole, threads=cores // ranks, ranks=ranks))
    return configs


def _on_gpus(scope: Scope) -> list[Config]:
    """One GPU in every way, and all."""
    machine, chosen = scope.machine, usual(scope, "cuda")
    eager = replace(chosen, precision="fp32", compile=False, graphs=False)
    if scope.quick:
        return [eager, replace(eager, precision=chosen.precision), chosen]
    configs = []
    for precision, compiled in itertools.product(machine.precisions, sorted({False, machine.compiled})):
        config = replace(eager, precision=precision, compile=compiled)
        configs.append(config)
        # Scaled gradients are not captured.
        if precision != "fp16":
            configs.append(replace(config, graphs=True))
    if machine.gpus > 1:
        every = replace(eager, ranks=machine.gpus, threads=max(1, machine.cores // machine.gpus))
        configs += [every, replace(every, precision=machine.precision)]
    return configs


def _possible(candidates: Iterable[Config], scope: Scope, reasons: list[str]) -> list[Config]:
    """Those that can be measured here, each once; why others cannot is added to the reasons."""
    configs = []
    for config in candidates:
        reason = _why_not(config, scope)
        if reason:
            reasons.append(reason)
        else:
            configs.append(config)
    return unique(configs, scope.batch)


def _why_not(config: Config, scope: Scope) -> str:
    """Why a config cannot be measured here, or ""."""
    on_cpu, cores = config.device == "cpu", scope.machine.cores
    if on_cpu and config.threads > cores:
        return f"{config.threads} threads: this machine has {_plural(cores, 'core')}"
    units, unit, rank = (cores, "core", "process") if on_cpu else (scope.machine.gpus, "GPU", "GPU")
    ranks = _plural(config.ranks, rank)
    if config.ranks > units:
        return f"{ranks}: this machine has {_plural(units, unit)}"
    if scope.shared % config.ranks:
        return f"{ranks}: they cannot share a batch of {scope.shared} evenly"
    return ""


def parse_sweep(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """`name=1..32` (both ends and the powers of two between them) or `name=1,2,3`, each name once.

    Raises:
        OptionError: if a text is not of that form.
    """
    sweep: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals:
            raise OptionError(f"'{text}' is not NAME=VALUES", "--sweep", EXAMPLE)
        if name not in SWEEPS:
            raise OptionError(f"cannot vary '{name}'", "--sweep", nearest(name, SWEEPS))
        if name in sweep:
            raise OptionError(f"names {name} twice", "--sweep", EXAMPLE)
        if ".." in values:
            low, high = (_whole(end, text, name) for end in values.split("..", 1))
            if low > high:
                raise OptionError(f"'{text}' runs backwards", "--sweep", f"write {name}={high}..{low}")
            powers = {2**exponent for exponent in range(13)}
            sweep[name] = tuple(sorted({low, high} | {power for power in powers if low < power < high}))
        else:
            sweep[name] = tuple(sorted({_whole(value, text, name) for value in values.split(",")}))
    return sweep


def _whole(value: str, text: str, name: str) -> int:
    if not value.isascii() or not value.isdigit() or not SWEEPS[name] <= int(value) <= MOST:
        wanted = f"whole numbers from {SWEEPS[name]} to {MOST}"
        raise OptionError(f"'{text}' does not give {wanted}", "--sweep", EXAMPLE)
    return int(value)


def sweep_configs(
    sweep: Mapping[str, Sequence[int]], scope: Scope, around: Mapping[str, Config]
) -> tuple[dict[str, list[Config]], list[str]]:
    """The configs of each name that is varied, one at a time around each device's config in `around`; and what was left
    out, in words.

    Threads are a CPU's; workers are the reference loop's, the only one that has them. Processes on a CPU have one
    thread each, so that more of them use more cores.
    """
    sweeps: dict[str, list[Config]] = {}
    reasons: list[str] = []
    for name, values in sweep.items():
        if name == "workers" and not scope.reference:
            reasons.append("workers: only the reference loop has them, and it cannot train this recipe")
            continue
        devices = [device for device in scope.devices if name != "threads" or device == "cpu"]
        if not devices:
            reasons.append("threads: they are varied on a CPU only")
        varied = [_varied(around[device], name, value, scope) for device in devices for value in values]
        configs = _possible(varied, scope, reasons)
        if configs:
            sweeps[name] = configs
    return sweeps, list(dict.fromkeys(reasons))


def _varied(base: Config, name: str, value: int, scope: Scope) -> Config:
    if name == "workers":
        return _reference(base.device, scope, workers=value)
    if name == "threads":
        return replace(base, threads=value)
    if name == "batch":
        return replace(base, batch=value)
    if base.device == "cpu":
        return replace(base, ranks=value, threads=1)
    # Several ranks talk within a step, which no graph takes.
    return replace(base, ranks=value, threads=max(1, scope.machine.cores // value), graphs=False)


def unique(configs: Iterable[Config], batch: int) -> list[Config]:
    """Each measurement once, named; another batch than this one is part of the name."""
    named = {config.key: replace(config, label=label(config, batch)) for config in configs}
    return list(named.values())


def row_numbers(
    sweeps: Mapping[str, Sequence[Config]], configs: Sequence[Config]
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Of each sweep, by device, the numbers of its rows."""
    keys = [config.key for config in configs]
    numbers: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, members in sweeps.items():
        by_device = numbers.setdefault(name, {})
        for config in members:
            by_device[config.device] = (*by_device.get(config.device, ()), keys.index(config.key))
    return numbers


def label(config: Config, batch: int) -> str:
    """A config in words; its batch too, if it is another one than this."""
    device = "CPU" if config.device == "cpu" else "GPU"
    words = [f"{config.ranks} {device}s" if config.ranks > 1 else device]
    if config.reference:
        words = ["reference loop", device]
    elif device == "CPU":
        threads = _plural(config.threads, "thread")
        words = [device, f"{config.ranks} processes of {threads}" if config.ranks > 1 else threads]
    if not config.reference and (device == "GPU" or config.precision != "fp32"):
        words.append(config.precision.replace("tf32", "TF32"))
    details = {
        _plural(config.workers, "worker"): config.workers > 0,
        "compiled": config.compile,
        "graphs": config.graphs,
        f"batch {config.batch}": config.batch != batch,
    }
    return ", ".join([*words, *(detail for detail, shown in details.items() if shown)])


def _plural(amount: int, noun: str) -> str:
    if amount == 1:
        return f"1 {noun}"
    return f"{amount} {noun}{'es' if noun.endswith('s') else 's'}"
