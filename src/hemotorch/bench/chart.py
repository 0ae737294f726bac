"""The bench's figures: the speed-up chart as a file of its own, sweeps and learning curves as parts of the page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl

from hemotorch.bench.rows import Row
from hemotorch.report.pages.figures import FAINT, INK, LINE, NET, RULES, figure

LIGHT = {"--ink": "#16181d", "--faint": "#5d636e", "--line": "#e2e3e6", "--net": "#2456c8", "--rules": "#9a7428"}
AXES = {
    "batch": "images a step",
    "threads": "threads",
    "workers": "loading workers of the reference loop",
    "ranks": "processes of one thread, or GPUs, that share a batch",
}
SCALED = ("threads", "ranks")  #: of which perfect scaling is drawn too
DEVICES = {"cpu": ("CPU", NET), "cuda": ("GPU", RULES)}
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))


def speed_up(rows: Sequence[Row]) -> str:
    """A bar a row: images a second, with its interval and how many times the reference loop's; a whole SVG file."""
    shown = [row for row in rows if row.measured and row.config.batch == rows[0].config.batch]
    with figure("speed-up", 8, 0.9 + 0.36 * len(shown)) as (axes, out):
        for place, row in enumerate(shown):
            axes.barh(place, row.images_s, 0.62, color=RULES if row.config.reference else NET, lw=0)
            axes.plot([row.low, row.high], [place, place], color=INK, lw=1.2)
            times = "" if math.isnan(row.to_reference) else f" ({row.to_reference:.1f}\N{MULTIPLICATION SIGN})"
            beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "color": INK, "fontsize": 9}
            axes.annotate(f"{row.images_s:.3g}{times}", (row.high, place), **beside)
        axes.set_yticks(range(len(shown)), [row.config.label for row in shown])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(axis="y", visible=False)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, 1.22 * max((row.high for row in shown), default=1.0))
        compared = not all(math.isnan(row.to_reference) for row in shown)
        against = "; \N{MULTIPLICATION SIGN} is against the reference loop on the same device" if compared else ""
        axes.set_xlabel(f"images a second{against}")
    return standing_alone(out[0])


def standing_alone(svg: str) -> str:
    """An inline figure as a file: the light page's colours and font, on white."""
    for name, colour in LIGHT.items():
        svg = svg.replace(f"var({name})", colour)
    style = "<style>text { font-family: system-ui, sans-serif; fill: #16181d }</style>"
    return re.sub(r"(<svg[^>]*>)", r"\1" + style + '<rect width="100%" height="100%" fill="#ffffff"/>', svg, count=1)


def sweep(name: str, rows: Sequence[Row], by_device: Mapping[str, Sequence[int]]) -> str:
    """Images a second over what was varied, a line a device with its interval; and what perfect scaling would be."""
    with figure(f"sweep-{name}", 5.4, 3.3) as (axes, out):
        every: set[int] = set()
        for device, numbers in by_device.items():
            members = [rows[number] for number in numbers if rows[number].measured]
            if not members:
                continue
            label, colour = DEVICES[device]
            values = [getattr(row.config, name) for row in members]
            rates = [row.images_s for row in members]
            every.update(values)
            if name in SCALED and values[0] == 1:
                axes.plot(values, [rates[0] * value for value in values], color=FAINT, lw=1, ls=(0, (2, 3)))
            axes.vlines(values, [row.low for row in members], [row.high for row in members], color=colour, lw=1.4)
            axes.plot(values, rates, color=colour, lw=1.6, marker="o", ms=4.5, label=label)
        spread = max(every, default=1) > 4 * max(1, min(every, default=1))
        if name != "workers" and spread:
            axes.set_xscale("log", base=2)
        ticks = sorted(every)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.set_ylim(bottom=0)
        axes.set(xlabel=AXES[name], ylabel="images a second")
        if len(by_device) > 1:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return out[0]


def curves(entries: Sequence[Mapping[str, Any]], over: str, value: str, label: str) -> str:
    """Learning curves: `value` of each entry against "steps" or "seconds"; a line an algorithm."""
    with figure(f"{over}-{value}-{entries[0]['task']}", 5.4, 3.1) as (axes, out):
        lines = zip(entries, cycle((NET, RULES, INK, FAINT)), cycle(DASHES))
        for entry, colour, dashes in lines:
            axes.plot(entry[over], entry[value], color=colour, ls=dashes, lw=1.8, label=entry["algorithm"])
        axes.set(xlabel="steps" if over == "steps" else "seconds of training", ylabel=label)
        axes.set_xlim(left=0)
        if value == "value":
            most = max(max(entry[value]) for entry in entries)
            axes.set_ylim(0, 1 if most > 0.5 else max(0.1, 1.15 * most))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, columnspacing=1.2, handlelength=1.8)
        axes.spines["left"].set_color(LINE)
    return out[0]
