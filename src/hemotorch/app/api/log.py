"""What happens, as it happens, and who did what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from hemotorch.app.api.services import ServicesDep
from hemotorch.app.schemas import AuditPage

router = APIRouter(tags=["log"])


@router.get("/events", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}})
async def events(
    services: ServicesDep,
    last_event_id: Annotated[str, Header(description="of the last event that was seen")] = "",
) -> Response:
    """Changes of studies, jobs and trainings as server-sent events; after "resync" ask for everything anew."""
    stream = services.events.listen(last_event_id)
    # Proxies must not hold events back.
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


@router.get("/audit")
def audit(services: ServicesDep, cursor: Annotated[str, Query(max_length=40)] = "") -> AuditPage:
    """Who looked, judged, corrected, exported and deleted, newest first."""
    return services.audit.page(cursor)
