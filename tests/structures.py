"""Structure sets (RTSTRUCT) for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset

from hemotorch.scan import Scan


def structure_set(
    scan: Scan,
    path: Path,
    circles: list[tuple[str, float]],
    study: str,
    series: str | None = None,
    patient: str = "phantom",
) -> Path:
    """Circles around the middle of slice 4, by name and radius in pixels."""
    whole = Dataset()
    whole.SOPClassUID, whole.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.4"
    whole.Modality, whole.StudyInstanceUID, whole.SeriesInstanceUID = "RTSTRUCT", study, "1.2.3.5"
    whole.PatientID = patient
    whole.StructureSetROISequence, whole.ROIContourSequence = [], []
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    for number, (name, radius) in enumerate(circles, start=10):
        rows, columns = 24.0 + radius * np.sin(angles), 24.0 + radius * np.cos(angles)
        points = scan.slice_origins_mm[4] + np.outer(rows, scan.row_step_mm) + np.outer(columns, scan.column_step_mm)
        contour, region, roi = Dataset(), Dataset(), Dataset()
        contour.ContourGeometricType = "CLOSED_PLANAR"
        contour.ContourData = [f"{value:.4f}" for value in (points * [-1, -1, 1]).ravel()]
        region.ReferencedROINumber, region.ContourSequence = number, [contour]
        roi.ROINumber, roi.ROIName = number, name
        whole.StructureSetROISequence.append(roi)
        whole.ROIContourSequence.append(region)
    if series is not None:
        frame, of_study, of_series = Dataset(), Dataset(), Dataset()
        of_series.SeriesInstanceUID = series
        of_study.RTReferencedSeriesSequence = [of_series]
        frame.RTReferencedStudySequence = [of_study]
        whole.ReferencedFrameOfReferenceSequence = [frame]
    whole.file_meta = FileMetaDataset()
    whole.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    whole.save_as(path, enforce_file_format=True)
    return path
