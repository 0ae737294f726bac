"""Typed records, and the one way in which they are read from files and written to them.

A record is a frozen pydantic dataclass. Bounds, unit and help stand at its fields, where the command line, an
application's form and the docs read them. What a file lacks or has wrong becomes one line that names the key, says
what may stand there, and names the nearest key that exists.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

import tomli_w
from pydantic import ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic.config import JsonDict
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema

from hemotorch.errors import InputError, OptionError, nearest
from hemotorch.system.files import jsonable, read_json, regular_file, write_json, write_text

T = TypeVar("T")
Values = dict[str, Any]  #: of a record, as dictionaries and lists

SHOWN = 60  #: characters of a value in an error
MOST_TOML = 100_000  #: characters of a TOML file; recipes that come with hemotorch have about 1,000
#: Dots of a line. A key of 100,000 parts (a.a.a...) takes Python's TOML reader tens of GB.
MOST_DOTS = 200

#: Units of fields, for `json_schema_extra`.
MM: JsonDict = {"unit": "mm"}
ML: JsonDict = {"unit": "mL"}
HU: JsonDict = {"unit": "HU"}
PIXELS: JsonDict = {"unit": "px"}
DEGREES: JsonDict = {"unit": "°"}
SECONDS: JsonDict = {"unit": "s"}

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
#: What pydantic's errors of type mean, in words.
_TYPES = {
    "bool_type": "true or false (bool)",
    "int_type": "a whole number (int)",
    "float_type": "a number (float)",
    "finite_number": "a finite number",
    "string_type": "text (str)",
    "dict_type": "a table",
    "dataclass_type": "a table",
    "tuple_type": "a list",
}
_BOUNDS = {
    "greater_than": "above",
    "greater_than_equal": "at least",
    "less_than": "below",
    "less_than_equal": "at most",
}
#: Types of fields, as the docs call them.
_PLAIN = {bool: "true, false", int: "whole number", float: "number", str: "text", dict: "table", tuple: "list"}


class TooLarge(InputError):
    """TOML that is longer, or nested more deeply, than anybody writes."""


@dataclass_transform(field_specifiers=(Field,), frozen_default=True)
def record(kind: type[T]) -> type[T]:
    """Makes a class a record: a frozen pydantic dataclass.

    Types are strict: no text for a number, no 1 for true, no infinity or NaN. Keys that it does not have are errors.
    """

    def schema(cls: type[T], source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        made = handler(source)
        _accept_values_of_files(made)
        return made

    kind.__get_pydantic_core_schema__ = classmethod(schema)  # type: ignore[attr-defined]
    made: Any = pydantic_dataclass(frozen=True, config=_STRICT)(kind)
    return made


def build(kind: type[T], values: Any, where: str | Path, todo: str | None = None, by_hand: bool = False) -> T:
    """A record from dictionaries and lists, as JSON and TOML have them.

    Args:
        kind: the record's class.
        values: a dictionary of its fields; other records in it are dictionaries too.
        where: what the values come from, for the error.
        todo: what the user can do about a damaged file.
        by_hand: people write such values, as in a recipe, rather than hemotorch.

    Raises:
        OptionError: for values written by hand, if a field is missing, unknown, of another type or out of bounds.
        InputError: for other values, which were damaged.
    """
    try:
        result: T = kind.__pydantic_validator__.validate_python(values)  # type: ignore[attr-defined]
    except ValidationError as failure:
        what, advice = _explain(failure, kind)
        if by_hand:
            raise OptionError(what, where, advice) from failure
        what = f"{what}: {advice}" if advice else what
        raise InputError(f"is damaged ({what})", where, todo) from failure
    return result


def read(path: Path | str, kind: type[T], todo: str | None = None, by_hand: bool = False) -> T:
    """A record from a JSON or TOML file; see `build`. Raises InputError too if the file is missing or neither."""
    values = read_toml(path) if Path(path).suffix == ".toml" else read_json(path)
    return build(kind, values, path, todo, by_hand)


def write(path: Path | str, value: Any) -> None:
    """Writes a record as JSON or TOML, by the file's name, whole or not at all. Raises RunError if the disk is full."""
    if Path(path).suffix == ".toml":
        write_text(path, to_toml(value))
    else:
        write_json(path, to_values(value))


def to_values(value: Any) -> Values:
    """A record as dictionaries and lists, in JSON's own types."""
    return dict(jsonable(dataclasses.asdict(value)))


def to_toml(value: Any) -> str:
    """A record as TOML text."""
    return tomli_w.dumps(dataclasses.asdict(value))


def read_toml(path: Path | str) -> Values:
    """The tables of a TOML file. Raises InputError if it is missing, no text, or no TOML."""
    regular_file(path, "TOML file")
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(MOST_TOML + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot be read as UTF-8 text", path) from error
    return toml_values(text, path)


def toml_values(text: str, where: str | Path) -> Values:
    """The tables of TOML text; `where` names it in errors. Raises InputError."""
    too_large = "is too long, or its tables are too deep in each other"
    if len(text) > MOST_TOML or any(line.count(".") > MOST_DOTS for line in text.splitlines()):
        raise TooLarge(too_large, where)
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise TooLarge(too_large, where) from error
    except ValueError as error:  # TOMLDecodeError, or a number of more than 4,300 digits
        raise InputError(f"is not valid TOML ({error})", where) from error


@dataclasses.dataclass(frozen=True)
class FieldNote:
    """All that is known of a field: what a command line, a form or a table of the docs shows.

    values: the choices, or the type in words with its bounds; unit: "" for none; default: None if there is none.
    choices: none if it is not one of a few. minimum, maximum: of a number, None without one; `values` says whether the
    bound itself may stand there.
    """

    key: str
    values: str
    unit: str
    default: Any
    help: str
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


def field_notes(kind: Any, prefix: str = "") -> Iterator[FieldNote]:
    """Notes on all fields of a record, those of records in it by keys with dots, in the order of the class."""
    hints: dict[str, Any] = get_type_hints(kind)
    for name, info in _fields(kind).items():
        hint, key = hints[name], f"{prefix}{name}"
        if dataclasses.is_dataclass(hint):
            yield from field_notes(hint, f"{key}.")
            continue
        extra = info.json_schema_extra
        unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
        default = None if info.is_required() else info.get_default(call_default_factory=True)
        plain, bounds = _without_none(hint), _bounds(info)
        choices = get_args(plain) if get_origin(plain) is Literal else ()
        minimum, maximum = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
        words = _values_in_words(hint, info)
        yield FieldNote(key, words, unit, default, info.description or "", choices, minimum, maximum)


def shown(value: Any) -> str:
    """A value for an error's one line, however long it is."""
    if isinstance(value, int) and abs(value) > 10**SHOWN:
        return f"a number of {value.bit_length()} bits"
    try:
        text = " ".join(repr(value).split())
    except RecursionError:
        return "a value that is nested too deeply"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _accept_values_of_files(schema: Any) -> None:
    """Lets dictionaries stand for records and lists for tuples, which pydantic refuses if it is strict."""
    if isinstance(schema, dict):
        if schema.get("type") in ("dataclass", "tuple"):
            schema["strict"] = False
        for part in schema.values():
            _accept_values_of_files(part)
    elif isinstance(schema, list):
        for part in schema:
            _accept_values_of_files(part)


def _fields(kind: Any) -> dict[str, FieldInfo]:
    fields: dict[str, FieldInfo] = kind.__pydantic_fields__
    return fields


def _explain(failure: ValidationError, kind: type) -> tuple[str, str | None]:
    """The first of pydantic's errors in our words, and what can be done about it."""
    first = failure.errors(include_url=False)[0]
    path, sort = [str(part) for part in first["loc"]], first["type"]
    key, value = _quoted(path), shown(first["input"])
    if sort in ("unexpected_keyword_argument", "invalid_key", "string_unicode"):
        parent = _hint(kind, path[:-1])
        if not path or not dataclasses.is_dataclass(parent):
            return f"has a key that cannot be: {value}", None
        return f"unknown key {key}", nearest(path[-1][:SHOWN], _fields(parent))
    if sort == "missing":
        return f"lacks {key}", None
    if sort == "literal_error":
        choices = ", ".join(map(str, get_args(_hint(kind, path))))
        return f"{key} is one of {choices}, not {value}", None
    if sort in _TYPES:
        return f"{key} is {_TYPES[sort]}, not {value}", None
    if sort in _BOUNDS:
        parent = _hint(kind, path[:-1])
        if dataclasses.is_dataclass(parent):
            allowed = _range(_fields(parent)[path[-1]])
        else:  # an entry of a list
            (bound,) = first["ctx"].values()
            allowed = f"{_BOUNDS[sort]} {bound}"
        return f"{key} must be {allowed}, not {value}", None
    return f"{key}: {first['msg']}, not {value}", None


def _quoted(path: list[str]) -> str:
    key = ".".join(path)
    return shown(key) if key else "all of it"


def _hint(kind: Any, path: list[str]) -> Any:
    """The type of the field at a path of keys; Any if there is none."""
    hint = kind
    for part in path:
        hint = _without_none(hint)
        if dataclasses.is_dataclass(hint):
            hint = get_type_hints(hint).get(part, Any)
        else:  # a tuple's or dictionary's values
            hint = next((entry for entry in reversed(get_args(hint)) if entry is not Ellipsis), Any)
    return _without_none(hint)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in (Union, UnionType):
        return hint
    return next(entry for entry in get_args(hint) if entry is not type(None))


def _values_in_words(hint: Any, info: FieldInfo) -> str:
    """What may stand in a field: its choices, or its type and range."""
    hint = _without_none(hint)
    if get_origin(hint) is Literal:
        return ", ".join(map(str, get_args(hint)))
    words = _PLAIN.get(get_origin(hint) or hint, "table")
    return f"{words} {_range(info)}".rstrip()


def _range(info: FieldInfo) -> str:
    """The bounds of a field in words: "from 0 to 1", "above 0 and up to 1"; "" if there are none."""
    bounds = _bounds(info)
    words = []
    if "ge" in bounds:
        words.append(f"from {bounds['ge']}")
    if "gt" in bounds:
        words.append(f"above {bounds['gt']} and up")
    if "le" in bounds:
        words.append(f"to {bounds['le']}")
    if "lt" in bounds:
        words.append(f"to below {bounds['lt']}")
    return " ".join(words)


def _bounds(info: FieldInfo) -> dict[str, Any]:
    """The bounds of a field, by pydantic's names: ge, gt, le, lt."""
    bounds: dict[str, Any] = {}
    for entry in info.metadata:
        for name in ("ge", "gt", "le", "lt"):
            if hasattr(entry, name):
                bounds[name] = getattr(entry, name)
    return bounds
