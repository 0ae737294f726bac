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
class Situation:
    """What a rule looks at.

    best: the fastest row. rows: all on its device with its batch. cores: of the machine. compile, graphs, precision:
    what of the engine would work there and was not measured on that device; no precision is "".
    """

    best: Row
    rows: tuple[Row, ...]
    cores: int
    compile: bool
    graphs: bool
    precision: str

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
    case = _case(trained, machine)
    rules = [_waiting_for_data, _launching, _long_phase, _waiting]
    rules += [] if case.on_gpu else [_ranks, _threads]
    for rule in rules:
        if text := rule(case):
            return text
    return _memory(case) if case.best.peak_share < LOW_PEAK else _arithmetic(case)


def _case(trained: Sequence[Row], machine: Machine) -> Situation:
    """The GPU's rows if there are any, and the first row's batch."""
    on_gpu = any(row.config.device == "cuda" for row in trained)
    rows = [row for row in trained if (row.config.device == "cuda") is on_gpu]
    comparable = [row for row in rows if row.config.batch == trained[0].config.batch]
    best = max(comparable, key=lambda row: row.images_s)
    compiles = machine.compiled if on_gpu else machine.compiler
    captures = on_gpu and best.config.ranks == 1 and best.config.precision != "fp16"
    measured_precisions = {"fp32", *(row.config.precision for row in rows)}
    return Situation(
        best,
        tuple(comparable),
        machine.cores,
        compile=compiles and not any(row.config.compile for row in rows),
        graphs=captures and not any(row.config.graphs for row in rows),
        precision=machine.precision if on_gpu and machine.precision not in measured_precisions else "",
    )


def _waiting_for_data(case: Situation) -> str:
    share = case.share("data")
    if share < DATA:
        return ""
    start = f"T{case.who[1:]} waits for data {share:.0%} of the time"
    if case.best.last.storage == "stream":
        return f"{start}: keep the slices in its memory with data.memory=resident, if they fit."
    return f"{start} although the slices are in memory: make a step larger with train.batch."


def _launching(case: Situation) -> str:
    launch = case.best.launch
    # It is NaN on a CPU, and in graphs, which are launched once.
    if math.isnan(launch) or launch < LAUNCH:
        return ""
    switches = ["engine.graphs=on"] * case.graphs + ["engine.compile=on"] * case.compile
    fewer = "raise train.batch"
    if switches:
        fewer = f"launch less often with {', '.join(switches)}, or a larger train.batch"
    return f"The GPU waits for Python's next call {launch:.0%} of the time, since its own work is done sooner: {fewer}."


def _long_phase(case: Situation) -> str:
    for phase, least, text in PHASE_RULES:
        if case.share(phase) >= least:
            return text.format(share=case.share(phase))
    return ""


def _waiting(case: Situation) -> str:
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


def _ranks(case: Situation) -> str:
    ranks, threads = case.best.config.ranks, case.best.config.threads
    single = [row for row in case.rows if row.config.ranks == 1]
    if ranks == 1 or not single or not all(_clearly(case.best, row) for row in single):
        return ""
    faster = case.best.images_s / max(row.images_s for row in single)
    each = "1 thread" if threads == 1 else f"{threads} threads"
    # By itself each takes its part of the cores.
    option = "" if threads == case.cores // ranks else f" --set engine.threads={threads}"
    return (
        f"{ranks} processes of {each} are {faster:.1f} times as fast as the fastest single one: start the training "
        f"with `hemotorch cluster torchrun DATA RUN --ranks {ranks}{option}`."
    )


def _threads(case: Situation) -> str:
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


def _memory(case: Situation) -> str:
    advice = ["engine.compile=on, which fuses steps" if case.compile else "fewer channels in net.options"]
    advice += [f"engine.precision={case.precision}"] if case.precision else []
    return (
        f"Moving numbers through memory takes the time, not computing with them: {case.who} reaches "
        f"{case.best.peak_share:.0%} of the rate of a large matrix product; try {' and '.join(advice)}."
    )


def _arithmetic(case: Situation) -> str:
    peak = case.best.peak_share
    faster, what, reached = "a GPU", "forward and backward take", ""
    if case.on_gpu:
        faster = "a faster GPU, several (`hemotorch cluster torchrun`)"
    if case.share("graph"):
        what = "the step's graph takes"
    if not math.isnan(peak):
        reached = f", at {peak:.0%} of the rate of a large matrix product"
    return (
        f"Arithmetic is the limit: {what} {case.share('forward', 'backward', 'graph'):.0%} of a step{reached}; only "
        f"{faster} or less of it helps: smaller slices (grid.size_px) or a smaller network (--recipe fast)."
    )
