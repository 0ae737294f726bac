"""The report's figures: plots as inline SVG, and PNG pictures of scans."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image

from hemotorch.evaluation.scores import Example, Scores
from hemotorch.pictures.slices import LINE_RGB, grey_slice, outlines, picture_width
from hemotorch.report.pages.svg import FAINT, LINE, NET, RULES, figure, plain_log

SMALL_ML = 0.1  #: volumes below it share the left edge of a logarithmic axis
PICTURE_PX = 300  #: height of a slice's picture


def dice_by_volume(scores: Scores) -> str:
    """Dice of each scan with bleeding against its true mL, the network's and the baseline's. SVG, "" without mL."""
    scans = [scan for scan in scores.scans if scan.network.bleeding and np.isfinite(scan.network.truth_ml)]
    if not scans:
        return ""
    volumes = [max(SMALL_ML, scan.network.truth_ml) for scan in scans]
    with figure("dice", 5.4, 3.7) as (axes, out):
        if all(scan.baseline for scan in scans):
            rules = [scan.baseline.volume.dice for scan in scans if scan.baseline]
            pairs = zip(volumes, rules, [scan.network.volume.dice for scan in scans], strict=True)
            for volume, low, high in pairs:
                axes.plot([volume, volume], [low, high], color=LINE, lw=1.2, zorder=1)
            axes.scatter(
                volumes, rules, s=30, facecolors="none", edgecolors=RULES, lw=1.3, label="rule-based baseline", zorder=2
            )
        network = [scan.network.volume.dice for scan in scans]
        axes.scatter(volumes, network, s=34, color=NET, lw=0, label="network", zorder=3)
        axes.set(xscale="log", ylim=(-0.03, 1.03), xlabel="true volume, mL", ylabel="Dice")
        plain_log(axes, volumes)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handletextpad=0.2, columnspacing=1.2)
    return out[0]


def agreement(scores: Scores) -> str:
    """Bland-Altman: predicted - true mL against their mean, for scans with bleeding. SVG, "" without mL."""
    found = [scan.network for scan in scores.scans if scan.network.bleeding and np.isfinite(scan.network.truth_ml)]
    if not found:
        return ""
    volume = scores.summary["volume"]
    means = [(each.predicted_ml + each.truth_ml) / 2 for each in found]
    errors = [each.predicted_ml - each.truth_ml for each in found]
    with figure("agreement", 5.4, 3.7) as (axes, out):
        axes.axhline(0, color=FAINT, lw=0.8)
        marks: list[tuple[float, str, Any]] = [(volume["bias_ml"], f"bias {volume['bias_ml']:+.1f}", "-")]
        marks += [(limit, f"{limit:+.1f}", (0, (4, 3))) for limit in volume["limits_ml"] if np.isfinite(limit)]
        for height, text, dashes in marks:
            axes.axhline(height, color=NET, lw=1.1, ls=dashes, zorder=1)
            beside = {"xytext": (4, 0), "textcoords": "offset points", "annotation_clip": False}
            text = text.replace("-", "\N{MINUS SIGN}")
            side = ("axes fraction", "data")
            axes.annotate(text, (1, height), xycoords=side, va="center", color=FAINT, fontsize=9, **beside)
        axes.scatter(means, errors, s=34, color=NET, lw=0, zorder=3)
        axes.set(xlabel="mean of true and predicted volume, mL", ylabel="predicted \N{MINUS SIGN} true, mL")
        reach = max(1.0, *(abs(value) for value in (*errors, *volume["limits_ml"]) if np.isfinite(value))) * 1.12
        axes.set_ylim(-reach, reach)
        axes.set_xlim(-0.03 * max(means), 1.05 * max(means))
    return out[0]


def training(rows: Sequence[Mapping[str, Any]]) -> str:
    """Loss, validation Dice and learning rate by epoch, side by side. SVG, "" without rows."""
    if not rows:
        return ""
    validated = [row for row in rows if row.get("val") and row["val"].get("dice") is not None]
    panels = [("training loss", [row["epoch"] for row in rows], [row["loss"] for row in rows])]
    if validated:
        dice = [row["val"]["dice"] for row in validated]
        panels.append(("validation Dice", [row["epoch"] for row in validated], dice))
    panels.append(("learning rate", [row["epoch"] for row in rows], [row["lr"] for row in rows]))
    with figure("training", 11, 2.7, panels=len(panels)) as (axes, out):
        for place, (title, epochs, values) in zip(np.atleast_1d(axes), panels, strict=True):
            dots = "o" if len(values) < 40 else ""
            place.plot(epochs, values, color=NET, lw=1.6, marker=dots, ms=3.5)
            place.set(title=title, xlabel="epoch")
            place.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
            place.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
            if title == "validation Dice":
                place.set_ylim(0, 1)
            elif title == "learning rate":
                place.set_ylim(0, max(values) * 1.15 or 1)
                place.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return out[0]


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
