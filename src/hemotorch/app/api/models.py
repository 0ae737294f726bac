"""Models, and which of them outlines new studies."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as PathParameter

from hemotorch.app.api.services import CallerDep, ServicesDep
from hemotorch.app.schemas import ModelInfo

router = APIRouter(tags=["models"])
ModelName = Annotated[str, PathParameter(max_length=100)]


@router.get("/models")
def models(services: ServicesDep) -> list[ModelInfo]:
    """All models, those in the box first."""
    return services.workspace.models.list()


@router.get("/models/{name}")
def model(name: ModelName, services: ServicesDep) -> ModelInfo:
    """A model and its card."""
    return services.workspace.models.info(name)


@router.post("/models/{name}/use")
def use_model(name: ModelName, services: ServicesDep, caller: CallerDep) -> ModelInfo:
    """Outlines new studies with this model from now on. Only a person decides that; the others stay."""
    used = services.workspace.models.use(name)
    services.audit.note(caller.user, "chose a model", detail=name)
    return used
