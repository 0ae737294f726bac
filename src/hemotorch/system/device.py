"""Where and how a network computes: decided once, from what the machine really has, with each reason recorded."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field

from hemotorch.errors import OptionError
from hemotorch.system import machine, threads
from hemotorch.system.engine import Engine
from hemotorch.system.ranks import Ranks
from hemotorch.system.records import record

if TYPE_CHECKING:  # records of a device are read, and models that need no torch are run, where torch is not installed
    import torch

N = TypeVar("N", bound="torch.nn.Module")
Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp64"]
Environment = dict[str, str | None]  #: processor, GPU and versions of libraries, by name

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  #: glibc's mallopt(3)
ASKED = "asked for"  #: a reason


@record
class Device:
    """Where and how a network computes, and why so.

    name: a torch device. reasons: one for each setting, in words, then those of later changes.
    """

    name: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")]
    precision: Precision
    channels_last: bool
    compile: bool
    graphs: bool
    kernels: bool
    threads: Annotated[int, Field(ge=1, le=threads.MOST)]
    reasons: Annotated[tuple[str, ...], Field(min_length=1)]
    keep_memory: bool = True

    @property
    def torch_device(self) -> torch.device:
        """The torch device."""
        import torch

        return torch.device(self.name)

    @property
    def memory_format(self) -> torch.memory_format:
        """What networks and batches are laid out in."""
        import torch

        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights and HU: float64 if that was asked for, else float32."""
        import torch

        return torch.float64 if self.precision == "fp64" else torch.float32

    def autocast(self) -> AbstractContextManager[Any]:
        """The context that forward passes run in."""
        import torch

        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)
        if half is None:
            return nullcontext()
        # What a CUDA graph captured must not depend on casts cached in the step before.
        return torch.autocast(self.torch_device.type, dtype=half, cache_enabled=not self.graphs)

    def put(self, net: N) -> N:
        """The network on the device, its weights in the type and layout decided for it."""
        return net.to(self.torch_device, self.dtype, memory_format=self.memory_format)  # type: ignore[call-overload]

    def use(self) -> None:
        """Sets the process up: its thread count, which bit-for-bit repeats need; memory on a CPU; TF32 on a GPU."""
        import torch

        torch.set_num_threads(self.threads)
        if self.torch_device.type == "cpu":
            if self.keep_memory:
                keep_memory()
            return
        torch.cuda.set_device(self.torch_device)
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        torch.backends.cudnn.benchmark = True

    def with_reason(self, reason: str, **settings: Any) -> Device:
        """The device with settings that were chosen later, such as measured ones."""
        return replace(self, reasons=(*self.reasons, reason), **settings)


def choose(wanted: str = "auto", engine: Engine | None = None, ranks: Ranks | None = None) -> Device:
    """Chooses the device and its settings; of several ranks each gets its own GPU or its share of the cores.

    Args:
        wanted: "auto", "cpu", "cuda" or "cuda:N".
        engine: what the recipe asks for.
        ranks: the processes that train together.

    Raises:
        OptionError: if that device does not exist, cannot do what `engine` asks for, or is asked for by more ranks than
            there are.
    """
    import torch

    kind, _, number = wanted.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not number.isdigit()):
        raise OptionError(f"unknown device '{wanted}'", "--device", "use auto, cpu, cuda or cuda:N")
    engine, ranks = engine or Engine(), ranks or Ranks()
    has_cuda = torch.cuda.is_available()
    if kind == "cuda" and not has_cuda:
        raise OptionError(f"'{wanted}' was asked for, but {_why_no_cuda()}", "--device", "use --device cpu or auto")
    if number and int(number) >= torch.cuda.device_count():
        raise OptionError(f"there is no '{wanted}'; this machine has {torch.cuda.device_count()} GPU(s)", "--device")
    if kind == "cpu":
        return _cpu(ASKED, engine, ranks)
    if not has_cuda:
        return _cpu(_why_no_cuda(), engine, ranks)
    return _cuda(wanted, engine, ranks)


def _cpu(why: str, engine: Engine, ranks: Ranks) -> Device:
    compiler = machine.has_compiler()
    _check_cpu(engine, ranks, compiler)
    precision: Precision = "fp32"
    why_precision = "exact"
    if engine.precision != "auto":
        precision, why_precision = engine.precision, ASKED
    channels_last, why_layout = _choice(engine.channels_last, True, "what most CPUs' convolutions run fastest in")
    why_not_compiled = "rarely faster on a CPU" if compiler else "no C++ compiler"
    compiled, why_compiled = _choice(engine.compile, False, why_not_compiled)
    keeps_memory, why_memory = _choice(engine.keep_memory, True, "if the C library is glibc")
    count, why_count = threads.count(engine.threads, ranks.beside)
    plural = "" if count == 1 else "s"
    reasons = (
        f"cpu: {why}",
        f"{precision}: {why_precision}",
        f"{_layout_name(channels_last)}: {why_layout}",
        f"{_compiled_name(compiled)}: {why_compiled}",
        f"memory of freed tensors is {'kept for the next ones' if keeps_memory else 'given back'}: {why_memory}",
        f"{count} thread{plural}: {why_count}",
    )
    return Device("cpu", precision, channels_last, compiled, False, False, count, reasons, keeps_memory)


def _check_cpu(engine: Engine, ranks: Ranks, compiler: bool) -> None:
    """Raises OptionError for what this CPU cannot do."""
    cores = machine.cores()
    if ranks.beside > cores:
        todo = f"start at most {cores}"
        raise OptionError(f"{ranks.beside} ranks were started on a machine of {cores} cores", "ranks", todo)
    if engine.precision in ("tf32", "fp16"):
        raise OptionError(f"a CPU has no {engine.precision}", "engine.precision", "use fp32, or bf16 if it has that")
    if engine.precision == "bf16" and not machine.has_bf16():
        what = "this CPU has no bf16 units and would take hundreds of times as long"
        raise OptionError(what, "engine.precision", "use fp32")
    if engine.compile == "on" and not compiler:
        raise OptionError("torch.compile needs a C++ compiler on a CPU", "engine.compile", "install g++, or use auto")
    for name in ("graphs", "kernels"):
        if getattr(engine, name) == "on":
            raise OptionError("needs a CUDA GPU", f"engine.{name}", "use auto or off")


def _cuda(wanted: str, engine: Engine, ranks: Ranks) -> Device:
    import torch

    # With its number, which some of torch's functions want.
    name = wanted if ":" in wanted else f"cuda:{ranks.local}"
    _check_gpus(wanted, ranks)
    torch_device = torch.device(name)
    if engine.precision == "auto":
        precision, why_precision = _fastest_precision(torch_device)
    else:
        precision, why_precision = engine.precision, ASKED
    compilable, why_compilable = _can_compile()
    _check_cuda(engine, precision, torch_device, ranks, "" if compilable else why_compilable)
    compiled, why_compiled = _choice(engine.compile, compilable, why_compilable)
    capturable = ranks.world == 1 and precision != "fp16"
    why_graphs = "one GPU" if capturable else "not tried with several ranks or fp16"
    graphs, why_graphs = _choice(engine.graphs, capturable, why_graphs)
    kernels, why_kernels = _choice(engine.kernels, False, "not shown to be faster than torch.compile on any GPU yet")
    channels_last, why_layout = _choice(engine.channels_last, True, "what tensor cores want")
    reasons = (
        f"{name}: {torch.cuda.get_device_name(torch_device)}",
        f"{precision}: {why_precision}",
        f"{_layout_name(channels_last)}: {why_layout}",
        f"{_compiled_name(compiled)}: {why_compiled}",
        f"{'CUDA graphs' if graphs else 'no CUDA graphs'}: {why_graphs}",
        f"{'own kernels' if kernels else 'no own kernels'}: {why_kernels}",
    )
    count, _ = threads.count(engine.threads, ranks.beside)
    return Device(name, precision, channels_last, compiled, graphs, kernels, count, reasons)


def _check_gpus(wanted: str, ranks: Ranks) -> None:
    """Raises OptionError if there are more ranks than GPUs for them."""
    import torch

    gpus = torch.cuda.device_count()
    if ranks.beside > gpus:
        todo = f"start at most {gpus}, or use --device cpu"
        raise OptionError(f"{ranks.beside} ranks were started on a machine of {gpus} GPU(s)", "ranks", todo)
    if ranks.world > 1 and ":" in wanted:
        what = f"{ranks.world} ranks cannot share '{wanted}'"
        raise OptionError(what, "--device", "use cuda: each rank takes its own")


def _check_cuda(engine: Engine, precision: str, torch_device: torch.device, ranks: Ranks, not_compilable: str) -> None:
    """Raises OptionError for what this GPU cannot do. not_compilable: why torch.compile cannot run, or ""."""
    import torch

    ampere = is_ampere(torch_device)
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
        what = "hemotorch's kernels need Triton and a GPU from Ampere on"
        raise OptionError(what, "engine.kernels", "use auto or off")


def is_ampere(torch_device: torch.device) -> bool:
    """Whether a GPU is of NVIDIA's Ampere generation or later, which brought TF32."""
    import torch

    return torch.cuda.get_device_capability(torch_device) >= (8, 0)


def _fastest_precision(torch_device: torch.device) -> tuple[Precision, str]:
    """What tensor cores are fastest in, weights and HU staying fp32, and why. It rounds: fp32 has to be asked for."""
    import torch

    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16", "native on this GPU; rounds to 8 bits, engine.precision=fp32 does not"
    if torch.cuda.get_device_capability(torch_device) >= (7, 0):
        return "fp16", "no native bf16; gradients are scaled; rounds to 11 bits, engine.precision=fp32 does not"
    return "fp32", "no tensor cores on this GPU"


def _can_compile() -> tuple[bool, str]:
    if importlib.util.find_spec("triton") is None:
        return False, "triton is not installed"
    # Triton builds a small launcher for each kernel.
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        return False, "no C compiler"
    return True, "triton and a C compiler are there"


def _choice(switch: str, automatic: bool, why: str) -> tuple[bool, str]:
    """What a switch of the recipe comes to, and why: what it says, or what is automatic."""
    if switch == "auto":
        return automatic, why
    return switch == "on", ASKED


def _layout_name(channels_last: bool) -> str:
    return "channels-last" if channels_last else "contiguous"


def _compiled_name(compiled: bool) -> str:
    return "compiled" if compiled else "not compiled"


def keep_memory() -> None:
    """Tells glibc to keep the memory of freed tensors for the next ones; with another C library nothing happens."""
    # Given back to the system, every page of the next tensor is zeroed again: `paper` does 1.3 times as many steps per
    # second without that (docs/log.md).
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((M_MMAP_THRESHOLD, 2**30), (M_TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(parameter, value)


def release_memory(device: torch.device) -> None:
    """Gives memory of freed tensors back to the system, or to the GPU's other users: after running out of it."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out, main memory or a GPU's."""
    if isinstance(error, MemoryError):
        return True
    # A process that has not imported torch has no error of it.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    # A CPU's allocator, its convolutions and CUDA's libraries raise plain RuntimeErrors, of which only the text tells.
    texts = ("allocate memory", "could not create a primitive", "could not create a memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)


def is_lost(error: BaseException) -> bool:
    """Whether it says that a GPU is gone, or must be started again; an error of the computation itself is none."""
    # What CUDA's runtime says of a GPU that fell off its bus, was reset, taken away, or whose memory failed.
    texts = (
        "unspecified launch failure",
        "CUDA error: unknown error",
        "uncorrectable",
        "busy or unavailable",
        "no CUDA-capable device",
    )
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)


def _why_no_cuda() -> str:
    import torch

    if torch.version.cuda is None:
        return "this build of torch has no CUDA"
    return "torch finds no CUDA GPU on this machine"


def environment() -> Environment:
    """Processor, GPU and versions of libraries, for records."""
    import numcodecs
    import numpy
    import scipy
    import torch

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
    """Bytes that can still be taken on the device.

    Args:
        device: for a GPU its host counts too, where its data is put together.
        beside: ranks that share the host.
    """
    import torch

    host = machine.free_memory() // beside
    if device.type != "cuda":
        return host
    free_on_gpu, _ = torch.cuda.mem_get_info(device)
    return min(host, int(free_on_gpu))
