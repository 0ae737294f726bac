"""`hemotorch bench predict`: real processes, the checkpoint that mirrors the other way, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
from hemotorch import io
from hemotorch.bench.predict import (
    IMPORT_ONNX,
    PHASES,
    count_slices,
    mirrored_otherwise,
    once,
    phantom,
    waiting_sentence,
)
from hemotorch.bench.records import Config, Round, Row
from hemotorch.cli import main
from hemotorch.inference.load import load_model
from hemotorch.inference.onnx_export import export_onnx
from hemotorch.system import machine, threads
from webpage import Page

pytestmark = pytest.mark.usefixtures("looked_at_once")
CORES = min(machine.cores(), threads.count()[0])  #: OMP_NUM_THREADS may allow fewer than there are


@pytest.mark.long
def test_the_command(tiny_run: Path, tmp_path: Path, capsys) -> None:
    io.write_scan(tiny.head(77)[0], tmp_path / "scan.nii.gz")
    arguments = ["bench", "predict", str(tiny_run), str(tmp_path / "scan.nii.gz"), "--device", "cpu", "--rounds", "1"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "bench.json").read_text())
    labels = [row["config"]["label"] for row in found["rows"]]
    assert labels[:3] == ["import torch", "all cores, with mirroring", "all cores, without mirroring"]
    assert len(labels) == (4 if CORES > 1 else 3)
    for row in found["rows"][1:]:
        assert set(row["shares"]) == set(PHASES) and row["shares"]["network"] > 0
        assert sum(row["shares"].values()) == pytest.approx(1, abs=1e-3)
        assert row["memory_mb"] > 50 and row["images_s"] == pytest.approx(tiny.SLICES / row["step_s"])
    assert found["rows"][0]["step_s"] < found["rows"][1]["step_s"] and found["rows"][0]["images_s"] is None
    page = Page((tmp_path / "out" / "bench.html").read_text(encoding="utf-8"))
    assert found["sentence"] in page.words and page.links == []
    assert found["settings"]["slices"] == tiny.SLICES and found["sentence"] in text and "Research use only" in text


def test_the_other_checkpoint_mirrors_the_other_way(tiny_run: Path, tmp_path: Path) -> None:
    path, mirrors = mirrored_otherwise(str(tiny_run), str(tmp_path / "other.pt"))
    model, other = load_model(tiny_run, "cpu"), load_model(path, "cpu")
    assert model.deployment.predict.mirror is mirrors and other.deployment.predict.mirror is not mirrors
    scan = tiny.head(5)[0]
    assert (model.predict(scan).probability != other.predict(scan).probability).any()


def test_an_onnx_file_is_measured_as_a_run_is(tiny_run: Path, tmp_path: Path) -> None:
    onnx = export_onnx(tiny_run, tmp_path / "tiny.onnx").path
    path, mirrors = mirrored_otherwise(str(onnx), str(tmp_path / "other.onnx"))
    model, other = load_model(onnx), load_model(path)
    assert model.deployment.predict.mirror is mirrors and other.deployment.predict.mirror is not mirrors
    io.write_scan(tiny.head(77)[0], tmp_path / "scan.nii.gz")
    result = once(Config("all cores", batch=tiny.SLICES), path, [str(tmp_path / "scan.nii.gz")], tmp_path, "cpu")
    assert result.step_s[0] > 0 and result.shares["network"] > 0 and result.memory_mb > 50
    bare = once(Config(IMPORT_ONNX), "", [], tmp_path, "cpu")
    assert bare.images == 0 and not bare.shares["network"]


def test_a_phantom_to_predict(tmp_path: Path) -> None:
    path = phantom(str(tmp_path / "phantom.nii.gz"), quick=True)
    assert io.read_scan(path).hu.shape[1:] == (192, 192) and count_slices([path, path]) == 2 * 24


def test_errors_are_one_line(tiny_run: Path, tmp_path: Path, capsys) -> None:
    for arguments in ([str(tmp_path / "no")], [str(tiny_run), str(tmp_path / "no.nii")]):
        assert main(["bench", "predict", *arguments, "--out", str(tmp_path / "out"), "--overwrite"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("hemotorch bench: ") and error.count("\n") == 1


def row(seconds: float, **phases: float) -> Row:
    shares = {phase: spent / seconds for phase, spent in phases.items()}
    return Row(Config(""), (Round((seconds,), 1, dict.fromkeys(PHASES, 0.0) | shares),))


def test_what_a_user_waits_for() -> None:
    bare = row(1.5)
    start = waiting_sentence([bare, row(3.0, start=2.0, network=1.0)], False, True)
    assert "3.0 s" in start and "67% of it for the start" in start and "several scans in one call" in start
    slow = [bare, row(9.0, start=2.0, network=7.0)]
    said = {ways: waiting_sentence(slow, *ways) for ways in ((False, True), (True, True), (True, False))}
    assert "use a GPU" in said[False, True] and "predict.mirror" in said[False, True]
    assert "use a GPU" not in said[True, True] and "predict.mirror" in said[True, True]
    assert "use a GPU" not in said[True, False] and "predict.mirror" not in said[True, False]
