"""One measurement in a fresh process: `python -m hemotorch.bench.worker SPEC.json` prints a Round as a line of JSON.

Several of it, with torchrun's environment variables, are the ranks of one. Asked nothing (null) it prints what the
machine is and has; asked {"settle": SPEC}, what a training like that decides by measuring.
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

from hemotorch.bench.children import end_with_parent
from hemotorch.bench.clock import Clock, memory_mb, peak_gflops, waiter
from hemotorch.bench.configs import Machine
from hemotorch.bench.loops import Loop, own_job, own_loop, reference_loop
from hemotorch.bench.rows import Config, Round, Spec, from_json
from hemotorch.errors import HemotorchError
from hemotorch.system import machine, threads
from hemotorch.system.device import choose, environment, is_ampere
from hemotorch.system.files import jsonable, read_json
from hemotorch.system.ranks import Ranks, joined, leave
from hemotorch.training.autotune import autotune
from hemotorch.training.loop import steps

#: Steps before the clock runs, the last of which says how many it is to run for. In the first ones kernels are chosen
#: and compiled, and graphs captured.
WARM_UP = {"cpu": 2, "cuda": 10}
BLOCK_S = 0.2  #: a GPU is only waited for at the end of this long, so that it can run ahead of its host
LEAST, MOST = 2, 1000  #: blocks of steps that are timed
MARKED = 30  #: most steps of a GPU with the clock of phases


def measure(loop: Loop, spec: Spec, ranks: Ranks) -> Round:
    """Warm-up, steps that are timed, and the peak; the same number of steps on every rank.

    On a CPU the timed steps carry the clock of phases, which costs nothing there; on a GPU, where each of its marks
    waits, other steps do.
    """
    on_gpu = loop.device.type == "cuda"
    wait = waiter(loop.device)
    first, step_s = _warm_up(loop, wait)

    def agreed(number: float, least: int, most: int) -> int:
        return int(ranks.gather(min(most, max(least, round(number))))[0])

    threads = spec.config.threads or torch.get_num_threads()
    clock = Clock(loop.device, threads)
    block = agreed(BLOCK_S / step_s, 1, MOST) if on_gpu else 1
    blocks = agreed(spec.seconds / (step_s * block), LEAST, MOST)
    times, loss = _timed(loop, wait, blocks, block, None if on_gpu else clock)
    if on_gpu:
        _marked(loop, agreed(spec.seconds / 3 / step_s, 1, MARKED), spec.config, clock)
    memory = sum(ranks.gather(memory_mb()))
    gpu = sum(ranks.gather(torch.cuda.max_memory_reserved(loop.device) / 1e6)) if on_gpu else math.nan
    return Round(
        step_s=tuple(times),
        images=loop.images,
        shares=clock.shares,
        launch=clock.launch,
        image_gflop=loop.image_gflop,
        peak_gflops=sum(ranks.gather(peak_gflops(loop.device, spec.config.precision, threads))),
        memory_mb=memory,
        gpu_memory_mb=gpu,
        losses=(first, loss),
        steps=loop.steps,
        epochs=loop.epochs,
        storage=loop.storage,
        size=loop.size,
        reasons=loop.reasons,
    )


def _warm_up(loop: Loop, wait: Callable[[], None]) -> tuple[float, float]:
    """The very first loss, and the seconds of the last step before the clock runs."""
    first = math.nan
    for number in range(WARM_UP[loop.device.type]):
        wait()
        began = time.perf_counter()
        loss = loop.step()
        wait()
        seconds = time.perf_counter() - began
        first = first if number else float(loss)
    return first, seconds


def _timed(
    loop: Loop, wait: Callable[[], None], blocks: int, block: int, clock: Clock | None
) -> tuple[list[float], float]:
    """Seconds of a step in each block; and the mean loss of the later half of them, since one batch's says little."""
    times, losses = [], []
    wait()
    if clock is not None:
        loop.listen(clock.mark)
        clock.start()
    for _ in range(blocks):
        began = time.perf_counter()
        for _ in range(block):
            loss = loop.step()
        wait()
        times.append((time.perf_counter() - began) / block)
        losses.append(float(loss))
    loop.listen(lambda phase: None)
    return times, statistics.mean(losses[len(losses) // 2 :])


def _marked(loop: Loop, steps: int, config: Config, clock: Clock) -> None:
    # Nothing may be waited for while a graph is captured, which a step of another size can cause even now.
    loop.listen((lambda phase: clock.mark(phase) if phase == "data" else None) if config.graphs else clock.mark)
    clock.start()
    for _ in range(steps):
        loop.step()
        clock.mark("graph" if config.graphs else "waiting")
    loop.listen(lambda phase: None)


def about_machine() -> dict[str, Any]:
    """The whole environment, for records, and what there is to measure on."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = Machine(min(machine.cores(), threads.count()[0]), gpus, compiler=machine.has_compiler())
    if gpus:
        chosen = choose("cuda")
        exact = ("fp32", "tf32") if is_ampere(chosen.torch_device) else ("fp32",)
        precisions = tuple(dict.fromkeys((*exact, chosen.precision)))
        found = replace(found, precisions=precisions, compiled=chosen.compile, graphs=chosen.graphs)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    told = {
        **environment(),
        "cores": found.cores,
        "physical_cores": machine.physical_cores(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(_total_memory() / 2**30, 1),
        "gpus": gpus,
        "driver": _driver(),
        "load_before": round(load, 2),
        "variables": {name: value for name, value in os.environ.items() if name.startswith(("OMP_", "MKL_", "KMP_"))},
    }
    return {"environment": told, "machine": asdict(found)}


def _total_memory() -> int:
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return machine.free_memory()


def _driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    with suppress(OSError, subprocess.SubprocessError):
        ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(ask, capture_output=True, text=True, timeout=20).stdout.splitlines()[0].strip()
    return None


def main(arguments: list[str]) -> int:
    """Prints one line of JSON; an explained error goes to stderr in one line. One of several ranks does not return."""
    end_with_parent()
    question = read_json(arguments[0])
    if question is None:
        print(json.dumps(jsonable(about_machine())))
        return 0
    return leave(_answered(question))


def _answered(question: dict[str, Any]) -> int:
    try:
        if "settle" in question:
            settled = autotune(*own_job(from_json(Spec, question["settle"]), Ranks()), steps)
            print(json.dumps({"channels_last": settled.channels_last, "reason": settled.reasons[-1]}))
            return 0
        spec = from_json(Spec, question)
        with joined() as ranks:
            loop = reference_loop(spec) if spec.config.reference else own_loop(spec, ranks)
            found = measure(loop, spec, ranks)
            if ranks.first:
                print(json.dumps(jsonable(asdict(found))))
    except HemotorchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
