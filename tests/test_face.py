"""What `import hemotorch` offers, and that it costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hemotorch
import tiny
from hemotorch.errors import OptionError
from hemotorch.io import nifti

FACE = [
    "Dataset",
    "Prediction",
    "Recipe",
    "Run",
    "Scan",
    "evaluate",
    "load_model",
    "predict",
    "prepare",
    "read_scan",
    "train",
]


def test_the_face_is_what_the_design_lists() -> None:
    assert sorted(hemotorch.__all__) == FACE
    assert set(FACE) <= set(dir(hemotorch))
    for name in FACE:
        assert getattr(hemotorch, name).__doc__


def test_torch_is_not_imported_before_a_model_is_loaded() -> None:
    program = (
        "import sys, hemotorch\n"
        "assert 'numpy' not in sys.modules\n"
        "hemotorch.read_scan, hemotorch.load_model, hemotorch.predict, hemotorch.Scan, hemotorch.Recipe\n"
        "assert 'torch' not in sys.modules\n"
        "hemotorch.nothing"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "AttributeError: module 'hemotorch' has no attribute 'nothing'"


def test_a_scan_is_predicted_from_python(tiny_run: Path, tmp_path: Path) -> None:
    scan, _ = tiny.head(123)
    nifti.write_scan(scan, tmp_path / "a.nii.gz")
    found = hemotorch.predict(tiny_run, tmp_path / "a.nii.gz", device="cpu")
    again = hemotorch.predict(hemotorch.load_model(tiny_run, "cpu"), hemotorch.read_scan(tmp_path / "a.nii.gz"))
    assert found.volume_ml == again.volume_ml and found.mask.any() and found.mask.shape == scan.shape


WITHOUT_TORCH = """
import sys
import numpy as np
from hemotorch.grid import SliceSpacing
from hemotorch.inference.deployment import Deployment
from hemotorch.inference.predictor import Predictor
from hemotorch.recipe import GridSection, Predict, Tiles
from hemotorch.scan import even_scan


class Bright:
    multiple, spacings = 8, (SliceSpacing(5.0, 5.0, 5.0),)

    def batch(self, rows, columns):
        return 2

    def probabilities(self, hu, positions_mm=None, slices=None):
        return (hu[None, slices.start : slices.stop] > 50).astype(np.float32)


hu = np.zeros((5, 90, 90), np.int16)
hu[2, 30:40, 50:60] = 70
deployment = Deployment("bleeding", GridSection(2.0, 80), Tiles(), Predict(), "auto", None, "bright")
result = Predictor(Bright(), deployment).predict(even_scan(hu, 2.0, 5.0))
assert result.mask.sum() == 100 and result.mask[2, 30:40, 50:60].all()
print(result.volume_ml["total"], "torch" in sys.modules)
"""


def test_a_model_of_another_kind_predicts_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.stdout == "2.0 False\n", done.stderr


def test_what_a_console_shows_is_one_short_line(tiny_run: Path) -> None:
    scan, _ = tiny.head(123)
    slices, rows, columns = scan.shape
    assert repr(scan).startswith(f"<Scan '{scan.name}': {slices} slices of {rows} x {columns} pixels, ")
    model = hemotorch.load_model(tiny_run, "cpu")
    prediction = model.predict(scan)
    assert f"total {prediction.volume_ml['total']:.1f} mL" in repr(prediction)
    for text in (repr(scan), repr(prediction)):
        assert len(text) < 200 and "\n" not in text
    assert "Conv2d" not in repr(model) and "\n" not in repr(model)


def test_a_recipe_is_named_from_python(tiny_prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="unknown recipe 'fats'; did you mean 'fast'"):
        hemotorch.train(tiny_prepared, tmp_path / "a", "fats", device="cpu")
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine.toml").write_text(tiny.recipe("train.epochs=1", "train.steps_per_epoch=1").to_toml())
    run = hemotorch.train(tiny_prepared, tmp_path / "b", tmp_path / "mine.toml", device="cpu")
    assert run.recipe.train.steps_per_epoch == 1
