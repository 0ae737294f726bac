"""A predictor and a part of a split -> Scores, the rule-based baseline beside it; one scan in memory at a time."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hemotorch.data.audit import audit
from hemotorch.data.dataset import Dataset
from hemotorch.data.splits import PARTS, Part, Split
from hemotorch.errors import InputError, OptionError, explain, nearest
from hemotorch.evaluation.comparison import Comparison, compare
from hemotorch.evaluation.scores import Example, ScanScore, Scores
from hemotorch.evaluation.summary import brief
from hemotorch.inference.baseline import RuleBaseline
from hemotorch.labels import UNTYPED
from hemotorch.pictures import head_box
from hemotorch.scan import Prediction, Scan
from hemotorch.system.files import jsonable, quoted, write_json, write_text
from hemotorch.system.progress import progress
from hemotorch.system.ranks import Ranks

SHOWN = 4  #: slices of a scan in a picture


class Predicts(Protocol):
    """Anything that outlines bleeding in a scan."""

    def predict(self, scan: Scan) -> Prediction: ...


def evaluate(
    predictor: Predicts,
    dataset: Dataset,
    split: Split,
    part: str = "test",
    *,
    baseline: RuleBaseline | None = RuleBaseline(),  # noqa: B008  frozen, and the default to be seen
    about: Mapping[str, Any] | None = None,
    external: bool = False,
    examples: bool = True,
    seed: int = 0,
) -> Scores:
    """Predicts each scan of the part once, whole, and scores the slices that belong to it.

    part: train, val, test, or all (every scan). about: what to write beside the figures, in JSON's types. external:
    the dataset is not the one trained on. examples: keep a few slices of telling scans, which are predicted again for
    it. A scan that cannot be read or predicted is named in `Scores.failed`, and the others are scored. Raises
    OptionError for an unknown part, InputError if no scan of it can be scored.
    """
    chosen = slices_of(dataset, split, part)
    scored: list[ScanScore] = []
    unscored: list[str] = []
    failed: dict[str, str] = {}
    model = ""
    for case in progress(list(chosen), "measuring", unit="scan"):
        try:
            truth = truth_of(dataset, case, chosen[case])
            if truth is None:
                unscored.append(case)
                continue
            score, model = _score(predictor, baseline, dataset, case, truth, chosen[case])
            scored.append(score)
        except Exception as error:
            failed[case] = str(explain(error, case))
    if failed and not scored:
        first = next(iter(failed.values()))
        raise InputError(f"none of the {len(chosen)} scans of part '{part}' could be measured ({first})", dataset.root)
    if not scored:
        todo = "draw masks for some of its scans, or choose another part with --split"
        raise InputError(
            f"none of the {len(chosen)} scans of part '{part}' has a mask to score against", dataset.root, todo
        )
    return Scores(
        scans=tuple(scored),
        model=model,
        baseline_model=baseline.description if baseline else "",
        split=describe_split(dataset, split, part, external),
        dataset={"root": str(dataset.root), "layout": dataset.layout, "cases": len(dataset.cases)},
        about=dict(about or {}),
        unscored=tuple(unscored),
        failed=failed,
        examples=tuple(_examples(predictor, dataset, scored)) if examples else (),
        seed=seed,
    )


def summarise(predictor: Predicts, dataset: Dataset, part: Part, ranks: Ranks | None = None) -> dict[str, float]:
    """The few values a training loop looks at (`metrics.summary.brief`), without baseline.

    Only the part's own slices are scored. Scans without truth are passed over. Several ranks share the scans; their
    counts are put together in the part's order and divided once, so that each gets what one process would.
    """
    ranks, scored = ranks or Ranks(), []
    mine = ranks.mine(list(enumerate(part.items())))
    for place, (case, indices) in progress(mine, "validating", len(mine), "scan"):
        truth = truth_of(dataset, case, indices)
        if truth is not None:
            score = _score(predictor, None, dataset, case, truth, indices, quick=True)[0]
            scored.append((place, score.compared(score.network)))
    together = sorted((pair for pairs in ranks.gather(scored) for pair in pairs), key=lambda pair: pair[0])
    return brief([entry for _, entry in together])


def write_scores(scores: Scores, out: Path | str) -> None:
    """Writes scores.json, scans.csv and slices.csv into `out`. Undefined values are null, or empty cells."""
    out = Path(out)
    write_json(out / "scores.json", scores.to_json())
    _write_csv(out / "scans.csv", scores.scan_rows())
    _write_csv(out / "slices.csv", scores.slice_rows())


def slices_of(dataset: Dataset, split: Split, part: str) -> dict[str, tuple[int, ...]]:
    """The slices to score, by case. Raises OptionError for an unknown part or one without slices."""
    if part == "all":
        return {case: tuple(range(len(dataset.rows[case]))) for case in dataset.cases}
    if part not in PARTS:
        raise OptionError(f"a split has no part '{part}'", "--split", nearest(part, (*PARTS, "all")))
    chosen = {case: tuple(indices) for case, indices in split.part(part).items() if indices}
    if not chosen:
        others = [name for name in PARTS if split.part(name)]
        raise OptionError(f"split '{split.name}' has no {part} part", "--split", f"it has: {', '.join(others)}")
    return chosen


def truth_of(dataset: Dataset, case: str, indices: Sequence[int]) -> np.ndarray | None:
    """The scan's true mask: (slices, rows, columns) uint8 codes of `labels`.

    Bleeding of unknown type gets the type of its slice's labels where these name one only. Where no mask was drawn it
    is all zero if labels exclude bleeding in the slices asked for, else None.
    """
    mask, labels = dataset.mask(case), [row.types for row in dataset.rows[case]]
    if mask is None:
        if any(labels[index] is None or any(labels[index] or ()) for index in indices):
            return None
        return np.zeros(dataset.scan(case).shape, np.uint8)
    single = [types.index(True) + 1 if types and sum(types) == 1 else UNTYPED for types in labels]
    return np.where(mask == UNTYPED, np.array(single, np.uint8)[:, None, None], mask)


def describe_split(dataset: Dataset, split: Split, part: str, external: bool) -> dict[str, Any]:
    """What is scored, in JSON's types, with the audit of what is on its other side too: the split's other parts."""
    mine = slices_of(dataset, split, part)
    near: dict[str, tuple[int, ...]] = {}
    for name in PARTS if part != "all" and not external else ():
        if name != part:
            for case, indices in split.part(name).items():
                near[case] = tuple(sorted({*near.get(case, ()), *indices}))
    found = audit(dataset, Split(split.name, split.by, near, {}, mine))
    return {
        "name": split.name,
        "by": split.by,
        "part": part,
        "external": external,
        "patients_known": dataset.patients_known,
        "patients": len({dataset.rows[case][0].patient or case for case in mine}),
        "scans": len(mine),
        "slices": sum(map(len, mine.values())),
        "patients_on_both_sides": len(found.patients),
        "identical_slices": len(found.slices),
        "audit": found.lines() if near else [],
        "warnings": list(split.warnings),
    }


def _score(
    predictor: Predicts,
    baseline: RuleBaseline | None,
    dataset: Dataset,
    case: str,
    truth: np.ndarray,
    indices: Sequence[int],
    quick: bool = False,
) -> tuple[ScanScore, str]:
    """One scan's score, and what the predictor calls itself. quick: lesions, which take a moment, are not counted."""
    scan, rows = dataset.scan(case), dataset.rows[case]
    began = time.perf_counter()
    prediction = predictor.predict(scan)
    seconds = time.perf_counter() - began
    beside: Comparison | None = None
    if baseline is not None:
        beside = compare(truth, baseline.predict(scan).mask, scan, indices)
    labels = [rows[index].types for index in indices]
    typed = bool(prediction.task.types)
    score = ScanScore(
        case=case,
        patient=rows[0].patient,
        site=rows[0].site,
        indices=tuple(indices),
        slice_numbers=tuple(scan.slice_numbers[index] for index in indices),
        labelled=tuple(None if types is None else any(types) for types in labels),
        whole=len(indices) == len(rows),
        network=compare(truth, prediction.mask, scan, indices, typed=typed, lesions=not quick),
        baseline=beside,
        seconds=round(seconds, 4),
    )
    return score, prediction.model


def _examples(predictor: Predicts, dataset: Dataset, scored: Sequence[ScanScore]) -> list[Example]:
    """The best, median and worst scan with bleeding, and the normal one with the most found in it."""
    ranked = sorted((s for s in scored if s.network.bleeding), key=lambda s: (s.network.volume.dice, s.case))
    chosen: dict[str, ScanScore] = {}
    if ranked:
        chosen["best"] = ranked[-1]
    if len(ranked) > 2:
        chosen["median"] = ranked[len(ranked) // 2]
    if len(ranked) > 1:
        chosen["worst"] = ranked[0]
    alarms = [s for s in scored if s.network.found and not s.network.bleeding]
    if alarms:
        chosen["false alarm"] = max(alarms, key=lambda s: s.network.volume.predicted)
    shown = progress(chosen.items(), "pictures", len(chosen), "scan")
    return [_example(kind, predictor, dataset, score) for kind, score in shown]


def _example(kind: str, predictor: Predicts, dataset: Dataset, score: ScanScore) -> Example:
    scan, found = dataset.scan(score.case), score.network
    truth = truth_of(dataset, score.case, score.indices)
    assert truth is not None  # it was scored a moment ago
    predicted = predictor.predict(scan).mask
    shown = telling_slices([counts.positives + counts.fp for counts in found.slices])
    slices = [score.indices[place] for place in shown]
    box = (slices, *head_box(scan, (truth, predicted)))
    return Example(
        kind=kind,
        case=score.case,
        dice=found.volume.dice,
        truth_ml=found.truth_ml,
        predicted_ml=found.predicted_ml,
        hu=scan.hu[box],
        truth=truth[box],
        predicted=predicted[box],
        slice_numbers=tuple(scan.slice_numbers[index] for index in slices),
        pixel_mm=scan.pixel_mm,
        typed=found.confusion is not None,
    )


def telling_slices(areas: Sequence[float], shown: int = SHOWN) -> list[int]:
    """Which slices to show, in order: spread evenly over the summed area of truth and prediction, so that each stands
    for as much bleeding as the next; the middle one where there is none."""
    summed = np.cumsum(areas)
    if not len(summed) or not summed[-1]:
        return [len(areas) // 2]
    marks = (np.arange(shown) + 0.5) / shown * summed[-1]
    picked = np.unique(np.searchsorted(summed, marks))
    # A bleeding on one or two slices leaves marks over: fill up with the largest slices left.
    rest = [int(i) for i in np.argsort(areas)[::-1] if areas[i] and i not in picked]
    return sorted([*picked.tolist(), *rest[: shown - len(picked)]])


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def _cell(value: Any) -> Any:
    value = jsonable(value)
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else quoted(value)
