"""Where and how a network computes: decided once, from what the machine really has, with each reason recorded."""

from __future__ import annotations

import ctypes
import platform
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from hemotorch import machine
from hemotorch.errors import OptionError

N = TypeVar("N", bound=torch.nn.Module)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  #: glibc's mallopt(3)


@dataclass(frozen=True)
class Device:
    """The decisions. `name` is a torch device; `autocast` a dtype's name or "" for fp32 throughout."""

    name: str
    autocast: str
    channels_last: bool
    threads: int
    reasons: tuple[str, ...]

    @property
    def place(self) -> torch.device:
        """The torch device."""
        return torch.device(self.name)

    @property
    def memory_format(self) -> torch.memory_format:
        """What networks and batches are laid out in."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def precision(self) -> AbstractContextManager[Any]:
        """The context that forward passes run in."""
        if not self.autocast:
            return nullcontext()
        return torch.autocast(self.place.type, dtype=getattr(torch, self.autocast))

    def put(self, net: N) -> N:
        """The network on the device, its weights laid out for it."""
        return net.to(self.place, memory_format=self.memory_format)  # type: ignore[call-overload]

    def use(self) -> None:
        """Sets the process's thread count, which bit-for-bit repeats need, and on a CPU keeps memory (see below)."""
        torch.set_num_threads(self.threads)
        if self.place.type == "cpu":
            keep_memory()

    def to_dict(self) -> dict[str, Any]:
        """For the run's record."""
        return asdict(self)


def choose(wanted: str = "auto", threads: int | None = None) -> Device:
    """Decides for "auto", "cpu", "cuda" or "cuda:N". Raises OptionError where that device is not there.

    threads: compute threads of a run that is resumed; by default every core this process may use.
    """
    kind, _, number = wanted.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not number.isdigit()):
        raise OptionError(f"unknown device '{wanted}'", "--device", "use auto, cpu, cuda or cuda:N")
    cores = threads or machine.cores()
    cuda = torch.cuda.is_available()
    if kind == "cuda" and not cuda:
        raise OptionError(f"'{wanted}' was asked for, but {_why_no_cuda()}", "--device", "use --device cpu or auto")
    if number and int(number) >= torch.cuda.device_count():
        raise OptionError(f"there is no '{wanted}'; this machine has {torch.cuda.device_count()} GPU(s)", "--device")
    if kind == "cpu" or not cuda:
        why = "asked for" if kind == "cpu" else _why_no_cuda()
        reasons: tuple[str, ...] = (
            f"cpu: {why}",
            "fp32: the exact and, without native bf16 units, also the fastest arithmetic of a CPU",
            "channels-last: what its convolutions run fastest in",
            "memory of freed tensors is kept for the next ones, where the C library is glibc",
            f"{cores} threads: " + ("as when the run was started" if threads else "every core this process may use"),
        )
        return Device("cpu", "", True, cores, reasons)
    name = wanted if kind == "cuda" else "cuda"
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    dtype = "bfloat16" if native else ""
    precision = "bf16 autocast: native on this GPU" if native else "fp32: no native bf16 on this GPU"
    reasons = (f"{name}: {torch.cuda.get_device_name(name)}", precision, "channels-last: what tensor cores want")
    return Device(name, dtype, True, cores, reasons)


def keep_memory() -> None:
    """Tells glibc to keep the memory of freed tensors for the next ones, instead of giving it back to the system and
    having every page of the next tensor zeroed again: 1.3 times as many steps of `paper` a second (docs/log.md).

    Elsewhere than on glibc nothing happens.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((M_MMAP_THRESHOLD, 2**30), (M_TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(parameter, value)


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return "this build of torch has no CUDA"
    return "torch finds no CUDA GPU on this machine"


def environment() -> dict[str, Any]:
    """Processor, memory, GPU and library versions, for records."""
    import numpy
    import scipy
    import zarr

    import hemotorch

    return {
        "hemotorch": hemotorch.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "zarr": zarr.__version__,
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


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on the device; for a GPU on the host too, where its data is put together."""
    host = machine.free_memory()
    return min(host, int(torch.cuda.mem_get_info(device)[0])) if device.type == "cuda" else host
