"""Corrections: drafts, versions, comparisons and measurements."""

from __future__ import annotations

import mimetypes
import re
import zlib
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from hemotorch.app.api.services import CallerDep, Services, ServicesDep, StudyId
from hemotorch.app.api.studies import visible
from hemotorch.app.comparing import compare_layers
from hemotorch.app.jobs.requests import ExportWork, export_names
from hemotorch.app.layers import VERSION, layer_folder, read_layers
from hemotorch.app.measuring import read_measurements, save_measurements
from hemotorch.app.refusals import Missing, TooMuch
from hemotorch.app.schemas import (
    AppJob,
    Draft,
    JobKind,
    JobState,
    LayerComparison,
    Measurements,
    Version,
    VersionRequest,
)
from hemotorch.app.sessions import Caller
from hemotorch.app.versions import NewerVersion
from hemotorch.errors import InputError

router = APIRouter(tags=["corrections"])
BYTES: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}}
LayerId = Annotated[str, Query(max_length=120)]
Number = Annotated[int, PathParameter(ge=1, le=10**8)]
_GZIP = b"\x1f\x8b"
_SLACK = 4096  #: bytes by which a packed body may be longer than what is in it


@router.get("/studies/{study}/draft")
def draft(study: StudyId, services: ServicesDep, caller: CallerDep, response: Response) -> Draft | None:
    """The reader's unsaved correction; null if there is none, since a browser's console calls a 404 an error."""
    services.library.row(study)
    known = services.workspace.versions.draft(study, caller.user)
    if known is not None:
        response.headers["etag"] = f'"{known.revision}"'
    return known


@router.get("/studies/{study}/draft/mask", response_class=Response, responses=BYTES)
def draft_mask(study: StudyId, services: ServicesDep, caller: CallerDep) -> Response:
    """Codes of the draft's mask, uint8, as (slices, rows, columns)."""
    known = _draft(services, caller, study)
    mask = services.workspace.versions.draft_mask(known, caller.user)
    headers = {"etag": f'"{known.revision}"', "cache-control": "private, no-store"}
    headers["x-shape"] = ",".join(map(str, mask.shape))
    return Response(mask.tobytes(), media_type="application/octet-stream", headers=headers)


_MASK_BODY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


@router.put("/studies/{study}/draft", openapi_extra={"requestBody": {"content": _MASK_BODY, "required": True}})
async def save_draft(
    study: StudyId,
    request: Request,
    response: Response,
    services: ServicesDep,
    caller: CallerDep,
    base: LayerId = "",
    if_match: Annotated[str, Header(max_length=40, description="the revision that this tab has seen")] = "0",
) -> Draft:
    """Saves the whole mask, uint8 codes, plain or packed with gzip. 412 if another tab saved meanwhile."""
    services.library.row(study)
    size = int(np.prod(services.library.scan(study).shape))
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > size + _SLACK:
            raise TooMuch(f"the mask has {size} bytes, and more were sent", study)

    def save() -> Draft:
        shape = services.library.scan(study).shape
        mask = np.frombuffer(_unpacked(bytes(body), size, study), np.uint8).reshape(shape)
        _check_visible(services, caller, study, base)
        return services.workspace.versions.save_draft(study, caller.user, base, mask, _revision(if_match))

    saved = await run_in_threadpool(save)
    response.headers["etag"] = f'"{saved.revision}"'
    return saved


@router.delete("/studies/{study}/draft", status_code=204, response_class=Response)
def delete_draft(study: StudyId, services: ServicesDep, caller: CallerDep) -> Response:
    """Throws the reader's unsaved correction away."""
    services.library.row(study)
    services.workspace.versions.delete_draft(study, caller.user)
    return Response(status_code=204)


@router.get("/studies/{study}/versions")
def versions(study: StudyId, services: ServicesDep, caller: CallerDep) -> list[Version]:
    """Saved corrections, the oldest first. A blind reader sees others' after saving one."""
    services.library.row(study)
    return _visible_versions(services, caller, study)


@router.post(
    "/studies/{study}/versions",
    status_code=201,
    response_model=Version,
    responses={409: {"model": Version, "description": "the newest version, which the reader has not seen"}},
)
def save_version(wanted: VersionRequest, study: StudyId, services: ServicesDep, caller: CallerDep) -> Any:
    """The reader's draft becomes a version, which never changes again."""
    services.library.row(study)
    try:
        saved = services.workspace.versions.save_version(study, caller.user, wanted.after, wanted.comment, caller.blind)
    except NewerVersion as newer:
        return JSONResponse(newer.newest.model_dump(mode="json"), 409)
    services.audit.note(caller.user, "corrected", study, f"version {saved.number}")
    return saved


@router.get(
    "/studies/{study}/versions/{number}/files/{name}",
    response_class=Response,
    responses={200: BYTES[200], 202: {"model": AppJob, "description": "it is being made"}},
)
def version_file(study: StudyId, number: Number, name: str, services: ServicesDep, caller: CallerDep) -> Response:
    """A version as NIfTI, as a DICOM SEG, or in numbers. It is made by a job if it is not there yet."""
    if number not in [version.number for version in _visible_versions(services, caller, study)]:
        raise Missing("there is no such version", f"{study}, version {number}")
    if name not in export_names(study, number):
        raise Missing("a version has no such file", name[:100], f"it has {', '.join(export_names(study, number))}")
    path = layer_folder(services.library.folder(study), f"{VERSION}:{number}") / name
    if not path.is_file():
        job = _export(services, caller, study, number)
        if job.state == JobState.DONE:
            why = job.problems[0].what if job.problems else "it could not be made"
            raise Missing(f"there is no such file: {why}", name)
        return JSONResponse(job.model_dump(mode="json"), 202, headers={"cache-control": "no-store"})
    services.audit.note(caller.user, "exported", study, name)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return FileResponse(path, media_type=kind, filename=name, headers={"cache-control": "private, no-cache"})


@router.get("/studies/{study}/compare")
def compare(study: StudyId, a: LayerId, b: LayerId, services: ServicesDep, caller: CallerDep) -> LayerComparison:
    """Two layers: Dice of all bleeding and of each type, and mL that only one of them has."""
    services.library.row(study)
    for layer in (a, b):
        _check_visible(services, caller, study, layer)
    return compare_layers(services.library.folder(study), services.library.scan(study), a, b)


@router.get("/studies/{study}/measurements")
def measurements(study: StudyId, services: ServicesDep, caller: CallerDep) -> Measurements:
    """What the reader measured."""
    services.library.row(study)
    return read_measurements(services.database, study, caller.user)


@router.put("/studies/{study}/measurements")
def measure(wanted: Measurements, study: StudyId, services: ServicesDep, caller: CallerDep) -> Measurements:
    """Saves all that the reader measured. 412 if another tab saved meanwhile."""
    services.library.row(study)
    return save_measurements(services.database, study, caller.user, wanted)


def _draft(services: Services, caller: Caller, study: str) -> Draft:
    services.library.row(study)
    known = services.workspace.versions.draft(study, caller.user)
    if known is None:
        raise Missing("there is no draft", study)
    return known


def _check_visible(services: Services, caller: Caller, study: str, layer: str) -> None:
    """Raises Missing for a layer that is not there, or that this reader does not see yet."""
    seen = visible(read_layers(services.library.folder(study)), caller)
    if layer and layer not in [record.layer.id for record in seen]:
        raise Missing("there is no such layer", layer[:60])


def _visible_versions(services: Services, caller: Caller, study: str) -> list[Version]:
    found = services.workspace.versions.versions(study)
    if caller.blind and not any(version.user == caller.user for version in found):
        return []
    return found


def _export(services: Services, caller: Caller, study: str, number: int) -> AppJob:
    """The job that makes a version's files: one that is under way, or that has done what it could, or a new one."""
    request = ExportWork(study=study, number=number).model_dump_json()
    query = "SELECT id FROM job WHERE kind = ? AND study = ? AND request = ? ORDER BY number DESC LIMIT 1"
    row = services.database.row(query, (JobKind.EXPORT_VERSION, study, request))
    if row is not None:
        job = services.queue.get(row["id"])
        if job.state not in (JobState.FAILED, JobState.CANCELLED):
            return job
    title = f"Export version {number} of {study}"
    return services.queue.add(JobKind.EXPORT_VERSION, request, title, study=study, user=caller.user)


def _revision(if_match: str) -> int:
    """The number in an If-Match header: "3", with or without quotes."""
    found = re.fullmatch(r'\s*(?:W/)?"?([0-9]{1,15})"?\s*', if_match)
    if found is None:
        raise InputError("must be the draft's revision", "If-Match", 'send it as "3", and "0" for a new draft')
    return int(found[1])


def _unpacked(body: bytes, size: int, study: str) -> bytes:
    """The mask's bytes. No more is unpacked than a mask has. Raises InputError if it has another length."""
    if len(body) != size and body.startswith(_GZIP):
        unpacker = zlib.decompressobj(wbits=31)
        try:
            body = unpacker.decompress(body, size + 1)
        except zlib.error as error:
            raise InputError("is no gzip", study) from error
        if not unpacker.eof and len(body) <= size:
            raise InputError("ends too early", study, "send it again")
    if len(body) != size:
        raise InputError(f"a mask of this scan has {size} bytes, {len(body)} were sent", study)
    return body
