"""What every HTML page is made of: the shell with the look of all of them, tables, facts, and numbers for reading."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from string import Template

from hemotorch import NOTICE, __version__


def shell(title: str, body: Iterable[str], notice: str = NOTICE, told: Iterable[str] = ()) -> str:
    """A whole page that needs no other file, no network and no script.

    body: its parts as HTML, empty ones left out. notice: what it is for. told: warnings that stand above all else.
    """
    banner = "".join(f"<p>{escape(text)}</p>" for text in told)
    footer = f"<footer>Made by hemotorch {__version__}. {escape(notice)}</footer>"
    template = Template(resources.files("hemotorch.report.pages").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        banner=f'<div class="banner" role="note">{banner}</div>\n' if banner else "",
        notice=escape(notice),
        body="\n".join([*(part for part in body if part), footer]),
    )


def fact(title: str, value: str, rest: str) -> str:
    """A card with one value, large. value, rest: HTML."""
    return f'<div class="fact"><h3>{title}</h3><div class="big">{value}</div>{rest}</div>'


def table(heads: Sequence[str], rows: Iterable[str]) -> str:
    """A table of HTML rows under its heads; a head that begins with "baseline" has the baseline's colour."""
    top = "".join(f'<th scope="col"{_kind(head)}>{head}</th>' for head in heads)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _kind(head: str) -> str:
    return ' class="rules"' if head.startswith("baseline") else ""


def unfolded(details: Mapping[str, str]) -> str:
    """The end of a page: title -> preformatted text that opens when it is asked for."""
    if not details:
        return ""
    parts = "".join(
        f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
        for title, text in details.items()
    )
    return f"<section><h2>How it was made</h2>{parts}</section>"


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """A number for reading; a dash where it is undefined; a minus sign, not a hyphen."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "−")


def interval(ends: Sequence[float], digits: int = 2) -> str:
    """[low, high], or nothing where it is undefined."""
    return f"[{number(ends[0], digits)}, {number(ends[1], digits)}]" if math.isfinite(ends[0]) else ""


def many(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def duration(seconds: float) -> str:
    """Seconds in the unit that one reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
