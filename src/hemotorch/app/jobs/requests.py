"""What each kind of job is told, as JSON in its row."""

from __future__ import annotations

from hemotorch.app.schemas import Schema


class ImportWork(Schema):
    """Scans are looked for in `paths`, full ones.

    batch: the folder of the upload that they lie in, "" for the server's own folders. origin: what the import is called
    in the studies that it adds. predict: outline what is new at once.
    """

    paths: list[str]
    batch: str = ""
    origin: str = ""
    predict: bool = True


class PredictWork(Schema):
    """A study is outlined. model: its name, "" for the current one when the job begins."""

    study: str
    model: str = ""
