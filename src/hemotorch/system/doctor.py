"""What this machine has and lacks for hemotorch, with the command that mends each: `hemotorch doctor`."""

from __future__ import annotations

import importlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from hemotorch.system import machine
from hemotorch.system.extras import EXTRAS

OLDEST_PYTHON = (3, 11)
LEAST_MEMORY_GB = 1.0  #: predicting a scan of 512 x 512 x 32 takes about 0.3 GB, training `fast` about 1 GB
#: The packages of the core, and what is imported to see that they work.
CORE = {
    "numpy": "numpy",
    "scipy": "scipy.ndimage",
    "nibabel": "nibabel",
    "pillow": "PIL.Image",
    "pydicom": "pydicom",
    "highdicom": "highdicom",
    "onnxruntime": "onnxruntime",
    "pydantic": "pydantic",
    "jinja2": "jinja2",
    "filelock": "filelock",
    "tqdm": "tqdm",
    "tomli-w": "tomli_w",
}
#: How DICOM stores pixels, by the UID of its transfer syntax (DICOM PS3.6, annex A).
DICOM_SYNTAXES = {
    "uncompressed": "1.2.840.10008.1.2.1",
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "HTJ2K": "1.2.840.10008.1.2.4.201",
}
RARE = ("HTJ2K",)  #: what the core can do without: no scanner writes it
#: What extras bring that is worth a line of its own, by extra and imported module.
OPTIONAL = {
    "numcodecs": "preparing and measuring datasets",
    "torch": "training, and predicting with a run folder",
    "matplotlib": "the bench",
    "onnx": "hemotorch export",
    "nrrd": "NRRD files",
    "ray": "Ray",
    "fastapi": "hemotorch serve",
    "uvicorn": "hemotorch serve",
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    name: what. good: whether it is there and works. core: whether the core needs it. found: what was seen, in words.
    mend: what to do if it is not good, "" if nothing can be done.
    """

    name: str
    good: bool
    core: bool
    found: str
    mend: str = ""

    @property
    def line(self) -> str:
        """The check as people read it."""
        state = "ok" if self.good else "MISSING" if self.core else "-"
        text = f"{state:<8}{self.name:<22}{self.found}"
        return f"{text}; {self.mend}" if self.mend and not self.good else text


def examine() -> list[Check]:
    """Looks at everything; takes a second or two, since libraries are imported to see whether they work."""
    checks = [_python()]
    checks += [_package(name, module) for name, module in CORE.items()]
    checks += _dicom()
    checks += _machine()
    checks += [_optional(module, use) for module, use in OPTIONAL.items()]
    checks += _cuda()
    return checks


def is_ready(checks: list[Check]) -> bool:
    """Whether all that the core needs is there."""
    return all(check.good for check in checks if check.core)


def _python() -> Check:
    good = sys.version_info >= OLDEST_PYTHON
    version = ".".join(map(str, OLDEST_PYTHON))
    return Check("python", good, True, platform.python_version(), f"install Python {version} or newer")


def _package(name: str, module: str) -> Check:
    mend = f"pip install {name}"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, False, True, "not installed", mend)
    try:
        importlib.import_module(module)
    except Exception as error:  # a library may raise anything while it is loaded
        return Check(name, False, True, f"{version} cannot be imported ({_words(error)})", f"{mend} --force-reinstall")
    return Check(name, True, True, version)


def _dicom() -> Iterator[Check]:
    """Which ways of storing pixels pydicom can decode with what is installed."""
    mend = "pip install python-gdcm pyjpegls pylibjpeg pylibjpeg-openjpeg"
    for name, uid in DICOM_SYNTAXES.items():
        title = f"DICOM {name}"
        try:
            from pydicom.pixels import get_decoder

            decoder = get_decoder(uid)
            good, plugins = decoder.is_available, ", ".join(decoder.available_plugins)
        except Exception as error:  # pydicom itself may be what is missing
            yield Check(title, False, name not in RARE, f"not decoded ({_words(error)})", mend)
            continue
        # What needs no plug-in names none.
        yield Check(title, good, name not in RARE, plugins or ("by pydicom" if good else "no decoder"), mend)


def _machine() -> Iterator[Check]:
    cores, physical = machine.cores(), machine.physical_cores()
    yield Check("cores", True, False, f"{cores}, {physical} with arithmetic units of their own")
    free_gb = machine.free_memory() / 1e9
    yield Check(
        "memory", free_gb >= LEAST_MEMORY_GB, True, f"{free_gb:.1f} GB free", "end other programs, or add memory"
    )
    bf16 = machine.has_bf16()
    yield Check("bf16 on the CPU", bf16, False, "yes" if bf16 else "no; fp32 is used")
    compiler = machine.has_compiler()
    found = "a C++ compiler is there" if compiler else "no C++ compiler; only engine.compile=on needs it"
    yield Check("compiler", compiler, False, found, "install g++")
    folder = tempfile.gettempdir()
    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"x")
    except OSError as error:
        yield Check("temporary folder", False, True, f"{folder} ({_words(error)})", "set TMPDIR to a folder with room")
        return
    yield Check("temporary folder", True, True, folder)


def _optional(module: str, use: str) -> Check:
    """A package of an extra; it is not imported, torch alone takes seconds."""
    mend = f"pip install 'hemotorch[{EXTRAS[module]}]'"
    names = {"nrrd": "pynrrd"}
    try:
        version = metadata.version(names.get(module, module))
    except metadata.PackageNotFoundError:
        return Check(module, False, False, f"not installed ({use})", mend)
    return Check(module, True, False, version)


def _cuda() -> Iterator[Check]:
    """The GPUs that torch sees; nothing without torch."""
    try:
        import torch
    except Exception:  # said in its own line
        return
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        yield Check("CUDA", True, False, names)
        return
    built = torch.version.cuda is not None
    found = "torch finds no GPU" if built else "this build of torch has no CUDA"
    driver = os.path.exists("/proc/driver/nvidia/version")
    mend = ""
    if driver and not built:
        mend = "install a build of torch with CUDA (https://pytorch.org/get-started)"
    elif built and not driver:
        found += " and no NVIDIA driver is loaded"
    yield Check("CUDA", False, False, found, mend)


def _words(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return " ".join(text.split())[:120]
