"""The page and the thumbnail of a prediction as files, beside its mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hemotorch.inference.outputs import MASK, PAGE, RECORD, SHEET, THUMBNAILS
from hemotorch.io import dicom
from hemotorch.report.study_page import StudyText, study_page
from hemotorch.report.study_pictures import thumbnail
from hemotorch.scan import Prediction
from hemotorch.system.files import atomic, write_text

INDEX = "index.html"


def write_study(prediction: Prediction, folder: Path, name: str, result: dict[str, Any]) -> list[Path]:
    """Writes NAME.html and thumbnails/NAME.jpg; a `PageWriter` of `inference.outputs`.

    Args:
        prediction: of one scan.
        folder: that is there.
        name: that the files are called.
        result: what NAME.json will hold.

    Raises:
        RunError: if the disk is full or read-only.
    """
    files = {
        "the mask, in the grid of the scan": f"{name}{MASK}",
        "the same as a DICOM SEG": _of(result["dicom"], dicom.SEG),
        "mL as a DICOM structured report": _of(result["dicom"], dicom.SR),
        "pictures as a DICOM secondary capture": _of(result["dicom"], dicom.SC),
        "contact sheet": f"{name}{SHEET}",
        "all numbers": f"{name}{RECORD}",
    }
    page, picture = folder / f"{name}{PAGE}", folder / THUMBNAILS / f"{name}.jpg"
    write_text(page, study_page(prediction, StudyText(name, INDEX, files=files)))
    with atomic(picture) as temporary:
        temporary.write_bytes(thumbnail(prediction))
    return [page, picture]


def _of(names: Sequence[str], ending: str) -> str:
    """The name with this ending, "" if there is none."""
    return next((name for name in names if name.endswith(ending)), "")
