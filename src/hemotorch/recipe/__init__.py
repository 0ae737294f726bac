"""Recipe: everything a training depends on. Nested frozen dataclasses, read from and written to TOML.

A recipe is named (`fast`, `paper`, ... in `hemotorch/recipe`) or a file. Single values are changed with
`--set section.key=value`. Unknown keys and wrong types are errors that name the nearest key.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tomli_w

from hemotorch.errors import InputError, OptionError, nearest


@dataclass(frozen=True)
class Data:
    """Which slices are trained on."""

    split: str = "patient"  # a named split of the dataset
    #: What the network answers: bleeding or not, or its five types; auto: types if the masks or slice labels of at
    #: least half of the slices with bleeding name them.
    task: Literal["auto", "bleeding", "types"] = "auto"
    validation: bool = True  # False: validation patients are trained on too, and the last epoch is what is scored
    slices: Literal["all", "positive", "positive-and-one-normal"] = "all"
    positive_share: float = 0.0  # share of each batch drawn from slices with bleeding; 0: each item once an epoch
    memory: Literal["auto", "resident", "stream"] = "auto"  # where slices live during training


@dataclass(frozen=True)
class GridSection:
    """The pixels the network works on; see `hemotorch.grid`."""

    pixel_mm: float = 0.0  # 0: the scan's own
    size_px: int = 0  # 0: the whole slice


@dataclass(frozen=True)
class Tiles:
    """Square blocks for training and prediction, the last one flush to the edge; stitched by the mean."""

    size_px: int = 0  # 0: whole slices
    stride_px: int = 0

    def corners(self, height: int, width: int) -> list[tuple[int, int]]:
        """Top-left corners (row, column) of the blocks over an image of that many pixels."""

        def starts(length: int) -> list[int]:
            if length <= self.size_px:
                return [0]
            return [*range(0, length - self.size_px, self.stride_px), length - self.size_px]

        return [(top, left) for top in starts(height) for left in starts(width)]


@dataclass(frozen=True)
class Net:
    """The network, by its name in `hemotorch.nets`, and its builder's own options."""

    name: str = "compact"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Augment:
    """Random changes of a batch; each value is the largest change, drawn evenly on both sides."""

    flip: bool = False  # left and right
    rotate_deg: float = 0.0
    shift: float = 0.0  # share of the image
    shear: float = 0.0  # tangent of the angle
    zoom: float = 0.0  # 0.2: 1 / 1.2 to 1 / 0.8 times
    offset_hu: float = 0.0  # of the whole slice
    gain: float = 0.0  # of HU around 40; 0.1: 0.9 to 1.1 times
    noise_hu: float = 0.0  # largest standard deviation of added noise
    blur: float = 0.0  # share of slices that are blurred or sharpened
    elastic: float = 0.0  # share of the image by which a coarse net of points is moved
    crop_px: int = 0  # side of the square that is cut out, around bleeding where there is some; 0: whole slices


@dataclass(frozen=True)
class Loss:
    """The loss, by its name in `hemotorch.training.losses`, and its own options."""

    name: str = "dice-cross-entropy"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Optimizer:
    """The optimiser and its learning rate over the training."""

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9  # sgd only
    schedule: Literal["constant", "one-cycle"] = "constant"
    warmup: float = 0.0  # share of all steps
    clip_norm: float = 0.0  # 0: gradients are not clipped


@dataclass(frozen=True)
class Train:
    """How long and with what batches."""

    epochs: int = 30
    steps_per_epoch: int = 0  # of the optimiser; 0: as many as show each item once
    batch: int = 8
    accumulate: int = 1  # batches a step
    ema: float = 0.0  # decay of the averaged weights that are validated and kept; 0: the weights themselves
    seed: int = 0
    validate_every: int = 1  # epochs
    best_by: Literal["dice", "jaccard", "last"] = "dice"  # which epoch is kept; "last" needs no validation
    checkpoint_s: float = 120.0  # seconds between checkpoints inside an epoch; results do not depend on it


Switch = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Engine:
    """How it is computed. "auto" is decided in `system.device` from what the machine has; the run records why."""

    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16", "fp64"] = "auto"  # fp64: to compare ways of computing
    channels_last: Switch = "auto"
    compile: Switch = "auto"
    graphs: Switch = "auto"  # CUDA graphs around the whole step
    kernels: Switch = "auto"  # hemotorch's own Triton kernels
    keep_memory: Switch = "auto"  # of freed tensors, for the next ones; a CPU with glibc
    threads: int = 0  # of a CPU, a process; 0: the cores it may use
    sync_batch_norm: bool = False  # several ranks: batch statistics over all of them
    rank_timeout_s: float = 600.0  # after which a rank that does not answer is given up


@dataclass(frozen=True)
class Predict:
    """From probabilities to the mask."""

    threshold: float = 0.5
    closing_px: int = 0  # side of the square, at the scan's own pixels; 0: none
    opening_px: int = 0
    min_ml: float = 0.0  # smaller connected pieces are dropped
    mirror: bool = False  # also predict the mirrored slice, and average


@dataclass(frozen=True)
class Recipe:
    """Everything a training depends on."""

    name: str = "unnamed"
    description: str = ""
    data: Data = field(default_factory=Data)
    grid: GridSection = field(default_factory=GridSection)
    tiles: Tiles = field(default_factory=Tiles)
    net: Net = field(default_factory=Net)
    augment: Augment = field(default_factory=Augment)
    loss: Loss = field(default_factory=Loss)
    optimizer: Optimizer = field(default_factory=Optimizer)
    train: Train = field(default_factory=Train)
    engine: Engine = field(default_factory=Engine)
    predict: Predict = field(default_factory=Predict)

    def __post_init__(self) -> None:
        _check_values(self)

    def to_toml(self) -> str:
        """The whole recipe as TOML text."""
        return tomli_w.dumps(dataclasses.asdict(self))

    def changed(self, settings: Iterable[str]) -> Recipe:
        """The recipe with `section.key=value` settings applied; values are TOML, bare words are strings."""
        values = dataclasses.asdict(self)
        for setting in settings:
            key, equals, text = setting.partition("=")
            path = key.strip().split(".")
            if not equals or len(path) < 2:
                raise OptionError(f"'{setting}' is not section.key=value", "--set", "for example --set train.epochs=10")
            table: Any = values
            for part in path[:-1]:
                if not isinstance(table, dict) or part not in table:
                    raise OptionError(f"unknown recipe key '{key}'", "--set", nearest(part, table))
                table = table[part]
            if not isinstance(table, dict):
                raise OptionError(f"'{key}' is not a table's key", "--set")
            table[path[-1]] = _toml_value(text.strip())
        return recipe_from_dict(values, "--set")


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe by its name (`fast`) or from a TOML file. Raises OptionError, InputError."""
    path = Path(name_or_path)
    if path.suffix == ".toml":
        if path.exists() and not path.is_file():  # reading a pipe or a device may never end
            raise InputError("is a folder, a pipe or a device, not a recipe file", path)
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(MOST_TEXT + 1)
        except FileNotFoundError as error:
            raise InputError("no such recipe file", path) from error
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("the recipe file cannot be read as UTF-8 text", path) from error
        return recipe_from_toml(text, str(path))
    names = known_recipes()
    if str(name_or_path) not in names:
        raise OptionError(
            f"unknown recipe '{name_or_path}'", todo=f"{nearest(str(name_or_path), names)} or a .toml file"
        )
    text = resources.files("hemotorch").joinpath("recipe", f"{name_or_path}.toml").read_text(encoding="utf-8")
    return recipe_from_toml(text, f"recipe {name_or_path}")


def recipe_from_args(name: str | None, settings: Iterable[str], fold: int | None, resume: bool) -> Recipe | None:
    """The recipe that a command's --recipe, --set and --fold ask for; None where a run is to go on with its own."""
    changes = [*settings, *([f"data.split='fold-{fold}'"] if fold is not None else [])]
    return None if resume and not (name or changes) else load_recipe(name or "fast").changed(changes)


def known_recipes() -> list[str]:
    """Names of the recipes that come with hemotorch."""
    folder = resources.files("hemotorch").joinpath("recipe")
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def recipe_from_toml(text: str, where: str) -> Recipe:
    """A recipe from TOML text; `where` names it in errors."""
    try:
        values = _toml(text)
    except (RecursionError, _TooLarge) as error:
        raise InputError("is not a recipe: it is too long, or its tables are too deep in each other", where) from error
    except ValueError as error:  # TOMLDecodeError, or a number of more than 4,300 digits
        raise InputError(f"is not valid TOML ({error})", where) from error
    return recipe_from_dict(values, where)


def recipe_from_dict(values: dict[str, Any], where: str) -> Recipe:
    """A recipe from nested dictionaries. Raises OptionError for unknown keys and wrong types."""
    return _build(Recipe, values, where, "")


def _build(cls: Any, values: dict[str, Any], where: str, prefix: str) -> Any:
    hints = get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            word = str(key)[:SHOWN]
            raise OptionError(f"unknown recipe key {_shown(prefix + word)}", where, nearest(word, hints))
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, dict):
                raise OptionError(f"'{prefix}{key}' is a table, not {_shown(value)}", where)
            arguments[key] = _build(hint, value, where, f"{prefix}{key}.")
        else:
            arguments[key] = _typed(value, hint, f"{prefix}{key}", where)
    return cls(**arguments)


def _typed(value: Any, hint: Any, key: str, where: str) -> Any:
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if value not in choices:
            raise OptionError(f"'{key}' is one of {', '.join(map(str, choices))}, not {_shown(value)}", where)
        return value
    kind = get_origin(hint) or hint
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 10**300 else float("inf")  # which no field allows
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise OptionError(f"'{key}' is a {kind.__name__}, not {_shown(value)}", where)
    return value


SHOWN = 60  #: characters of a value in an error


def _shown(value: Any) -> str:
    """A value for an error's one line, however long it is."""
    if isinstance(value, int) and abs(value) > 10**SHOWN:
        return f"a number of {value.bit_length()} bits"
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _toml_value(text: str) -> Any:
    try:
        return _toml(f"value = {text}")["value"]
    except (RecursionError, _TooLarge) as error:
        raise OptionError(f"'{text[:20]}...' is too long or too deep for a value", "--set") from error
    except ValueError:
        return text


MOST_TEXT = 100_000  #: characters of a recipe file; those that come with hemotorch have about 1,000
#: Dots of a line. A key of 100,000 parts (a.a.a...) takes Python's TOML reader tens of GB.
MOST_DOTS = 200


class _TooLarge(Exception):
    """TOML that is too large for a recipe."""


def _toml(text: str) -> dict[str, Any]:
    """Raises TOMLDecodeError or another ValueError, RecursionError, _TooLarge."""
    if len(text) > MOST_TEXT or any(line.count(".") > MOST_DOTS for line in text.splitlines()):
        raise _TooLarge
    return tomllib.loads(text)


_AT_LEAST_ONE = ("train.epochs", "train.batch", "train.accumulate", "train.validate_every")
_SHARES = (
    *("data.positive_share", "train.ema", "optimizer.warmup", "optimizer.momentum", "predict.threshold"),
    *("augment.blur", "augment.zoom", "augment.shift", "augment.shear", "augment.elastic"),
)
_AT_MOST = {"grid.size_px": 4096, "tiles.size_px": 4096, "augment.crop_px": 4096, "predict.closing_px": 99,
            "predict.opening_px": 99, "grid.pixel_mm": 20, "augment.rotate_deg": 180, "engine.threads": 4096,
            "train.batch": 2**20, "train.accumulate": 10**5, "train.steps_per_epoch": 10**7, "train.epochs": 10**6,
            "optimizer.lr": 10**6, "engine.rank_timeout_s": 10**7, "optimizer.weight_decay": 10**6,
            "optimizer.clip_norm": 10**9, "train.seed": 2**63 - 1, "train.validate_every": 10**6,
            "train.checkpoint_s": 10**9, "augment.offset_hu": 10**4, "augment.gain": 100, "augment.noise_hu": 10**4,
            "predict.min_ml": 10**6}  # fmt: skip
MOST_TILES = 32  #: along one side of a tile that overlap one pixel: 1,024 predictions of each
SMALLEST_PIXEL_MM = 0.05


def _check_values(recipe: Recipe) -> None:
    def value(key: str) -> Any:
        section, name = key.split(".")
        return getattr(getattr(recipe, section), name)

    for key in _AT_LEAST_ONE:
        if value(key) < 1:
            raise OptionError(f"must be at least 1, not {_shown(value(key))}", key)
    for key in _SHARES:
        if not 0 <= value(key) <= 1:
            raise OptionError(f"must be from 0 to 1, not {value(key)}", key)
    for key, most in _AT_MOST.items():
        if value(key) > most:
            raise OptionError(f"must be at most {most}, not {_shown(value(key))}", key)
    if 0 < value("grid.pixel_mm") < SMALLEST_PIXEL_MM:
        raise OptionError(f"must be at least {SMALLEST_PIXEL_MM} mm, or 0", "grid.pixel_mm")
    for key in ("train.ema", "augment.zoom"):
        if value(key) == 1:
            raise OptionError("must be below 1", key)
    if recipe.engine.rank_timeout_s < 1:
        raise OptionError("must be at least 1", "engine.rank_timeout_s")
    if not recipe.optimizer.lr > 0:
        raise OptionError(f"must be above 0, not {recipe.optimizer.lr}", "optimizer.lr")
    for section in ("data", "augment", "grid", "tiles", "optimizer", "train", "engine", "predict"):
        for name, number in dataclasses.asdict(getattr(recipe, section)).items():
            if isinstance(number, (int, float)) and not 0 <= number < float("inf"):
                raise OptionError(f"must be a number that is not negative, not {_shown(number)}", f"{section}.{name}")
    tiles = recipe.tiles
    if tiles.size_px and not 0 < tiles.stride_px <= tiles.size_px:
        raise OptionError(f"must be from 1 to tiles.size_px ({tiles.size_px})", "tiles.stride_px")
    if tiles.size_px > MOST_TILES * max(1, tiles.stride_px):
        least = -(-tiles.size_px // MOST_TILES)
        raise OptionError(f"must be at least {least} with tiles of {tiles.size_px} pixels", "tiles.stride_px")
