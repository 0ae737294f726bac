"""What contenders outlined -> Dice, by the one code that `hemotorch evaluate` has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hemotorch.data.dataset import Dataset
from hemotorch.evaluation.evaluate import evaluate, slices_of
from hemotorch.scan import Prediction, Scan
from peers.export import SPLIT


class _Stored:
    """Masks made earlier, handed out in the order in which the scans are asked for."""

    def __init__(self, masks: Iterator[np.ndarray]):
        self._masks = masks

    def predict(self, scan: Scan) -> Prediction:
        mask = next(self._masks).astype(np.uint8)
        if mask.shape != scan.shape:
            raise SystemExit(f"a mask of {mask.shape} for a scan of {scan.shape}")
        return Prediction(scan, mask, mask.astype(np.float32), {"total": scan.volume_ml(mask)}, "", {}, ())


def score(dataset: Dataset, ids: Mapping[str, str], file: Path) -> dict[str, Any]:
    """Mean Dice over the held-out scans with bleeding, its interval, each scan's, and mL found in normal scans.

    ids: the case of each ID in `file`, the masks as (slices, rows, columns).
    """
    split = dataset.split(SPLIT)
    with np.load(file) as stored:
        masks = {ids[name]: stored[name] for name in stored.files}
    order = slices_of(dataset, split, "test")
    stored_masks = _Stored(masks[case] for case in order)
    scores = evaluate(stored_masks, dataset, split, "test", baseline=None, examples=False)
    dice = scores.summary["dice"]["scan"]
    return {
        "dice": dice["mean"],
        "ci95": dice["ci95"],
        "scans": dice["n"],
        "normal_ml": scores.summary["false_positive_ml"]["mean"],
        "each": {scan.case: scan.network.volume.dice for scan in scores.scans if scan.network.bleeding},
    }
