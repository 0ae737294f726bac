"""Train: a network is taught with corrected studies, and compared with the old one on patients that neither has seen.

Each stage leaves what it made when it is whole, so that a training which was stopped or killed goes on where it was.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from hemotorch.app.database import announce
from hemotorch.app.datasets import TrueStudy, true_studies
from hemotorch.app.jobs import Work
from hemotorch.app.jobs.teach_recipe import SPLIT, teach_recipe
from hemotorch.app.jobs.write_dataset import write_studies
from hemotorch.app.layers import PREDICTION, read_mask
from hemotorch.app.schemas import PairedScore, Refusal
from hemotorch.app.teach import (
    BATCH,
    DATA,
    FEW_PATIENTS,
    ORIGIN,
    OUTCOME,
    PREPARED,
    RUN,
    SLICES,
    PictureRecord,
    TrainingOutcome,
    TrainingRecord,
    few_patients_text,
    phantom_count,
    read_pictures,
    read_training,
    training_folder,
)
from hemotorch.app.workspace import Workspace
from hemotorch.data.dataset import Dataset
from hemotorch.data.painted_folders import paint_folder
from hemotorch.data.phantom_folders import write_phantom
from hemotorch.data.prepare import prepare
from hemotorch.data.splits import Split, write_splits
from hemotorch.errors import InputError
from hemotorch.evaluation.comparison import compare
from hemotorch.evaluation.intervals import mean_interval
from hemotorch.inference.load import load_model
from hemotorch.inference.onnx_export import export_onnx
from hemotorch.inference.predictor import Predictor
from hemotorch.pictures.slices import slice_rgb
from hemotorch.recipe import Recipe, recipe_from_toml
from hemotorch.scan import Scan
from hemotorch.system.events import EpochEnd, Event, Listener, Message, current_listener, emit, listening, progress
from hemotorch.system.files import atomic, explained, write_text
from hemotorch.training.base_weights import BaseNetwork, base_network
from hemotorch.training.loop import train

CORRECTED, PAINTED, PHANTOM = "corrected", "painted", "phantom"  #: folders in DATA; cases are called after them
PICTURES = 3  #: of held-out studies, the same after each epoch
AROUND = 2  #: slices above and below the one that is shown, which are outlined with it
PAINTINGS = 2  #: of each normal study
PICTURE_PX = 320
_DONE = ".done"


def run(work: Work) -> None:
    """Teaches the network. Raises InputError, RunError; Stopped with a checkpoint if it is cancelled."""
    name = str(json.loads(work.job.request)["name"])
    workspace = work.workspace
    record = read_training(workspace, name)
    folder = training_folder(workspace, name)
    base_file = workspace.models.file(record.base)
    base = base_network(base_file)
    with explained(folder):
        studies = true_studies(workspace.library, [*record.studies, *record.held_out])
        held_out = set(record.held_out)
        taught = [study for study in studies if study.id not in held_out]
        apart = [study for study in studies if study.id in held_out]
        _write_data(workspace, record, taught, studies, folder)
        apart = _prepare(work, base, apart, folder)
        recipe = _recipe(record, base, workspace.models.title(record.base), bool(apart))
        watched = _watched(apart or taught)
        if not read_pictures(folder):
            _draw(workspace, folder, 0, watched, load_model(base_file))
        pictures = _after_each_epoch(work, folder, watched)
        weights = None if record.recipe else base_file
        with listening(pictures):
            train(folder / PREPARED, folder / RUN, recipe, resume=True, weights=weights)
        emit(Message("exporting the new model"))
        exported = folder / f"{name}.onnx"
        export_onnx(folder / RUN, exported, overwrite=True)
        outcome = _compare(work, record, apart, load_model(base_file), load_model(exported))
        title = f"{name}, taught from {record.base}" if not record.recipe else f"{name}, trained here"
        workspace.models.add(name, exported, title, f"{ORIGIN}{name}")
        write_text(folder / OUTCOME, outcome.model_dump_json(indent=2))
    with workspace.queue.finish(work.job) as connection:
        announce(connection, "training", name)


def _write_data(
    workspace: Workspace, record: TrainingRecord, taught: list[TrueStudy], studies: list[TrueStudy], folder: Path
) -> None:
    """Corrected studies; bleeding painted into the normal ones that are taught with; phantoms."""
    data = folder / DATA

    def stage(name: str, write: Callable[[Path], None]) -> None:
        if (data / f"{name}{_DONE}").exists():
            return
        shutil.rmtree(data / name, ignore_errors=True)
        write(data / name)
        write_text(data / f"{name}{_DONE}", "")

    stage(CORRECTED, lambda root: write_studies(workspace.library, studies, root))
    if not record.painted:
        return
    normal = [
        study for study in taught if not read_mask(workspace.library.folder(study.id), study.layer.layer.id).any()
    ]
    if normal:
        source = data / "normal"

        def paint(root: Path) -> None:
            shutil.rmtree(source, ignore_errors=True)
            write_studies(workspace.library, normal, source)
            summary = paint_folder(source, root, per_scan=PAINTINGS, normal=True, any_anatomy=True)
            for text in summary.passed_over.values():
                emit(Message(f"not painted: {text}"))

        stage(PAINTED, paint)
    stage(
        PHANTOM,
        lambda root: _write_phantoms(root, phantom_count(len(taught))),
    )


def _write_phantoms(root: Path, count: int) -> None:
    write_phantom(root, "small", patients=count, layout="folder", workers=1)


def _prepare(work: Work, base: BaseNetwork, apart: list[TrueStudy], folder: Path) -> list[TrueStudy]:
    """Prepares all of it, with a split in which whoever is held out is neither taught with nor chosen by.

    Returns:
        The studies that are held out: those of them that the old model was not trained on.
    """
    data, out = folder / DATA, folder / PREPARED
    sources = [data / name for name in (CORRECTED, PAINTED, PHANTOM) if (data / name / "images").is_dir()]
    summary = prepare(sources, out, any_anatomy=True)
    for text in summary.failed.values():
        work.workspace.queue.add_problem(work.job, Refusal(what=text))
    prefix = f"{CORRECTED}-" if len(sources) > 1 else ""
    case_of = {f"{prefix}{study.id}": study for study in apart}
    dataset = Dataset(out)
    known = [case for case in case_of if case in dataset.rows and dataset.digest(case) in base.trained_on]
    if known:
        emit(Message(f"not held out, since the old model was trained on them: {', '.join(known)}"))
    held = {case for case in case_of if case in dataset.rows and case not in known}
    masked = {case: tuple(range(len(rows))) for case, rows in dataset.rows.items() if dataset.has_mask(case)}
    training = {case: slices for case, slices in masked.items() if case not in held}
    if not any(case.startswith(prefix) for case in training):
        raise InputError("none of the corrected studies can be trained on", folder.name, "see the job's problems")
    split = Split(SPLIT, "patient", training, {case: masked[case] for case in sorted(held) if case in masked}, {})
    write_splits(out / "splits.json", {**dataset.splits, SPLIT: split}, dataset.split_warnings, 0)
    return [study for case, study in case_of.items() if case in split.val]


def _recipe(record: TrainingRecord, base: BaseNetwork, title: str, held: bool) -> Recipe:
    if not record.recipe:
        return teach_recipe(record.name, base, title, record.epochs, record.steps, BATCH, held)
    recipe = recipe_from_toml(record.recipe, "recipe")
    data = replace(recipe.data, split=SPLIT, validation=held)
    return replace(recipe, name=record.name, data=data, train=replace(recipe.train, best_by="last"))


def _watched(studies: Sequence[TrueStudy]) -> list[tuple[TrueStudy, int]]:
    """The slices that are looked at after each epoch: of each study that of its largest lesion, or its middle one."""
    watched = []
    for study in sorted(studies, key=lambda study: -(study.layer.total_ml or 0))[:PICTURES]:
        lesions = study.layer.lesions
        watched.append((study, lesions[0].centre[0] if lesions else -1))
    return watched


def _after_each_epoch(work: Work, folder: Path, watched: list[tuple[TrueStudy, int]]) -> Listener:
    """Draws the watched slices after each epoch, and says that the training has moved on."""
    listener = current_listener()

    def listen(event: Event) -> None:
        listener(event)
        if isinstance(event, EpochEnd):
            _draw(work.workspace, folder, event.row.epoch, watched, load_model(folder / RUN))
            with work.workspace.database.write() as connection:
                announce(connection, "training", folder.name)

    return listen


def _draw(
    workspace: Workspace, folder: Path, epoch: int, watched: list[tuple[TrueStudy, int]], predictor: Predictor
) -> None:
    """Writes slices/K.png of each watched slice, and then slices.json."""
    kept = [picture for picture in read_pictures(folder) if picture.epoch != epoch]
    for place, (study, index) in enumerate(watched):
        scan = workspace.library.scan(study.id)
        truth = read_mask(workspace.library.folder(study.id), study.layer.layer.id)
        index = index if index >= 0 else len(scan.hu) // 2
        part, inside = _slices_around(scan, index)
        predicted = predictor.predict(part, any_anatomy=True)
        typed = bool(predicted.task.types) and study.layer.typed
        rgb = slice_rgb(
            scan.hu[index],
            truth=truth[index],
            predicted=predicted.mask[inside],
            pixel_mm=scan.pixel_mm,
            height=PICTURE_PX,
            typed=typed,
        )
        number = epoch * PICTURES + place
        with atomic(folder / SLICES / f"{number}.png") as temporary:
            Image.fromarray(rgb).save(temporary)
        kept.append(PictureRecord(number=number, study=study.id, slice=index, epoch=epoch))
    write_text(folder / SLICES / "slices.json", json.dumps([picture.model_dump() for picture in kept]))


def _slices_around(scan: Scan, index: int) -> tuple[Scan, int]:
    """A slice and its neighbours as a scan of their own, and its index in that: a whole scan takes much longer."""
    first, end = max(0, index - AROUND), min(len(scan.hu), index + AROUND + 1)
    part = Scan(
        np.array(scan.hu[first:end]),
        slice_origins_mm=scan.slice_origins_mm[first:end],
        row_step_mm=scan.row_step_mm,
        column_step_mm=scan.column_step_mm,
        name=scan.name,
        slice_numbers=scan.slice_numbers[first:end],
        spacing_known=scan.spacing_known,
        slice_mm=scan.slice_mm,
    )
    return part, index - first


def _compare(
    work: Work, record: TrainingRecord, apart: list[TrueStudy], old: Predictor, new: Predictor
) -> TrainingOutcome:
    """Old against new on the patients that neither has seen; differences by patient, with a paired interval."""
    library = work.workspace.library
    dice: list[tuple[float, float]] = []
    errors: list[tuple[float, float]] = []
    false_ml: list[tuple[float, float]] = []
    patients = [study.group for study in apart]
    for study in progress(apart, "comparing", unit="study"):
        scan = library.scan(study.id)
        truth = np.array(read_mask(library.folder(study.id), study.layer.layer.id))
        both = []
        for predictor in (old, new):
            mask = predictor.predict(scan, any_anatomy=True).mask
            both.append(compare(truth, mask, scan, range(len(truth)), lesions=False))
        bleeds = bool(truth.any())
        nothing = (math.nan, math.nan)
        dice.append((both[0].volume.dice, both[1].volume.dice) if bleeds else nothing)
        errors.append((abs(both[0].predicted_ml - both[0].truth_ml), abs(both[1].predicted_ml - both[1].truth_ml)))
        false_ml.append(nothing if bleeds else (both[0].predicted_ml, both[1].predicted_ml))
    scores = [
        paired_score("Dice of scans with bleeding", dice, patients),
        paired_score("mL by which the volume is wrong", errors, patients),
        paired_score("mL outlined in scans without bleeding", false_ml, patients),
    ]
    notes = []
    count = len(set(patients))
    if count < FEW_PATIENTS:
        notes.append(few_patients_text(count))
    own = sum(study.layer.layer.id == f"{PREDICTION}:{record.base}" for study in apart)
    if own:
        notes.append(f"{own} of {len(apart)} outlines are the old model's own, agreed with: they favour it")
    return TrainingOutcome(
        comparison=[score for score in scores if score.scans], note="; ".join(notes), model=record.name
    )


def paired_score(metric: str, pairs: Sequence[tuple[float, float]], patients: Sequence[str]) -> PairedScore:
    """Means of old and new over the scans where both are defined, and their difference with its paired interval.

    Args:
        metric: in words.
        pairs: old and new of each scan, NaN if undefined.
        patients: whose each scan is; they are resampled, not the scans.
    """
    defined = [index for index, (old, new) in enumerate(pairs) if not (math.isnan(old) or math.isnan(new))]
    olds = [pairs[index][0] for index in defined]
    news = [pairs[index][1] for index in defined]
    owners = [patients[index] for index in defined]
    differences = [new - old for old, new in zip(olds, news, strict=True)]
    low, high = mean_interval(differences, owners) if defined else (math.nan, math.nan)
    return PairedScore(
        metric=metric,
        scans=len(defined),
        patients=len(set(owners)),
        old=_mean(olds),
        new=_mean(news),
        difference=_mean(differences),
        ci95=None if math.isnan(low) else (round(low, 4), round(high, 4)),
    )


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
