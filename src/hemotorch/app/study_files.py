"""What can be downloaded of a study: what `hemotorch predict` wrote, and exports of versions."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

from hemotorch.app.jobs.requests import export_names
from hemotorch.app.layers import LAYER, MASK, PREDICTION, PROBABILITY, VERSION, LayerRecord, layer_folder
from hemotorch.app.refusals import Missing
from hemotorch.app.schemas import File
from hemotorch.app.stored_scan import read_stored
from hemotorch.io import dicom

_TITLES = (
    ("_mask.nii.gz", "mask, in the grid of the scan (NIfTI)"),
    ("_seg.dcm", "the same as a DICOM SEG"),
    ("_sr.dcm", "mL as a DICOM structured report"),
    ("_sc.dcm", "pictures as a DICOM secondary capture"),
    (".html", "page"),
    (".png", "contact sheet"),
    (".csv", "table"),
    (".json", "all numbers"),
)
_OWN = (MASK, PROBABILITY, LAYER)  #: the app's own, which the interface gives in other ways
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def study_files(folder: Path, study: str, layers: list[LayerRecord]) -> list[File]:
    """The files of a study's predictions and versions, the newest first.

    What is made when it is asked for has 0 bytes.

    Args:
        folder: of the study.
        study: its id.
        layers: that the reader may see.
    """
    files: list[File] = []
    for record in reversed(layers):
        if record.layer.kind == VERSION:
            files += _version_files(folder, study, record)
        if record.layer.kind != PREDICTION:
            continue
        name = record.layer.id.partition(":")[2]
        for path in sorted((folder / "predictions" / name).iterdir()):
            if path.is_file() and path.name not in _OWN and _NAME.fullmatch(path.name):
                url = f"/api/v1/studies/{study}/files/{quote(name)}/{quote(path.name)}"
                title = title_of(path.name)
                files.append(File(name=path.name, title=title, bytes=path.stat().st_size, url=url))
    return files


def _version_files(folder: Path, study: str, record: LayerRecord) -> list[File]:
    """What a version can be exported as: of DICOM also as a SEG, which points at the images."""
    number = int(record.layer.id.partition(":")[2])
    files: list[File] = []
    for name in export_names(study, number):
        path = layer_folder(folder, record.layer.id) / name
        if name.endswith(dicom.SEG) and (not record.layer.slices_with_bleeding or not _is_dicom(folder)):
            continue
        url = f"/api/v1/studies/{study}/versions/{number}/files/{quote(name)}"
        title = f"version {number}: {title_of(name)}"
        files.append(File(name=name, title=title, bytes=path.stat().st_size if path.is_file() else 0, url=url))
    return files


def _is_dicom(folder: Path) -> bool:
    return read_stored(folder).format == dicom.NAME


def title_of(name: str) -> str:
    """What a file is, in words."""
    return next((title for ending, title in _TITLES if name.endswith(ending)), name)


def file_of(folder: Path, prediction: str, name: str) -> Path:
    """A file of a prediction. Raises Missing if there is none that may be downloaded."""
    path = folder / "predictions" / prediction / name
    if not _NAME.fullmatch(prediction) or not _NAME.fullmatch(name) or name in _OWN or not path.is_file():
        raise Missing("there is no such file", name[:100])
    return path
