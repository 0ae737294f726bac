"""Scans -> predictions as files, a page for each, and the list of all of them: what `hemotorch predict` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hemotorch.errors import HemotorchError
from hemotorch.inference.outputs import Result, predict_files
from hemotorch.report.study_files import write_study
from hemotorch.report.study_list import StudyList
from hemotorch.scan import Prediction


def predict_studies(
    model: Path | str | Sequence[Path | str], scans: Sequence[Path | str], out: Path | str, **options: Any
) -> Iterator[tuple[Path, Result]]:
    """Predicts as `predict_files` does; also writes NAME.html for each scan, and index.html over all of the folder.

    The list is written from time to time, and at the end, also if the caller stops early.

    Args:
        model, scans, out, options: as `inference.outputs.predict_files` takes them.

    Yields:
        Each scan's path, with the content of its NAME.json or its error.

    Raises:
        InputError, RunError: as `predict_files`.
    """
    studies = StudyList(Path(out))

    def write_page(prediction: Prediction, folder: Path, name: str, result: dict[str, Any]) -> list[Path]:
        files = write_study(prediction, folder, name, result)
        studies.add(name, result)
        return files

    begun = False
    try:
        for path, result in predict_files(model, scans, out, write_page=write_page, **options):
            begun = True
            if isinstance(result, HemotorchError):
                studies.add_failed(path.name, result)
            yield path, result
    finally:
        if begun:
            studies.write()
