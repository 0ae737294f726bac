"""The window layer, and the whole network: HU in, logits out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hemotorch.errors import InputError, OptionError
from hemotorch.hu import window, window_bounds
from hemotorch.nets.dropout import Dropout, set_dropout_keys

WindowChoice = str | Sequence[float]  # a name from hu.WINDOWS, or [level, width] in HU


class WindowLayer(nn.Module):
    """HU (N, slices, rows, columns) of any type to [0, 1] (N, slices * windows, rows, columns) in float32.

    The channels go window by window: every slice in window 0, then every slice in window 1. float64 stays float64, and
    channels-last stays channels-last. Autocast does not reach inside.

    Raises:
        OptionError: for no window, an unknown name, or a width that is not above zero.
    """

    # Whole thousandths of a HU: `.half()`, `.bfloat16()` and a moving average of weights leave integer buffers alone,
    # and bfloat16 would round a level of 700 HU by up to 2 HU.

    low_mhu: Tensor
    width_mhu: Tensor

    def __init__(self, windows: Sequence[WindowChoice]):
        super().__init__()
        low_mhu: list[int] = []
        width_mhu: list[int] = []
        for choice in windows:
            level, width = level_width(choice)
            low, _ = window_bounds(level, width)
            low_mhu.append(round(1000 * low))
            width_mhu.append(round(1000 * width))
        if not low_mhu:
            raise OptionError("a network needs at least one window", "windows", "name one, such as 'brain'")
        self.register_buffer("low_mhu", torch.tensor(low_mhu, dtype=torch.int32))
        self.register_buffer("width_mhu", torch.tensor(width_mhu, dtype=torch.int32))

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lowest HU and width in HU of each window, two float32 tensors (windows,)."""
        return self.low_mhu.float() / 1000, self.width_mhu.float() / 1000

    def forward(self, hu: Tensor) -> Tensor:
        with torch.autocast(hu.device.type, enabled=False):
            values = hu if hu.dtype == torch.float64 else hu.float()
            lows, widths = self.bounds
            # A window at a time: five times faster on a CPU than one broadcast over windows, and it keeps the layout.
            windowed = []
            for low, width in zip(lows.unbind(), widths.unbind(), strict=True):
                windowed.append(((values - low) / width).clamp(0.0, 1.0))
            return torch.cat(windowed, dim=1)


def level_width(choice: WindowChoice) -> tuple[float, float]:
    """Level and width in HU of a named window or a [level, width] pair. Raises OptionError for anything else."""
    if isinstance(choice, str):
        named = window(choice)
        return named.level, named.width
    numbers = isinstance(choice, Sequence) and all(isinstance(x, (int, float)) and abs(x) < 1e6 for x in choice)
    if not numbers or len(choice) != 2:
        raise OptionError(f"{choice} is not a window", "windows", "give a name or [level, width] in HU")
    level, width = choice
    window_bounds(level, width)
    if width < 1e-3:
        raise OptionError(f"a window's width must be at least 0.001 HU, not {width}", "windows")
    return float(level), float(width)


class Net(nn.Module):
    """A network with its window layer: HU (N, slices, rows, columns) to logits (N, outputs, rows, columns).

    name, options: what `nets.build` was given, defaults filled in, ready for JSON or TOML; `build(name, **options)`
    makes the same network again.
    slices: the neighbouring slices it looks at, odd, the middle one is outlined.
    outputs: channels of the logits, see `task.py`.
    multiple: rows and columns must be multiples of it (`grid/` pads). `window` always computes in float32; `body` in
    the type of its weights, or in autocast's.
    """

    def __init__(self, name: str, options: dict[str, Any], window: WindowLayer, body: nn.Module, multiple: int):
        super().__init__()
        self.name = name
        self.options = options
        self.slices: int = options["slices"]
        self.outputs: int = options["outputs"]
        self.multiple = multiple
        self.window = window
        self.body = body

    def set_dropout_keys(self, keys: Tensor | None) -> None:
        """Sets what dropout in the next batch is a function of: (N,) int32, one key per sample. See `keyed_random`."""
        set_dropout_keys([module for module in self.modules() if isinstance(module, Dropout)], keys)

    def forward(self, hu: Tensor) -> Tensor:
        """Raises InputError for a shape the network does not take."""
        if hu.ndim != 4 or hu.shape[1] != self.slices or hu.shape[2] % self.multiple or hu.shape[3] % self.multiple:
            wanted = f"(N, {self.slices}, rows, columns) with rows and columns multiples of {self.multiple}"
            raise InputError(f"network '{self.name}' takes HU {wanted}, not {tuple(hu.shape)}")
        dtype = next(self.body.parameters()).dtype
        return self.body(self.window(hu).to(dtype))
