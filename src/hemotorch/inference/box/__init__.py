"""The models in the box: networks that come with hemotorch, so that `predict` works without a training.

Each is an ONNX file with a card beside it, NAME.onnx and NAME.json in this folder. The card says what the network was
trained on, what was measured and where its limits are. `make model` makes both anew.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from pydantic import Field

from hemotorch import NOTICE
from hemotorch.errors import InputError, nearest, one_line
from hemotorch.system import records
from hemotorch.system.doctor import Check
from hemotorch.system.files import file_digest
from hemotorch.system.records import record

DEFAULT = "default"  #: the model that `predict` takes if none is named
_REINSTALL = "install hemotorch again"
_MAKE = "install a release of hemotorch, make it with `make model`, or name a model with --model"


@record
class TrainingData:
    """What a model was trained on, of one source."""

    source: str = Field(description="where it comes from")
    licence: str = Field(description="of the source")
    scans: int = Field(ge=0, description="how many")
    patients: int = Field(ge=0, description="of how many patients, real or synthetic")
    synthetic: str = Field(description="what of it is synthetic")


@record
class Measured:
    """One figure of a model, and how it was measured."""

    what: str = Field(description="what was measured, on what")
    value: str = Field(description="the figure, with its unit and 95 % interval if there is one")
    command: str = Field(description="the command that gives it")
    seen: bool = Field(description="whether the network was trained on that head or that generator's settings")


@record
class Card:
    """What the makers of a model say about it."""

    name: str = Field(description="that commands call it")
    title: str = Field(description="what it is, in a line")
    sha256: str = Field(description="of its ONNX file")
    megabytes: float = Field(gt=0, description="of its ONNX file")
    made_with: str = Field(description="the command that makes it anew")
    recipe: str = Field(description="the recipe that it was trained with")
    hemotorch: str = Field(description="version that trained it")
    answers: tuple[str, ...] = Field(description="names of its outputs")
    data: tuple[TrainingData, ...] = Field(description="what it was trained on")
    measured: tuple[Measured, ...] = Field(description="what was measured")
    limits: tuple[str, ...] = Field(description="what it is not to be trusted with")
    notice: str = NOTICE

    def lines(self) -> list[str]:
        """The card as text."""
        lines = [f"{self.name}: {self.title}", f"  {self.megabytes:.1f} MB, sha256 {self.sha256}"]
        lines += [f"  answers: {', '.join(self.answers)}", f"  made with: {self.made_with}", "  trained on:"]
        for data in self.data:
            text = f"{data.scans} scans of {data.patients} patients, {data.source} ({data.licence}): {data.synthetic}"
            lines.append(f"    {text}")
        lines.append("  measured:")
        for figure in self.measured:
            seen = "   (trained on it)" if figure.seen else ""
            lines.append(f"    {figure.what}: {figure.value}{seen}")
        lines.append("  limits:")
        lines += [f"    {limit}" for limit in self.limits]
        return [*lines, f"  {self.notice}"]

    def markdown(self) -> str:
        """The card as a page of the docs."""
        rows = []
        for data in self.data:
            rows.append(f"| {data.source} | {data.licence} | {data.scans} | {data.patients} | {data.synthetic} |")
        figures = []
        for figure in self.measured:
            seen = "yes" if figure.seen else "no"
            figures.append(f"| {figure.what} | {figure.value} | {seen} | `{figure.command}` |")
        return "\n".join(
            [
                f"{self.title}. {self.megabytes:.1f} MB, sha256 `{self.sha256}`.",
                "",
                f"It answers: {', '.join(self.answers)}. It was trained with the recipe `{self.recipe}` by hemotorch "
                f"{self.hemotorch}; `{self.made_with}` makes it anew.",
                "",
                "| trained on | licence | scans | patients | synthetic |",
                "| --- | --- | --- | --- | --- |",
                *rows,
                "",
                "| measured | figure | was it trained on this? | command |",
                "| --- | --- | --- | --- |",
                *figures,
                "",
                *(f"- {limit}" for limit in self.limits),
                "",
                f"**{self.notice}**",
            ]
        )


def names() -> tuple[str, ...]:
    """Names of the models that are there, the default one first."""
    found = {path.name.removesuffix(".json") for path in _folder().glob("*.json")}
    return tuple(sorted(found, key=lambda name: (name != DEFAULT, name)))


def card(name: str = DEFAULT) -> Card:
    """The card of a model in the box. Raises InputError if it is not there, or damaged."""
    _check_there(name)
    return records.read(_folder() / f"{name}.json", Card, _REINSTALL)


@cache
def model_file(name: str = DEFAULT) -> Path:
    """The ONNX file of a model in the box.

    Raises:
        InputError: if it is not there, or is not the file that its card was written for.
    """
    path = _folder() / f"{name}.onnx"
    expected = card(name).sha256
    if not path.is_file():
        raise InputError("is missing", path, _REINSTALL)
    if file_digest(path) != expected:
        raise InputError("is not the file that its card was written for: damaged, or exchanged", path, _REINSTALL)
    return path


def named(model: Path | str) -> Path:
    """The file of the model in the box that has this name; a path as it is.

    A file or folder of that name comes first: a user's own run may be called "default".
    """
    text = str(model)
    if text in names() and not Path(text).exists():
        return model_file(text)
    return Path(model)


def described(model: Path | str) -> str:
    """Which model that is, in words: one in the box by its name, another by its path."""
    path = named(model)
    return f"the model in the box, {path.stem}" if path.parent == _folder() else one_line(str(path))


def check() -> Check:
    """Whether the model in the box is there and whole, for `hemotorch doctor`. None at all is not amiss: `make` it."""
    if DEFAULT not in names():
        return Check("model in the box", False, False, "none", _MAKE)
    try:
        model_file()
        found = f"{DEFAULT}, {card().megabytes:.1f} MB, sha256 {card().sha256}"
    except InputError as error:
        return Check("model in the box", False, True, str(error), _REINSTALL)
    return Check("model in the box", True, True, found)


def _folder() -> Path:
    return Path(str(files("hemotorch.inference.box")))


def _check_there(name: str) -> None:
    known = names()
    if name in known:
        return
    if not known:
        raise InputError("hemotorch was installed without a model in its box", todo=_MAKE)
    raise InputError(f"there is no model '{name}' in the box", todo=nearest(name, known))
