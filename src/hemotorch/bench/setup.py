"""What a bench of trainings measures on: machine, data, and recipes with the memory layout that suits the processor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hemotorch.bench import data as bench_data
from hemotorch.bench.configs import Scope, devices_of, parse_devices, usual
from hemotorch.bench.processes import chosen_layout, look_at_machine
from hemotorch.bench.records import Config, Spec
from hemotorch.data.dataset import Dataset
from hemotorch.recipe import Recipe
from hemotorch.system.events import Message, emit


@dataclass(frozen=True)
class Setup:
    """recipes: of each device, as it is measured there. recipe: as it was asked for. folder: for what lives as long as
    the bench. notes: what was made up or chosen."""

    scope: Scope
    environment: Mapping[str, Any]
    dataset: Dataset
    recipe: Recipe
    recipes: Mapping[str, Recipe]
    folder: Path
    notes: list[str]

    def spec(self, config: Config, seconds: float, settings: Sequence[str] = (), pngs: str = "") -> Spec:
        """What measures a config; one of another batch than the recipe's does not accumulate."""
        changed = list(settings)
        if not config.reference:
            changed += engine_settings(config)
        # The reference loop has no accumulation, and a sweep of the batch asks for that batch at once.
        if config.reference or config.batch != self.scope.batch:
            changed += [f"train.batch={config.batch}", "train.accumulate=1"]
        recipe = self.recipes[config.device].changed(changed)
        return Spec(config, str(self.dataset.root), recipe.to_toml(), pngs, seconds)


@contextmanager
def set_up(
    data: Path | None,
    recipe: Recipe,
    device: str,
    quick: bool,
    *,
    check: Callable[[Path | str, Recipe], Dataset] = bench_data.checked,
    patients: int = 0,
    trial: Sequence[str] = (),
) -> Iterator[Setup]:
    """Looks at the machine, makes a phantom if there is no data, and tries memory layouts on the processor.

    Args:
        data: a prepared dataset; None makes a phantom.
        recipe: what is trained.
        device: as `--device` names it.
        quick: whether the bench is a quick one.
        check: opens the data, if it will do.
        patients: of a phantom with small slices, quick or not; 0 for the usual phantom.
        trial: settings of the training that tries layouts.

    Raises:
        InputError, OptionError: before anything is measured.
    """
    names = parse_devices(device)
    if data is not None:
        check(data, recipe)
    machine, environment = look_at_machine()
    devices = devices_of(names, machine)
    notes: list[str] = []
    with TemporaryDirectory(prefix="hemotorch-bench-") as name:
        folder = Path(name)
        if data is None:
            small = quick or patients > 0
            side = bench_data.QUICK_PX if small else bench_data.WHOLE_PX
            phantom = f"a phantom with slices of {side} x {side}"
            notes.append(f"Trained on {phantom}, made for this; name your own data with --data.")
            emit(Message(f"no --data: making {phantom} in {folder}"))
            data = bench_data.make_phantom(folder, small, patients)
        dataset = check(data, recipe)
        batch = recipe.train.batch
        reference = not bench_data.why_no_reference(recipe)
        scope = Scope(machine, tuple(devices), batch * recipe.train.accumulate, batch, reference, quick)
        recipes = dict.fromkeys(devices, recipe)
        setup = Setup(scope, environment, dataset, recipe, recipes, folder, notes)
        if "cpu" in devices:
            # Channels-last made `paper` 1.04 times as fast on one processor and 0.61 times on another; measured without
            # trying, hemotorch was slower there than the paper's own loop.
            emit(Message("trying layouts, as a training does before its first step"))
            layout, reason = chosen_layout(setup.spec(usual(scope, "cpu"), 0.0, trial))
            recipes["cpu"] = recipe.changed([layout])
            notes.append(reason)
        yield setup


def engine_settings(config: Config) -> list[str]:
    """The config as a recipe says it."""
    switch = {True: "on", False: "off"}
    return [
        f"engine.precision={config.precision}",
        f"engine.compile={switch[config.compile]}",
        f"engine.graphs={switch[config.graphs]}",
        f"engine.threads={config.threads}",
    ]


def settings_of(setup: Setup, data: Path | None) -> dict[str, Any]:
    """What two benches of trainings must have in common to be compared."""
    dataset = setup.dataset
    return {
        "recipe": setup.recipe.name,
        "recipe_toml": setup.recipe.to_toml(),
        "quick": setup.scope.quick,
        "data": "phantom" if data is None else str(data),
        "layout": dataset.layout,
        "scans": len(dataset.cases),
        "slices": len(dataset.slices),
    }
