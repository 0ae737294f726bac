"""The resampler against independent references: Pillow, SciPy, and places known by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from hemotorch.grid import Grid, head_centre, hu_to_working, mask_to_working, place
from hemotorch.hu import AIR_HU
from hemotorch.scan import even_scan


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
    ours = placement.to_working(torch.from_numpy(values)[None], 0.0)[0].numpy()
    theirs = np.asarray(Image.fromarray(values).resize((32, 32), Image.Resampling.BILINEAR))
    # Pillow renormalises the filter at the border; there we have air instead.
    assert np.abs(ours - theirs)[2:-2, 2:-2].max() < 1e-3


def test_upsampling_is_linear_interpolation_at_the_right_places():
    placement = place(Grid(pixel_mm=1.3, size_px=40), _head(1, 100, 0.5, 50, 50))
    rng = np.random.default_rng(2)
    small = ndimage.gaussian_filter(rng.random((40, 40)), 2).astype(np.float32)
    ours = placement.from_working(torch.from_numpy(small)[None])[0].numpy()
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
    working = mask_to_working(mask, placement)
    assert working.dtype == torch.uint8 and set(working.unique().tolist()) == {0, 1}
    back = placement.from_working(working).numpy() >= 0.5
    both = 2 * (back & (mask > 0)).sum() / (back.sum() + (mask > 0).sum())
    assert both > 0.96 and not back[0].any()
    assert ndimage.center_of_mass(back[1]) == pytest.approx(ndimage.center_of_mass(mask[1] > 0), abs=0.35)


def test_unknown_spacing_is_taken_as_a_head_filling_the_image():
    scan = even_scan(np.zeros((1, 512, 512), np.int16), 1.0, 1.0, spacing_known=False)
    assert place(Grid(pixel_mm=0.9), scan).rows.step == pytest.approx(0.9 / (230 / 512))
