"""The main job on a small phantom, from nothing to a report: what `make demo` runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hemotorch.data.dataset import Dataset
from hemotorch.data.phantom_folders import write_phantom
from hemotorch.data.prepare import prepare
from hemotorch.errors import HemotorchError, InputError
from hemotorch.phantom import VERSION
from hemotorch.recipe import load_recipe
from hemotorch.report.predict_studies import predict_studies
from hemotorch.report.run_report import evaluate_run
from hemotorch.system.events import Message, emit
from hemotorch.system.files import output_folder, read_json, write_json
from hemotorch.training.loop import train

PREDICTED = 3  #: test scans that are also predicted from their files, as a user would
LAYOUT = "folder"  #: its masks name the type of each voxel, those of CT-ICH the types of a slice


def demo(out: Path | str) -> dict[str, Any]:
    """Leaves OUT/data, prepared, run, report and predictions. Started again it goes on where it stopped.

    Returns:
        The headline in words, the seconds of each stage, the report's path and the scores.

    Raises:
        HemotorchError: what went wrong in one of the stages.
    """
    out = Path(out)
    _open_folder(out)
    start = time.perf_counter()
    seconds: dict[str, float] = {}
    with _stage(seconds, "phantom", "1/5  making a synthetic dataset of head CTs, their masks by type of bleeding"):
        if not (out / "data" / "phantom.json").is_file():
            if (out / "data").exists():  # left by a demo that was stopped
                shutil.rmtree(out / "data")
            write_phantom(out / "data", "demo", layout=LAYOUT)
    with _stage(seconds, "prepare", "2/5  preparing it"):
        summary = prepare(out / "data", out / "prepared")
        for line in summary.lines():
            emit(Message(f"     {line}"))
    with _stage(seconds, "train", "3/5  training recipe `fast`"):
        run = train(out / "prepared", out / "run", load_recipe("fast"), resume=True)
    with _stage(seconds, "evaluate", "4/5  measuring it on patients it has not seen"):
        scores = evaluate_run(out / "run", out / "report", overwrite=True)
    with _stage(seconds, "predict", "5/5  predicting scans from their files"):
        split = Dataset(out / "prepared").splits[run.recipe.data.split]
        files = [out / "data" / "images" / f"{case}.nii.gz" for case in sorted(split.test)[:PREDICTED]]
        for _, result in predict_studies(out / "run", files, out / "predictions", overwrite=True):
            if isinstance(result, HemotorchError):
                raise result
    total_s = time.perf_counter() - start
    lines = [*scores.lines(), f"done in {total_s:.0f} s, {seconds['train']:.0f} s of it training"]
    report = out / "report" / "report.html"
    return {"lines": lines, "report": str(report), "seconds": seconds, "scores": scores.to_json()}


def _open_folder(out: Path) -> None:
    """Raises InputError if the folder holds anything but a demo of this version."""
    version = {"phantom": VERSION, "layout": LAYOUT, "recipe": load_recipe("fast").to_toml()}
    marker = out / "demo.json"
    if not marker.is_file():
        output_folder(out)
        write_json(marker, version)
    elif read_json(marker) != version:
        raise InputError("holds a demo of another version", out, "remove it, or choose another --out")


@contextmanager
def _stage(seconds: dict[str, float], name: str, text: str) -> Iterator[None]:
    """Says what comes, and notes how long it took."""
    emit(Message(f"{text} ..."))
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 1)
