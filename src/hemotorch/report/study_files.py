"""The page and the thumbnail of a prediction as files, beside its mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hemotorch.inference.outputs import MASK, PAGE, RECORD, SHEET, THUMBNAILS
from hemotorch.inference.study import StudyRecord
from hemotorch.io import dicom
from hemotorch.pictures.legend import ml_text
from hemotorch.report.study_page import Change, StudyText, study_page
from hemotorch.report.study_pictures import thumbnail
from hemotorch.scan import Prediction
from hemotorch.system.files import atomic, write_text

INDEX = "index.html"


def write_study(prediction: Prediction, folder: Path, record: StudyRecord) -> list[Path]:
    """Writes NAME.html and thumbnails/NAME.jpg; a `PageWriter` of `inference.outputs`.

    Args:
        prediction: of one scan.
        folder: that is there.
        record: of the prediction.

    Raises:
        RunError: if the disk is full or read-only.
    """
    name = record.name
    files = {
        "the mask, in the grid of the scan": f"{name}{MASK}",
        "the same as a DICOM SEG": _of(record.dicom, dicom.SEG),
        "mL as a DICOM structured report": _of(record.dicom, dicom.SR),
        "pictures as a DICOM secondary capture": _of(record.dicom, dicom.SC),
        "contact sheet": f"{name}{SHEET}",
        "all numbers": f"{name}{RECORD}",
    }
    page, picture = folder / f"{name}{PAGE}", folder / THUMBNAILS / f"{name}.jpg"
    text = StudyText(name, INDEX, record.abc2_ml, record.longest_mm, change_in_words(record), files)
    write_text(page, study_page(prediction, text))
    with atomic(picture) as temporary:
        temporary.write_bytes(thumbnail(prediction))
    return [page, picture]


def change_in_words(record: StudyRecord) -> Change | None:
    """The change since the patient's earlier study, as its page says it; None if there is none."""
    change = record.follow_up
    if change is None or record.total_ml is None:
        return None
    days = change.hours / 24
    when = f"{days:.0f} days before" if days >= 2 else f"{change.hours:.0f} hours before"
    share = "" if change.change_percent is None else f"{change.change_percent:+.0f} %"
    return Change(
        earlier=ml_text(change.before_ml),
        when=when,
        now=ml_text(record.total_ml),
        difference=f"{change.change_ml:+.1f} mL",
        share=share,
        marked=change.grown,
        notes=[note[:1].upper() + note[1:] for note in change.note.split("; ") if note],
        page=f"{change.earlier}{PAGE}",
    )


def _of(names: Sequence[str], ending: str) -> str:
    """The name with this ending, "" if there is none."""
    return next((name for name in names if name.endswith(ending)), "")
