"""A table of cells: made once, shown by a page or a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

#: Signs that not every terminal has, and what stands for them there.
PLAIN = str.maketrans({"–": "-", "−": "-", "×": "x"})


@dataclass(frozen=True)
class Cell:
    """What stands in a cell.

    beneath: a second, fainter line. kind: a class of the page's look ("rules", "strong", "words", "faint"). share:
    draws a bar of that part of its width, from 0 to 1. colour: of a swatch before the text, as CSS writes it. tint: how
    strongly the cell is shaded, from 0 to 1.
    """

    text: str
    beneath: str = ""
    kind: str = ""
    share: float | None = None
    colour: str = ""
    tint: float | None = None


@dataclass(frozen=True)
class Column:
    """A column: its head, what it shows of an item, and the kind of its cells that name none. colour: of a swatch
    before the head."""

    head: str
    cell: Callable[[Any], Cell | str]
    kind: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Table:
    """Heads, and rows of as many cells; the first cell of a row names it."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def table(columns: Sequence[Column], items: Iterable[Any]) -> Table:
    """A row for each item."""
    rows = [tuple(_cell(column, item) for column in columns) for item in items]
    return Table(tuple(columns), tuple(rows))


def _cell(column: Column, item: Any) -> Cell:
    value = column.cell(item)
    return value if isinstance(value, Cell) else Cell(value, kind=column.kind)


def text_lines(table: Table) -> list[str]:
    """The table for a terminal: a line per row, the first column to the left, the others to the right."""
    lines = [[column.head for column in table.columns]]
    for row in table.rows:
        lines.append([f"{cell.text} [{cell.beneath}]" if cell.beneath else cell.text for cell in row])
    lines = [[text.translate(PLAIN) for text in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [_aligned(line, widths) for line in lines]


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(line, widths, strict=True)
    cells = [first[0].ljust(first[1])]
    for text, width in others:
        cells.append(text.rjust(width))
    return "  ".join(cells).rstrip()
