"""`hemotorch cluster`: the options of each engine, and what it does. An engine is imported when it is used."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from hemotorch import NOTICE
from hemotorch.cli.commands import models_and_scans, models_text
from hemotorch.cli.options import (
    Command,
    Resuming,
    add_command,
    add_max_voxels,
    add_patients,
    add_series,
    add_threads,
    add_training,
    count,
    whole_number,
)
from hemotorch.cli.output import change_lines, show, study_lines
from hemotorch.errors import HemotorchError, one_line

if TYPE_CHECKING:
    from hemotorch.cluster.training import Training
    from hemotorch.run import Run


def add_cluster(group: Any) -> None:
    """Adds `cluster` and its engines to the command line."""
    text = "Train on several processes with torchrun, SLURM or Ray; predict an archive with Ray."
    example = "example: hemotorch cluster torchrun prepared run --ranks 2"
    parser = group.add_parser("cluster", help=text, description=text, epilog=example)
    engines = parser.add_subparsers(dest="engine", required=True, metavar="ENGINE")
    _add_torchrun(engines)
    _add_slurm(engines)
    _add_ray(engines)
    _add_predict(engines)


def _add_engine(
    engines: Any, name: str, run: Command, text: str, example: str, resuming: Resuming
) -> argparse.ArgumentParser:
    p = add_command(engines, name, run, text, f"cluster {name} {example}", resuming)
    p.set_defaults(command=f"cluster {name}")
    return p


def _add_torchrun(engines: Any) -> None:
    text = "Train on several processes of this machine."
    p = _add_engine(engines, "torchrun", torchrun, text, "prepared run --ranks 2", Resuming.OPTION)
    add_training(p)
    p.add_argument("--ranks", type=count, metavar="N", help="processes (default: one a GPU; without GPUs 2)")
    p.add_argument("--restarts", type=_times, default=0, metavar="N", help="go on by itself so often (default: 0)")


def _add_slurm(engines: Any) -> None:
    text = "Write a SLURM batch script that trains."
    p = _add_engine(engines, "slurm", slurm, text, "prepared run --gpus 4 --submit", Resuming.NOT)
    add_training(p)
    p.add_argument("--nodes", type=count, default=1, metavar="N", help="machines (default: 1)")
    p.add_argument("--ranks-per-node", type=count, metavar="N", help="processes a node (default: one a GPU, else 1)")
    p.add_argument("--gpus", type=_times, default=0, metavar="N", help="GPUs a node (default: 0)")
    p.add_argument("--cpus", type=count, metavar="N", help="cores a rank (default: SLURM's)")
    p.add_argument("--time", default="24:00:00", metavar="T", help="until the job is queued again (default: 24:00:00)")
    p.add_argument("--partition", metavar="NAME", help="queue (default: SLURM's)")
    p.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="another line, such as account=neuro"
    )
    p.add_argument("--submit", action="store_true", help="hand it to SLURM")
    p.add_argument("--overwrite", action="store_true", help="replace a script that is there already")


def _add_ray(engines: Any) -> None:
    p = _add_engine(engines, "ray", ray, "Train with Ray Train.", "prepared run --ranks 2", Resuming.OPTION)
    add_training(p)
    p.add_argument("--ranks", type=count, metavar="N", help="workers (default: one a GPU; without GPUs 2)")
    p.add_argument("--restarts", type=_times, default=2, metavar="N", help="go on by itself so often (default: 2)")
    _add_address(p)


def _add_predict(engines: Any) -> None:
    text, example = "Predict an archive of scans with Ray Data.", "run archive --out predictions --workers 2"
    p = _add_engine(engines, "predict", predict, text, example, Resuming.SAME_COMMAND)
    text = "files of scans, or folders of them; models before them are taken as with --model"
    p.add_argument("path", nargs="+", metavar="SCAN", help=text)
    text = "run folder, checkpoint or ONNX file in place of the model in the box; several are averaged"
    p.add_argument("--model", action="append", default=[], metavar="MODEL", help=text)
    p.add_argument("--out", required=True, metavar="DIR", help="folder for results; the same command again goes on")
    add_series(p)
    add_patients(p)
    p.add_argument("--workers", type=count, metavar="N", help="processes (default: one a GPU; else one for two cores)")
    p.add_argument("--any-anatomy", action="store_true", help="also predict what does not look like a head")
    p.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda (default: auto)")
    add_max_voxels(p)
    add_threads(p)
    _add_address(p)


def _add_address(p: argparse.ArgumentParser) -> None:
    p.add_argument("--address", metavar="HOST:PORT", help="a Ray cluster that is there (default: one's own, here)")


def _times(text: str) -> int:
    return whole_number(text, 0, 99_999)


def torchrun(arguments: argparse.Namespace) -> int:
    """Trains on several processes of this machine."""
    from hemotorch.cluster.torchrun import train_here

    run = train_here(_training(arguments), arguments.ranks, restarts=arguments.restarts)
    return _show_run(arguments, run)


def ray(arguments: argparse.Namespace) -> int:
    """Trains with Ray Train."""
    from hemotorch.cluster.ray import train_on_ray

    training = _training(arguments)
    run = train_on_ray(training, arguments.ranks, restarts=arguments.restarts, address=arguments.address)
    return _show_run(arguments, run)


def _training(arguments: argparse.Namespace) -> Training:
    from hemotorch.cluster.training import Training
    from hemotorch.recipe import recipe_from_args

    recipe = recipe_from_args(arguments.recipe, arguments.set, arguments.fold, arguments.resume)
    return Training(arguments.data, arguments.run_folder, recipe, arguments.device, arguments.resume)


def _show_run(arguments: argparse.Namespace, run: Run) -> int:
    epochs = [row.to_dict() for row in run.metrics]
    show(arguments, {"run": str(run.root), "epochs": epochs}, f"trained: {run.root}")
    return 0


def slurm(arguments: argparse.Namespace) -> int:
    """Writes a batch script, and submits it if that is wanted."""
    from hemotorch.cluster.slurm import BatchJob, submit, write_script

    training = _training(arguments)
    training.check()
    batch = BatchJob(
        nodes=arguments.nodes,
        ranks=arguments.ranks_per_node or arguments.gpus or 1,
        gpus=arguments.gpus,
        cpus=arguments.cpus,
        time=arguments.time,
        partition=arguments.partition,
        options=tuple(arguments.sbatch),
    )
    script = write_script(training.root, _train_command(arguments, training), batch, arguments.overwrite)
    job = None
    text = f"wrote {script}; read it, then submit it with `sbatch {quote(str(script))}`"
    if arguments.submit:
        job = submit(script)
        text = f"job {job}: {script}"
    show(arguments, {"script": str(script), "job": job}, text)
    return 0


def _train_command(arguments: argparse.Namespace, training: Training) -> Sequence[str]:
    """The arguments of `hemotorch train` that do the same, with absolute paths, and going on where it stopped."""
    command = [training.data, training.root]
    recipe = arguments.recipe
    if recipe and recipe.endswith(".toml"):
        recipe = str(Path(recipe).resolve())
    if recipe:
        command += ["--recipe", recipe]
    for setting in arguments.set:
        command += ["--set", setting]
    if arguments.fold is not None:
        command += ["--fold", str(arguments.fold)]
    if arguments.threads:
        command += ["--threads", str(arguments.threads)]
    return [*command, "--device", arguments.device, "--resume"]


def predict(arguments: argparse.Namespace) -> int:
    """Predicts an archive; status 1 if one of its scans failed."""
    from hemotorch.cluster.archive import open_archive, predict_archive
    from hemotorch.report.study_list import StudyList
    from hemotorch.system import records
    from hemotorch.system.events import Message, Problem, ProgressTask, emit

    results: list[dict[str, Any]] = []
    failed = 0
    models, scans = models_and_scans(arguments.model, arguments.path)
    emit(Message(models_text(models)))
    with (
        open_archive(models, scans, arguments.out, arguments.series, arguments.patients) as archive,
        ProgressTask("predicting", len(archive.todo), "scan") as task,
    ):
        StudyList(archive.folder)  # what is not its own there is said before anything is predicted
        done_before = len(archive.done)
        if done_before:
            emit(Message(f"{done_before} scans were done before"))
        predictions = predict_archive(
            archive,
            arguments.workers,
            device=arguments.device,
            any_anatomy=arguments.any_anatomy,
            address=arguments.address,
        )
        failures: list[tuple[str, HemotorchError]] = []
        succeeded = [record.name for record in archive.done.values()]
        for path, result in predictions:
            task.advance()
            if isinstance(result, HemotorchError):
                failed += 1
                name = archive.todo.get(path, Path(os.path.abspath(path)).name)
                failures.append((name, result))
                emit(Problem(str(result)))
                results.append({"scan": [str(path)], "error": str(result)})
            else:
                results.append(records.to_values(result))
                succeeded.append(result.name)
                emit(Message(study_lines(one_line(str(path)), result)[0]))
                for line in change_lines(result):
                    emit(Message(line))
        studies = StudyList(archive.folder)  # workers wrote the records: they are read once, at the end
        for name, error in failures:
            studies.add_failed(name, error)
        for name in (*succeeded, *(Path(os.path.abspath(given)).name for given in scans)):
            studies.forget_failed(name)
        index = studies.write()
    predicted = len(results) - failed
    text = f"{predicted} scans predicted, {done_before} done before, {failed} failed: open {index}\n{NOTICE}"
    values = {"predictions": results, "done_before": done_before, "failed": failed, "notice": NOTICE}
    show(arguments, values, text)
    return 1 if failed or not (results or done_before) else 0
