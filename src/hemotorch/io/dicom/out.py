"""A prediction as DICOM, for a PACS: SEG, structured report (SR) and secondary capture (SC)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hemotorch.errors import HemotorchError, RunError
from hemotorch.io.dicom.amounts import amounts_of
from hemotorch.io.dicom.header import lenient
from hemotorch.io.dicom.sc import capture_of
from hemotorch.io.dicom.seg import segmentation_of
from hemotorch.io.dicom.source import Algorithm, SourceSeries
from hemotorch.io.dicom.sr import report_of
from hemotorch.scan import Prediction
from hemotorch.system.files import atomic

SEG, SR, SC = "_seg.dcm", "_sr.dcm", "_sc.dcm"  #: what is added to the name
NO_BLEEDING = "no bleeding was outlined, and a DICOM SEG cannot be empty"


@dataclass(frozen=True)
class DicomFiles:
    """What was written. files: by ending. missing: why something could not be, "" if all is there."""

    files: dict[str, Path]
    missing: str = ""


def write_dicom(prediction: Prediction, folder: Path, name: str, version: str) -> DicomFiles:
    """Writes NAME_seg.dcm, NAME_sr.dcm and NAME_sc.dcm of a scan that was read from DICOM, atomically.

    UIDs derive from the source's, the model and the prediction: predict twice, and a PACS has it once.

    Args:
        prediction: whose scan's files are still there.
        folder: that is there.
        name: that the files are called.
        version: of hemotorch.

    Returns:
        The files. Without bleeding there is no SEG, and of images that cannot be pointed at there is nothing.

    Raises:
        InputError: if a file of the source cannot be read any more.
        RunError: if a file cannot be written.
    """
    source = SourceSeries.of(prediction.scan)
    if source.why_not:
        return DicomFiles({}, f"no DICOM is written: {source.why_not}")
    algorithm = Algorithm(version, prediction.model, prediction.digest)
    amounts = amounts_of(prediction)
    said = repr((prediction.volume_ml, prediction.interval_ml, prediction.doubts, prediction.warnings))
    digest = hashlib.sha256(np.ascontiguousarray(prediction.mask).data)
    digest.update(said.encode())
    key = (version, prediction.model, prediction.digest, digest.hexdigest())
    files = {ending: folder / f"{name}{ending}" for ending in (SEG, SR, SC)}
    segmentation, missing = None, ""
    if prediction.mask.any():
        types = prediction.task.types
        segmentation = write(lambda: segmentation_of(source, prediction.mask, types, algorithm), files[SEG])
    else:
        del files[SEG]
        missing = NO_BLEEDING
    write(lambda: report_of(source, prediction, amounts, segmentation, algorithm, key), files[SR])
    write(lambda: capture_of(source, prediction, amounts, algorithm, key), files[SC])
    return DicomFiles(files, missing)


def write(make: Callable[[], Any], path: Path) -> Any:
    """Makes a dataset and writes it, atomically.

    Args:
        make: the dataset.
        path: of the file.

    Returns:
        The dataset.

    Raises:
        RunError: in one line, if highdicom or pydicom cannot make or write it.
    """
    try:
        with lenient():
            dataset = make()
            with atomic(path) as temporary:
                dataset.save_as(temporary, enforce_file_format=True)
    except HemotorchError:
        raise
    except Exception as error:  # highdicom and pydicom raise whatever a source leads to that breaks the standard
        text = (str(error).splitlines() or [""])[0]
        what = f"cannot be written as DICOM ({type(error).__name__}: {text})"
        raise RunError(what, path, "the mask is there; predict again with --no-dicom") from error
    return dataset
