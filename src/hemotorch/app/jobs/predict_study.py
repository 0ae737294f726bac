"""Predict: a study is outlined by a model, with all files that `hemotorch predict` writes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from hemotorch.app.jobs import Work
from hemotorch.app.jobs.requests import PredictWork
from hemotorch.app.layers import PREDICTION, layer_folder, write_layer
from hemotorch.app.schemas import StudyDoubt, StudyStage
from hemotorch.errors import InputError
from hemotorch.inference.load import load_model
from hemotorch.inference.outputs import RECORD
from hemotorch.inference.studies import predict_file
from hemotorch.inference.study import StudyRecord, followed_up, read_record
from hemotorch.io import on_disk
from hemotorch.report.study_files import write_study
from hemotorch.scan import Prediction
from hemotorch.system.events import ProgressTask


def run(work: Work) -> None:
    """Outlines the study; its former prediction by this model stays until the new one is whole.

    Raises:
        InputError: if the study or the model is gone, or the scan cannot be outlined.
        RunError: if the disk is full or memory is short.
    """
    wanted = PredictWork.model_validate_json(work.job.request)
    workspace, study = work.workspace, wanted.study
    library = workspace.library
    files = library.scan_files(study)
    if any(not on_disk(path).exists() for path in files.files):
        todo = "put them back, or add the scan again and delete this study"
        raise InputError("the files that it was read from are not where they were", study, todo)
    models = workspace.models
    name = wanted.model or models.current
    library.set_stage(study, StudyStage.PREDICTING)
    layer = f"{PREDICTION}:{name}"
    new = library.folder(study) / f".{work.job.id}"
    shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
    made: list[Prediction] = []

    def write(prediction: Prediction, folder: Path, record: StudyRecord) -> list[Path]:
        made.append(prediction)
        return write_study(prediction, folder, record)

    try:
        with ProgressTask("outlining", total=3, unit="step") as task:
            predictor = load_model(models.file(name))
            task.advance()
            folder = layer_folder(new, layer)
            folder.mkdir(parents=True)
            change = _change_since(work, study, name)
            record = predict_file(predictor, files, folder, study, write_page=write, change=change)
            task.advance()
            (prediction,) = made
            write_layer(
                new,
                layer,
                library.scan(study),
                prediction.mask,
                title=models.title(name),
                typed=bool(prediction.task.types),
                probability=prediction.probability,
                interval_ml=record.interval_ml,
                remarks=prediction.remarks,
                model_digest=prediction.digest,
            )
            task.advance()
        workspace.queue.renew(work.job)  # a lease that was lost changes nothing
        _exchange(layer_folder(library.folder(study), layer), layer_folder(new, layer))
    finally:
        shutil.rmtree(new, ignore_errors=True)
    doubts = [StudyDoubt(code=doubt.code, text=doubt.text, value=doubt.value) for doubt in record.doubts]
    library.set_result(study, doubts, StudyStage.PREDICTED)
    with workspace.queue.finish(work.job):
        pass


def _exchange(old: Path, new: Path) -> None:
    """Puts a folder in the place of another one."""
    old.parent.mkdir(parents=True, exist_ok=True)
    aside = new.with_name(f".old.{old.name}")
    if old.exists():
        os.replace(old, aside)
    os.replace(new, old)


def _change_since(work: Work, study: str, model: str) -> Callable[[StudyRecord], StudyRecord] | None:
    """What adds the change since the patient's last earlier study that this model has outlined; None if none is."""
    database, library = work.workspace.database, work.workspace.library
    here = database.row("SELECT patient, moment FROM study WHERE id = ?", (study,))
    if here is None:
        raise InputError("there is no such study", study)
    if not here["patient"] or not here["moment"]:
        return None
    query = "SELECT id, moment FROM study WHERE patient = ? AND moment != '' AND id != ? ORDER BY moment DESC"
    rows = database.rows(query, (here["patient"], study))
    moment = datetime.fromisoformat(here["moment"])
    layer = f"{PREDICTION}:{model}"
    later = ""
    for row in rows:
        path = layer_folder(library.folder(row["id"]), layer) / f"{row['id']}{RECORD}"
        hours = (moment - datetime.fromisoformat(row["moment"])).total_seconds() / 3600
        if hours == 0 or not path.is_file():
            continue
        if hours < 0:
            later = row["id"]
            continue
        earlier = read_record(path)
        return lambda record: followed_up(_with_later(record, later), earlier, hours)
    return lambda record: _with_later(record, later)


def _with_later(record: StudyRecord, later: str) -> StudyRecord:
    """The record with a warning if a later study was outlined before this one."""
    if not later:
        return record
    text = f"a later study of this patient, {later}, was outlined before this one: "
    text += "outline it again for the change between them in its files"
    return replace(record, warnings=(*record.warnings, text))
