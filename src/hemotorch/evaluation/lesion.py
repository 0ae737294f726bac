"""Lesion by lesion: which separate bleedings were found, and how many were found where there is none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

FOUND_SHARE = 0.1  #: ours: a lesion is found when this share of its voxels is predicted; one stray voxel is no finding
_TOUCHING = np.ones((3, 3, 3))  # voxels that share a face, an edge or a corner belong together


@dataclass(frozen=True)
class Lesions:
    """lesions: separate bleedings in the truth; found: of these; false: predicted ones that touch no bleeding."""

    lesions: int
    found: int
    false: int


def count_lesions(truth: np.ndarray, predicted: np.ndarray) -> Lesions:
    """Compares connected components (26 neighbours) of two (slices, rows, columns) masks; non-zero is bleeding."""
    either = ndimage.find_objects(((truth != 0) | (predicted != 0)).astype(np.uint8))
    if not either:
        return Lesions(0, 0, 0)
    truth, predicted = truth[either[0]] != 0, predicted[either[0]] != 0
    parts, lesions = ndimage.label(truth, _TOUCHING)
    sizes = np.bincount(parts.ravel(), minlength=lesions + 1)[1:]
    overlaps = np.bincount(parts[predicted], minlength=lesions + 1)[1:]
    parts, spots = ndimage.label(predicted, _TOUCHING)
    touching = len(np.unique(parts[truth & predicted]))
    return Lesions(lesions, int(np.count_nonzero(overlaps >= FOUND_SHARE * sizes)), spots - touching)
