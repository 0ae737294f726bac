"""What all pages share: numbers as text, tables for a page and a terminal, and that text never becomes HTML."""

from __future__ import annotations

import math

import pytest

from hemotorch.report.pages import numbers, render
from hemotorch.report.pages.table import Cell, Column, table, text_lines
from webpage import Page


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12.3 ms"), (3.21, "3.2 s"), (48, "48 s"), (600, "10.0 min"), (5 * 3600, "5.0 h"), (9e5, "10.4 d"),
        (math.nan, "–"),
    ],
)  # fmt: skip
def test_times_are_said_in_the_unit_one_reads_best(seconds: float, text: str) -> None:
    assert numbers.duration(seconds) == text


def test_numbers_have_the_digits_that_count() -> None:
    assert [numbers.number(value, 1) for value in (-1234.56, None, math.nan, math.inf)] == ["−1,234.6", "–", "–", "–"]
    assert numbers.number(2, 1, sign=True) == "+2.0" and numbers.number(-2, 1, sign=True) == "−2.0"
    assert [numbers.rate(value) for value in (0.01234, 1.234, 310, 31000, math.nan)] == [
        "0.0123", "1.23", "310", "31,000", "–",
    ]  # fmt: skip
    assert numbers.interval((math.nan, 1.0)) == "" and numbers.interval((-0.5, 1)) == "[−0.50, 1.00]"
    assert [numbers.times(value) for value in (7.76, 12.4, math.nan)] == ["7.8×", "12×", "–"]
    assert numbers.percent(0.756) == "76 %" and numbers.part(1234, 5678) == "1,234 of 5,678"
    assert [numbers.plural(*pair) for pair in ((1, "scan"), (1200, "process"))] == ["1 scan", "1,200 processes"]
    assert numbers.sentence("no patient") == "No patient." and numbers.sentence("Done.") == "Done."


def test_one_table_for_a_page_and_a_terminal() -> None:
    columns = [Column("", lambda pair: pair[0]), Column("Dice", lambda pair: Cell(pair[1], beneath="−1 × 2"))]
    made = table(columns, [("<a>", "0.5"), ("bb", "10")])
    assert text_lines(made) == ["             Dice", "<a>  0.5 [-1 x 2]", "bb    10 [-1 x 2]"]


def test_text_is_escaped_in_the_title_and_in_warnings() -> None:
    page = render("base.html", "<b>", ["<script>alert(1)</script> & more"])
    assert "<title>&lt;b&gt;</title>" in page and "<script" not in page
    assert Page(page).words[0] == "<script>alert(1)</script> & more"
