"""What is asked of masks, against the plain way of asking it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from hemotorch.system.arrays import bounding_box, voxels_per_slice


def test_the_box_and_the_voxels_are_those_of_scipy_and_numpy():
    rng = np.random.default_rng(5)
    for shape in ((7, 9, 11), (1, 4, 6), (12, 5)):
        for share in (0.01, 0.05, 0.4):
            mask = (rng.random(shape) < share) * rng.integers(1, 6, shape).astype(np.uint8)
            boxes = ndimage.find_objects((mask > 0).astype(np.uint8))
            assert bounding_box(mask) == (boxes[0] if boxes else None)
            assert bounding_box(mask > 0) == bounding_box(mask)
            others = tuple(range(1, mask.ndim))
            np.testing.assert_array_equal(voxels_per_slice(mask), np.count_nonzero(mask, axis=others))
    assert bounding_box(np.zeros((3, 4), bool)) is None
