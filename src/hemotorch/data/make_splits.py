"""Makes the named splits of a prepared dataset: by patient, and stratified."""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hemotorch.data.manifest import SliceRow, volume_ml
from hemotorch.data.splits import PARTS, Part, Split
from hemotorch.errors import some_of
from hemotorch.labels import TYPES

FOLDS = 5  #: Hssayeni et al. 2020: five folds by subject, 3 train, 1 validation, 1 test
THREE = {"train": 0.6, "val": 0.1, "test": 0.3}
TWO = {"train": 0.8, "test": 0.2}  #: the 2021 paper's


@dataclass(frozen=True)
class _Unit:
    """What is never torn apart: all scans of one patient, or one scan where patients are unknown."""

    cases: tuple[str, ...]
    positive: bool
    types: frozenset[str]
    volume_ml: float
    share: float  # of pixels with bleeding, in slices


def make_splits(rows: Sequence[SliceRow], seed: int = 0) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The named splits of a manifest, and warnings that say which of them are missing, and why.

    "patient" (60/10/30 train/val/test) and "patient-80-20" (no val) keep a patient's scans together and are stratified
    by bleeding, rarest type and volume; "fold-K" of five tests on fold K, validates on K + 1 and trains on the rest;
    "slice-80-20" (no val) is the 2021 paper's, over slices with bleeding and normal ones alike. Where patients are
    unknown, "case" and "case-80-20" stand for the first two, and all splits are `by` "slice". Scans without a mask are
    in no split. A function of rows and seed alone.
    """
    masked = [row for row in rows if row.has_mask]
    known = all(row.patient is not None for row in masked)
    units = _units(masked, known)
    warnings = _missing(rows, masked, known, units)
    unit, by = ("patient", "patient") if known else ("case", "slice")
    slices = {case: tuple(range(count)) for case, count in _counts(masked).items()}
    made: dict[str, Split] = {}

    def add(name: str, by: str, parts: Mapping[str, Part]) -> None:
        made[name] = _split(name, by, {part: parts.get(part, {}) for part in PARTS}, masked)

    if len(units) > 1:
        for name, shares in ((unit, THREE), (f"{unit}-80-20", TWO)):
            dealt = _deal(units, shares, _random(seed, name))
            add(name, by, {part: _whole(chosen, slices) for part, chosen in dealt.items()})
    if len(masked) > 1:
        add("slice-80-20", "slice", _by_slice(masked, _random(seed, "slice-80-20")))
    count = _fold_count(units)
    if len(units) > 1:
        folds = _deal(units, {str(k): 1 / count for k in range(count)}, _random(seed, "fold"))
        for k in range(count):
            val = (k + 1) % count if count > 2 else None
            train = [unit for other in range(count) if other not in (k, val) for unit in folds[str(other)]]
            parts = {"train": train, "val": [] if val is None else folds[str(val)], "test": folds[str(k)]}
            add(f"fold-{k}", by, {part: _whole(chosen, slices) for part, chosen in parts.items()})
        if count < FOLDS:
            warnings.append(f"{count} folds instead of {FOLDS}: there are {_few(units, known)}")
    return made, tuple(warnings)


def _units(rows: Sequence[SliceRow], by_patient: bool) -> list[_Unit]:
    groups: dict[str, list[SliceRow]] = defaultdict(list)
    for row in rows:
        groups[str(row.patient) if by_patient else row.case].append(row)
    return [
        _Unit(
            cases=tuple(dict.fromkeys(row.case for row in group)),
            positive=any(row.positive_pixels for row in group),
            types=frozenset(t for row in group if row.types for t, held in zip(TYPES, row.types, strict=True) if held),
            volume_ml=volume_ml(group),
            share=sum(row.positive_pixels / row.pixels for row in group),
        )
        for group in groups.values()
    ]


def _deal(units: list[_Unit], shares: Mapping[str, float], random: np.random.Generator) -> dict[str, list[_Unit]]:
    """Each part its share of the units: as near as whole units allow of those with bleeding, and of all.

    Units are put in a circle by rarest type and volume, ties at random, and each part takes them at even distances from
    a random start; turned at random, so that all are as likely to be tested on.
    """
    shuffled = [units[i] for i in random.permutation(len(units))]
    positive = _in_order([unit for unit in shuffled if unit.positive])
    normal = [unit for unit in shuffled if not unit.positive]
    of_positive = _quotas(len(positive), {part: share * len(positive) for part, share in shares.items()})
    of_all = _quotas(len(units), {part: share * len(units) for part, share in shares.items()})
    wanted = {part: of_all[part] - of_positive[part] for part in shares}
    of_normal = _quotas(len(normal), wanted, least=0)
    dealt: dict[str, list[_Unit]] = {part: [] for part in shares}
    for row, quotas in ((positive, of_positive), (normal, of_normal)):
        starts = dict(zip(quotas, random.random(len(quotas)).tolist(), strict=True))
        places = sorted(((k + starts[part]) / quota, part) for part, quota in quotas.items() for k in range(quota))
        turn = int(random.integers(len(row))) if row else 0
        for unit, (_, part) in zip(row[turn:] + row[:turn], places, strict=True):
            dealt[part].append(unit)
    return dealt


def _in_order(positive: list[_Unit]) -> list[_Unit]:
    """Units with bleeding, those of the rarest type first, each type from small to large."""
    count = {name: sum(name in unit.types for unit in positive) for name in TYPES}
    rarity = sorted(TYPES, key=lambda name: (count[name], name))
    sized = all(math.isfinite(unit.volume_ml) for unit in positive)

    def place(unit: _Unit) -> tuple[int, float]:
        rarest = min((rarity.index(name) for name in unit.types), default=len(rarity))
        return rarest, unit.volume_ml if sized else unit.share

    return sorted(positive, key=place)


def _quotas(count: int, targets: Mapping[str, float], least: int = 1) -> dict[str, int]:
    """Whole numbers that sum to `count`, near the targets, none below `least` where there are enough.

    Where there are too few, training and testing come before validation.
    """
    first = sorted(targets, key=lambda part: part == "val")
    quotas = {part: least if least * i < count else 0 for i, part in enumerate(first)}
    while sum(quotas.values()) < count:
        quotas[max(first, key=lambda part: targets[part] - quotas[part])] += 1
    return {part: quotas[part] for part in targets}


def _by_slice(rows: Sequence[SliceRow], random: np.random.Generator) -> dict[str, Part]:
    chosen: dict[str, dict[str, list[int]]] = {part: defaultdict(list) for part in TWO}
    for positive in (True, False):
        group = [row for row in rows if (row.positive_pixels > 0) == positive]
        quotas = _quotas(len(group), {part: share * len(group) for part, share in TWO.items()})
        parts = random.permutation([part for part, quota in quotas.items() for _ in range(quota)])
        for row, part in zip(group, parts, strict=True):
            chosen[part][row.case].append(row.index)
    return {part: {case: tuple(sorted(indices)) for case, indices in cases.items()} for part, cases in chosen.items()}


def _split(name: str, by: str, parts: Mapping[str, Part], rows: Sequence[SliceRow]) -> Split:
    bleeds = {(row.case, row.index) for row in rows if row.positive_pixels}
    warnings = []
    for part, cases in parts.items():
        if cases and not any((case, index) in bleeds for case, indices in cases.items() for index in indices):
            warnings.append(f"split '{name}': no bleeding in its {part} part")
    if not parts["val"] and (name in ("patient", "case") or name.startswith("fold-")):
        warnings.append(f"split '{name}': too few patients for a val part")
    kind: Literal["patient", "slice"] = "patient" if by == "patient" else "slice"
    return Split(name, kind, parts["train"], parts["val"], parts["test"], tuple(warnings))


def _fold_count(units: Sequence[_Unit]) -> int:
    """Five, or as many as there are units with bleeding; but three, where that many units are there at all."""
    positive = sum(unit.positive for unit in units) or len(units)
    return min(FOLDS, max(3, positive), len(units))


def _missing(rows: Sequence[SliceRow], masked: Sequence[SliceRow], known: bool, units: Sequence[_Unit]) -> list[str]:
    warnings = []
    without = list(dict.fromkeys(row.case for row in rows if not row.has_mask))
    if without:
        warnings.append(f"{len(without)} scans without a mask are in no split: {some_of(without)}")
    if not masked:
        return [*warnings, "no split, since no scan has a mask: nothing can be trained or scored on this dataset"]
    if not known:
        warnings.append("no split by patient, since patients are unknown: 'case' and 'fold-K' keep scans together")
    if len(units) < 2:
        warnings.append(f"no split but by slice, since there is one {'patient' if known else 'scan'} only")
    return warnings


def _few(units: Sequence[_Unit], known: bool) -> str:
    noun = "patients" if known else "scans"
    positive = sum(unit.positive for unit in units)
    return f"{len(units)} {noun}, {positive} of them with bleeding"


def _whole(units: Iterable[_Unit], slices: Mapping[str, tuple[int, ...]]) -> Part:
    mine = {case for unit in units for case in unit.cases}
    return {case: indices for case, indices in slices.items() if case in mine}


def _counts(rows: Iterable[SliceRow]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        counts[row.case] += 1
    return counts


def _random(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
