"""The sums that batch Dice and cross-entropy are made of, and their gradient, without keeping probabilities.

`dice_ce_reference` says what is computed, in PyTorch; `dice_ce_sums` is the same with a choice of the Triton kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hemotorch.training.kernels import demand


def dice_ce_sums(logits: Tensor, target: Tensor, positive_weight: float = 1.0, *, triton: bool = False) -> Tensor:
    """The sums of Dice and cross-entropy, of p = sigmoid(logits) and the target t.

    Computed in float32, autocast or not, and finite with finite gradients for logits of +-1e4. On one GPU the kernels
    repeat bit for bit.

    Args:
        logits: Floating point, of any shape and layout. float64 is for the reference alone, and gives float64.
        target: The same shape, 0 to 1, of any type. The kernels give it no gradient.
        positive_weight: How many times the cross-entropy of a bleeding pixel counts.
        triton: Whether hemotorch's own kernels compute it.

    Returns:
        (4,) float32: sum(p t); sum(p) + sum(t); the sum of cross-entropy; the number of pixels.

    Raises:
        ValueError: for shapes that differ, and for float64 logits with `triton`.
        OptionError: if the kernels cannot run here.
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
        both = (probability * target).sum()
        return torch.stack([both, probability.sum() + target.sum()])


def entropy_sums(logits: Tensor, target: Tensor, positive_weight: float = 1.0) -> Tensor:
    """(2,): the sum of the pixels' binary cross-entropies, and how many pixels there are."""
    with torch.autocast(logits.device.type, enabled=False):
        logits, target = wide(logits, target)
        weight = None if positive_weight == 1 else logits.new_full((), positive_weight)
        entropy = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="sum")
        return torch.stack([entropy, entropy.new_full((), target.numel())])


def wide(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32, or float64 if the logits are. Raises ValueError if they would broadcast in silence."""
    if logits.shape != target.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} differ in shape")
    if logits.dtype != torch.float64:
        logits = logits.float()
    return logits, target.to(logits.dtype)
