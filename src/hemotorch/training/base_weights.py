"""The trained network that a training begins with: of a run, a checkpoint or an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hemotorch.errors import InputError
from hemotorch.inference.checkpoint import load_checkpoint
from hemotorch.inference.deployment import Deployment
from hemotorch.inference.load import model_file
from hemotorch.inference.onnx_model import SUFFIX, read_note
from hemotorch.nets import Net


@dataclass(frozen=True)
class BaseNetwork:
    """A trained network.

    name, options: what `hemotorch.nets.build_for` makes it from, without its outputs. deployment: how it is used.
    weights: its state dict. trained_on: digests of the scans it was trained on or chosen by, none if they are unknown.
    """

    name: str
    options: dict[str, Any]
    deployment: Deployment
    weights: dict[str, Any] = field(repr=False)
    trained_on: tuple[str, ...] = ()


def base_network(path: Path | str) -> BaseNetwork:
    """Reads a trained network. Raises InputError if it cannot be read, or if its file keeps no weights to train on."""
    file = model_file(Path(path))
    if file.suffix == SUFFIX:
        from hemotorch.inference.onnx_weights import network_from_onnx

        net, deployment = network_from_onnx(file)
        return BaseNetwork(net.name, _free(net.options), deployment, net.state_dict(), read_note(file).trained_on)
    checkpoint = load_checkpoint(file)
    return BaseNetwork(checkpoint.net, _free(checkpoint.options), checkpoint.deployment, checkpoint.weights)


def load_base(net: Net, path: Path | str) -> None:
    """Gives a new network the weights of a trained one. Raises InputError if they are of another network."""
    base = base_network(path)
    todo = "train it with a recipe of the same net.name, net.options and data.task"
    if (base.name, base.options) != (net.name, _free(net.options)):
        raise InputError(f"is a network '{base.name}' with other options than the recipe's", path, todo)
    try:
        net.load_state_dict(base.weights)
    except RuntimeError as error:
        raise InputError("its weights do not fit the recipe's network", path, todo) from error


def _free(options: dict[str, Any]) -> dict[str, Any]:
    """A network's options without its outputs, which follow from the task."""
    return {key: value for key, value in options.items() if key != "outputs"}
