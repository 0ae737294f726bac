"""Numbers as text: what is undefined is a dash, a minus is a minus sign, and each has the digits that count."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

DASH, MINUS, TIMES = "–", "−", "×"
UNITS = (("d", 86400), ("h", 3600), ("min", 60))  #: of durations, with their seconds


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """A number with so many decimals, and thousands apart."""
    if value is None or not math.isfinite(value):
        return DASH
    plus = "+" * sign
    return f"{value:{plus},.{digits}f}".replace("-", MINUS)


def interval(ends: Sequence[float], digits: int = 2) -> str:
    """[low, high], or nothing if it is undefined."""
    if not math.isfinite(ends[0]):
        return ""
    return f"[{number(ends[0], digits)}, {number(ends[1], digits)}]"


def percent(share: float | None) -> str:
    """A share of 1 as per cent."""
    if share is None or not math.isfinite(share):
        return DASH
    return f"{100 * share:.0f} %"


def rate(value: float) -> str:
    """A positive number with three digits that count."""
    if not math.isfinite(value) or value <= 0:
        return number(value, 0)
    return number(value, max(0, 2 - math.floor(math.log10(value))))


def times(value: float) -> str:
    """How many times as much."""
    if not math.isfinite(value):
        return DASH
    return number(value, 1 if value < 10 else 0) + TIMES


def plural(amount: int, noun: str) -> str:
    """An amount with its noun."""
    if amount == 1:
        return f"1 {noun}"
    return f"{amount:,} {noun}{'es' if noun.endswith('s') else 's'}"


def part(amount: int, whole: int) -> str:
    """An amount of a whole."""
    return f"{amount:,} of {whole:,}"


def duration(seconds: float) -> str:
    """Seconds in the unit that one reads best, with a decimal if the figure is small."""
    if math.isnan(seconds):
        return DASH
    for unit, size in UNITS:
        if seconds >= 1.5 * size:
            amount = seconds / size
            digits = 0 if amount >= 20 else 1
            return f"{amount:.{digits}f} {unit}"
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    digits = 0 if seconds >= 10 else 1
    return f"{seconds:.{digits}f} s"


def sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    stop = "" if text.endswith(".") else "."
    return text[:1].upper() + text[1:] + stop


#: For templates, by the names of the functions.
FILTERS: Mapping[str, Callable[..., str]] = {
    function.__name__: function
    for function in (number, interval, percent, rate, times, plural, part, duration, sentence)
}
