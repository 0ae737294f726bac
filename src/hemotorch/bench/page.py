"""A bench as one self-contained HTML page: what limits the training, how fast each config is, where its time goes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from hemotorch.bench import chart
from hemotorch.bench.result import Bench, clock
from hemotorch.bench.rows import PHASES, Row
from hemotorch.files import jsonable
from hemotorch.pages.html import fact, many, number, shell, table, unfolded

PHASE_NAMES = {
    "data": "waiting for data",
    "augment": "augmentation",
    "forward": "forward",
    "backward": "backward",
    "optimiser": "optimiser",
    "graph": "whole step as a graph",
    "waiting": "waiting",
}
#: What Sokolovskyy et al. 2021 say of their own training: device and time.
PUBLISHED = (("Tesla K80", ""), ("Tesla T4", ""), ("GeForce RTX 2080", "5 hours for 150 epochs"))


def page(bench: Bench) -> str:
    """The whole page of a training's or a small network's bench."""
    measured = [row for row in bench.rows if row.measured]
    plain = [row for row in measured if row.config.batch == bench.rows[0].config.batch]
    body = [
        _header(bench),
        *([_facts(measured), _rates(plain), _shares(plain)] if bench.kind == "train" else _curves(bench)),
        _sweeps(bench),
        _table(measured),
        _failed(bench.rows),
        _published(bench),
        _methods(bench),
        unfolded(_details(bench)),
    ]
    return shell(f"hemotorch bench: {bench.settings.get('recipe', bench.kind)}", body)


def _header(bench: Bench) -> str:
    about, settings = bench.environment, bench.settings
    cores = many(int(about.get("cores", 0)), "core")
    gpus = f" and {about['gpus']} {about['gpu']}" if about.get("gpu") else ", no GPU"
    what = f"recipe {settings['recipe']}" if bench.kind == "train" else f"network {settings['net']}"
    data = "a phantom" if settings["data"] == "phantom" else f"{settings['data']}"
    lead = (
        f"Measured on {about.get('processor', 'an unknown processor')} with {cores}{gpus}; "
        f"{what} on {data} ({many(settings['scans'], 'scan')}, {many(settings['slices'], 'slice')})."
    )
    quick = "Quick benchmark" if settings["quick"] else "Benchmark"
    return (
        f'<header><p class="over">{quick} of {escape(what)}</p><h1 class="said">{escape(bench.sentence)}</h1>'
        f'<p class="lead">{escape(lead)}</p></header>'
    )


def _facts(rows: Sequence[Row]) -> str:
    ours = [row for row in rows if not row.config.reference]
    if not ours:
        return ""
    best = max(ours, key=lambda row: row.images_s)
    size = f" of {best.size[0]} x {best.size[1]}" if best.size else ""
    cost = f" and cost {best.cost:,.2f}" if not math.isnan(best.cost) else ""
    cards = [
        fact("Fastest", f"{rate(best.images_s)} <small>images/s</small>",
             f'<p class="note">{escape(best.config.label)}, images{size}; {_range(best)} over '
             f"{many(len(best.rounds), 'round')}</p>"),
        fact("The whole training", clock(best.training_s),
             f'<p class="note">{clock(best.epoch_s)} an epoch, validation not counted{cost}</p>'),
        fact("Speed-up", _times(best.to_reference),
             '<p class="note">over the reference loop of 2021 on the same device</p>'),
        fact("Of the peak", f"{_percent(best.peak_share)}",
             f'<p class="note">{_whole(best.gflops)} of the {_whole(best.peak_gflops)} GFLOP/s of a large matrix '
             "product in the same minute</p>"),
    ]  # fmt: skip
    return f'<div class="facts">{"".join(cards)}</div>'


def _rates(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    most = max(row.high for row in rows)
    lines = []
    for row in rows:
        kind = " rules" if row.config.reference else ""
        low, high = 100 * row.low / most, 100 * row.high / most
        mark = f'<b style="left:{low:.2f}%;width:{high - low:.2f}%"></b>' if high - low > 0.1 else ""
        middle = f'<i style="width:{100 * row.images_s / most:.2f}%"></i>'
        bar = f'<span class="track{kind}" aria-hidden="true">{middle}{mark}</span>'
        lines.append(
            f'<div class="rate"><span>{escape(row.config.label)}</span>{bar}'
            f'<span class="at">{rate(row.images_s)}</span>'
            f'<span class="at faint">{_times(row.to_reference)}</span></div>'
        )
    return (
        '<section><h2>How fast</h2><p class="note">Images a second, the median over rounds; the line in a bar reaches '
        "from the slowest round to the fastest. Last: how many times the reference loop on the same device.</p>"
        f'<div class="rates">{"".join(lines)}</div></section>'
    )


def _shares(rows: Sequence[Row]) -> str:
    shown = [row for row in rows if row.shares]
    if not shown:
        return ""
    colours = dict(zip(PHASES, (f"var(--s{n})" for n in range(1, 8)), strict=True))
    seen = [phase for phase in PHASES if any(row.shares.get(phase, 0.0) >= 0.005 for row in shown)]
    legend = "".join(
        f'<span><span class="swatch" style="background:{colours[phase]}"></span>{PHASE_NAMES[phase]}</span>'
        for phase in seen
    )
    lines = []
    for row in shown:
        parts = {phase: row.shares.get(phase, 0.0) for phase in seen}
        told = ", ".join(f"{PHASE_NAMES[phase]} {share:.0%}" for phase, share in parts.items() if share >= 0.005)
        bar = "".join(
            f'<i style="flex:{share:.4f} 0 0;background:{colours[phase]}"></i>'
            for phase, share in parts.items()
            if share >= 0.002
        )
        lines.append(
            f'<div class="rate"><span>{escape(row.config.label)}</span>'
            f'<span class="stack" role="img" aria-label="{told}" title="{told}">{bar}</span>'
            f'<span class="at faint">{clock(row.step_s)} a step</span></div>'
        )
    return (
        '<section><h2>Where the time goes</h2><p class="note">Shares of a step, from steps of their own in which every '
        "phase was waited for. On a CPU, waiting is the time in which not all threads worked.</p>"
        f'<p class="legend">{legend}</p><div class="rates parts">{"".join(lines)}</div></section>'
    )


def _sweeps(bench: Bench) -> str:
    if not bench.sweeps:
        return ""
    figures = []
    for name, by_device in bench.sweeps.items():
        drawn = chart.sweep(name, bench.rows, by_device)
        ideal = "<figcaption>Dotted: if each did as much as the first.</figcaption>" if name in chart.SCALED else ""
        figures.append(f"<div><h3>{name.capitalize()}</h3><figure>{drawn}{ideal}</figure></div>")
    return (
        '<section><h2>Parameters of parallelization</h2><p class="note">One is varied at a time, the others as in the '
        f'plain config of that device.</p><div class="two">{"".join(figures)}</div></section>'
    )


def _curves(bench: Bench) -> list[str]:
    """A section a task: its value and its loss over steps and over seconds, and how each algorithm ended."""
    sections = []
    for task in dict.fromkeys(entry["task"] for entry in bench.curves):
        entries = [entry for entry in bench.curves if entry["task"] == task]
        name = entries[0]["value_name"]
        figures = "".join(
            f"<figure>{chart.curves(entries, over, value, label, limits)}</figure>"
            for value, label, limits in (("value", name, (0, 1)), ("loss", "training loss", None))
            for over in ("steps", "seconds")
        )
        rows = [
            f'<tr><th scope="row">{entry["algorithm"]}</th><td>{entry["lr"]:g}</td><td>{entry["steps"][-1]:,}</td>'
            f"<td>{clock(entry['seconds'][-1] / entry['steps'][-1])}</td><td>{number(entry['loss'][-1], 3)}</td>"
            f"<td>{number(entry['value'][-1], 3)}</td></tr>"
            for entry in entries
        ]
        heads = ["", "learning rate", "steps", "a step", "training loss", name]
        sections.append(
            f'<section><h2>{escape(task)}</h2><p class="note">{escape(entries[0]["note"])}</p>'
            f'<div class="two">{figures}</div><div class="scroll">{table(heads, rows)}</div></section>'
        )
    return sections


def _table(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    priced = any(not math.isnan(row.cost) for row in rows)
    heads = ["", "images/s", "an epoch", "training", "GFLOP/s", "of peak", "efficiency", "memory, GB"]
    referred = any(row.config.reference for row in rows)
    heads += ["× CPU", *(["× reference"] if referred else [])]
    heads += ["cost"] if priced else []
    lines = []
    for row in rows:
        gpu = f" + {row.gpu_memory_mb / 1000:,.1f}" if not math.isnan(row.gpu_memory_mb) else ""
        cells = [
            f'{rate(row.images_s)}<br><span class="faint">{_range(row)}</span>',
            *(clock(row.epoch_s), clock(row.training_s)),
            *(_whole(row.gflops), _percent(row.peak_share), _percent(row.efficiency)),
            *(f"{row.memory_mb / 1000:,.1f}{gpu}", _times(row.to_cpu, "")),
            *([_times(row.to_reference, "")] if referred else []),
            *([number(row.cost)] if priced else []),
        ]
        lines.append(
            f'<tr><th scope="row">{escape(row.config.label)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        )
    on_gpu = " and + of the GPU" if any(row.config.device == "cuda" for row in rows) else ""
    return (
        f'<section><h2>All figures</h2><div class="scroll">{table(heads, lines)}</div><p class="note">Under the images '
        "a second, the slowest round and the fastest. Training: all epochs of the recipe, without validation. Of peak: "
        "GFLOP/s against a large matrix product with the same threads and precision. Efficiency: against one thread, "
        f"or one GPU, times as many. Memory: the most that was held, main memory{on_gpu}, over all processes.</p>"
        "</section>"
    )


def _failed(rows: Sequence[Row]) -> str:
    told = "".join(f"<dt>{escape(row.config.label)}</dt><dd>{escape(row.error)}</dd>" for row in rows if row.error)
    return f"<section><h2>What failed</h2><dl>{told}</dl></section>" if told else ""


def _published(bench: Bench) -> str:
    if bench.kind != "train":
        return ""
    lines = [
        f'<tr><th scope="row">{device}</th><td class="words">{what or "used; no time given"}</td>'
        '<td class="words">published, not measured here</td></tr>'
        for device, what in PUBLISHED
    ]
    return (
        '<section><h2>What the paper says of itself</h2><p class="note">Sokolovskyy et al. 2021 on their own machines. '
        "Not measured here, with other software and other data: no row above can be divided by them.</p>"
        f'<div class="scroll">{table(["", "", ""], lines)}</div></section>'
    )


def _methods(bench: Bench) -> str:
    rounds = max((len(row.rounds) for row in bench.rows), default=0)
    entries = {
        "Rounds": f"{rounds}; in each, every config is measured once by a fresh process, in another order, so that a "
        "noisy minute hits all alike. Warm-up is not counted.",
        "Reference loop": "PNG files, torch's DataLoader, eager, the framework's own choice of threads, memory layout "
        "and TF32, Dice on the host after every step: what the paper's authors had to write."
        if bench.kind == "train"
        else "",
        "Arithmetic": "three times a forward pass, convolutions only, a multiply-add counted as two",
        "Noticed": " ".join(bench.notes),
    }
    rows = "".join(f"<dt>{title}</dt><dd>{escape(text)}</dd>" for title, text in entries.items() if text)
    return f"<section><h2>How it was measured</h2><dl>{rows}</dl></section>"


def _details(bench: Bench) -> dict[str, str]:
    settings = dict(bench.settings)
    recipe = settings.pop("recipe_toml", "")
    decisions = "\n\n".join(
        f"{row.config.label}\n" + "\n".join(f"    {reason}" for reason in row.reasons)
        for row in bench.rows
        if row.reasons
    )
    found: Mapping[str, Any] = {
        "Environment": json.dumps(jsonable(bench.environment), indent=2),
        "Settings": json.dumps(jsonable(settings), indent=2),
        "Recipe": recipe,
        "Decisions of each config": decisions,
    }
    return {title: text for title, text in found.items() if text}


def rate(value: float) -> str:
    """A rate with three digits that count."""
    if not math.isfinite(value):
        return number(value)
    return number(value, max(0, 2 - math.floor(math.log10(value)))) if value > 0 else "0"


def _whole(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else number(value)


def _range(row: Row) -> str:
    return f"{rate(row.low)} to {rate(row.high)}"


def _times(value: float, sign: str = "\N{MULTIPLICATION SIGN}") -> str:
    return f"{number(value, 1 if value < 10 else 0)}{sign}" if math.isfinite(value) else number(value)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if math.isfinite(share) else number(share)
