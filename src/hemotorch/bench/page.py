"""A bench as one self-contained HTML page: what limits the training, how fast each config is, where its time goes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from hemotorch.bench import chart
from hemotorch.bench.result import FILE, Bench, clock, when
from hemotorch.bench.rows import Row
from hemotorch.report.pages.html import fact, many, number, shell, table, unfolded
from hemotorch.system.files import jsonable, write_json, write_text

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


def write_bench(bench: Bench, out: Path) -> Path:
    """Writes OUT/bench.json, OUT/speedup.svg where something was measured, and OUT/bench.html; the page's path."""
    write_json(out / FILE, bench.to_json())
    if any(row.measured for row in bench.rows):
        write_text(out / "speedup.svg", chart.speed_up(bench.rows))
    write_text(out / "bench.html", page(bench))
    return out / "bench.html"


def page(bench: Bench) -> str:
    """The whole page of a training's or a small network's bench."""
    measured = [row for row in bench.rows if row.measured]
    plain = [row for row in measured if row.config.batch == bench.rows[0].config.batch]
    body = [
        _header(bench),
        *([_facts(plain), _rates(plain), _shares(plain)] if bench.kind == "train" else _curves(bench)),
        _sweeps(bench),
        _table(measured, bench.kind),
        _failed(bench.rows),
        _published(bench),
        _methods(bench),
        unfolded(_details(bench)),
    ]
    return shell(f"hemotorch bench: {bench.settings.get('recipe', bench.kind)}", body, told=bench.warnings)


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
    first, stop, others = bench.sentence.partition(". ")
    quick = "Quick benchmark" if settings["quick"] else "Benchmark"
    return (
        f'<header><p class="over">{quick} of {escape(what)}</p>'
        f'<h1 class="said">{escape(first + stop.strip())}</h1>'
        + (f'<p class="lead">{escape(others)}</p>' if others else "")
        + f'<p class="lead">{escape(lead)}</p></header>'
    )


def _facts(rows: Sequence[Row]) -> str:
    ours = [row for row in rows if not row.config.reference]
    if not ours:
        return ""
    best = max(ours, key=lambda row: row.images_s)
    size = f" of {' x '.join(map(str, best.last.size))}" if best.last.size else ""
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
             "product on as much of the machine</p>"),
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
    shown = [(row.config.label, row.shares, f"{clock(row.step_s)} a step") for row in rows if row.shares]
    bars = stacked(shown, PHASE_NAMES)
    if not bars:
        return ""
    return (
        '<section><h2>Where the time goes</h2><p class="note">Shares of a step. On a GPU they are from steps of '
        "their own, in which each phase is waited for; on a CPU, waiting is time in which not all threads were busy. A "
        "thread that spins until the others are done counts as busy.</p>"
        f"{bars}</section>"
    )


def stacked(rows: Sequence[tuple[str, Mapping[str, float], str]], names: Mapping[str, str]) -> str:
    """Bars of one length with a legend, "" without any: each row's label, shares that sum to 1, and what stands behind.

    names: of what is shared, in words and in order, at most seven.
    """
    colours = dict(zip(names, (f"var(--s{n})" for n in range(1, 8)), strict=False))
    seen = [name for name in names if any(shares.get(name, 0.0) >= 0.005 for _, shares, _ in rows)]
    legend = "".join(
        f'<span><span class="swatch" style="background:{colours[name]}"></span>{names[name]}</span>' for name in seen
    )
    lines = []
    for label, shares, behind in rows:
        parts = {name: shares.get(name, 0.0) for name in seen}
        told = ", ".join(f"{names[name]} {share:.0%}" for name, share in parts.items() if share >= 0.005)
        bar = "".join(
            f'<i style="flex:{share:.4f} 0 0;background:{colours[name]}"></i>'
            for name, share in parts.items()
            if share >= 0.002
        )
        lines.append(
            f'<div class="rate"><span>{escape(label)}</span>'
            f'<span class="stack" role="img" aria-label="{told}" title="{told}">{bar}</span>'
            f'<span class="at faint">{behind}</span></div>'
        )
    return f'<p class="legend">{legend}</p><div class="rates parts">{"".join(lines)}</div>' if lines else ""


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
            f"<figure>{chart.curves(entries, over, value, label)}</figure>"
            for value, label in (("value", name), ("loss", "training loss"))
            for over in ("steps", "seconds")
        )
        rows = [
            f'<tr><th scope="row">{entry["algorithm"]}</th><td>{entry["lr"]:g}</td><td>{entry["steps"][-1]:,}</td>'
            f"<td>{clock(entry['seconds'][-1] / entry['steps'][-1])}</td><td>{number(entry['loss'][-1], 3)}</td>"
            f'<td>{number(entry["value"][-1], 3)}</td><td class="words">{when(entry)}</td></tr>'
            for entry in entries
        ]
        heads = ["", "learning rate", "steps", "a step", "training loss", name, f"{name} {entries[0]['wanted']:.2f}"]
        sections.append(
            f'<section><h2>{escape(task)}</h2><p class="note">{escape(entries[0]["note"])} At each look the median of '
            f"{many(len(entries[0]['reached']), 'run')} with seeds of their own. Last column: how much training the "
            "quickest and the slowest of them took to nine tenths of the best.</p>"
            f'<div class="two">{figures}</div><div class="scroll">{table(heads, rows)}</div></section>'
        )
    return sections


def _table(rows: Sequence[Row], kind: str) -> str:
    if not rows:
        return ""
    priced = any(not math.isnan(row.cost) for row in rows)
    whole = kind == "train"  # a small network has no training to project
    heads = ["", "images/s", "training" if whole else "a step", "GFLOP/s", "of peak", "efficiency", "memory, GB"]
    referred = any(row.config.reference for row in rows)
    heads += ["× CPU", *(["× reference"] if referred else [])]
    heads += ["cost"] if priced else []
    lines = []
    for row in rows:
        gpu = f" + {row.gpu_memory_mb / 1000:,.1f}" if not math.isnan(row.gpu_memory_mb) else ""
        cells = [
            f'{rate(row.images_s)}<br><span class="faint">{_range(row)}</span>',
            f'{clock(row.training_s)}<br><span class="faint">{clock(row.epoch_s)} an epoch</span>'
            if whole
            else clock(row.step_s),
            *(_whole(row.gflops), _percent(row.peak_share), _percent(row.efficiency)),
            *(f"{number(row.memory_mb / 1000, 1)}{gpu}", _times(row.to_cpu, "")),
            *([_times(row.to_reference, "")] if referred else []),
            *([number(row.cost)] if priced else []),
        ]
        lines.append(
            f'<tr><th scope="row">{escape(row.config.label)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        )
    training = " Training: all epochs of the recipe, without validation." if whole else ""
    on_gpu = " and + of the GPU" if any(row.config.device == "cuda" for row in rows) else ""
    return (
        f'<section><h2>All figures</h2><div class="scroll">{table(heads, lines)}</div><p class="note">Under the images '
        f"a second, the slowest round and the fastest.{training} Of peak: GFLOP/s against the fastest large matrix "
        "product on as many cores or GPUs in the same precision. Efficiency: against one thread, or one GPU, times as "
        f"many. Memory: the most that was held, main memory{on_gpu}, over all processes.</p></section>"
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
        f"{row.config.label}\n" + "\n".join(f"    {reason}" for reason in row.last.reasons)
        for row in bench.rows
        if row.last.reasons
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
