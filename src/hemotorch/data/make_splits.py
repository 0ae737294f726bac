"""Makes the named splits of a prepared dataset: by patient, and stratified."""

from __future__ import annotations

import itertools
import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hemotorch.data.manifest import SliceRow, volume_ml
from hemotorch.data.splits import PARTS, Part, Split
from hemotorch.errors import some_of
from hemotorch.labels import TYPES

Shares = Mapping[str, float]  #: by part
Parts = dict[str, Part]  #: by name: train, val, test

FOLDS = 5  #: Hssayeni et al. 2020: five folds by subject, 3 train, 1 validation, 1 test
THREE = {"train": 0.6, "val": 0.1, "test": 0.3}
TWO = {"train": 0.8, "test": 0.2}  #: the 2021 paper's


@dataclass(frozen=True)
class _Unit:
    """What is never torn apart: all scans of one patient, or one scan if patients are unknown.

    share: of pixels with bleeding, summed over slices.
    """

    cases: tuple[str, ...]
    positive: bool
    types: frozenset[str]
    volume_ml: float
    share: float


def make_splits(rows: Sequence[SliceRow], seed: int = 0) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The named splits of a manifest. A function of rows and seed alone.

    "patient" (60/10/30 train/val/test) and "patient-80-20" (no val) keep a patient's scans together and are stratified
    by bleeding, rarest type and volume; "fold-K" of five tests on fold K, validates on K + 1 and trains on the rest;
    "slice-80-20" (no val) is the 2021 paper's, over slices with bleeding and normal ones alike. If patients are
    unknown, "case" and "case-80-20" stand for the first two, and all splits are `by` "slice". Scans without a mask are
    in no split.

    Returns:
        The splits by name, and warnings that say which of them are missing, and why.
    """
    masked = [row for row in rows if row.has_mask]
    patients_known = all(row.patient is not None for row in masked)
    units = _units(masked, patients_known)
    warnings = _missing(rows, masked, patients_known, units)
    unit_name, by = ("patient", "patient") if patients_known else ("case", "slice")
    parts_by_name: dict[str, Parts] = {}
    if len(units) > 1:
        for name, shares in ((unit_name, THREE), (f"{unit_name}-80-20", TWO)):
            parts_by_name[name] = _whole(_deal(units, shares, _random(seed, name)), masked)
    if len(masked) > 1:
        parts_by_name["slice-80-20"] = _by_slice(masked, _random(seed, "slice-80-20"))
    if len(units) > 1:
        count = _fold_count(units)
        for fold, units_by_part in enumerate(_folds(units, count, _random(seed, "fold"))):
            parts_by_name[f"fold-{fold}"] = _whole(units_by_part, masked)
        if count < FOLDS:
            warnings.append(f"{count} folds instead of {FOLDS}: there are {_few(units, patients_known)}")
    splits = {}
    for name, parts in parts_by_name.items():
        splits[name] = _split(name, "slice" if name == "slice-80-20" else by, parts, masked)
    return splits, tuple(warnings)


def _units(rows: Sequence[SliceRow], by_patient: bool) -> list[_Unit]:
    groups: dict[str, list[SliceRow]] = defaultdict(list)
    for row in rows:
        groups[str(row.patient) if by_patient else row.case].append(row)
    return list(map(_unit, groups.values()))


def _unit(rows: Sequence[SliceRow]) -> _Unit:
    types: set[str] = set()
    for row in rows:
        types.update(itertools.compress(TYPES, row.types or ()))
    return _Unit(
        cases=tuple(dict.fromkeys(row.case for row in rows)),
        positive=any(row.positive_pixels for row in rows),
        types=frozenset(types),
        volume_ml=volume_ml(rows),
        share=sum(row.positive_pixels / row.pixels for row in rows),
    )


def _deal(units: list[_Unit], shares: Shares, random: np.random.Generator) -> dict[str, list[_Unit]]:
    """Each part its share of the units: as near as whole units allow of those with bleeding, and of all.

    Units are put in a circle by rarest type and volume, ties at random, and each part takes them at even distances from
    a random start; turned at random, so that all are as likely to be tested on.
    """
    shuffled = [units[index] for index in random.permutation(len(units))]
    positive = _in_order([unit for unit in shuffled if unit.positive])
    normal = [unit for unit in shuffled if not unit.positive]
    of_positive = _quotas(len(positive), _targets(shares, len(positive)))
    of_all = _quotas(len(units), _targets(shares, len(units)))
    of_normal = _quotas(len(normal), {part: of_all[part] - of_positive[part] for part in shares}, least=0)
    dealt: dict[str, list[_Unit]] = {part: [] for part in shares}
    for circle, quotas in ((positive, of_positive), (normal, of_normal)):
        parts = _spread(quotas, random)
        turn = int(random.integers(len(circle))) if circle else 0
        for unit, part in zip(circle[turn:] + circle[:turn], parts, strict=True):
            dealt[part].append(unit)
    return dealt


def _spread(quotas: Mapping[str, int], random: np.random.Generator) -> list[str]:
    """Each part's name as often as its quota says, at even distances from a random start."""
    starts = random.random(len(quotas)).tolist()
    positions = []
    for start, (part, quota) in zip(starts, quotas.items(), strict=True):
        positions += [((number + start) / quota, part) for number in range(quota)]
    return [part for _, part in sorted(positions)]


def _in_order(positive: list[_Unit]) -> list[_Unit]:
    """Units with bleeding, those of the rarest type first, each type from small to large."""
    count = {name: sum(name in unit.types for unit in positive) for name in TYPES}
    rarity = sorted(TYPES, key=lambda name: (count[name], name))
    sized = all(math.isfinite(unit.volume_ml) for unit in positive)

    def order(unit: _Unit) -> tuple[int, float]:
        rarest = min(map(rarity.index, unit.types), default=len(rarity))
        return rarest, unit.volume_ml if sized else unit.share

    return sorted(positive, key=order)


def _targets(shares: Shares, count: int) -> dict[str, float]:
    return {part: share * count for part, share in shares.items()}


def _quotas(count: int, targets: Mapping[str, float], least: int = 1) -> dict[str, int]:
    """Whole numbers that sum to `count`, near the targets, none below `least` if there are enough.

    If there are too few, training and testing come before validation.
    """
    val_last = sorted(targets, key=lambda part: part == "val")
    quotas = dict.fromkeys(targets, 0)
    for number, part in enumerate(val_last):
        if least * number < count:
            quotas[part] = least
    while sum(quotas.values()) < count:
        neediest = max(val_last, key=lambda part: targets[part] - quotas[part])
        quotas[neediest] += 1
    return quotas


def _folds(units: list[_Unit], count: int, random: np.random.Generator) -> list[dict[str, list[_Unit]]]:
    """For each fold the units that train, validate and test. Two folds leave none to validate on."""
    dealt = _deal(units, {str(fold): 1 / count for fold in range(count)}, random)
    folds = []
    for test in range(count):
        parts: dict[str, list[_Unit]] = {"train": [], "val": [], "test": dealt[str(test)]}
        for fold in range(count):
            if count > 2 and fold == (test + 1) % count:
                parts["val"] = dealt[str(fold)]
            elif fold != test:
                parts["train"] += dealt[str(fold)]
        folds.append(parts)
    return folds


def _by_slice(rows: Sequence[SliceRow], random: np.random.Generator) -> Parts:
    chosen: dict[str, dict[str, list[int]]] = {part: defaultdict(list) for part in TWO}
    for positive in (True, False):
        group = [row for row in rows if (row.positive_pixels > 0) == positive]
        quotas = _quotas(len(group), _targets(TWO, len(group)))
        parts: list[str] = []
        for part, quota in quotas.items():
            parts += [part] * quota
        for row, part in zip(group, random.permutation(parts), strict=True):
            chosen[part][row.case].append(row.index)
    parts_of_slices: Parts = {}
    for part, cases in chosen.items():
        parts_of_slices[part] = {case: tuple(sorted(indices)) for case, indices in cases.items()}
    return parts_of_slices


def _split(name: str, by: str, parts: Parts, rows: Sequence[SliceRow]) -> Split:
    bleeding = {(row.case, row.index) for row in rows if row.positive_pixels}
    warnings = []
    for part in PARTS:
        slices = {(case, index) for case, indices in parts.get(part, {}).items() for index in indices}
        if slices and not slices & bleeding:
            warnings.append(f"split '{name}': no bleeding in its {part} part")
    val = parts.get("val", {})
    if not val and (name in ("patient", "case") or name.startswith("fold-")):
        warnings.append(f"split '{name}': too few patients for a val part")
    return Split(
        name=name,
        by="patient" if by == "patient" else "slice",
        train=parts.get("train", {}),
        val=val,
        test=parts.get("test", {}),
        warnings=tuple(warnings),
    )


def _fold_count(units: Sequence[_Unit]) -> int:
    """Five, or as many as there are units with bleeding; but three, if there are that many units at all."""
    positive = sum(unit.positive for unit in units) or len(units)
    return min(FOLDS, max(3, positive), len(units))


def _missing(
    rows: Sequence[SliceRow], masked: Sequence[SliceRow], patients_known: bool, units: Sequence[_Unit]
) -> list[str]:
    """Why splits, or scans in them, are missing."""
    warnings = []
    without = list(dict.fromkeys(row.case for row in rows if not row.has_mask))
    if without:
        warnings.append(f"{len(without)} scans without a mask are in no split: {some_of(without)}")
    if not masked:
        return [*warnings, "no split, since no scan has a mask: nothing can be trained or scored on this dataset"]
    if not patients_known:
        warnings.append("no split by patient, since patients are unknown: 'case' and 'fold-K' keep scans together")
    if len(units) < 2:
        warnings.append(f"no split but by slice, since there is one {'patient' if patients_known else 'scan'} only")
    return warnings


def _few(units: Sequence[_Unit], patients_known: bool) -> str:
    noun = "patients" if patients_known else "scans"
    positive = sum(unit.positive for unit in units)
    return f"{len(units)} {noun}, {positive} of them with bleeding"


def _whole(units_by_part: Mapping[str, Iterable[_Unit]], rows: Sequence[SliceRow]) -> Parts:
    """All slices of the units' cases, the cases in the order of the rows."""
    counts = Counter(row.case for row in rows)
    parts: Parts = {}
    for part, units in units_by_part.items():
        cases: set[str] = set()
        for unit in units:
            cases.update(unit.cases)
        parts[part] = {case: tuple(range(count)) for case, count in counts.items() if case in cases}
    return parts


def _random(seed: int, name: str) -> np.random.Generator:
    # A generator of its own for each split, so that one more split changes no other.
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
