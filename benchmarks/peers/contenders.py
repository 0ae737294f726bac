"""Who takes part, whose documentation each follows, and every way in which it is run otherwise than by its defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hemotorch.recipe import load_recipe

OURS = "hemotorch"  #: the environment that this runs in
FAST_EPOCHS = load_recipe("fast").train.epochs


@dataclass(frozen=True)
class Contender:
    """One way to train.

    environment: OURS, or a folder of `setup`; module: what runs in it; whole: ends by itself, not by the clock.
    """

    name: str
    title: str
    environment: str
    module: str
    source: str
    options: dict[str, Any] = field(default_factory=dict)
    deviations: tuple[str, ...] = ()
    whole: bool = False

    @property
    def ours(self) -> bool:
        return self.environment == OURS


#: True of all alike, so that it is no one's deviation.
ALIKE = (
    "The split by patient of the prepared dataset; the held-out scans are its test part, in their own pixels.",
    "The clock starts with the process (imports, loading and caching count) and stands still while held-out scans are "
    "outlined. `hemotorch prepare`, and nnU-Net's planning and preprocessing, are not counted.",
    "fp32 on the same cores, one contender at a time, one seed. Training scans only, but for `paper`.",
    "OMP_WAIT_POLICY=PASSIVE, so that threads that wait leave the cores to loading processes.",
    "Memory is that of all of a contender's processes together, outlining included, and nnU-Net's planning and "
    "preprocessing.",
)

_BY_CLOCK = "the learning rate falls by the clock, so that its schedule ends with the time given"
_NO_VALIDATION = "no validation while it trains, which would take its time; the current network is deployed"
_MONAI = (
    "slices instead of volumes: two spatial dimensions, crops of 96x96x1 instead of 96x96x96, SliceInferer with "
    "windows of 160x160 (modules/2d_slices_from_3d_sampling); scans here have slices 5 mm and more apart",
    "intensities from -20 to 100 HU, and the training scans' median pixel, where the tutorial has its own data's",
    "as many loader processes as cores instead of 4, and kept from epoch to epoch",
    _NO_VALIDATION,
)
_MONAI_SOURCE = "Project-MONAI/tutorials, 3d_segmentation/spleen_segmentation_3d.ipynb"


def _fast(name: str, epochs: int) -> Contender:
    settings = [] if epochs == FAST_EPOCHS else [f"train.epochs={epochs}"]
    deviations = tuple(f"--set {setting}" for setting in settings)
    title = f"hemotorch fast, {epochs} epochs"
    options = {"recipe": "fast", "set": settings, "curve": False}
    return Contender(name, title, OURS, "work_hemotorch", "docs/recipes.md", options, deviations, whole=True)


def paper(epochs: int = 30) -> Contender:
    """The 2021 paper's recipe for so many of its 150 epochs."""
    settings = ["data.split=patient", f"train.epochs={epochs}"]
    options = {"recipe": "paper", "set": settings, "curve": True}
    deviations = (
        *(f"--set {setting}" for setting in settings),
        "trains on the validation patients too, as it always does",
    )
    title = f"hemotorch paper, {epochs} epochs"
    return Contender("paper", title, OURS, "work_hemotorch", "docs/recipes.md", options, deviations, whole=True)


def _monai(name: str, loss: str, rate: float, *more: str) -> Contender:
    title = f"MONAI U-Net, {loss}" + (f", rate {rate:.0e}".replace("e-0", "e-") if more else "")
    options = {"loss": loss, "rate": rate}
    return Contender(name, title, "monai", "work_monai", _MONAI_SOURCE, options, (*more, *_MONAI))


CONTENDERS: tuple[Contender, ...] = (
    _fast("fast", FAST_EPOCHS),
    _fast("fast-3", 3),
    _fast("fast-6", 6),
    _fast("fast-24", 24),
    paper(),
    Contender(
        "medicaltorch",
        "MedicalTorch",
        "medicaltorch",
        "work_medicaltorch",
        "perone/medicaltorch, examples/gmchallenge_unet.py",
        deviations=(
            "installed without torchvision, whose release on PyPI cannot be imported beside PyTorch's CPU build and "
            "no longer has what version 0.2 calls: peers/old_torchvision.py stands in for it, for torch._six and for "
            "collections.Mapping, all gone since 2018",
            "images in the brain window, 0 to 1, before its per-slice normalisation",
            "CenterCrop2D to the whole slice instead of 200x200, so that nothing of the head is cut off",
            "the loader's process starts each epoch with another NumPy seed; else all epochs draw the same changes",
            f"{_BY_CLOCK} (cosine over 200 epochs in the example)",
            "no TensorBoard, and " + _NO_VALIDATION,
        ),
    ),
    _monai("monai", "DiceLoss", 1e-4),
    _monai("monai-dicece", "DiceCELoss", 1e-4, "DiceCELoss instead of DiceLoss"),
    _monai(
        "monai-dicece-1e-3",
        "DiceCELoss",
        1e-3,
        "DiceCELoss instead of DiceLoss",
        "a rate of 1e-3, that of MONAI's 2d_segmentation/torch/unet_training_dict.py",
    ),
    Contender(
        "lightning",
        "Lightning with MONAI U-Net, DiceLoss",
        "lightning",
        "work_lightning",
        "Project-MONAI/tutorials, 3d_segmentation/spleen_segmentation_3d_lightning.ipynb",
        {"loss": "DiceLoss", "rate": 1e-4},
        (*_MONAI, "no progress bar"),
    ),
    Contender(
        "nnunet",
        "nnU-Net v2, 2d",
        "nnunet",
        "work_nnunet",
        "MIC-DKFZ/nnUNet, documentation/how-to/train-models.md",
        deviations=(
            "batches of at most 12, its planner's reference size, instead of what it plans for a GPU of 8 GB",
            "epochs of 25 iterations and 1 of validation instead of 250 and 50: a CPU would not finish one",
            f"{_BY_CLOCK} (poly over 1000 epochs by default)",
            "fold 0 is the split by patient instead of the first of five",
            "no final validation with the last weights",
        ),
    ),
)
