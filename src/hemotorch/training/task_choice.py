"""What a training's network answers: bleeding or not, or its types, if the data names them."""

from __future__ import annotations

from hemotorch.data.dataset import Dataset
from hemotorch.data.splits import Part
from hemotorch.errors import OptionError
from hemotorch.task import BLEEDING, TYPED, Task, task_named

LEAST_NAMED = 0.5  #: share of the slices with bleeding whose types are named, from which on types are trained


def choose_task(wanted: str, dataset: Dataset, training: Part) -> tuple[Task, str]:
    """The task that a recipe wants of the slices it is trained on, and why it is that one.

    Args:
        wanted: `data.task` of the recipe: the name of a task; "auto" takes `types` if the masks or the slice labels
            name the types in at least half of the slices with bleeding.
        dataset: The prepared dataset.
        training: The slices that are trained on.

    Raises:
        OptionError: for an unknown task, and for types if no slice that is trained on names one: what such a network
            calls epidural or subdural would be chance.
    """
    bleeding = named = 0
    for case, indices in training.items():
        for index in indices:
            row = dataset.rows[case][index]
            if row.positive_pixels:
                bleeding += 1
                named += row.types is not None and any(row.types)
    if wanted != "auto":
        task = task_named(wanted)
        if task.types and bleeding and not named:
            what = f"none of the {bleeding:,} slices with bleeding that are trained on names its type"
            raise OptionError(what, "data.task", "choose 'auto' or 'bleeding'")
        return task, "as its recipe says"
    reason = f"types are named in {named:,} of {bleeding:,} slices with bleeding"
    if bleeding and named >= LEAST_NAMED * bleeding:
        return TYPED, reason
    return BLEEDING, reason
