"""What MedicalTorch 0.2 (2018) needs and today's Python, PyTorch and torchvision no longer have.

Stand-ins for `torch._six`, `collections.Mapping` and the four functions of torchvision that its transforms call, on
PIL images, as torchvision did it then: its `resample` and `fillcolor` arguments are gone from torchvision itself.
"""

from __future__ import annotations

import collections
import collections.abc
import math
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image


def to_tensor(image: Image.Image) -> torch.Tensor:
    """(1, rows, columns) float32, values as they are."""
    return torch.from_numpy(np.array(image, np.float32))[None]


def normalize(tensor: torch.Tensor, mean: Sequence[Any], std: Sequence[Any]) -> torch.Tensor:
    """Minus the mean, divided by the standard deviation."""
    return (tensor - mean[0]) / std[0]


def center_crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The middle (rows, columns) of an image; 0 where it is smaller."""
    left, top = round((image.width - size[1]) / 2), round((image.height - size[0]) / 2)
    return image.crop((left, top, left + size[1], top + size[0]))


def affine(
    image: Image.Image,
    angle: float,
    translate: tuple[float, float],
    scale: float,
    shear: float,
    resample: Any = False,
    fillcolor: float = 0,
) -> Image.Image:
    """Rotated (degrees), sheared (degrees), scaled about the middle and moved (pixels, right and down)."""
    turn, lean = math.radians(angle), math.radians(shear)
    forward = scale * np.array([[math.cos(turn), -math.sin(turn + lean)], [math.sin(turn), math.cos(turn + lean)]])
    back = np.linalg.inv(forward)
    middle = np.array([image.width / 2, image.height / 2])
    offset = middle - back @ (middle + np.array(translate))
    matrix = (back[0, 0], back[0, 1], offset[0], back[1, 0], back[1, 1], offset[1])
    method = Image.Resampling(int(resample))
    return image.transform(image.size, Image.Transform.AFFINE, matrix, method, fillcolor=fillcolor)


class Compose:
    """Transforms one after another."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]):
        self.transforms = transforms

    def __call__(self, sample: Any) -> Any:
        for transform in self.transforms:
            sample = transform(sample)
        return sample


def install() -> None:
    """Makes `import medicaltorch.datasets` and `.transforms` work."""
    functional = types.ModuleType("torchvision.transforms.functional")
    for function in (to_tensor, normalize, center_crop, affine):
        setattr(functional, function.__name__, function)
    transforms = types.ModuleType("torchvision.transforms")
    transforms.functional, transforms.Compose = functional, Compose  # type: ignore[attr-defined]
    torchvision = types.ModuleType("torchvision")
    torchvision.transforms = transforms  # type: ignore[attr-defined]
    six = types.ModuleType("torch._six")
    six.string_classes, six.int_classes = (str, bytes), int  # type: ignore[attr-defined]
    for module in (functional, transforms, torchvision, six):
        sys.modules[module.__name__] = module
    for name in ("Mapping", "Sequence"):
        setattr(collections, name, getattr(collections.abc, name))
