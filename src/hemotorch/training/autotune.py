"""What is decided by measuring: ways of computing a step, tried in turns before a training starts."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

from hemotorch.nets import Net
from hemotorch.system import machine, threads
from hemotorch.system.device import Device
from hemotorch.training.learner import Job, Learner, Steps, endless

MEASURED_STEPS = 4  #: of each candidate, after one that is not counted
MEASURED_SHARE = 0.02  #: of the training's steps, at most, are spent on measuring
#: Trainings that uncompiled are shorter than this are not worth torch.compile: on a CPU not even trying it, which takes
#: two minutes and rarely gains; on a GPU it takes a minute, and `paper` was 2.7 times as fast with it and graphs.
COMPILE_PAYS_S = {"cpu": 1800.0, "cuda": 180.0}
CLEARLY = 1.1  #: how much faster than the default a way must be, so that noise does not choose


def autotune(job: Job, net: Net, steps: Steps) -> Device:
    """The device with what is decided by measuring: on a CPU layout, threads and compiling; on a GPU whether the
    training is long enough to compile. All ranks decide the same.

    Trainings too short for it keep the defaults, and so does whatever is not clearly faster than them.
    """
    device, engine = job.device, job.recipe.engine
    if device.torch_device.type != "cpu":
        return _worth_compiling(job, net, steps) if engine.compile == "auto" else device
    ways: dict[str, Device] = {"as above": device}
    if engine.channels_last == "auto":
        ways["contiguous"] = replace(device, channels_last=False)
    physical = max(1, machine.physical_cores() // job.ranks.beside)
    if not engine.threads and not threads.wanted() and physical < device.threads:
        ways["a thread a physical core"] = replace(device, threads=physical)
    # Unlike machines may differ in what they could try: what one rank cannot, none does.
    ways = {name: way for name, way in ways.items() if all(name in others for others in job.ranks.gather(list(ways)))}
    if job.total * MEASURED_SHARE < (1 + MEASURED_STEPS) * len(ways):
        return device.with_reason("nothing was measured: the training is short")
    seconds = _seconds(job, net, ways, steps)
    chosen = _fastest(seconds)
    compilers = all(job.ranks.gather(machine.has_compiler()))
    if engine.compile == "auto" and compilers and seconds[chosen] * job.total > COMPILE_PAYS_S["cpu"]:
        trial = {chosen: ways[chosen], "compiled": replace(ways[chosen], compile=True)}
        seconds |= (again := _seconds(job, net, trial, steps))
        ways, chosen = {**ways, **trial}, _fastest(again)
    told = ", ".join(f"{name} {each:.3g}" for name, each in seconds.items())
    best = ways[chosen]
    best.use()
    same = {"channels_last": best.channels_last, "threads": best.threads, "compile": best.compile}
    return device.with_reason(f"measured, seconds a step: {told}; chosen: {chosen}", **same)


def _worth_compiling(job: Job, net: Net, steps: Steps) -> Device:
    if not all(job.ranks.gather(job.device.compile)):  # unlike machines: what one cannot, none does
        last = job.device
        return last.with_reason("not compiled: another rank cannot", compile=False) if last.compile else last
    # As a graph where there is to be one: the last of the steps is replayed.
    seconds = _seconds(job, net, {"plain": replace(job.device, compile=False)}, steps)["plain"]
    told = f"{seconds:.2g} s a step without, measured, {job.total:,} of them are {seconds * job.total:.0f} s"
    enough = seconds * job.total > COMPILE_PAYS_S["cuda"]
    return job.device.with_reason(f"{'compiled' if enough else 'not compiled'}: {told}", compile=enough)


def _fastest(seconds: dict[str, float]) -> str:
    """The usual way, which comes first, unless another is clearly faster."""
    usual, best = next(iter(seconds)), min(seconds, key=lambda name: seconds[name])
    return best if seconds[best] * CLEARLY < seconds[usual] else usual


def _seconds(job: Job, net: Net, ways: dict[str, Device], steps: Steps) -> dict[str, float]:
    """Of a step each way, on copies of the network: the fastest of several taken in turns, so that what else the
    machine does hits all alike; of several ranks the slowest one's."""
    running = {}
    for name, device in ways.items():
        learner = Learner(replace(job, device=device), copy.deepcopy(net))
        running[name] = endless(learner, steps)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 + MEASURED_STEPS):
        for name, device in ways.items():
            device.use()
            began = time.perf_counter()
            float(next(running[name]))  # waits for a GPU
            times[name].append(time.perf_counter() - began)
    # The first step builds what the others use.
    return {name: float(max(job.ranks.gather(min(taken[1:])))) for name, taken in times.items()}
