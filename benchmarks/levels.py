"""What each level of parallel work gains in a training step on a CPU, one added to the others at a time.

    python benchmarks/levels.py DATA [--only "+ 2 threads"] [--rounds 3] [--json FILE]

DATA is a prepared dataset. `paper`'s network on 192 x 192 and `fast`, measured as `hemotorch bench train` does: in
turns, each in a process of its own, the median over rounds with the slowest and fastest. "gain" is against the line
named; a level that the processor does not have (bf16) is left out. Compiling alone takes `fast` a minute a round.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hemotorch.bench import processes
from hemotorch.bench.data import quick_recipe, write_reference_pngs
from hemotorch.bench.records import Config, Round, Spec
from hemotorch.data.dataset import Dataset
from hemotorch.errors import RunError
from hemotorch.recipe import load_recipe
from hemotorch.system import machine

SECONDS = {"paper": 8.0, "fast": 4.0}  #: of timed steps in a process
LIMIT_S = 600.0


@dataclass(frozen=True)
class Level:
    """settings: of the recipe; over: the level that it is compared with."""

    name: str
    over: str
    threads: int = 1
    ranks: int = 1
    settings: tuple[str, ...] = ()
    reference: bool = False
    only: str = ""  # the recipe that has it


def levels(cores: int) -> list[Level]:
    """All of this machine."""
    flat, last = ("engine.channels_last=off",), ("engine.channels_last=on",)
    steps = [
        Level("plain loop, its own choices", "", cores, reference=True, only="paper"),
        Level("1 thread", "", settings=(*flat, "engine.keep_memory=off")),
        Level("+ memory kept", "1 thread", settings=flat),
        Level("+ channels-last", "+ memory kept", settings=last),
        Level(f"+ {cores} threads", "+ channels-last", cores, settings=last),
        Level("streamed from disk", f"+ {cores} threads", cores, settings=(*last, "data.memory=stream"), only="fast"),
        Level(f"{cores} processes of 1 thread", "+ channels-last", 1, cores, last),
    ]
    if machine.has_compiler():
        compiled = (*last, "engine.compile=on")
        steps.append(Level("+ compiled", f"+ {cores} threads", cores, settings=compiled, only="fast"))
    if machine.has_bf16():
        steps.append(Level("+ bf16", f"+ {cores} threads", cores, settings=(*last, "engine.precision=bf16")))
    return steps


def once(level: Level, name: str, data: Path, pngs: Path) -> Round:
    """One measurement."""
    recipe = quick_recipe(load_recipe(name).changed(["data.split=patient", f"engine.threads={level.threads}"]))
    recipe = recipe if level.reference else recipe.changed(["engine.compile=off", *level.settings])
    config = Config(level.name, threads=level.threads, ranks=level.ranks, batch=recipe.train.batch)
    config = Config(level.name, batch=recipe.train.batch, reference=True) if level.reference else config
    spec = Spec(config, str(data), recipe.to_toml(), str(pngs), SECONDS[name])
    try:
        return processes.once(spec, LIMIT_S)
    except RunError as error:
        sys.exit(f"{name}, {level.name}: {error}")


def main() -> None:
    """Measures in turns and prints a table a recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows named so, as `fast` or `+ 2 threads`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args()
    jobs = []
    for name in SECONDS:
        for level in levels(machine.cores()):
            if level.only in ("", name) and a.only in f"{name}, {level.name}":
                jobs.append((name, level))
    measured: dict[tuple[str, str], list[Round]] = {(name, level.name): [] for name, level in jobs}
    with TemporaryDirectory() as folder:
        recipe = quick_recipe(load_recipe("paper").changed(["data.split=patient"]))
        pngs = write_reference_pngs(Dataset(a.data), recipe, Path(folder) / "png")
        for number in range(a.rounds):
            for name, level in random.Random(number).sample(jobs, len(jobs)):
                result = once(level, name, a.data, pngs)
                measured[name, level.name].append(result)
                print(f"{name}, {level.name}: {result.images_s:.3g}", file=sys.stderr, flush=True)
    for name in dict.fromkeys(name for name, _ in jobs):
        print(f"\n| `{name}` | images a second | gain | over | MB |\n| --- | --- | --- | --- | --- |")
        levels_of_recipe = [level for recipe_name, level in jobs if recipe_name == name]
        rates = {level.name: sorted(r.images_s for r in measured[name, level.name]) for level in levels_of_recipe}
        for level in levels_of_recipe:
            level_rates = rates[level.name]
            middle, gain = statistics.median(level_rates), " | "
            if level.over in rates:
                times = middle / statistics.median(rates[level.over])
                gain = f"{times:.2f} | {level.over.removeprefix('+ ')}"
            memory_mb = max(r.memory_mb for r in measured[name, level.name])
            spread = f"{level_rates[0]:.3g} to {level_rates[-1]:.3g}"
            print(f"| {level.name} | {middle:.3g} ({spread}) | {gain} | {memory_mb:.0f} |")
    if a.json:
        images_s = {f"{name}, {level}": [r.images_s for r in rounds] for (name, level), rounds in measured.items()}
        a.json.write_text(json.dumps({"images_s": images_s}, indent=1) + "\n")


if __name__ == "__main__":
    main()
