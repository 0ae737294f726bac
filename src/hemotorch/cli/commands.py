"""What each command does, but for `cluster` and `bench`. Each returns the exit status."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemotorch import NOTICE
from hemotorch.cli.output import show, study_lines
from hemotorch.errors import HemotorchError, InputError, OptionError, one_line, some_of

if TYPE_CHECKING:
    from hemotorch.recipe import Recipe
    from hemotorch.system.events import Event


def phantom(arguments: argparse.Namespace) -> int:
    """Makes a synthetic dataset."""
    from hemotorch.data.phantom_folders import write_phantom

    summary = write_phantom(
        arguments.out,
        arguments.preset,
        patients=arguments.patients,
        size=arguments.size,
        seed=arguments.seed,
        layout=arguments.layout,
        faults=arguments.fault,
        projection=arguments.projection,
        workers=arguments.workers,
        shading_hu=arguments.shading,
        offset_hu=arguments.offset,
        chances=dict(arguments.chance),
    )
    text = f"{summary['cases']} scans, {summary['positive']} with bleeding, in {arguments.out}"
    show(arguments, summary, text)
    return 0


def paint(arguments: argparse.Namespace) -> int:
    """Paints bleeding into normal scans; status 1 if something was passed over or not read."""
    from hemotorch.data.painted_folders import paint_folder

    summary = paint_folder(
        arguments.src,
        arguments.out,
        per_scan=arguments.per_scan,
        seed=arguments.seed,
        layout=arguments.layout,
        normal=arguments.normal,
        any_anatomy=arguments.any_anatomy,
        workers=arguments.workers,
    )
    show(arguments, asdict(summary), "\n".join(summary.lines()))
    return 1 if summary.passed_over or summary.unread or not summary.scans else 0


def prepare(arguments: argparse.Namespace) -> int:
    """Prepares a dataset; status 1 if something in it could not be."""
    from hemotorch.data.prepare import prepare

    summary = prepare(
        arguments.src,
        arguments.out,
        layout=arguments.layout,
        png=arguments.png,
        window=_png_window(arguments),
        only_positive=arguments.only_positive,
        workers=arguments.workers,
        seed=arguments.seed,
        any_anatomy=arguments.any_anatomy,
        series=arguments.series,
    )
    show(arguments, summary.to_dict(), "\n".join(summary.lines()))
    return 1 if summary.failed or summary.passed_over else 0


def _png_window(arguments: argparse.Namespace) -> Any:
    """The window of the PNGs: its name, or its level and width in HU."""
    level, width = arguments.level, arguments.width
    if (level is None) != (width is None):
        raise OptionError("--level and --width go together", todo="give both, in HU")
    if arguments.window and level is not None:
        raise OptionError("--window and --level are two ways to say one thing", todo="give one of them")
    about_pngs = arguments.window or arguments.only_positive or level is not None
    if about_pngs and not arguments.png:
        raise OptionError("--window, --level, --width and --only-positive are about PNGs", todo="add --png")
    if level is not None:
        return level, width
    return arguments.window or "brain"


def train(arguments: argparse.Namespace) -> int:
    """Trains a network, as one of several ranks if the environment says so."""
    from hemotorch.recipe import recipe_from_args
    from hemotorch.system.events import current_listener, listening, together
    from hemotorch.training.loop import train

    recipe = recipe_from_args(arguments.recipe, arguments.set, arguments.fold, arguments.resume)
    first_rank = os.environ.get("RANK", "0") == "0"  # of several ranks one writes and prints
    listener = current_listener()
    if arguments.tensorboard and first_rank:
        listener = together(listener, TensorBoard(Path(arguments.run_folder)))
    with listening(listener):
        run = train(arguments.data, arguments.run_folder, recipe, device=arguments.device, resume=arguments.resume)
    if first_rank:
        epochs = [row.to_dict() for row in run.metrics]
        show(arguments, {"run": str(run.root), "epochs": epochs}, f"trained: {run.root}")
    return 0


class TensorBoard:
    """A listener that writes metrics to RUN-tensorboard."""

    def __init__(self, run: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            todo = "install it with `pip install 'hemotorch[tensorboard]'`, or read RUN/metrics.jsonl"
            raise OptionError("tensorboard is not installed", "--tensorboard", todo) from error
        folder = run.with_name(f"{run.name}-tensorboard")
        self._writer: Any = SummaryWriter(str(folder))

    def __call__(self, event: Event) -> None:
        from hemotorch.system.events import EpochEnd

        if not isinstance(event, EpochEnd):
            return
        values = event.row.to_dict()
        for name, value in values.pop("val", {}).items():
            values[f"val/{name}"] = value
        epoch = values.pop("epoch")
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, epoch)
        self._writer.flush()


def recipe(arguments: argparse.Namespace) -> int:
    """Lists the recipes, or prints one with unit and help of each key."""
    from hemotorch.recipe import known_recipes, load_recipe
    from hemotorch.recipe.show import commented_toml, recipe_keys, recipe_list

    if arguments.name is None:
        recipes = recipe_list()
        lines = [f"{entry['name']:<17} {entry['description']}" for entry in recipes]
        show(arguments, recipes, "\n".join(lines))
        return 0
    recipe = load_recipe(arguments.name)
    if arguments.name not in known_recipes():
        _check_names(recipe)
    keys = {"recipe": recipe.name, "keys": recipe_keys(recipe)}
    show(arguments, keys, commented_toml(recipe).rstrip())
    return 0


def _check_names(recipe: Recipe) -> None:
    """Raises OptionError for a network, a loss or options of theirs that there are not."""
    from hemotorch import nets
    from hemotorch.task import BLEEDING
    from hemotorch.training import losses

    nets.build_for(BLEEDING, recipe.net.name, recipe.net.options)
    losses.build(recipe.loss.name, BLEEDING, **recipe.loss.options)


def evaluate(arguments: argparse.Namespace) -> int:
    """Measures a run on scans that it has not seen; status 1 if one of them could not be measured."""
    from hemotorch.report.run_report import evaluate_run

    scores = evaluate_run(
        arguments.run_folder,
        arguments.out,
        data=arguments.data,
        part=arguments.split,
        device=arguments.device,
        overwrite=arguments.overwrite,
    )
    lines = [*scores.lines(), f"report: {Path(arguments.out) / 'report.html'}", NOTICE]
    show(arguments, scores.to_json(), "\n".join(lines))
    return 1 if scores.failed else 0


def predict(arguments: argparse.Namespace) -> int:
    """Predicts scans; status 1 if one of them failed."""
    from hemotorch.system.lazy_imports import import_libraries

    import_libraries()
    from hemotorch.inference.studies import DoneBefore
    from hemotorch.report.predict_studies import predict_studies
    from hemotorch.report.study_files import INDEX
    from hemotorch.report.study_list import TABLE
    from hemotorch.system import records
    from hemotorch.system.events import Message, Problem, emit

    models, scans = models_and_scans(arguments.model, arguments.path)
    emit(Message(models_text(models)))
    results: list[dict[str, Any]] = []
    failed = done_before = 0
    doubtful: list[tuple[int, str]] = []  # how many doubts, of which scan
    for path, result in predict_studies(
        models,
        scans,
        arguments.out,
        device=arguments.device,
        any_anatomy=arguments.any_anatomy,
        overwrite=arguments.overwrite,
        series=arguments.series,
        as_dicom=not arguments.no_dicom,
        show_patient=arguments.show_patient,
        patients=arguments.patients,
    ):
        if isinstance(result, HemotorchError):
            failed += 1
            emit(Problem(str(result)))
            results.append({"scan": [str(path)], "error": str(result)})
            continue
        record = result.record if isinstance(result, DoneBefore) else result
        results.append(records.to_values(record))
        if record.doubts:
            doubtful.append((len(record.doubts), path.name))
        if isinstance(result, DoneBefore):
            done_before += 1
            continue
        for line in study_lines(one_line(str(path)), record):
            emit(Message(line))
    out = Path(arguments.out)
    lines = [NOTICE]
    if failed < len(results):
        lines.insert(0, f"masks, volumes and pages: open {out / INDEX}; the same as a table: {out / TABLE}")
    if done_before:
        lines.insert(0, f"{done_before} were done before and are passed over; --overwrite predicts them again")
    # The doubtful ones first, among them those with the most doubts.
    results.sort(key=lambda result: -len(result.get("doubts", ())))
    if doubtful and len(results) > 1:
        names = some_of([name for _, name in sorted(doubtful, key=lambda pair: -pair[0])])
        lines.insert(0, f"{len(doubtful)} of {len(results)} are in doubt, look at them first: {names}")
    show(arguments, {"predictions": results, "done_before": done_before, "notice": NOTICE}, "\n".join(lines))
    return 1 if failed or not results else 0


def inspect(arguments: argparse.Namespace) -> int:
    """Says what is in files and folders; status 1 if something in them cannot be read."""
    from hemotorch.inference.inspection import inspect_paths

    inspections = inspect_paths(
        arguments.path,
        series=arguments.series,
        pixels=not arguments.headers_only,
        show_patient=arguments.show_patient,
    )
    lines = [line for inspection in inspections for line in inspection.lines()]
    show(arguments, {"paths": [inspection.to_dict() for inspection in inspections]}, "\n".join(lines))
    return 0 if all(inspection.whole for inspection in inspections) else 1


def convert(arguments: argparse.Namespace) -> int:
    """Writes one scan as NIfTI, resampled if it is asked for."""
    from hemotorch.grid import regular
    from hemotorch.io import read_scan, write_scan

    out = Path(arguments.out)
    if out.exists() and not arguments.overwrite:
        raise OptionError(f"{out} exists", "OUT", "choose another name, or add --overwrite")
    if out.exists() and Path(arguments.scan).exists() and out.samefile(arguments.scan):
        raise OptionError(f"{out} is the scan itself", "OUT", "choose another name")
    scan = read_scan(arguments.scan, arguments.series)
    if arguments.resample is not None:
        scan = regular(scan, arguments.resample)
    elif not scan.even:
        what = "slices are not evenly apart, which NIfTI cannot say"
        raise InputError(what, arguments.scan, "add --resample MM, the distance that they shall have")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_scan(scan, out)
    lines = [f"wrote {out}: {scan}", *(f"note: {text}" for text in scan.warnings)]
    values = {"file": str(out), "shape": list(scan.shape), "warnings": list(scan.warnings)}
    show(arguments, values, "\n".join(one_line(line) for line in lines))
    return 0


def models_and_scans(named: Sequence[str], paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The models and the scans that a command line names; without a model, the one in the box.

    Args:
        named: of --model.
        paths: the arguments; those at the start that are run folders, checkpoints (.pt) or ONNX files are models.

    Raises:
        OptionError: if no scan is named, or models in both ways.
        InputError: if no model is named, and there is none in the box.
    """
    in_front = list(takewhile(_is_model, paths))
    scans = list(paths[len(in_front) :])
    if named and in_front:
        raise OptionError(f"{in_front[0]} is a model, too", "--model", "name models in one of the two ways")
    if not scans:
        todo = "name files of scans or folders of them after them"
        raise OptionError("only models are named, and no scan", todo=todo)
    models = [*named, *in_front]
    if not models:
        if len(scans) > 1 and not Path(scans[0]).exists():
            raise InputError("no such file or folder", scans[0], "name a run folder or a model file, or scans alone")
        from hemotorch.inference import box

        models = [str(box.model_file())]
    return models, scans


def models_text(models: Sequence[str]) -> str:
    """Which models predict, in a line."""
    from hemotorch.inference import box

    texts = [box.described(model) for model in models]
    return f"model: {texts[0]}" if len(texts) == 1 else f"models, averaged: {', '.join(texts)}"


def _is_model(argument: str) -> bool:
    from hemotorch.inference import box

    path = Path(argument)
    if not path.exists() and argument in box.names():
        return True
    return path.suffix in (".pt", ".onnx") or (path / "run.json").is_file() or (path / "best.pt").is_file()


def export(arguments: argparse.Namespace) -> int:
    """Writes a run's network as a file that needs no torch, and compares the two."""
    from hemotorch.inference.onnx_export import export_onnx

    made = export_onnx(arguments.run_folder, arguments.out, scans=arguments.check, overwrite=arguments.overwrite)
    values = {"file": str(made.path), "megabytes": made.megabytes, "compared": [asdict(c) for c in made.comparisons]}
    lines = [comparison.text for comparison in made.comparisons]
    show(arguments, values, "\n".join([*lines, f"wrote {made.path}, {made.megabytes:.1f} MB"]))
    return 0


def models(arguments: argparse.Namespace) -> int:
    """Lists the models in the box, or prints the card of one."""
    from hemotorch.inference import box

    if arguments.name is not None:
        card = box.card(arguments.name)
        box.model_file(arguments.name)  # says if the file is not the card's
        show(arguments, asdict(card), "\n".join(card.lines()))
        return 0
    cards = [box.card(name) for name in box.names()]
    lines = [f"{card.name}   {card.megabytes:.1f} MB   sha256 {card.sha256}   {card.title}" for card in cards]
    if not cards:
        lines = ["there is no model in the box; `make model` makes one"]
    show(arguments, {"models": [asdict(card) for card in cards]}, "\n".join(lines))
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """Says what this machine has and lacks; status 1 if the core lacks something."""
    from hemotorch.inference.box import check
    from hemotorch.system.doctor import examine, is_ready

    checks = [*examine(), check()]
    ready = is_ready(checks)
    verdict = "ready to predict" if ready else "the core lacks something: see the lines marked MISSING"
    values = {"ready": ready, "checks": [asdict(check) for check in checks]}
    show(arguments, values, "\n".join([*(check.line for check in checks), verdict]))
    return 0 if ready else 1


def demo(arguments: argparse.Namespace) -> int:
    """The whole way, small."""
    from hemotorch.demo import demo

    result = demo(arguments.out)
    lines = [*result["lines"], f"Open {result['report']}", NOTICE]
    show(arguments, result, "\n".join(lines))
    return 0
