"""The sums that batch Dice and cross-entropy are made of, and their gradient, without keeping probabilities.

`dice_ce_reference` says what is computed, in PyTorch; `dice_ce_sums` is the same with a choice of the Triton kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hemotorch.training.kernels import demand


def dice_ce_sums(logits: Tensor, target: Tensor, positive_weight: float = 1.0, *, triton: bool = False) -> Tensor:
    """(4,) float32: sum(p t); sum(p) + sum(t); the sum of cross-entropy, the term of a bleeding pixel counting
    `positive_weight` times; and the number of pixels. p = sigmoid(logits).

    logits: floating point, of any shape and layout; target: the same shape, 0 to 1, of any type; the kernels give it
    no gradient. Computed in float32, autocast or not, and finite with finite gradients for logits of +-1e4; float64
    logits are for the reference alone, and give float64. On one GPU the kernels repeat bit for bit.
    Raises ValueError for shapes that differ and float64 kernels, OptionError where `triton` cannot be had.
    """
    if not triton:
        return dice_ce_reference(logits, target, positive_weight)
    if logits.shape != target.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} differ in shape")
    if logits.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"the kernels take logits of float32, bfloat16 or float16, not {logits.dtype}")
    demand(logits, target)
    from hemotorch.training.kernels.dice_ce_triton import Sums

    sums: Tensor = Sums.apply(logits.contiguous(), target.detach().contiguous(), float(positive_weight))
    return sums


def dice_ce_reference(logits: Tensor, target: Tensor, positive_weight: float = 1.0) -> Tensor:
    """What `dice_ce_sums` computes."""
    logits, target = wide(logits, target)  # once: gradients of both are added before they are rounded to logits' type
    return torch.cat([dice_sums(logits, target), entropy_sums(logits, target, positive_weight)])


def dice_sums(logits: Tensor, target: Tensor) -> Tensor:
    """(2,): sum(p t) and sum(p) + sum(t) with p = sigmoid(logits): what batch Dice divides."""
    with torch.autocast(logits.device.type, enabled=False):
        logits, target = wide(logits, target)
        probability = logits.sigmoid()
        return torch.stack([(probability * target).sum(), probability.sum() + target.sum()])


def entropy_sums(logits: Tensor, target: Tensor, positive_weight: float = 1.0) -> Tensor:
    """(2,): the sum of the pixels' binary cross-entropies, and how many pixels there are."""
    with torch.autocast(logits.device.type, enabled=False):
        logits, target = wide(logits, target)
        weight = None if positive_weight == 1 else logits.new_full((), positive_weight)
        entropy = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="sum")
        return torch.stack([entropy, entropy.new_full((), target.numel())])


def wide(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32, or float64 when the logits are. Raises ValueError when they would broadcast in silence."""
    if logits.shape != target.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} differ in shape")
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits, target.to(logits.dtype)
