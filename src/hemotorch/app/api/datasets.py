"""Datasets of corrected studies."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse

from hemotorch.app.api.services import CallerDep, ServicesDep
from hemotorch.app.datasets import dataset_folder, list_datasets, read_dataset, true_studies
from hemotorch.app.jobs.requests import DatasetWork
from hemotorch.app.refusals import Missing
from hemotorch.app.schemas import AppJob, CorrectedSet, DatasetRequest, JobKind

router = APIRouter(tags=["datasets"])
DatasetName = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


@router.get("/datasets")
def datasets(services: ServicesDep) -> list[CorrectedSet]:
    """Datasets that were made, the newest first."""
    return list_datasets(services.workspace.folder)


@router.post("/datasets", status_code=202)
def make_dataset(wanted: DatasetRequest, services: ServicesDep, caller: CallerDep) -> AppJob:
    """Makes a dataset of corrected studies, which `hemotorch prepare` takes. One of that name is replaced."""
    studies = [study.id for study in true_studies(services.library, wanted.studies)]
    if not studies:
        raise Missing("no study was corrected or agreed with yet", todo="correct some, or agree with their outlines")
    request = DatasetWork(name=wanted.name, studies=studies).model_dump_json()
    job = services.queue.add(JobKind.DATASET, request, f"Dataset {wanted.name}", user=caller.user)
    services.audit.note(caller.user, "exported", detail=f"a dataset of {len(studies)} studies")
    return job


@router.get("/datasets/{name}.zip", response_class=Response, responses={200: {"content": {"application/zip": {}}}})
def dataset_zip(name: DatasetName, services: ServicesDep, caller: CallerDep) -> Response:
    """A dataset as a zip."""
    read_dataset(services.workspace.folder, name)
    path = dataset_folder(services.workspace.folder, name) / f"{name}.zip"
    if not path.is_file():
        raise Missing("there is no such dataset", name)
    services.audit.note(caller.user, "exported", detail=f"dataset {name}")
    return FileResponse(path, media_type="application/zip", filename=f"{name}.zip")
