"""What the heads that are trained on look like, so that prediction can say what is unlike them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hemotorch.data.dataset import Dataset
from hemotorch.data.splits import Part
from hemotorch.head.measured import MeasuredHead
from hemotorch.inference.seen import Seen
from hemotorch.recipe import Augment

MOST_SCANS = 32  #: of which heads are measured; of 512 x 512 x 32 each takes 0.4 s


def seen_in(dataset: Dataset, part: Part, augment: Augment) -> Seen:
    """The ranges of the scans that are trained on: of MOST_SCANS of them, evenly over the sorted cases.

    Args:
        dataset: what is trained on.
        part: the slices of each case to train on.
        augment: what is done to them.
    """
    cases = [case for case in sorted(part) if part[case]]
    picked = np.unique(np.linspace(0, len(cases) - 1, min(len(cases), MOST_SCANS)).round().astype(int))
    with ThreadPoolExecutor(2) as pool:
        heads = list(pool.map(lambda index: _measured(dataset, cases[index]), picked.tolist()))
    return Seen.of([head for head in heads if head is not None], augment)


def _measured(dataset: Dataset, case: str) -> MeasuredHead | None:
    """A case's head, None if its spacing is unknown."""
    scan = dataset.scan(case)
    return MeasuredHead.of(scan) if scan.spacing_known else None
