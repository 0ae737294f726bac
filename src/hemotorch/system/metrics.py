"""What is measured in an epoch of a training: a row of metrics.jsonl."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hemotorch.system.records import Values, record, to_values

LARGEST = 10**30  #: of a value; larger ones cannot be drawn

Count = Annotated[int, Field(ge=0, lt=LARGEST)]
Value = Annotated[float, Field(gt=-LARGEST, lt=LARGEST)]
WholeValue = Annotated[int, Field(gt=-LARGEST, lt=LARGEST)]


@record
class EpochMetrics:
    """An epoch's metrics.

    epoch, step: how many were done in the whole training. loss: mean over the epoch. lr: learning rate of its last
    step. seconds: of training so far, over all sessions of the run.
    val: metrics of the validation part, among them "dice" and "n", the number of scans that they are means over; None
        for a metric that is undefined, as the Dice of scans without bleeding is. None if nothing was validated.
    """

    epoch: Count
    step: Count
    loss: Value
    lr: Value
    seconds: Value
    val: dict[str, WholeValue | Value | None] | None = None

    def __post_init__(self) -> None:
        if self.val is None:
            return
        if "dice" not in self.val or not isinstance(self.val.get("n"), int):
            raise ValueError("a validation has a dice, and a number of scans")

    def to_dict(self) -> Values:
        """The row as metrics.jsonl has it: without `val` if nothing was validated."""
        values = to_values(self)
        if self.val is None:
            del values["val"]
        return values
