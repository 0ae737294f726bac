"""Values of a DICOM dataset, read with care: of another type, not finite, absurd or damaged is as good as missing.

Whoever asks several datasets, such as an image and its functional groups, gets what the first of them has.
"""

from __future__ import annotations

import math
from typing import Any

from hemotorch.errors import one_line

_LONGEST_TEXT, _MOST_WORDS = 256, 32  # a value of DICOM's long strings has 64 letters


def value_of(dataset: Any, name: str) -> Any:
    """A value, None if it is missing, empty or damaged."""
    try:
        return dataset.get(name)
    except Exception:  # a value that is none of its type: as good as missing
        return None


def text_of(dataset: Any, name: str) -> str:
    """A text, or the first of several, on one line; "" if there is none."""
    value = value_of(dataset, name)
    if value is None:
        return ""
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        value = value[0] if len(value) else ""
    return _safe(value)


def _safe(value: Any) -> str:
    """A text of a header on one line, safe for a terminal, and not longer than anybody writes."""
    return one_line(str(value).replace("\0", "").strip()[:_LONGEST_TEXT])


def words_of(datasets: list[Any], name: str, capitals: bool = True) -> tuple[str, ...]:
    """The parts of a text of several values, of the first dataset that has it."""
    for dataset in datasets:
        value = value_of(dataset, name)
        if value is None or value == "":
            continue
        values = value if type(value).__name__ == "MultiValue" or isinstance(value, (list, tuple)) else [value]
        words = [_safe(entry) for entry in list(values)[:_MOST_WORDS]]
        return tuple(word.upper() if capitals else word for word in words if word)
    return ()


def numbers_of(datasets: list[Any], name: str, count: int) -> tuple[float, ...] | None:
    """So many finite numbers, of the first dataset that has them."""
    for dataset in datasets:
        value = value_of(dataset, name)
        if value is None:
            continue
        try:
            numbers = [float(entry) for entry in value]
        except (TypeError, ValueError):
            continue
        if len(numbers) == count and all(map(math.isfinite, numbers)) and max(map(abs, numbers)) < 1e6:
            return tuple(numbers)
    return None


def number_of(datasets: list[Any], name: str) -> float | None:
    """A finite number, of the first dataset that has one."""
    for dataset in datasets:
        value = value_of(dataset, name)
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if math.isfinite(number) and abs(number) < 1e9:
            return number
    return None


def positive_of(datasets: list[Any], name: str) -> float | None:
    """A number above 0 and below 1000, of the first dataset that has a number."""
    number = number_of(datasets, name)
    return number if number is not None and 0 < number < 1000 else None


def whole_of(dataset: Any, name: str) -> int | None:
    """A number without what follows its point."""
    number = number_of([dataset], name)
    return None if number is None else int(number)


def first_whole_of(datasets: list[Any], *names: str) -> int | None:
    """The first whole number that one of the datasets has under one of the names."""
    for dataset in datasets:
        for name in names:
            number = whole_of(dataset, name)
            if number is not None:
                return number
    return None


def items_of(dataset: Any, name: str) -> list[Any]:
    """The items of a sequence, none if it is missing."""
    value = value_of(dataset, name)
    return list(value) if type(value).__name__ == "Sequence" else []


def first_item_of(dataset: Any, name: str) -> Any:
    """The first item of a sequence, None if there is none."""
    items = items_of(dataset, name)
    return items[0] if items else None


def first_items_of(groups: list[Any], name: str) -> list[Any]:
    """The first item of this sequence in each functional group that has it."""
    items = []
    for group in groups:
        if group is not None and (item := first_item_of(group, name)) is not None:
            items.append(item)
    return items
