"""Deployment: what predicting with a network needs besides its weights. It travels with every model file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hemotorch.errors import HemotorchError, InputError
from hemotorch.grid import Grid, SliceSpacing
from hemotorch.recipe import GridSection, Predict, Recipe, Tiles, recipe_from_dict
from hemotorch.task import Task, task_named


@dataclass(frozen=True)
class Deployment:
    """How a network is used.

    task: what it answers.
    grid, tiles, predict: the recipe's sections: its pixels, its blocks, and from probabilities to the mask.
    precision: `engine.precision` of the recipe, in which the training was validated.
    slice_spacing: the slice distances it was trained on; None if unknown: neighbouring slices are then taken by index.
    model: what it is, in words, for the records.
    card: what its makers say about it.
    """

    task: Task
    grid: GridSection
    tiles: Tiles
    predict: Predict
    precision: str
    slice_spacing: SliceSpacing | None
    model: str
    card: str = ""

    @staticmethod
    def of(recipe: Recipe, task: Task, slice_spacing: SliceSpacing | None, epoch: int) -> Deployment:
        """How the network of that recipe is used after that epoch of its training."""
        model = f"{recipe.name} ({recipe.net.name}), epoch {epoch} of {recipe.train.epochs}"
        return Deployment(
            task,
            recipe.grid,
            recipe.tiles,
            recipe.predict,
            recipe.engine.precision,
            slice_spacing,
            model,
            recipe.description,
        )

    def grid_for(self, multiple: int) -> Grid:
        """The pixels that a network works on whose rows and columns are multiples of `multiple`."""
        # Blocks need no padding: they are cut to size.
        return Grid(self.grid.pixel_mm, self.grid.size_px, 1 if self.tiles.size_px else multiple)

    def to_dict(self) -> dict[str, Any]:
        """As a model file keeps it: dictionaries, text and numbers."""
        return {**asdict(self), "task": self.task.name}

    @staticmethod
    def from_dict(stored: dict[str, Any], where: str) -> Deployment:
        """What `to_dict` gave. Raises InputError that names `where` for anything else."""
        todo = "use another checkpoint or train again"
        try:
            sections = {name: stored[name] for name in ("grid", "tiles", "predict")}
            recipe = recipe_from_dict({**sections, "engine": {"precision": stored["precision"]}}, where)
            spacing = stored["slice_spacing"]
            words = stored["model"], stored["card"]
            if not all(isinstance(text, str) for text in words):
                raise ValueError("its name is not text")
            return Deployment(
                task_named(stored["task"]),
                recipe.grid,
                recipe.tiles,
                recipe.predict,
                recipe.engine.precision,
                None if spacing is None else SliceSpacing.from_dict(spacing),
                *words,
            )
        except (KeyError, TypeError, ValueError, HemotorchError) as error:
            raise InputError(f"is damaged ({error})", where, todo) from error
