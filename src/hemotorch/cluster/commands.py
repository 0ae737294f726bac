"""`hemotorch cluster`: the options of each engine, and what is printed. An engine is imported where it is used."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from hemotorch import NOTICE
from hemotorch.errors import HemotorchError, one_line
from hemotorch.system.limits import voxels

if TYPE_CHECKING:
    from hemotorch.cluster.training import Training
    from hemotorch.run import Run

Options = Callable[[argparse.ArgumentParser], None]
Make = Callable[..., argparse.ArgumentParser]
Show = Callable[[argparse.Namespace, Any, str], None]


def add(commands: Any, make: Make, training: Options, threads: Options, show: Show) -> None:
    """Adds `cluster` to the command line.

    make: makes a command of a subparsers' action, with a function, a text and an example; training: adds the options of
    `hemotorch train`; threads: adds --threads; show: prints a command's result as text or JSON.
    """
    text = "Train on several processes with torchrun, SLURM or Ray; predict an archive with Ray."
    example = "example: hemotorch cluster torchrun prepared run --ranks 2"
    engines = commands.add_parser("cluster", help=text, description=text, epilog=example)
    engines = engines.add_subparsers(dest="engine", required=True, metavar="ENGINE")

    def engine(name: str, run: Callable[[argparse.Namespace], tuple[Any, str, int]], text: str, example: str) -> Any:
        def shown(a: argparse.Namespace) -> int:
            values, lines, status = run(a)
            show(a, values, lines)
            return status

        p = make(engines, name, shown, text, f"cluster {name} {example}")
        p.set_defaults(command=f"cluster {name}")
        return p

    p = engine("torchrun", _torchrun, "Train on several processes of this machine.", "prepared run --ranks 2")
    training(p)
    p.add_argument("--ranks", type=_count, metavar="N", help="processes (default: one a GPU; without GPUs 2)")
    p.add_argument("--restarts", type=_times, default=0, metavar="N", help="go on by itself so often (default: 0)")

    p = engine("slurm", _slurm, "Write a SLURM batch script that trains.", "prepared run --gpus 4 --submit")
    training(p)
    _slurm_options(p)

    p = engine("ray", _ray, "Train with Ray Train.", "prepared run --ranks 2")
    training(p)
    p.add_argument("--ranks", type=_count, metavar="N", help="workers (default: one a GPU; without GPUs 2)")
    p.add_argument("--restarts", type=_times, default=2, metavar="N", help="go on by itself so often (default: 2)")
    _address(p)

    p = engine("predict", _predict, "Predict an archive of scans with Ray Data.", "run archive --out found --workers 2")
    p.add_argument("run_folder", metavar="RUN", help="run folder, or a checkpoint file")
    p.add_argument("scan", nargs="+", metavar="SCAN", help="NIfTI files, or folders of them")
    p.add_argument("--out", required=True, metavar="DIR", help="folder for results; the same command again goes on")
    p.add_argument("--workers", type=_count, metavar="N", help="processes (default: one a GPU; else one for two cores)")
    p.add_argument("--any-anatomy", action="store_true", help="also predict what does not look like a head")
    p.add_argument("--max-voxels", type=voxels, metavar="N", help="of the largest scan that is read")
    p.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda (default: auto)")
    threads(p)
    _address(p)


def _slurm_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--nodes", type=_count, default=1, metavar="N", help="machines (default: 1)")
    p.add_argument("--ranks-per-node", type=_count, metavar="N", help="processes a node (default: one a GPU, else 1)")
    p.add_argument("--gpus", type=_times, default=0, metavar="N", help="GPUs a node (default: 0)")
    p.add_argument("--cpus", type=_count, metavar="N", help="cores a rank (default: SLURM's)")
    p.add_argument("--time", default="24:00:00", metavar="T", help="until the job is queued again (default: 24:00:00)")
    p.add_argument("--partition", metavar="NAME", help="queue (default: SLURM's)")
    p.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="another line, such as account=neuro"
    )
    p.add_argument("--submit", action="store_true", help="hand it to SLURM")
    p.add_argument("--overwrite", action="store_true", help="replace a script that is there already")


def _address(p: argparse.ArgumentParser) -> None:
    p.add_argument("--address", metavar="HOST:PORT", help="a Ray cluster that is there (default: one's own, here)")


def _training(a: argparse.Namespace) -> Training:
    from hemotorch.cluster.training import Training
    from hemotorch.recipe import recipe_from_args

    recipe = recipe_from_args(a.recipe, a.set, a.fold, a.resume)
    return Training(a.data, a.run_folder, recipe, a.device, a.resume)


def _say(a: argparse.Namespace) -> Callable[[str], None]:
    """Prints as the training goes on: where JSON was asked for not between its lines."""
    return lambda text: print(one_line(text), file=sys.stderr if a.json else sys.stdout, flush=True)


def _trained(run: Run) -> tuple[Any, str, int]:
    return {"run": str(run.root), "epochs": run.metrics}, f"trained: {run.root}", 0


def _torchrun(a: argparse.Namespace) -> tuple[Any, str, int]:
    from hemotorch.cluster.torchrun import train_here

    return _trained(train_here(_training(a), a.ranks, restarts=a.restarts, say=_say(a), quiet=a.json))


def _ray(a: argparse.Namespace) -> tuple[Any, str, int]:
    from hemotorch.cluster.ray import train_on_ray

    options: dict[str, Any] = {"restarts": a.restarts, "address": a.address, "say": _say(a), "quiet": a.json}
    return _trained(train_on_ray(_training(a), a.ranks, **options))


def _slurm(a: argparse.Namespace) -> tuple[Any, str, int]:
    from hemotorch.cluster import slurm

    training = _training(a)
    training.check()
    batch = slurm.Batch(a.nodes, a.ranks_per_node or a.gpus or 1, a.gpus, a.cpus, a.time, a.partition, tuple(a.sbatch))
    script = slurm.write_script(training.root, _train_command(a, training), batch, a.overwrite)
    job = slurm.submit(script) if a.submit else None
    todo = f"wrote {script}; read it, then submit it with `sbatch {quote(str(script))}`"
    lines = f"job {job}: {script}" if job else todo
    return {"script": str(script), "job": job}, lines, 0


def _train_command(a: argparse.Namespace, training: Training) -> Sequence[str]:
    """The arguments of `hemotorch train` that do the same, with absolute paths, and going on where it stopped."""
    recipe = str(Path(a.recipe).resolve()) if a.recipe and a.recipe.endswith(".toml") else a.recipe
    arguments = [training.data, training.root]
    arguments += ["--recipe", recipe] if recipe else []
    arguments += [word for setting in a.set for word in ("--set", setting)]
    arguments += ["--fold", str(a.fold)] if a.fold is not None else []
    arguments += ["--threads", str(a.threads)] if a.threads else []
    return [*arguments, "--device", a.device, "--resume"]


def _predict(a: argparse.Namespace) -> tuple[Any, str, int]:
    from hemotorch.cluster.archive import opened, predict_archive
    from hemotorch.system.progress import bar

    say, failed, results = (lambda text: None) if a.json else _say(a), 0, []
    with opened(a.run_folder, a.scan, a.out) as archive, bar(len(archive.todo), "predicting", "scan") as shown:
        if archive.done:
            say(f"{len(archive.done)} scans were done before")
        options: dict[str, Any] = {"device": a.device, "any_anatomy": a.any_anatomy, "address": a.address}
        for path, result in predict_archive(archive, a.workers, **options):
            shown.update()
            if isinstance(result, HemotorchError):
                failed += 1
                print(f"hemotorch cluster predict: {result}", file=sys.stderr, flush=True)
                results.append({"scan": [str(path)], "error": str(result)})
            else:
                results.append(result)
                volume = result["volume_ml"]["total"]
                say(f"{path}   {'unknown' if volume is None else f'{volume:.1f}'} mL")
        before = len(archive.done)
    lines = f"{len(results) - failed} scans predicted, {before} done before, {failed} failed: {a.out}\n{NOTICE}"
    values = {"predictions": results, "done_before": before, "failed": failed, "notice": NOTICE}
    return values, lines, 1 if failed or not (results or before) else 0


def _count(text: str) -> int:
    return _whole(text, 1)


def _times(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
    return int(text)
