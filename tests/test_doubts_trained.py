"""Doubts about what a real network answers, trained here for some minutes: on phantoms as they are, and changed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from hemotorch.data.phantom_folders import write_phantom
from hemotorch.data.prepare import prepare
from hemotorch.inference.load import load_model
from hemotorch.inference.predictor import Predictor
from hemotorch.inference.seen import Seen
from hemotorch.phantom import make_case
from hemotorch.recipe import load_recipe
from hemotorch.training.loop import train

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from doubts import CHANGES, PHANTOMS, WRONG_ML, judged

SETTINGS = (
    "data.split=all",
    "data.validation=false",
    "train.best_by=last",
    "train.epochs=4",
    "train.steps_per_epoch=100",
)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A typed network that has learned something, and is often wrong."""
    folder = tmp_path_factory.mktemp("trained")
    write_phantom(folder / "source", "small", patients=32, seed=5, layout="folder")
    prepare(folder / "source", folder / "prepared")
    train(folder / "prepared", folder / "run", load_recipe("fast").changed(SETTINGS), device="cpu")
    return load_model(folder / "run", "cpu")


@pytest.mark.long
def test_what_a_network_outlines_wrongly_by_5_ml_is_doubted_nine_times_of_ten(predictor: Predictor) -> None:
    assert predictor.deployment.seen != Seen(), "measured on what it was trained on"
    rows = []
    for index in range(5):
        case = make_case("small", index, 40)
        for name, change in CHANGES.items():
            rows.append(judged(predictor, name, *change(case.scan, case.mask, np.random.default_rng(index))))
        for name, preset in PHANTOMS.items():
            other = make_case(preset, index, 41)
            rows.append(judged(predictor, name, other.scan, other.mask))
    taken = [row for row in rows if "refused" not in row]
    wrong = [row for row in taken if row["wrong_ml"] > WRONG_ML]
    assert len(wrong) >= 8, "or the test says nothing"
    assert sum(bool(row["doubts"]) for row in wrong) >= 0.9 * len(wrong)
    unchanged = [row for row in taken if row["change"] == "as it is" and row["wrong_ml"] < 1]
    assert not all(row["doubts"] for row in unchanged) or not unchanged, "a doubt about everything says nothing"
