"""`hemotorch bench train` from its options to its page, on the tiny dataset and this machine's processor."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from benches import CONTIGUOUS
from hemotorch import io
from hemotorch.bench import setup as bench_setup_file
from hemotorch.bench import train as bench_train_file
from hemotorch.bench.records import Round, Row
from hemotorch.bench.setup import engine_settings
from hemotorch.bench.train import bench_train
from hemotorch.cli import main
from hemotorch.data.prepare import prepare
from hemotorch.recipe import load_recipe, recipe_from_toml
from hemotorch.system import machine, threads
from webpage import Page

pytestmark = pytest.mark.usefixtures("looked_at_once")
CORES = min(machine.cores(), threads.count()[0])  #: OMP_NUM_THREADS may allow fewer than there are
SMALL = ("net.options.channels=4", "grid.size_px=64")


@pytest.fixture(scope="module")
def out(tiny_prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bench of the paper's network, four channels wide."""
    folder = tmp_path_factory.mktemp("bench") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_train_file, "QUICK_SECONDS", 0.2)
        settings = [word for setting in SMALL for word in ("--set", setting)]
        arguments = ["bench", "train", "--data", str(tiny_prepared), *settings, "--device", "cpu", "--quick"]
        arguments += ["--rounds", "1", "--sweep", "batch=2", "--price-per-hour", "3", "--out", str(folder)]
        assert main(arguments) == 0
    return folder


def rows(out: Path) -> dict[str, dict]:
    return {row["config"]["label"]: row for row in json.loads((out / "bench.json").read_text())["rows"]}


def test_every_config_is_measured(out: Path) -> None:
    cores = CORES
    wanted = {"reference loop, CPU", "CPU, 1 thread"}
    if cores > 1:
        wanted |= {f"CPU, {cores} threads", f"CPU, {cores} threads, batch 2"}
    if cores == 2:
        wanted.add("CPU, 2 processes of 1 thread")
    found = rows(out)
    assert wanted <= found.keys()
    assert all(row["error"] == "" and row["images_s"] > 0 and row["memory_mb"] > 100 for row in found.values())


def test_what_follows_from_the_images_a_second(out: Path) -> None:
    found = rows(out)
    reference, one = found["reference loop, CPU"], found["CPU, 1 thread"]
    assert one["to_reference"] == pytest.approx(one["images_s"] / reference["images_s"])
    assert one["efficiency"] == 1 and reference["to_reference"] == 1
    assert one["training_s"] == pytest.approx(150 * one["epoch_s"])
    assert one["cost"] == pytest.approx(3 * one["training_s"] / 3600)
    assert one["step_s"] == pytest.approx(4 / one["images_s"])
    assert one["gflops"] > 0 and 0 < one["peak_share"] < 1.5
    ours, theirs = (row["rounds"][-1] for row in (one, reference))
    assert ours["storage"] == "resident" and theirs["storage"] == "png"
    assert ours["size"] == theirs["size"] == [64, 64], "the same job"


def test_the_environment_is_whole(out: Path) -> None:
    about = json.loads((out / "bench.json").read_text())["environment"]
    assert {"processor", "cores", "threads", "memory_gb", "gpu", "driver", "torch", "cuda", "python"} <= about.keys()
    assert about["cores"] == CORES and about["memory_gb"] > 0.5


def test_the_page_says_where_it_comes_from(out: Path) -> None:
    words = " ".join(Page((out / "bench.html").read_text(encoding="utf-8")).words)
    sentence = json.loads((out / "bench.json").read_text())["sentence"]
    assert sentence in words and "Quick: on slices of 64 x 64" in words and "Batch" in words
    assert (out / "speedup.svg").read_text().startswith("<svg")


def test_a_folder_that_is_in_use_is_not_overwritten(out: Path, capsys) -> None:
    assert main(["bench", "train", "--out", str(out)]) == 1
    assert "not empty" in capsys.readouterr().err


def test_an_empty_dataset(tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["bench", "train", "--data", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("hemotorch bench: ") and error.count("\n") == 1 and "is not a prepared dataset" in error


def test_a_dataset_without_bleeding(tmp_path: Path, capsys) -> None:
    prepare(tiny.write_dataset(tmp_path / "data", patients=5, normal=5), tmp_path / "prepared")
    arguments = ["bench", "train", "--data", str(tmp_path / "prepared"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no slice with bleeding to train on" in error and "data.slices=all" in error


def test_a_dataset_without_masks(tmp_path: Path, capsys) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    for number in range(4):
        io.write_scan(tiny.head(number)[0], tmp_path / "data" / "images" / f"{number}.nii.gz")
    prepare(tmp_path / "data", tmp_path / "prepared")
    arguments = ["bench", "train", "--data", str(tmp_path / "prepared"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sweep", "bach=1"], "did you mean 'batch'"),
        (["--sweep", "batch=8..1"], "runs backwards"),
        (["--recipe", "papr"], "did you mean 'paper'"),
        (["--set", "net.nme=unet"], "did you mean 'name'"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--data", "NOWHERE"], "no such folder"),
    ],
)
def test_bad_values_are_one_line(arguments, says, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "train", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("hemotorch bench: ") and error.count("\n") == 1 and says in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--rounds", "0"],
        ["train", "--price-per-hour", "-1"],
        ["train", "--price-per-hour", "x"],
        ["nothing"],
        [],
    ],
)
def test_bad_usage_is_one_line(arguments, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", *arguments])
    assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("verb", ["train", "predict", "mlp", "compare"])
def test_every_verb_has_help_with_an_example(verb, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["bench", verb, "--help"])
    assert f"example: hemotorch bench {verb}" in capsys.readouterr().out


@pytest.fixture
def unsettled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layouts are not tried."""
    monkeypatch.setattr(bench_setup_file, "chosen_layout", lambda spec: CONTIGUOUS)


@pytest.mark.usefixtures("unsettled")
def test_nothing_measured_is_a_failure(tiny_prepared: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def fail(specs, pace):
        return [Row(spec.config, error="out of memory") for spec in specs], ""

    monkeypatch.setattr(bench_train_file, "measure", fail)
    arguments = ["bench", "train", "--data", str(tiny_prepared), "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--json"]) == 1
    assert "out of memory" in json.loads(capsys.readouterr().out)["sentence"]


@pytest.mark.usefixtures("unsettled")
def test_the_reference_loop_alone_is_no_result(tiny_prepared: Path, tmp_path: Path, monkeypatch) -> None:
    def only(specs, pace):
        rounds = (Round((1.0,), 4),)
        return [
            Row(s.config, rounds if s.config.reference else (), "" if s.config.reference else "x") for s in specs
        ], ""

    monkeypatch.setattr(bench_train_file, "measure", only)
    asked = ["bench", "train", "--data", str(tiny_prepared), "--device", "cpu", "--set", "data.split=patient"]
    assert main([*asked, "--out", str(tmp_path / "out")]) == 1
    rows = json.loads((tmp_path / "out" / "bench.json").read_text())["rows"]
    assert any(row["config"]["reference"] and row["rounds"] for row in rows)


@pytest.mark.usefixtures("unsettled")
def test_configs_reach_the_recipe(tiny_prepared: Path, monkeypatch) -> None:
    seen = []

    def keep(specs, pace):
        seen.extend(specs)
        return [Row(spec.config) for spec in specs], ""

    monkeypatch.setattr(bench_train_file, "measure", keep)
    settings = ("train.batch=2", "train.accumulate=3")
    found = bench_train(tiny_prepared, "paper", settings, device="cpu", sweep=("batch=5",), quick=True)
    assert CONTIGUOUS[1] in found.notes
    assert 'channels_last = "auto"' in found.settings["recipe_toml"], "another machine's may be compared with it"
    recipe = {spec.config.label: recipe_from_toml(spec.recipe, "spec") for spec in seen}
    assert recipe["CPU, 1 thread"].engine.channels_last == "off"
    assert recipe["CPU, 1 thread"].engine.threads == 1 and recipe["CPU, 1 thread"].engine.compile == "off"
    assert (recipe["CPU, 1 thread"].train.batch, recipe["CPU, 1 thread"].train.accumulate) == (2, 3)
    other = next(recipe for label, recipe in recipe.items() if label.endswith("batch 5"))
    assert (other.train.batch, other.train.accumulate) == (5, 1)
    gpu = replace(
        seen[0].config, reference=False, device="cuda", precision="tf32", compile=True, graphs=True, threads=3
    )
    engine = load_recipe("paper").changed(engine_settings(gpu)).engine
    assert (engine.precision, engine.compile, engine.graphs, engine.threads) == ("tf32", "on", "on", 3)
