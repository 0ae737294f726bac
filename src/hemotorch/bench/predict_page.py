"""`hemotorch bench predict` as a page: how long a user waits, and for what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from hemotorch.bench.page import stacked
from hemotorch.bench.result import FILE, clock
from hemotorch.report.pages.html import fact, many, number, shell, table, unfolded
from hemotorch.system.files import write_json, write_text

NAMES = {
    "start": "start of the process",
    "read": "reading",
    "prepare": "resampling",
    "network": "network",
    "mask": "mask",
    "write": "writing",
}


def write_predictions(values: Mapping[str, Any], out: Path) -> Path:
    """Writes OUT/bench.json and OUT/bench.html of what `bench_predict` returned; the page's path."""
    write_json(out / FILE, values)
    write_text(out / "bench.html", predict_page(values))
    return out / "bench.html"


def predict_page(values: Mapping[str, Any]) -> str:
    """The whole page of what `bench_predict` returned."""
    settings, about, rows = values["settings"], values["environment"], values["rows"]
    usual = rows[1]
    gpus = f" and {about['gpus']} {about['gpu']}" if about.get("gpu") else ", no GPU"
    what = "a phantom" if settings["phantom"] else many(len(settings["scans"]), "scan")
    lead = (
        f"Measured on {about['processor']} with {many(about['cores'], 'core')}{gpus}: the whole process, on {what} of "
        f"{many(settings['slices'], 'slice')}."
    )
    facts = [
        fact("A user waits", clock(usual["seconds"]), f'<p class="note">{escape(usual["label"])}</p>'),
        fact("Slices a second", number(usual["images_s"], 1), '<p class="note">once the process has started</p>'),
        fact("Memory", f"{usual['peak_mb']:,.0f} <small>MB</small>", '<p class="note">at most</p>'),
        fact("Importing torch", clock(rows[0]["seconds"]), '<p class="note">part of every start</p>'),
    ]
    shares = [
        (row["label"], {name: row["phases"][name] / row["seconds"] for name in NAMES}, clock(row["seconds"]))
        for row in rows[1:]
    ]
    several = settings["rounds"] > 1
    lines = [
        f'<tr><th scope="row">{escape(row["label"])}</th><td>{number(row["seconds"])}<br><span class="faint">'
        + (f"{number(row['low'])} to {number(row['high'])}" if several else "one round")
        + "</span></td>"
        + "".join(f"<td>{number(row['phases'][name])}</td>" for name in NAMES)
        + f"<td>{row['peak_mb']:,.0f}</td></tr>"
        for row in rows
    ]
    body = [
        f'<header><p class="over">Benchmark of predicting</p><h1 class="said">{escape(values["sentence"])}</h1>'
        f'<p class="lead">{escape(lead)}</p></header>',
        f'<div class="facts">{"".join(facts)}</div>',
        f"<section><h2>Where the time goes</h2>{stacked(shares, NAMES)}</section>",
        '<section><h2>All figures</h2><p class="note">Seconds, the median over rounds; beneath, the fastest round and '
        f'the slowest.</p><div class="scroll">{table(["", "whole", *NAMES, "memory, MB"], lines)}</div></section>',
        unfolded({"Environment": json.dumps(about, indent=2), "Settings": json.dumps(settings, indent=2)}),
    ]
    return shell("hemotorch bench: predict", body, told=values["warnings"])
