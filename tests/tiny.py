"""A tiny dataset of heads simple enough to know by heart: an ellipse of brain in a ring of bone, and a bright ball."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hemotorch.data import layouts
from hemotorch.data.dataset import Dataset
from hemotorch.labels import CODES
from hemotorch.nets import Net
from hemotorch.recipe import Recipe, load_recipe
from hemotorch.scan import CaseInfo, Scan, even_scan
from hemotorch.system.device import choose
from hemotorch.system.events import EpochEnd, Event, Listener
from hemotorch.system.metrics import EpochMetrics
from hemotorch.system.ranks import Ranks
from hemotorch.training.job import Job, open_job, training_parts

SIZE, PIXEL_MM, SLICES = 64, 3.0, 6


def head(seed: int, bleeding: bool = True, slices: int = SLICES) -> tuple[Scan, np.ndarray]:
    """A scan of (slices, 64, 64) and its mask in codes, intraparenchymal."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    radius = np.hypot((rows - 32) / 28, (columns - 32) / 23)
    hu = np.full((slices, SIZE, SIZE), -1000.0)
    hu[:, radius < 1] = 1000
    hu[:, radius < 0.88] = 32
    mask = np.zeros(hu.shape, np.uint8)
    if bleeding:
        row, column, z = 32 + rng.integers(-8, 9), 32 + rng.integers(-8, 9), rng.integers(1, slices - 1)
        ball = np.hypot(np.hypot(rows - row, columns - column) / 6, (np.arange(slices) - z)[:, None, None] / 1.6) < 1
        hu[ball] = 68
        mask[ball] = CODES["intraparenchymal"]
    hu += rng.normal(0, 5, hu.shape)
    return even_scan(np.rint(hu).astype(np.int16), PIXEL_MM, 5.0), mask


def write_dataset(root: Path, patients: int = 10, normal: int = 3, seed: int = 0) -> Path:
    """A dataset in the CT-ICH layout; the first `normal` patients have no bleeding. Another seed, other heads."""
    rows = []
    for i in range(patients):
        scan, mask = head(seed + i, bleeding=i >= normal)
        name = f"{49 + i:03d}"
        types = {
            number: frozenset({"intraparenchymal"} if mask[index].any() else ())
            for index, number in enumerate(scan.slice_numbers)
        }
        info = CaseInfo(name, name, 60.0, "F", types, hemorrhage=bool(mask.any()))
        layouts.write_case("ct-ich", root, name, scan, mask, info)
        rows.append(info)
    layouts.write_tables("ct-ich", root, rows)
    return root


def recipe(*settings: str) -> Recipe:
    """`fast`, small enough for a test."""
    small = [
        "grid.size_px=48",
        "grid.pixel_mm=4.0",
        "augment.crop_px=32",
        "net.options.channels=[8,16,16]",
        "train.epochs=3",
        "train.steps_per_epoch=7",
        "train.batch=4",
        "train.validate_every=1",
        "train.ema=0.9",
        "train.checkpoint_s=0.0",
        "data.task='bleeding'",
    ]
    return load_recipe("fast").changed([*small, *settings])


def opened(prepared: Path, *settings: str) -> tuple[Job, Net]:
    """A training on the CPU, before its first step."""
    chosen, dataset = recipe(*settings), Dataset(prepared)
    training, validation = training_parts(dataset.split("patient"), chosen)
    return open_job(dataset, training, validation, chosen, choose("cpu", chosen.engine), Ranks())


def on_epochs(call: Callable[[EpochMetrics], object]) -> Listener:
    """A listener that passes on the row of each epoch."""

    def listen(event: Event) -> None:
        if isinstance(event, EpochEnd):
            call(event.row)

    return listen


#: Values that files of text may hold after an accident, or because somebody means harm.
ODD = [
    "",
    "-1",
    "NaN",
    "1e999",
    "null",
    '"x"',
    "[]",
    "{}",
    "9" * 5000,
    "true",
    "[" * 100_000,
    "\x00",
    '"',
    "\n",
    "\udcff",
]


def mutated(text: str, rng: random.Random) -> bytes:
    """The text with a few of its values, or of its characters, replaced by odd ones, or cut."""
    for _ in range(rng.randint(1, 3)):
        values = list(re.finditer(r'-?\d+(\.\d+)?|"[^"]*"|true|false|null', text))
        if values and rng.random() < 0.7:
            start, end = rng.choice(values).span()
        else:
            start = rng.randrange(len(text) + 1)
            end = min(len(text), start + rng.randint(0, 3))
        text = text[:start] + rng.choice(ODD) + text[end:]
    if rng.random() < 0.1:
        text = text[: rng.randrange(len(text) + 1)]
    return text.encode(errors="surrogateescape")
