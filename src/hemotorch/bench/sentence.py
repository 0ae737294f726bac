"""The one plain sentence that a bench ends in: what holds the training up on this machine, and what to change."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hemotorch.bench.configs import Machine
from hemotorch.bench.rows import Row

DATA, WAITING = 0.2, 0.25  #: shares of a step from which on they are what to change
LAUNCH = 0.6  #: of a GPU's time waiting for Python's next call
SCALING = 0.6  #: efficiency of threads below which they are not worth their cores
CLEARLY = 1.1  #: times as fast, so that noise is not advice
LOW_PEAK = 0.3  #: share of a matrix product's rate below which arithmetic is not what takes the time

#: Phases that say by themselves what to change: from which share of a step on, and the sentence.
PHASE_RULES = (
    (
        "optimiser",
        0.25,
        "The optimiser takes {share:.0%} of a step whatever the batch: let each step see more images with a larger "
        "train.batch or train.accumulate.",
    ),
    (
        "augment",
        0.3,
        "Augmentation takes {share:.0%} of a step: switch off what is not needed in the recipe's [augment], or cut out "
        "smaller squares with augment.crop_px.",
    ),
)


def bottleneck(rows: Sequence[Row], machine: Machine) -> str:
    """One sentence about the fastest row, or about the change that would help most; `rows` as `compared` left them.

    Names the recipe key or option to change, but no switch that was measured on that device or cannot be used there.
    """
    cores = machine.cores
    ours = [row for row in rows if row.measured and not row.config.reference]
    if not ours:
        why = next((row.error for row in rows if row.error), "there was nothing to measure")
        return f"Nothing of hemotorch's own could be measured: {why}"
    device = "cuda" if any(row.config.device == "cuda" for row in ours) else "cpu"
    batch = ours[0].config.batch
    ours = [row for row in ours if row.config.device == device]
    tried = {switch for row in ours for switch in _switches(row)}
    ours = [row for row in ours if row.config.batch == batch]
    best = max(ours, key=lambda row: row.images_s)
    left = [switch for switch in _usable(best, machine) if switch not in tried]
    said = [_waiting_for_data(best), _launching(best, left), *_phases(best), _waiting(best)]
    said += [_ranks(best, ours, cores), _threads(best, ours, cores)] if device == "cpu" else []
    return next(filter(None, said), "") or _memory_or_arithmetic(best, left)


def _switches(row: Row) -> list[str]:
    """What of the engine is switched on in a row, as a recipe says it."""
    way = row.config
    on = {"engine.compile=on": way.compile, "engine.graphs=on": way.graphs}
    return [*(switch for switch, used in on.items() if used), f"engine.precision={way.precision}"]


def _usable(best: Row, machine: Machine) -> list[str]:
    """The switches of the engine that would be taken where that row was measured."""
    gpu, way = best.config.device == "cuda", best.config
    half = machine.precision if gpu else "fp32"
    usable = {
        "engine.graphs=on": gpu and way.ranks == 1 and way.precision != "fp16",
        "engine.compile=on": machine.compiled if gpu else machine.compiler,
        f"engine.precision={half}": half != "fp32",
    }
    return [switch for switch, can in usable.items() if can]


def _who(row: Row) -> str:
    return "the GPU" if row.config.device == "cuda" else "the processor"


def _waiting_for_data(best: Row) -> str:
    share = best.shares.get("data", 0.0)
    if share < DATA:
        return ""
    start = f"T{_who(best)[1:]} waits for data {share:.0%} of the time"
    if best.last.storage == "stream":
        return f"{start}: keep the slices in its memory with data.memory=resident, if they fit."
    return f"{start} although the slices are in memory: make a step larger with train.batch."


def _launching(best: Row, left: Sequence[str]) -> str:
    if not best.launch >= LAUNCH:  # NaN on a CPU, and in graphs, which are launched once
        return ""
    todo = [switch for switch in ("engine.graphs=on", "engine.compile=on") if switch in left]
    fewer = f"launch less often with {', '.join(todo)}, or a larger train.batch" if todo else "raise train.batch"
    start = f"The GPU waits for Python's next call {best.launch:.0%} of the time"
    return f"{start}, since its own work is done sooner: {fewer}."


def _phases(best: Row) -> list[str]:
    shares = ((text, least, best.shares.get(phase, 0.0)) for phase, least, text in PHASE_RULES)
    return [text.format(share=share) for text, least, share in shares if share >= least]


def _waiting(best: Row) -> str:
    share = best.shares.get("waiting", 0.0)
    if share < WAITING:
        return ""
    if best.config.device == "cuda":
        return f"The GPU waits for the host {share:.0%} of the time: look at less while training, or raise train.batch."
    if best.config.ranks > 1:
        return f"The ranks wait for one another {share:.0%} of the time: start fewer of them, or raise train.batch."
    return (
        f"The processor's cores stand idle or do other work {share:.0%} of the time: stop what else runs on this "
        "machine, or give each step more to do with train.batch."
    )


def _clearly(best: Row, other: Row) -> bool:
    """Whether it is faster by more than noise: clearly so, and in its slowest round than the other in its fastest."""
    several = min(len(best.rounds), len(other.rounds)) > 1
    return several and best.images_s > CLEARLY * other.images_s and best.low > other.high


def _ranks(best: Row, ours: Sequence[Row], cores: int) -> str:
    others = [row for row in ours if row.config.ranks == 1]
    count, threads = best.config.ranks, best.config.threads
    if count == 1 or not others or not all(_clearly(best, row) for row in others):
        return ""
    alone = max(row.images_s for row in others)
    each = f"{threads} thread{'' if threads == 1 else 's'}"
    share = "" if threads == cores // count else f" --set engine.threads={threads}"  # what each takes by itself
    return (
        f"{count} processes of {each} are {best.images_s / alone:.1f} times as fast as the fastest single one: start "
        f"the training with `hemotorch cluster torchrun DATA RUN --ranks {count}{share}`."
    )


def _threads(best: Row, ours: Sequence[Row], cores: int) -> str:
    used = best.config.units(cores)
    more = [row for row in ours if row.config.units(cores) > used]
    if used < cores and not more:
        return f"Only {used} of {cores} cores were used: set engine.threads=0, which takes all of them."
    most = max(more, key=lambda row: row.config.units(cores), default=best)
    if used < cores and _clearly(best, most):
        return (
            f"More threads do not help: {used} of {cores} {'is' if used == 1 else 'are'} "
            f"{best.images_s / most.images_s:.1f} times as fast as {most.config.units(cores)}, since they share memory "
            f"or work beside others: set engine.threads={used}."
        )
    if used > 1 and best.efficiency < SCALING:
        return (
            f"{used} threads are only {best.efficiency * used:.1f} times as fast as one, as they share the memory's "
            "bandwidth or the cores with other work: give them more at once with a larger train.batch."
        )
    return ""


def _memory_or_arithmetic(best: Row, left: Sequence[str]) -> str:
    share, who = best.peak_share, _who(best)
    busy = sum(best.shares.get(phase, 0.0) for phase in ("forward", "backward", "graph"))
    if share < LOW_PEAK:
        fix = "fewer channels in net.options"
        if "engine.compile=on" in left:
            fix = "engine.compile=on, which fuses steps"
        fix += "".join(f" and {switch}" for switch in left if "precision" in switch)
        return (
            f"Moving numbers through memory takes the time, not computing with them: {who} reaches {share:.0%} of the "
            f"rate of a large matrix product; try {fix}."
        )
    reached = f", at {share:.0%} of the rate of a large matrix product" if not math.isnan(share) else ""
    faster = "a faster GPU, several (`hemotorch cluster torchrun`)" if best.config.device == "cuda" else "a GPU"
    what = "the step's graph takes" if best.shares.get("graph", 0.0) else "forward and backward take"
    return (
        f"Arithmetic is the limit: {what} {busy:.0%} of a step{reached}; only {faster} or less of "
        "it helps: smaller slices (grid.size_px) or a smaller network (--recipe fast)."
    )
