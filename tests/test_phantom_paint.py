"""Bleeding painted into a head that was not made by the phantom, or at least is only known by its HU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hemotorch.errors import InputError
from hemotorch.head import depth_mm, enclosed
from hemotorch.io import read_scan
from hemotorch.labels import CODES, TYPES
from hemotorch.phantom import make_case, paint
from hemotorch.phantom.lesions import Lesion
from hemotorch.phantom.presets import preset
from hemotorch.scan import even_scan


@pytest.fixture(scope="module")
def normal():
    spec = preset("small", patients=40, size=96)
    return make_case(spec, next(i for i in range(40) if spec.leading_type(i, 0) is None))


@pytest.fixture(scope="module")
def head(normal):
    return normal.scan


@pytest.mark.parametrize("kind", TYPES)
def test_paints_a_type_into_the_skull_and_leaves_the_rest_alone(head, kind):
    for seed in range(6):  # small ones can miss a coarse grid
        painted, mask = paint(head, seed=seed, leading=kind)
        if (mask == CODES[kind]).any():
            break
    blood = mask == CODES[kind]
    assert blood.any()
    change = painted.hu.astype(int) - head.hu
    assert np.median(change[blood]) > 4
    assert not change[head.hu > 900].any() and not change[head.hu < -500].any()
    assert painted.shape == head.shape and np.array_equal(painted.slice_origins_mm, head.slice_origins_mm)
    again, mask_again = paint(head, seed=seed, leading=kind)
    assert np.array_equal(again.hu, painted.hu) and np.array_equal(mask, mask_again)


def test_paint_beside_bone_is_as_bright_as_the_rest_of_it(head):
    """Once the brightness of bone counted as the brain's, and paint beside it became darker than any blood."""
    lesion = Lesion("epidural", (0.95, 0.0, -0.05), (40.0, 30.0, 15.0), contrast=35.0, site="vault")
    painted, mask = paint(head, [lesion])
    blood = mask == CODES["epidural"]
    depth = depth_mm(head, enclosed(head))
    near = np.median(painted.hu[blood & (depth < 3)])
    assert blood.sum() > 100 and near > np.median(painted.hu[blood & (depth > 5)]) - 8
    assert np.mean(painted.hu[blood] < 25) < 0.05


def test_blood_in_a_shaded_head_is_shaded_too(head):
    lesion = Lesion("intraparenchymal", (30.0, 0.0, 20.0), (16.0, 16.0, 16.0), contrast=35.0)
    columns = np.linspace(-20, 20, head.shape[2], dtype=np.float32)
    soft = (head.hu > -200) & (head.hu < 300)
    shaded = replace(head, hu=(head.hu + np.rint(columns) * soft).astype(np.int16))
    plain, mask = paint(head, [lesion])
    tilted, same = paint(shaded, [lesion])
    both = (mask > 0) & (same > 0)
    assert both.sum() > 50 and both.sum() > 0.8 * (mask > 0).sum()
    # Without it, blood would lie between 15 and 55 HU above the brain around it.
    added = (tilted.hu.astype(int) - plain.hu)[both] - np.broadcast_to(columns, head.shape)[both]
    assert abs(np.median(added)) < 5


@pytest.mark.parametrize(("low_mm", "high_mm"), [(-70, 0), (12, 22), (30, 90)])
def test_a_part_of_a_head_is_painted_where_it_shows_brain(normal, low_mm, high_mm):
    """The skull base alone once had paint in the air of the nose, and a thin slab had wedges of it."""
    whole, protocol = normal.scan, normal.protocol
    heights = protocol.bottom_mm + protocol.slice_mm * np.arange(len(whole.hu))
    part = (heights > low_mm) & (heights < high_mm)
    areas = normal.inside[part].sum(axis=(1, 2))
    scan = replace(
        whole, hu=whole.hu[part], slice_origins_mm=whole.slice_origins_mm[part], slice_numbers=(), slice_mm=None
    )
    painted_ml = {}
    for kind in ("epidural", "intraparenchymal", "subdural"):
        for seed in range(2):
            after, mask = paint(scan, seed=seed, leading=kind)
            blood = mask == CODES[kind]
            painted_ml[kind] = painted_ml.get(kind, 0.0) + scan.volume_ml(blood)
            assert not (mask > 0)[scan.hu < -50].any() and not (after.hu != scan.hu)[scan.hu < -300].any()
            assert ((mask > 0).sum(axis=(1, 2)) < 0.4 * areas + 20).all()
    assert all(ml > 0.3 for ml in painted_ml.values()), painted_ml


def test_what_has_no_skull_is_refused():
    with pytest.raises(InputError, match="no skull"):
        paint(even_scan(np.full((8, 64, 64), 30, np.int16), 3.0, 5.0))
    with pytest.raises(InputError, match="distances"):
        paint(even_scan(np.full((1, 64, 64), 30, np.int16), 3.0, 5.0))


def test_real_head_keeps_its_noise_under_the_paint(shared_data):
    head = read_scan(shared_data / "head-ct-nifti" / "head.nii.gz")
    painted, mask = paint(head, seed=3, leading="intraparenchymal")
    assert 1 < painted.volume_ml(mask) < 80
    inside = mask == CODES["intraparenchymal"]
    fine = painted.hu.astype(np.float32) - head.hu
    assert np.percentile(fine[inside], 75) > 8 and abs(fine[mask == 0]).mean() < 0.5


def test_a_part_of_a_head_is_painted_on_its_own_slices(head):
    """Its height in the head is unknown; when it was taken for the vertex, no bleeding found room."""
    middle = len(head.hu) // 2
    part = replace(
        head,
        hu=head.hu[middle - 3 : middle + 3],
        slice_origins_mm=head.slice_origins_mm[middle - 3 : middle + 3],
        slice_numbers=head.slice_numbers[middle - 3 : middle + 3],
        source=None,
    )
    found = set()
    for seed in range(8):
        painted, mask = paint(part, seed=seed, leading=("intraparenchymal", "epidural", "subdural")[seed % 3])
        found |= set(np.unique(mask)) - {0}
        if mask.any():
            assert np.median((painted.hu.astype(int) - part.hu)[mask > 0]) > 4
    # Ventricles and cisterns cannot be told apart in it.
    assert len(found) >= 2 and found <= {CODES[kind] for kind in ("intraparenchymal", "epidural", "subdural")}
