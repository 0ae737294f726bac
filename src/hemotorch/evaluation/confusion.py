"""Which type of bleeding was taken for which: counts of one scan.

A voxel of unknown type (`labels.UNTYPED`: slice labels leave several possible, or there are none) decides nothing about
types. It is left out here and counts as bleeding everywhere else.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hemotorch.evaluation.counts import Counts
from hemotorch.labels import CODES, TYPES, UNTYPED

NONE = "none"  #: no bleeding, in the rows and columns of a confusion
NAMES = (NONE, *TYPES)  #: of rows and columns: the codes of `labels` in order

#: Amounts by true (row) and predicted (column) code, each 0 to 5.
Confusion = tuple[tuple[float, ...], ...]


def count_types(truth: np.ndarray, predicted: np.ndarray) -> dict[str, tuple[int, int]]:
    """How much of each type was called bleeding, of whatever type.

    Args:
        truth: codes of `labels`, any shape.
        predicted: the same shape, non-zero is bleeding.

    Returns:
        By type, for those that the truth holds: voxels predicted, and all of them.
    """
    voxels = np.bincount(truth.ravel(), minlength=len(CODES) + 1)
    predicted_voxels = np.bincount(truth[predicted != 0], minlength=len(CODES) + 1)
    return {name: (int(predicted_voxels[code]), int(voxels[code])) for name, code in CODES.items() if voxels[code]}


def confuse(truth: np.ndarray, predicted: np.ndarray, weights: Iterable[float]) -> Confusion:
    """What was taken for what, over all voxels but those of unknown true type.

    Args:
        truth: (slices, rows, columns) uint8 codes of `labels`.
        predicted: the same shape, 0 or the code of a type.
        weights: what a voxel of each slice counts, such as its mL.
    """
    size = UNTYPED + 1
    amounts = np.zeros((size, size))
    # A histogram of pairs for each slice, since voxels of unlike slices may weigh differently.
    for true_slice, predicted_slice, weight in zip(truth, predicted, weights, strict=True):
        pairs = true_slice.astype(np.intp) * size + predicted_slice
        amounts += weight * np.bincount(pairs.ravel(), minlength=size * size).reshape(size, size)
    return tuple(tuple(row) for row in amounts[:UNTYPED, :UNTYPED].tolist())


def counts_of(confusion: Confusion, name: str) -> Counts:
    """The confusion seen from one type: that type against all the rest."""
    amounts, code = np.array(confusion), CODES[name]
    tp = float(amounts[code, code])
    fn = float(amounts[code].sum()) - tp
    fp = float(amounts[:, code].sum()) - tp
    return Counts(tp, fp, fn, float(amounts.sum()) - tp - fp - fn)
