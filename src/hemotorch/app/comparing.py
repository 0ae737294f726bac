"""Two layers of one study compared: Dice and mL."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hemotorch.app.layers import read_layer, read_mask, rounded
from hemotorch.app.schemas import LayerComparison
from hemotorch.labels import CODES
from hemotorch.scan import Scan

TOTAL = "total"


def compare_layers(folder: Path, scan: Scan, a: str, b: str) -> LayerComparison:
    """Dice of all bleeding, and of each type if both layers tell types apart; and mL that only one of them has.

    Args:
        folder: of the study.
        scan: of the study.
        a, b: ids of its layers.

    Raises:
        Missing: if there is no such layer.
    """
    records = read_layer(folder, a), read_layer(folder, b)
    masks = read_mask(folder, a), read_mask(folder, b)
    dice = {TOTAL: dice_of(masks[0] != 0, masks[1] != 0)}
    if records[0].typed and records[1].typed:
        for name, code in CODES.items():
            dice_of_type = dice_of(masks[0] == code, masks[1] == code)
            if dice_of_type is not None:
                dice[name] = dice_of_type
    return LayerComparison(
        a=a,
        b=b,
        dice=dice,
        a_ml=records[0].layer.volume_ml,
        b_ml=records[1].layer.volume_ml,
        only_a_ml=rounded(scan.volume_ml((masks[0] != 0) & (masks[1] == 0))),
        only_b_ml=rounded(scan.volume_ml((masks[1] != 0) & (masks[0] == 0))),
    )


def dice_of(a: np.ndarray, b: np.ndarray) -> float | None:
    """2 |A and B| / (|A| + |B|) of two masks of one shape, slice by slice; None if both are empty."""
    both = sum(int(np.count_nonzero(x & y)) for x, y in zip(a, b, strict=True))
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return None if total == 0 else round(2 * both / total, 4)
