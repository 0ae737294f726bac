"""A Scan as a series of DICOM, with the faults that real archives have if somebody asks for them.

For phantoms, painted scans and tests. What is not known (kV, dates, the kernel) is left empty.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hemotorch.errors import OptionError, nearest
from hemotorch.io.dicom.faults import FAULTS
from hemotorch.io.dicom.header import CT_IMAGE, lenient
from hemotorch.io.dicom.slice_file import SliceFile, encoded, uid_of
from hemotorch.scan import Scan
from hemotorch.system.files import atomic

_TO_LPS = np.array([-1.0, -1.0, 1.0])
CONTRAST = "CONTRAST GIVEN"  #: in place of an agent's name, which a scan in memory does not know


def write_series(
    scan: Scan,
    folder: Path,
    *,
    patient: str = "phantom",
    age: float | None = None,
    sex: str | None = None,
    faults: Iterable[str] = (),
) -> list[Path]:
    """Writes a scan as CT images, one file for each slice, atomically.

    Args:
        scan: of any geometry; uneven and tilted ones keep it.
        folder: to write into; it is made.
        patient: the PatientID.
        age: in years. sex: F or M.
        faults: names from `FAULTS`, put in one after the other.

    Returns:
        The files.

    Raises:
        OptionError: for an unknown fault.
    """
    files = series_files(scan, patient=patient, age=age, sex=sex)
    for name in faults:
        if name not in FAULTS:
            raise OptionError(f"unknown fault '{name}'", "--fault", nearest(name, FAULTS))
        files = FAULTS[name](files)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with lenient():
        for file in files:
            path = folder / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = encoded(file)
            with atomic(path) as temporary:
                temporary.write_bytes(data)
            written.append(path)
    return written


def series_files(
    scan: Scan, *, patient: str = "phantom", age: float | None = None, sex: str | None = None
) -> list[SliceFile]:
    """The files of a scan, without faults, foot to head."""
    from pydicom.dataset import Dataset

    row_mm, column_mm = scan.pixel_mm
    axes = np.concatenate([scan.column_step_mm / column_mm * _TO_LPS, scan.row_step_mm / row_mm * _TO_LPS])
    study = uid_of("study", scan.name, patient)
    distances = scan.slice_distances_mm
    thickness = float(np.median(distances)) if len(distances) else scan.slice_mm
    files = []
    for index, hu in enumerate(scan.hu):
        d = Dataset()
        d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        d.SOPClassUID = CT_IMAGE
        d.SOPInstanceUID = uid_of("image", scan.name, patient, index)
        d.StudyDate = d.StudyTime = d.AccessionNumber = d.ReferringPhysicianName = d.StudyID = (
            d.PositionReferenceIndicator
        ) = ""
        d.Modality = "CT"
        d.Manufacturer = "hemotorch"
        d.SeriesDescription = "written by hemotorch"
        d.PatientName = "Phantom^Synthetic"
        d.PatientID = patient
        d.PatientBirthDate = ""
        d.PatientSex = sex or ""
        if age is not None:
            d.PatientAge = f"{round(age):03d}Y"
        d.BodyPartExamined = "HEAD"
        d.KVP = ""
        if scan.contrast:
            d.ContrastBolusAgent = CONTRAST
        if thickness is not None:
            d.SliceThickness = f"{thickness:.6g}"
        d.PatientPosition = "HFS"
        d.StudyInstanceUID = study
        d.SeriesInstanceUID = uid_of("series", scan.name, patient)
        d.FrameOfReferenceUID = uid_of("frame", scan.name, patient)
        d.SeriesNumber = 2
        d.AcquisitionNumber = 1
        d.InstanceNumber = index + 1
        d.ImagePositionPatient = [f"{value:.6f}" for value in scan.slice_origins_mm[index] * _TO_LPS]
        d.ImageOrientationPatient = [f"{value:.9f}"[:16] for value in axes]
        d.PixelSpacing = [f"{row_mm:.9g}", f"{column_mm:.9g}"]
        d.SamplesPerPixel = 1
        d.PhotometricInterpretation = "MONOCHROME2"
        d.Rows, d.Columns = hu.shape
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 1
        d.RescaleIntercept, d.RescaleSlope, d.RescaleType = "-1024", "1", "HU"
        d.WindowCenter, d.WindowWidth = "40", "80"
        files.append(SliceFile(d, hu, f"{index + 1:04d}.dcm"))
    return files
