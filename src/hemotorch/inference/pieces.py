"""Connected pieces of a mask, by their volume."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

TOUCHING = np.ones((3, 3, 3))  #: voxels that share a face, an edge or a corner belong together


def large_pieces(mask: np.ndarray, voxel_ml: np.ndarray, min_ml: float) -> np.ndarray:
    """Which voxels of a mask are in a connected piece of at least a volume.

    Args:
        mask: (slices, rows, columns), non-zero is outlined.
        voxel_ml: (slices,) mL of one voxel of each slice.
        min_ml: the least volume of a piece.

    Returns:
        Bool of the mask's shape; what is not outlined may be True as well.
    """
    pieces, count = ndimage.label(mask, TOUCHING)
    volumes = np.broadcast_to(voxel_ml[:, None, None], pieces.shape)
    piece_ml = np.bincount(pieces.ravel(), volumes.ravel(), count + 1)
    large: np.ndarray = (piece_ml >= min_ml)[pieces]
    return large


def faint_ml(mask: np.ndarray, probability: np.ndarray, voxel_ml: np.ndarray, sure: float) -> float:
    """mL of a mask's connected pieces whose mean probability is under `sure`.

    Args:
        mask: (slices, rows, columns), non-zero is outlined.
        probability: of the same shape, of bleeding.
        voxel_ml: (slices,) mL of one voxel of each slice.
        sure: a probability.
    """
    boxes = ndimage.find_objects((mask > 0).astype(np.uint8))
    if not boxes:
        return 0.0
    pieces, count = ndimage.label(mask[boxes[0]], TOUCHING)
    at = np.nonzero(pieces)
    numbers = pieces[at]
    piece_ml = np.bincount(numbers, voxel_ml[boxes[0][0]][at[0]], count + 1)
    voxels = np.bincount(numbers, minlength=count + 1)
    means = np.bincount(numbers, probability[boxes[0]][at], count + 1) / np.maximum(voxels, 1)
    return float(piece_ml[1:][means[1:] < sure].sum())
