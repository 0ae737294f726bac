"""Workspace: the app's folder and what keeps it. The server, its workers and its tests open it in the same way."""

from __future__ import annotations

from pathlib import Path

from hemotorch.app import library, measuring, models, queue, versions
from hemotorch.app.database import Database
from hemotorch.app.jobs.endings import on_end
from hemotorch.app.library import Library
from hemotorch.app.models import Models
from hemotorch.app.queue import JobQueue
from hemotorch.app.versions import Versions

LOGS = "logs"
TABLES = (library.TABLES, queue.TABLES, models.TABLES, versions.TABLES, measuring.TABLES)  # the library's first


class Workspace:
    """The folder. Safe to use from several threads and processes.

    folder: resolved. database, library, queue, models, versions: of it.
    """

    def __init__(self, folder: Path):
        """Opens it, and makes what is missing. Raises RunError."""
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.database = Database(self.folder, *TABLES)
        self.library = Library(self.folder, self.database)
        self.queue = JobQueue(self.database, on_end)
        self.models = Models(self.folder, self.database)
        self.versions = Versions(self.database, self.library)

    def log_file(self, job: str) -> Path:
        """The log of a job."""
        return self.folder / LOGS / f"{job}.log"
