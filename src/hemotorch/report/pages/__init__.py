"""What all HTML pages share: one look in light and dark, tables, numbers for reading, and plots that follow it.

chart            plots as SVG that need no library
numbers          numbers, shares, times and counts as text
svg              plots as SVG by matplotlib, for the bench
table            a table of cells, for a page or a terminal
base.html        the template of every page: its look, its warnings, its footer
chart.svg        the template of plots
macros.html      the pieces that pages are made of
evaluation.html  the template of an evaluation's report
bench.html       the template of a bench
study.html       the template of a study's page, with study.css and study.js
index.html       the template of the list of studies, with index.css and index.js
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hemotorch import NOTICE, __version__
from hemotorch.report.pages import numbers
from hemotorch.report.pages.chart import Plot, drawn


def render(template: str, title: str, warnings: Sequence[str] = (), **values: Any) -> str:
    """A whole page that needs no other file and no network; its policy forbids scripts that it does not name.

    Args:
        template: name of a template in this folder that extends base.html.
        title: of the browser's window.
        warnings: what stands above all else.
        values: what the template shows; all text in it is escaped.
    """
    page = _environment().get_template(template)
    return page.render(title=title, warnings=list(warnings), notice=NOTICE, version=__version__, **values)


def figure_svg(plots: Sequence[Plot], width: float, height: float, title: str) -> str:
    """Plots side by side as one inline SVG.

    Args:
        plots: the panels, from left to right.
        width, height: of the figure; a line of text is 10 high.
        title: what a screen reader says it is.
    """
    template = _environment().get_template("chart.svg")
    return template.render(panels=drawn(plots, width, height), width=width, height=height, title=title).strip()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hemotorch.report", "pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(numbers.FILTERS)
    environment.tests["finite"] = math.isfinite
    return environment
