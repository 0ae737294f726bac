"""A prediction as files: mask in the scan's own grid, DICOM, contact sheet, NAME.json; and what may be replaced."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hemotorch import __version__
from hemotorch.errors import InputError
from hemotorch.inference.scan_files import ScanFiles
from hemotorch.inference.study import StudyRecord, is_record, record_of
from hemotorch.io import dicom, is_predicted, nifti, write_mask
from hemotorch.pictures import contact_sheet
from hemotorch.scan import Prediction
from hemotorch.system import records
from hemotorch.system.files import atomic, file_digest, read_json

LOCK = ".lock"  #: in the output folder
MASK, SHEET, PAGE, RECORD = "_mask.nii.gz", ".png", ".html", ".json"
ENDINGS = (
    MASK,
    dicom.SEG,
    dicom.SR,
    dicom.SC,
    SHEET,
    PAGE,
    RECORD,
)  #: of a scan's files, the record last
THUMBNAILS = "thumbnails"  #: folder of the small pictures, NAME.jpg
_ELSEWHERE = "move it elsewhere or choose another --out"
_SHEET_MARK = ("Software", "hemotorch")  #: a text entry of each contact sheet
PAGE_MARK = b'<meta name="generator" content="hemotorch">'
THUMBNAIL_MARK = b"hemotorch"  #: the comment of each thumbnail
MARKED_BYTES = 2000  #: of a page, in which its mark stands

#: Writes the page of a prediction into a folder, and gives the files that it wrote. Also takes its record, which has no
#: digests yet. Pages are made on a higher floor (`report.study_files`), so who predicts passes this on.
PageWriter = Callable[[Prediction, Path, StudyRecord], Sequence[Path]]


def make_room(folder: Path, name: str, files: ScanFiles, overwrite: bool) -> None:
    """Removes an earlier prediction of the scan if it may be replaced, and what a killed one left of it.

    NAME.json, which is written last, says that a scan is done and holds the digests of its files. Without it, files
    with the mark of a prediction are left over from a process that was killed.

    Raises:
        InputError: if the scan is done and `overwrite` is False; if one of the files is the scan itself, was not
            written by a prediction, or was changed since.
    """
    record = folder / f"{name}{RECORD}"
    scan, called = files.path, files.named_after
    present = []
    for file in files_of(folder, name):
        if not file.exists() and not file.is_symlink():
            continue
        present.append(file)
        is_the_scan = scan.exists() and file.exists() and file.samefile(scan)
        if file.is_symlink() or not file.is_file() or is_the_scan:
            raise InputError(f"{file.name} in {folder} is no prediction, and is not replaced", called, _ELSEWHERE)
    digests: dict[str, str] | None = None
    if record in present:
        digests = _digests(record)
        if digests is None:
            raise InputError(f"{record.name} in {folder} is no prediction, and is not replaced", called, _ELSEWHERE)
        if not overwrite:
            todo = "add --overwrite or choose another --out"
            raise InputError(f"{present[0].name} is in {folder} already", called, todo)
    for file in present:
        if file != record and not _is_ours(file, digests):
            what = f"{file.name} in {folder} was not written by a prediction, or was changed since, and is not replaced"
            raise InputError(what, called, _ELSEWHERE)
    for file in reversed(present):  # the record first: from here on the scan is not done
        file.unlink()


def files_of(folder: Path, name: str) -> list[Path]:
    """All files that a scan's prediction may leave, the record last."""
    *files, record = (folder / f"{name}{ending}" for ending in ENDINGS)
    return [*files, folder / THUMBNAILS / f"{name}.jpg", record]


def _digests(record: Path) -> dict[str, str] | None:
    """The digests of a prediction's files; {} for one that has none yet, None for anything but a prediction."""
    try:
        value = read_json(record)
    except InputError:
        return None
    if not is_record(value):
        return None
    digests = value.get("sha256", {})
    if not isinstance(digests, dict):
        return None
    return digests


def _is_ours(file: Path, digests: dict[str, str] | None) -> bool:
    """Whether a mask, a picture or a page is as a prediction wrote it.

    Args:
        file: of an earlier prediction, or of somebody else.
        digests: of the files of the scan's record, None if there is no record.
    """
    key = f"{THUMBNAILS}/{file.name}" if file.parent.name == THUMBNAILS else file.name
    if digests and key in digests:
        return file_digest(file) == digests[key]
    if file.name.endswith(MASK):
        is_empty = file.stat().st_size == 0  # what a full disk leaves, and nobody drew
        return is_empty or is_predicted(file)
    if file.name.endswith(dicom.SEG):
        return dicom.is_own_mask(file)
    if file.name.endswith((dicom.SR, dicom.SC)):
        return dicom.is_own(file)
    if file.name.endswith(PAGE):
        with file.open("rb") as page:
            return PAGE_MARK in page.read(MARKED_BYTES)
    try:
        if file.parent.name == THUMBNAILS:
            with Image.open(file, formats=("JPEG",)) as picture:
                return bool(picture.info.get("comment") == THUMBNAIL_MARK)
        with Image.open(file, formats=("PNG",)) as sheet:
            key, mark = _SHEET_MARK
            # Records from before there were digests belong to sheets from before there was a mark.
            return sheet.info.get(key) == mark or digests is not None
    except (OSError, SyntaxError, ValueError):
        return False


def write_prediction(
    prediction: Prediction,
    folder: Path,
    name: str,
    as_dicom: bool = True,
    write_page: PageWriter | None = None,
    complete: Callable[[StudyRecord], StudyRecord] | None = None,
) -> StudyRecord:
    """Writes NAME_mask.nii.gz, NAME.png, of DICOM what `dicom.write_dicom` does, and last NAME.json.

    Args:
        prediction: of one scan.
        folder: that is there.
        name: that the files are called.
        as_dicom: of DICOM, also write SEG, structured report and secondary capture.
        write_page: writes the page, before the record.
        complete: adds to the record what is known of the study beside its prediction.

    Returns:
        The record, as NAME.json holds it.

    Raises:
        InputError: if files of the source cannot be read any more.
        RunError: if the disk is full or read-only, or DICOM cannot be written.
    """
    start = time.perf_counter()
    source = prediction.scan.source
    mask_file = folder / f"{name}{MASK}"
    sheet_file = folder / f"{name}{SHEET}"
    write_mask(prediction.scan, prediction.mask, mask_file, nifti.PREDICTION_MARK)
    caption = ""
    if prediction.doubts:
        caption = f"IN DOUBT: {', '.join(doubt.code for doubt in prediction.doubts)}"
    typed = bool(prediction.task.types)
    sheet = contact_sheet(prediction.scan, predicted=prediction.mask, typed=typed, caption=caption)
    with atomic(sheet_file) as temporary:
        text = PngInfo()
        text.add_text(*_SHEET_MARK)
        sheet.save(temporary, compress_level=1, pnginfo=text)
    written = [mask_file, sheet_file]
    for_pacs = dicom.DicomFiles({})
    if as_dicom and source is not None and source.format == dicom.NAME:
        for_pacs = dicom.write_dicom(prediction, folder, name, __version__)
        written.extend(for_pacs.files.values())
    record = record_of(prediction, name, () if source is None else source.files)
    files_for_pacs = tuple(file.name for file in for_pacs.files.values())
    record = replace(record, dicom=files_for_pacs, no_dicom=for_pacs.missing)
    if complete is not None:
        record = complete(record)
    end = time.perf_counter()
    seconds = {**record.seconds, "write": round(end - start, 4)}
    record = replace(record, seconds=seconds)
    if write_page is not None:
        written += write_page(prediction, folder, record)
        seconds["page"] = round(time.perf_counter() - end, 4)
    digests = {file.relative_to(folder).as_posix(): file_digest(file) for file in written}
    record = replace(record, seconds=seconds, sha256=digests)
    records.write(folder / f"{name}{RECORD}", record)
    return record
