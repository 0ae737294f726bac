"""Checkpoint: the weights of a network and all that predicting with it needs, as one file."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hemotorch.errors import InputError, RunError
from hemotorch.grid import SliceSpacing
from hemotorch.inference.deployment import DAMAGED_ADVICE, Deployment
from hemotorch.recipe import recipe_from_dict
from hemotorch.system import limits, tensor_file
from hemotorch.system.files import atomic, regular_file
from hemotorch.system.records import build
from hemotorch.task import BLEEDING

FORMAT = 7  #: of checkpoints; a change that older versions cannot read raises it. 6 does not say what was seen
OLDEST_FORMAT = 4  #: that is still read. Formats 4 and 5 hold the whole recipe; 4 has no slice spacing
PIECE = 2**20  #: numbers of a tensor that are hashed at once
#: Types of the values in a file of any format.
VALUE_TYPES = {"net": str, "options": dict, "weights": dict, "epoch": int, "step": int, "trainer": dict}


@dataclass(frozen=True)
class Checkpoint:
    """What best.pt holds, and last.pt besides `trainer`.

    net, options: what `hemotorch.nets.build` makes the network from.
    weights: its state dict.
    deployment: how it is used.
    epoch, step: of the training, when it was written.
    score: the validation value it was kept for.
    trainer: the loop's state, in last.pt only.
    """

    net: str
    options: dict[str, Any]
    weights: dict[str, Any]
    deployment: Deployment
    epoch: int
    step: int
    score: float | None = None
    trainer: dict[str, Any] = dataclasses.field(default_factory=dict)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Writes a checkpoint whole or not at all. Raises RunError if the disk is full."""
    values = {field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}
    write_values({**values, "deployment": checkpoint.deployment.to_values(), "format": FORMAT}, path)


def write_values(values: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint's values, and their digest, whole or not at all."""
    buffer = io.BytesIO()
    torch.save({**values, "digest": _digest(values)}, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def _digest(value: Any) -> str:
    """Of everything in a checkpoint: what torch.load gives back from a damaged archive need not raise an error."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, dict):
            for key in sorted(value, key=str):
                digest.update(f"{key}:".encode())
                add(value[key])
        elif isinstance(value, (list, tuple)):
            digest.update(f"[{len(value)}".encode())
            for entry in value:
                add(entry)
        elif isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            for part in _parts(value.detach().cpu()):
                digest.update(part.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(repr(value).encode())

    add(value)
    return digest.hexdigest()


def _parts(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """The tensor in pieces along its first axis, so that one stored in another order is never copied as a whole."""
    if tensor.is_contiguous() or not tensor.numel():
        return [tensor]
    return tensor.split(max(1, PIECE * len(tensor) // tensor.numel()))


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Reads a checkpoint, its digest verified and no code in it run. Raises InputError."""
    path = Path(path)
    values = _read_values(path)
    if values["format"] < 6:
        _check_values(values, {**VALUE_TYPES, "recipe": dict}, path)
        deployment = _deployment_of_recipe(values, path)
    else:
        _check_values(values, {**VALUE_TYPES, "deployment": dict}, path)
        deployment = Deployment.from_values(values["deployment"], path)
    return Checkpoint(
        net=values["net"],
        options=values["options"],
        weights=values["weights"],
        deployment=deployment,
        epoch=values["epoch"],
        step=values["step"],
        score=values.get("score"),
        trainer=values["trainer"],
    )


def _read_values(path: Path) -> dict[str, Any]:
    """What a checkpoint's file holds, in a format that is read and with the digest that it should have."""
    if not path.exists():
        todo = "name a run folder of `hemotorch train`, or a checkpoint file"
        if (path.parent / "run.json").exists():
            todo = "has this training finished its first epoch?"
        raise InputError("no such checkpoint", path, todo)
    regular_file(path, "checkpoint")
    try:
        values = tensor_file.read(path, limits.max_unpacked())
    except tensor_file.TensorFileError as error:
        raise InputError(str(error), path, DAMAGED_ADVICE) from error
    except (OSError, MemoryError) as error:  # the disk's or the machine's fault, not the file's
        raise RunError(f"cannot be read ({error})", path) from error
    if not isinstance(values, dict) or not {"net", "weights", "format"} <= values.keys():
        raise InputError("is not a hemotorch checkpoint", path, DAMAGED_ADVICE)
    _check_format(values["format"], path)
    if values.pop("digest", None) != _digest(values):
        raise InputError("is damaged or was altered (its digest is wrong)", path, DAMAGED_ADVICE)
    return values


def _deployment_of_recipe(values: dict[str, Any], path: Path) -> Deployment:
    """What formats 4 and 5 say of how their network is used. They knew one task only."""
    recipe = recipe_from_dict(values["recipe"], str(path))
    slice_spacing = None
    if values.get("slice_spacing") is not None:
        slice_spacing = build(SliceSpacing, values["slice_spacing"], path, DAMAGED_ADVICE)
    return Deployment.of(recipe, BLEEDING, slice_spacing, values["epoch"])


def _check_values(values: dict[str, Any], types: dict[str, type], path: Path) -> None:
    """Raises InputError if a checkpoint's values are not of the types that were written."""
    known = {*types, "score", "format", "slice_spacing"}
    good = types.keys() <= values.keys() <= known
    good = good and all(isinstance(values[name], kind) for name, kind in types.items())
    good = good and values["epoch"] >= 0 and values["step"] >= 0
    good = good and isinstance(values.get("score"), (float, int, type(None)))
    tables = [name for name, kind in types.items() if kind is dict and name != "trainer"]
    good = good and all(isinstance(key, str) for name in tables for key in values[name])
    good = good and all(isinstance(weight, torch.Tensor) for weight in values["weights"].values())
    if not good:
        raise InputError("is damaged or was altered (its values are of other types)", path, DAMAGED_ADVICE)


def _check_format(format_number: Any, where: Path) -> None:
    if isinstance(format_number, int) and OLDEST_FORMAT <= format_number <= FORMAT:
        return
    older = isinstance(format_number, int) and format_number < FORMAT
    todo = "train again" if older else "update hemotorch"
    raise InputError(f"was written in format {format_number}; this hemotorch reads format {FORMAT}", where, todo)
