"""Files that are uploaded, and the import of what is in them or in a folder of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response

from hemotorch.app.api.services import CallerDep, ServicesDep
from hemotorch.app.jobs.requests import ImportWork
from hemotorch.app.queue import JobQueue
from hemotorch.app.refusals import Conflict
from hemotorch.app.schemas import AppJob, ImportRequest, JobKind, JobState, UploadBatch, UploadState
from hemotorch.app.uploads import BATCH_ID
from hemotorch.errors import InputError

router = APIRouter(tags=["uploads"])
BatchId = Annotated[str, Path(pattern=BATCH_ID, description="chosen by the client, such as a UUID")]
_BODY = {"requestBody": {"content": {"application/octet-stream": {}}, "required": True}}


@router.put("/uploads/{batch}/{path:path}", openapi_extra=_BODY)
async def receive(
    batch: BatchId,
    path: Annotated[str, Path(max_length=1000, description="of the file, inside what is uploaded")],
    offset: Annotated[int, Query(ge=0, le=2**50, description="of the first byte that is sent")],
    size: Annotated[int, Query(alias="bytes", ge=0, le=2**50, description="of the whole file")],
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    x_content_sha256: Annotated[str, Header(pattern="^([0-9A-Fa-f]{64})?$", description="of the whole file")] = "",
) -> UploadState:
    """Takes a file, or a piece of it. Whoever was cut off asks for the batch and goes on from `offset`."""
    digest = x_content_sha256.lower()
    return await services.uploads.receive(batch, path, offset, size, digest, _body(request), caller.user)


@router.get("/uploads/{batch}")
def uploaded(batch: BatchId, services: ServicesDep) -> UploadBatch:
    """What is there of an upload."""
    return services.uploads.batch(batch)


@router.delete("/uploads/{batch}", status_code=204, response_class=Response)
def forget(batch: BatchId, services: ServicesDep, caller: CallerDep) -> Response:
    """Removes an upload that was not imported."""
    job = services.uploads.batch(batch).job
    if job and services.queue.get(job).state in (JobState.WAITING, JobState.RUNNING):
        raise Conflict("it is being imported", batch, "wait, or cancel that job first")
    services.uploads.delete(batch)
    services.audit.note(caller.user, "deleted an upload")
    return Response(status_code=204)


@router.post("/imports", status_code=202)
def start_import(wanted: ImportRequest, services: ServicesDep, caller: CallerDep) -> AppJob:
    """Looks for scans in an upload, or in a folder or file of the server, and adds them. Asked twice, done once."""
    if bool(wanted.batch) == bool(wanted.folder):
        raise InputError("give either the upload or the folder to look in", "batch, folder")
    if wanted.folder:
        folder = services.allowed_folder(wanted.folder)
        services.audit.note(caller.user, "imported", detail="a folder of the server")
        return import_folder(services.queue, folder, wanted.predict, caller.user)
    state = services.uploads.check_whole(wanted.batch)
    if state.job:
        return services.queue.get(state.job)
    count = len(state.files)
    title = f"Add scans: {count} file{'s' * (count != 1)}"
    files = str(services.uploads.files_folder(wanted.batch))
    work = ImportWork(paths=[files], batch=files, origin=wanted.batch, predict=wanted.predict)
    job = services.queue.add(JobKind.IMPORT, work.model_dump_json(), title, user=caller.user)
    services.uploads.set_job(wanted.batch, job.id)
    services.audit.note(caller.user, "imported", detail=f"an upload of {count} files")
    return job


def import_folder(queue: JobQueue, folder: FilePath, predict: bool, user: str) -> AppJob:
    """A job that adds the scans in a file or folder of the server, where they stay."""
    work = ImportWork(paths=[str(folder)], origin=str(folder), predict=predict)
    return queue.add(JobKind.IMPORT, work.model_dump_json(), "Add scans of a folder", user=user)


async def _body(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        yield piece
