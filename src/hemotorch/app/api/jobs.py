"""The queue, and what is outlined."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi import Path as PathParameter
from fastapi.responses import PlainTextResponse

from hemotorch.app.api.services import CallerDep, Services, ServicesDep
from hemotorch.app.jobs.requests import PredictWork
from hemotorch.app.layers import LAYER, PREDICTION, layer_folder
from hemotorch.app.schemas import AppJob, JobKind, JobPage, JobState, PredictRequest, StudyStage

router = APIRouter(tags=["jobs"])
JobId = Annotated[str, PathParameter(pattern="^job-[0-9a-f]{12}$")]
_MOST_LOG = 1_000_000  #: bytes of a log that are shown, its last ones


@router.get("/jobs")
def jobs(
    services: ServicesDep,
    state: JobState | None = None,
    study: Annotated[str, Query(max_length=40)] = "",
    cursor: Annotated[str, Query(max_length=40)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobPage:
    """Jobs, newest first."""
    return services.queue.page(state, study, cursor, limit)


@router.get("/jobs/{job}")
def one_job(job: JobId, services: ServicesDep) -> AppJob:
    """A job, and how far it is."""
    return services.queue.get(job)


@router.get("/jobs/{job}/log", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def job_log(job: JobId, services: ServicesDep) -> Response:
    """What a job's processes printed; "" before the first one has begun."""
    services.queue.get(job)
    path = services.workspace.log_file(job)
    if not path.is_file():
        return PlainTextResponse("")
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _MOST_LOG))
        return PlainTextResponse(file.read().decode("utf-8", "replace"))


@router.post("/jobs/{job}/cancel")
def cancel(job: JobId, services: ServicesDep, caller: CallerDep) -> AppJob:
    """Cancels a job: at once if it waits, as soon as it can stop if it runs."""
    cancelled = services.queue.cancel(job)
    services.audit.note(caller.user, "cancelled a job", cancelled.study, cancelled.kind)
    return cancelled


@router.post("/jobs/{job}/retry")
def retry(job: JobId, services: ServicesDep, caller: CallerDep) -> AppJob:
    """Puts a job that failed or was cancelled back into the queue."""
    again = services.queue.retry(job)
    if again.kind == JobKind.PREDICT and again.state == JobState.WAITING:
        services.library.set_stage(again.study, StudyStage.WAITING)
    services.audit.note(caller.user, "retried a job", again.study, again.kind)
    return again


@router.post("/predictions", status_code=202)
def predict(wanted: PredictRequest, services: ServicesDep, caller: CallerDep) -> list[AppJob]:
    """Outlines studies; without a list, all that the model has not outlined. What is under way is not asked twice."""
    model = wanted.model or services.workspace.models.current
    services.workspace.models.file(model)
    under_way = {(work.study, work.model or services.workspace.models.current) for work in _under_way(services)}
    studies = list(dict.fromkeys(wanted.studies))
    for study in studies:
        services.library.row(study)
    if not studies:
        studies = [
            row["id"] for row in services.database.rows("SELECT id FROM study ORDER BY priority, added DESC, id")
        ]
        layer = f"{PREDICTION}:{model}"
        studies = [study for study in studies if not _has_layer(services, study, layer)]
    added: list[AppJob] = []
    with services.database.write() as connection:
        for study in studies:
            if (study, model) in under_way:
                continue
            request = PredictWork(study=study, model=model).model_dump_json()
            title = f"Outline {study}"
            job = services.queue.add(
                JobKind.PREDICT, request, title, study=study, user=caller.user, connection=connection
            )
            services.library.set_stage(study, StudyStage.WAITING, connection=connection)
            added.append(job)
    return added


def _has_layer(services: Services, study: str, layer: str) -> bool:
    return (layer_folder(services.library.folder(study), layer) / LAYER).is_file()


def _under_way(services: Services) -> list[PredictWork]:
    query = "SELECT request FROM job WHERE kind = ? AND state IN ('waiting', 'running')"
    rows = services.database.rows(query, (JobKind.PREDICT,))
    return [PredictWork.model_validate_json(row["request"]) for row in rows]
