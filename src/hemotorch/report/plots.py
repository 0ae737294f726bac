"""The report's figures: plots as inline SVG, and PNG pictures of scans."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from hemotorch.evaluation.scores import Example, ScanScore, Scores
from hemotorch.pictures.slices import LINE_RGB, grey_slice, outlines, picture_width
from hemotorch.report.pages import figure_svg
from hemotorch.report.pages.chart import FAINT, LINE, NET, RULES, Plot, PlotAxis, linear_axis, logarithmic_axis
from hemotorch.report.pages.numbers import MINUS, number
from hemotorch.system.metrics import EpochMetrics

SMALL_ML = 0.1  #: volumes below it share the left edge of a logarithmic axis
FIGURE, WIDE_FIGURE = (390.0, 266.0), (792.0, 194.0)  #: width and height; a line of text is 10 high
PICTURE_PX = 300  #: height of a slice's picture


def dice_by_volume(scores: Scores) -> str:
    """Dice of each scan with bleeding against its true mL, the network's and the baseline's. SVG, "" without mL."""
    scans = scans_with_ml(scores)
    if not scans:
        return ""
    volumes = [max(SMALL_ML, scan.network.truth_ml) for scan in scans]
    network = [scan.network.volume.dice for scan in scans]
    baseline = [scan.baseline.volume.dice for scan in scans if scan.baseline]
    dice_axis = PlotAxis(-0.03, 1.03, "Dice", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    plot = Plot(logarithmic_axis(volumes, "true volume, mL"), dice_axis)
    if len(baseline) == len(network):
        for volume, rules, net in zip(volumes, baseline, network, strict=True):
            plot.add_line([(volume, rules), (volume, net)], LINE)
        plot.add_dots(list(zip(volumes, baseline, strict=True)), RULES, hollow=True)
    plot.add_dots(list(zip(volumes, network, strict=True)), NET)
    return figure_svg([plot], *FIGURE, "Dice of each scan by its true volume")


def agreement(scores: Scores) -> str:
    """Bland-Altman: predicted - true mL against their mean, for scans with bleeding. SVG, "" without mL."""
    comparisons = [scan.network for scan in scans_with_ml(scores)]
    if not comparisons:
        return ""
    volume = scores.summary["volume"]
    means = [(each.predicted_ml + each.truth_ml) / 2 for each in comparisons]
    errors = [each.predicted_ml - each.truth_ml for each in comparisons]
    limits = [limit for limit in volume["limits_ml"] if np.isfinite(limit)]
    reach = 1.12 * float(max(1.0, *np.abs([*errors, *limits])))
    means_axis = linear_axis(-0.03 * max(means), 1.05 * max(means), "mean of true and predicted volume, mL")
    plot = Plot(means_axis, linear_axis(-reach, reach, f"predicted {MINUS} true, mL"))
    _add_level(plot, 0.0, "", FAINT, 0.8)
    _add_level(plot, volume["bias_ml"], f"bias {number(volume['bias_ml'], 1, sign=True)}")
    for limit in limits:
        _add_level(plot, limit, number(limit, 1, sign=True), dashes="4 3")
    plot.add_dots(list(zip(means, errors, strict=True)), NET)
    return figure_svg([plot], *FIGURE, "Bland-Altman plot of volumes")


def scans_with_ml(scores: Scores) -> list[ScanScore]:
    """Scans with bleeding whose true mL are known."""
    return [scan for scan in scores.scans if scan.network.bleeding and np.isfinite(scan.network.truth_ml)]


def _add_level(plot: Plot, height: float, text: str, colour: str = NET, width: float = 1.1, dashes: str = "") -> None:
    """A horizontal line with its name at the right edge."""
    plot.add_line([(plot.x.low, height), (plot.x.high, height)], colour, width, dashes)
    plot.add_note((plot.x.high, height), text)


def training(rows: Sequence[EpochMetrics]) -> str:
    """Loss, validation Dice and learning rate by epoch, side by side. SVG, "" without rows."""
    if not rows:
        return ""
    losses = [(float(row.epoch), row.loss) for row in rows]
    dice = [(float(row.epoch), row.val["dice"]) for row in rows if row.val and row.val["dice"] is not None]
    rates = [(float(row.epoch), row.lr) for row in rows]
    lowest, highest = min(loss for _, loss in losses), max(loss for _, loss in losses)
    margin = 0.05 * (highest - lowest)
    panels = [_curve("training loss", losses, linear_axis(lowest - margin, highest + margin, count=4))]
    if dice:
        panels.append(_curve("validation Dice", dice, linear_axis(0.0, 1.0)))
    highest_rate = max(rate for _, rate in rates) * 1.15
    panels.append(_curve("learning rate", rates, linear_axis(0.0, max(highest_rate, 0.0) or 1.0, count=4)))
    return figure_svg(panels, *WIDE_FIGURE, "Curves of the training")


def _curve(title: str, points: Sequence[tuple[float, float]], axis: PlotAxis) -> Plot:
    """One value by epoch; with dots if there are few."""
    epochs = [epoch for epoch, _ in points]
    plot = Plot(linear_axis(min(epochs), max(epochs), "epoch", whole=True), axis, title)
    plot.add_line(points, NET, 1.6)
    if len(points) < 40:
        plot.add_dots(points, NET, 1.8)
    return plot


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
