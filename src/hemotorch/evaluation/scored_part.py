"""The part of a split that is scored: its slices, their truth, and what a reader must know of the split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from hemotorch.data.audit import audit
from hemotorch.data.dataset import Dataset
from hemotorch.data.splits import PARTS, Split
from hemotorch.errors import OptionError, nearest
from hemotorch.labels import UNTYPED


class SplitDescription(TypedDict):
    """What was scored, and how far it is apart from what was trained on.

    name, by, warnings: of the split; by is "patient" or "slice". part: "train", "val", "test" or "all".
    external: the dataset is not the one that was trained on.
    patients, scans, slices: how many are scored.
    patients_on_both_sides, identical_slices: how many of them other parts hold too; audit: the same in words.
    """

    name: str
    by: str
    part: str
    external: bool
    patients_known: bool
    patients: int
    scans: int
    slices: int
    patients_on_both_sides: int
    identical_slices: int
    audit: list[str]
    warnings: list[str]


class DatasetDescription(TypedDict):
    """The dataset that was scored: its folder, the layout that it was prepared from, and how many scans it holds."""

    root: str
    layout: str
    cases: int


def slices_of(dataset: Dataset, split: Split, part: str) -> dict[str, tuple[int, ...]]:
    """The slices to score, by case. Raises OptionError for an unknown part or one without slices."""
    if part == "all":
        return {case: tuple(range(len(dataset.rows[case]))) for case in dataset.cases}
    if part not in PARTS:
        raise OptionError(f"a split has no part '{part}'", "--split", nearest(part, (*PARTS, "all")))
    slices = {case: tuple(indices) for case, indices in split.part(part).items() if indices}
    if not slices:
        others = [name for name in PARTS if split.part(name)]
        raise OptionError(f"split '{split.name}' has no {part} part", "--split", f"it has: {', '.join(others)}")
    return slices


def truth_of(dataset: Dataset, case: str, indices: Sequence[int]) -> np.ndarray | None:
    """The scan's true mask.

    Bleeding of unknown type gets the type of its slice's labels if these name one only.

    Args:
        indices: the slices that are scored.

    Returns:
        (slices, rows, columns) uint8 codes of `labels`. If no mask was drawn it is all zero if labels exclude bleeding
        in these slices, else None.
    """
    mask = dataset.mask(case)
    types_of_slices = [row.types for row in dataset.rows[case]]
    if mask is None:
        for index in indices:
            types = types_of_slices[index]
            if types is None or any(types):
                return None
        return np.zeros(dataset.scan(case).shape, np.uint8)
    # The published masks of CT-ICH have no types, but its table names those of each slice.
    codes = np.full(len(mask), UNTYPED, np.uint8)
    for index, types in enumerate(types_of_slices):
        if types is not None and sum(types) == 1:
            codes[index] = types.index(True) + 1
    return np.where(mask == UNTYPED, codes[:, None, None], mask)


def describe_split(dataset: Dataset, split: Split, part: str, external: bool) -> SplitDescription:
    """What is scored, with the audit of what the split's other parts hold of it too."""
    scored = slices_of(dataset, split, part)
    others = {} if part == "all" or external else _other_slices(split, part)
    result = audit(dataset, Split(split.name, split.by, others, {}, scored))
    return SplitDescription(
        name=split.name,
        by=split.by,
        part=part,
        external=external,
        patients_known=dataset.patients_known,
        patients=len({dataset.rows[case][0].patient or case for case in scored}),
        scans=len(scored),
        slices=sum(map(len, scored.values())),
        patients_on_both_sides=len(result.patients),
        identical_slices=len(result.slices),
        audit=result.lines() if others else [],
        warnings=list(split.warnings),
    )


def _other_slices(split: Split, part: str) -> dict[str, tuple[int, ...]]:
    """The slices of the split's other parts, by case."""
    slices: dict[str, set[int]] = {}
    for name in PARTS:
        if name != part:
            for case, indices in split.part(name).items():
                slices.setdefault(case, set()).update(indices)
    return {case: tuple(sorted(indices)) for case, indices in slices.items()}


def warnings(split: SplitDescription) -> list[str]:
    """What a reader must know before any number: patients on both sides, unknown patients, data it was trained on."""
    texts = []
    both, patients, slices = split["patients_on_both_sides"], split["patients"], split["slices"]
    if not split["patients_known"]:
        sides = f"{both} of the {patients} scored scans have slices in training too"
        texts.append(
            "Which patient a scan is of is unknown here, so patients may be on both sides unseen; "
            f"{sides if both else 'no scan is on both sides'}. Only the split's own {slices} slices are scored."
        )
    elif split["by"] == "slice":
        texts.append(
            f"Patients are on both sides of this slice-wise split: {both} of the {patients} scored patients have other "
            f"slices in training. Only its own {slices} slices are scored; expect less on new patients."
        )
    elif both:
        texts.append(
            f"{both} of the {patients} scored patients are on both sides of this split: expect less on new patients."
        )
    if split["part"] in ("train", "all") and not split["external"]:
        texts.append("These scans were trained on: the figures say nothing about new patients.")
    if split["part"] == "val" and not split["external"]:
        texts.append("Validation scans: the network was chosen on them, or even trained on them.")
    if split["identical_slices"]:
        texts.append(f"{split['identical_slices']} scored slices are identical to slices outside this part.")
    if split["external"]:
        texts.append("Another dataset than the network was trained on: overlap between the two was not audited.")
    return texts
