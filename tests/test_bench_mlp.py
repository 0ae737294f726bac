"""Learning algorithms on small networks: that they learn, that only learning is timed, and what is said of them."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benches import CONTIGUOUS
from conftest import require
from hemotorch.bench import mlp, setup
from hemotorch.bench.bench_page import write_bench
from hemotorch.bench.curves import CurveSpec, digits_curve, follow, perceptron
from hemotorch.bench.mlp import bench_mlp, curve_spec, run_curve, sentences, small_recipe, with_runs
from hemotorch.bench.records import Curve
from hemotorch.errors import RunError
from hemotorch.nets import build
from webpage import Page

pytestmark = pytest.mark.usefixtures("looked_at_once")
RATES = mlp.TASKS["digits"].rates
EMPTY = Curve("Digits", "SGD", "cpu", 0.1, "accuracy", "", (), (), (), ())


@pytest.mark.parametrize("algorithm", list(RATES))
def test_digits_are_learned(algorithm: str) -> None:
    require("sklearn")
    found = digits_curve(CurveSpec("digits", algorithm, "cpu", 400, 6, RATES[algorithm]))
    assert found["steps"][-1] == 400 and len(found["steps"]) == 6 and found["steps"] == tuple(sorted(found["steps"]))
    assert found["value"][0] < 0.6 and found["value"][-1] > 0.9, "accuracy on digits that were not trained on"
    assert found["loss"][-1] < 0.3 < found["loss"][0]
    assert found["seconds"] == tuple(sorted(found["seconds"]))


def test_looking_is_not_counted() -> None:
    def slow() -> float:
        time.sleep(0.2)
        return 1.0

    spec = CurveSpec("digits", "SGD", "cpu", steps=9, points=3, lr=1.0)
    found = follow(lambda: torch.ones(()), slow, lambda: None, spec)
    assert found["steps"] == (1, 4, 9) and found["loss"] == (1.0, 1.0, 1.0)
    assert found["seconds"][-1] < 0.2


def test_the_perceptron_is_the_pixel_windows_one_on_one_window() -> None:
    """`nets.mlp` is the same sum written as convolutions; on one window of 9 x 9 they must agree, weights alike."""
    own, body = perceptron(81, 1), build("mlp", patch=9).body
    ours = [module for module in own if isinstance(module, torch.nn.Linear)]
    theirs = [module for module in body.modules() if isinstance(module, torch.nn.Conv2d)]
    with torch.no_grad():
        for one, other in zip(ours, theirs, strict=True):
            other.weight.copy_(one.weight.view(other.weight.shape))
            other.bias.copy_(one.bias)
        window = torch.rand(1, 1, 9, 9)
        assert float(body(window)[0, 0, 4, 4]) == pytest.approx(float(own(window.flatten(1))), abs=1e-5)


@pytest.mark.parametrize("net", ["mlp", "unet"])
def test_slices_are_learned_through_the_same_step(tiny_prepared: Path, monkeypatch, net: str) -> None:
    monkeypatch.setattr(mlp, "TASKS", {net: replace(mlp.TASKS[net], quick_steps=12, points=2)})
    recipe = small_recipe(net).changed(["augment.crop_px=32"])
    found = run_curve(curve_spec(net, "cpu", "Adam", tiny_prepared, recipe, quick=True))
    assert found["steps"] == [3, 12] and found["loss"][1] < found["loss"][0]
    assert all(0 <= value <= 1 for value in found["value"])


def test_a_curve_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        run_curve(curve_spec("mlp", "cpu", "SGD", tmp_path / "no", small_recipe("mlp"), True))


@pytest.mark.long
def test_the_whole(tiny_prepared: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(mlp, "TASKS", {"mlp": replace(mlp.TASKS["mlp"], quick_steps=4, points=2)})
    monkeypatch.setattr(mlp, "BATCHES", (2, 8))
    monkeypatch.setattr(mlp, "ALGORITHMS", {"Adam": mlp.ALGORITHMS["Adam"]})
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as if it were not installed
    monkeypatch.setattr(setup, "chosen_layout", lambda spec: CONTIGUOUS)
    found = bench_mlp(tiny_prepared, device="cpu", rounds=1, quick=True)
    assert any("scikit-learn is not installed; `pip install" in note for note in found.notes)
    assert CONTIGUOUS[1] in found.notes
    assert all("contiguous: asked for" in row.rounds[0].reasons for row in found.rows)
    assert [curve.algorithm for curve in found.curves] == ["Adam"]
    assert set(found.sweeps) == {"batch", "threads"}
    assert [found.rows[n].config.batch for n in found.sweeps["batch"]["cpu"]] == [2, 8]
    assert all(row.measured and row.error == "" for row in found.rows)
    page = write_bench(found, tmp_path)
    words = " ".join(Page(page.read_text(encoding="utf-8")).words)
    assert "Pixel windows" in words and found.sentence in words
    assert json.loads((tmp_path / "bench.json").read_text())["kind"] == "mlp"


def test_what_is_said_of_the_algorithms() -> None:
    def entry(name: str, *reached: float | None) -> Curve:
        steps = tuple(None if at is None else round(10 * at) for at in reached)
        return replace(EMPTY, algorithm=name, wanted=0.9, reached=reached, reached_steps=steps)

    slow, fast, never = entry("SGD", 4.0, 9.0), entry("Adam", 2.0, 3.0), entry("momentum", None, None)
    text = sentences([slow, never, fast])[0]
    assert text.startswith("Digits: Adam is the first to reach accuracy 0.90") and "2.0 s" in text and "SGD" in text
    level = sentences([entry("SGD", 2.5, 9.0), fast])[0]
    assert level.startswith("Digits: level in reaching accuracy 0.90") and "first" not in level
    poor = replace(fast, wanted=0.01)
    assert sentences([poor])[0].startswith("Digits: no algorithm finds anything yet")


def test_when_each_run_was_there() -> None:
    run = {"steps": [1, 2, 3], "seconds": [0.1, 0.2, 0.3], "loss": [3.0, 2.0, 1.0]}
    runs = [{**run, "value": value} for value in ([0.1, 0.95, 1.0], [0.1, 0.2, 0.3], [0.1, 0.5, 1.0])]
    found = with_runs([(EMPTY, runs)])[0]
    assert found.value == (0.1, 0.5, 1.0) and found.seconds == (0.1, 0.2, 0.3)
    assert found.wanted == 0.9 and found.reached == (0.2, None, 0.3) and found.reached_steps == (2, None, 3)
    assert found.ends == (1.0, 0.3, 1.0)
