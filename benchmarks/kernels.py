"""How long each Triton kernel takes on this GPU, beside its PyTorch reference, eager and through torch.compile.

    python benchmarks/kernels.py [--rounds 15] [--json FILE]

The three ways take turns, `--rounds` times; a turn is some hundredths of a second of calls, and the median turn counts.
`called` is the time a call takes from Python, `replayed` that of the same work in a CUDA graph: what the GPU alone
needs. The dice-ce rows are a forward and a backward pass. `off by` is the largest difference from the reference in
float64: HU for sample (its mask's pixels that differ are counted apart), and for dice-ce relative, of the gradient's
largest value. Needs CUDA and Triton; torch, numpy and hemotorch are all it imports.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hemotorch.training import kernels
from hemotorch.training.kernels.dice_ce import dice_ce_reference, dice_ce_sums
from hemotorch.training.kernels.sample import Samples, sample, sample_reference

SIZES = ((32, 1, 512, 512), (8, 3, 192, 192))
TURN_MS = 30.0
Call = Callable[[], Any]


def sample_ways(count: int, slices: int, height: int, width: int) -> dict[str, Call]:
    """Four batches' worth of resident slices, turned by 10 degrees, bent, brightened and windowed twice."""
    random = np.random.default_rng(0)
    stock = 4 * count * slices
    hu = torch.from_numpy(random.integers(-1024, 2000, (stock, height, width), np.int16)).cuda()
    mask = torch.from_numpy(random.integers(0, 2, (stock, height, width), np.uint8)).cuda()
    rows = torch.from_numpy(random.integers(0, stock, (count, slices))).cuda()
    cos, sin = np.cos(np.pi / 18), np.sin(np.pi / 18)
    theta = torch.tensor([[cos, -sin, 0.03], [sin, cos, -0.02]], device="cuda").float().expand(count, 2, 3).contiguous()
    options = {
        "field": torch.from_numpy(random.normal(0, 0.02, (count, 2, 6, 6))).float().cuda(),
        "gain": torch.from_numpy(random.uniform(0.9, 1.1, count)).float().cuda(),
        "offset": torch.from_numpy(random.uniform(-6, 6, count)).float().cuda(),
    }
    windows = (torch.tensor([-20.0, -800.0], device="cuda"), torch.tensor([120.0, 2800.0], device="cuda"))
    given = (hu, mask, rows, theta, (height, width))
    compiled = torch.compile(sample_reference, dynamic=False)
    return {
        "eager": lambda: sample_reference(Samples(*given, **options, windows=windows)),
        "compiled": lambda: compiled(Samples(*given, **options, windows=windows)),
        "triton": lambda: sample(Samples(*given, **options, windows=windows), triton=True),
        "plain triton": lambda: sample(Samples(*given, **options), triton=True),
        "exact": lambda: sample_reference(Samples(hu, mask, rows, theta.double(), (height, width), **options)),
    }


def dice_ce_ways(count: int, _: int, height: int, width: int) -> dict[str, Call]:
    """Logits in bfloat16, channels-last, against a mask of bytes."""
    random = np.random.default_rng(0)
    logits = torch.from_numpy(random.normal(-3, 3, (count, 1, height, width))).cuda().bfloat16()
    logits = logits.contiguous(memory_format=torch.channels_last).requires_grad_()
    target = torch.from_numpy(random.integers(0, 2, logits.shape, np.uint8)).cuda()

    def step(sums: Callable[..., Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        overlap, total, entropy, pixels = sums(x, target, 2.0).unbind()
        loss = entropy / pixels - (2 * overlap + 1e-4) / (total + 1e-4)
        return loss.detach(), torch.autograd.grad(loss, x)[0]

    return {
        "eager": lambda: step(dice_ce_reference, logits),
        "compiled": partial(step, torch.compile(dice_ce_reference, dynamic=False), logits),
        "triton": lambda: step(partial(dice_ce_sums, triton=True), logits),
        "exact": lambda: step(dice_ce_reference, logits.detach().double().requires_grad_()),
    }


def recorded(call: Call) -> Call:
    """The call as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = call()
    return lambda: (graph.replay(), output)


def turn(call: Call, times: int) -> float:
    """Milliseconds of one of `times` calls in a row."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(times):
        call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / times


def medians(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, taking turns."""
    for call in calls.values():
        turn(call, 3)  # builds what is built once
    times = {name: max(3, round(TURN_MS / turn(call, 3))) for name, call in calls.items()}
    turns: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            turns[name].append(turn(call, times[name]))
    return {name: statistics.median(values) for name, values in turns.items()}


def off(kernel: str, ways: dict[str, Call]) -> dict[str, float]:
    """How far the Triton kernel is from the reference in float64."""
    with torch.no_grad() if kernel == "sample" else torch.enable_grad():
        outputs, exact = ways.get("plain triton", ways["triton"])(), ways["exact"]()
    first, second = ((a.double() - b.double()).abs() for a, b in zip(outputs, exact, strict=True))
    if kernel == "sample":
        return {"off_by": first.max().item(), "mask_pixels_off": int(second.sum().item())}
    return {"off_by": (second.max() / exact[1].abs().max()).item(), "loss_off_by": first.item()}


def table(rows: list[dict[str, Any]]) -> str:
    """A line a kernel, size and way."""
    lines = [f"{'kernel':8} {'size':>14} {'way':9} {'called':>10} {'replayed':>10}   off by"]
    for row in rows:
        size = "x".join(map(str, row["size"]))
        for way in row["called_ms"]:
            called, replayed = row["called_ms"][way], row["replayed_ms"][way]
            note = f"{row['off_by']:.1e}" if way == "triton" else ""
            lines.append(f"{row['kernel']:8} {size:>14} {way:9} {called:7.3f} ms {replayed:7.3f} ms   {note}".rstrip())
    return "\n".join(lines)


def main() -> None:
    """Measures, prints a table, and writes JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/kernels.py needs a CUDA GPU, and torch finds none here")
    if not kernels.available("cuda"):
        raise SystemExit(
            "benchmarks/kernels.py needs Triton and a GPU that it compiles for, and one of them is missing"
        )
    rows = []
    for kernel, build in {"sample": sample_ways, "dice-ce": dice_ce_ways}.items():
        for size in SIZES:
            ways = build(*size)
            calls = {name: ways[name] for name in ("eager", "compiled", "triton")}
            called = medians(calls, arguments.rounds)
            replayed = medians({name: recorded(call) for name, call in calls.items()}, arguments.rounds)
            rows.append(
                {"kernel": kernel, "size": size, "called_ms": called, "replayed_ms": replayed, **off(kernel, ways)}
            )
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n{table(rows)}")
    if arguments.json:
        machine = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda}
        arguments.json.write_text(json.dumps({"environment": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
