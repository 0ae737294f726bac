"""The command line as a user meets it: help, the whole chain, JSON, one-line errors and exit statuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tiny
from conftest import require
from hemotorch import io
from hemotorch.cli import main
from hemotorch.cli.output import volume_text
from hemotorch.data.phantom_folders import write_phantom
from hemotorch.run import Run

COMMANDS = ("phantom", "prepare", "train", "evaluate", "predict", "bench", "demo")
ENGINES = ("cluster torchrun", "cluster slurm", "cluster ray", "cluster predict")


@pytest.mark.parametrize("command", [*COMMANDS, "cluster", *ENGINES])
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0 and f"example: hemotorch {command}" in capsys.readouterr().out


def test_help_imports_nothing_heavy():
    code = "import sys\nfrom hemotorch.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'numpy', 'zarr', 'nibabel', 'matplotlib', 'scipy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_the_whole_chain(tiny_data, tmp_path, capsys):
    prepared, run, report, out = (str(tmp_path / name) for name in ("prepared", "run", "report", "out"))
    assert main(["prepare", str(tiny_data), prepared]) == 0
    assert "ct-ich" in capsys.readouterr().out
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(tiny.recipe("train.epochs=2").to_toml())
    assert main(["train", prepared, run, "--recipe", str(recipe), "--device", "cpu"]) == 0
    told = capsys.readouterr().out.splitlines()
    steps = r"2 epochs of 7 steps, batches of 4; cpu, \d+ threads, fp32, slices in memory"
    assert re.fullmatch(rf"training fast: task bleeding \(.*\); {steps}", told[0])
    assert told[2].startswith("epoch   2") and len(told) == 4
    assert main(["train", prepared, run, "--resume"]) == 0
    assert "7 steps, going on after 14 of them, batches of 4" in capsys.readouterr().out.splitlines()[0]
    assert main(["train", prepared, run, "--resume", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["epochs"]) == 2
    assert main(["evaluate", run, "--out", report, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["split"]["by"] == "patient"
    io.write_scan(tiny.head(77)[0], tmp_path / "scan.nii.gz")
    (tmp_path / "bad.nii").write_bytes(b"no scan")
    assert main(["predict", run, str(tmp_path / "bad.nii"), str(tmp_path / "scan.nii.gz"), "--out", out, "--json"]) == 1
    told = capsys.readouterr()
    # The doubtful ones first: a network of two epochs is unsteady.
    first, second = json.loads(told.out)["predictions"]
    assert "bad.nii" in second["error"] and "volume_ml" in first and first["model"].endswith("epoch 2 of 2")
    assert told.err.count("\n") == 1 and "bad.nii" in told.err


def test_training_can_be_followed_in_tensorboard(tiny_prepared, tmp_path):
    require("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe, run = tmp_path / "tiny.toml", tmp_path / "run"
    recipe.write_text(tiny.recipe("train.epochs=2").to_toml())
    arguments = ["train", str(tiny_prepared), str(run), "--recipe", str(recipe), "--device", "cpu", "--tensorboard"]
    assert main(arguments) == 0
    told = EventAccumulator(str(tmp_path / "run-tensorboard")).Reload()
    assert [e.step for e in told.Scalars("loss")] == [1, 2] and told.Scalars("val/dice")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prepare", "NOWHERE", "OUT"], "no such folder"),
        (["train", "NOWHERE", "OUT"], "no such folder; make it with `hemotorch prepare"),
        (["train", "NOWHERE", "OUT", "--recipe", "fats"], "did you mean 'fast'"),
        (["train", "NOWHERE", "OUT", "--set", "train.epoch=1"], "did you mean 'epochs'"),
        (["evaluate", "NOWHERE", "--out", "OUT"], "no such run folder"),
        (["predict", "NOWHERE", "scan.nii", "--out", "OUT"], "name a run folder or a model file, or scans alone"),
        (["predict", "NOWHERE.pt", "scan.nii", "--out", "OUT"], "no such checkpoint"),
        (["phantom", "OUT", "--preset", "smal"], "did you mean 'small'"),
        (["prepare", "NOWHERE", "OUT", "--level", "40"], "--level and --width go together"),
        (["prepare", "NOWHERE", "OUT", "--png", "--level", "nan", "--width", "10"], "holds no HU"),
        (["prepare", "NOWHERE", "OUT", "--png", "--level", "40", "--width", "inf"], "holds no HU"),
        (["prepare", "NOWHERE", "OUT", "--only-positive"], "add --png"),
        (["prepare", "NOWHERE", "OUT", "--window", "brain", "--level", "4", "--width", "8"], "give one of them"),
        (["train", "NOWHERE", "OUT", "--set", "predict.closing_px=500"], "must be from 0 to 99"),
        (["train", "NOWHERE", "OUT", "--set", "grid.pixel_mm=1e-9"], "must be at least 0.05"),
        (["train", "NOWHERE", "OUT", "--set", "optimizer.momentum=5"], "from 0 to 1"),
    ],
)
def test_errors_are_one_line_with_what_to_do(arguments, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"hemotorch {arguments[0]}: ") and error.count("\n") == 1 and says in error


@pytest.mark.parametrize("value", ["-1", "1.5", "x", "²", "99999999999"])
def test_numbers_that_are_none(value, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["prepare", "A", "B", "--seed", value])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "must be a whole number from 0" in error and error.count("\n") == 1


def test_ctrl_c_wrapped_by_a_library_is_still_ctrl_c(monkeypatch, capsys):
    def wrapped(*_, **__):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            pass
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr("hemotorch.data.prepare.prepare", wrapped)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in the background
    try:
        assert main(["prepare", "A", "B"]) == 130 and "the same command goes on" in capsys.readouterr().err
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_folder_that_is_a_file(tiny_prepared, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main(["train", str(tiny_prepared), str(tmp_path / "file")]) == 1
    error = capsys.readouterr().err
    assert "is a file, not a folder" in error and error.count("\n") == 1


def test_a_demo_stopped_in_its_first_stage_goes_on(tmp_path, monkeypatch):
    """What a stopped demo leaves is replaced; the stages after it are tested each on its own, and all in .ci/run."""
    from hemotorch import demo
    from hemotorch.phantom import VERSION
    from hemotorch.recipe import load_recipe
    from hemotorch.system.files import write_json

    class Enough(Exception):
        pass

    def stop(*_):
        raise Enough

    write_json(
        tmp_path / "demo.json", {"phantom": VERSION, "layout": demo.LAYOUT, "recipe": load_recipe("fast").to_toml()}
    )
    (tmp_path / "data/ct_scans").mkdir(parents=True)
    (tmp_path / "data/ct_scans/001.nii").write_text("half a scan")
    monkeypatch.setattr(demo, "write_phantom", lambda out, _, layout: write_phantom(out, "demo", patients=1, size=48))
    monkeypatch.setattr(demo, "prepare", stop)
    with pytest.raises(Enough):
        demo.demo(tmp_path)
    assert (tmp_path / "data/phantom.json").exists()


ORPHANS = """
import os, signal, sys, threading, time
from hemotorch.data.phantom_folders import write_phantom
from hemotorch.run import Run
if __name__ == "__main__":
    threading.Timer(6, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    write_phantom(sys.argv[1], "small", patients=200, workers=2)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    # Standard output stays open as long as a worker lives.
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "out")], stdout=subprocess.PIPE, timeout=60)
    assert done.returncode == -signal.SIGKILL


def test_the_bound_on_voxels_is_an_option(tmp_path: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEMOTORCH_MAX_VOXELS", "")  # put back afterwards
    io.write_scan(tiny.head(1)[0], tmp_path / "a.nii.gz")
    command = ["predict", str(tiny_run), str(tmp_path / "a.nii.gz"), "--device", "cpu", "--any-anatomy"]
    assert main([*command, "--out", str(tmp_path / "one"), "--max-voxels", "24575"]) == 1
    assert main([*command, "--out", str(tmp_path / "two"), "--max-voxels", "24576"]) == 0  # 6 x 64 x 64


def test_a_scan_that_cannot_be_measured_is_named_and_the_others_are(
    tiny_prepared: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_prepared, tmp_path / "prepared")
    case, *others = Run.open(tiny_run).split.test
    assert others
    shard = tmp_path / "prepared" / "scans.zarr" / case / "hu/c/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-1])
    command = ["evaluate", str(tiny_run), "--data", str(tmp_path / "prepared"), "--device", "cpu", "--json"]
    assert main([*command, "--out", str(tmp_path / "report")]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and captured.err.startswith("hemotorch evaluate: ") and case in captured.err
    scores = json.loads(captured.out)
    assert list(scores["failed"]) == [case] and scores["scans"] == len(others)
    assert (tmp_path / "report" / "report.html").is_file()


def test_several_models_predict_as_one(
    tiny_prepared: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tmp_path / "a.nii.gz"
    io.write_scan(tiny.head(3)[0], scan)
    options = ["--device", "cpu", "--json"]
    models = [str(tiny_run), str(tiny_run / "last.pt")]
    assert main(["predict", *models, str(scan), "--out", str(tmp_path / "both"), *options]) == 0
    (prediction,) = json.loads(capsys.readouterr().out)["predictions"]
    assert prediction["scan"] == [str(scan)] and prediction["model"].startswith("2 networks: ")
    assert main(["predict", *models, "--out", str(tmp_path / "none"), *options]) == 1
    error = capsys.readouterr().err
    assert "only models are named, and no scan" in error and error.count("\n") == 1


def test_volumes_are_told_by_type_the_largest_first() -> None:
    assert volume_text({"total": 12.34}) == "12.3 mL"
    assert volume_text({"total": None}) == volume_text({"total": float("nan"), "epidural": None}) == "unknown mL"
    typed = {"total": 12.6, "epidural": 4.6, "subarachnoid": 0.0, "subdural": 8.04}
    assert volume_text(typed) == "12.6 mL (subdural 8.0, epidural 4.6)"


@pytest.mark.parametrize("command", ["predict SCAN --out LONG", "convert SCAN LONG/a.nii.gz", "inspect LONG"])
def test_a_name_that_no_disk_takes_is_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, _ = tiny.head(1)
    io.write_scan(scan, tmp_path / "scan.nii")
    words = {"SCAN": str(tmp_path / "scan.nii"), "LONG": str(tmp_path / ("x" * 300))}
    arguments = [words.get(word, word.replace("LONG", words["LONG"])) for word in command.split()]
    assert main(arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"hemotorch {arguments[0]}: ") and "too long" in lines[0]


def test_convert_does_not_write_over_the_scan_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, _ = tiny.head(1)
    path = tmp_path / "scan.nii"
    io.write_scan(scan, path)
    before = path.read_bytes()
    assert main(["convert", str(path), str(tmp_path / "." / "scan.nii"), "--resample", "2", "--overwrite"]) == 1
    assert "is the scan itself" in capsys.readouterr().err and path.read_bytes() == before
