"""Plots of HTML pages as inline SVG, from a template: dots and lines on linear and logarithmic axes.

Drawn here and not by a library: reports are made where no more than the core of hemotorch is installed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hemotorch.report.pages.numbers import MINUS

Value = tuple[float, float]  #: x and y in the units of a plot's axes

NET, RULES, FAINT, LINE = "var(--net)", "var(--rules)", "var(--faint)", "var(--line)"  #: colours of base.html
LEFT, RIGHT, TOP, BOTTOM = 46.0, 54.0, 26.0, 36.0  #: margins of a panel, in the units of the figure
BEYOND = 4.0  #: how far outside its panel something may lie


class Tick(NamedTuple):
    """A tick: where, in the units of the figure, and what is written there."""

    at: float
    text: str


class DrawnLine(NamedTuple):
    """A line as the template draws it."""

    path: str
    colour: str
    width: float
    dashes: str


class DrawnDots(NamedTuple):
    """Dots as the template draws them."""

    centres: list[Value]
    colour: str
    radius: float
    hollow: bool


class DrawnNote(NamedTuple):
    """A text as the template draws it."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class PlotAxis:
    """An axis.

    low, high: its ends, low below high. title: what it shows, with unit. ticks: values that are written at it.
    logarithmic: its values are above zero.
    """

    low: float
    high: float
    title: str
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, from 0 at the low end to 1 at the high end."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass
class Plot:
    """A panel of a figure: what is drawn into it, in the units of its axes."""

    x: PlotAxis
    y: PlotAxis
    title: str = ""
    lines: list[tuple[Sequence[Value], str, float, str]] = field(default_factory=list)
    dots: list[tuple[Sequence[Value], str, float, bool]] = field(default_factory=list)
    notes: list[tuple[Value, str]] = field(default_factory=list)

    def add_line(self, points: Sequence[Value], colour: str, width: float = 1.2, dashes: str = "") -> None:
        """Adds a line through the points. dashes: as SVG's stroke-dasharray."""
        self.lines.append((points, colour, width, dashes))

    def add_dots(self, points: Sequence[Value], colour: str, radius: float = 2.9, hollow: bool = False) -> None:
        """Adds a dot at each point."""
        self.dots.append((points, colour, radius, hollow))

    def add_note(self, point: Value, text: str) -> None:
        """Adds a text that begins right of the point."""
        self.notes.append((point, text))


@dataclass(frozen=True)
class DrawnPlot:
    """A panel as the template draws it: all in the units of the figure."""

    left: float
    right: float
    top: float
    bottom: float
    title: str
    x_title: str
    y_title: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[DrawnLine]
    dots: list[DrawnDots]
    notes: list[DrawnNote]


def linear_axis(low: float, high: float, title: str = "", count: int = 5, whole: bool = False) -> PlotAxis:
    """An axis from `low` to `high` with about `count` round ticks; whole: these are whole numbers."""
    if not high > low:  # a single value
        margin = max(1.0, abs(low) / 2)
        low, high = low - margin, high + margin
    step = round_step((high - low) / count)
    if whole:
        step = max(1.0, round(step))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    # Of numbers beyond 2**53 a step may be lost in rounding; no axis has more than a few ticks.
    last = min(last, first + 4 * count)
    ticks = tuple(number * step for number in range(first, last + 1))
    return PlotAxis(low, high, title, ticks)


def logarithmic_axis(values: Sequence[float], title: str) -> PlotAxis:
    """An axis around values above zero, with ticks at 0.1, 1, 10, ..., and at 2 and 5 between them if these are few."""
    low, high = min(values) * 0.7, max(values) * 1.4
    steps = (1, 2, 5) if high < 200 * low else (1,)
    ticks = [step * 10.0**power for power in range(-3, 6) for step in steps]
    return PlotAxis(low, high, title, tuple(tick for tick in ticks if low <= tick <= high), logarithmic=True)


def round_step(step: float) -> float:
    """The smallest of 1, 2, 2.5, 5 and 10 times a power of ten that is not below `step`, which is above zero."""
    power = 10.0 ** math.floor(math.log10(step))
    factors = [factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= step * (1 - 1e-9)]
    return power * (factors[0] if factors else 10.0)


def drawn(plots: Sequence[Plot], width: float, height: float) -> list[DrawnPlot]:
    """Panels of one size, side by side in a figure of that width and height."""
    panel_width = width / len(plots)
    return [_drawn(plot, number * panel_width, panel_width, height) for number, plot in enumerate(plots)]


def _drawn(plot: Plot, offset: float, width: float, height: float) -> DrawnPlot:
    left, right = offset + LEFT, offset + width - RIGHT
    top, bottom = TOP, height - BOTTOM

    def at_x(value: float) -> float:
        at = left + plot.x.share(value) * (right - left)
        return round(min(right + BEYOND, max(left - BEYOND, at)), 2)

    def at_y(value: float) -> float:
        at = bottom - plot.y.share(value) * (bottom - top)
        return round(min(bottom + BEYOND, max(top - BEYOND, at)), 2)

    lines = []
    for points, colour, stroke, dashes in plot.lines:
        path = "M" + "L".join(f"{at_x(x)} {at_y(y)}" for x, y in points)
        lines.append(DrawnLine(path, colour, stroke, dashes))
    dots = []
    for points, colour, radius, hollow in plot.dots:
        dots.append(DrawnDots([(at_x(x), at_y(y)) for x, y in points], colour, radius, hollow))
    return DrawnPlot(
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        title=plot.title,
        x_title=plot.x.title,
        y_title=plot.y.title,
        x_ticks=[Tick(at_x(value), tick_text(value)) for value in plot.x.ticks],
        y_ticks=[Tick(at_y(value), tick_text(value)) for value in plot.y.ticks],
        lines=lines,
        dots=dots,
        notes=[DrawnNote(at_x(x) + 4, at_y(y) + 3.5, text) for (x, y), text in plot.notes],
    )


def tick_text(value: float) -> str:
    """A tick's number, as short as it can be: "0.5", "20", "1e+06"."""
    text = f"{round(value, 12):g}"
    return text.replace("-", MINUS) if text.startswith("-") else text
