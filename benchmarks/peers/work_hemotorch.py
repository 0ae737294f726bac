"""hemotorch: `hemotorch train`, called as the command line calls it, and its deployed network."""

from __future__ import annotations

from typing import Any

from hemotorch import nets
from hemotorch.data.dataset import Dataset
from hemotorch.inference.load import load_model
from hemotorch.recipe import Recipe, load_recipe
from hemotorch.system.events import EpochEnd, Event, listening
from hemotorch.training.loop import train
from peers.child import Job, begin


def main() -> None:
    """Options: data (prepared dataset), recipe, set (as of --set), curve (points before the end too)."""
    job, recorder = begin()
    recipe = load_recipe(job.options["recipe"]).changed(job.options["set"])
    dataset = Dataset(job.options["data"])
    run = job.work / "run"
    shown: dict[str, Any] = {}

    def listen(event: Event) -> None:
        if not isinstance(event, EpochEnd):
            return
        row = event.row
        if not shown:
            recorder.start(earlier_s=row.seconds)
            shown["steps"] = row.step
        per_epoch = images_an_epoch(recipe, shown["steps"], job)
        recorder.step(per_epoch, row.loss)
        if job.options["curve"] and recorder.due and row.epoch < recipe.train.epochs:
            recorder.point(lambda: outlined(run, dataset, job))

    with listening(listen):
        train(dataset.root, run, recipe)
    recorder.point(lambda: outlined(run, dataset, job))
    side = recipe.grid.size_px or job.side_px
    net = nets.build(recipe.net.name, **recipe.net.options)
    recorder.finish(
        ("hemotorch", "torch", "numpy"),
        parameters_m=sum(parameter.numel() for parameter in net.parameters()) / 1e6,
        gflop_slice=nets.flops(net, side),
        image_px=recipe.augment.crop_px or side,
        batch=recipe.train.batch,
    )


def images_an_epoch(recipe: Recipe, steps: int, job: Job) -> int:
    """How many slices an epoch of so many steps shows; where steps are not given, each of the training part once."""
    if recipe.train.steps_per_epoch:
        return steps * recipe.train.batch * recipe.train.accumulate
    dataset = Dataset(job.options["data"])
    split = dataset.split(recipe.data.split)
    trained = dict(split.train) if recipe.data.validation else {**split.train, **split.val}
    slices = [dataset.rows[case][index] for case, indices in trained.items() for index in indices]
    return sum(row.positive_pixels > 0 for row in slices) if recipe.data.slices == "positive" else len(slices)


def outlined(run: Any, dataset: Dataset, job: Job) -> dict[str, Any]:
    """What the run's deployed network outlines now."""
    predictor = load_model(run)
    return {name: predictor.predict(dataset.scan(case)).mask for name, case in job.options["test"].items()}


if __name__ == "__main__":
    main()
