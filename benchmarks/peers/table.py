"""Results -> one table, in Markdown: who was how good after how long, how fast, at what memory, and who wins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]  #: the content of RESULTS/NAME.json
Point = tuple[float, float]  #: seconds of training, Dice on the held-out scans
MARKS_MIN = (5, 10, 20)  #: when the table says how far each was

#: The project's targets: name, against the best of whom, at least and aim as how many times faster.
TARGETS = (
    (
        "the better of nnU-Net v2 2d and MONAI's U-Net with Dice+CE",
        ("nnunet", "monai-dicece", "monai-dicece-1e-3"),
        2,
        5,
    ),
    ("`paper`", ("paper",), 10, 30),
)

#: What has to be known to read them.
NOTES = (
    "`fast` is shown at four lengths that were fixed beforehand, with one seed; the best of them is named where it is "
    "said how long it takes to a Dice.",
    "In brackets: against the time at which the contender itself first had the Dice that it ends with.",
)

#: What is compared with `fast` at its own length, whether more of it is better, and how it is written.
MEASURES: tuple[tuple[str, Callable[[Result], float | None], bool, str], ...] = (
    ("Dice at the end", lambda result: result["rows"][-1]["dice"], True, ".3f"),
    ("images a second", lambda result: result["images_s"], True, ".1f"),
    ("mL in normal scans", lambda result: result["rows"][-1]["normal_ml"], False, ".1f"),
    ("peak memory, GiB", lambda result: result["peak_mb"] / 1024, False, ".2f"),
    ("seconds to outline a scan", lambda result: result["rows"][-1]["predict_s"] / result["test_scans"], False, ".2f"),
    ("parameters, M", lambda result: result["parameters_m"], False, ".2f"),
    ("GFLOP a slice", lambda result: result["gflop_slice"], False, ".1f"),
)


def curve(result: Result) -> list[Point]:
    """The points that have a Dice, in the order of time."""
    return [(row["seconds"], row["dice"]) for row in result["rows"] if row["dice"] is not None]


def is_fast(result: Result) -> bool:
    """Whether it is one of the runs of `fast`."""
    return str(result["name"]).split("-")[0] == "fast"


def fast_points(results: Sequence[Result]) -> list[Point]:
    """Where the runs of `fast`, each of its own length, ended; in the order of time."""
    return sorted(curve(result)[-1] for result in results if is_fast(result) and curve(result))


def time_to(points: Sequence[Point], dice: float) -> float | None:
    """Seconds of the first point that has at least this Dice. Nothing is read between points; None: never."""
    return next((seconds for seconds, value in points if value >= dice), None)


def dice_after(points: Sequence[Point], seconds: float) -> float | None:
    """The Dice of the last point by then; None before the first."""
    return next((dice for when, dice in reversed(points) if when <= seconds), None)


def table(results: Sequence[Result]) -> str:
    """A row for each contender. Bold: better than `fast` at its own length."""
    after = [f"Dice after {mark} min" for mark in MARKS_MIN]
    head = ["contender", "trained, min", *after, "Dice at the end", "`fast` has that after, min"]
    head += ["images a second (side, batch)", *(name for name, *_ in MEASURES[2:])]
    ours = next((result for result in results if result["name"] == "fast"), None)
    rows = [_row(result, ours, fast_points(results)) for result in results]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def _row(result: Result, ours: Result | None, points: Sequence[Point]) -> list[str]:
    reached, last = curve(result), result["rows"][-1]
    measured = []
    for _, value, more, form in MEASURES:
        text = _number(value(result), form)
        better = not is_fast(result) and beats(value(result), ours and value(ours), more)
        measured.append(f"**{text}**" if better else text)
    low, high = last["ci95"] if last["ci95"] and None not in last["ci95"] else (None, None)
    measured[0] += "" if low is None else f" [{low:.2f}, {high:.2f}]"
    measured[1] += f" ({result['image_px']}, {result['batch']})"
    marks = [_number(dice_after(reached, 60 * mark), ".3f") if reached else "" for mark in MARKS_MIN]
    race = "" if is_fast(result) or not reached else _race(reached, points)
    return [result["title"], f"{last['seconds'] / 60:.1f}", *marks, measured[0], race, *measured[1:]]


def _race(reached: Sequence[Point], points: Sequence[Point]) -> str:
    """When `fast` has the Dice that a contender ends with; against when that ended, and when it first had it."""
    end, dice = reached[-1]
    seconds, first = time_to(points, dice), time_to(reached, dice)
    if seconds is None or first is None:
        return "**never**"
    return f"{seconds / 60:.1f}, {_ratio(seconds, end)} ({_ratio(seconds, first)})"


def _ratio(ours: float, theirs: float) -> str:
    return f"1/{theirs / ours:.1f}" if ours <= theirs else f"{ours / theirs:.1f}/1"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def beats(its: float | None, mine: float | None, more: bool) -> bool:
    """Whether its value is the better one; what is not known beats nothing."""
    return its is not None and mine is not None and its != mine and (its > mine) is more


def wins(results: Sequence[Result]) -> list[str]:
    """Where another contender does better than `fast` at its own length, in a line each."""
    ours = next((result for result in results if result["name"] == "fast"), None)
    if ours is None:
        return ["unknown: `fast` has not run at its own length"]
    lines = []
    for name, value, more, form in MEASURES:
        for result in results:
            if not is_fast(result) and beats(value(result), value(ours), more):
                lines.append(f"{name}: {result['title']} has {value(result):{form}}, `fast` {value(ours):{form}}")
    return lines


def targets(results: Sequence[Result]) -> list[str]:
    """The project's targets, in a line each, so far as their contenders have run."""
    points, curves = fast_points(results), {result["name"]: curve(result) for result in results if curve(result)}
    ends = {name: reached[-1] for name, reached in curves.items()}
    lines = []
    for text, names, least, aim in TARGETS:
        there = [name for name in names if name in ends]
        if not there or not points:
            continue
        best = max(there, key=lambda name: ends[name][1])
        end, dice = ends[best]
        ours, first = time_to(points, dice), time_to(curves[best], dice) or end
        got = "never"
        if ours is not None:
            got = f"in {ours / 60:.1f} min, {_ratio(ours, end)}"
            got += f" ({_ratio(ours, first)} of when {best} first had it, after {first / 60:.1f} min)"
        missed = "missed" if ours is None or ours * least > end else "aim reached" if ours * aim <= end else "reached"
        lacking = [name for name in names if name not in ends]
        without = f" (without {', '.join(lacking)}, not run)" if lacking else ""
        lines.append(
            f"Dice of {text}{without} ({best}: {dice:.3f} after {end / 60:.1f} min): `fast` has it {got}; "
            f"at least 1/{least}, aim 1/{aim}: {missed}"
        )
    return lines
