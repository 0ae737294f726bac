"""The training loop that the 2021 paper's authors had to write, as the baseline of every speed-up.

PNG files read one by one, torch's DataLoader, the paper's network, Adam and negative Dice, eager, with the framework's
own choice of threads, memory layout and TF32, and Dice computed on the host after every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from hemotorch import nets
from hemotorch.keyed_random import torch_seed
from hemotorch.recipe import Recipe
from hemotorch.training import losses
from hemotorch.training.png_pairs import ICHDataset


class ReferenceLoop:
    """One optimiser step per call of `step`, over and over the PNGs in random order.

    on_phase_end: called with the name of each phase at its end. dice: of the last step. size: rows and columns all
    slices are brought to, multiples of what the network needs. Only for networks that see one slice in one window.
    """

    def __init__(self, pngs: Path | str, recipe: Recipe, workers: int, device: str, size: tuple[int, int]):
        torch.manual_seed(torch_seed(recipe.train.seed, 0))
        self.on_phase_end: Callable[[str], None] = lambda phase: None
        self.net = nets.build(recipe.net.name, **recipe.net.options)
        self.device, self.dice = torch.device(device), 0.0
        self._net = self.net.body.to(self.device).train()
        self._loss_of = losses.build(recipe.loss.name, **recipe.loss.options)
        self._optimizer = torch.optim.Adam(self._net.parameters(), recipe.optimizer.lr)
        data, batch = ICHDataset(pngs, _Tensors(size)), recipe.train.batch
        loader = DataLoader(data, batch, shuffle=True, num_workers=workers, drop_last=len(data) >= batch)
        self._batches = _forever(loader)

    def step(self) -> Tensor:
        """Trains on one batch and returns its loss."""
        batch = next(self._batches)
        image, target = batch["input"].to(self.device), batch["gt"].to(self.device)
        self.on_phase_end("data")
        logits = self._net(image)
        loss = self._loss_of(logits, target)
        self.on_phase_end("forward")
        self._optimizer.zero_grad()
        loss.backward()
        self.on_phase_end("backward")
        self._optimizer.step()
        self.on_phase_end("optimiser")
        loss.item()
        self.dice = _dice((logits.detach().sigmoid() >= 0.5).cpu().numpy(), target.cpu().numpy() > 0)
        self.on_phase_end("metric")
        return loss.detach()


class _Tensors:
    """A slice and its mask as float32 tensors (1, rows, columns) of [0, 1] and {0, 1}, resized if they must be."""

    def __init__(self, size: tuple[int, int]):
        # Pillow counts columns first.
        self._size = (size[1], size[0])

    def __call__(self, pair: Mapping[str, Image.Image]) -> dict[str, Tensor]:
        image, label = pair["input"], pair["gt"]
        if image.size != self._size:
            image = image.resize(self._size, Image.Resampling.BILINEAR)
            label = label.resize(self._size, Image.Resampling.NEAREST)
        grey = torch.from_numpy(np.array(image))[None]
        drawn = torch.from_numpy(np.array(label))[None]
        return {"input": grey.float() / 255, "gt": (drawn > 0).float()}


def _forever(loader: DataLoader[dict[str, Any]]) -> Iterator[dict[str, Tensor]]:
    while True:
        yield from loader


def _dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else 1.0
