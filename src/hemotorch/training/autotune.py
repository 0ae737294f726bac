"""Ways of computing a step, measured in turns before a training starts; the fastest is chosen."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

from hemotorch.nets import Net
from hemotorch.system import machine, threads
from hemotorch.system.device import Device
from hemotorch.training.job import Job
from hemotorch.training.learner import Learner, Steps, endless

MEASURED_STEPS = 4  #: of each candidate, after one that is not counted
MEASURED_SHARE = 0.02  #: of the training's steps, at most, are spent on measuring
#: Seconds of an uncompiled training from which on torch.compile is worth it. On a CPU even trying takes two minutes and
#: rarely gains anything; on a GPU it takes a minute, and `paper` was 2.7 times as fast with it and CUDA graphs.
COMPILE_PAYS_S = {"cpu": 1800.0, "cuda": 180.0}
CLEARLY = 1.1  #: how much faster than the default a candidate must be, so that noise does not choose


def autotune(job: Job, net: Net, steps: Steps) -> Device:
    """The device with the settings that were fastest: on a CPU memory layout, threads and compiling; on a GPU whether
    the training is long enough to compile.

    A training too short for measuring keeps the defaults, and so does whatever is not clearly slower than another way.
    All ranks choose the same.

    Args:
        net: the network as it starts; it is copied, and not changed.
        steps: the steps of an epoch, as the training does them.
    """
    if job.device.torch_device.type != "cpu":
        return _autotune_gpu(job, net, steps)
    candidates = _cpu_candidates(job)
    if job.total * MEASURED_SHARE < (1 + MEASURED_STEPS) * len(candidates):
        return job.device.with_reason("nothing was measured: the training is short")
    seconds = _step_seconds(job, net, candidates, steps)
    fastest = _fastest(seconds)
    if _may_compile(job) and seconds[fastest] * job.total > COMPILE_PAYS_S["cpu"]:
        # Measured again beside it: minutes later the machine may be busier.
        trial = {fastest: candidates[fastest], "compiled": replace(candidates[fastest], compile=True)}
        again = _step_seconds(job, net, trial, steps)
        candidates.update(trial)
        seconds.update(again)
        fastest = _fastest(again)
    chosen = candidates[fastest]
    chosen.use()
    measured = ", ".join(f"{name} {each:.3g}" for name, each in seconds.items())
    return job.device.with_reason(
        f"measured, seconds a step: {measured}; chosen: {fastest}",
        channels_last=chosen.channels_last,
        threads=chosen.threads,
        compile=chosen.compile,
    )


def _cpu_candidates(job: Job) -> dict[str, Device]:
    """The ways that are tried, the default first: those that the recipe and the user leave open."""
    device, engine = job.device, job.recipe.engine
    candidates = {"as above": device}
    if engine.channels_last == "auto":
        candidates["contiguous"] = replace(device, channels_last=False)
    physical = max(1, machine.physical_cores() // job.ranks.beside)
    if not engine.threads and not threads.wanted() and physical < device.threads:
        candidates["a thread a physical core"] = replace(device, threads=physical)
    # Unlike machines may differ in what they could try: what one rank cannot, none does.
    names_of_ranks = job.ranks.gather(list(candidates))
    for name in list(candidates):
        if not all(name in names for names in names_of_ranks):
            del candidates[name]
    return candidates


def _may_compile(job: Job) -> bool:
    compilers = all(job.ranks.gather(machine.has_compiler()))
    return compilers and job.recipe.engine.compile == "auto"


def _autotune_gpu(job: Job, net: Net, steps: Steps) -> Device:
    device = job.device
    if job.recipe.engine.compile != "auto":
        return device
    if not all(job.ranks.gather(device.compile)):  # unlike machines: what one cannot, none does
        if device.compile:
            return device.with_reason("not compiled: another rank cannot", compile=False)
        return device
    # As a graph if there is to be one: the last of the steps is replayed.
    seconds = _step_seconds(job, net, {"plain": replace(device, compile=False)}, steps)["plain"]
    total_s = seconds * job.total
    pays = total_s > COMPILE_PAYS_S["cuda"]
    measured = f"{seconds:.2g} s a step without, measured, {job.total:,} of them are {total_s:.0f} s"
    return device.with_reason(f"{'compiled' if pays else 'not compiled'}: {measured}", compile=pays)


def _fastest(seconds: dict[str, float]) -> str:
    """The default, which comes first, unless another is clearly faster."""
    default = next(iter(seconds))
    fastest = min(seconds, key=lambda name: seconds[name])
    if seconds[fastest] * CLEARLY < seconds[default]:
        return fastest
    return default


def _step_seconds(job: Job, net: Net, candidates: dict[str, Device], steps: Steps) -> dict[str, float]:
    """Seconds of a step of each candidate, on copies of the network; of several ranks the slowest one's.

    The fastest of several is taken, in turns, so that what else the machine does hits all alike.
    """
    running = {}
    for name, device in candidates.items():
        learner = Learner(replace(job, device=device), copy.deepcopy(net))
        running[name] = endless(learner, steps)
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(1 + MEASURED_STEPS):
        for name, device in candidates.items():
            device.use()
            start = time.perf_counter()
            float(next(running[name]))  # waits for a GPU
            times[name].append(time.perf_counter() - start)
    seconds = {}
    for name, taken in times.items():
        least = min(taken[1:])  # the first step builds what the others use
        seconds[name] = float(max(job.ranks.gather(least)))
    return seconds
