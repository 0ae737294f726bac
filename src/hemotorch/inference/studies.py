"""Files and folders -> predicted studies: what is done already, pseudonyms, the change since an earlier study."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hemotorch.errors import HemotorchError, InputError, OptionError, RunError, explain
from hemotorch.inference.load import load_model
from hemotorch.inference.outputs import LOCK, RECORD, THUMBNAILS, PageWriter, make_room, write_prediction
from hemotorch.inference.predictor import Predictor
from hemotorch.inference.pseudonyms import Pseudonyms
from hemotorch.inference.scan_files import ScanFiles, find_scans, name_scans
from hemotorch.inference.study import StudyRecord, followed_up, read_record
from hemotorch.inference.visits import with_visits
from hemotorch.io import is_volume
from hemotorch.system.device import is_out_of_memory
from hemotorch.system.events import progress
from hemotorch.system.files import clear_parts, exclusive, output_folder


@dataclass(frozen=True)
class DoneBefore:
    """A study that an earlier command predicted from the same files with the same model."""

    record: StudyRecord


Result = StudyRecord | DoneBefore | HemotorchError


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
    show_patient: bool = False,
    patients: Path | str | None = None,
    write_page: PageWriter | None = None,
    note_failed: Callable[[str, HemotorchError], None] | None = None,
) -> Iterator[tuple[Path, Result]]:
    """Predicts files and folders of scans with one model load. A scan that fails, however, does not stop the others.

    Args:
        model: a run, a model file, or several that are averaged.
        scans: files and folders, zips and DICOMDIRs.
        out: the folder to write into. What is done in it already, from the same files with the same model, is not
            done again.
        device: auto, cpu, cuda or cuda:N.
        any_anatomy: predict what does not look like a head, too.
        overwrite: replace earlier predictions that nobody changed since.
        series: of DICOM, the only series to predict, by its SeriesInstanceUID.
        as_dicom: of DICOM, also write SEG, structured report and secondary capture.
        show_patient: call studies in DICOM after their folders, and hide nobody's name. There is then no change since
            an earlier study.
        patients: a table that says whose scans outside DICOM are and when they were made, see `visits.with_visits`.
        write_page: also write a page for each scan.
        note_failed: told of each error before it is yielded, with what the files of its scan would have been called.

    Yields:
        What each scan is called in messages, its file or its pseudonym; with its record or its error.

    Raises:
        InputError: at once, for a model, a folder or a table of patients that cannot be used.
        OptionError: for a table of patients if `show_patient`, with which there is no change since an earlier study.
        RunError: if another process predicts into the folder.
    """
    if patients is not None and show_patient:
        raise OptionError("with --show-patient there is no follow-up", "--patients", "give one of the two")
    folder = output_folder(out, may_exist=True)
    with exclusive(folder / LOCK, busy(folder)):
        clear_parts(folder)
        clear_parts(folder / THUMBNAILS)
        pseudonyms = None if show_patient else Pseudonyms(folder)
        to_predict, unreadable = find_scans(scans, folder.resolve(), series, pseudonyms)
        names = name_scans(to_predict)
        if patients is not None and pseudonyms is not None:
            to_predict = with_visits(to_predict, names, patients, pseudonyms)
        predictor = load_model(model, device)
        if pseudonyms is not None:
            pseudonyms.save()
        for path, error in unreadable:
            if note_failed is not None:
                note_failed(Path(os.path.abspath(path)).name, error)
            yield path, error
        for scan in progress(to_predict, "predicting", unit="scan"):
            name = names[scan.path]
            result: Result
            try:
                record = None if overwrite else done_before(folder, name, scan, predictor.digest, as_dicom)
                if record is None:
                    make_room(folder, name, scan, overwrite)
                    change = None if pseudonyms is None else change_since(folder, name, pseudonyms)
                    result = predict_file(predictor, scan, folder, name, any_anatomy, as_dicom, write_page, change)
                else:
                    result = DoneBefore(record)
            except Exception as error:
                result = scan.hide(explain(error, scan.named_after))
                if note_failed is not None:
                    note_failed(name, result)
            yield scan.named_after, result


def busy(folder: Path) -> RunError:
    """What is said if another process predicts into the folder."""
    return RunError("another prediction is writing into this folder", folder, "wait for it to end")


def done_before(
    folder: Path, name: str, scan: ScanFiles, model_digest: str, as_dicom: bool = True
) -> StudyRecord | None:
    """The record of a scan that is done: of the same files and patient, by the same model, and all of it is there.

    Raises:
        InputError: if files for a PACS are wanted, and it was done without.
    """
    path = folder / f"{name}{RECORD}"
    if not path.is_file() or not model_digest:
        return None
    try:
        record = read_record(path)
    except InputError:
        return None  # `make_room` says what it is
    is_same = record.source_digest == scan.digest and record.model_digest == model_digest
    is_same &= not scan.patient or record.patient == scan.patient
    if not is_same or not all((folder / file).is_file() for file in record.sha256):
        return None
    is_series = scan.identity is not None and not is_volume(scan.path)
    if as_dicom and is_series and not record.dicom and not record.no_dicom:
        what = "was predicted with --no-dicom before, so there are no files for a PACS"
        raise InputError(what, scan.named_after, "add --overwrite, or --no-dicom again")
    return record


def change_since(folder: Path, name: str, pseudonyms: Pseudonyms) -> Callable[[StudyRecord], StudyRecord]:
    """What adds to a record the change since the patient's last earlier study that is predicted in the folder.

    A warning says if that one's record is damaged; and if a later one is predicted already, since its own record does
    not know of this study.
    """
    later = [study for study in pseudonyms.later(name) if (folder / f"{study}{RECORD}").is_file()]
    before: tuple[StudyRecord, float] | None = None
    damaged = ""
    for study, hours in pseudonyms.earlier(name):
        path = folder / f"{study}{RECORD}"
        if not path.is_file():
            continue
        try:
            before = read_record(path), hours
        except InputError:
            damaged = study
        break

    def add(record: StudyRecord) -> StudyRecord:
        if damaged:
            text = (
                f"the record of this patient's earlier study, {damaged}, is damaged: the change since it is not known"
            )
            record = replace(record, warnings=(*record.warnings, text))
        if later:
            text = f"a later study of this patient, {later[-1]}, was predicted before this one: "
            text += "predict it again with --overwrite for the change between them"
            record = replace(record, warnings=(*record.warnings, text))
        return record if before is None else followed_up(record, *before)

    return add


def predict_file(
    predictor: Predictor,
    files: ScanFiles,
    folder: Path,
    name: str,
    any_anatomy: bool = False,
    as_dicom: bool = True,
    write_page: PageWriter | None = None,
    change: Callable[[StudyRecord], StudyRecord] | None = None,
) -> StudyRecord:
    """Predicts one scan and writes its files as `write_prediction` does. Raises HemotorchError."""

    def complete(record: StudyRecord) -> StudyRecord:
        record = replace(record, source_digest=digest, patient=files.patient)
        if files.hidden:
            record = replace(record, scan=())
        return record if change is None else change(record)

    try:
        start = time.perf_counter()
        digest = files.digest  # before it is read: a scan that changes meanwhile is then seen to have changed
        scan = files.read()
        reading = time.perf_counter() - start
        prediction = predictor.predict(scan, any_anatomy, doubts=True)
        prediction.seconds["read"] = round(reading, 4)
        return write_prediction(prediction, folder, name, as_dicom, write_page, complete)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        what = "there is not enough memory for this scan"
        raise RunError(what, files.path, "predict it on a larger machine") from error
