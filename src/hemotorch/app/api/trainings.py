"""Teaching a model with corrected studies."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse

from hemotorch.app.api.services import CallerDep, ServicesDep
from hemotorch.app.refusals import Missing
from hemotorch.app.schemas import Teaching, TrainingEstimate, TrainingRequest
from hemotorch.app.teach import (
    SLICES,
    begin_training,
    estimate,
    list_trainings,
    read_training,
    show_training,
    training_folder,
)

router = APIRouter(tags=["trainings"])
TrainingName = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


@router.get("/trainings")
def trainings(services: ServicesDep) -> list[Teaching]:
    """All trainings, the newest first."""
    return list_trainings(services.workspace)


@router.post("/trainings/estimate")
def estimate_training(wanted: TrainingRequest, services: ServicesDep) -> TrainingEstimate:
    """What a training would take here. A few steps are timed if this was not done yet, which takes some seconds."""
    return estimate(services.workspace, wanted)


@router.post("/trainings", status_code=202)
def start_training(wanted: TrainingRequest, services: ServicesDep, caller: CallerDep) -> Teaching:
    """Teaches a model. The old one stays, and stays the current one until a person chooses the new one."""
    begun = begin_training(services.workspace, wanted, caller.user)
    services.audit.note(caller.user, "began a training", detail=wanted.name)
    return begun


@router.get("/trainings/{name}")
def training(name: TrainingName, services: ServicesDep) -> Teaching:
    """A training and how far it is."""
    return show_training(services.workspace, name)


@router.get(
    "/trainings/{name}/slices/{number}.png",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}},
)
def training_slice(name: TrainingName, number: Annotated[int, PathParameter(ge=0)], services: ServicesDep) -> Response:
    """A slice with its truth and the network's outline after an epoch."""
    path = training_folder(services.workspace, name) / SLICES / f"{number}.png"
    if not path.is_file():
        raise Missing("there is no such picture", name)
    return FileResponse(path, media_type="image/png", headers={"cache-control": "private, no-cache"})


@router.post("/trainings/{name}/stop")
def stop(name: TrainingName, services: ServicesDep, caller: CallerDep) -> Teaching:
    """Stops a training with a checkpoint of the very step."""
    services.queue.cancel(show_training(services.workspace, name).job)
    services.audit.note(caller.user, "stopped a training", detail=name)
    return show_training(services.workspace, name)


@router.post("/trainings/{name}/resume")
def resume(name: TrainingName, services: ServicesDep, caller: CallerDep) -> Teaching:
    """Goes on with a training that was stopped or has failed."""
    read_training(services.workspace, name)
    services.queue.retry(show_training(services.workspace, name).job)
    services.audit.note(caller.user, "resumed a training", detail=name)
    return show_training(services.workspace, name)
