"""A bench as one self-contained HTML page: what takes the time, how fast each config is, where its time goes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemotorch.bench import charts
from hemotorch.bench.mlp import when_reached
from hemotorch.bench.records import FILE, Bench, Curve, Row
from hemotorch.bench.tables import bench_table
from hemotorch.report.pages import render
from hemotorch.report.pages.numbers import duration, number
from hemotorch.report.pages.table import Cell, Column, Table, table
from hemotorch.system.files import jsonable, write_json, write_text

#: Phases of a training's step and of a prediction in words, in the order of the page's colours.
TRAINING_PHASES = {
    "data": "waiting for data",
    "augment": "augmentation",
    "forward": "forward",
    "backward": "backward",
    "optimiser": "optimiser",
    "graph": "whole step as a graph",
    "waiting": "waiting",
}
PREDICTION_PHASES = {
    "start": "start of the process",
    "read": "reading",
    "prepare": "resampling",
    "network": "network",
    "mask": "mask",
    "doubts": "looking for doubts",
    "page": "the page",
    "write": "writing",
}
#: Least share of a step that is named, and that is drawn.
SEEN, DRAWN = 0.005, 0.002
#: What Sokolovskyy et al. 2021 say of their own training: device and time.
PUBLISHED = (("Tesla K80", ""), ("Tesla T4", ""), ("GeForce RTX 2080", "5 hours for 150 epochs"))


@dataclass(frozen=True)
class Segment:
    """A phase in a bar. colour: number of the page's colour."""

    words: str
    share: float
    colour: int


@dataclass(frozen=True)
class Bar:
    """Where the time of a row goes. spoken: for those who cannot see it; behind: what stands behind it."""

    label: str
    segments: tuple[Segment, ...]
    spoken: str
    behind: str


@dataclass(frozen=True)
class TaskCurves:
    """The learning curves of a task. wanted: the value that the table's last column is about."""

    curves: tuple[Curve, ...]
    charts: tuple[str, ...]
    table: Table


def write_bench(bench: Bench, out: Path) -> Path:
    """Writes OUT/bench.json, OUT/speedup.svg if trainings were measured, and OUT/bench.html; the page's path."""
    write_json(out / FILE, bench.to_json())
    if bench.kind != "predict" and any(row.measured for row in bench.rows):
        write_text(out / "speedup.svg", charts.speedup_chart(bench.rows))
    write_text(out / "bench.html", bench_page(bench))
    return out / "bench.html"


def bench_page(bench: Bench) -> str:
    """The whole page."""
    measured = [row for row in bench.rows if row.measured]
    plain = [row for row in measured if row.config.batch == bench.rows[0].config.batch]
    trained = [row for row in plain if not row.config.reference]
    first, stop, others = bench.sentence.partition(". ")
    tasks = dict.fromkeys(curve.task for curve in bench.curves)
    segments, bars = _bars(plain, PREDICTION_PHASES if bench.kind == "predict" else TRAINING_PHASES)
    return render(
        "bench.html",
        f"hemotorch bench: {bench.settings.get('recipe', bench.kind)}",
        bench.warnings,
        bench=bench,
        settings=bench.settings,
        environment=bench.environment,
        headline=first + stop.strip(),
        more=others,
        measured=measured,
        plain=plain,
        fastest=max((row.high for row in plain), default=0.0),
        best=max(trained, key=lambda row: row.images_s, default=None),
        segments=segments,
        bars=bars,
        sweeps=[(name, charts.sweep_chart(name, bench.rows, bench.sweeps[name])) for name in bench.sweeps],
        scaled=charts.SCALED,
        tasks=[_task([curve for curve in bench.curves if curve.task == task]) for task in tasks],
        table_of_rows=bench_table(bench),
        published=PUBLISHED,
        rounds=max((len(row.rounds) for row in bench.rows), default=0),
        details=_details(bench),
    )


def _bars(rows: Iterable[Row], names: Mapping[str, str]) -> tuple[list[Segment], list[Bar]]:
    """The legend, and a bar for each row whose time is known by phase."""
    legend: dict[str, Segment] = {}
    bars = []
    for row in rows:
        # A process that only imports torch.
        if not row.last.images:
            continue
        segments = []
        for colour, (phase, words) in enumerate(names.items(), 1):
            segment = Segment(words, row.shares.get(phase, 0.0), colour)
            if segment.share >= DRAWN:
                segments.append(segment)
            if segment.share >= SEEN:
                legend[phase] = segment
        if segments:
            spoken = ", ".join(f"{each.words} {each.share:.0%}" for each in segments if each.share >= SEEN)
            bars.append(Bar(row.config.label, tuple(segments), spoken, duration(row.step_s)))
    return sorted(legend.values(), key=lambda segment: segment.colour), bars


def _task(curves: Sequence[Curve]) -> TaskCurves:
    name = curves[0].value_name
    drawn = []
    for value, label in (("value", name), ("loss", "training loss")):
        for over in ("steps", "seconds"):
            drawn.append(charts.curve_chart(curves, over, value, label))
    columns = [
        Column("", lambda curve: curve.algorithm),
        Column("learning rate", lambda curve: f"{curve.lr:g}"),
        Column("steps", lambda curve: f"{curve.steps[-1]:,}"),
        Column("a step", lambda curve: duration(curve.seconds[-1] / curve.steps[-1])),
        Column("training loss", lambda curve: number(curve.loss[-1], 3)),
        Column(name, lambda curve: number(curve.value[-1], 3)),
        Column(f"{name} {number(curves[0].wanted)}", lambda curve: Cell(when_reached(curve), kind="words"), "words"),
    ]
    return TaskCurves(tuple(curves), tuple(drawn), table(columns, curves))


def _details(bench: Bench) -> dict[str, str]:
    settings: dict[str, Any] = dict(bench.settings)
    recipe = settings.pop("recipe_toml", "")
    decisions = []
    for row in bench.rows:
        if row.last.reasons:
            decisions.append("\n".join([row.config.label, *(f"    {reason}" for reason in row.last.reasons)]))
    details = {
        "Environment": json.dumps(jsonable(bench.environment), indent=2),
        "Settings": json.dumps(jsonable(settings), indent=2),
        "Recipe": recipe,
        "Decisions of each config": "\n\n".join(decisions),
    }
    return {title: text for title, text in details.items() if text}
