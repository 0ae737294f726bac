"""What a bench trains on: a prepared dataset or a phantom, checked before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hemotorch.bench.reference import write_pngs
from hemotorch.data.dataset import Dataset
from hemotorch.data.phantom_folders import write_phantom
from hemotorch.data.prepare import prepare
from hemotorch.data.splits import Part
from hemotorch.errors import InputError
from hemotorch.recipe import Recipe
from hemotorch.training.learner import training_parts
from hemotorch.training.slices import must_be_labelled

QUICK_PX, QUICK_MM = 192, 1.2  #: rows and columns of a quick bench, and their size: the whole head
WHOLE_PX = 512  #: rows and columns of most CTs
PHANTOM, QUICK_PHANTOM = ("ct-ich", 8), ("small", 10)  #: preset and patients


def make_phantom(folder: Path, quick: bool, patients: int = 0) -> Path:
    """A small prepared phantom, the same each time; slices of 512 x 512, or 192 x 192 for a quick bench."""
    name, usual = QUICK_PHANTOM if quick else PHANTOM
    write_phantom(folder / "phantom", name, patients=patients or usual)
    prepare(folder / "phantom", folder / "prepared")
    return folder / "prepared"


def quick_recipe(recipe: Recipe) -> Recipe:
    """The recipe on slices of 192 x 192; one that trains on blocks or on no larger slices stays as it is."""
    if recipe.tiles.size_px or 0 < recipe.grid.size_px <= QUICK_PX:
        return recipe
    return recipe.changed([f"grid.size_px={QUICK_PX}", f"grid.pixel_mm={QUICK_MM}"])


def checked(data: Path | str, recipe: Recipe) -> Dataset:
    """The dataset, if the recipe finds something to train on in it. Raises InputError, OptionError."""
    dataset = Dataset(data)
    training, _ = training_parts(dataset.split(recipe.data.split), recipe)
    if not any(training.values()):
        raise InputError("the training part of this split is empty", dataset.root, "prepare more scans")
    must_be_labelled(dataset, training, "training")
    if recipe.data.slices == "positive" and not _bleeds(dataset, training):
        todo = "check the masks, or train on all slices with --set data.slices=all"
        raise InputError("no slice with bleeding to train on", dataset.root, todo)
    return dataset


def held_out(dataset: Dataset, recipe: Recipe) -> Part:
    """The slices of the scans that are not trained on, test patients among them. Raises InputError without bleeding."""
    split = dataset.split(recipe.data.split)
    training, _ = training_parts(split, recipe)
    others = {case: indices for case, indices in {**split.val, **split.test}.items() if case not in training}
    must_be_labelled(dataset, others, "held-out")
    if not _bleeds(dataset, others):
        what = "no scan that is not trained on has bleeding, so that there is no Dice"
        raise InputError(what, dataset.root, "prepare more scans with bleeding")
    return others


def _bleeds(dataset: Dataset, part: Part) -> bool:
    return any(dataset.rows[case][index].positive_pixels > 0 for case, indices in part.items() for index in indices)


def reference_pngs(dataset: Dataset, recipe: Recipe, root: Path) -> Path:
    """The training slices of the recipe as the paper's PNG folders."""
    training, _ = training_parts(dataset.split(recipe.data.split), recipe)
    write_pngs(dataset, training, recipe, root)
    return root


def described(dataset: Dataset) -> dict[str, Any]:
    """The dataset for records: layout, scans, slices."""
    return {"layout": dataset.layout, "scans": len(dataset.cases), "slices": len(dataset.slices)}
