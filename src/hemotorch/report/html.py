"""Scores as one self-contained HTML page: what was measured, on whom, how well, and what it looks like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from hemotorch.evaluation.counts import VALUES
from hemotorch.evaluation.scores import DEFINITIONS, NOTICE, Example, ScanScore, Scores, warnings
from hemotorch.report import figures
from hemotorch.report.pages.html import duration, fact, interval, many, number, sentence, shell, table, unfolded

#: What the authors of CT-ICH report for their own network, five folds by subject on the whole set.
PUBLISHED = (
    "Their own U-Net reached a Dice of 0.31 in five folds by subject on the real CT-ICH scans; compare only what was "
    "measured on the same ones."
)
_KINDS = {
    "best": "Best",
    "median": "Median",
    "worst": "Worst",
    "false alarm": "Normal scan with the most found in it",
}


def page(scores: Scores, metrics: Sequence[Mapping[str, Any]], details: Mapping[str, str]) -> str:
    """The whole page. details: title -> preformatted text (recipe, environment)."""
    split = scores.split
    told = warnings(split)
    body = [
        _header(scores),
        _facts(scores),
        _pictures(scores.examples),
        _plots(scores),
        _table1(scores),
        _detection(scores),
        _types(scores),
        _training(scores, metrics),
        _scans(scores),
        _methods(scores),
        unfolded(details),
    ]
    return shell(f"hemotorch: {scores.model}", body, NOTICE, told)


def _header(scores: Scores) -> str:
    split = scores.split
    bleeding = sum(scan.network.bleeding for scan in scores.scans)
    whom = f"{many(split['patients'], 'patient')}" if split["patients_known"] else "unknown patients"
    slices = sum(len(scan.indices) for scan in scores.scans)
    where = (
        "every scan of the dataset" if split["part"] == "all" else f"the {split['part']} part of split {split['name']}"
    )
    lead = (
        f"How well a network outlines bleeding inside the skull on {many(len(scores.scans), 'head CT')} "
        f"({many(slices, 'slice')}) of {whom}: {where}. {bleeding} hold bleeding by "
        f"their masks, {len(scores.scans) - bleeding} do not."
    )
    clean = not split["patients_on_both_sides"] and split["patients_known"] and not split["external"]
    if clean and split["part"] == "test":
        lead += " None of these patients was trained on."
    title = f'<p class="over">Evaluation report</p><h1>{escape(scores.model)}</h1>'
    return f'<header>{title}<p class="lead">{escape(lead)}</p></header>'


def _facts(scores: Scores) -> str:
    found, rules = scores.summary, scores.baseline_summary
    dice, scan, volume = found["dice"]["scan"], found["detection"]["scan"], found["volume"]
    bars = _bar("network", dice, "")
    if rules["scans"]:
        bars += _bar("baseline", rules["dice"]["scan"], "rules")
    normal = found["false_positive_ml"]
    hit, clean = scan["positive"] - scan["missed"], scan["negative"] - scan["false_alarms"]
    return '<div class="facts">' + "".join([
        fact("Dice, scans with bleeding", f"{number(dice['mean'])} <small>{interval(dice['ci95'])}</small>",
              f'<div class="scale">{bars}</div><p class="note">Mean over {many(dice["n"], "scan")} with bleeding; in '
              "brackets and as a line the 95 % interval over patients.</p>"),
        fact("Scans called bleeding", _of(hit, scan["positive"]), "<p class='note'>of those with bleeding: "
              "anything was outlined, in the right place or not. "
              f"95 % interval {interval(scan['sensitivity_ci95'])}</p>"),
        fact("Normal scans left clean", _of(clean, scan["negative"]), "<p class='note'>" + (
            f"On average {number(normal['mean'], 1)} mL were found in a normal scan, at most "
            f"{number(normal['max'], 1)} mL</p>"
            if normal["n"] else "No normal scan of known volume</p>")),
        fact("Volume error", f"{number(volume['bias_ml'], 1, sign=True)} <small>mL</small>",
              f"<p class='note'>on average; {number(volume['median_absolute_ml'], 1)} mL off in the median scan with "
              "bleeding</p>"),
    ]) + "</div>"  # fmt: skip


def _bar(name: str, dice: Mapping[str, Any], kind: str) -> str:
    mean, (low, high) = dice["mean"], dice["ci95"]
    if math.isnan(mean):
        return f"<span>{name}</span><span></span><span>–</span>"
    line = "" if math.isnan(low) else f'<b style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></b>'
    bar = f'<span class="track {kind}"><i style="width:{100 * mean:.1f}%"></i>{line}</span>'
    return f"<span>{name}</span>{bar}<span>{number(mean)}</span>"


def _pictures(examples: Sequence[Example]) -> str:
    if not examples:
        return ""
    strips = []
    for example in examples:
        facts = [f"scan {escape(example.case)}"]
        if not math.isnan(example.dice) and example.kind != "false alarm":
            facts.append(f"Dice {number(example.dice)}")
        if not math.isnan(example.truth_ml):
            truth = "" if example.kind == "false alarm" else f"true {number(example.truth_ml, 1)} mL, "
            facts.append(f"{truth}predicted {number(example.predicted_ml, 1)} mL")
        shown = figures.pictures(example)
        tiles = "".join(
            f'<figure><img alt="Slice {number} of scan {escape(example.case)}" src="{url}">'
            f"<figcaption>{number}</figcaption></figure>"
            for number, url in shown
        )
        strips.append(
            f'<div class="example"><h3>{_KINDS[example.kind]}<span>{" · ".join(facts)}</span></h3>'
            f'<div class="strip" style="--n:{len(shown)}">{tiles}</div></div>'
        )
    return (
        '<section><h2>What it looks like</h2><p class="note"><span class="key"></span>truth'
        '<span class="key found"></span>prediction. Brain window (level 40, width 120 HU), the patient\'s right on the '
        "left, slice number in the corner; the slices are spread evenly over the bleeding.</p>"
        f"{''.join(strips)}</section>"
    )


def _plots(scores: Scores) -> str:
    dice, agreement = figures.dice_by_volume(scores), figures.agreement(scores)
    if not dice:
        return ""
    volume = scores.summary["volume"]
    return (
        '<section><h2>Overlap and volume</h2><p class="note">Each dot is a scan with bleeding.</p>'
        f'<div class="two"><figure>{dice}<figcaption>Dice against the true volume; a line joins the network\'s Dice '
        "with that of the baseline on the same scan.</figcaption></figure>"
        f"<figure>{agreement}<figcaption>Bland-Altman: volume error against volume. Bias with 95 % interval "
        f"{number(volume['bias_ml'], 1)} {interval(volume['bias_ci95'], 1)} mL; limits of agreement dashed."
        "</figcaption></figure></div></section>"
    )


def _table1(scores: Scores) -> str:
    readings = {
        "pixel": ("Pixel reading", DEFINITIONS["table1.pixel"]),
        "slice": ("Slice reading", DEFINITIONS["table1.slice"]),
    }
    tables = []
    for reading, (title, meaning) in readings.items():
        values, rules = scores.summary["table1"][reading], scores.baseline_summary.get("table1", {}).get(reading)
        rows = []
        for value in VALUES:
            row = values[value]
            subjects = f"{row['n']} of {row['n'] + row['undefined']}"
            cells = "".join(f"<td>{number(row[name], 3)}</td>" for name in ("min", "max", "std"))
            beside = f'<td class="rules">{number(rules[value]["mean"], 3)}</td>' if rules else ""
            rows.append(
                f'<tr><th scope="row">{value.capitalize()}</th>{cells}<td class="strong">{number(row["mean"], 3)}</td>'
                f"{beside}<td>{subjects}</td></tr>"
            )
        heads = ["", "min", "max", "std", "mean", *(["baseline"] if rules else []), "subjects"]
        tables.append(
            f'<div><h3>{title}</h3><p class="note">{escape(sentence(meaning.partition(": ")[2]))}</p>'
            f'<div class="scroll">{table(heads, rows)}</div></div>'
        )
    return (
        "<section><h2>Table 1, over subjects</h2><p>As in Sokolovskyy et al. 2021, which does not say whether its "
        "sensitivity and specificity are of pixels or of slices: both readings.</p>"
        f'<div class="two">{"".join(tables)}</div><p class="note">{escape(DEFINITIONS["table1"])} {PUBLISHED}</p>'
        "</section>"
    )


def _detection(scores: Scores) -> str:
    rows = []
    for name, title in (("scan", "Scans"), ("slice", "Slices"), ("lesion", "Lesions")):
        for by, found in (("network", scores.summary), ("baseline", scores.baseline_summary)):
            if not found["scans"]:
                continue
            values = found["detection"][name]
            if name == "lesion":
                sides = [f"{values['found']} of {values['lesions']}", f"{values['false']} false"]
                specificity = f"{number(values['false_a_scan'], 1)} false a scan"
            else:
                hit, clean = (values["positive"] - values["missed"], values["negative"] - values["false_alarms"])
                sides = [f"{hit} of {values['positive']}", f"{clean} of {values['negative']}"]
                specificity = f"{number(values['specificity'])} {interval(values['specificity_ci95'])}"
            sensitivity = f"{number(values['sensitivity'])} {interval(values['sensitivity_ci95'])}"
            kind = ' class="rules"' if by == "baseline" else ""
            rows.append(
                f'<tr><th scope="row">{title}</th><td class="words"><span{kind}>{by}</span></td><td>{sides[0]}</td>'
                f"<td>{sensitivity}</td><td>{sides[1]}</td><td>{specificity}</td></tr>"
            )
            title = ""
    heads = ["", "", "found", "sensitivity", "left clean", "specificity"]
    ranking = scores.summary["detection"]["scan"]["ranking"]
    return (
        '<section><h2>Is there bleeding at all?</h2><p class="note">'
        f"{escape(DEFINITIONS['detection'].partition(' `ranking`')[0])} {escape(DEFINITIONS['detection.lesion'])} "
        f"Ranked by the mL found in them, scans have an area under the ROC curve of {number(ranking)}.</p>"
        f'<div class="scroll">{table(heads, rows)}</div></section>'
    )


def _types(scores: Scores) -> str:
    found, rules = scores.summary["types"], scores.baseline_summary.get("types", {})
    if not found:
        return ""
    rows = []
    for name, row in found.items():
        beside = f'<td class="rules">{number(rules[name]["sensitivity"])}</td>' if name in rules else ""
        rows.append(
            f'<tr><th scope="row">{name.capitalize()}</th><td>{_meter(row["sensitivity"])}</td>'
            f"<td>{interval(row['ci95'])}</td>{beside}<td>{row['scans']}</td><td>{row['voxels']:,}</td></tr>"
        )
    heads = ["", "voxels found", "95 % interval", *(["baseline"] if rules else []), "scans", "voxels"]
    return (
        f'<section><h2>By type of bleeding</h2><p class="note">{escape(DEFINITIONS["types"])}</p>'
        f'<div class="scroll">{table(heads, rows)}</div></section>'
    )


def _training(scores: Scores, metrics: Sequence[Mapping[str, Any]]) -> str:
    curves = figures.training(metrics)
    if not curves:
        return ""
    last = metrics[-1]
    seconds = f" in {duration(last['seconds'])}" if last.get("seconds") else ""
    kept = scores.about.get("recipe", {}).get("train", {}).get("best_by", "last")
    if not any(row.get("val") for row in metrics):
        chosen = "No validation: the last epoch is what was scored."
    elif kept == "last":
        chosen = "Validation chose nothing: the last epoch is what was scored."
    else:
        chosen = f"The epoch with the best validation {kept} is what was scored."
    return (
        f'<section><h2>Training</h2><p class="note">{many(last["epoch"], "epoch")}, '
        f"{many(last['step'], 'step')}{seconds}. {chosen}</p>"
        f'<figure class="wide scroll">{curves}</figure></section>'
    )


def _scans(scores: Scores) -> str:
    def order(scan: ScanScore) -> tuple[bool, float, str]:
        return not scan.network.bleeding, -scan.network.volume.dice if scan.network.bleeding else 0.0, scan.case

    rows = []
    for scan in sorted(scores.scans, key=order):
        net, rules = scan.network, scan.baseline
        kind = "by label only" if any(scan.labelled) else "normal"
        dice = _meter(net.volume.dice) if net.bleeding else f'<span class="note">{kind}</span>'
        pieces = f"{net.lesions.found} of {net.lesions.lesions}" if net.lesions and net.lesions.lesions else "–"
        beside = f'<td class="rules">{number(rules.volume.dice) if net.bleeding else "–"}</td>' if rules else ""
        rules_ml = f'<td class="rules">{number(rules.predicted_ml, 1)}</td>' if rules else ""
        rows.append(
            f'<tr><th scope="row">{escape(scan.case)}</th><td>{dice}</td>{beside}<td>{number(net.truth_ml, 1)}</td>'
            f"<td>{number(net.predicted_ml, 1)}</td>{rules_ml}<td>{pieces}</td><td>{len(scan.indices)}</td></tr>"
        )
    both = scores.baseline_summary["scans"]
    heads = ["scan", "Dice", *(["baseline"] if both else []), "true mL", "predicted mL"]
    heads += [*(["baseline mL"] if both else []), "lesions found", "slices"]
    left = scores.unscored
    note = f'<p class="note">Not scored, for want of a mask: {escape(", ".join(left))}.</p>' if left else ""
    return f'<section><h2>Every scan</h2><div class="scroll">{table(heads, rows)}</div>{note}</section>'


def _methods(scores: Scores) -> str:
    names = {
        "dice.scan": "Dice",
        "empty_masks": "Empty masks",
        "ci95": "Intervals",
        "volume": "Volume error",
        "false_positive_ml": "False-positive mL",
    }
    entries = {title: DEFINITIONS[key] for key, title in names.items()}
    if scores.baseline_model:
        entries["Baseline"] = f"{scores.baseline_model}. Nothing in it is learned."
    entries["Split"] = " ".join([f"{scores.split['name']}.", *map(sentence, scores.split["audit"])])
    entries["Noticed"] = " ".join(map(sentence, scores.split["warnings"]))
    entries["Dataset"] = f"{scores.dataset['root']} ({scores.dataset['layout']}, {scores.dataset['cases']} scans)"
    seconds = scores.to_json()["seconds_a_scan"]
    entries["Time"] = f"{number(seconds)} s a scan"
    rows = "".join(f"<dt>{title}</dt><dd>{escape(text)}</dd>" for title, text in entries.items() if text)
    return f"<section><h2>How it was measured</h2><dl>{rows}</dl></section>"


def _meter(value: float) -> str:
    if math.isnan(value):
        return "–"
    return (
        f'<span class="track meter" aria-hidden="true"><i style="width:{100 * value:.0f}%"></i></span>{number(value)}'
    )


def _of(some: int, every: int) -> str:
    return f"{some} <small>of {every}</small>" if every else "–"
