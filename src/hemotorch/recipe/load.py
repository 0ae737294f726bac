"""Recipes by name, from files and from a command's options."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from hemotorch.errors import OptionError, nearest
from hemotorch.recipe.sections import Recipe
from hemotorch.system.records import Values, build, read, toml_values


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe by its name (`fast`) or from a TOML file.

    Raises:
        OptionError: if no recipe has that name, or the file has an unknown key or a value that cannot be.
        InputError: if the file is missing or not TOML.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        return read(path, Recipe, by_hand=True)
    names = known_recipes()
    if str(name_or_path) not in names:
        todo = f"{nearest(str(name_or_path), names)} or a .toml file"
        raise OptionError(f"unknown recipe '{name_or_path}'", todo=todo)
    text = resources.files("hemotorch").joinpath("recipe", f"{name_or_path}.toml").read_text(encoding="utf-8")
    return recipe_from_toml(text, f"recipe {name_or_path}")


def known_recipes() -> list[str]:
    """Names of the recipes that come with hemotorch."""
    folder = resources.files("hemotorch").joinpath("recipe")
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def recipe_from_toml(text: str, where: str) -> Recipe:
    """A recipe from TOML text; `where` names it in errors. Raises InputError, OptionError."""
    return recipe_from_dict(toml_values(text, where), where)


def recipe_from_dict(values: Values, where: str) -> Recipe:
    """A recipe from nested dictionaries. Raises OptionError for unknown keys and values that cannot be."""
    return build(Recipe, values, where, by_hand=True)


def recipe_from_args(name: str | None, settings: Iterable[str], fold: int | None, resume: bool) -> Recipe | None:
    """The recipe that a command's --recipe, --set and --fold ask for; None if a run is to go on with its own."""
    changes = list(settings)
    if fold is not None:
        changes.append(f"data.split='fold-{fold}'")
    if resume and not (name or changes):
        return None
    return load_recipe(name or "fast").changed(changes)
