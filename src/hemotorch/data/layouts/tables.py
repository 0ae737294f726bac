"""CSV files as hospitals and spreadsheets write them: byte order marks, semicolons, blank lines, trailing blanks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from hemotorch.errors import InputError
from hemotorch.system.files import quoted, text_file, unquoted, write_text


def read_cells(path: Path | str) -> list[tuple[int, list[str]]]:
    """The rows that are not blank, with the line each ends on; cells stripped. Comma, semicolon or tab is found out.

    Raises InputError where the file is missing or not text.
    """
    try:
        raw = text_file(path, "table").read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path) from error
    encodings = ("utf-16",) if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252")
    text = next((t for t in (_decoded(raw, encoding) for encoding in encodings) if t is not None), None)
    if text is None or "\0" in text:
        raise InputError("is not a text file", path)
    head = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=head.count)
    # Not strict, one stray quote swallows all lines up to the next one, or to the end, without a word.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        rows = [(reader.line_num, [unquoted(cell.strip()) for cell in row]) for row in reader]
    except csv.Error as error:
        what = f"cannot be read as CSV: {error}, in what ends on line {reader.line_num}"
        raise InputError(what, path, "is a quote missing or too many?") from error
    return [(line, row) for line, row in rows if any(row)]


def read_table(path: Path | str, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Rows below a header as (line, {column: cell}) for the named columns, found whatever their case.

    Raises InputError that names the columns that are missing and those found, or the line that is too short.
    """
    rows = read_cells(path)
    found = rows[0][1] if rows else []
    places = {plain(name): index for index, name in reversed(list(enumerate(found)))}
    missing = [name for name in columns if plain(name) not in places]
    if missing:
        has = ", ".join(name for name in found if name) or "none"
        raise InputError(
            f"has no column {', '.join(missing)}; its columns are: {has}", path, f"wanted: {', '.join(columns)}"
        )
    table = []
    for line, row in rows[1:]:
        if len(row) <= max(places[plain(name)] for name in columns):
            raise InputError(f"line {line} has {len(row)} cells, fewer than its header's {len(found)}", path)
        table.append((line, {name: row[places[plain(name)]] for name in columns}))
    return table


def whole(cell: str, column: str, line: int, path: Path | str, allowed: range | None = None) -> int:
    """A cell's whole number ("1" or "1.0"). Raises InputError naming file, line and column."""
    try:
        number = float(cell)
        if number == int(number) and (allowed is None or int(number) in allowed):
            return int(number)
    except (ValueError, OverflowError):
        pass
    expected = f"{allowed[0]} to {allowed[-1]}" if allowed else "a whole number"
    raise InputError(f"line {line}: {column} is '{cell}', not {expected}", path)


def is_number(cell: str) -> bool:
    """Whether it is nothing but digits that int() reads: "49", not "²", and not 5,000 digits."""
    return len(cell) < 20 and cell.isascii() and cell.isdecimal()


def plain(name: str) -> str:
    """A column or file name without what people vary: case, line breaks, runs of blanks."""
    return " ".join(name.split()).casefold()


def write_table(path: Path | str, rows: Iterable[Sequence[object]]) -> None:
    """Writes rows as CSV, atomically; text that a spreadsheet would take for a formula is quoted, see `quoted`."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([quoted(cell) for cell in row] for row in rows)
    write_text(path, text.getvalue())


def _decoded(raw: bytes, encoding: str) -> str | None:
    try:
        return raw.decode(encoding)
    except UnicodeError:
        return None
