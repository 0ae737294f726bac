"""A run's best network, measured on a part of its split, and the report on it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from hemotorch.data.dataset import Dataset
from hemotorch.data.splits import Split
from hemotorch.errors import InputError, some_of
from hemotorch.evaluation.doubted import WithDoubts
from hemotorch.evaluation.evaluate import evaluate, write_scores
from hemotorch.evaluation.scores import Scores
from hemotorch.inference import box
from hemotorch.inference.load import load_model
from hemotorch.inference.onnx_model import SUFFIX, OnnxNote, read_note
from hemotorch.report.evaluation_page import evaluation_page
from hemotorch.run import Run, check_slices
from hemotorch.system.files import clear_parts, jsonable, output_folder, read_json, write_text
from hemotorch.system.metrics import EpochMetrics

PAGE, SCORES = "report.html", "scores.json"
FILES = (PAGE, SCORES, "scans.csv", "slices.csv")  #: all that a report leaves


def write_report(
    scores: Scores,
    out: Path | str,
    metrics: Sequence[EpochMetrics] = (),
    details: Mapping[str, str] | None = None,
) -> Path:
    """Writes OUT/report.html and returns its path. It needs no other file, no network and no script.

    Args:
        scores: what was measured.
        out: folder of the report.
        metrics: the rows of a run's metrics.jsonl.
        details: title -> text to unfold at the end, such as the recipe and the environment.
    """
    path = Path(out) / PAGE
    write_text(path, evaluation_page(scores, metrics, details or {}))
    return path


def evaluate_run(
    root: Path | str,
    out: Path | str,
    *,
    data: Path | str | None = None,
    part: str = "test",
    device: str = "auto",
    overwrite: bool = False,
) -> Scores:
    """Measures a network on a part of a split; leaves scores.json, scans.csv, slices.csv, report.html.

    Args:
        root: the run's folder, whose best network is measured, an ONNX file of `hemotorch export`, or the name of a
            model in the box.
        out: folder of the report.
        data: the prepared dataset, if not where the run was trained. One that holds the scans of the run's split is
            taken for the same; of another dataset its own split of that name is scored. An ONNX file needs it.
        part: train, val, test or all.
        device: auto, cpu, cuda or cuda:N.
        overwrite: replace a report that is there.

    Raises:
        InputError, OptionError: before anything is measured.
    """
    root = box.named(root)
    if root.suffix == SUFFIX:
        return _evaluate_onnx(root, Path(out), data, part, device, overwrite)
    run = Run.open(root)
    record = run.record
    # All that the report needs is read before anything is measured, which may take hours.
    metrics, recipe = run.metrics, run.recipe
    recipe_text = (run.root / "recipe.toml").read_text(encoding="utf-8")
    folder = Path(record.data if data is None else data)
    if data is None and not folder.exists():
        raise InputError("the dataset that this run was trained on is not there", folder, "name it with --data")
    dataset = Dataset(folder)
    out = _report_folder(Path(out), overwrite)
    split, external = split_for(record.split, record.scans, dataset, part)
    predictor = load_model(run.root, device)
    environment = {"environment": record.environment, "device": asdict(record.device), "memory": record.memory}
    about = {"run": str(run.root), "recipe": asdict(recipe), **environment}
    details = {"Recipe": recipe_text, "Environment of the training": json.dumps(environment, indent=2)}
    scores = evaluate(WithDoubts(predictor), dataset, split, part, about=about, external=external)
    write_scores(scores, out)
    write_report(scores, out, metrics, details)
    return scores


def _evaluate_onnx(path: Path, out: Path, data: Path | str | None, part: str, device: str, overwrite: bool) -> Scores:
    """`evaluate_run` of an ONNX file."""
    note = read_note(path)
    if data is None:
        raise InputError("an ONNX file does not hold the dataset it was trained on", path, "name one with --data")
    dataset = Dataset(data)
    out = _report_folder(out, overwrite)
    split, external = split_for_onnx(note, dataset, part)
    predictor = load_model(path, device)
    about = {"model_file": str(path), "deployment": note.deployment.to_values()}
    details = {"Deployment of the model": json.dumps(jsonable(about), indent=2)}
    scores = evaluate(WithDoubts(predictor), dataset, split, part, about=about, external=external)
    write_scores(scores, out)
    write_report(scores, out, (), details)
    return scores


def split_for_onnx(note: OnnxNote, dataset: Dataset, part: str) -> tuple[Split, bool]:
    """The split to score an ONNX file on, and whether it is of another dataset than the network's.

    Raises:
        InputError: if scans would be scored as new that the network was trained on, or the split is not there.
    """
    digests = {case: dataset.digest(case) for case in dataset.cases}
    trained = {case for case, digest in digests.items() if digest in set(note.trained_on)}
    external = not trained
    todo = "score another part, or another dataset"
    if part == "all":
        if trained:
            raise InputError(f"{len(trained)} of its scans were trained on", dataset.root, todo)
        every = {case: tuple(range(len(dataset.rows[case]))) for case in digests}
        split = Split("none", "patient", {}, {}, every)
    else:
        if note.split and note.split not in dataset.splits:
            raise InputError(f"has no split '{note.split}'", dataset.root, "score every scan of it with --split all")
        split = dataset.split(note.split or "patient")
        seen = sorted(trained & split.test.keys())
        if part == "test" and split.by == "patient" and seen:
            what = f"the network was trained on scans of its part 'test' ({some_of(seen)})"
            raise InputError(what, dataset.root, todo)
    if not note.trained_on:
        unknown = "Which scans this network was trained on is unknown: some of these may be among them."
        split = replace(split, warnings=(*split.warnings, unknown))
    return split, external


def _report_folder(out: Path, overwrite: bool) -> Path:
    """The folder of a report, without an earlier one and without what a killed command left of one.

    report.html is written last: without it the other files of a report are left over, and the same command goes on.

    Raises:
        InputError: if a report is there and is not to be replaced, or if files there are not those of a report.
    """
    names = os.listdir(out) if out.is_dir() else []
    present = {name for name in names if ".part." not in name}
    others = sorted(present - set(FILES))
    if PAGE in present and not overwrite:
        raise InputError("holds a report already", out, "add --overwrite or choose another --out")
    if others and not (overwrite and PAGE in present):
        raise InputError(f"is not empty and holds no report ({others[0]})", out, "choose another --out")
    ours = SCORES not in present or _is_scores(out / SCORES)
    if not ours or (PAGE in present and b"hemotorch" not in (out / PAGE).read_bytes()):
        raise InputError(
            "holds a report that hemotorch did not write, which is not replaced", out, "choose another --out"
        )
    output_folder(out, may_exist=True)
    clear_parts(out)
    # First of all: from here on there is no report, whatever ends this command.
    (out / PAGE).unlink(missing_ok=True)
    return out


def _is_scores(path: Path) -> bool:
    value = read_json(path)
    return isinstance(value, dict) and "notice" in value


def split_for(
    split_of_run: Split, digests: Mapping[str, str], dataset: Dataset, part: str = "test"
) -> tuple[Split, bool]:
    """The split to score, and whether it is of another dataset than the run's.

    If the dataset holds the very scans of the run's split, their masks corrected or not, it is that split. If it holds
    none of them, it is the dataset's split of that name (any, for part "all").

    Args:
        split_of_run: what the run was trained with.
        digests: of the scans of that split, by case.
        dataset: what is to be scored.
        part: train, val, test or all.

    Raises:
        InputError: if only some scans are the same, since those that were trained on could then be scored as new.
    """
    now = {case: dataset.digest(case) for case in dataset.cases}
    same = [case for case, digest in digests.items() if now.get(case) == digest]
    if len(same) == len(digests):
        check_slices(split_of_run, dataset)
        return split_of_run, False
    if same or set(now.values()) & set(digests.values()):
        what = f"holds only {len(same)} of the {len(digests)} scans that the run was split on, as they were"
        raise InputError(what, dataset.root, "evaluate on the unchanged dataset, or on one with other scans")
    if part == "all":
        every = {case: tuple(range(len(dataset.rows[case]))) for case in now}
        return Split("none", "patient", {}, {}, every), True
    if split_of_run.name not in dataset.splits:
        todo = "score every scan of it with --split all"
        raise InputError(f"is another dataset and has no split '{split_of_run.name}'", dataset.root, todo)
    return dataset.split(split_of_run.name), True
