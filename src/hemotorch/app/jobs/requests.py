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


class ExportWork(Schema):
    """A version's files are made."""

    study: str
    number: int


def export_names(study: str, number: int) -> tuple[str, str, str]:
    """What a version's files are called: its mask as NIfTI and as DICOM SEG, and its numbers."""
    name = f"{study}_version{number}"
    return f"{name}_mask.nii.gz", f"{name}_seg.dcm", f"{name}.json"


class DatasetWork(Schema):
    """A dataset of corrected studies is written."""

    name: str
    studies: list[str]
