"""The one plain sentence that a bench ends in: what holds the training up on this machine, and what to change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hemotorch.bench.records import Machine, Row

#: Shares of a step from which on they are what to change.
DATA, WAITING = 0.2, 0.25
#: Of a GPU's time waiting for Python's next call.
LAUNCH = 0.6
#: Efficiency of threads below which they are not worth their cores.
SCALING = 0.6
#: Times as fast, so that noise is not advice.
CLEARLY = 1.1
#: Share of a matrix product's rate below which arithmetic is not what takes the time.
LOW_PEAK = 0.3

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


@dataclass(frozen=True)
class Case:
    """What a rule looks at.

    best: the fastest row. rows: all on its device with its batch. cores: of the machine. switches: of the engine that
    could be turned on and were not measured, as a recipe says them.
    """

    best: Row
    rows: tuple[Row, ...]
    cores: int
    switches: tuple[str, ...]

    @property
    def on_gpu(self) -> bool:
        """Whether it is about a GPU."""
        return self.best.config.device == "cuda"

    @property
    def who(self) -> str:
        """The device in words."""
        return "the GPU" if self.on_gpu else "the processor"

    def share(self, *phases: str) -> float:
        """Of a step's time in the fastest row."""
        return sum(self.best.shares.get(phase, 0.0) for phase in phases)


def bottleneck(rows: Sequence[Row], machine: Machine) -> str:
    """One sentence about the fastest row, or about the change that would help most; `rows` as `compared` left them.

    Names the recipe key or option to change, but no switch that was measured on that device or cannot be used there.
    """
    trained = [row for row in rows if row.measured and not row.config.reference]
    if not trained:
        reason = next((row.error for row in rows if row.error), "there was nothing to measure")
        return f"Nothing of hemotorch's own could be measured: {reason}"
    device = "cuda" if any(row.config.device == "cuda" for row in trained) else "cpu"
    on_device = [row for row in trained if row.config.device == device]
    comparable = [row for row in on_device if row.config.batch == trained[0].config.batch]
    best = max(comparable, key=lambda row: row.images_s)
    measured = {switch for row in on_device for switch in _switches_of(row)}
    switches = [switch for switch in _usable_switches(best, machine) if switch not in measured]
    case = Case(best, tuple(comparable), machine.cores, tuple(switches))
    rules = [_waiting_for_data, _launching, _long_phase, _waiting]
    rules += [] if case.on_gpu else [_ranks, _threads]
    for rule in rules:
        if text := rule(case):
            return text
    return _memory(case) if best.peak_share < LOW_PEAK else _arithmetic(case)


def _switches_of(row: Row) -> list[str]:
    """What of the engine is switched on in a row, as a recipe says it."""
    config = row.config
    switches = [f"engine.precision={config.precision}"]
    switches += ["engine.compile=on"] * config.compile
    switches += ["engine.graphs=on"] * config.graphs
    return switches


def _usable_switches(row: Row, machine: Machine) -> list[str]:
    """The switches of the engine that would be taken if that row were measured with them."""
    config = row.config
    if config.device == "cpu":
        return ["engine.compile=on"] * machine.compiler
    switches = []
    if config.ranks == 1 and config.precision != "fp16":
        switches.append("engine.graphs=on")
    if machine.compiled:
        switches.append("engine.compile=on")
    if machine.precision != "fp32":
        switches.append(f"engine.precision={machine.precision}")
    return switches


def _waiting_for_data(case: Case) -> str:
    share = case.share("data")
    if share < DATA:
        return ""
    start = f"T{case.who[1:]} waits for data {share:.0%} of the time"
    if case.best.last.storage == "stream":
        return f"{start}: keep the slices in its memory with data.memory=resident, if they fit."
    return f"{start} although the slices are in memory: make a step larger with train.batch."


def _launching(case: Case) -> str:
    launch = case.best.launch
    if math.isnan(launch) or launch < LAUNCH:  # NaN on a CPU, and in graphs, which are launched once
        return ""
    switches = [switch for switch in case.switches if "precision" not in switch]
    fewer = (
        f"launch less often with {', '.join(switches)}, or a larger train.batch" if switches else "raise train.batch"
    )
    return f"The GPU waits for Python's next call {launch:.0%} of the time, since its own work is done sooner: {fewer}."


def _long_phase(case: Case) -> str:
    for phase, least, text in PHASE_RULES:
        if case.share(phase) >= least:
            return text.format(share=case.share(phase))
    return ""


def _waiting(case: Case) -> str:
    share = case.share("waiting")
    if share < WAITING:
        return ""
    if case.on_gpu:
        return f"The GPU waits for the host {share:.0%} of the time: look at less while training, or raise train.batch."
    if case.best.config.ranks > 1:
        return f"The ranks wait for one another {share:.0%} of the time: start fewer of them, or raise train.batch."
    return (
        f"The processor's cores stand idle or do other work {share:.0%} of the time: stop what else runs on this "
        "machine, or give each step more to do with train.batch."
    )


def _clearly(best: Row, other: Row) -> bool:
    """Whether it is faster by more than noise: clearly so, and in its slowest round than the other in its fastest."""
    several = min(len(best.rounds), len(other.rounds)) > 1
    return several and best.images_s > CLEARLY * other.images_s and best.low > other.high


def _ranks(case: Case) -> str:
    ranks, threads = case.best.config.ranks, case.best.config.threads
    single = [row for row in case.rows if row.config.ranks == 1]
    if ranks == 1 or not single or not all(_clearly(case.best, row) for row in single):
        return ""
    faster = case.best.images_s / max(row.images_s for row in single)
    each = "1 thread" if threads == 1 else f"{threads} threads"
    option = "" if threads == case.cores // ranks else f" --set engine.threads={threads}"  # what each takes by itself
    return (
        f"{ranks} processes of {each} are {faster:.1f} times as fast as the fastest single one: start the training "
        f"with `hemotorch cluster torchrun DATA RUN --ranks {ranks}{option}`."
    )


def _threads(case: Case) -> str:
    def units(row: Row) -> int:
        return row.config.units(case.cores)

    best, taken = case.best, units(case.best)
    more = [row for row in case.rows if units(row) > taken]
    if taken < case.cores and not more:
        return f"Only {taken} of {case.cores} cores were used: set engine.threads=0, which takes all of them."
    most = max(more, key=units, default=best)
    if taken < case.cores and _clearly(best, most):
        are = "is" if taken == 1 else "are"
        return (
            f"More threads do not help: {taken} of {case.cores} {are} {best.images_s / most.images_s:.1f} times as "
            f"fast as {units(most)}, since they share memory or work beside others: set engine.threads={taken}."
        )
    if taken > 1 and best.efficiency < SCALING:
        return (
            f"{taken} threads are only {best.efficiency * taken:.1f} times as fast as one, as they share the memory's "
            "bandwidth or the cores with other work: give them more at once with a larger train.batch."
        )
    return ""


def _memory(case: Case) -> str:
    compiling = "engine.compile=on" in case.switches
    advice = ["engine.compile=on, which fuses steps" if compiling else "fewer channels in net.options"]
    advice += [switch for switch in case.switches if "precision" in switch]
    return (
        f"Moving numbers through memory takes the time, not computing with them: {case.who} reaches "
        f"{case.best.peak_share:.0%} of the rate of a large matrix product; try {' and '.join(advice)}."
    )


def _arithmetic(case: Case) -> str:
    peak = case.best.peak_share
    reached = "" if math.isnan(peak) else f", at {peak:.0%} of the rate of a large matrix product"
    faster = "a faster GPU, several (`hemotorch cluster torchrun`)" if case.on_gpu else "a GPU"
    what = "the step's graph takes" if case.share("graph") else "forward and backward take"
    return (
        f"Arithmetic is the limit: {what} {case.share('forward', 'backward', 'graph'):.0%} of a step{reached}; only "
        f"{faster} or less of it helps: smaller slices (grid.size_px) or a smaller network (--recipe fast)."
    )
