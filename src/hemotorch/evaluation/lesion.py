"""Lesion by lesion: which separate bleedings were found, and how many were found where there is none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

#: Ours: a lesion is found if this share of its voxels is predicted; one stray voxel is no finding.
FOUND_SHARE = 0.1
TOUCHING = np.ones((3, 3, 3))  #: voxels that share a face, an edge or a corner belong together


@dataclass(frozen=True)
class Lesions:
    """lesions: separate bleedings in the truth; found: of these; false: predicted ones that touch no bleeding."""

    lesions: int
    found: int
    false: int


def count_lesions(truth: np.ndarray, predicted: np.ndarray) -> Lesions:
    """Compares connected components (26 neighbours) of two (slices, rows, columns) masks; non-zero is bleeding."""
    boxes = ndimage.find_objects(((truth != 0) | (predicted != 0)).astype(np.uint8))
    if not boxes:
        return Lesions(0, 0, 0)
    truth, predicted = truth[boxes[0]] != 0, predicted[boxes[0]] != 0
    true_labels, true_count = ndimage.label(truth, TOUCHING)
    sizes = np.bincount(true_labels.ravel(), minlength=true_count + 1)[1:]
    overlaps = np.bincount(true_labels[predicted], minlength=true_count + 1)[1:]
    found = np.count_nonzero(overlaps >= FOUND_SHARE * sizes)
    predicted_labels, predicted_count = ndimage.label(predicted, TOUCHING)
    touching = len(np.unique(predicted_labels[truth & predicted]))
    return Lesions(true_count, int(found), predicted_count - touching)
