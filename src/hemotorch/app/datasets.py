"""Datasets of corrected studies: which studies have a truth, and the folders that were made of them.

datasets/NAME/data/         images/, masks/, labels.json, patients.csv: what `hemotorch prepare` takes
datasets/NAME/NAME.zip      the same
datasets/NAME/dataset.json  what it is; written last
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hemotorch.app.layers import LayerRecord, newest, read_layers
from hemotorch.app.library import Library
from hemotorch.app.refusals import Missing
from hemotorch.app.schemas import CorrectedSet, ReadingState

DATASETS, DATA, RECORD = "datasets", "data", "dataset.json"


@dataclass(frozen=True)
class TrueStudy:
    """A study whose outline a person has corrected or agreed with.

    layer: that holds the truth. patient: a pseudonym, "" if it is not known whose it is.
    """

    id: str
    layer: LayerRecord
    patient: str

    @property
    def group(self) -> str:
        """What keeps all studies of one patient together; a study of an unknown patient stands for its own."""
        return self.patient or self.id


def true_studies(library: Library, wanted: list[str]) -> list[TrueStudy]:
    """Studies with a truth, by their ids.

    Args:
        library: of the workspace.
        wanted: ids; empty for all that were corrected or agreed with.

    Raises:
        Missing: if one of them is not there, or nobody has corrected it or agreed with its outline.
    """
    states = (ReadingState.CORRECTED.value, ReadingState.AGREED.value)
    query = "SELECT id, patient, state FROM study WHERE state IN (?, ?) ORDER BY id"
    rows = {row["id"]: row for row in library.database.rows(query, states)}
    found = []
    for study in dict.fromkeys(wanted) or rows:
        layer = newest(read_layers(library.folder(study))) if study in rows else None
        if layer is not None:
            found.append(TrueStudy(study, layer, rows[study]["patient"]))
        elif wanted:
            library.row(study)
            raise Missing("nobody has corrected its outline or agreed with it", study, "open it, and press A to agree")
    return found


def dataset_folder(folder: Path, name: str) -> Path:
    """Where a dataset lies. folder: of the workspace."""
    return folder / DATASETS / name


def read_dataset(folder: Path, name: str) -> CorrectedSet:
    """A dataset. Raises Missing if there is none of that name."""
    try:
        return CorrectedSet.model_validate_json((dataset_folder(folder, name) / RECORD).read_bytes())
    except (OSError, ValidationError) as error:
        raise Missing("there is no such dataset", name[:64]) from error


def list_datasets(folder: Path) -> list[CorrectedSet]:
    """All datasets, the newest first."""
    names = [path.parent.name for path in (folder / DATASETS).glob(f"*/{RECORD}")]
    return sorted((read_dataset(folder, name) for name in names), key=lambda made: made.time, reverse=True)
