"""The recipes that come with hemotorch, and what one may hold."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache

from fastapi import APIRouter

from hemotorch.app.schemas import RecipeKey
from hemotorch.recipe import Recipe, known_recipes, load_recipe
from hemotorch.recipe.show import commented_toml
from hemotorch.system.files import jsonable
from hemotorch.system.records import field_notes

router = APIRouter(tags=["recipes"])


@router.get("/recipes")
@cache
def recipes() -> dict[str, str]:
    """Commented TOML of each recipe that comes with hemotorch, by its name."""
    return {name: commented_toml(load_recipe(name)) for name in known_recipes()}


@router.get("/recipes/keys")
@cache
def keys() -> list[RecipeKey]:
    """All that a recipe may hold, with type, unit, bounds, default and help."""
    return [RecipeKey(**jsonable(asdict(note))) for note in field_notes(Recipe)]
