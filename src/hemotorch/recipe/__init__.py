"""Recipe: everything that a training depends on.

A recipe is named (`fast`, `paper`, ...) or a TOML file. Single values are changed with `--set section.key=value`.
Unknown keys, wrong types and values out of bounds are errors that name the key, what may stand there, and the nearest
key that exists.

load      recipes by name, from files and from a command's options
sections  the sections and their keys, with type, default, bounds, unit and help
show      a recipe as TOML with comments; the table of all keys
*.toml    the recipes that come with hemotorch
"""

from hemotorch.recipe.load import known_recipes, load_recipe, recipe_from_args, recipe_from_dict, recipe_from_toml
from hemotorch.recipe.sections import (
    Augment,
    Data,
    GridSection,
    LossSection,
    NetSection,
    Optimizer,
    Predict,
    Recipe,
    Tiles,
    Train,
)
from hemotorch.system.engine import Engine

__all__ = [
    "Augment",
    "Data",
    "Engine",
    "GridSection",
    "LossSection",
    "NetSection",
    "Optimizer",
    "Predict",
    "Recipe",
    "Tiles",
    "Train",
    "known_recipes",
    "load_recipe",
    "recipe_from_args",
    "recipe_from_dict",
    "recipe_from_toml",
]
