"""Who is looking, and what this server can do."""

from __future__ import annotations

from importlib.util import find_spec

from fastapi import APIRouter

from hemotorch import NOTICE, __version__
from hemotorch.app.api.services import CallerDep, Services, ServicesDep
from hemotorch.app.models import Models
from hemotorch.app.refusals import Conflict
from hemotorch.app.schemas import ReaderSession, SessionChange
from hemotorch.app.sessions import Caller
from hemotorch.errors import InputError

router = APIRouter(tags=["session"])


@router.get("/session")
def session(services: ServicesDep, caller: CallerDep) -> ReaderSession:
    """Who is looking, and what this server can do."""
    return _shown(services, caller)


@router.patch("/session")
def change_session(change: SessionChange, services: ServicesDep, caller: CallerDep) -> ReaderSession:
    """Changes the reader's name, or whether the reader is blind to others' versions."""
    user = change.user
    if user is not None:
        user = " ".join(user.split())
        if not user.isprintable():
            raise InputError("a name holds characters that do not print", "user")
        if caller.named and user != caller.user:
            raise Conflict("the name is given by the hospital's sign-in, and is not changed here", "user")
    services.sessions.change(caller, None if caller.named else user, change.blind)
    name = caller.user if user is None else user
    blind = caller.blind if change.blind is None else change.blind
    return _shown(services, Caller(caller.session, name, caller.role, blind, caller.named))


def _shown(services: Services, caller: Caller) -> ReaderSession:
    settings = services.settings
    lacks = "" if find_spec("torch") else "teaching needs torch: pip install 'hemotorch[train]'"
    return ReaderSession(
        user=caller.user,
        role=caller.role,
        blind=caller.blind,
        show_patient=settings.show_patient,
        version=__version__,
        notice=NOTICE,
        model=Models(services.workspace.folder, services.database).current,
        can_train=not lacks,
        why_not=lacks,
        folders=[str(folder) for folder in settings.folders],
        max_upload_mb=settings.max_file_mb,
    )
