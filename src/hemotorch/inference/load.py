"""The way in for Python: load a model, predict a scan. torch is imported if a run is loaded, and not for ONNX files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemotorch.errors import InputError, OptionError
from hemotorch.inference import box
from hemotorch.inference.deployment import Deployment
from hemotorch.inference.model import Ensemble, Model
from hemotorch.inference.onnx_model import SUFFIX, load_onnx
from hemotorch.inference.predictor import Predictor
from hemotorch.inference.seen import Seen
from hemotorch.io import read_scan
from hemotorch.scan import Prediction, Scan
from hemotorch.system.extras import missing_extra
from hemotorch.system.files import file_digest

if TYPE_CHECKING:
    from hemotorch.inference.torch_model import TorchModel
    from hemotorch.system.device import Device
    from hemotorch.system.engine import WantedPrecision

ModelPath = Path | str


def load_model(model: ModelPath | Sequence[ModelPath] | None = None, device: str = "auto") -> Predictor:
    """Loads a trained network, or several as one, ready to predict.

    Args:
        model: None, the model that comes with hemotorch; the name of one (`hemotorch models` lists them); a run folder
            of `hemotorch train`, whose best checkpoint is taken; a checkpoint file; or an ONNX file of `hemotorch
            export`. Of several, such as the folds of one dataset, the probabilities are averaged; they must be of one
            task, on one grid.
        device: "auto", "cpu", "cuda" or "cuda:N". ONNX files run on the CPU.

    Returns:
        A predictor; `.predict(scan)` outlines the bleeding in a scan.

    Raises:
        InputError: if a model is missing, damaged, or not one of hemotorch, or if several do not go together.
        OptionError: if the device does not exist.
        RunError: if a run is named and torch is not installed.
    """
    if model is None:
        model = box.model_file()
    paths = [box.named(path) for path in ([model] if isinstance(model, (str, Path)) else model)]
    if not paths:
        raise InputError("no model is named", todo="name a run folder, a checkpoint or an ONNX file")
    loaded = [_load(Path(path), device) for path in paths]
    deployments = [deployment for _, deployment in loaded]
    for path, deployment in zip(paths[1:], deployments[1:], strict=True):
        _check_alike(paths[0], deployments[0], path, deployment)
    models: list[Model] = [model for model, _ in loaded]
    if len(models) == 1:
        return Predictor(models[0], deployments[0], _digest(paths[0]))
    digest = hashlib.sha256("".join(_digest(path) for path in paths).encode()).hexdigest()
    name = f"{len(models)} networks: {'; '.join(deployment.model for deployment in deployments)}"
    seen = Seen.by_all([deployment.seen for deployment in deployments])
    together = replace(deployments[0], model=name, slice_spacing=None, seen=seen)
    return Predictor(Ensemble(tuple(models)), together, digest)


def predict(
    model: Predictor | ModelPath | Sequence[ModelPath] | Scan | None = None,
    scan: Scan | Path | str | None = None,
    *,
    device: str = "auto",
    any_anatomy: bool = False,
) -> Prediction:
    """Outlines the bleeding in one scan.

        >>> result = hemotorch.predict("scan.nii.gz")         # by the model that comes with hemotorch
        >>> result = hemotorch.predict("run", "scan.nii.gz")  # by your own
        >>> result.volume_ml["total"], result.slices_with_bleeding, result.mask.shape

    A network that was trained on typed data also says of which type the bleeding is: the mask then holds the types'
    codes (1 epidural, 2 intraparenchymal, 3 intraventricular, 4 subarachnoid, 5 subdural), and `volume_ml` has one
    entry per type beside "total".

    Research use only, not a medical device.

    Args:
        model: A run folder, a checkpoint, an ONNX file, several of them (their probabilities are averaged), what
            `load_model` returned (load once to predict many scans), or None: the model that comes with hemotorch. If
            only one argument is given, it is the scan.
        scan: A NIfTI or NRRD file in Hounsfield units, a DICOM file, folder or zip of one study, or a `Scan`.
        device: "auto", "cpu", "cuda" or "cuda:N"; not looked at if the model is loaded already.
        any_anatomy: Also predict what does not look like a head.

    Returns:
        The mask (slices, rows, columns) and the probability of bleeding in the scan's own pixels, mL, warnings, and
        `doubts`: what speaks against it, each with a code, a sentence and a number.

    Raises:
        InputError: if the model or the scan cannot be read, or the scan does not look like a head CT in HU.
        OptionError: if no scan is named.
    """
    if scan is None and isinstance(model, (Scan, Path, str)):
        model, scan = None, model
    if scan is None or isinstance(model, Scan):
        raise OptionError("no scan is named", "scan", "predict(scan), or predict(model, scan)")
    predictor = model if isinstance(model, Predictor) else load_model(model, device)
    volume = read_scan(scan) if isinstance(scan, (str, Path)) else scan
    return predictor.predict(volume, any_anatomy, doubts=True)


def _load(path: Path, device: str) -> tuple[Model, Deployment]:
    """A model file, or a run's best checkpoint, on the device, and how it is used."""
    if path.suffix == SUFFIX:
        return load_onnx(path, device)
    try:
        return _load_checkpoint(path, device)
    except ImportError as error:
        missing = missing_extra(error, f"predicting with {path}")
        if missing is None:
            raise
        missing.todo = f"{missing.todo}, or export the run to ONNX where it is installed (`hemotorch export`)"
        raise missing from error


def model_file(path: Path) -> Path:
    """The file that a model is read from: a run's best checkpoint, or the file itself."""
    if not path.is_dir():
        return path
    from hemotorch.run import BEST  # needs more than the core, which ONNX files do without

    return path / BEST


def _digest(path: ModelPath) -> str:
    """The SHA-256 of a model's file."""
    return file_digest(model_file(Path(path)))


def _load_checkpoint(path: Path, device: str) -> tuple[TorchModel, Deployment]:
    """A run's best checkpoint, or a checkpoint file."""
    from hemotorch import nets
    from hemotorch.inference.checkpoint import load_checkpoint
    from hemotorch.inference.torch_model import TorchModel

    file = model_file(path)
    checkpoint = load_checkpoint(file)
    deployment = checkpoint.deployment
    torch_device = _device_for(device, deployment.precision)
    torch_device.use()
    net = nets.build(checkpoint.net, **checkpoint.options)
    todo = "was it altered? train again"
    try:
        net.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        raise InputError("its weights do not fit its network", file, todo) from error
    if net.outputs != len(deployment.task.channels):
        raise InputError(f"its network has {net.outputs} outputs, not those of its task", file, todo)
    return TorchModel.of(torch_device.put(net).eval(), torch_device, deployment), deployment


def _device_for(device: str, precision: WantedPrecision) -> Device:
    """The device, computing as the training validated, if it can."""
    from hemotorch.errors import OptionError
    from hemotorch.recipe import Engine
    from hemotorch.system.device import choose

    try:
        return choose(device, Engine(precision=precision))
    except OptionError:
        return choose(device)


def _check_alike(first: ModelPath, ours: Deployment, other: ModelPath, theirs: Deployment) -> None:
    """Raises InputError if the probabilities of two models cannot be averaged, or are not used alike."""
    todo = "predict with each of them alone"
    if ours.task != theirs.task:
        what = f"answers the task '{theirs.task.name}', {first} the task '{ours.task.name}'"
        raise InputError(what, other, todo)
    our_keys, their_keys = _keys(ours), _keys(theirs)
    for key, value in our_keys.items():
        if their_keys[key] != value:
            raise InputError(f"has {key} = {their_keys[key]}, {first} has {value}", other, todo)


def _keys(deployment: Deployment) -> dict[str, Any]:
    """What models that are averaged have in common, by the recipe's keys."""
    keys: dict[str, Any] = {"engine.precision": deployment.precision}
    for section in ("grid", "tiles", "predict"):
        for key, value in asdict(getattr(deployment, section)).items():
            keys[f"{section}.{key}"] = value
    return keys
