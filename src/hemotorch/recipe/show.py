"""A recipe for people: TOML with units and help as comments, and the table of all keys in the docs."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any, get_type_hints

import tomli_w

from hemotorch.recipe.load import known_recipes, load_recipe
from hemotorch.recipe.sections import Recipe
from hemotorch.system.records import FieldNote, Values, field_notes, to_values

WIDTH = 100  #: of comments


def recipe_list() -> list[dict[str, str]]:
    """Name and description of each recipe that comes with hemotorch."""
    recipes = map(load_recipe, known_recipes())
    return [{"name": recipe.name, "description": recipe.description} for recipe in recipes]


def recipe_keys(recipe: Recipe) -> list[Values]:
    """Each key with its value in a recipe, what may stand there, unit, default and help."""
    values = to_values(recipe)
    return [{**dataclasses.asdict(note), "value": _value(values, note.key)} for note in field_notes(Recipe)]


def commented_toml(recipe: Recipe) -> str:
    """The whole recipe as TOML; above each key a comment says what it is and what may stand there."""
    values = to_values(recipe)
    notes = list(field_notes(Recipe))
    lines = []
    for note in notes:
        if "." not in note.key:
            lines += [*_comment(note), f"{note.key} = {_inline(values[note.key])}"]
    sections = {name: kind for name, kind in get_type_hints(Recipe).items() if dataclasses.is_dataclass(kind)}
    for section, kind in sections.items():
        lines += ["", *textwrap.wrap(f"# {kind.__doc__}", WIDTH, subsequent_indent="# "), f"[{section}]"]
        for note in notes:
            name = note.key.removeprefix(f"{section}.")
            if name != note.key:
                lines += [*_comment(note), f"{name} = {_inline(values[section][name])}"]
    return "\n".join(lines) + "\n"


def markdown_table() -> str:
    """All keys of a recipe as a table of docs/recipes.md."""
    rows = ["| key | values | unit | default | what |", "| --- | --- | --- | --- | --- |"]
    for note in field_notes(Recipe):
        default = _inline(note.default)
        rows.append(f"| `{note.key}` | {note.values} | {note.unit} | `{default}` | {note.help} |")
    return "\n".join(rows) + "\n"


def _value(values: Values, key: str) -> Any:
    value: Any = values
    for part in key.split("."):
        value = value[part]
    return value


def _comment(note: FieldNote) -> list[str]:
    default = _inline(note.default)
    allowed = f"{note.values} {note.unit}".rstrip()
    text = f"# {note.help} ({allowed}; default {default})"
    return textwrap.wrap(text, WIDTH, subsequent_indent="#   ", break_on_hyphens=False)


def _inline(value: Any) -> str:
    """A value as TOML on one line; a table on lines of its own would take in the keys that follow it."""
    if isinstance(value, dict):
        entries = [f"{_inline(key)} = {_inline(entry)}" for key, entry in value.items()]
        return "{" + ", ".join(entries) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")


if __name__ == "__main__":
    print(markdown_table(), end="")
