"""The 2021 paper's dataset class: pairs of PNGs, as `prepare --png` writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hemotorch.errors import InputError
from hemotorch.io import png


class ICHDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Pairs of PNGs of the same name in ROOT/image and ROOT/label.

    Each element is {"input": ..., "gt": ...}: without a transform float32 tensors (1, H, W) in [0, 1] and {0, 1}.

    Args:
        root: the folder that holds image/ and label/.
        transform: gets and returns that dictionary with PIL images of mode "L", as MedicalTorch's transforms expect.

    Raises:
        InputError: if folders or labels are missing; and for an element, if its files cannot be read or most is white.
    """

    def __init__(self, root: str | Path, transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None):
        self.root, self.transform = Path(root), transform
        self.names = sorted(path.name for path in (self.root / "image").glob("*.png"))
        if not self.names:
            raise InputError("holds no image/*.png", self.root, "make them with `hemotorch prepare SRC OUT --png`")
        missing = [name for name in self.names if not (self.root / "label" / name).is_file()]
        if missing:
            raise InputError(f"{len(missing)} images have no label, {missing[0]} first", self.root / "label")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        image = png.read_image(self.root / "image" / name)
        label = png.read_label(self.root / "label" / name)
        if np.count_nonzero(label) > label.size / 2:
            todo = "white is bleeding, black is not: mend the label"
            raise InputError("marks more than half of the picture as bleeding", self.root / "label" / name, todo)
        if self.transform is not None:
            return self.transform({"input": Image.fromarray(image), "gt": Image.fromarray(label)})
        grey = torch.from_numpy(image)[None].float() / 255
        bleeding = (torch.from_numpy(label)[None] > 0).float()
        return {"input": grey, "gt": bleeding}
