"""The losses by name. Each takes logits (N, channels, rows, columns) and a target (N, 1, rows, columns), of any type.

A task of one channel has a sigmoid, and a target of 0 and 1; one of several channels a softmax, and as its target the
sets of `Task.target`, see `set_losses`. The result is a scalar.

A loss is two steps: sums over pixels, then a value of those sums. The sums of several processes are added in between,
so that many processes compute the loss of the whole batch and not a mean of their own. All are computed in float32
(float64 stays), autocast or not, and are finite with finite gradients for logits of +-1e4.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hemotorch.errors import OptionError, nearest
from hemotorch.task import BLEEDING, Task
from hemotorch.training import set_losses
from hemotorch.training.kernels.dice_ce import dice_ce_sums, dice_sums, entropy_sums, wide

EPS = 1e-4  #: MedicalTorch's, added to both sides of the fraction


@dataclass(frozen=True)
class Loss:
    """sums: logits, target -> (S,) sums over pixels, which add up over parts of a batch; value: (S,) -> scalar.

    kernel: the same sums by hemotorch's own Triton kernels, if there are some.
    """

    sums: Callable[[Tensor, Tensor], Tensor]
    value: Callable[[Tensor], Tensor]
    kernel: Callable[[Tensor, Tensor], Tensor] | None = None

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch. Raises ValueError if the shapes differ."""
        return self.value(self.sums(logits, target))


def negative_dice(task: Task = BLEEDING, eps: float = EPS) -> Loss:
    """-Dice over the whole batch as one set of pixels: -(2 sum(p t) + eps) / (sum(p) + sum(t) + eps).

    MedicalTorch's `dice_loss` on p = sigmoid(logits). On a batch without any bleeding it is -eps / (sum(p) + eps):
    finite, never above 0, and -1 once nothing is found. Its gradient still points down but is all but gone while sum(p)
    is large (eps / sum(p)**2), so a net trained with it alone learns nothing from such batches: add cross-entropy.
    With types it is the Dice of `set_losses.dice_of`.
    """
    if task.types:
        typed_sums = partial(set_losses.dice_sums, task=task)
        return Loss(typed_sums, lambda sums: -set_losses.dice_of(sums, eps))

    def kernel(logits: Tensor, target: Tensor) -> Tensor:
        return dice_ce_sums(logits, target, triton=True)[:2]

    return Loss(dice_sums, lambda sums: -dice_ratio(sums, eps), kernel)


def cross_entropy(task: Task = BLEEDING, positive_weight: float = 1.0) -> Loss:
    """Cross-entropy, the mean over pixels; a bleeding pixel's term counts `positive_weight` times."""
    if task.types:
        return Loss(partial(set_losses.entropy_sums, task=task, positive_weight=positive_weight), mean)

    def kernel(logits: Tensor, target: Tensor) -> Tensor:
        return dice_ce_sums(logits, target, positive_weight, triton=True)[2:]

    return Loss(partial(entropy_sums, positive_weight=positive_weight), mean, kernel)


def dice_cross_entropy(
    task: Task = BLEEDING, dice_weight: float = 1.0, positive_weight: float = 1.0, eps: float = EPS
) -> Loss:
    """dice_weight * negative_dice + cross_entropy."""

    def value(sums: Tensor) -> Tensor:
        # The entropy's two sums come last.
        dice = set_losses.dice_of(sums[:-2], eps) if task.types else dice_ratio(sums[:-2], eps)
        return mean(sums[-2:]) - dice_weight * dice

    if task.types:
        sums = partial(set_losses.dice_entropy_sums, task=task, positive_weight=positive_weight)
        return Loss(sums, value)
    sums = partial(dice_ce_sums, positive_weight=positive_weight)
    return Loss(sums, value, partial(sums, triton=True))


def focal(task: Task = BLEEDING, gamma: float = 2.0, alpha: float = -1.0) -> Loss:
    """Focal loss, the mean of (1 - p_true)**gamma * cross-entropy (Lin et al. 2017, arXiv:1708.02002, eq. 4 and 5).

    alpha: weight of bleeding pixels, 1 - alpha that of the others; below 0 there are no weights.
    """
    if task.types:
        return Loss(partial(set_losses.focal_sums, task=task, gamma=gamma, alpha=alpha), mean)

    def sums(logits: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            logits, target = wide(logits, target)
            entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
            # log(1 - p_true); its exponential has a finite gradient where the power of a vanished p has none
            log_wrong = F.logsigmoid(logits * (1 - 2 * target))
            loss = entropy * (gamma * log_wrong).exp()
            if alpha >= 0:
                weight = alpha * target + (1 - alpha) * (1 - target)
                loss = loss * weight
            total = loss.sum()
            return torch.stack([total, total.new_full((), target.numel())])

    return Loss(sums, mean)


def dice_ratio(sums: Tensor, eps: float = EPS) -> Tensor:
    """(2 intersection + eps) / (total + eps) of `dice_sums`."""
    return (2 * sums[0] + eps) / (sums[1] + eps)


def mean(sums: Tensor) -> Tensor:
    """A sum over pixels and their number: the first by the second."""
    return sums[0] / sums[1]


LOSSES: dict[str, Callable[..., Loss]] = {
    "negative-dice": negative_dice,
    "cross-entropy": cross_entropy,
    "dice-cross-entropy": dice_cross_entropy,
    "focal": focal,
}


def build(name: str, task: Task = BLEEDING, **options: float) -> Loss:
    """The named loss.

    Args:
        name: A key of `LOSSES`.
        task: What the network answers.
        options: Of the loss's function in this file.

    Raises:
        OptionError: for an unknown name or option, naming the nearest, and for a value that is no number.
    """
    if name not in LOSSES:
        raise OptionError(f"unknown loss '{name}'", todo=nearest(name, LOSSES))
    known = list(inspect.signature(LOSSES[name]).parameters)
    known.remove("task")
    for key, value in options.items():
        if key not in known:
            raise OptionError(f"loss '{name}' has no option '{key}'", todo=nearest(key, known))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise OptionError(f"must be a number, not {value!r}", f"{name}.{key}")
        if value < 0 and key != "alpha":
            raise OptionError(f"must not be negative, but is {value}", f"{name}.{key}")
    numbers: dict[str, Any] = {key: float(value) for key, value in options.items()}
    return LOSSES[name](task, **numbers)
