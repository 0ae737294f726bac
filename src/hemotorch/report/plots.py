"""The report's figures: plots as inline SVG, and PNG pictures of scans."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from hemotorch.evaluation.scores import Example, ScanScore, Scores
from hemotorch.pictures.slices import LINE_RGB, grey_slice, outlines, picture_width
from hemotorch.report.pages.numbers import MINUS, number
from hemotorch.report.pages.svg import FAINT, LINE, NET, RULES, figure, plain_log
from hemotorch.system.metrics import EpochMetrics

SMALL_ML = 0.1  #: volumes below it share the left edge of a logarithmic axis
PICTURE_PX = 300  #: height of a slice's picture


def dice_by_volume(scores: Scores) -> str:
    """Dice of each scan with bleeding against its true mL, the network's and the baseline's. SVG, "" without mL."""
    scans = scans_with_ml(scores)
    if not scans:
        return ""
    volumes = [max(SMALL_ML, scan.network.truth_ml) for scan in scans]
    network = [scan.network.volume.dice for scan in scans]
    baseline = [scan.baseline.volume.dice for scan in scans if scan.baseline]
    with figure("dice", 5.4, 3.7) as (axes, svg):
        if len(baseline) == len(network):
            axes.vlines(volumes, baseline, network, color=LINE, lw=1.2, zorder=1)
            circles = {"facecolors": "none", "edgecolors": RULES, "lw": 1.3}
            axes.scatter(volumes, baseline, s=30, label="rule-based baseline", zorder=2, **circles)
        axes.scatter(volumes, network, s=34, color=NET, lw=0, label="network", zorder=3)
        axes.set(xscale="log", ylim=(-0.03, 1.03), xlabel="true volume, mL", ylabel="Dice")
        plain_log(axes, volumes)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handletextpad=0.2, columnspacing=1.2)
    return svg[0]


def agreement(scores: Scores) -> str:
    """Bland-Altman: predicted - true mL against their mean, for scans with bleeding. SVG, "" without mL."""
    comparisons = [scan.network for scan in scans_with_ml(scores)]
    if not comparisons:
        return ""
    volume = scores.summary["volume"]
    means = [(each.predicted_ml + each.truth_ml) / 2 for each in comparisons]
    errors = [each.predicted_ml - each.truth_ml for each in comparisons]
    limits = [limit for limit in volume["limits_ml"] if np.isfinite(limit)]
    with figure("agreement", 5.4, 3.7) as (axes, svg):
        axes.axhline(0, color=FAINT, lw=0.8)
        _level(axes, volume["bias_ml"], f"bias {number(volume['bias_ml'], 1, sign=True)}", "-")
        for limit in limits:
            _level(axes, limit, number(limit, 1, sign=True), (0, (4, 3)))
        axes.scatter(means, errors, s=34, color=NET, lw=0, zorder=3)
        axes.set(xlabel="mean of true and predicted volume, mL", ylabel=f"predicted {MINUS} true, mL")
        reach = 1.12 * max(1.0, *np.abs([*errors, *limits]))
        axes.set_ylim(-reach, reach)
        axes.set_xlim(-0.03 * max(means), 1.05 * max(means))
    return svg[0]


def scans_with_ml(scores: Scores) -> list[ScanScore]:
    """Scans with bleeding whose true mL are known."""
    return [scan for scan in scores.scans if scan.network.bleeding and np.isfinite(scan.network.truth_ml)]


def _level(axes: Axes, height: float, text: str, dashes: Any) -> None:
    """A horizontal line with its name at the right edge."""
    axes.axhline(height, color=NET, lw=1.1, ls=dashes, zorder=1)
    beside: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "annotation_clip": False}
    side = ("axes fraction", "data")
    axes.annotate(text, (1, height), xycoords=side, va="center", color=FAINT, fontsize=9, **beside)


def training(rows: Sequence[EpochMetrics]) -> str:
    """Loss, validation Dice and learning rate by epoch, side by side. SVG, "" without rows."""
    if not rows:
        return ""
    losses = [(row.epoch, row.loss) for row in rows]
    dice = [(row.epoch, row.val["dice"]) for row in rows if row.val and row.val["dice"] is not None]
    rates = [(row.epoch, row.lr) for row in rows]
    with figure("training", 11, 2.7, panels=3 if dice else 2) as (axes, svg):
        first, *middle, last = axes
        _panel(first, "training loss", losses)
        for panel in middle:
            _panel(panel, "validation Dice", dice)
            panel.set_ylim(0, 1)
        _panel(last, "learning rate", rates)
        last.set_ylim(0, max(rate for _, rate in rates) * 1.15 or 1)
        last.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return svg[0]


def _panel(axes: Axes, title: str, points: Sequence[tuple[int, float]]) -> None:
    """One value by epoch; with dots if there are few."""
    epochs, values = zip(*points, strict=True)
    axes.plot(epochs, values, color=NET, lw=1.6, marker="o" if len(values) < 40 else "", ms=3.5)
    axes.set(title=title, xlabel="epoch")
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4))


def pictures(example: Example) -> list[tuple[int, str]]:
    """The example's slices with truth and prediction outlined: each slice's number and PNG data URL."""
    tiles = []
    slices = zip(example.slice_numbers, example.hu, example.truth, example.predicted, strict=True)
    for slice_number, hu, truth, predicted in slices:
        width = picture_width(hu.shape, example.pixel_mm, PICTURE_PX)
        grey = grey_slice(hu, width, PICTURE_PX)
        lines = outlines(truth, predicted, width, PICTURE_PX, typed=example.typed)
        tiles.append((slice_number, _png_url(grey, lines)))
    return tiles


def _png_url(grey: np.ndarray, lines: np.ndarray) -> str:
    """A data URL: grey levels and the lines' colours fit one palette, a third of the size of true colour."""
    levels = 257 - len(LINE_RGB)  # the first entry of LINE_RGB is no line
    indices = np.rint(grey / 255 * (levels - 1)).astype(np.uint8)
    indices[lines > 0] = levels - 1 + lines[lines > 0]
    greys = np.rint(np.arange(levels) * 255 / (levels - 1)).astype(int)
    image = Image.fromarray(indices, "L").convert("P")
    image.putdata(indices.ravel())
    image.putpalette([*np.repeat(greys, 3).tolist(), *LINE_RGB[1:].ravel().tolist()])
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
