"""Dataset: corrected studies as a folder that `hemotorch prepare` takes, and the same as a zip."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np

from hemotorch.app.database import now
from hemotorch.app.datasets import DATA, RECORD, TrueStudy, dataset_folder, true_studies
from hemotorch.app.jobs import Work
from hemotorch.app.jobs.requests import DatasetWork
from hemotorch.app.layers import read_mask
from hemotorch.app.library import Library
from hemotorch.app.refusals import Missing
from hemotorch.app.schemas import CorrectedSet
from hemotorch.data.layouts import write_case, write_tables
from hemotorch.scan import CaseInfo
from hemotorch.system.events import progress
from hemotorch.system.files import explained, write_text

_LAYOUT = "folder"


def run(work: Work) -> None:
    """Writes the dataset; a former one of its name stays until the new one is whole.

    Raises:
        Missing: if there is nothing to write, or a study is gone or was not corrected.
        RunError: if the disk is full.
    """
    wanted = DatasetWork.model_validate_json(work.job.request)
    workspace = work.workspace
    studies = true_studies(workspace.library, wanted.studies)
    if not studies:
        raise Missing("no study was corrected or agreed with yet", todo="correct some, or agree with their outlines")
    place = dataset_folder(workspace.folder, wanted.name)
    new = place.with_name(f".{work.job.id}")
    shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
    with explained(new):
        try:
            write_studies(workspace.library, studies, new / DATA)
            _pack(new / DATA, new / f"{wanted.name}.zip", wanted.name)
            made = CorrectedSet(
                name=wanted.name,
                time=now(),
                studies=[study.id for study in studies],
                patients=len({study.group for study in studies}),
                path=str(place / DATA),
            )
            write_text(new / RECORD, made.model_dump_json(indent=2))
            workspace.queue.renew(work.job)
            aside = new.with_name(f"{new.name}.old")
            if place.exists():
                os.replace(place, aside)
            os.replace(new, place)
            shutil.rmtree(aside, ignore_errors=True)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    with workspace.queue.finish(work.job):
        pass


def write_studies(library: Library, studies: list[TrueStudy], root: Path) -> None:
    """Scans and truths in the layout `folder`. No name of a patient is in it: scans are called by their pseudonyms.

    Args:
        library: that holds them.
        studies: with truths.
        root: the folder, which is made.
    """
    infos: list[CaseInfo] = []
    for study in progress(studies, "writing", unit="study"):
        scan = library.scan(study.id)
        mask = np.array(read_mask(library.folder(study.id), study.layer.layer.id))
        info = CaseInfo(study.id, study.patient, hemorrhage=bool(mask.any()))
        write_case(_LAYOUT, root, study.id, scan, mask, info)
        infos.append(info)
    # Whoever is not known has no line: `prepare` then says that it takes each scan for a patient of its own.
    write_tables(_LAYOUT, root, [info for info in infos if info.patient])


def _pack(root: Path, path: Path, name: str) -> None:
    """A zip of a folder; what is compressed already is stored as it is."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.write(file, Path(name) / file.relative_to(root))
