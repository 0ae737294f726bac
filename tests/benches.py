"""Rows of a bench made up for tests: round numbers that are nobody's measurement."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from hemotorch.bench.configs import label
from hemotorch.bench.records import PHASES, Bench, Config, Round, Row
from hemotorch.bench.speedup import compared

#: What a bench is told instead of trying layouts, which takes two processes.
CONTIGUOUS = "engine.channels_last=off", "On the CPU in contiguous layout (for the test)."
COMPUTING = {"data": 0.01, "forward": 0.33, "backward": 0.64, "optimiser": 0.02}
MACHINE = {
    "processor": "Example 9000",
    "cores": 8,
    "gpu": "Example GPU",
    "gpus": 1,
    "torch": "2.13.0",
    "load_before": 0.1,
}


def row(
    images_s: float,
    shares: dict[str, float] | None = None,
    peak_share: float = 0.8,
    *,
    launch: float = math.nan,
    gpu_memory_mb: float = math.nan,
    storage: str = "resident",
    size: tuple[int, int] = (192, 192),
    spread: tuple[float, ...] = (0.97, 1.0, 1.02),
    **config: Any,
) -> Row:
    """A row of that speed; its other figures follow from it."""
    made = Config("", **{"threads": 8, **config})
    made = replace(made, label=label(made, 4))
    shares = dict.fromkeys(PHASES, 0.0) | (COMPUTING if shares is None else shares)
    peak = 3 * 42 * images_s / peak_share
    rounds = tuple(
        Round(
            (made.batch / (images_s * times),), made.batch, shares, launch, 42.0, peak, memory_mb=1800.0,
            gpu_memory_mb=gpu_memory_mb, losses=(-0.02, -0.03), steps=98, epochs=150, storage=storage, size=size,
            reasons=("because",),
        )
        for times in spread
    )  # fmt: skip
    return Row(made, rounds, peak_gflops=peak)


def bench(*rows: Row, **other: Any) -> Bench:
    """A whole result of those rows, or of a CPU and a GPU."""
    if not rows:
        gpu = {"device": "cuda", "precision": "bf16"}
        rows = (
            row(1.1, reference=True, threads=0),
            row(0.5, threads=1),
            row(2.4),
            row(1.9, threads=4, ranks=2),
            row(
                40, {"data": 0.55, "forward": 0.1, "backward": 0.2, "waiting": 0.15}, 0.1, reference=True, device="cuda"
            ),
            row(160, device="cuda", peak_share=0.5),
            row(230, peak_share=0.3, launch=0.4, gpu_memory_mb=6200.0, **gpu),
            row(310, {"data": 0.01, "graph": 0.99}, 0.4, compile=True, graphs=True, **gpu),
            row(1.0, batch=1),
            row(1.7, batch=2),
            row(2.6, batch=8),
            replace(
                Row(Config("CPU, 8 threads, compiled", threads=8, compile=True)), error="was killed by signal SIGKILL"
            ),
        )
    settings = {"recipe": "paper", "recipe_toml": 'name = "<paper>"', "quick": True, "data": "phantom"}
    settings |= {"layout": "ct-ich", "scans": 10, "slices": 180, "price_per_hour": None}
    found = compared(rows, 8)
    values: dict[str, Any] = {"sentence": "Arithmetic is the limit.", "sweeps": {}, "warnings": ("Quick: small.",)}
    if len(found) == 12:
        values["sweeps"] = {"batch": {"cpu": [8, 9, 2, 10]}, "threads": {"cpu": [1, 2]}}
    values |= other
    return Bench(
        "train", values.pop("sentence"), settings | values.pop("settings", {}), MACHINE, tuple(found), **values
    )
