"""Deployment: what predicting with a network needs besides its weights. It travels with every model file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pydantic import Field

from hemotorch.errors import InputError, OptionError
from hemotorch.grid import Grid, SliceSpacing
from hemotorch.inference.seen import Seen
from hemotorch.recipe import GridSection, Predict, Recipe, Tiles
from hemotorch.system.engine import WantedPrecision
from hemotorch.system.records import build, record
from hemotorch.task import Task, TaskName, task_named

DAMAGED_ADVICE = "use another checkpoint or train again"


@record
class Deployment:
    """How a network is used. Checkpoints hold it as the tables and values of `dataclasses.asdict`."""

    task_name: TaskName = Field(description="what the network answers")
    grid: GridSection = Field(description="its pixels")
    tiles: Tiles = Field(description="the blocks that it looks at")
    predict: Predict = Field(description="from probabilities to the mask")
    precision: WantedPrecision = Field(description="of the arithmetic with which the training was validated")
    slice_spacing: SliceSpacing | None = Field(
        description="distances of the slices it was trained on; none if they are unknown: then the neighbours of a "
        "slice are taken by index",
    )
    model: str = Field(description="what it is, in words, for the records")
    card: str = Field(default="", description="what its makers say about it")
    seen: Seen = Field(default=Seen(), description="level, noise, shading and contrast that it was trained on")

    @staticmethod
    def of(
        recipe: Recipe, task: Task, slice_spacing: SliceSpacing | None, epoch: int, seen: Seen | None = None
    ) -> Deployment:
        """How the network of a recipe is used as it is after that epoch of its training.

        Args:
            seen: what it was trained on; None if that was not measured.
        """
        return Deployment(
            task_name=task.name,
            grid=recipe.grid,
            tiles=recipe.tiles,
            predict=recipe.predict,
            precision=recipe.engine.precision,
            slice_spacing=slice_spacing,
            model=f"{recipe.name} ({recipe.net.name}), epoch {epoch} of {recipe.train.epochs}",
            card=recipe.description,
            seen=seen or Seen(),
        )

    @staticmethod
    def from_values(values: dict[str, Any], where: Path) -> Deployment:
        """A deployment from what a file holds. Raises InputError that names the file for anything else."""
        try:
            return build(Deployment, values, where, DAMAGED_ADVICE)
        except OptionError as error:  # values that do not go together, such as a stride longer than its blocks
            raise InputError(f"is damaged ({error})", where, DAMAGED_ADVICE) from error

    @property
    def task(self) -> Task:
        """What the network answers."""
        return task_named(self.task_name)

    def grid_for(self, multiple: int) -> Grid:
        """The pixels that a network works on whose rows and columns are multiples of `multiple`."""
        # Blocks need no padding: they are cut to size.
        return Grid(self.grid.pixel_mm, self.grid.size_px, 1 if self.tiles.size_px else multiple)

    def to_values(self) -> dict[str, Any]:
        """As a model file holds it: tables, text and numbers."""
        return dataclasses.asdict(self)
