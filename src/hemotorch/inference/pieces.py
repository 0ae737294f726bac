"""Connected pieces of a mask, by their volume."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from hemotorch.scan import LeftOut
from hemotorch.system.arrays import bounding_box

TOUCHING = np.ones((3, 3, 3))  #: voxels that share a face, an edge or a corner belong together


def without_small_pieces(mask: np.ndarray, voxel_ml: np.ndarray, min_ml: float) -> tuple[np.ndarray, LeftOut | None]:
    """A mask without its connected pieces under a volume.

    Args:
        mask: (slices, rows, columns), non-zero is outlined.
        voxel_ml: (slices,) mL of one voxel of each slice.
        min_ml: the least volume of a piece.

    Returns:
        The mask, of the same type; and what was dropped from it, None if nothing was.
    """
    pieces, count = ndimage.label(mask, TOUCHING)
    volumes = np.broadcast_to(voxel_ml[:, None, None], pieces.shape)
    piece_ml = np.bincount(pieces.ravel(), volumes.ravel(), count + 1)
    is_small = piece_ml < min_ml
    is_small[0] = False  # what is not outlined
    small_ml = piece_ml[is_small]
    if not small_ml.size:
        return mask, None
    kept: np.ndarray = np.where(is_small[pieces], mask.dtype.type(0), mask)
    return kept, LeftOut(small_ml.size, round(float(small_ml.sum()), 3), min_ml)


def faint_ml(mask: np.ndarray, probability: np.ndarray, voxel_ml: np.ndarray, sure: float) -> float:
    """mL of a mask's connected pieces whose mean probability is under `sure`.

    Args:
        mask: (slices, rows, columns), non-zero is outlined.
        probability: of the same shape, of bleeding.
        voxel_ml: (slices,) mL of one voxel of each slice.
        sure: a probability.
    """
    box = bounding_box(mask)
    if box is None:
        return 0.0
    pieces, count = ndimage.label(mask[box], TOUCHING)
    at = np.nonzero(pieces)
    numbers = pieces[at]
    piece_ml = np.bincount(numbers, voxel_ml[box[0]][at[0]], count + 1)
    voxels = np.bincount(numbers, minlength=count + 1)
    means = np.bincount(numbers, probability[box][at], count + 1) / np.maximum(voxels, 1)
    return float(piece_ml[1:][means[1:] < sure].sum())
