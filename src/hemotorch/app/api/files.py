"""Downloads of a study's files."""

from __future__ import annotations

import mimetypes

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from hemotorch.app.api.services import CallerDep, ServicesDep, StudyId
from hemotorch.app.study_files import file_of

router = APIRouter(tags=["files"])


@router.get(
    "/studies/{study}/files/{prediction}/{name}",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def download(study: StudyId, prediction: str, name: str, services: ServicesDep, caller: CallerDep) -> Response:
    """A file of a prediction: mask, SEG, SR, secondary capture, page, sheet, numbers."""
    path = file_of(services.library.folder(study), prediction, name)
    services.audit.note(caller.user, "exported", study, name)
    # Always saved and never shown: a page in it would run with the app's own rights.
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {"cache-control": "private, no-cache"}
    return FileResponse(path, media_type=kind, filename=name, headers=headers)
