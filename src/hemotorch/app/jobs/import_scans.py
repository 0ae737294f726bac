"""Import: scans in files, folders and zips become studies, with the masks that came along."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from hemotorch.app.jobs import Work
from hemotorch.app.jobs.requests import ImportWork, PredictWork
from hemotorch.app.schemas import JobKind, StudyStage
from hemotorch.data.layouts import Case, open_layout, png
from hemotorch.errors import HemotorchError, InputError, explain
from hemotorch.inference.scan_files import ScanFiles, find_scans
from hemotorch.io import dicom
from hemotorch.labels import UNTYPED
from hemotorch.scan import Scan
from hemotorch.system.events import (
    Event,
    Listener,
    Message,
    Problem,
    current_listener,
    emit,
    listening,
    progress,
)
from hemotorch.system.files import disk_error


def run(work: Work) -> None:
    """Adds all scans that are found, and says of each file that holds none why. Raises RunError if the disk is full."""
    wanted = ImportWork.model_validate_json(work.job.request)
    workspace = work.workspace
    paths = [Path(path) for path in wanted.paths]
    pseudonyms = workspace.library.pseudonyms()
    scans, refused = find_scans(paths, workspace.library.studies, pseudonyms=pseudonyms)
    # Whose scans these are is known now. Layouts and readers name files and series in full, also of what is refused.
    hide = dicom.hider(pseudonyms.secrets)
    with listening(_hiding(current_listener(), hide)):
        _add_all(work, wanted, scans, refused, hide)


def _add_all(
    work: Work,
    wanted: ImportWork,
    scans: list[ScanFiles],
    refused: list[tuple[Path, HemotorchError]],
    hide: Callable[[str], str],
) -> None:
    workspace = work.workspace
    batch = Path(wanted.batch) if wanted.batch else None
    paths = [Path(path) for path in wanted.paths]
    shorten = _shortener(batch)

    def shown(text: str) -> str:
        return hide(shorten(text))

    cases = _cases(paths)
    masks = {os.path.abspath(path) for case in cases.values() for path in case.mask_paths}
    scans = [scan for scan in scans if os.path.abspath(scan.path) not in masks]
    slices = _slices(cases, scans)
    for path, error in refused:
        # `find_scans` says of a folder of PNG slices that it holds no scan.
        of_slices = error.where == str(path) and any(path in scan.path.parents for scan in slices)
        if not of_slices:
            _refuse(work, error, shown, path)
    scans += slices
    added: list[str] = []
    for files in progress(scans, "reading", unit="scan"):
        try:
            study = _add(work, files, cases.get(_key(files.files)), batch, wanted.origin, shown)
        except Exception as error:
            if (full := disk_error(error, workspace.folder)) is not None:
                raise full from error
            _refuse(work, files.hide(explain(error, files.named_after)), shown, files.named_after)
            continue
        if study is None:
            continue
        added.append(study)
    with workspace.queue.finish(work.job) as connection:
        for study in added:
            if not wanted.predict:
                break
            query = "UPDATE study SET stage = ? WHERE id = ? AND stage = ? RETURNING id"
            stages = (StudyStage.WAITING.value, study, StudyStage.IMPORTED.value)
            if connection.execute(query, stages).fetchone() is None:
                continue  # outlined already, or on its way
            request = PredictWork(study=study).model_dump_json()
            title = f"Outline {study}"
            workspace.queue.add(JobKind.PREDICT, request, title, study=study, user=work.job.user, connection=connection)


def _add(
    work: Work, files: ScanFiles, case: Case | None, batch: Path | None, origin: str, shown: Callable[[str], str]
) -> str | None:
    """Adds one study; its id. A mask that does not fit is said, and the scan is added without it."""
    scan = files.read()
    truth: np.ndarray | None = None
    typed = False
    if case is not None and case.mask_paths:
        try:
            truth, typed = _truth(case, scan)
        except HemotorchError as error:
            _refuse(work, error, shown, case.mask_paths[0])
    added = work.workspace.library.add(scan, files, batch=batch, origin=origin, truth=truth, typed_truth=typed)
    if not added.is_new:
        emit(Message(f"{added.id} is here already"))
    return added.id


def _truth(case: Case, scan: Scan) -> tuple[np.ndarray, bool]:
    """The mask in codes, and whether it tells types apart. Raises InputError if it does not belong to the scan."""
    read, mask = case.read()
    assert mask is not None
    # A mask may be drawn on another series of the study than the one that is shown.
    if read.shape != scan.shape or not np.allclose(read.slice_origins_mm, scan.slice_origins_mm, atol=0.01):
        raise InputError("was drawn on another series than the one that is shown", case.mask_paths[0])
    case.check_mask(read, mask)
    return mask, bool(set(case.mask_codes.values()) - {UNTYPED})


def _cases(paths: list[Path]) -> dict[frozenset[str], Case]:
    """The cases of the datasets at these paths, as `prepare` knows them, by the files of their scans."""
    found: dict[frozenset[str], Case] = {}
    for path in paths:
        if not path.is_dir():
            continue
        for root in (path, *sorted(child for child in path.iterdir() if child.is_dir() and not child.is_symlink())):
            try:
                collection = open_layout(root)
            except HemotorchError:
                continue  # no dataset, or several in it: scans without masks
            for text in (*collection.warnings, *collection.passed_over):
                emit(Message(text))
            found.update({_key(case.scan_paths): case for case in collection.cases})
            if root == path:
                break
    return found


def _slices(cases: dict[frozenset[str], Case], scans: list[ScanFiles]) -> list[ScanFiles]:
    """Scans of the layout of PNG slices, which `find_scans` does not look for."""
    known = {_key(scan.files) for scan in scans}
    found: list[ScanFiles] = []
    for key, case in cases.items():
        if case.layout == png.NAME and key not in known:
            after = case.scan_paths[0] if len(case.scan_paths) == 1 else case.scan_paths[0].parent / case.name
            found.append(ScanFiles(case.scan_paths, after, case.warnings))
    return found


def _key(files: tuple[Path, ...]) -> frozenset[str]:
    return frozenset(map(os.path.abspath, files))


def _refuse(work: Work, error: HemotorchError, shown: Callable[[str], str], path: Path) -> None:
    where = error.where if error.where is not None else str(path)
    todo = None if error.todo is None else shown(error.todo)
    work.add_problem(type(error)(shown(error.what), shown(where), todo))


def _hiding(listener: Listener, hide: Callable[[str], str]) -> Listener:
    """A listener that is told texts without names of patients."""

    def tell(event: Event) -> None:
        listener(replace(event, text=hide(event.text)) if isinstance(event, (Message, Problem)) else event)

    return tell


def _shortener(batch: Path | None) -> Callable[[str], str]:
    """Takes the server's own folder out of texts about uploaded files."""
    if batch is None:
        return str
    prefix = f"{batch}{os.sep}"
    return lambda text: text.replace(prefix, "").replace(str(batch), "the upload")
