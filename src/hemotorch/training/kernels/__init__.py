"""Triton kernels, each beside the PyTorch reference that says what it computes and runs without Triton.

Nothing here imports triton until a kernel is asked for: hemotorch trains without it.

dice_ce         the sums of Dice and cross-entropy, and their gradient
dice_ce_triton  the same as Triton kernels
sample          slices to a moved, cut and brightened batch with its target
sample_triton   the same as one Triton kernel
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from hemotorch.errors import OptionError


def available(device: torch.device | str) -> bool:
    """Whether the kernels run on tensors of this device: on a GPU with Triton installed, elsewhere in its interpreter.

    The interpreter is for tests: TRITON_INTERPRET=1, set before triton is imported, runs kernels on a CPU, slowly.
    """
    return not _hindrance(torch.device(device))


def demand(*tensors: Tensor) -> None:
    """Raises OptionError, saying why, if the kernels do not run on these tensors; ValueError for two devices."""
    devices = {tensor.device for tensor in tensors}
    if len(devices) > 1:
        raise ValueError(f"tensors lie on several devices: {', '.join(sorted(map(str, devices)))}")
    for device in devices:
        if why := _hindrance(device):
            raise OptionError(f"Triton's kernels were asked for, but {why}", todo="use triton=False, the PyTorch way")


@cache
def _hindrance(device: torch.device) -> str:
    """Why kernels do not run on a device, "" if they do."""
    try:
        import triton
    except ImportError as error:
        return f"triton cannot be imported ({error})"
    if triton.knobs.runtime.interpret:
        return ""
    if device.type != "cuda":
        return f"the tensors are on '{device}', not on a GPU"
    if not torch.cuda.is_available():
        return "torch finds no CUDA GPU on this machine"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        return f"{torch.cuda.get_device_name(device)} is older than Ampere, and has no bfloat16"
    return ""
