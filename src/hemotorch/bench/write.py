"""A bench's files: bench.json, speedup.svg and bench.html in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hemotorch.bench.chart import speed_up
from hemotorch.bench.page import page
from hemotorch.bench.result import FILE, Bench
from hemotorch.files import output_folder, write_json, write_text


def out_folder(path: Path | str, overwrite: bool) -> Path:
    """The folder for results, made now so that nothing is measured in vain. Raises InputError where it is in use."""
    return output_folder(path, may_exist=overwrite)


def write_bench(bench: Bench, out: Path) -> Path:
    """Writes OUT/bench.json, OUT/speedup.svg where something was measured, and OUT/bench.html; the page's path."""
    write_json(out / FILE, bench.to_json())
    if any(row.measured for row in bench.rows):
        write_text(out / "speedup.svg", speed_up(bench.rows))
    write_text(out / "bench.html", page(bench))
    return out / "bench.html"


def write_values(values: Mapping[str, Any], out: Path) -> None:
    """Writes OUT/bench.json of a bench that has no page."""
    write_json(out / FILE, values)
