"""The recipe that a network is taught with: its own grid and options, a low learning rate, few epochs."""

from __future__ import annotations

from hemotorch.inference.deployment import Deployment
from hemotorch.recipe import Augment, Data, NetSection, Optimizer, Recipe, Train
from hemotorch.training.base_weights import BaseNetwork

SPLIT = "teach"  #: name of the split in splits.json
CROP_PX = 128


def teach_recipe(name: str, base: BaseNetwork, title: str, epochs: int, steps: int, batch: int, held: bool) -> Recipe:
    """The recipe.

    Args:
        name: of the training.
        base: the network that is taught.
        title: of its model, for people.
        epochs, steps, batch: epochs, steps of each, and slices of a step.
        held: whether patients are held out, who are then looked at after each epoch; nothing is chosen by them.
    """
    deployment = base.deployment
    return Recipe(
        name=name,
        description=f"taught from {title}",
        data=Data(split=SPLIT, task=deployment.task_name, validation=held, positive_share=0.5),
        grid=deployment.grid,
        tiles=deployment.tiles,
        net=NetSection(base.name, dict(base.options)),
        augment=Augment(
            flip=True,
            rotate_deg=10.0,
            shift=0.05,
            zoom=0.1,
            offset_hu=5.0,
            gain=0.05,
            noise_hu=5.0,
            crop_px=0 if deployment.tiles.size_px else crop_px(deployment),
        ),
        # A tenth of what the network was trained with: it is to change a little, not to begin anew.
        optimizer=Optimizer(name="adamw", lr=5e-4, weight_decay=1e-2, schedule="one-cycle", warmup=0.1, clip_norm=1.0),
        # An average over about ten steps; the recipe's usual hundred are longer than teaching may take.
        train=Train(epochs=epochs, steps_per_epoch=steps, batch=batch, ema=0.9, best_by="last"),
        predict=deployment.predict,
    )


def crop_px(deployment: Deployment, multiple: int = 32) -> int:
    """The side of the square that is cut out of a slice in training; 0 for whole slices."""
    size = deployment.grid.size_px
    return CROP_PX if size > CROP_PX and CROP_PX % multiple == 0 else 0
