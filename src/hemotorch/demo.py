"""The main job on a small phantom, from nothing to a report: what `make demo` runs."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from hemotorch.data.dataset import Dataset
from hemotorch.data.phantom_folders import write_phantom
from hemotorch.data.prepare import prepare
from hemotorch.errors import HemotorchError, InputError
from hemotorch.inference.outputs import predict_files
from hemotorch.phantom import VERSION
from hemotorch.recipe import load_recipe
from hemotorch.report.run_report import evaluate_run
from hemotorch.system.events import Message, emit
from hemotorch.system.files import output_folder, read_json, write_json
from hemotorch.training.loop import train

PREDICTED = 3  #: test scans that are also predicted from their files, as a user would
LAYOUT = "folder"  #: whose masks name the type of each voxel, where CT-ICH's name those of a slice


def demo(out: Path | str) -> dict[str, Any]:
    """Leaves OUT/data, prepared, run, report and predictions. Started again it goes on where it stopped.

    Returns:
        The headline in words, the seconds of each stage, the report's path and the scores.
    """
    out = Path(out)
    wanted = {"phantom": VERSION, "layout": LAYOUT, "recipe": load_recipe("fast").to_toml()}
    if (out / "demo.json").is_file():
        if read_json(out / "demo.json") != wanted:
            raise InputError("holds a demo of another version", out, "remove it, or choose another --out")
    else:
        output_folder(out)
        write_json(out / "demo.json", wanted)
    began = time.perf_counter()
    seconds: dict[str, float] = {}

    def stage(name: str, text: str) -> None:
        emit(Message(f"{text} ..."))
        seconds[name] = time.perf_counter()

    def done(name: str) -> None:
        seconds[name] = round(time.perf_counter() - seconds[name], 1)

    stage("phantom", "1/5  making a synthetic dataset of head CTs, their masks by type of bleeding")
    if not (out / "data" / "phantom.json").is_file():
        if (out / "data").exists():  # what a demo that was stopped left
            shutil.rmtree(out / "data")
        write_phantom(out / "data", "demo", layout=LAYOUT)
    done("phantom")
    stage("prepare", "2/5  preparing it")
    summary = prepare(out / "data", out / "prepared")
    for line in summary.lines():
        emit(Message(f"     {line}"))
    done("prepare")
    stage("train", "3/5  training recipe `fast`")
    run = train(out / "prepared", out / "run", load_recipe("fast"), resume=True)
    done("train")
    stage("evaluate", "4/5  measuring it on patients it has not seen")
    scores = evaluate_run(out / "run", out / "report", overwrite=True)
    done("evaluate")
    stage("predict", "5/5  predicting scans from their files")
    split = Dataset(out / "prepared").splits[run.recipe.data.split]
    files = [out / "data" / "images" / f"{case}.nii.gz" for case in sorted(split.test)[:PREDICTED]]
    for _, result in predict_files(out / "run", files, out / "predictions", overwrite=True):
        if isinstance(result, HemotorchError):
            raise result
    done("predict")
    report = out / "report" / "report.html"
    total = time.perf_counter() - began
    lines = [*scores.lines(), f"done in {total:.0f} s, {seconds['train']:.0f} s of it training"]
    return {"lines": lines, "report": str(report), "seconds": seconds, "scores": scores.to_json()}
