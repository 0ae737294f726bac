"""What a network answers: its output channels, what truth means for them, and how probabilities become a mask.

Truth is a set of channels per voxel, since it is often not known to the last: a binary mask says "some type of
bleeding", slice labels narrow that down to two types, a phantom says exactly which tissue it is. A target holds that
set as the bits of one byte, so data with types, without types and with anatomy train one network together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hemotorch.errors import OptionError, nearest
from hemotorch.labels import CODES, TYPES, UNTYPED

TaskName = Literal["bleeding", "types"]

INSIDE, OUTSIDE = "inside", "outside"
#: Channels that are no bleeding, the last of a task that has several: inside the skull without bleeding, and the rest.
BACKGROUND = (INSIDE, OUTSIDE)

#: Bits of a target. Bit k says that the voxel may be channel k; the first bits are bleeding in both tasks. No bit at
#: all means "no bleeding, and inside or outside the skull is not known": what padding is, and a plain mask's 0.
BLEEDING_BITS = 0b0011111
INSIDE_BIT = 0b0100000
OUTSIDE_BIT = 0b1000000


@dataclass(frozen=True)
class Task:
    """What a network answers.

    channels: names of its outputs, those that are bleeding first. A task of one channel gives the probability of
        bleeding by a sigmoid; several channels exclude each other, and a softmax gives theirs.
    bleeding: how many of the channels are bleeding.
    """

    name: TaskName
    channels: tuple[str, ...]
    bleeding: int

    @property
    def background_bits(self) -> int:
        """Bits of the channels that are no bleeding: what a target of 0 stands for. 0 if there are none."""
        return sum(1 << channel for channel in range(self.bleeding, len(self.channels)))

    @property
    def types(self) -> tuple[str, ...]:
        """The types of bleeding that it tells apart; none if it only says bleeding or not."""
        return self.channels[: self.bleeding] if self.bleeding > 1 else ()

    def target(
        self,
        mask: np.ndarray,
        slice_types: tuple[tuple[bool, ...] | None, ...] | None = None,
        inside: np.ndarray | None = None,
    ) -> np.ndarray:
        """What is known of each voxel, as bits.

        Args:
            mask: (slices, rows, columns) uint8 codes of `labels`.
            slice_types: for each slice which of `labels.TYPES` it holds, None if that is unknown. They narrow down
                bleeding of unknown type.
            inside: (slices, rows, columns) bool, what lies inside the skull; None if that is unknown.

        Returns:
            (slices, rows, columns) uint8.
        """
        if not self.types:
            return (mask > 0).astype(np.uint8)
        bits_of_code = np.zeros(256, np.uint8)
        for code in CODES.values():
            bits_of_code[code] = 1 << (code - 1)
        bits_of_code[UNTYPED] = BLEEDING_BITS
        target = bits_of_code[mask]
        for index, types in enumerate(slice_types or ()):
            if types is not None and any(types):
                possible = sum(held << number for number, held in enumerate(types))
                target[index][mask[index] == UNTYPED] = possible
        if inside is not None:
            background = np.where(inside, np.uint8(INSIDE_BIT), np.uint8(OUTSIDE_BIT))
            target = np.where(mask == 0, background, target)
        return target

    def mask(self, bleeding: np.ndarray, types: np.ndarray | None = None) -> np.ndarray:
        """Bleeding and the probabilities of its types as a mask.

        Args:
            bleeding: (...) bool, what is outlined.
            types: (channels, ...) float, probabilities of at least the bleeding channels; not needed without types.

        Returns:
            (...) uint8: codes of `labels.CODES`, or 0 and 1 if the task has no types.
        """
        if not self.types or types is None:
            return bleeding.astype(np.uint8)
        code = types[: self.bleeding].argmax(axis=0).astype(np.uint8) + 1
        return np.where(bleeding, code, 0).astype(np.uint8)


BLEEDING = Task("bleeding", ("bleeding",), 1)
TYPED = Task("types", (*TYPES, *BACKGROUND), len(TYPES))
TASKS: dict[str, Task] = {task.name: task for task in (BLEEDING, TYPED)}


def task_named(name: str) -> Task:
    """The task of that name. Raises OptionError for an unknown one."""
    if name not in TASKS:
        raise OptionError(f"unknown task '{name}'", "data.task", nearest(name, TASKS))
    return TASKS[name]
