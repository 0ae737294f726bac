"""What every contender's own process shares: its job, its clock, and the record of what its network outlined when.

It runs in every environment, so it needs nothing but NumPy, and torch for `network_size`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

Masks = Mapping[str, np.ndarray]  #: case id -> (slices, rows, columns), anything but 0 is bleeding


class Job:
    """What a contender is asked to do, as peers.py wrote it.

    data: folder of `export`; work: the contender's own folder; options: of this contender (contenders.py).
    """

    def __init__(self, path: str | Path):
        stored = json.loads(Path(path).read_text())
        self.data, self.work = Path(stored["data"]), Path(stored["work"])
        self.began: float = stored["began"]
        self.limit_s: float = 60 * stored["minutes"]
        self.every_s: float = stored["every_s"]
        self.cores: int = stored["cores"]
        self.seed: int = stored["seed"]
        self.options: dict[str, Any] = stored["options"]
        cases = json.loads((self.data / "cases.json").read_text())
        self.train: list[str] = list(cases["train"])
        self.val: list[str] = list(cases["val"])
        self.test: list[str] = list(cases["test"])
        self.side_px: int = cases["side_px"]
        self.pixel_mm: float = cases["pixel_mm"]

    def file(self, kind: str, case: str) -> Path:
        """The NIfTI of a case: kind is hu (int16), brain (float32, 0 to 1) or mask (uint8, 0 and 1)."""
        return self.data / kind / f"{case}.nii.gz"


class Recorder:
    """The contender's clock and record. The clock starts with its process and stands still while it is scored."""

    def __init__(self, job: Job):
        self._job = job
        self._paused = 0.0
        self._losses: list[float] = []
        self._images = 0
        self._started: float | None = None
        self._next = job.every_s / 4  # sooner at first, when most changes
        self._points = 0

    @property
    def seconds(self) -> float:
        """Of training, all that belongs to it included: imports, loading, caching, starting workers."""
        return time.time() - self._job.began - self._paused

    @property
    def share(self) -> float:
        """How much of the contender's time is over, 0 to 1: what schedules that end follow."""
        return min(1.0, self.seconds / self._job.limit_s)

    @property
    def due(self) -> bool:
        """Whether it is time for the next point, the last one among them."""
        return self.seconds >= self._next or self.over

    @property
    def over(self) -> bool:
        """Whether the contender's time is up."""
        return self.seconds >= self._job.limit_s

    def start(self, earlier_s: float = 0.0) -> None:
        """Says that training steps begin now, or began `earlier_s` ago: images a second are counted from here."""
        self._started = self.seconds - earlier_s

    def pause(self, seconds: float) -> None:
        """Takes time that was spent on something else than training out of the clock."""
        self._paused += seconds

    def step(self, images: int, loss: float) -> None:
        """Counts a training step."""
        self._images += images
        self._losses.append(loss)

    def point(self, predict: Callable[[], Masks]) -> None:
        """Writes what the network outlines in the held-out scans now; the clock stands still meanwhile."""
        seconds, began = self.seconds, time.time()
        masks = predict()
        row = {
            "seconds": round(seconds, 2),
            "images": self._images,
            "loss": float(np.mean(self._losses)) if self._losses else None,
            "predict_s": round(time.time() - began, 2),
            "file": f"{self._points:03d}.npz",
        }
        np.savez_compressed(self._job.work / row["file"], **{case: mask != 0 for case, mask in masks.items()})
        with open(self._job.work / "rows.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{row['seconds']:7.0f} s   {self._images} images   loss {row['loss']}", flush=True)
        self._losses, self._points = [], self._points + 1
        while self._next <= seconds:
            self._next += min(self._next, self._job.every_s)
        self.pause(time.time() - began)

    def finish(self, packages: tuple[str, ...], **about: Any) -> None:
        """Writes about.json: versions, speed, and what the contender says of itself."""
        rows = [json.loads(line) for line in (self._job.work / "rows.jsonl").read_text().splitlines()]
        span = rows[-1]["seconds"] - (self._started or 0.0)
        record = {
            "images_s": rows[-1]["images"] / span if span > 0 else None,
            "start_s": self._started,
            "versions": {"python": sys.version.split()[0]} | {name: _version(name) for name in packages},
            **about,
        }
        (self._job.work / "about.json").write_text(json.dumps(record, indent=2))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not a package"


def begin() -> tuple[Job, Recorder]:
    """The job named on the command line, torch told how many cores it has."""
    import torch

    job = Job(sys.argv[1])
    torch.set_num_threads(job.cores)
    torch.manual_seed(job.seed)
    np.random.seed(job.seed)
    os.chdir(job.work)
    return job, Recorder(job)


def network_size(net: Any, channels: int, side_px: int) -> dict[str, float]:
    """Millions of parameters, and GFLOP of one forward pass of a slice (a multiply-add is two; convolutions only)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    was = net.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.eval()(torch.zeros(1, channels, side_px, side_px))
    net.train(was)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return {"parameters_m": parameters / 1e6, "gflop_slice": counter.get_total_flops() / 1e9}
