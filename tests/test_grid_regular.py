"""A scan as a regular volume: positions, mL and HU, against what is known of painted ellipsoids."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hemotorch.cli import main
from hemotorch.errors import InputError
from hemotorch.grid import regular
from hemotorch.io import read_scan
from hemotorch.io.dicom.write import write_series
from hemotorch.scan import Scan, even_scan
from test_io_dicom import DATA, needs

CENTRE, RADII = np.array([3.0, -4.0, 52.0]), np.array([30.0, 24.0, 28.0])  # mm


def ball_at(points: np.ndarray) -> np.ndarray:
    """HU of an ellipsoid with a soft edge of 4 mm, so that half of its height is its surface."""
    radius = np.sqrt((((points - CENTRE) / RADII) ** 2).sum(-1))
    return 60 / (1 + np.exp(np.clip((radius - 1) * 25, -50, 50)))


def points_of(scan: Scan) -> np.ndarray:
    """(slices, rows, columns, 3) RAS mm of all voxels."""
    rows, columns = np.arange(scan.shape[1]), np.arange(scan.shape[2])
    in_plane = rows[:, None, None] * scan.row_step_mm + columns[None, :, None] * scan.column_step_mm
    return scan.slice_origins_mm[:, None, None] + in_plane


def ball(heights: np.ndarray, tilt_mm: float = 0.0) -> Scan:
    """The ellipsoid on slices at these heights, each shifted back by `tilt_mm` per mm of height."""
    origins = np.stack([np.full(len(heights), 48.0), 48.0 + tilt_mm * heights, heights], 1)
    row, column = np.array([0.0, -1.0, 0.0]), np.array([-1.0, 0.0, 0.0])
    empty = Scan(np.zeros((len(heights), 96, 96), np.int16), origins, row, column)
    return Scan(np.rint(ball_at(points_of(empty))).astype(np.int16), origins, row, column)


EVEN = np.arange(0, 105, 3.0)
UNEVEN = np.concatenate([np.arange(0, 50, 2.5), [51.0], np.arange(54.5, 108, 3.5)])
EXACT_ML = 4 / 3 * np.pi * RADII.prod() / 1000


@pytest.mark.parametrize("slice_mm", [1.0, 2.3, 5.0])
@pytest.mark.parametrize("tilt_mm", [0.0, 0.33])
@pytest.mark.parametrize("heights", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_what_was_painted_keeps_its_ml_and_its_place(heights: np.ndarray, tilt_mm: float, slice_mm: float) -> None:
    scan = ball(heights, tilt_mm)
    made = regular(scan, slice_mm)
    assert np.allclose(made.slice_distances_mm, slice_mm) and made.even
    steps = made.affine[:3, :3] / np.linalg.norm(made.affine[:3, :3], axis=0)
    assert np.allclose(steps.T @ steps, np.eye(3), atol=1e-9)
    inside = made.hu > 30
    assert made.volume_ml(inside) == pytest.approx(EXACT_ML, rel=0.01)
    assert points_of(made)[inside].mean(0) == pytest.approx(CENTRE, abs=0.15)
    shown = made.hu >= 0  # what no slice shows is air
    assert np.abs(made.hu - ball_at(points_of(made)))[shown].max() < 25  # at an edge of 15 HU per mm
    more_rows = np.ceil(tilt_mm * np.ptp(heights) - 1e-3)
    assert made.shape[1:] == (96 + more_rows, 96)


def test_slices_at_the_same_places_are_the_same() -> None:
    scan = even_scan(np.random.default_rng(1).integers(-1000, 1000, (6, 32, 32)).astype(np.int16), 1.0, 4.0)
    made = regular(scan, 4.0)
    assert np.array_equal(made.hu, scan.hu) and np.allclose(made.slice_origins_mm, scan.slice_origins_mm)
    thick = regular(scan, 8.0)
    assert thick.shape == (3, 32, 32) and thick.hu.std() < scan.hu.std() / 1.25, "thicker slices are means"


def test_what_cannot_be_resampled() -> None:
    scan = even_scan(np.zeros((6, 32, 32), np.int16), 1.0, 4.0)
    for wrong in (0.0, -1.0, float("nan"), 0.01, 100.0):
        with pytest.raises(InputError, match="slices can be 0.2 to 20 mm apart"):
            regular(scan, wrong)
    with pytest.raises(InputError, match="no known distance"):
        regular(even_scan(scan.hu[:1], 1.0, 4.0), 4.0)


def test_convert_writes_what_other_programs_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = ball(UNEVEN, 0.33)
    scan.hu[:, :4] = -1000  # air, without which no values are HU
    write_series(scan, tmp_path / "study")
    out = tmp_path / "new" / "ball.nii.gz"
    assert main(["convert", str(tmp_path / "study"), str(out)]) == 1
    assert "add --resample MM" in capsys.readouterr().err and not out.exists()
    assert main(["convert", str(tmp_path / "study"), str(out), "--resample", "2"]) == 0
    assert "the tilt was taken out by shifting slices in their planes" in capsys.readouterr().out
    image = nib.load(out)
    voxel_ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000
    assert (np.asarray(image.dataobj) > 30).sum() * voxel_ml == pytest.approx(EXACT_ML, rel=0.01)
    assert main(["convert", str(tmp_path / "study"), str(out), "--resample", "2"]) == 1
    assert "exists" in capsys.readouterr().err


@needs("head-ct-ge", "head-ct-nifti")
def test_the_ge_head_lies_where_another_program_puts_it() -> None:
    """dcm2niix took out the tilt its own way; bone, taken from both, lies at the same places."""
    made = regular(read_scan(DATA / "head-ct-ge"), 5.0)
    other = read_scan(DATA / "head-ct-nifti" / "head.nii.gz")
    ours, theirs = (scan.volume_ml(scan.hu > 300) for scan in (made, other))
    assert ours == pytest.approx(theirs, rel=0.05)
    middles = [points_of(scan)[scan.hu > 300].mean(0) for scan in (made, other)]
    assert np.abs(middles[0] - middles[1]).max() < 3, middles
