"""The picture: Dice on the held-out scans against minutes of training, a line a contender, named at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from peers.table import Result, curve, is_fast

FAST, INK, FAINT = "#0b62a4", "#222222", "#8a8a8a"
#: Told apart without red and green alone, and in grey by their ends.
COLOURS = ("#d1495b", "#b8860b", "#4f8f6b", "#8d6a9f", "#4d4d4d", "#2e9ca6", "#a0522d", "#7a7a00")
TICKS_MIN = (0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 40, 60, 120)
SIZE_IN = (9.0, 5.2)
GAP = 0.043  #: between two labels, as a share of the axis


def draw(results: Sequence[Result], path: Path) -> None:
    """Writes PATH (.png or .svg by its name). Time is logarithmic, since `fast` ends where others begin."""
    lines, fast = [], []
    for result in filter(curve, results):
        if is_fast(result):
            fast.append((curve(result)[-1], str(result["title"])))
        else:
            lines.append((_label(result), [(seconds / 60, dice) for seconds, dice in curve(result)]))
    fast.sort()
    ours = [(seconds / 60, dice) for (seconds, dice), _ in fast]
    lengths = [title.rpartition(", ")[2] for _, title in fast]
    with mpl.rc_context({"font.size": 10, "svg.fonttype": "none", "axes.edgecolor": FAINT}):
        figure = Figure(SIZE_IN, layout="constrained")
        axes = figure.subplots()
        every = [point for _, points in lines for point in points] + ours
        first, last = min(m for m, _ in every), max(m for m, _ in every)
        top = min(1.0, max(d for _, d in every) + 0.08)
        axes.set_xscale("log")
        axes.set_xlim(first / 1.25, last * 1.06)
        axes.set_ylim(0, top)
        ends = []
        for (label, points), colour in zip(lines, COLOURS * 9, strict=False):
            minutes, dice = zip(*points, strict=True)
            axes.plot(minutes, dice, color=colour, lw=1.6, marker=".", ms=5)
            ends.append((dice[-1], minutes[-1], label, colour))
        if ours:
            minutes, dice = zip(*ours, strict=True)
            axes.plot(minutes, dice, color=FAST, lw=2.6, marker="o", ms=6, zorder=5)
            near = {"textcoords": "offset points", "color": FAST, "zorder": 6}
            name = f"hemotorch fast  {ours[-1][1]:.2f}"
            axes.annotate(name, ours[-1], (0, 9), ha="center", va="bottom", weight="bold", **near)
            for point, epochs in zip(ours, lengths, strict=True):
                axes.annotate(epochs, point, (8, -4), va="top", fontsize=9, **near)
        _name_ends(axes, ends, top)
        ticks = [tick for tick in TICKS_MIN if first / 1.25 <= tick <= last * 1.06]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axes.minorticks_off()
        axes.set_xlabel("minutes of training (logarithmic)", color=INK)
        axes.set_ylabel("")
        axes.set_title("Mean Dice on held-out scans with bleeding", loc="left", color=INK, fontsize=11)
        axes.grid(axis="y", color="#e4e4e4", lw=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK, length=3)
        figure.savefig(path, dpi=150)


def _label(result: Result) -> str:
    return str(result["title"]).removeprefix("hemotorch ").replace(" U-Net", "")


def _name_ends(axes: mpl.axes.Axes, ends: list[tuple[float, float, str, str]], top: float) -> None:
    """Each line's name right of the axes at the height of its end, moved apart where two would touch."""
    heights: list[float] = []
    for dice, minutes, label, colour in sorted(ends):
        height = max([dice / top, *(low + GAP for low in heights[-1:])])
        heights.append(height)
        axes.annotate(
            f"{label}  {dice:.2f}",
            (minutes, dice),
            (1.015, height),
            textcoords="axes fraction",
            color=colour,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "alpha": 0.6, "shrinkA": 0, "shrinkB": 2},
        )
