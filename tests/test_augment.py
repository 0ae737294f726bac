"""Augmentation: keyed by sample, geometry the same for image and mask, and nothing where nothing is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from hemotorch.hu import AIR_HU
from hemotorch.keyed_random import keys as draw_keys
from hemotorch.keyed_random import rng, torch_seed
from hemotorch.recipe import Augment
from hemotorch.system import machine
from hemotorch.task import BLEEDING_BITS, INSIDE_BIT, OUTSIDE_BIT
from hemotorch.training.augment import _shading
from hemotorch.training.augment import augment as augment_rows

ALL = Augment(True, 15.0, 0.05, 0.1, 0.15, 5.0, 0.1, 6.0, 0.5)


def _batch(count: int = 4, height: int = 48, width: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = np.mgrid[:height, :width]
    blob = np.hypot(rows - 18, columns - 40) < 7
    hu = np.where(blob, 70, 30).astype(np.int16)
    mask = torch.from_numpy(blob.astype(np.uint8)).expand(count, 1, -1, -1)
    return torch.from_numpy(hu).expand(count, 3, -1, -1).contiguous(), mask.contiguous()


def _keys(count: int, first: int = 0, step: int = 2) -> torch.Tensor:
    return draw_keys(0, 1, step + 1, first + count)[step, first:]


def augment(hu, mask, options, keys, block=None):
    """Of a batch whose samples share no slices, as (N, slices, H, W) and (N, 1, H, W)."""
    count, slices = hu.shape[:2]
    rows = torch.arange(count * slices).view(count, slices)
    spread = torch.full((count * slices, *mask.shape[2:]), 7, dtype=torch.uint8)
    spread[rows[:, slices // 2]] = mask[:, 0]
    return augment_rows(hu.flatten(0, 1), spread, rows, options, keys, block)


def test_no_options_change_nothing():
    hu, mask = _batch()
    out, target = augment(hu, mask, Augment(), _keys(4))
    assert torch.equal(out, hu.float()) and torch.equal(target, mask)


def test_a_sample_depends_on_its_key_alone():
    hu, mask = _batch(6)
    whole, _ = augment(hu, mask, ALL, _keys(6))
    half, _ = augment(hu[3:], mask[3:], ALL, _keys(6)[3:])
    torch.testing.assert_close(whole[3:], half, rtol=0, atol=1e-3)
    other, _ = augment(hu, mask, ALL, _keys(6, step=3))
    assert not torch.allclose(whole, other, atol=1)


def test_image_and_mask_move_together():
    hu, mask = _batch(16)
    geometry = Augment(flip=True, rotate_deg=20, shift=0.05, shear=0.1, zoom=0.2)
    out, target = augment(hu, mask, geometry, _keys(16))
    assert target.dtype == torch.uint8 and set(target.unique().tolist()) == {0, 1}
    for image, moved in zip(out[:, 1].numpy(), target[:, 0].numpy(), strict=True):
        bright = image > 50
        assert ndimage.center_of_mass(bright) == pytest.approx(ndimage.center_of_mass(moved), abs=0.5)
    places = {tuple(np.round(ndimage.center_of_mass(t[0].numpy()))) for t in target}
    assert len(places) > 8


def test_rotation_keeps_shapes_round_on_oblong_images():
    hu, mask = _batch(8)
    _, target = augment(hu, mask, Augment(rotate_deg=45), _keys(8))
    for moved in target[:, 0].numpy():
        if 0 in np.nonzero(moved)[0] or moved.sum() < 100:
            continue
        rows, columns = np.nonzero(moved)
        assert rows.std() == pytest.approx(columns.std(), rel=0.08)


def test_what_comes_from_outside_is_air():
    hu, mask = _batch(8)
    out, _ = augment(hu, mask, Augment(shift=0.4), _keys(8))
    assert out.min() == AIR_HU


def test_flip_mirrors_left_and_right_only():
    hu, mask = _batch(16)
    out, _ = augment(hu, mask, Augment(flip=True), _keys(16))
    same = [torch.allclose(o, h.float(), atol=1e-2) for o, h in zip(out, hu, strict=True)]
    mirrored = [torch.allclose(o, h.float().flip(-1), atol=1e-2) for o, h in zip(out, hu, strict=True)]
    assert all(s or m for s, m in zip(same, mirrored, strict=True)) and any(same) and any(mirrored)


def test_keys_give_the_same_numbers_everywhere():
    assert rng(1, 2).uniform() == rng(1, 2).uniform() != rng(2, 1).uniform()
    assert torch_seed(0, 1) == torch_seed(0, 1) != torch_seed(1, 0)
    assert 0 <= torch_seed(5) < 2**63


def test_crops_lie_within_the_slice_and_around_bleeding_where_there_is_some():
    hu, mask = _batch(12, 64, 96)
    mask[6:] = 0
    keys = _keys(12)
    out, target = augment(hu, mask, Augment(crop_px=32), keys)
    assert out.shape == (12, 3, 32, 32) and target.shape == (12, 1, 32, 32)
    assert out.min() >= 29.9, "nothing from outside the slice"
    assert all(t.sum() > 30 for t in target[:6]) and not target[6:].any()
    for image, cut in zip(out[:6, 1].numpy(), target[:6, 0].numpy(), strict=True):
        assert ((image > 50) == (cut > 0)).mean() > 0.97
    assert len({float(t.sum()) for t in target[:6]}) > 2 or len({t.flatten().argmax().item() for t in target[:6]}) > 2
    again, _ = augment(hu[3:], mask[3:], Augment(crop_px=32), keys[3:])
    torch.testing.assert_close(again, out[3:])


def test_crops_reach_a_lesion_in_the_corner_and_every_part_of_it():
    hu, mask = _batch(64, 48, 64)
    mask[:] = 0
    mask[:, :, 0, 0] = mask[:, :, 47, 63] = 1
    _, target = augment(hu, mask, Augment(crop_px=24), _keys(64))
    corners = [(bool(t[0, 0, 0]), bool(t[0, -1, -1])) for t in target]
    assert (True, False) in corners and (False, True) in corners and (True, True) not in corners
    assert sum(map(any, corners)) > 20, "a crop's middle is off its pixel by up to half its side, no more"


def test_a_crop_as_large_as_the_slice_is_no_crop():
    hu, mask = _batch(2)
    out, _ = augment(hu, mask, Augment(crop_px=48), _keys(2))
    assert torch.equal(out, hu.float())


def test_a_crop_that_is_not_turned_is_not_interpolated():
    hu, mask = _batch(8, 64, 96)
    hu = hu + torch.from_numpy(np.random.default_rng(0).normal(0, 5, hu.shape).astype(np.int16))
    out, target = augment(hu, mask, Augment(crop_px=32), _keys(8))
    torch.testing.assert_close(out, out.round(), rtol=0, atol=0.01)
    where = [np.argwhere(cut > 0) for cut in target[:, 0].numpy()]
    for image, source, cut in zip(out[:, 0], hu[:, 0], where, strict=True):
        windows = source.unfold(0, 32, 1).unfold(1, 32, 1)
        assert (windows - image.round()).abs().amax((2, 3)).min() == 0, f"cut {cut[0]} is not in its slice"


def test_a_crop_is_shifted_too():
    hu, mask = _batch(16, 64, 96)
    still, moved = (augment(hu, mask, Augment(crop_px=32, shift=shift), _keys(16))[1] for shift in (0.0, 0.3))
    assert not torch.equal(still, moved)


def test_blocks_are_cut_where_they_lie_and_filled_up_with_air():
    hu, mask = _batch(3, 48, 64)
    hu = hu + torch.arange(64, dtype=torch.int16)
    corners = torch.tensor([[0, 0], [10, 30], [40, 50]])
    out, target = augment(hu, mask, Augment(), _keys(3), (corners, 24))
    assert torch.equal(out[0], hu[0, :, :24, :24].float()) and torch.equal(out[1], hu[1, :, 10:34, 30:54].float())
    assert torch.equal(out[2, :, :8, :14], hu[2, :, 40:, 50:].float()) and (out[2, :, 8:] == AIR_HU).all()
    assert torch.equal(target[1, 0], mask[1, 0, 10:34, 30:54])
    moved, _ = augment(hu, mask, Augment(zoom=1e-6), _keys(3), (corners, 24))
    torch.testing.assert_close(moved, out, rtol=0, atol=0.1)


def test_a_turned_block_shows_what_lies_beside_it_in_its_slice():
    hu, mask = _batch(1, 64, 64)
    out, _ = augment(hu, mask, Augment(rotate_deg=45), _keys(1), (torch.tensor([[20, 20]]), 24))
    assert out.min() > 29


def test_elastic_moves_image_and_mask_together_and_unlike_any_affine_map():
    hu, mask = _batch(8)
    out, target = augment(hu, mask, Augment(elastic=0.05), _keys(8))
    for image, moved in zip(out[:, 1].numpy(), target[:, 0].numpy(), strict=True):
        assert ((image > 50) == (moved > 0)).mean() > 0.99
    assert len({float(t.sum()) for t in target}) > 4


def _shaded(hu, most_hu=12.0, **options):
    """What shading adds to a batch."""
    mask = torch.zeros(len(hu), 1, *hu.shape[2:], dtype=torch.uint8)
    plain, same_target = augment(hu, mask, Augment(**options), _keys(len(hu)))
    shaded, target = augment(hu, mask, Augment(shading_hu=most_hu, **options), _keys(len(hu)))
    assert torch.equal(target, same_target)
    return shaded - plain


def test_shading_is_a_bicubic_field_from_four_by_four_values():
    added = _shaded(torch.zeros(6, 1, 49, 64, dtype=torch.int16))
    # Outer nodes lie on the outer pixels: of 49 rows and 64 columns, every 16th and every 21st holds a node's value.
    nodes = added[:, :, ::16, ::21]
    assert nodes.shape[2:] == (4, 4)
    expected = F.interpolate(nodes, (49, 64), mode="bicubic", align_corners=True)
    torch.testing.assert_close(added, expected, rtol=0, atol=1e-4)
    # Keys's cubic convolution with a = -0.75, written out for the middle of a cell: 1981, IEEE Trans ASSP 29:1153.
    weights = torch.tensor([-0.09375, 0.59375, 0.59375, -0.09375])
    torch.testing.assert_close(added[:, 0, 24, 0], nodes[:, 0, :, 0] @ weights, rtol=0, atol=1e-4)


def test_shading_has_the_amplitude_that_was_asked_for():
    nodes = _shaded(torch.zeros(4096, 1, 4, 4, dtype=torch.int16), 10.0).flatten(1)
    # Normal values times an amplitude that is even from 0 to 10: a mean square of 10^2 / 3.
    assert nodes.square().mean().sqrt() == pytest.approx(10 / 3**0.5, rel=0.03)
    assert nodes.mean().abs() < 0.1
    of_each = nodes.square().mean(1).sqrt()
    assert of_each.min() < 0.2 and of_each.max() > 10
    # Values at different nodes, and in different samples, have nothing to do with each other.
    scaled = nodes / of_each[:, None]
    assert np.abs(np.corrcoef(scaled.T.numpy()) - np.eye(16)).max() < 0.12


def test_shading_leaves_air_and_bone_and_is_one_field_for_all_slices_of_a_sample():
    hu, _ = _batch(4)
    hu[:, :, :20] = -900
    hu[:, :, 40:] = 800
    added = _shaded(hu)
    assert not added[:, :, :20].any() and not added[:, :, 40:].any()
    assert (added[:, :, 20:40].abs() > 1e-3).float().mean() > 0.95
    assert torch.equal(added[:, 0], added[:, 2]) and not torch.allclose(added[0], added[1], atol=0.1)


def test_shading_is_a_function_of_the_key_and_changes_nothing_else():
    hu, mask = _batch(6)
    options = Augment(True, 15.0, 0.05, 0.1, 0.15, 5.0, 0.1, 6.0, 0.0, shading_hu=12.0)
    whole, _ = augment(hu, mask, options, _keys(6))
    half, _ = augment(hu[3:], mask[3:], options, _keys(6)[3:])
    torch.testing.assert_close(whole[3:], half, rtol=0, atol=1e-3)
    moved = {"rotate_deg": 15.0, "noise_hu": 6.0, "crop_px": 32}
    assert 0.1 < _shaded(hu, 3.0, **moved).abs().max() < 15, "noise and crops are the same with shading as without"


def test_compiled_shading_is_the_eager_one():
    if not machine.has_compiler():
        pytest.skip("there is no C++ compiler")
    hu, _ = _batch(3)
    eager = _shading(hu.float(), 12.0, _keys(3))
    compiled = torch.compile(_shading)(hu.float(), 12.0, _keys(3))
    torch.testing.assert_close(compiled, eager, rtol=0, atol=1e-3)


def _typed(mask):
    """The blob as two types of bleeding, in a skull."""
    target = torch.where(mask > 0, 4, INSIDE_BIT).to(torch.uint8)
    target[..., 40:] = torch.where(mask[..., 40:] > 0, 0b10001, OUTSIDE_BIT).to(torch.uint8)
    return target


@pytest.mark.parametrize("options", [ALL, Augment(), Augment(crop_px=32), Augment(rotate_deg=20, crop_px=24)])
@pytest.mark.parametrize("block", [None, (torch.tensor([[0, 0], [10, 30], [40, 50], [3, 7]]), 24)])
def test_a_typed_target_moves_as_the_plain_mask_and_keeps_its_sets(options, block):
    hu, mask = _batch()
    plain = augment(hu, mask, options, _keys(4), block)
    typed = augment(hu, _typed(mask), options, _keys(4), block)
    assert torch.equal(typed[0], plain[0]), "what lies around bleeding does not draw a crop to itself"
    assert torch.equal((typed[1] & BLEEDING_BITS) > 0, plain[1] > 0)
    assert set(typed[1].unique().tolist()) <= {0, 4, 0b10001, INSIDE_BIT, OUTSIDE_BIT}
    assert plain[1].any() and len(typed[1].unique()) >= 4
