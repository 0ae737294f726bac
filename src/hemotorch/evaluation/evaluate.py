"""A predictor and a part of a split -> Scores, the rule-based baseline beside it; one scan in memory at a time."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hemotorch.data.dataset import Dataset
from hemotorch.data.splits import Part, Split
from hemotorch.errors import InputError, explain
from hemotorch.evaluation.comparison import Comparison, compare
from hemotorch.evaluation.examples import Example, choose_examples, make_example
from hemotorch.evaluation.scan_score import Cell, ScanScore
from hemotorch.evaluation.scored_part import DatasetDescription, describe_split, slices_of, truth_of
from hemotorch.evaluation.scores import Scores
from hemotorch.evaluation.summary import brief
from hemotorch.inference.baseline import RuleBaseline
from hemotorch.scan import Prediction, Scan
from hemotorch.system.events import Problem, emit, progress
from hemotorch.system.files import jsonable, quoted, write_json, write_text
from hemotorch.system.ranks import Ranks


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

    A scan that cannot be read or predicted is named in `Scores.failed`, and the others are scored.

    Args:
        part: train, val, test, or all (every scan).
        baseline: what is measured beside the predictor.
        about: what to write beside the figures, in JSON's types.
        external: the dataset is not the one trained on.
        examples: keep a few slices of telling scans, which are predicted again for it.
        seed: of the intervals.

    Raises:
        OptionError: for an unknown part.
        InputError: if no scan of it can be scored.
    """
    slices = slices_of(dataset, split, part)
    scored: list[ScanScore] = []
    unscored: list[str] = []
    failed: dict[str, str] = {}
    model = ""
    for case in progress(list(slices), "measuring", unit="scan"):
        try:
            truth = truth_of(dataset, case, slices[case])
            if truth is None:
                unscored.append(case)
                continue
            score, model = _score(predictor, baseline, dataset, case, truth, slices[case])
            scored.append(score)
        except Exception as error:
            failed[case] = str(explain(error, case))
            emit(Problem(failed[case]))
    if not scored:
        raise _nothing_scored(dataset, part, len(slices), failed)
    return Scores(
        scans=tuple(scored),
        model=model,
        baseline_model=baseline.description if baseline else "",
        split=describe_split(dataset, split, part, external),
        dataset=DatasetDescription(root=str(dataset.root), layout=dataset.layout, cases=len(dataset.cases)),
        about=dict(about or {}),
        unscored=tuple(unscored),
        failed=failed,
        examples=_examples(predictor, dataset, scored) if examples else (),
        seed=seed,
    )


def summarise(predictor: Predicts, dataset: Dataset, part: Part, ranks: Ranks | None = None) -> dict[str, float]:
    """The few values a training loop looks at (`summary.brief`), without baseline.

    Only the part's own slices are scored. Scans without truth are passed over. Several ranks share the scans; their
    counts are put together in the part's order and divided once, so that each gets what one process would.
    """
    ranks = ranks or Ranks()
    scored = []
    mine = ranks.mine(list(enumerate(part.items())))
    for number, (case, indices) in progress(mine, "validating", len(mine), "scan"):
        truth = truth_of(dataset, case, indices)
        if truth is not None:
            # Lesions take a moment, and no epoch is chosen by them.
            score, _ = _score(predictor, None, dataset, case, truth, indices, lesions=False)
            scored.append((number, score.compared(score.network)))
    gathered = [numbered for of_rank in ranks.gather(scored) for numbered in of_rank]
    gathered.sort(key=lambda numbered: numbered[0])
    return brief([comparison for _, comparison in gathered])


def write_scores(scores: Scores, out: Path | str) -> None:
    """Writes scores.json, scans.csv and slices.csv into `out`. Undefined values are null, or empty cells."""
    out = Path(out)
    write_json(out / "scores.json", scores.to_json())
    _write_csv(out / "scans.csv", [scan.row() for scan in scores.scans])
    _write_csv(out / "slices.csv", [row for scan in scores.scans for row in scan.slice_rows()])


def _nothing_scored(dataset: Dataset, part: str, scans: int, failed: Mapping[str, str]) -> InputError:
    if failed:
        first = next(iter(failed.values()))
        return InputError(f"none of the {scans} scans of part '{part}' could be measured ({first})", dataset.root)
    todo = "draw masks for some of its scans, or choose another part with --split"
    return InputError(f"none of the {scans} scans of part '{part}' has a mask to score against", dataset.root, todo)


def _score(
    predictor: Predicts,
    baseline: RuleBaseline | None,
    dataset: Dataset,
    case: str,
    truth: np.ndarray,
    indices: Sequence[int],
    lesions: bool = True,
) -> tuple[ScanScore, str]:
    """One scan's score, and what the predictor calls itself."""
    scan, rows = dataset.scan(case), dataset.rows[case]
    # Whole scans are predicted though only some slices may be scored: a network looks at a slice's neighbours.
    started = time.perf_counter()
    prediction = predictor.predict(scan)
    seconds = time.perf_counter() - started
    typed = bool(prediction.task.types)
    of_baseline: Comparison | None = None
    if baseline is not None:
        of_baseline = compare(truth, baseline.predict(scan).mask, scan, indices)
    types_of_slices = [rows[index].types for index in indices]
    score = ScanScore(
        case=case,
        patient=rows[0].patient,
        site=rows[0].site,
        indices=tuple(indices),
        slice_numbers=tuple(scan.slice_numbers[index] for index in indices),
        labelled=tuple(None if types is None else any(types) for types in types_of_slices),
        whole=len(indices) == len(rows),
        network=compare(truth, prediction.mask, scan, indices, typed=typed, lesions=lesions),
        baseline=of_baseline,
        seconds=round(seconds, 4),
        doubts=None if prediction.doubts is None else tuple(doubt.code for doubt in prediction.doubts),
    )
    return score, prediction.model


def _examples(predictor: Predicts, dataset: Dataset, scored: Sequence[ScanScore]) -> tuple[Example, ...]:
    chosen = choose_examples(scored)
    examples = []
    for kind, score in progress(chosen.items(), "pictures", len(chosen), "scan"):
        scan = dataset.scan(score.case)
        truth = truth_of(dataset, score.case, score.indices)
        assert truth is not None  # it was scored a moment ago
        examples.append(make_example(kind, score, scan, truth, predictor.predict(scan).mask))
    return tuple(examples)


def _write_csv(path: Path, rows: Sequence[Mapping[str, Cell]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell_text(cell) for name, cell in row.items()})
    write_text(path, text.getvalue())


def _cell_text(cell: Cell) -> Any:
    value = jsonable(cell)
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else quoted(value)
