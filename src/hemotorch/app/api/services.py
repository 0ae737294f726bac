"""What all routes share: the parts of the server, and who asks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from fastapi import Path as PathParameter

from hemotorch.app.audit import AuditLog
from hemotorch.app.database import Database
from hemotorch.app.events import EventStream
from hemotorch.app.library import Library
from hemotorch.app.queue import JobQueue
from hemotorch.app.refusals import Forbidden
from hemotorch.app.sessions import Caller, Sessions
from hemotorch.app.settings import AppSettings
from hemotorch.app.uploads import Uploads
from hemotorch.app.watch import Watches
from hemotorch.app.worklist import Worklist
from hemotorch.app.workspace import Workspace


@dataclass(frozen=True)
class Services:
    """The parts of a running server."""

    settings: AppSettings
    workspace: Workspace
    worklist: Worklist
    sessions: Sessions
    audit: AuditLog
    uploads: Uploads
    events: EventStream
    watches: Watches

    @property
    def database(self) -> Database:
        """The workspace's."""
        return self.workspace.database

    @property
    def library(self) -> Library:
        """The workspace's."""
        return self.workspace.library

    @property
    def queue(self) -> JobQueue:
        """The workspace's."""
        return self.workspace.queue

    def allowed_folder(self, path: str) -> Path:
        """A file or folder of the server, resolved. Raises Forbidden if it lies outside those that were allowed."""
        wanted = Path(path)
        if wanted.is_absolute() and "\0" not in path:
            resolved = wanted.resolve()
            if any(resolved.is_relative_to(folder) for folder in self.settings.folders) and resolved.exists():
                return resolved
        raise Forbidden("this is not in a folder that the server was given", todo="start it with --allow FOLDER")


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


ServicesDep = Annotated[Services, Depends(_services)]
CallerDep = Annotated[Caller, Depends(_caller)]
StudyId = Annotated[str, PathParameter(pattern="^study-[0-9a-f]{8}$")]
