"""What a bench trains on: a prepared dataset or a phantom, checked before anything is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hemotorch import nets
from hemotorch.data.dataset import Dataset
from hemotorch.data.phantom_folders import write_phantom
from hemotorch.data.png_folders import IMAGE, LABEL, PngFolders
from hemotorch.data.prepare import prepare
from hemotorch.data.splits import Part
from hemotorch.errors import InputError
from hemotorch.hu import window
from hemotorch.recipe import Recipe
from hemotorch.training.job import training_parts
from hemotorch.training.slices import must_be_labelled

#: Rows and columns of a quick bench, and their size: the whole head.
QUICK_PX, QUICK_MM = 192, 1.2
WHOLE_PX = 512  #: rows and columns of most CTs
PHANTOM, QUICK_PHANTOM = ("ct-ich", 8), ("small", 10)  #: preset and patients
WINDOW = "brain"  #: of the paper's PNGs


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
    training = training_part(dataset, recipe)
    if not any(training.values()):
        raise InputError("the training part of this split is empty", dataset.root, "prepare more scans")
    must_be_labelled(dataset, training, "training")
    if recipe.data.slices == "positive" and not _bleeds(dataset, training):
        todo = "check the masks, or train on all slices with --set data.slices=all"
        raise InputError("no slice with bleeding to train on", dataset.root, todo)
    return dataset


def training_part(dataset: Dataset, recipe: Recipe) -> Part:
    """The slices that the recipe trains on."""
    training, _ = training_parts(dataset.split(recipe.data.split), recipe)
    return training


def held_out(dataset: Dataset, recipe: Recipe) -> Part:
    """The slices of the scans that are not trained on, test patients among them. Raises InputError without bleeding."""
    split, training = dataset.split(recipe.data.split), training_part(dataset, recipe)
    others = {case: indices for case, indices in {**split.val, **split.test}.items() if case not in training}
    must_be_labelled(dataset, others, "held-out")
    if not _bleeds(dataset, others):
        what = "no scan that is not trained on has bleeding, so that there is no Dice"
        raise InputError(what, dataset.root, "prepare more scans with bleeding")
    return others


def _bleeds(dataset: Dataset, part: Part) -> bool:
    return any(dataset.rows[case][index].positive_pixels > 0 for case, indices in part.items() for index in indices)


def why_no_reference(recipe: Recipe) -> str:
    """Why the reference loop cannot train a recipe, "" if it can: it reads 8-bit slices, one at a time."""
    options = nets.options_of(recipe.net.name) | recipe.net.options
    if options["slices"] != 1 or len(options["windows"]) != 1:
        seen = f"{options['slices']} slices in {len(options['windows'])} windows"
        return f"the reference loop reads one slice in one window, recipe '{recipe.name}' {seen}"
    if recipe.tiles.size_px or recipe.augment.crop_px:
        return f"the reference loop reads whole slices, recipe '{recipe.name}' blocks of them"
    return ""


def write_reference_pngs(dataset: Dataset, recipe: Recipe, root: Path) -> Path:
    """Writes the recipe's training slices as the paper's PNG folders, with bleeding only if the recipe wants that."""
    brain = window(WINDOW)
    folders = PngFolders(root, brain.level, brain.width, recipe.data.slices == "positive")
    for name in (IMAGE, LABEL):
        (root / name).mkdir(parents=True, exist_ok=True)
    for case, indices in training_part(dataset, recipe).items():
        if indices:
            scan, mask = dataset.scan(case), dataset.mask(case)
            drawn = np.zeros(scan.shape, np.uint8) if mask is None else mask
            folders.write(case, indices, scan.hu[list(indices)], drawn[list(indices)])
    return root
