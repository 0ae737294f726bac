"""The way in for Python: load a model, predict a scan. torch is imported when a model is loaded, not before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hemotorch.io import read_scan
from hemotorch.scan import Prediction, Scan

if TYPE_CHECKING:
    from hemotorch.inference.predictor import Predictor


def load_model(path: Path | str, device: str = "auto") -> Predictor:
    """Loads a trained network, ready to predict.

    Args:
        path: A run folder of `hemotorch train`, whose best checkpoint is taken, or a checkpoint file.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        A predictor; `.predict(scan)` outlines the bleeding in a scan.

    Raises:
        InputError: if the checkpoint is missing, damaged, or not one of hemotorch.
        OptionError: if the device does not exist.
    """
    from hemotorch.inference.predictor import Predictor

    return Predictor.load(path, device)


def predict(
    model: Predictor | Path | str, scan: Scan | Path | str, *, device: str = "auto", any_anatomy: bool = False
) -> Prediction:
    """Outlines the bleeding in one scan.

        >>> found = hemotorch.predict("run", "scan.nii.gz")
        >>> found.volume_ml["total"], found.slices_with_bleeding, found.mask.shape

    Research use only, not a medical device.

    Args:
        model: A run folder, a checkpoint file, or what `load_model` returned (load once to predict many scans).
        scan: A NIfTI file in Hounsfield units, or a `Scan`.
        device: "auto", "cpu", "cuda" or "cuda:N"; not looked at if the model is loaded already.
        any_anatomy: Also predict what does not look like a head.

    Returns:
        The mask (slices, rows, columns) and the probabilities in the scan's own pixels, the volume in mL, and warnings.

    Raises:
        InputError: if the model or the scan cannot be read, or the scan does not look like a head CT in HU.
    """
    predictor = load_model(model, device) if isinstance(model, (str, Path)) else model
    volume = read_scan(scan) if isinstance(scan, (str, Path)) else scan
    return predictor.predict(volume, any_anatomy)
