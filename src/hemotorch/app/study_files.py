"""What can be downloaded of a study: what `hemotorch predict` wrote, and exports of versions."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

from hemotorch.app.layers import LAYER, MASK, PREDICTION, PROBABILITY, LayerRecord
from hemotorch.app.refusals import Missing
from hemotorch.app.schemas import File

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
    """The files of a study's predictions, the newest prediction first.

    Args:
        folder: of the study.
        study: its id.
        layers: that the reader may see.
    """
    files: list[File] = []
    for record in reversed(layers):
        if record.layer.kind != PREDICTION:
            continue
        name = record.layer.id.partition(":")[2]
        for path in sorted((folder / "predictions" / name).iterdir()):
            if path.is_file() and path.name not in _OWN and _NAME.fullmatch(path.name):
                url = f"/api/v1/studies/{study}/files/{quote(name)}/{quote(path.name)}"
                title = title_of(path.name)
                files.append(File(name=path.name, title=title, bytes=path.stat().st_size, url=url))
    return files


def title_of(name: str) -> str:
    """What a file is, in words."""
    return next((title for ending, title in _TITLES if name.endswith(ending)), name)


def file_of(folder: Path, prediction: str, name: str) -> Path:
    """A file of a prediction. Raises Missing if there is none that may be downloaded."""
    path = folder / "predictions" / prediction / name
    if not _NAME.fullmatch(prediction) or not _NAME.fullmatch(name) or name in _OWN or not path.is_file():
        raise Missing("there is no such file", name[:100])
    return path
