"""The networks by name. Each takes HU and gives logits; its first layer is its window.

compact       the small U-Net of the `fast` recipe
dropout       dropout as a function of each sample's key
medicaltorch  the modified U-Net of MedicalTorch v0.2, the 2021 paper's network
mlp           the multilayer perceptron on a window of pixels
net           the window layer, and the whole network: HU in, logits out
scale         half and twice the size, with gradients that suit a GPU
sync          batch norm over the batch of all ranks together
unet          the U-Net of Ronneberger, Fischer and Brox 2015
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hemotorch.errors import OptionError, nearest
from hemotorch.nets.compact import CompactUnet
from hemotorch.nets.medicaltorch import MedicalTorchUnet
from hemotorch.nets.mlp import PixelMlp
from hemotorch.nets.net import Net, WindowChoice, WindowLayer
from hemotorch.nets.unet import Unet
from hemotorch.task import Task

__all__ = ["NETS", "Net", "WindowLayer", "build", "build_for", "flops", "options_of"]

Windows = Sequence[WindowChoice]
MOST_SLICES = 31
MOST_WEIGHTS = 2**27  #: of one network, 0.5 GB in fp32: four times Ronneberger's U-Net, which has 31 million
#: Largest values of the options that count something, so that even a network of no memory is made in no time.
MOST = {"channels": 4096, "levels": 9, "patch": 127, "hidden": 16384, "outputs": 64}
LONGEST = 8  #: of options that are lists: layers, windows. A level halves the image: 8 want multiples of 256


def unet_medicaltorch(
    slices: int = 1,
    windows: Windows = ("brain",),
    channels: int = 64,
    drop_rate: float = 0.4,
    bn_momentum: float = 0.1,
    align_corners: bool = False,
    outputs: int = 1,
) -> nn.Module:
    """MedicalTorch v0.2's modified U-Net, the paper's network."""
    below_one("drop_rate", drop_rate)
    return MedicalTorchUnet(slices * len(windows), channels, drop_rate, bn_momentum, align_corners, outputs)


def unet(
    slices: int = 1,
    windows: Windows = ("brain",),
    channels: int = 64,
    levels: int = 5,
    padding: str = "same",
    batch_norm: bool = False,
    dropout: float = 0.5,
    outputs: int = 1,
) -> nn.Module:
    """Ronneberger's U-Net; padding "same", or "valid" with mirrored margins."""
    at_least("levels", levels, 2)
    at_most("levels", levels, MOST["levels"])
    if padding not in ("same", "valid"):
        raise OptionError(f"'{padding}' is neither 'same' nor 'valid'", "padding")
    below_one("dropout", dropout)
    return Unet(slices * len(windows), channels, levels, padding == "valid", batch_norm, dropout, outputs)


def compact(
    slices: int = 3,
    windows: Windows = ("brain", "subdural", "bone"),
    channels: Sequence[int] = (16, 32, 64, 128, 128),
    bias: float = -3.0,
    outputs: int = 1,
) -> nn.Module:
    """The small U-Net of the `fast` recipe, working at half resolution inside."""
    at_least("channels", len(channels), 2)
    return CompactUnet(slices * len(windows), channels, bias, outputs)


def mlp(
    slices: int = 1,
    windows: Windows = ("brain",),
    patch: int = 15,
    hidden: Sequence[int] = (64, 32),
    outputs: int = 1,
) -> nn.Module:
    """The paper's multilayer perceptron on the window of patch x patch pixels around a pixel."""
    odd("patch", patch)
    at_most("patch", patch, MOST["patch"])
    return PixelMlp(slices * len(windows), patch, hidden, outputs)


NETS: dict[str, Callable[..., nn.Module]] = {
    "compact": compact,
    "unet-medicaltorch": unet_medicaltorch,
    "unet": unet,
    "mlp": mlp,
}


def build(name: str, **options: Any) -> Net:
    """The named network with PyTorch's current random state as its start; the same seed gives the same weights.

    Args:
        name: A key of `NETS`.
        options: Of the network's builder in this file; `slices` (odd), `windows` (names or [level, width] pairs) and
            `outputs` (channels of the logits) among them.

    Raises:
        OptionError: for an unknown name or option, naming the nearest, and for a value that does not fit.
    """
    defaults = options_of(name)
    complete = dict(defaults)
    for key, value in options.items():
        if key not in defaults:
            raise OptionError(f"network '{name}' has no option '{key}'", todo=nearest(key, defaults))
        complete[key] = checked(f"{name}.{key}", plain(value), defaults[key])
    odd("slices", complete["slices"])
    if complete["slices"] > MOST_SLICES:
        raise OptionError(f"must be at most {MOST_SLICES}, not {complete['slices']}", "slices")
    window = WindowLayer(complete["windows"])
    _check_weights(name, complete)
    body = NETS[name](**complete)
    return Net(name, complete, window, body, int(body.multiple))  # type: ignore[arg-type]


def build_for(task: Task, name: str, options: dict[str, Any]) -> Net:
    """The network of a recipe's section `net`, with an output for each channel of the task.

    Raises:
        OptionError: as `build` does, and if the recipe names the outputs itself.
    """
    if "outputs" in options:
        raise OptionError("is not set: it follows from the task", "net.options.outputs", "choose data.task")
    return build(name, **options, outputs=len(task.channels))


def _check_weights(name: str, options: dict[str, Any]) -> None:
    """Raises OptionError for more weights than any network here needs. They are counted before memory is taken."""
    with torch.random.fork_rng(devices=()), torch.device("meta"):
        count = sum(weight.numel() for weight in NETS[name](**options).parameters())
    if count > MOST_WEIGHTS:
        todo = "choose fewer channels or levels"
        raise OptionError(f"the network would have {count:,} weights, more than {MOST_WEIGHTS:,}", name, todo)


def options_of(name: str) -> dict[str, Any]:
    """A network's options with their defaults, as plain lists and numbers. Raises OptionError for an unknown name."""
    if name not in NETS:
        raise OptionError(f"unknown network '{name}'", todo=nearest(name, NETS))
    parameters = inspect.signature(NETS[name]).parameters
    return {key: plain(parameter.default) for key, parameter in parameters.items()}


def flops(net: Net, size: int) -> float:
    """GFLOP of one forward pass for one slice of size x size, a multiply-add counted as two; convolutions only.

    Counted on shapes alone, nothing is computed.
    """
    channels = net.slices * len(net.options["windows"])
    body = copy.deepcopy(net.body).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        body(torch.empty(1, channels, size, size, device="meta"))
    return counter.get_total_flops() / 1e9


def plain(value: Any) -> Any:
    """Tuples as lists, all the way down, as they come back from JSON or TOML."""
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def checked(where: str, value: Any, default: Any) -> Any:
    """The value if it is of the default's type and, if it counts something, above zero.

    Args:
        where: The option, as "network.option", for the error.
        value: What was given for it.
        default: What a value is to be like.

    Raises:
        OptionError: for any other value.
    """
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        raise OptionError(f"must be like {default!r}, not {value!r}", where)
    if isinstance(value, float) and not math.isfinite(value):
        raise OptionError(f"must be a number, not {value}", where)
    option = where.rpartition(".")[2]
    if isinstance(value, int) and not isinstance(value, bool):
        at_least(where, value, 1)
        at_most(where, value, MOST.get(option, value))
    if isinstance(value, list) and len(value) > LONGEST:
        raise OptionError(f"has {len(value)} entries, more than {LONGEST}", where)
    if isinstance(value, list) and isinstance(default[0], int):
        for item in value:
            if type(item) is not int:
                raise OptionError(f"must be whole numbers, not {item!r}", where)
            at_least(where, item, 1)
            at_most(where, item, MOST.get(option, item))
    return value


def at_least(where: str, value: int, least: int) -> None:
    """Raises OptionError for a smaller value. where: the option, as "network.option"."""
    if value < least:
        raise OptionError(f"must be at least {least}, not {value}", where)


def at_most(where: str, value: int, most: int) -> None:
    """Raises OptionError for a larger value."""
    if value > most:
        raise OptionError(f"must be at most {most}, not {value}", where)


def below_one(where: str, value: float) -> None:
    """Raises OptionError for a share below 0, or of 1 and more."""
    if not 0 <= value < 1:
        raise OptionError(f"must be from 0 to below 1, not {value}", where)


def odd(where: str, value: int) -> None:
    """Raises OptionError for an even number."""
    if value % 2 == 0:
        raise OptionError(f"must be odd, not {value}", where)
