"""Scans -> predictions as files, a page for each, and the list of all of them: what `hemotorch predict` does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hemotorch.errors import HemotorchError
from hemotorch.inference.studies import DoneBefore, Result, predict_files
from hemotorch.report.study_files import write_study
from hemotorch.report.study_list import StudyList


def predict_studies(
    model: Path | str | Sequence[Path | str], scans: Sequence[Path | str], out: Path | str, **options: Any
) -> Iterator[tuple[Path, Result]]:
    """Predicts as `predict_files` does; also writes NAME.html for each scan, and over all index.html and studies.csv.

    The lists are written from time to time, and at the end, also if the caller stops early.

    Args:
        model, scans, out, options: as `inference.studies.predict_files` takes them.

    Yields:
        What each scan is called in messages, with its record or its error.

    Raises:
        InputError, RunError: as `predict_files`.
    """
    studies = StudyList(Path(out))
    begun = False
    results = predict_files(model, scans, out, write_page=write_study, note_failed=studies.add_failed, **options)
    try:
        for path, result in results:
            begun = True
            if not isinstance(result, HemotorchError):
                studies.add(result.record if isinstance(result, DoneBefore) else result)
            yield path, result
        for given in scans:  # a folder that was not read as a whole before, and is now
            studies.forget_failed(Path(os.path.abspath(given)).name)
    finally:
        if begun:
            studies.write()
