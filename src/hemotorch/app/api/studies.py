"""The worklist and a study's page."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, StreamingResponse

from hemotorch.app.api.services import CallerDep, Services, ServicesDep, StudyId
from hemotorch.app.layers import VERSION, LayerRecord, newest, read_layers, rounded
from hemotorch.app.library import THUMBNAIL
from hemotorch.app.refusals import Conflict, Missing
from hemotorch.app.schemas import (
    EarlierStudy,
    ReadingState,
    ScanGeometry,
    Study,
    StudyChange,
    StudyPage,
    StudyStage,
    StudySummary,
)
from hemotorch.app.sessions import Caller
from hemotorch.app.study_files import study_files
from hemotorch.app.worklist import AnyOrNone, Sort, Wanted
from hemotorch.inference.study import GROWN_ML, GROWN_SHARE, MARK_ML
from hemotorch.scan import Scan

router = APIRouter(tags=["studies"])


def _wanted(
    query: Annotated[str, Query(max_length=200, description="part of a pseudonym, a name that is shown, or a note")],
    state: ReadingState | None,
    stage: StudyStage | None,
    doubts: AnyOrNone | None,
    bleeding: AnyOrNone | None,
    sort: Sort,
    order: Annotated[str, Query(pattern="^(asc|desc)?$")],
) -> Wanted:
    falling = None if not order else order == "desc"
    return Wanted(query, state, stage, doubts, bleeding, sort, falling)


@router.get("/studies")
def studies(
    services: ServicesDep,
    query: Annotated[str, Query(max_length=200, description="part of a pseudonym, a shown name, or a note")] = "",
    state: ReadingState | None = None,
    stage: StudyStage | None = None,
    doubts: AnyOrNone | None = None,
    bleeding: AnyOrNone | None = None,
    sort: Sort = Sort.PRIORITY,
    order: Annotated[str, Query(pattern="^(asc|desc)?$")] = "",
    cursor: Annotated[str, Query(max_length=500)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> StudyPage:
    """A page of the worklist. By priority: doubtful and unread first, what a person has judged last."""
    return services.worklist.page(_wanted(query, state, stage, doubts, bleeding, sort, order), cursor, limit)


@router.get("/studies.csv", response_class=Response, responses={200: {"content": {"text/csv": {}}}})
def studies_table(
    services: ServicesDep,
    caller: CallerDep,
    query: Annotated[str, Query(max_length=200)] = "",
    state: ReadingState | None = None,
    stage: StudyStage | None = None,
    doubts: AnyOrNone | None = None,
    bleeding: AnyOrNone | None = None,
    sort: Sort = Sort.PRIORITY,
    order: Annotated[str, Query(pattern="^(asc|desc)?$")] = "",
) -> Response:
    """The worklist as CSV, all pages."""
    lines = services.worklist.table(_wanted(query, state, stage, doubts, bleeding, sort, order))
    services.audit.note(caller.user, "exported", detail="the worklist as CSV")
    headers = {"content-disposition": 'attachment; filename="studies.csv"'}
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/studies/{study}")
def study_page(study: StudyId, services: ServicesDep, caller: CallerDep) -> Study:
    """A study with all that its page shows."""
    shown = _study(services, caller, study)
    services.audit.look(caller.user, study)
    return shown


@router.patch("/studies/{study}")
def judge(study: StudyId, change: StudyChange, services: ServicesDep, caller: CallerDep) -> Study:
    """What a reader says of a study: agreed, wrong, unsure; a note."""
    services.library.row(study)
    services.library.set_reading(study, change.state, caller.user, change.note)
    services.audit.note(caller.user, "judged", study, "" if change.state is None else change.state.value)
    return _study(services, caller, study)


@router.delete("/studies/{study}", status_code=204, response_class=Response)
def delete_study(study: StudyId, services: ServicesDep, caller: CallerDep) -> Response:
    """Removes a study, its predictions and its versions. A scan that lies in a server's folder stays there."""
    row = services.library.row(study)
    if row["stage"] == StudyStage.PREDICTING:
        raise Conflict("it is being outlined", study, "wait, or cancel that job first")
    services.library.delete(study)
    services.audit.note(caller.user, "deleted", study)
    return Response(status_code=204)


@router.get("/studies/{study}/thumbnail.jpg", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
def thumbnail(study: StudyId, services: ServicesDep) -> Response:
    """The slice with the most bleeding, or the middle one."""
    path = services.library.folder(study) / THUMBNAIL
    if not path.is_file():
        raise Missing("there is no such study", study)
    return FileResponse(path, media_type="image/jpeg", headers={"cache-control": "private, no-cache"})


def _study(services: Services, caller: Caller, study: str) -> Study:
    summary = services.worklist.one(study)
    if summary is None:
        raise Missing("there is no such study", study)
    scan = services.library.scan(study)
    all_layers = read_layers(services.library.folder(study))
    layers = visible(all_layers, caller)
    record = newest(layers)
    total = None if record is None else record.total_ml
    return Study(
        **dict(summary),
        geometry=geometry(scan),
        layers=[layer.layer for layer in layers],
        lesions=[] if record is None else record.lesions,
        warnings=list(scan.warnings),
        remarks=[] if record is None else list(record.remarks),
        abc2_ml=None if record is None else record.abc2_ml,
        longest_mm=None if record is None else record.longest_mm,
        over_30_ml=None if total is None else total > MARK_ML,
        earlier=_earlier(services, summary),
        files=study_files(services.library.folder(study), study, layers),
        note=services.library.row(study)["note"],
        hidden_layers=len(all_layers) - len(layers),
    )


def visible(layers: list[LayerRecord], caller: Caller) -> list[LayerRecord]:
    """The layers that a reader may see: a blind one sees others' versions after saving one of their own."""
    has_own = any(layer.layer.kind == VERSION and layer.layer.user == caller.user for layer in layers)
    if not caller.blind or has_own:
        return layers
    return [layer for layer in layers if layer.layer.kind != VERSION]


def geometry(scan: Scan) -> ScanGeometry:
    """Where a scan's voxels lie, as the interface says it."""
    positions = scan.slice_origins_mm @ scan.normal
    return ScanGeometry(
        shape=scan.shape,
        pixel_mm=scan.pixel_mm,
        positions_mm=[round(float(position), 4) for position in positions],
        voxel_ml=[None if rounded(ml) is None else float(ml) for ml in scan.voxel_ml],
        spacing_known=scan.spacing_known,
        slice_numbers=list(scan.slice_numbers),
    )


def _earlier(services: Services, summary: StudySummary) -> list[EarlierStudy]:
    """The patient's earlier studies, the last one first."""
    here = services.library.row(summary.id)
    if not here["patient"] or not here["moment"]:
        return []
    query = "SELECT * FROM study WHERE patient = ? AND moment != '' AND moment < ? ORDER BY moment DESC LIMIT 50"
    found = []
    for row in services.database.rows(query, (here["patient"], here["moment"])):
        elapsed = datetime.fromisoformat(here["moment"]) - datetime.fromisoformat(row["moment"])
        change, percent, grown = None, None, False
        before, after = row["total_ml"], here["total_ml"]
        if before is not None and after is not None:
            change = round(after - before, 3)
            percent = None if before == 0 else round(100 * change / before, 1)
            grown = change > GROWN_ML or (before > 0 and change > GROWN_SHARE * before)
        notes = []
        intervals = json.loads(here["interval_ml"]), json.loads(row["interval_ml"])
        if change and all(intervals) and intervals[0][0] <= intervals[1][1] and intervals[1][0] <= intervals[0][1]:
            notes.append("the intervals of both volumes overlap: the change may be none")
        if here["doubt_count"] or row["doubt_count"]:
            notes.append("one of the two studies is in doubt")
        entry = EarlierStudy(
            id=row["id"],
            hours=round(elapsed.total_seconds() / 3600, 2),
            change_ml=change,
            change_percent=percent,
            grown=grown,
            note="; ".join(notes),
        )
        found.append(entry)
    return found
