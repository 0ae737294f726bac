"""Triton's compiler on a machine without a GPU: calls of kernels end when the GPU's program is built."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

BUILT: list[str] = []  #: the name of each kernel built, once a call


def compile_only(capability: int) -> None:
    """From here on this process's kernels are built for CUDA GPUs of that capability, say 90, and never run."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime.jit import JITFunction

    target, run = GPUTarget("cuda", capability, 32), JITFunction.run
    driver = {"get_current_target": lambda: target, "get_current_device": int, "get_current_stream": lambda device: 0}
    triton.runtime.driver.set_active(SimpleNamespace(**driver))

    def build(self: Any, *args: Any, warmup: bool, **options: Any) -> Any:
        kernel = run(self, *args, warmup=True, **options)
        assert kernel.asm["cubin"]
        BUILT.append(self.fn.__name__)
        return kernel

    JITFunction.run = build
