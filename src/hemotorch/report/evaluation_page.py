"""Scores as one self-contained HTML page: what was measured, on whom, how well, and what it looks like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hemotorch.evaluation.confusion import NAMES, NONE
from hemotorch.evaluation.counts import VALUES
from hemotorch.evaluation.scores import DEFINITIONS, Example, ScanScore, Scores, warnings
from hemotorch.labels import COLOURS
from hemotorch.report import plots
from hemotorch.report.pages import render
from hemotorch.report.pages.numbers import DASH, interval, number, part, percent, sentence
from hemotorch.report.pages.table import Cell, Column, Table, table
from hemotorch.system.metrics import EpochMetrics

#: What the authors of CT-ICH report for their own network, five folds by subject on the whole set.
PUBLISHED = (
    "Their own U-Net reached a Dice of 0.31 in five folds by subject on the real CT-ICH scans; compare only what was "
    "measured on the same ones."
)
FALSE_ALARM = "false alarm"
EXAMPLE_TITLES = {
    "best": "Best",
    "median": "Median",
    "worst": "Worst",
    FALSE_ALARM: "Normal scan with the most outlined in it",
}
#: Definitions that are read with the whole report, by their titles.
METHODS = {
    "Dice": "dice.scan",
    "Empty masks": "empty_masks",
    "Intervals": "ci95",
    "Volume error": "volume",
    "False-positive mL": "false_positive_ml",
}


#: As in pictures, for CSS.
TYPE_COLOURS = {name: f"rgb{rgb}" for name, rgb in COLOURS.items()}


@dataclass(frozen=True)
class ExampleStrip:
    """An example as the page shows it: facts beside its title, and its slices' numbers and pictures."""

    title: str
    case: str
    facts: tuple[str, ...]
    tiles: tuple[tuple[int, str], ...]


def evaluation_page(scores: Scores, metrics: Sequence[EpochMetrics], details: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        scores: what was measured.
        metrics: the rows of the run's metrics.jsonl.
        details: title -> preformatted text to unfold at the end (recipe, environment).
    """
    split = scores.split
    clean = split["patients_known"] and not split["patients_on_both_sides"] and not split["external"]
    return render(
        "evaluation.html",
        f"hemotorch: {scores.model}",
        warnings(split),
        scores=scores,
        split=split,
        summary=scores.summary,
        baseline=scores.baseline_summary,
        slices=sum(len(scan.indices) for scan in scores.scans),
        bleeding=sum(scan.network.bleeding for scan in scores.scans),
        new_patients=clean and split["part"] == "test",
        examples=[example_strip(example) for example in scores.examples],
        plots={
            "dice": plots.dice_by_volume(scores),
            "agreement": plots.agreement(scores),
            "training": plots.training(metrics),
        },
        tables={
            "pixel": _table1(scores, "pixel"),
            "slice": _table1(scores, "slice"),
            "detection": _detection(scores),
            "doubts": _doubts(scores),
            "types": _types(scores),
            "confusion": _confusion(scores),
            "scans": _scans(scores),
        },
        typed="confusion" in scores.summary,
        type_colours=TYPE_COLOURS,
        definitions=DEFINITIONS,
        published=PUBLISHED,
        last=metrics[-1] if metrics else {},
        chosen_epoch=_chosen_epoch(scores, metrics),
        methods=_methods(scores),
        details=details,
    )


def example_strip(example: Example) -> ExampleStrip:
    """The example's slices in a row, with its Dice and mL beside the title."""
    normal = example.kind == FALSE_ALARM
    facts = [f"scan {example.case}"]
    if not normal and not math.isnan(example.dice):
        facts.append(f"Dice {number(example.dice)}")
    if not math.isnan(example.truth_ml):
        predicted = f"predicted {number(example.predicted_ml, 1)} mL"
        facts.append(predicted if normal else f"true {number(example.truth_ml, 1)} mL, {predicted}")
    return ExampleStrip(EXAMPLE_TITLES[example.kind], example.case, tuple(facts), tuple(plots.pictures(example)))


def _table1(scores: Scores, reading: str) -> Table:
    values = scores.summary["table1"][reading]

    def decimals(key: str, kind: str = "") -> Column:
        return Column(key, lambda name: number(values[name][key], 3), kind)

    columns = [
        Column("", str.capitalize),
        decimals("min"),
        decimals("max"),
        decimals("std"),
        decimals("mean", "strong"),
    ]
    if scores.baseline_summary["scans"]:
        rules = scores.baseline_summary["table1"][reading]
        columns.append(Column("baseline", lambda name: number(rules[name]["mean"], 3), "rules"))
    columns.append(
        Column("subjects", lambda name: part(values[name]["n"], values[name]["n"] + values[name]["undefined"]))
    )
    return table(columns, VALUES)


#: Classes of the page's look for the names of predictors.
PREDICTOR_KINDS = {"network": "words", "baseline": "words rules"}


@dataclass(frozen=True)
class Detected:
    """A row of the detection table: texts."""

    title: str
    predictor: str
    detected: str
    sensitivity: str
    clean: str
    specificity: str


def _detection(scores: Scores) -> Table:
    rows = []
    summaries = {"network": scores.summary, "baseline": scores.baseline_summary}
    for name, title in (("scan", "Scans"), ("slice", "Slices"), ("lesion", "Lesions")):
        for predictor, summary in summaries.items():
            if summary["scans"]:
                shown = title if predictor == "network" else ""
                rows.append(_detected(shown, predictor, name, summary["detection"][name]))
    columns = [
        Column("", lambda row: row.title),
        Column("", lambda row: Cell(row.predictor, kind=PREDICTOR_KINDS[row.predictor])),
        Column("detected", lambda row: row.detected),
        Column("sensitivity", lambda row: row.sensitivity),
        Column("left clean", lambda row: row.clean),
        Column("specificity", lambda row: row.specificity),
    ]
    return table(columns, rows)


def _detected(title: str, predictor: str, name: str, values: Mapping[str, Any]) -> Detected:
    sensitivity = f"{number(values['sensitivity'])} {interval(values['sensitivity_ci95'])}"
    if name == "lesion":
        detected, clean = part(values["found"], values["lesions"]), f"{values['false']:,} false"
        return Detected(title, predictor, detected, sensitivity, clean, f"{number(values['false_a_scan'], 1)} per scan")
    detected = part(values["positive"] - values["missed"], values["positive"])
    clean = part(values["negative"] - values["false_alarms"], values["negative"])
    specificity = f"{number(values['specificity'])} {interval(values['specificity_ci95'])}"
    return Detected(title, predictor, detected, sensitivity, clean, specificity)


def _doubts(scores: Scores) -> Table | None:
    """A row for the scans in doubt, one for the others."""
    doubts = scores.doubts
    if doubts is None:
        return None
    groups = {"in doubt": doubts["doubted"], "not in doubt": doubts["undoubted"]}
    columns = [
        Column("", lambda name: name),
        Column("scans", lambda name: str(groups[name]["scans"])),
        Column("Dice", lambda name: number(groups[name]["dice"]["mean"])),
        Column("95 % interval", lambda name: interval(groups[name]["dice"]["ci95"])),
        Column("mL in normal scans", lambda name: number(groups[name]["false_positive_ml"]["mean"], 1)),
    ]
    return table(columns, list(groups))


def _types(scores: Scores) -> Table | None:
    """A row for each type of bleeding that the truth holds."""
    types, rules = scores.summary["types"], scores.baseline_summary.get("types", {})
    if not types:
        return None
    typed = "confusion" in scores.summary
    columns = [Column("", lambda name: _type_name(name) if typed else name.capitalize())]
    if typed:
        columns += [
            Column("Dice", lambda name: meter(types[name]["dice"]["mean"])),
            Column("95 % interval", lambda name: interval(types[name]["dice"]["ci95"])),
            Column("mL error", lambda name: number(types[name]["volume"]["bias_ml"], 1, sign=True)),
            Column("false mL", lambda name: number(types[name]["false_positive_ml"]["mean"], 1)),
        ]
    columns += [
        Column("voxels outlined", lambda name: meter(types[name]["sensitivity"])),
        Column("95 % interval", lambda name: interval(types[name]["ci95"])),
    ]
    if rules:
        columns.append(Column("baseline", lambda name: number(rules[name]["sensitivity"]), "rules"))
    columns += [
        Column("scans", lambda name: f"{types[name]['scans']:,}"),
        Column("voxels", lambda name: f"{types[name]['voxels']:,}"),
    ]
    return table(columns, types)


def _confusion(scores: Scores) -> Table | None:
    """A row for each true type, a column for each predicted one; None if the network does not tell types apart."""
    confusion = scores.summary.get("confusion")
    if confusion is None:
        return None
    digits = 1 if confusion["unit"] == "mL" else 0
    amounts = dict(zip(NAMES, confusion["amounts"], strict=True))

    def column(index: int) -> Column:
        def cell(true: str) -> Cell:
            return _confusion_cell(amounts[true], index, true, digits)

        head = _type_name(NAMES[index])
        return Column(head.text.lower(), cell, colour=head.colour)

    return table([Column("true", _type_name), *map(column, range(len(NAMES)))], NAMES)


def _confusion_cell(amounts: Sequence[float], index: int, true: str, digits: int) -> Cell:
    amount, whole = amounts[index], sum(amounts)
    right = NAMES[index] == true
    # What is no bleeding is nearly the whole scan: as a share of it every mistake would vanish.
    if true == NONE:
        return Cell(DASH if right else number(amount, digits), kind="shaded")
    if not amount:
        return Cell(DASH, kind="shaded faint")
    kind = "shaded strong" if right else "shaded"
    return Cell(number(amount, digits), beneath=percent(amount / whole), kind=kind, tint=amount / whole)


def _type_name(name: str) -> Cell:
    """A type with the colour that it has in pictures."""
    return Cell("no bleeding" if name == NONE else name.capitalize(), colour=TYPE_COLOURS.get(name, ""))


def _chosen_epoch(scores: Scores, metrics: Sequence[EpochMetrics]) -> str:
    """Which epoch's network was scored, and why that one."""
    best_by = scores.about.get("recipe", {}).get("train", {}).get("best_by", "last")
    if not any(row.val for row in metrics):
        return "No validation: the last epoch is what was scored."
    if best_by == "last":
        return "Validation chose nothing: the last epoch is what was scored."
    return f"The epoch with the best validation {best_by} is what was scored."


def _scans(scores: Scores) -> Table:
    """A row for each scan: those with bleeding from the best Dice to the worst, then the others."""

    def order(scan: ScanScore) -> tuple[bool, float, str]:
        if not scan.network.bleeding:
            return True, 0.0, scan.case
        return False, -scan.network.volume.dice, scan.case

    with_baseline = bool(scores.baseline_summary["scans"])
    columns = [Column("scan", lambda scan: scan.case), Column("Dice", _scan_dice)]
    if with_baseline:
        columns.append(Column("baseline", _baseline_dice, "rules"))
    columns += [
        Column("true mL", lambda scan: number(scan.network.truth_ml, 1)),
        Column("predicted mL", lambda scan: number(scan.network.predicted_ml, 1)),
    ]
    if with_baseline:
        columns.append(Column("baseline mL", _baseline_ml, "rules"))
    columns += [
        Column("lesions detected", _scan_lesions),
        Column("slices", lambda scan: f"{len(scan.indices):,}"),
    ]
    return table(columns, sorted(scores.scans, key=order))


def _scan_dice(scan: ScanScore) -> Cell:
    if scan.network.bleeding:
        return meter(scan.network.volume.dice)
    return Cell("by label only" if any(scan.labelled) else "normal", kind="faint")


def _baseline_dice(scan: ScanScore) -> str:
    if scan.baseline is None or not scan.network.bleeding:
        return DASH
    return number(scan.baseline.volume.dice)


def _baseline_ml(scan: ScanScore) -> str:
    if scan.baseline is None:
        return DASH
    return number(scan.baseline.predicted_ml, 1)


def _scan_lesions(scan: ScanScore) -> str:
    lesions = scan.network.lesions
    if lesions is None or not lesions.lesions:
        return DASH
    return part(lesions.found, lesions.lesions)


def _methods(scores: Scores) -> dict[str, str]:
    methods = {title: DEFINITIONS[key] for title, key in METHODS.items()}
    if "confusion" in scores.summary:
        methods |= {"Dice per type": DEFINITIONS["types.dice"], "Mean over types": DEFINITIONS["macro"]}
    if scores.baseline_model:
        methods["Baseline"] = f"{scores.baseline_model}. Nothing in it is learned."
    methods["Split"] = " ".join([f"{scores.split['name']}.", *map(sentence, scores.split["audit"])])
    methods["Noticed"] = " ".join(map(sentence, scores.split["warnings"]))
    dataset = scores.dataset
    methods["Dataset"] = f"{dataset['root']} ({dataset['layout']}, {dataset['cases']} scans)"
    methods["Time"] = f"{number(scores.to_json()['seconds_a_scan'])} s per scan"
    return methods


def meter(value: float) -> Cell:
    """A share with a bar; a dash if it is undefined."""
    return Cell(number(value), share=None if math.isnan(value) else value)
