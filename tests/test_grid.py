"""The resampler against independent references: Pillow, SciPy, and places known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import tiny
from hemotorch.errors import InputError
from hemotorch.grid import (
    Grid,
    SliceSpacing,
    TargetShares,
    average_slices,
    head_centre,
    hu_to_working,
    place,
    slice_positions_mm,
    stack_weights,
    stacks_to_working,
    taken_by_index,
    target_to_working,
    tile_corners,
)
from hemotorch.hu import AIR_HU
from hemotorch.scan import even_scan
from hemotorch.system.records import build
from hemotorch.task import BLEEDING_BITS, INSIDE_BIT, OUTSIDE_BIT


def _head(slices: int = 3, size: int = 100, pixel_mm: float = 2.0, row: float = 40.0, column: float = 60.0):
    rows, columns = np.mgrid[:size, :size]
    inside = np.hypot(rows - row, columns - column) * pixel_mm < 70
    hu = np.where(inside, 35, AIR_HU).astype(np.int16)
    return even_scan(np.repeat(hu[None], slices, 0), pixel_mm, 5.0)


def test_native_whole_slices_are_padded_at_the_end_only():
    scan = even_scan(np.arange(2 * 5 * 7, dtype=np.int16).reshape(2, 5, 7), 0.5, 5.0)
    placement = place(Grid(multiple=4), scan)
    working = hu_to_working(scan.hu, placement)
    assert working.shape == (2, 8, 8)
    assert np.array_equal(working[:, :5, :7], scan.hu)
    assert (working[:, 5:] == AIR_HU).all() and (working[:, :, 7:] == AIR_HU).all()
    assert np.array_equal(placement.from_working(working), scan.hu)


def test_same_pixel_size_crops_without_resampling():
    rng = np.random.default_rng(0)
    scan = even_scan(rng.integers(0, 90, (1, 64, 64)).astype(np.int16), 1.2, 5.0)
    placement = place(Grid(1.2, 32), scan)
    assert placement.exact
    top, left = round(placement.rows.start), round(placement.columns.start)
    assert np.array_equal(hu_to_working(scan.hu, placement), scan.hu[:, top : top + 32, left : left + 32])


def test_crop_is_centred_on_the_head_and_air_lies_outside():
    scan = _head()
    assert head_centre(scan.hu) == pytest.approx((40, 60), abs=1)
    placement = place(Grid(2.0, 96), scan)
    working = hu_to_working(scan.hu, placement)
    assert working.shape == (3, 96, 96)
    rows, columns = np.nonzero(np.asarray(working[0]) == 35)
    assert (rows.mean(), columns.mean()) == pytest.approx((47.5, 47.5), abs=1)
    assert (np.asarray(working)[:, 0] == AIR_HU).all()


def test_downsampling_is_pillows_antialiased_bilinear_resize():
    rng = np.random.default_rng(1)
    values = rng.normal(30, 20, (64, 64)).astype(np.float32)
    scan = even_scan(values.astype(np.int16)[None], 0.5, 5.0)
    placement = place(Grid(pixel_mm=1.0), scan)
    ours = placement.to_working(values[None], 0.0)[0]
    theirs = np.asarray(Image.fromarray(values).resize((32, 32), Image.Resampling.BILINEAR))
    # Pillow renormalises the filter at the border; there we have air instead.
    assert np.abs(ours - theirs)[2:-2, 2:-2].max() < 1e-3


def test_upsampling_is_linear_interpolation_at_the_right_places():
    placement = place(Grid(pixel_mm=1.3, size_px=40), _head(1, 100, 0.5, 50, 50))
    rng = np.random.default_rng(2)
    small = ndimage.gaussian_filter(rng.random((40, 40)), 2).astype(np.float32)
    ours = placement.from_working(small[None])[0]
    rows = (np.arange(100) - placement.rows.start) / placement.rows.step
    columns = (np.arange(100) - placement.columns.start) / placement.columns.step
    wanted = ndimage.map_coordinates(small, np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest")
    inside = np.ix_((rows > 0) & (rows < 39), (columns > 0) & (columns < 39))
    assert np.abs(ours - wanted)[inside].max() < 1e-5


@pytest.mark.parametrize("grid", [Grid(1.2, 96), Grid(0.4, 320), Grid(), Grid(1.7)])
def test_a_mask_goes_there_and_back_in_place(grid):
    scan = _head(2, 200, 0.7, 90, 105)
    mask = np.zeros(scan.shape, np.uint8)
    rows, columns = np.mgrid[:200, :200]
    mask[1, np.hypot((rows - 80) * 0.7, (columns - 110) * 0.7) < 15] = 3
    placement = place(grid, scan)
    working = target_to_working((mask > 0).astype(np.uint8), placement)
    assert working.dtype == np.uint8 and set(np.unique(working)) == {0, 1}
    back = placement.from_working(working) >= 0.5
    both = 2 * (back & (mask > 0)).sum() / (back.sum() + (mask > 0).sum())
    assert both > 0.96 and not back[0].any()
    assert ndimage.center_of_mass(back[1]) == pytest.approx(ndimage.center_of_mass(mask[1] > 0), abs=0.35)


def test_unknown_spacing_is_taken_as_a_head_filling_the_image():
    scan = even_scan(np.zeros((1, 512, 512), np.int16), 1.0, 1.0, spacing_known=False)
    assert place(Grid(pixel_mm=0.9), scan).rows.step == pytest.approx(0.9 / (230 / 512))


def _weights(positions: list[float], distance_mm: float, slices: int = 3) -> np.ndarray:
    return stack_weights(np.array(positions, float), distance_mm, slices, np.arange(len(positions)))


def test_slices_at_the_trained_distance_are_their_own_neighbours_by_index():
    weights = _weights([0, 5, 10, 15], 5)
    for index in range(4):
        for place_, neighbour in enumerate((max(0, index - 1), index, min(3, index + 1))):
            assert weights[index, place_].tolist() == np.eye(4)[neighbour].tolist()


def test_thin_slices_are_averaged_over_the_trained_thickness():
    """Ten slices of 1 mm for a network of 3 mm: three of them each, three to the next; cut at the scan's ends."""
    weights = _weights(list(range(10)), 3)
    third = 1 / 3
    assert weights[4] == pytest.approx(
        np.array([[third] * 3 + [0] * 7, [0] * 3 + [third] * 3 + [0] * 4, [0] * 6 + [third] * 3 + [0]])
    )
    assert weights[0, :2] == pytest.approx(np.array([[0.5, 0.5] + [0] * 8] * 2))
    assert weights[9, 2] == pytest.approx(np.array([0] * 8 + [0.5, 0.5]))
    even = _weights(list(range(10)), 2)  # 1 mm below and above a slice's middle: it, and half of each neighbour
    assert even[5, 1] == pytest.approx(np.array([0, 0, 0, 0, 0.25, 0.5, 0.25, 0, 0, 0]))


def test_thick_slices_are_interpolated_at_the_true_distance():
    weights = _weights([0, 10, 20], 5)
    assert weights[1] == pytest.approx(np.array([[0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5]]))
    assert _weights([0, 20, 40], 5)[1] == pytest.approx(np.array([[0, 1, 0]] * 3)), "the neighbours are too far away"


def test_uneven_slices_count_by_what_they_stand_for():
    """Slices at 0, 2, 7 and 12 mm stand for -1 to 1, 1 to 4.5, 4.5 to 9.5 and 9.5 to 14.5 mm."""
    weights = _weights([0, 2, 7, 12], 5)
    assert weights[2] == pytest.approx(np.array([[0.3, 0.7, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    assert weights[1] == pytest.approx(np.array([[4 / 7, 3 / 7, 0, 0], [0.3, 0.7, 0, 0], [0, 0, 1, 0]]))


def test_weights_of_reversed_and_shifted_positions_are_the_same():
    positions = np.array([0.0, 2, 7, 12, 13])
    forward = _weights(list(positions), 4, 5)
    assert _weights(list(positions - 90), 4, 5) == pytest.approx(forward)
    assert _weights(list(-positions), 4, 5) == pytest.approx(forward)
    assert _weights(list(positions[::-1]), 4, 5) == pytest.approx(forward[::-1, ::-1, ::-1])


def test_every_row_of_weights_sums_to_one_even_if_slices_lie_at_one_place():
    rng = np.random.default_rng(0)
    for _ in range(50):
        positions = np.sort(rng.uniform(0, 60, rng.integers(2, 12)))
        weights = _weights(list(positions), rng.uniform(0.3, 12), int(rng.choice([1, 3, 5])))
        assert weights.min() >= 0 and weights.sum(2) == pytest.approx(1)
    assert _weights([3, 3, 3], 5).sum(2) == pytest.approx(1)
    assert _weights([0, 0, 5], 5).sum(2) == pytest.approx(1)


def test_weights_do_not_depend_on_what_else_is_predicted():
    positions = np.cumsum(np.random.default_rng(1).uniform(0.5, 4, 20))
    every = _weights(list(positions), 5)
    assert np.array_equal(stack_weights(positions, 5, 3, np.array([7, 3])), every[[7, 3]])


def test_a_linear_change_through_the_slices_is_kept_exactly():
    positions = np.arange(30) * 0.7
    values = np.broadcast_to((100 * positions).astype(np.float32)[:, None, None], (30, 2, 2))
    found = average_slices(values, _weights(list(positions), 4.9))  # 7 slices, middle slices without ends
    assert found[10:20, 1, 0, 0] == pytest.approx(100 * positions[10:20], rel=1e-5)
    assert found[10:20, 2, 0, 0] == pytest.approx(100 * (positions[10:20] + 4.9), rel=1e-5)


def test_averaging_restores_the_noise_of_thick_slices():
    noise = np.random.default_rng(0).normal(0, 20, (60, 40, 40)).round().astype(np.int16)
    stacks = stacks_to_working(noise, _weights(list(np.arange(60) * 0.5), 4.5))
    assert stacks.dtype == np.int16 and float(stacks[30, 1].std()) == pytest.approx(20 / 3, rel=0.1)


def test_a_mask_is_averaged_with_its_slices_and_half_is_bleeding():
    scan = even_scan(np.zeros((4, 8, 8), np.int16), 1.0, 2.5)
    mask = np.zeros(scan.shape, np.uint8)
    mask[2:, :4] = 1
    weights = _weights([0, 2.5, 5, 7.5], 5)
    shares = TargetShares.of(mask, place(Grid(), scan))
    found = shares.decided(weights)
    assert found.shape == (4, 3, 8, 8)
    # Slabs of 5 mm hold 0.25, 0.5 and 0.25 of three slices: bleeding begins where slices 2 and 3 make half of them.
    assert found[:, 1, 0, 0].tolist() == [0, 0, 1, 1] and not found[:, :, 4:].any()
    half = np.array([[[0.5, 0, 0.5, 0]]])
    assert shares.decided(half)[0, 0, 0, 0] == 1


VALUES = (0, INSIDE_BIT, OUTSIDE_BIT, 1, 2, 8, 0b10001, BLEEDING_BITS)


def _target(seed: int, slices: int = 5, side: int = 60) -> np.ndarray:
    """Blotches of every kind of set, their edges everywhere."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal((slices, side, side)), (0.6, 3, 3)) for _ in VALUES]
    return np.array(VALUES, np.uint8)[np.argmax(fields, axis=0)]


def _by_hand(shares: dict[int, np.ndarray], half: float) -> tuple[np.ndarray, np.ndarray]:
    """What the rule says of each pixel, from the share of every value; and by how much it is decided."""
    bleeding = sum(share for value, share in shares.items() if value & BLEEDING_BITS)
    shape = bleeding.shape
    out, margin = np.zeros(shape, np.uint8), np.empty(shape)
    for index in np.ndindex(shape):
        bleeds = bleeding[index] >= half
        ranked = sorted(
            (share[index], value) for value, share in shares.items() if bool(value & BLEEDING_BITS) == bleeds
        )
        out[index] = ranked[-1][1]
        margin[index] = min(abs(bleeding[index] - half), ranked[-1][0] - ranked[-2][0])
    return out, margin


@pytest.mark.parametrize("grid", [Grid(1.3, 40), Grid(0.7, 64), Grid(2.1)])
def test_a_target_on_the_grid_is_what_each_sets_own_share_says(grid):
    scan, target = _head(5, 60, 1.0, 28, 33), _target(1)
    placement = place(grid, scan)
    shares = {value: placement.to_working(target == value, 0.0) for value in set(VALUES)}
    shares[0] = 1 - sum(share for value, share in shares.items() if value)  # what lies outside the slice, too
    expected, margin = _by_hand(shares, 0.5)
    working = target_to_working(target, placement)
    clear = margin > 1e-5
    assert clear.mean() > 0.98 and working.dtype == np.uint8
    np.testing.assert_array_equal(working[clear], expected[clear])
    assert set(np.unique(working)) == set(VALUES), "no set is made that was not there"


def test_a_target_of_slabs_is_what_each_sets_own_share_says():
    target, scan = _target(2, slices=8, side=24), _head(8, 24, 1.0, 11, 12)
    placement = place(Grid(1.4), scan)
    weights = _weights(np.arange(8) * 1.25, 5.0)
    shares = {}
    for value in set(VALUES):
        on_grid = placement.to_working(target == value, 0.0)
        shares[value] = average_slices(on_grid, weights)
    shares[0] = 1 - sum(share for value, share in shares.items() if value)
    expected, margin = _by_hand(shares, 0.5)
    decided = TargetShares.of(target, placement).decided(weights)
    clear = margin > 1e-5
    assert decided.shape == (8, 3, 18, 18) and clear.mean() > 0.9  # slabs share whole slices, so that ties are common
    np.testing.assert_array_equal(decided[clear], expected[clear])


@pytest.mark.parametrize("grid", [Grid(1.3, 40), Grid(2.1), Grid()])
def test_a_typed_target_bleeds_where_the_plain_mask_does(grid):
    scan, target = _head(5, 60, 1.0, 28, 33), _target(3)
    placement, weights = place(grid, scan), _weights(np.arange(5) * 2.0, 5.0)
    plain = ((target & BLEEDING_BITS) > 0).astype(np.uint8)
    share = placement.to_working(plain, 0.0)
    working = target_to_working(plain, placement)
    assert np.array_equal(working, (share >= 0.5).astype(np.uint8))
    assert np.array_equal((target_to_working(target, placement) & BLEEDING_BITS) > 0, working > 0)
    slabs = TargetShares.of(plain, placement).decided(weights)
    assert np.array_equal(slabs, (average_slices(share, weights) >= 0.5 - 1e-6).astype(np.uint8))
    assert np.array_equal((TargetShares.of(target, placement).decided(weights) & BLEEDING_BITS) > 0, slabs > 0)


@pytest.mark.parametrize("value", [0, INSIDE_BIT, 2])
def test_a_target_of_one_value_stays_that(value):
    scan = _head(4, 30, 1.0, 15, 15)
    target = np.full(scan.shape, value, np.uint8)
    placement, weights = place(Grid(1.5, 12), scan), _weights(np.arange(4) * 2.0, 5.0)
    assert (target_to_working(target, placement) == value).all()
    slabs = TargetShares.of(target, placement).decided(weights)
    assert slabs.shape == (4, 3, 12, 12) and (slabs == value).all()


def test_slices_are_taken_by_index_only_in_the_trained_range():
    spacing = SliceSpacing.of([4.0, 5.0, 5.0, 8.0])
    assert spacing == SliceSpacing(5.0, 4.0, 8.0) and SliceSpacing.of([]) is None
    five = np.arange(6) * 5.0
    assert taken_by_index(five, spacing, 3) and taken_by_index(five * 0.8, spacing, 3)
    assert taken_by_index(five * 1.6, spacing, 3) and not taken_by_index(five * 1.8, spacing, 3)
    assert not taken_by_index(five * 0.7, spacing, 3) and not taken_by_index(five / 8, spacing, 3)
    wide = SliceSpacing.of([0.6, 5.0, 5.0])
    assert not taken_by_index(five / 8, wide, 3), "thin scans among thick ones are averaged too"
    uneven = five.copy()
    uneven[3:] += 4
    assert not taken_by_index(uneven, spacing, 3)
    assert taken_by_index(None, spacing, 3) and taken_by_index(five / 8, None, 3)
    # A network that sees one slice has no neighbours: what it was trained on stays as it is, thinner is averaged.
    assert taken_by_index(uneven, spacing, 1) and taken_by_index(five * 3, spacing, 1)
    assert not taken_by_index(five / 8, spacing, 1)


def test_positions_are_along_the_normal_and_unknown_without_spacing():
    scan = even_scan(np.zeros((4, 8, 8), np.int16), 1.0, 2.5)
    assert slice_positions_mm(scan) == pytest.approx(np.arange(4) * 2.5)
    assert slice_positions_mm(even_scan(np.zeros((4, 8, 8), np.int16), 1.0, 2.5, spacing_known=False)) is None
    assert slice_positions_mm(even_scan(np.zeros((1, 8, 8), np.int16), 1.0, 2.5)) is None


def test_a_distance_outside_the_trained_range_is_said():
    spacing = SliceSpacing(5.0, 4.0, 8.0)
    assert spacing.warning(4.0) is None and spacing.warning(8.5) is None
    assert spacing.warning(0.65) == (
        "slices are 0.65 mm apart, the network was trained on 4 to 8 mm: it is shown averages of 5 mm"
    )
    assert "too far apart" in spacing.warning(12.0)
    assert "trained on 5 mm:" in SliceSpacing(5.0, 5.0, 5.0).warning(1.0)


@pytest.mark.parametrize(
    "stored",
    [
        {},
        [1],
        {"usual_mm": 5.0},
        {"usual_mm": "5", "least_mm": 4.0, "most_mm": 6.0},
        {"usual_mm": float("nan"), "least_mm": 4.0, "most_mm": 6.0},
        {"usual_mm": 5.0, "least_mm": -4.0, "most_mm": 6.0},
        {"usual_mm": 5.0, "least_mm": 4.0, "most_mm": float("inf")},
        {"usual_mm": 7.0, "least_mm": 4.0, "most_mm": 6.0},
        {"usual_mm": 5.0, "least_mm": 4.0, "most_mm": 6.0, "other": 1.0},
    ],
)
def test_a_stored_spacing_that_is_none_is_refused(stored):
    with pytest.raises(InputError, match="run.json: is damaged"):
        build(SliceSpacing, stored, "run.json")


def test_blocks_cover_the_image_with_the_last_flush_to_the_edge() -> None:
    corners = tile_corners(512, 512, 160, 80)
    starts = sorted({top for top, _ in corners})
    assert starts == [0, 80, 160, 240, 320, 352] and len(corners) == 36
    assert tile_corners(512, 512, 128, 64)[-1] == (384, 384)
    assert tile_corners(100, 300, 160, 80) == [(0, 0), (0, 80), (0, 140)]


@pytest.mark.parametrize("grid", [Grid(), Grid(3.0, 40, 8), Grid(1.1)])
def test_a_part_of_the_scan_gets_what_the_whole_gets(grid: Grid) -> None:
    scan, _ = tiny.head(3)
    placement = place(grid, scan)
    values = np.random.default_rng(0).random((2, *placement.working), np.float32)
    whole = placement.from_working(values)
    rows, columns = slice(10, 31), slice(50, 64)
    part = placement.from_working(values, rows, columns)
    assert part.shape == (2, 21, 14) and part.any()
    np.testing.assert_allclose(part, whole[:, rows, columns], rtol=1e-5, atol=1e-6)
