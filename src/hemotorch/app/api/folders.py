"""Folders of the server that were allowed: browsed, watched."""

from __future__ import annotations

import os
from typing import Annotated

from fastapi import APIRouter, Query, Response

from hemotorch.app.api.services import CallerDep, ServicesDep
from hemotorch.app.schemas import FolderEntry, Watch
from hemotorch.errors import InputError

router = APIRouter(tags=["folders"])
MOST_ENTRIES = 5000


@router.get("/folders")
def folders(services: ServicesDep, path: Annotated[str, Query(max_length=4000)] = "") -> list[FolderEntry]:
    """What is in a folder; without a path, the folders that the server was given."""
    if not path:
        return [FolderEntry(name=root.name, path=str(root), is_folder=True) for root in services.settings.folders]
    folder = services.allowed_folder(path)
    if not folder.is_dir():
        raise InputError("is a file", folder.name)
    entries = []
    with os.scandir(folder) as found:
        for entry in found:
            # A link may lead out of what was allowed.
            if entry.name.startswith(".") or entry.is_symlink() or not entry.name.isprintable():
                continue
            entries.append(FolderEntry(name=entry.name, path=entry.path, is_folder=entry.is_dir()))
            if len(entries) == MOST_ENTRIES:
                break
    return sorted(entries, key=lambda entry: (not entry.is_folder, entry.name.casefold()))


@router.get("/watches")
def watches(services: ServicesDep) -> list[Watch]:
    """The folders that are watched."""
    return services.watches.list()


@router.post("/watches")
def watch(wanted: Watch, services: ServicesDep, caller: CallerDep) -> list[Watch]:
    """Watches a folder: what is new in it is added and outlined."""
    folder = services.allowed_folder(wanted.folder)
    if not folder.is_dir():
        raise InputError("is a file", folder.name, "watch the folder that it lies in")
    services.watches.add(Watch(folder=str(folder), seconds=wanted.seconds))
    services.audit.note(caller.user, "watched", detail="a folder of the server")
    return services.watches.list()


@router.delete("/watches", status_code=204, response_class=Response)
def unwatch(folder: Annotated[str, Query(max_length=4000)], services: ServicesDep, caller: CallerDep) -> Response:
    """Watches a folder no more."""
    services.watches.remove(folder)
    services.audit.note(caller.user, "stopped watching", detail="a folder of the server")
    return Response(status_code=204)
