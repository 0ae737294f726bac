"""Figures of HTML pages: inline SVG that follows the page's light or dark colours."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# Colours that stand for the page's own: each becomes a CSS variable, so that one figure fits light and dark.
INK, FAINT, LINE, NET, RULES = "#010101", "#020202", "#030303", "#040404", "#050505"
#: The light page's values of them, as in base.html, for figures that stand alone.
LIGHT = {"--ink": "#16181d", "--faint": "#5d636e", "--line": "#e2e3e6", "--net": "#2456c8", "--rules": "#9a7428"}
_VARIABLES = {INK: "--ink", FAINT: "--faint", LINE: "--line", NET: "--net", RULES: "--rules"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "legend.frameon": False,
    "legend.labelcolor": FAINT,
}


@contextmanager
def figure(name: str, width: float, height: float, panels: int = 1) -> Iterator[tuple[Any, list[str]]]:
    """A figure in the page's style; at the end of the block its SVG is put into the list."""
    out: list[str] = []
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        drawn = Figure((width, height), layout="constrained")
        yield drawn.subplots(1, panels), out
        stream = io.StringIO()
        drawn.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    out.append(_inline(stream.getvalue()))


def _inline(svg: str) -> str:
    """An SVG file as part of a page: no header, the page's colours and font, no ids but those that are used."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.strip()
