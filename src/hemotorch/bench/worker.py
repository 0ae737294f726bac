"""One measurement in a fresh process: `python -m hemotorch.bench.worker QUESTION.json` prints a line of JSON.

What it is asked has one key: {"round": SPEC} measures a config (several processes with torchrun's environment variables
are the ranks of one), {"curve": SPEC} a learning curve, {"layout": SPEC} tells what a training like that chooses by
measuring, {"machine": null} what the machine is and has.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import torch

from hemotorch.bench.clock import Clock, memory_mb, peak_gflops, waiter
from hemotorch.bench.curves import CurveSpec, measure_curve
from hemotorch.bench.loops import Loop, open_training, reference_loop, training_loop
from hemotorch.bench.processes import end_with_parent
from hemotorch.bench.records import Config, Machine, Round, Spec
from hemotorch.errors import HemotorchError
from hemotorch.system import machine, threads
from hemotorch.system.device import choose, environment, is_ampere
from hemotorch.system.files import jsonable, read_json
from hemotorch.system.ranks import Ranks, exit_rank, process_group
from hemotorch.training.autotune import autotune
from hemotorch.training.loop import steps

#: Steps before the clock runs, the fastest of which says how many it is to run for. In the first ones kernels are
#: chosen and compiled, and graphs captured.
WARM_UP = {"cpu": 2, "cuda": 10}
#: A GPU is only waited for at the end of this long, so that it can run ahead of its host.
BLOCK_S = 0.2
#: Blocks of steps that are timed.
LEAST, MOST = 2, 1000
#: Most steps of a GPU with the clock of phases.
MARKED = 30


def measure(loop: Loop, spec: Spec, ranks: Ranks) -> Round:
    """Warm-up, steps that are timed, and the peak; the same number of steps on every rank.

    On a CPU the timed steps carry the clock of phases, which costs nothing there; on a GPU, where each of its marks
    waits, other steps do.
    """
    on_gpu = loop.device.type == "cuda"
    first_loss, step_s = _warm_up(loop)

    def agreed(number: float, least: int, most: int) -> int:
        return int(ranks.gather(min(most, max(least, round(number))))[0])

    threads = spec.config.threads or torch.get_num_threads()
    clock = Clock(loop.device, threads)
    if on_gpu:
        block = agreed(BLOCK_S / step_s, 1, MOST)
        times, last_loss = _timed(loop, agreed(spec.seconds / (step_s * block), LEAST, MOST), block)
        _marked(loop, agreed(spec.seconds / 3 / step_s, 1, MARKED), spec.config, clock)
        gpu_memory_mb = sum(ranks.gather(torch.cuda.max_memory_reserved(loop.device) / 1e6))
    else:
        times, last_loss = _timed(loop, agreed(spec.seconds / step_s, LEAST, MOST), 1, clock)
        gpu_memory_mb = math.nan
    return replace(
        loop.facts,
        step_s=tuple(times),
        shares=clock.shares,
        launch=clock.launch,
        memory_mb=sum(ranks.gather(memory_mb())),
        peak_gflops=sum(ranks.gather(peak_gflops(loop.device, spec.config.precision, threads))),
        gpu_memory_mb=gpu_memory_mb,
        losses=(first_loss, last_loss),
    )


def _warm_up(loop: Loop) -> tuple[float, float]:
    """The very first loss, and the seconds of the fastest step: the first ones compile, and other work may stop any."""
    wait = waiter(loop.device)
    losses, seconds = [], []
    for _ in range(WARM_UP[loop.device.type]):
        wait()
        start = time.perf_counter()
        losses.append(loop.step())
        wait()
        seconds.append(time.perf_counter() - start)
    return float(losses[0]), min(seconds)


def _timed(loop: Loop, blocks: int, block: int, clock: Clock | None = None) -> tuple[list[float], float]:
    """Seconds of a step in each block; and the mean loss of the later half of them, since one batch's says little."""
    wait = waiter(loop.device)
    times, losses = [], []
    wait()
    if clock is not None:
        loop.listen(clock.mark)
        clock.start()
    for _ in range(blocks):
        start = time.perf_counter()
        for _ in range(block):
            loss = loop.step()
        wait()
        times.append((time.perf_counter() - start) / block)
        # Read when the clock has stopped: on a GPU reading waits.
        losses.append(float(loss))
    loop.listen(_ignore)
    return times, statistics.mean(losses[len(losses) // 2 :])


def _marked(loop: Loop, steps: int, config: Config, clock: Clock) -> None:
    # Nothing may be waited for while a graph is captured, which a step of another size can cause even now.
    def mark_data(phase: str) -> None:
        if phase == "data":
            clock.mark(phase)

    loop.listen(mark_data if config.graphs else clock.mark)
    clock.start()
    for _ in range(steps):
        loop.step()
        # What no phase has claimed until here.
        clock.mark("graph" if config.graphs else "waiting")
    loop.listen(_ignore)


def _ignore(phase: str) -> None:
    """Listens to no phase."""


def about_machine(_: None = None) -> dict[str, Any]:
    """The whole environment, for records, and what there is to measure on."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    about = Machine(min(machine.cores(), threads.count()[0]), gpus, compiler=machine.has_compiler())
    if gpus:
        chosen = choose("cuda")
        exact = ("fp32", "tf32") if is_ampere(chosen.torch_device) else ("fp32",)
        precisions = tuple(dict.fromkeys((*exact, chosen.precision)))
        about = replace(about, precisions=precisions, compiled=chosen.compile, graphs=chosen.graphs)
    variables = {name: value for name, value in os.environ.items() if name.startswith(("OMP_", "MKL_", "KMP_"))}
    return {
        "machine": asdict(about),
        "environment": {
            **environment(),
            "cores": about.cores,
            "physical_cores": machine.physical_cores(),
            "threads": torch.get_num_threads(),
            "memory_gb": round(_total_memory() / 2**30, 1),
            "gpus": gpus,
            "driver": _driver(),
            "load_before": _load(),
            "variables": variables,
        },
    }


def _load() -> float:
    """Processes that wanted to run in the last minute, on average."""
    # Windows has none.
    with suppress(AttributeError, OSError):
        return round(os.getloadavg()[0], 2)
    return math.nan


def _total_memory() -> int:
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return machine.free_memory()


def _driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError, IndexError):
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.splitlines()[0].strip()
    return None


def chosen_layout(question: dict[str, Any]) -> dict[str, Any]:
    """The memory layout that a training on this machine chooses."""
    device = autotune(*open_training(Spec(**question), Ranks()), steps)
    return {"channels_last": device.channels_last, "reason": device.reasons[-1]}


def measured_round(question: dict[str, Any]) -> dict[str, Any] | None:
    """A Round, of the first rank only."""
    spec = Spec(**question)
    with process_group() as ranks:
        loop = reference_loop(spec) if spec.config.reference else training_loop(spec, ranks)
        result = measure(loop, spec, ranks)
        return asdict(result) if ranks.first else None


ANSWERS: dict[str, Callable[[Any], dict[str, Any] | None]] = {
    "machine": about_machine,
    "layout": chosen_layout,
    "round": measured_round,
    "curve": lambda question: dict(measure_curve(CurveSpec(**question))),
}


def main(arguments: list[str]) -> int:
    """Prints one line of JSON; an explained error goes to stderr in one line. One of several ranks does not return."""
    end_with_parent()
    ((name, question),) = read_json(arguments[0]).items()
    try:
        answer = ANSWERS[name](question)
    except HemotorchError as error:
        print(error, file=sys.stderr)
        return exit_rank(1)
    if answer is not None:
        print(json.dumps(jsonable(answer)))
    return exit_rank(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
