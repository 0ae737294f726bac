"""What `import hemotorch` offers, and that it costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import hemotorch
import tiny
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
