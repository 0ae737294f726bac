"""Models of a workspace: those in the box, those that were taught here, and which of them outlines new studies.

models/NAME/model.json    what it is; written last
models/NAME/...           its file, or a link to where the server was told that it lies
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import ValidationError

from hemotorch.app.database import Database, announce
from hemotorch.app.refusals import Missing
from hemotorch.app.schemas import ModelInfo, Schema
from hemotorch.errors import InputError, nearest
from hemotorch.inference import box
from hemotorch.system.files import atomic, file_digest, write_text
from hemotorch.system.records import to_values

MODELS, RECORD = "models", "model.json"
IN_THE_BOX = "in the box"

TABLES = """
CREATE TABLE IF NOT EXISTS current_model (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    name TEXT NOT NULL
);
"""


class ModelRecord(Schema):
    """What model.json holds. file: in the model's folder, or in full."""

    name: str
    title: str
    file: str
    sha256: str
    megabytes: float
    origin: str


class Models:
    """The models of a workspace. Safe to use from several threads and processes."""

    def __init__(self, folder: Path, database: Database):
        """folder: of the workspace. database: that `TABLES` were handed to."""
        self._folder = folder / MODELS
        self._database = database

    @property
    def current(self) -> str:
        """The model that outlines new studies."""
        row = self._database.row("SELECT name FROM current_model")
        return box.DEFAULT if row is None else str(row["name"])

    def names(self) -> list[str]:
        """All of them, those in the box first."""
        own = sorted(path.parent.name for path in self._folder.glob(f"*/{RECORD}"))
        return [*box.names(), *own]

    def list(self) -> list[ModelInfo]:
        """All of them. One in the box that is damaged is left out; `hemotorch doctor` says so."""
        return [self.info(name) for name in self.names()]

    def info(self, name: str) -> ModelInfo:
        """A model. Raises InputError if there is none of that name."""
        is_current = name == self.current
        if name in box.names():
            card = box.card(name)
            return ModelInfo(
                name=name,
                title=card.title,
                current=is_current,
                sha256=card.sha256,
                megabytes=card.megabytes,
                origin=IN_THE_BOX,
                card=to_values(card),
            )
        record = self._record(name)
        return ModelInfo(
            name=name,
            title=record.title,
            current=is_current,
            sha256=record.sha256,
            megabytes=record.megabytes,
            origin=record.origin,
            card=None,
        )

    def title(self, name: str) -> str:
        """What people call it."""
        return f"{name} (in the box)" if name in box.names() else self._record(name).title

    def file(self, name: str) -> Path:
        """The model's file. Raises InputError if there is none of that name, or if it is not the file that it was."""
        if name in box.names():
            return box.model_file(name)
        record = self._record(name)
        path = self._folder / name / record.file
        if not path.is_file():
            raise InputError("its file is missing", name, "restore it, or use another model")
        if file_digest(path) != record.sha256:
            raise InputError("its file was changed", name, "restore it, or use another model")
        return path

    def use(self, name: str) -> ModelInfo:
        """Outlines new studies with it from now on. Only a person decides that. Raises InputError if it is gone."""
        self.file(name)
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO current_model VALUES (1, ?)", (name,))
            announce(connection, "training", "")
        return self.info(name)

    def add(self, name: str, file: Path, title: str, origin: str) -> ModelInfo:
        """Adds a copy of a model's file. A model of that name that is the same file stays; another one is an error.

        Raises:
            InputError: if the name is taken.
            RunError: if the disk is full.
        """
        digest = file_digest(file)
        if name in self.names():
            if self.info(name).sha256 == digest:
                return self.info(name)
            raise InputError("there is a model of that name already", name, "choose another name")
        folder = self._folder / name
        target = folder / f"model{file.suffix}"
        with atomic(target) as temporary:
            shutil.copyfile(file, temporary)
        megabytes = round(target.stat().st_size / 1e6, 2)
        record = ModelRecord(
            name=name, title=title, file=target.name, sha256=digest, megabytes=megabytes, origin=origin
        )
        write_text(folder / RECORD, record.model_dump_json(indent=2))
        return self.info(name)

    def _record(self, name: str) -> ModelRecord:
        if name not in self.names():
            raise Missing("there is no such model", name[:60], nearest(name[:60], self.names()))
        path = self._folder / name / RECORD
        try:
            return ModelRecord.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise InputError("its record is damaged", name, "restore it from a backup") from error
