"""dcm2niix, a program of others, reads what hemotorch writes: it sees the same voxels at the same places."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pydicom
import pytest

from conftest import require
from hemotorch.io import dicom, read_scan
from hemotorch.io.dicom.write import write_series
from test_dicom_out import predicted
from test_io_dicom import head

dcm2niix = require("dcm2niix")


class Volume(NamedTuple):
    """What dcm2niix made of a series. hu: (columns, rows, slices), in its own order. affine: from index to RAS mm."""

    hu: np.ndarray
    affine: np.ndarray

    def index_of(self, places_mm: np.ndarray) -> np.ndarray:
        """The index of each place (..., 3) in RAS mm; it has to be that of a voxel's middle."""
        inverse = np.linalg.inv(self.affine)
        index = places_mm @ inverse[:3, :3].T + inverse[:3, 3]
        whole = np.rint(index)
        assert np.abs(index - whole).max() < 0.002
        return whole.astype(int)


def converted(series: Path, out: Path) -> Volume:
    """The only volume that dcm2niix makes of a series."""
    out.mkdir()
    command = [dcm2niix.bin, "-o", out, "-f", "volume", "-z", "n", "-b", "n", series]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.nii")
    image = nib.load(path)
    return Volume(np.rint(image.get_fdata()).astype(int), image.affine)


@pytest.mark.parametrize(
    "faults",
    [[], ["prone"], ["rotated"], ["shuffled"], ["nested"], ["big-endian"], ["slope-per-slice"], ["prone", "shuffled"]],
    ids=lambda faults: "-".join(faults) or "straight",
)
def test_its_voxels_and_places_are_ours(faults: list[str], tmp_path: Path) -> None:
    write_series(head(), tmp_path / "series", faults=faults)
    scan = read_scan(tmp_path / "series")
    volume = converted(tmp_path / "series", tmp_path / "out")
    slices, rows, columns = np.indices(scan.shape)
    places_mm = (
        scan.slice_origins_mm[slices]
        + rows[..., None] * np.asarray(scan.row_step_mm)
        + columns[..., None] * np.asarray(scan.column_step_mm)
    )
    index = volume.index_of(places_mm)
    assert sorted(volume.hu.shape) == sorted(scan.shape)
    np.testing.assert_array_equal(volume.hu[tuple(np.moveaxis(index, -1, 0))], scan.hu)


@pytest.mark.parametrize("faults", [[], ["prone", "shuffled"]], ids=["straight", "prone-shuffled"])
def test_a_segmentation_lies_on_its_voxels(faults: list[str], tmp_path: Path) -> None:
    """Each pixel of a SEG that is set, at the place that its frame states, is a voxel that we outlined."""
    write_series(head(), tmp_path / "series", faults=faults)
    scan = read_scan(tmp_path / "series")
    prediction = predicted(scan, ("subdural",), typed=False)
    (tmp_path / "written").mkdir()
    files = dicom.write_dicom(prediction, tmp_path / "written", "a", "0.1.0").files
    seg = pydicom.dcmread(files[dicom.SEG])
    volume = converted(tmp_path / "series", tmp_path / "out")
    shared = seg.SharedFunctionalGroupsSequence[0]
    steps = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    row_mm, column_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    to_ras = np.array([-1.0, -1.0, 1.0])
    outlined_hu = []
    for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = np.nonzero(pixels)
        places = corner + np.outer(columns, steps[0] * column_mm) + np.outer(rows, steps[1] * row_mm)
        outlined_hu.append(volume.hu[tuple(volume.index_of(places * to_ras).T)])
    ours = np.sort(scan.hu[prediction.mask > 0])
    np.testing.assert_array_equal(np.sort(np.concatenate(outlined_hu)), ours)
    assert len(np.unique(ours)) > 9, "noise tells one voxel from another"
