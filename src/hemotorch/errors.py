"""One small family of errors. Each says what is wrong, where, and what to do about it, in one line."""

from __future__ import annotations

import difflib
import os
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path


class HemotorchError(Exception):
    """Anything hemotorch can explain; the command line prints it in one line and exits with status 1."""

    def __init__(self, what: str, where: str | Path | None = None, todo: str | None = None):
        """An error of three parts.

        Args:
            what: what is wrong.
            where: the file, scan, key or option it is about.
            todo: what the user can do.
        """
        self.what = what
        self.where = None if where is None else str(where)
        self.todo = todo
        # All three, so that it can be pickled on its way from another process.
        super().__init__(what, where, todo)

    def __str__(self) -> str:
        text = self.what
        if self.where:
            text = f"{self.where}: {text}"
        if self.todo:
            text = f"{text}; {self.todo}"
        return one_line(text)


class InputError(HemotorchError):
    """A file or dataset that cannot be used as it is."""


class OptionError(HemotorchError):
    """A recipe key, a network option or a command-line option that does not exist or does not fit."""


class RunError(HemotorchError):
    """A training, a checkpoint or a disk that failed while working."""


class RankLost(RunError):
    """Of several ranks one is gone without an error of its own, or does not answer: starting again may help."""


def to_dict(error: HemotorchError) -> dict[str, str | None]:
    """The error as a dictionary of JSON, which carries it to another process; `from_dict` makes it again."""
    return {"kind": type(error).__name__, "what": error.what, "where": error.where, "todo": error.todo}


def from_dict(values: Mapping[str, str | None]) -> HemotorchError:
    """The error that `to_dict` wrote. An unknown kind, as of another version, is a plain HemotorchError."""
    kinds = {kind.__name__: kind for kind in (InputError, OptionError, RunError, RankLost)}
    kind = kinds.get(values["kind"] or "", HemotorchError)
    return kind(values["what"] or "", values["where"], values["todo"])


def explain(error: Exception, where: str | Path) -> HemotorchError:
    """Any error of one scan as one that can be told in a line, so that the scans after it are done.

    With HEMOTORCH_DEBUG=1 in the environment the traceback of one that nobody expected is printed too.
    """
    if isinstance(error, HemotorchError):
        return error
    if os.environ.get("HEMOTORCH_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.strerror:
        return RunError(f"cannot be read or written ({error.strerror})", where)
    return RunError(f"unexpected {type(error).__name__}: {error}", where, "please report it")


def one_line(text: str) -> str:
    """The text on one line and safe for a terminal.

    File names may hold line breaks, escape sequences, marks that turn the direction of writing, and bytes that are no
    text at all. Whatever does not print becomes \\n, \\x1b, \\u202e or, for such a byte, \\xe4.
    """
    if text.isprintable():
        return text
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def nearest(word: str, known: Iterable[str]) -> str:
    """The advice for a misspelt name: the nearest known one, or the list of all."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known are: {', '.join(known)}"


def some_of(names: Iterable[object], most: int = 10) -> str:
    """The first few of many names, and how many more there are: "049, 050 and 7 more"."""
    words = [one_line(str(name)) for name in names]
    text = ", ".join(words[:most])
    if len(words) > most:
        text += f" and {len(words) - most} more"
    return text
