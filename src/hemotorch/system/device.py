"""Where and how a network computes: decided once, from what the machine really has, with each reason recorded."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import shutil
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch

from hemotorch.errors import OptionError
from hemotorch.system import machine, threads
from hemotorch.system.engine import Engine
from hemotorch.system.ranks import Ranks

N = TypeVar("N", bound=torch.nn.Module)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  #: glibc's mallopt(3)
ASKED = "asked for"  #: a reason


@dataclass(frozen=True)
class Device:
    """The decisions. `name` is a torch device; `precision` is one of fp32, tf32, bf16, fp16 and fp64."""

    name: str
    precision: str
    channels_last: bool
    compile: bool
    graphs: bool
    kernels: bool
    threads: int
    reasons: tuple[str, ...]
    keep_memory: bool = True

    @property
    def torch_device(self) -> torch.device:
        """The torch device."""
        return torch.device(self.name)

    @property
    def memory_format(self) -> torch.memory_format:
        """What networks and batches are laid out in."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and of HU: float64 where that was asked for, else float32."""
        return torch.float64 if self.precision == "fp64" else torch.float32

    def autocast(self) -> AbstractContextManager[Any]:
        """The context that forward passes run in."""
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)
        if half is None:
            return nullcontext()
        # What a CUDA graph captured must not depend on casts that were kept from the step before.
        return torch.autocast(self.torch_device.type, dtype=half, cache_enabled=not self.graphs)

    def put(self, net: N) -> N:
        """The network on the device, its weights in the type and layout decided for it."""
        return net.to(self.torch_device, self.dtype, memory_format=self.memory_format)  # type: ignore[call-overload]

    def use(self) -> None:
        """Sets the process up: its thread count, which bit-for-bit repeats need; memory on a CPU; TF32 on a GPU."""
        torch.set_num_threads(self.threads)
        if self.torch_device.type == "cpu":
            if self.keep_memory:
                keep_memory()
            return
        torch.cuda.set_device(self.torch_device)
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        torch.backends.cudnn.benchmark = True

    def with_reason(self, reason: str, **decisions: Any) -> Device:
        """The device with decisions made later, such as measured ones."""
        return replace(self, reasons=(*self.reasons, reason), **decisions)

    def to_dict(self) -> dict[str, Any]:
        """For the run's record."""
        return asdict(self)

    @staticmethod
    def from_dict(record: dict[str, Any]) -> Device:
        """What `to_dict` gave. Raises TypeError or ValueError for anything else."""
        made = Device(**{**record, "reasons": tuple(record["reasons"])})
        for name, kind in get_type_hints(Device).items():
            value = getattr(made, name)
            if kind in (str, bool, int) and type(value) is not kind:
                raise TypeError(f"{name} is {value!r}")
        if not made.reasons or not all(isinstance(reason, str) for reason in made.reasons):
            raise TypeError(f"reasons are {made.reasons!r}")
        if made.precision not in ("fp32", "tf32", "bf16", "fp16", "fp64"):
            raise ValueError(f"precision is {made.precision!r}")
        if made.name.partition(":")[0] not in ("cpu", "cuda") or not 1 <= made.threads <= threads.MOST:
            raise ValueError(f"{made.name} with {made.threads} threads")
        return made


def choose(wanted: str = "auto", engine: Engine | None = None, ranks: Ranks | None = None) -> Device:
    """Decides for "auto", "cpu", "cuda" or "cuda:N"; of several ranks each gets its own GPU or its share of the cores.

    Raises OptionError where that device is not there, cannot do what `engine` asks for, or is asked for by more ranks
    than there are.
    """
    kind, _, number = wanted.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not number.isdigit()):
        raise OptionError(f"unknown device '{wanted}'", "--device", "use auto, cpu, cuda or cuda:N")
    engine, ranks = engine or Engine(), ranks or Ranks()
    cuda = torch.cuda.is_available()
    if kind == "cuda" and not cuda:
        raise OptionError(f"'{wanted}' was asked for, but {_why_no_cuda()}", "--device", "use --device cpu or auto")
    if number and int(number) >= torch.cuda.device_count():
        raise OptionError(f"there is no '{wanted}'; this machine has {torch.cuda.device_count()} GPU(s)", "--device")
    if kind == "cpu" or not cuda:
        return _cpu("asked for" if kind == "cpu" else _why_no_cuda(), engine, ranks)
    return _cuda(wanted, engine, ranks)


def _cpu(why: str, engine: Engine, ranks: Ranks) -> Device:
    cores = machine.cores()
    if ranks.beside > cores:
        todo = f"start at most {cores}"
        raise OptionError(f"{ranks.beside} ranks were started on a machine of {cores} cores", "ranks", todo)
    if engine.precision in ("tf32", "fp16"):
        raise OptionError(f"a CPU has no {engine.precision}", "engine.precision", "use fp32, or bf16 if it has that")
    if engine.precision == "bf16" and not machine.has_bf16():
        what = "this CPU has no bf16 units and would take hundreds of times as long"
        raise OptionError(what, "engine.precision", "use fp32")
    compiler = machine.has_compiler()
    if engine.compile == "on" and not compiler:
        raise OptionError("torch.compile needs a C++ compiler on a CPU", "engine.compile", "install g++, or use auto")
    for name in ("graphs", "kernels"):
        if getattr(engine, name) == "on":
            raise OptionError("needs a CUDA GPU", f"engine.{name}", "use auto or off")
    precision, why_precision = ("fp32", "exact") if engine.precision == "auto" else (engine.precision, ASKED)
    last, why_last = _decided(engine.channels_last, True, "what most CPUs' convolutions run fastest in")
    compiled, why_compiled = _decided(
        engine.compile, False, "rarely faster on a CPU" if compiler else "no C++ compiler"
    )
    kept, why_kept = _decided(engine.keep_memory, True, "where the C library is glibc")
    count, why_count = threads.count(engine.threads, ranks.beside)
    reasons = (
        f"cpu: {why}",
        f"{precision}: {why_precision}",
        f"{'channels-last' if last else 'contiguous'}: {why_last}",
        f"{'compiled' if compiled else 'not compiled'}: {why_compiled}",
        f"memory of freed tensors is {'kept for the next ones' if kept else 'given back'}: {why_kept}",
        f"{count} thread{'' if count == 1 else 's'}: {why_count}",
    )
    return Device("cpu", precision, last, compiled, False, False, count, reasons, kept)


def _cuda(wanted: str, engine: Engine, ranks: Ranks) -> Device:
    gpus = torch.cuda.device_count()
    if ranks.beside > gpus:
        todo = f"start at most {gpus}, or use --device cpu"
        raise OptionError(f"{ranks.beside} ranks were started on a machine of {gpus} GPU(s)", "ranks", todo)
    if ranks.world > 1 and ":" in wanted:
        raise OptionError(
            f"{ranks.world} ranks cannot share '{wanted}'", "--device", "use cuda: each rank takes its own"
        )
    # With its number, which some of torch's functions want.
    name = wanted if ":" in wanted else f"cuda:{ranks.local}"
    place = torch.device(name)
    precision, why = _half(place) if engine.precision == "auto" else (engine.precision, ASKED)
    compilable, why_compilable = _can_compile()
    _check_cuda(engine, precision, place, ranks, "" if compilable else why_compilable)
    compiled, why_compiled = _decided(engine.compile, compilable, why_compilable)
    free = ranks.world == 1 and precision != "fp16"
    graphs, why_graphs = _decided(engine.graphs, free, "one GPU" if free else "not tried with several ranks or fp16")
    kernels, why_kernels = _decided(engine.kernels, False, "not shown to be faster than torch.compile on any GPU yet")
    last, why_last = _decided(engine.channels_last, True, "what tensor cores want")
    reasons = (
        f"{name}: {torch.cuda.get_device_name(place)}",
        f"{precision}: {why}",
        f"{'channels-last' if last else 'contiguous'}: {why_last}",
        f"{'compiled' if compiled else 'not compiled'}: {why_compiled}",
        f"{'CUDA graphs' if graphs else 'no CUDA graphs'}: {why_graphs}",
        f"{'own kernels' if kernels else 'no own kernels'}: {why_kernels}",
    )
    count, _ = threads.count(engine.threads, ranks.beside)
    return Device(name, precision, last, compiled, graphs, kernels, count, reasons)


def _check_cuda(engine: Engine, precision: str, place: torch.device, ranks: Ranks, not_compilable: str) -> None:
    """Raises OptionError for what this GPU cannot do. not_compilable: why torch.compile cannot run, or ""."""
    ampere = is_ampere(place)
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise OptionError("this GPU has no native bf16", "engine.precision", "use fp16 or fp32")
    if precision == "tf32" and not ampere:
        raise OptionError("this GPU is older than Ampere and has no TF32", "engine.precision", "use fp16 or fp32")
    if engine.compile == "on" and not_compilable:
        raise OptionError(f"torch.compile cannot run here: {not_compilable}", "engine.compile", "use auto or off")
    if engine.graphs == "on" and ranks.world > 1:
        raise OptionError("a step of several ranks is not captured", "engine.graphs", "use auto or off")
    if engine.graphs == "on" and precision == "fp16":
        raise OptionError("a step with scaled gradients (fp16) is not captured", "engine.graphs", "use auto or off")
    if engine.kernels == "on" and not (ampere and importlib.util.find_spec("triton")):
        raise OptionError(
            "hemotorch's kernels need Triton and a GPU from Ampere on", "engine.kernels", "use auto or off"
        )


def is_ampere(place: torch.device) -> bool:
    """Whether a GPU is of NVIDIA's Ampere generation or later, which brought TF32."""
    return torch.cuda.get_device_capability(place) >= (8, 0)


def _half(place: torch.device) -> tuple[str, str]:
    """What tensor cores are fastest in, weights and HU staying fp32, and why. It rounds: fp32 has to be asked for."""
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16", "native on this GPU; rounds to 8 bits, engine.precision=fp32 does not"
    if torch.cuda.get_device_capability(place) >= (7, 0):
        return "fp16", "no native bf16; gradients are scaled; rounds to 11 bits, engine.precision=fp32 does not"
    return "fp32", "no tensor cores on this GPU"


def _can_compile() -> tuple[bool, str]:
    if importlib.util.find_spec("triton") is None:
        return False, "triton is not installed"
    # Triton builds a small launcher for each kernel.
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        return False, "no C compiler"
    return True, "triton and a C compiler are there"


def _decided(switch: str, otherwise: bool, why: str) -> tuple[bool, str]:
    return (otherwise, why) if switch == "auto" else (switch == "on", ASKED)


def keep_memory() -> None:
    """Tells glibc to keep the memory of freed tensors for the next ones, instead of giving it back to the system and
    having every page of the next tensor zeroed again: 1.3 times as many steps of `paper` a second (docs/log.md).

    Elsewhere than on glibc nothing happens.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((M_MMAP_THRESHOLD, 2**30), (M_TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(parameter, value)


def give_back(device: torch.device) -> None:
    """Gives memory of freed tensors back to the system, or to the GPU's other users: after running out of it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out, main memory or a GPU's."""
    # torch.OutOfMemoryError is a RuntimeError; a CPU's allocator, its convolutions, CUDA's libraries raise plain ones.
    words = ("allocate memory", "could not create a primitive", "could not create a memory", "ALLOC_FAILED")
    known = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, known) or (isinstance(error, RuntimeError) and any(word in str(error) for word in words))


def is_lost(error: BaseException) -> bool:
    """Whether it says that a GPU is gone, or must be started again; an error of the computation itself is none."""
    # What CUDA's runtime says of a GPU that fell off its bus, was reset, taken away, or whose memory failed.
    words = ("unspecified launch failure", "CUDA error: unknown error", "uncorrectable", "busy or unavailable",
             "no CUDA-capable device")  # fmt: skip
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return "this build of torch has no CUDA"
    return "torch finds no CUDA GPU on this machine"


def environment() -> dict[str, Any]:
    """Processor, memory, GPU and library versions, for records."""
    import numcodecs
    import numpy
    import scipy

    import hemotorch

    return {
        "hemotorch": hemotorch.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "numcodecs": numcodecs.__version__,
        "platform": platform.platform(terse=True),
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def free_memory(device: torch.device, beside: int = 1) -> int:
    """Bytes that can still be taken on the device; for a GPU on the host too, where its data is put together, shared by
    `beside` ranks."""
    host = machine.free_memory() // beside
    return min(host, int(torch.cuda.mem_get_info(device)[0])) if device.type == "cuda" else host
