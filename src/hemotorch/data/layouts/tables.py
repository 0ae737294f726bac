"""CSV files as hospitals and spreadsheets write them: byte order marks, semicolons, blank lines, trailing blanks."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from hemotorch.errors import InputError
from hemotorch.system.files import quoted, text_file, unquoted, write_text


def read_cells(path: Path | str) -> list[tuple[int, list[str]]]:
    """The rows of a CSV file that are not blank.

    Args:
        path: of the file; comma, semicolon or tab, and the encoding, are recognised.

    Returns:
        For each row the line that it ends on, and its cells without blanks around them.

    Raises:
        InputError: if the file is missing, not text, or not CSV.
    """
    text = _text(path)
    # Spreadsheets write semicolons where the comma is the decimal sign.
    first_line = next((line for line in text.splitlines() if line.strip()), "")
    said = re.fullmatch(r'"?sep=([,;\t])"?', first_line.strip(" "))
    delimiter = said[1] if said else max(",;\t", key=first_line.count)
    # Not strict, one stray quote swallows all lines up to the next one, or to the end, without a word.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows = []
    try:
        for row in reader:
            cells = [unquoted(cell.strip()) for cell in row]
            if any(cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        what = f"cannot be read as CSV: {error}, in what ends on line {reader.line_num}"
        raise InputError(what, path, "is a quote missing or too many?") from error
    # Excel's own first line, which says the delimiter.
    return rows[1:] if said else rows


def read_table(path: Path | str, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows below a header.

    Args:
        path: of the file.
        columns: that are wanted; letter case and blanks in the header do not count.

    Returns:
        For each row the line that it ends on, and its cells by column.

    Raises:
        InputError: that names the columns that are missing and those that are there, or the line that is too short.
    """
    rows = read_cells(path)
    header: list[str] = []
    if rows:
        _, header = rows[0]
    # Of two columns of one name the first counts.
    index_of: dict[str, int] = {}
    for index, title in enumerate(header):
        index_of.setdefault(plain(title), index)
    missing = [name for name in columns if plain(name) not in index_of]
    if missing:
        titles = ", ".join(filter(None, header)) or "none"
        what = f"has no column {', '.join(missing)}; its columns are: {titles}"
        raise InputError(what, path, f"wanted: {', '.join(columns)}")
    indices = {name: index_of[plain(name)] for name in columns}
    table = []
    for line, row in rows[1:]:
        if len(row) <= max(indices.values()):
            raise InputError(f"line {line} has {len(row)} cells, fewer than its header's {len(header)}", path)
        table.append((line, {name: row[index] for name, index in indices.items()}))
    return table


def whole(cell: str, column: str, line: int, path: Path | str, allowed: range | None = None) -> int:
    """A cell's whole number ("1" or "1.0"). Raises InputError naming file, line and column."""
    with suppress(ValueError, OverflowError):
        number = float(cell)
        is_allowed = allowed is None or int(number) in allowed
        if number == int(number) and is_allowed:
            return int(number)
    expected = "a whole number"
    if allowed is not None:
        expected = f"{allowed[0]} to {allowed[-1]}"
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
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([quoted(cell) for cell in row])
    write_text(path, text.getvalue())


def _text(path: Path | str) -> str:
    """The text of a file as hospitals' programs encode it: UTF-8, UTF-16 with a mark, or Windows' Western European."""
    try:
        raw = text_file(path, "table").read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path) from error
    encodings = ["utf-8-sig", "cp1252"]
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    for encoding in encodings:
        with suppress(UnicodeError):
            text = raw.decode(encoding)
            if "\0" not in text:
                return text
    raise InputError("is not a text file", path)
