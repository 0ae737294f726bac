"""The sections of a recipe. Type, default, bounds, unit and help of every key stand at its field."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field

from hemotorch.errors import InputError, OptionError, nearest
from hemotorch.system.engine import Engine
from hemotorch.system.records import (
    DEGREES,
    HU,
    ML,
    MM,
    PIXELS,
    SECONDS,
    TooLarge,
    Values,
    build,
    record,
    to_toml,
    toml_values,
)

MOST_PX = 4096  #: of a side that is worked on
MOST_TILES = 32  #: along one side of a tile that overlap one pixel: 1,024 predictions of each
SMALLEST_PIXEL_MM = 0.05


@record
class Data:
    """Which slices are trained on, and for what."""

    split: str = Field(
        default="patient",
        description="name of the dataset's split; all: every scan is trained on, and none is left to score",
    )
    task: Literal["auto", "bleeding", "types"] = Field(
        default="auto",
        description="what the network answers: bleeding or not, or its five types; auto: types if the masks or slice "
        "labels of at least half of the slices with bleeding name them",
    )
    validation: bool = Field(
        default=True, description="false: validation patients are trained on too, and the last epoch is what is scored"
    )
    slices: Literal["all", "positive", "positive-and-one-normal"] = Field(
        default="all", description="which slices are trained on; positive: those with bleeding"
    )
    positive_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of each batch that is sampled from slices with bleeding; 0: each item once per epoch",
    )
    memory: Literal["auto", "resident", "stream"] = Field(
        default="auto", description="where slices live during training"
    )


@record
class GridSection:
    """The pixels that the network works on; see `hemotorch.grid`."""

    pixel_mm: float = Field(
        default=0.0, ge=0, le=20, description="edge of a pixel; 0: the scan's own", json_schema_extra=MM
    )
    size_px: int = Field(
        default=0,
        ge=0,
        le=MOST_PX,
        description="side of the square around the head; 0: the whole slice",
        json_schema_extra=PIXELS,
    )

    def __post_init__(self) -> None:
        if 0 < self.pixel_mm < SMALLEST_PIXEL_MM:
            raise OptionError(f"must be at least {SMALLEST_PIXEL_MM} mm, or 0", "grid.pixel_mm")


@record
class Tiles:
    """Square blocks for training and prediction, the last one flush to the edge; stitched by the mean."""

    size_px: int = Field(
        default=0, ge=0, le=MOST_PX, description="side of a block; 0: whole slices", json_schema_extra=PIXELS
    )
    stride_px: int = Field(default=0, ge=0, description="from one block to the next", json_schema_extra=PIXELS)

    def __post_init__(self) -> None:
        if self.size_px and not 0 < self.stride_px <= self.size_px:
            raise OptionError(f"must be from 1 to tiles.size_px ({self.size_px})", "tiles.stride_px")
        least = -(-self.size_px // MOST_TILES)
        if self.stride_px < least:
            raise OptionError(f"must be at least {least} with tiles of {self.size_px} pixels", "tiles.stride_px")


@record
class NetSection:
    """The network, by its name in `hemotorch.nets`, and its builder's own options."""

    name: str = Field(default="compact", description="one of `hemotorch.nets`")
    options: dict[str, Any] = Field(default_factory=dict, description="the network's own")


@record
class Augment:
    """Random changes of a batch; each value is the largest change, sampled evenly on both sides."""

    flip: bool = Field(default=False, description="left and right")
    rotate_deg: float = Field(default=0.0, ge=0, le=180, description="rotation", json_schema_extra=DEGREES)
    shift: float = Field(default=0.0, ge=0, le=1, description="share of the image")
    shear: float = Field(default=0.0, ge=0, le=1, description="tangent of the angle")
    zoom: float = Field(default=0.0, ge=0, lt=1, description="0.2: 1 / 1.2 to 1 / 0.8 times")
    offset_hu: float = Field(default=0.0, ge=0, le=10**4, description="added to the whole slice", json_schema_extra=HU)
    gain: float = Field(default=0.0, ge=0, le=100, description="of HU around 40; 0.1: 0.9 to 1.1 times")
    noise_hu: float = Field(
        default=0.0, ge=0, le=10**4, description="largest standard deviation of added noise", json_schema_extra=HU
    )
    blur: float = Field(default=0.0, ge=0, le=1, description="share of slices that are blurred or sharpened")
    elastic: float = Field(
        default=0.0, ge=0, le=1, description="share of the image by which a coarse net of points is moved"
    )
    crop_px: int = Field(
        default=0,
        ge=0,
        le=MOST_PX,
        description="side of the square that is cut out, around bleeding if there is some; 0: whole slices",
        json_schema_extra=PIXELS,
    )
    shading_hu: float = Field(
        default=0.0,
        ge=0,
        le=10**4,
        description="amplitude of a smooth random field added to soft tissue, as a scanner's shading",
        json_schema_extra=HU,
    )


@record
class LossSection:
    """The loss, by its name in `hemotorch.training.losses`, and its own options."""

    name: str = Field(default="dice-cross-entropy", description="one of `hemotorch.training.losses`")
    options: dict[str, Any] = Field(default_factory=dict, description="the loss's own")


@record
class Optimizer:
    """The optimiser and its learning rate over the training."""

    name: Literal["adam", "adamw", "sgd"] = Field(default="adamw", description="the optimiser")
    lr: float = Field(default=1e-3, gt=0, le=10**6, description="learning rate, at its peak")
    weight_decay: float = Field(default=0.0, ge=0, le=10**6, description="of adamw decoupled from the gradient")
    momentum: float = Field(default=0.9, ge=0, le=1, description="of sgd only")
    schedule: Literal["constant", "one-cycle"] = Field(default="constant", description="of the learning rate")
    warmup: float = Field(default=0.0, ge=0, le=1, description="share of all steps")
    clip_norm: float = Field(default=0.0, ge=0, le=10**9, description="longest gradient; 0: not clipped")


@record
class Train:
    """How long and with what batches."""

    epochs: int = Field(default=30, ge=1, le=10**6, description="how long it trains")
    steps_per_epoch: int = Field(
        default=0, ge=0, le=10**7, description="steps of the optimiser; 0: as many as show each item once"
    )
    batch: int = Field(default=8, ge=1, le=2**20, description="slices, or blocks of slices")
    accumulate: int = Field(default=1, ge=1, le=10**5, description="batches per step")
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay of the averaged weights that are validated and deployed; 0: the weights themselves",
    )
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="of first weights, order and augmentation")
    validate_every: int = Field(default=1, ge=1, le=10**6, description="epochs from one validation to the next")
    best_by: Literal["dice", "jaccard", "last"] = Field(
        default="dice", description="which epoch is deployed; last needs no validation"
    )
    checkpoint_s: float = Field(
        default=120.0,
        ge=0,
        le=10**9,
        description="between checkpoints inside an epoch; results do not depend on it",
        json_schema_extra=SECONDS,
    )


@record
class Predict:
    """From probabilities to the mask."""

    threshold: float = Field(default=0.5, ge=0, le=1, description="probability from which a pixel is bleeding")
    closing_px: int = Field(
        default=0,
        ge=0,
        le=99,
        description="side of the square, at the scan's own pixels; 0: none",
        json_schema_extra=PIXELS,
    )
    opening_px: int = Field(
        default=0, ge=0, le=99, description="side of the square, after closing; 0: none", json_schema_extra=PIXELS
    )
    min_ml: float = Field(
        default=0.0, ge=0, le=10**6, description="smaller connected pieces are dropped", json_schema_extra=ML
    )
    mirror: bool = Field(default=False, description="also predict the mirrored slice, and average")


@record
class Recipe:
    """Everything a training depends on."""

    name: str = Field(default="unnamed", description="what the run is called")
    description: str = Field(default="", description="where it comes from")
    data: Data = Data()
    grid: GridSection = GridSection()
    tiles: Tiles = Tiles()
    net: NetSection = NetSection()
    augment: Augment = Augment()
    loss: LossSection = LossSection()
    optimizer: Optimizer = Optimizer()
    train: Train = Train()
    engine: Engine = Engine()
    predict: Predict = Predict()

    def to_toml(self) -> str:
        """The whole recipe as TOML text."""
        return to_toml(self)

    def changed(self, settings: Iterable[str]) -> Recipe:
        """The recipe with `section.key=value` settings applied; values are TOML, bare words are strings.

        Raises:
            OptionError: if a setting is none, its key is unknown, or its value is of another type or out of bounds.
        """
        values = dataclasses.asdict(self)
        for setting in settings:
            key, equals, text = setting.partition("=")
            path = key.strip().split(".")
            if not equals or len(path) < 2:
                raise OptionError(f"'{setting}' is not section.key=value", "--set", "for example --set train.epochs=10")
            table = _table(values, path[:-1], key)
            table[path[-1]] = _value(text.strip())
        return build(Recipe, values, "--set", by_hand=True)


def _table(values: Values, path: list[str], key: str) -> Values:
    """The table at a path of keys. Raises OptionError."""
    table: Any = values
    for part in path:
        if not isinstance(table, dict) or part not in table:
            raise OptionError(f"unknown recipe key '{key}'", "--set", nearest(part, table))
        table = table[part]
    if not isinstance(table, dict):
        raise OptionError(f"'{key}' is not a table's key", "--set")
    return table


def _value(text: str) -> Any:
    """The value of a setting: TOML, or a bare word."""
    try:
        return toml_values(f"value = {text}", "--set")["value"]
    except TooLarge as error:
        raise OptionError(f"'{text[:20]}...' is too long or too deep for a value", "--set") from error
    except InputError:
        return text
