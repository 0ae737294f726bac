"""The bench's figures: the speed-up chart as a file of its own, sweeps and learning curves as parts of the page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl

from hemotorch.bench.records import Curve, Row
from hemotorch.report.pages.numbers import TIMES, rate, times
from hemotorch.report.pages.svg import FAINT, INK, LIGHT, LINE, NET, RULES, figure

AXES = {
    "batch": "images per step",
    "threads": "threads",
    "workers": "loading workers of the reference loop",
    "ranks": "processes of one thread, or GPUs, that share a batch",
}
#: Of which perfect scaling is drawn too.
SCALED = ("threads", "ranks")
DEVICES = {"cpu": ("CPU", NET), "cuda": ("GPU", RULES)}
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))


def speedup_chart(rows: Sequence[Row]) -> str:
    """A bar for each row: images per second, with its interval and how many times the reference loop's; an SVG file."""
    shown = [row for row in rows if row.measured and row.config.batch == rows[0].config.batch]
    beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "color": INK, "fontsize": 9}
    against = ""
    with figure("speed-up", 8, 0.9 + 0.36 * len(shown)) as (axes, svg):
        for height, row in enumerate(shown):
            axes.barh(height, row.images_s, 0.62, color=RULES if row.config.reference else NET, lw=0)
            axes.plot([row.low, row.high], [height, height], color=INK, lw=1.2)
            text = rate(row.images_s)
            if not math.isnan(row.to_reference):
                text += f" ({times(row.to_reference)})"
                against = f"; {TIMES} is against the reference loop on the same device"
            axes.annotate(text, (row.high, height), **beside)
        axes.set_yticks(range(len(shown)), [row.config.label for row in shown])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(axis="y", visible=False)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, 1.22 * max((row.high for row in shown), default=1.0))
        axes.set_xlabel(f"images per second{against}")
    return _standing_alone(svg[0])


def _standing_alone(svg: str) -> str:
    """An inline figure as a file: the light page's colours and font, on white."""
    for variable, colour in LIGHT.items():
        svg = svg.replace(f"var({variable})", colour)
    style = f"<style>text {{ font-family: system-ui, sans-serif; fill: {LIGHT['--ink']} }}</style>"
    return re.sub(r"(<svg[^>]*>)", r"\1" + style + '<rect width="100%" height="100%" fill="#ffffff"/>', svg, count=1)


def sweep_chart(name: str, rows: Sequence[Row], by_device: Mapping[str, Sequence[int]]) -> str:
    """Images per second over what was varied, a line for each device with its interval; and what perfect scaling would
    be."""
    ticks: set[int] = set()
    with figure(f"sweep-{name}", 5.4, 3.3) as (axes, svg):
        for device, numbers in by_device.items():
            members = [rows[number] for number in numbers if rows[number].measured]
            if not members:
                continue
            label, colour = DEVICES[device]
            values = [getattr(row.config, name) for row in members]
            rates = [row.images_s for row in members]
            ticks.update(values)
            if name in SCALED and values[0] == 1:
                axes.plot(values, [rates[0] * value for value in values], color=FAINT, lw=1, ls=(0, (2, 3)))
            axes.vlines(values, [row.low for row in members], [row.high for row in members], color=colour, lw=1.4)
            axes.plot(values, rates, color=colour, lw=1.6, marker="o", ms=4.5, label=label)
        if name != "workers" and max(ticks, default=1) > 4 * max(1, min(ticks, default=1)):
            axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(ticks), list(map(str, sorted(ticks))))
        axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.set_ylim(bottom=0)
        axes.set(xlabel=AXES[name], ylabel="images per second")
        if len(by_device) > 1:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return svg[0]


def curve_chart(curves: Sequence[Curve], over: str, value: str, label: str) -> str:
    """Learning curves: `value` of each against "steps" or "seconds"; a line for each algorithm."""
    styles = zip(cycle((NET, RULES, INK, FAINT)), cycle(DASHES))
    with figure(f"{over}-{value}-{curves[0].task}", 5.4, 3.1) as (axes, svg):
        for curve, (colour, dashes) in zip(curves, styles, strict=False):
            look = {"color": colour, "ls": dashes, "lw": 1.8, "label": curve.algorithm}
            axes.plot(getattr(curve, over), getattr(curve, value), **look)
        axes.set(xlabel="steps" if over == "steps" else "seconds of training", ylabel=label)
        axes.set_xlim(left=0)
        if value == "value":
            most = max(max(curve.value) for curve in curves)
            axes.set_ylim(0, 1 if most > 0.5 else max(0.1, 1.15 * most))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, columnspacing=1.2, handlelength=1.8)
        axes.spines["left"].set_color(LINE)
    return svg[0]
