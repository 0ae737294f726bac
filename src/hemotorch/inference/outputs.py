"""A prediction as files: mask in the scan's own grid, DICOM, contact sheet, NAME.json; and what may be replaced."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hemotorch import NOTICE, __version__
from hemotorch.errors import HemotorchError, InputError, RunError, explain
from hemotorch.inference.load import load_model
from hemotorch.inference.predictor import Predictor
from hemotorch.inference.scan_files import ScanFiles, find_scans, name_scans
from hemotorch.io import dicom, is_predicted, nifti, on_disk, write_mask
from hemotorch.pictures import contact_sheet
from hemotorch.scan import Prediction
from hemotorch.system.device import is_out_of_memory
from hemotorch.system.events import progress
from hemotorch.system.files import (
    atomic,
    clear_parts,
    exclusive,
    file_digest,
    file_status,
    jsonable,
    output_folder,
    read_json,
    write_json,
)

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

Result = dict[str, Any] | HemotorchError
#: Writes the page of a prediction into a folder under a name, and gives the files that it wrote. Also takes what the
#: record will hold. Pages are made on a higher floor (`report.study_files`), so who predicts passes this on.
PageWriter = Callable[[Prediction, Path, str, dict[str, Any]], Sequence[Path]]


def predict_files(
    model: Path | str | Sequence[Path | str],
    scans: Sequence[Path | str],
    out: Path | str,
    *,
    device: str = "auto",
    any_anatomy: bool = False,
    overwrite: bool = False,
    series: str | None = None,
    as_dicom: bool = True,
    write_page: PageWriter | None = None,
) -> Iterator[tuple[Path, Result]]:
    """Predicts files and folders of scans with one model load. A scan that fails, however, does not stop the others.

    Args:
        model: a run, a model file, or several that are averaged.
        scans: files and folders, zips and DICOMDIRs.
        out: the folder to write into.
        device: auto, cpu, cuda or cuda:N.
        any_anatomy: predict what does not look like a head, too.
        overwrite: replace earlier predictions that nobody changed since.
        series: of DICOM, the only series to predict, by its SeriesInstanceUID.
        as_dicom: of DICOM, also write SEG, structured report and secondary capture.
        write_page: also write a page for each scan.

    Yields:
        Each scan's path, with the content of its NAME.json or its error.

    Raises:
        InputError: at once, for a model or folder that cannot be used.
        RunError: if another process predicts into the folder.
    """
    folder = output_folder(out, may_exist=True)
    with exclusive(folder / LOCK, busy(folder)):
        clear_parts(folder)
        clear_parts(folder / THUMBNAILS)
        to_predict, unreadable = find_scans(scans, folder.resolve(), series)
        predictor = load_model(model, device)
        yield from unreadable
        names = name_scans(to_predict)
        for scan in progress(to_predict, "predicting", unit="scan"):
            result: Result
            try:
                make_room(folder, names[scan.path], scan.path, overwrite)
                result = predict_file(predictor, scan, folder, names[scan.path], any_anatomy, as_dicom, write_page)
            except Exception as error:
                result = explain(error, scan.named_after)
            yield scan.named_after, result


def busy(folder: Path) -> RunError:
    """What is said if another process predicts into the folder."""
    return RunError("another prediction is writing into this folder", folder, "wait for it to end")


def predict_file(
    predictor: Predictor,
    files: ScanFiles,
    folder: Path,
    name: str,
    any_anatomy: bool = False,
    as_dicom: bool = True,
    write_page: PageWriter | None = None,
) -> dict[str, Any]:
    """Predicts one scan and writes its files as `write_prediction` does. Raises HemotorchError."""
    try:
        start = time.perf_counter()
        scan = files.read()
        reading = time.perf_counter() - start
        prediction = predictor.predict(scan, any_anatomy, doubts=True)
        prediction.seconds["read"] = round(reading, 4)
        return write_prediction(prediction, folder, name, as_dicom, write_page)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        what = "there is not enough memory for this scan"
        raise RunError(what, files.path, "predict it on a larger machine") from error


def make_room(folder: Path, name: str, scan: Path, overwrite: bool) -> None:
    """Removes an earlier prediction of the scan if it may be replaced, and what a killed one left of it.

    NAME.json, which is written last, says that a scan is done and holds the digests of its files. Without it, files
    with the mark of a prediction are left over from a process that was killed.

    Raises:
        InputError: if the scan is done and `overwrite` is False; if one of the files is the scan itself, was not
            written by a prediction, or was changed since.
    """
    record = folder / f"{name}{RECORD}"
    present = []
    for file in files_of(folder, name):
        if not file.exists() and not file.is_symlink():
            continue
        present.append(file)
        is_the_scan = scan.exists() and file.exists() and file.samefile(scan)
        if file.is_symlink() or not file.is_file() or is_the_scan:
            raise InputError(f"{file.name} in {folder} is no prediction, and is not replaced", scan, _ELSEWHERE)
    digests: dict[str, str] | None = None
    if record in present:
        digests = _digests(record)
        if digests is None:
            raise InputError(f"{record.name} in {folder} is no prediction, and is not replaced", scan, _ELSEWHERE)
        if not overwrite:
            todo = "add --overwrite or choose another --out"
            raise InputError(f"{present[0].name} is in {folder} already", scan, todo)
    for file in present:
        if file != record and not _is_ours(file, digests):
            what = f"{file.name} in {folder} was not written by a prediction, or was changed since, and is not replaced"
            raise InputError(what, scan, _ELSEWHERE)
    for file in reversed(present):  # the record first: from here on the scan is not done
        file.unlink()


def files_of(folder: Path, name: str) -> list[Path]:
    """All files that a scan's prediction may leave, the record last."""
    *files, record = (folder / f"{name}{ending}" for ending in ENDINGS)
    return [*files, folder / THUMBNAILS / f"{name}.jpg", record]


def is_result(value: object) -> bool:
    """Whether a JSON value is what `write_prediction` writes into NAME.json."""
    return isinstance(value, dict) and {"scan", "volume_ml", "hemotorch", "notice"} <= value.keys()


def _digests(record: Path) -> dict[str, str] | None:
    """The digests of a prediction's files; {} for one that has none yet, None for anything but a prediction."""
    try:
        value = read_json(record)
    except InputError:
        return None
    if not is_result(value):
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
    prediction: Prediction, folder: Path, name: str, as_dicom: bool = True, write_page: PageWriter | None = None
) -> dict[str, Any]:
    """Writes NAME_mask.nii.gz, NAME.png, of DICOM what `dicom.write_dicom` does, and last NAME.json.

    Args:
        prediction: of one scan.
        folder: that is there.
        name: that the files are called.
        as_dicom: of DICOM, also write SEG, structured report and secondary capture.
        write_page: writes the page, before the record.

    Returns:
        What NAME.json holds.

    Raises:
        InputError: if files of the source cannot be read any more.
        RunError: if the disk is full or read-only, or DICOM cannot be written.
    """
    start = time.perf_counter()
    mask_file = folder / f"{name}{MASK}"
    sheet_file = folder / f"{name}{SHEET}"
    scan_files: list[str] = []
    if prediction.scan.source is not None:
        scan_files = list(prediction.scan.source.files)
    # Before anything is written: a scan that changes meanwhile is then seen to have changed.
    sources = [file_status(path) for path in dict.fromkeys(map(on_disk, scan_files))]
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
    if as_dicom and prediction.scan.source is not None and prediction.scan.source.format == dicom.NAME:
        for_pacs = dicom.write_dicom(prediction, folder, name, __version__)
        written.extend(for_pacs.files.values())
    result: dict[str, Any] = {
        "scan": scan_files,
        "volume_ml": {kind: round(volume, 3) for kind, volume in prediction.volume_ml.items()},
        "slices": len(prediction.scan.hu),
        "slices_with_bleeding": prediction.slices_with_bleeding,
        "model": prediction.model,
        "hemotorch": __version__,
        "doubts": [asdict(doubt) for doubt in prediction.doubts or ()],
        "interval_ml": None if prediction.interval_ml is None else [round(ml, 3) for ml in prediction.interval_ml],
        "warnings": list(prediction.warnings),
        "seconds": dict(prediction.seconds),
        "sources": sources,
        "dicom": [file.name for file in for_pacs.files.values()],
        "no_dicom": for_pacs.missing,
        "sha256": {},
        "notice": NOTICE,
    }
    end = time.perf_counter()
    result["seconds"]["write"] = round(end - start, 4)
    if write_page is not None:
        written += write_page(prediction, folder, name, result)
        result["seconds"]["page"] = round(time.perf_counter() - end, 4)
    result["sha256"] = {file.relative_to(folder).as_posix(): file_digest(file) for file in written}
    write_json(folder / f"{name}{RECORD}", result)
    return dict(jsonable(result))
