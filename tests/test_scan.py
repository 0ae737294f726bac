"""Scan's geometry against values worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hemotorch.errors import InputError
from hemotorch.scan import Frame, Prediction, Scan, Source, even_scan


def stacked(z_mm: list[float], pixel_mm: tuple[float, float] = (0.5, 0.5), tilt_deg: float = 0.0) -> Scan:
    """A scan with slices at these heights; a tilted gantry leans the rows, not the way the table moves."""
    tilt = np.deg2rad(tilt_deg)
    rows, columns = 4, 3
    origins = np.array([[10.0, 20.0, z] for z in z_mm])
    row = pixel_mm[0] * np.array([0.0, -np.cos(tilt), np.sin(tilt)])
    return Scan(np.zeros((len(z_mm), rows, columns), np.int16), origins, row, np.array([-pixel_mm[1], 0, 0]))


def test_even_shares_and_volume() -> None:
    scan = stacked([0, 5, 10, 15], (0.5, 0.4))
    assert scan.even
    assert scan.pixel_mm == (0.5, 0.4)
    np.testing.assert_allclose(scan.shares_mm, [5, 5, 5, 5])
    np.testing.assert_allclose(scan.normal, [0, 0, 1])
    mask = np.zeros(scan.shape, np.uint8)
    mask[1, :2, :] = 3  # six voxels of 0.5 x 0.4 x 5 mm = 1 mm3
    assert scan.volume_ml(mask) == pytest.approx(0.006)


def test_uneven_shares_by_hand() -> None:
    # gaps 4, 1, 7: first slice mirrored 4, then (4 + 1) / 2, (1 + 7) / 2, last mirrored 7
    scan = stacked([0, 4, 5, 12])
    np.testing.assert_allclose(scan.slice_distances_mm, [4, 1, 7])
    np.testing.assert_allclose(scan.shares_mm, [4, 2.5, 4, 7])
    mask = np.zeros(scan.shape, np.uint8)
    mask[1, 0, 0] = mask[3, 0, 0] = 1
    assert scan.volume_ml(mask) == pytest.approx((2.5 + 7) * 0.25 / 1000)


@pytest.mark.parametrize(
    ("distances", "shares"),
    [
        ([5, 5, 15, 5], [5, 5, 5, 5, 5]),  # two slices are missing
        ([5, 5, 10, 5, 5], [5] * 6),  # one is
        ([5, 5, 35], [5, 5, 5, 5]),
        ([35, 5, 5], [5, 5, 5, 5]),
        ([5, 5, 10, 10, 5, 5], [5] * 7),  # a slice left alone between two that are missing
        ([5, 5, 20, 20, 20], [5] * 6),  # nobody makes slices of 20 mm
        ([5, 5, 30, 10, 10], [5, 5, 5, 10, 10, 10]),
        ([5, 40], [5, 5, 5]),
        ([5, 35, 35], [5, 5, 5, 5]),  # two slices that are left alone far from the others
        ([4.9, 5.1, 9.8, 5.2, 4.8], [4.9, 5.0, 5.1, 5.2, 5.0, 4.8]),  # positions that were rounded
        ([1, 1, 1, 1, 30, 31, 32], [1] * 8),
    ],
)
def test_slices_beside_a_gap_stand_for_the_usual_distance(distances: list[float], shares: list[float]) -> None:
    scan = stacked(np.cumsum([0, *distances]).tolist())
    np.testing.assert_allclose(scan.shares_mm, shares)
    assert len(scan.warnings) == 1
    assert "slices are missing in" in scan.warnings[0]
    assert replace(scan, name="other").warnings == scan.warnings  # said once
    assert scan.height_mm == pytest.approx(sum(distances) + (shares[0] + shares[-1]) / 2)


@pytest.mark.parametrize(
    "distances",
    [
        [5, 5, 5, 10, 10, 10],  # thin at the base of the skull, thick at the vertex
        [5, 5, 5, 10, 10],
        [2.5, 2.5, 2.5, 8, 8, 8],
        [4, 4, 4, 1.08, 7, 7, 7],  # the real series of a tilted head
        [5, 5, 7.5, 10, 10],
        [4, 1, 7],
        [5, 5, 7, 5, 5],
    ],
)
def test_a_change_of_distance_is_not_a_gap(distances: list[float]) -> None:
    scan = stacked(np.cumsum([0, *distances]).tolist())
    mirrored = np.array([distances[0], *distances, distances[-1]])
    np.testing.assert_allclose(scan.shares_mm, (mirrored[:-1] + mirrored[1:]) / 2)
    assert scan.warnings == ()


def test_a_stated_distance_decides_what_is_a_gap() -> None:
    scan = replace(stacked([0, 5, 12]), slice_mm=3.0)
    np.testing.assert_allclose(scan.shares_mm, 3)
    assert "between 1 and 2, 5 mm apart" in scan.warnings[0]
    np.testing.assert_allclose(replace(stacked([7]), slice_mm=3.0).shares_mm, 3)


def test_two_slices_far_apart_are_doubted() -> None:
    scan = stacked([0, 35])
    np.testing.assert_allclose(scan.shares_mm, 35)
    assert "mL may be too high" in scan.warnings[0]


def test_uneven_slices_have_no_affine() -> None:
    scan = stacked([0, 4, 5, 12])
    assert not scan.even
    with pytest.raises(InputError, match="unevenly spaced"):
        _ = scan.affine


def test_slices_that_drift_sideways_are_uneven() -> None:
    scan = stacked([0, 5, 10])
    origins = scan.slice_origins_mm.copy()
    origins[2, 0] += 1
    assert not Scan(scan.hu, origins, scan.row_step_mm, scan.column_step_mm).even


def test_a_rounding_of_slice_positions_is_even() -> None:
    assert stacked([0, 5.01, 9.99, 15.0]).even


def test_tilted_gantry_measures_along_the_normal() -> None:
    # slices 5 mm apart along the table, rows leaning 20 degrees: 5 cos 20 apart along the normal
    scan = stacked([0, 5, 10], tilt_deg=20)
    assert scan.even
    np.testing.assert_allclose(scan.normal, [0, np.sin(np.deg2rad(20)), np.cos(np.deg2rad(20))])
    np.testing.assert_allclose(scan.shares_mm, 5 * np.cos(np.deg2rad(20)))
    voxel = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    np.testing.assert_allclose(scan.voxel_ml, voxel)


def test_affine_leads_from_slice_row_column_to_millimetres() -> None:
    scan = stacked([0, 5, 10], (0.5, 0.4))
    np.testing.assert_allclose(scan.affine @ [2, 3, 1, 1], [10 - 0.4, 20 - 1.5, 10, 1])


def test_the_normal_points_to_the_head_for_slices_that_do() -> None:
    scan = stacked([0, 5, 10])
    mirrored = Scan(scan.hu, scan.slice_origins_mm, scan.row_step_mm, -scan.column_step_mm)
    np.testing.assert_allclose(mirrored.normal, [0, 0, 1])
    np.testing.assert_allclose(mirrored.shares_mm, 5)


def test_one_slice_has_no_volume() -> None:
    scan = stacked([7])
    assert np.isnan(scan.shares_mm).all()
    assert np.isnan(scan.volume_ml(np.ones(scan.shape, np.uint8)))
    assert scan.even
    np.testing.assert_allclose(scan.affine[:3, 0], [0, 0, 1])


def test_unknown_spacing_has_no_volume() -> None:
    scan = even_scan(np.zeros((3, 4, 4), np.int16), 1, 1, spacing_known=False)
    assert np.isnan(scan.volume_ml(np.ones(scan.shape, np.uint8)))


def test_even_scan_is_upright_and_centred() -> None:
    scan = even_scan(np.zeros((2, 5, 3), np.int16), 2.0, 5.0, name="a", slice_numbers=(4, 5))
    np.testing.assert_allclose(scan.affine @ [0, 2, 1, 1], [0, 0, 0, 1])
    assert (scan.affine @ [0, 0, 0, 1])[0] > 0  # the first column is the patient's right, x to the right
    assert (scan.affine @ [0, 0, 0, 1])[1] > 0  # the first row is the front
    assert scan.slice_numbers == (4, 5)


def test_slice_numbers_count_from_one() -> None:
    assert stacked([0, 5]).slice_numbers == (1, 2)


@pytest.mark.parametrize("hu", [np.zeros((4, 4), np.int16), np.zeros((2, 4, 4), np.float32)])
def test_only_int16_volumes(hu: np.ndarray) -> None:
    with pytest.raises(InputError, match="3-D int16"):
        Scan(hu, np.zeros((len(hu), 3)), np.zeros(3), np.zeros(3))


def test_an_origin_for_each_slice() -> None:
    with pytest.raises(InputError, match="one origin"):
        Scan(np.zeros((2, 4, 4), np.int16), np.zeros((3, 3)), np.zeros(3), np.zeros(3))


def test_a_mask_of_another_shape() -> None:
    with pytest.raises(InputError, match="does not fit"):
        stacked([0, 5]).volume_ml(np.zeros((2, 4, 4), np.uint8))


def test_prediction_names_the_sources_slices() -> None:
    scan = even_scan(np.zeros((3, 4, 4), np.int16), 1, 5, slice_numbers=(3, 2, 1))
    mask = np.zeros(scan.shape, np.uint8)
    mask[0, 1, 1] = 1
    assert Prediction(scan, mask, None, {"total": 0.005}, "by hand").slices_with_bleeding == [3]


def test_a_source_has_a_frame_for_each_slice() -> None:
    source = Source("nifti", ("a/b.nii",), (Frame(0, 0), Frame(0, 1)))
    assert str(source) == "a/b.nii"
    assert even_scan(np.zeros((2, 4, 5)), 1, 5, source=source).source is source
    with pytest.raises(InputError, match="its source has another number of slices"):
        even_scan(np.zeros((3, 4, 5)), 1, 5, source=source)
