"""The sums that batch Dice and cross-entropy are made of, and their gradient, without keeping probabilities.

`dice_ce_reference` says what is computed, in PyTorch; `dice_ce_sums` is the same with a choice of the Triton kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hemotorch.kernels import demand


def dice_ce_sums(logits: Tensor, target: Tensor, positive_weight: float = 1.0, *, triton: bool = False) -> Tensor:
    """(4,) float32: sum(p t); sum(p) + sum(t); the sum of cross-entropy, the term of a bleeding pixel counting
    `positive_weight` times; and the number of pixels. p = sigmoid(logits).

    logits: floating point, of any shape and layout; target: the same shape, 0 to 1, of any type; the kernels give it
    no gradient. Computed in float32, autocast or not, and finite with finite gradients for logits of +-1e4; float64
    logits are for the reference alone, and give float64. On one GPU the kernels repeat bit for bit.
    Raises ValueError for shapes that differ and float64 kernels, OptionError where `triton` cannot be had.
    """
    if logits.shape != target.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} differ in shape")
    if not triton:
        return dice_ce_reference(logits, target, positive_weight)
    if logits.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"the kernels take logits of float32, bfloat16 or float16, not {logits.dtype}")
    demand(logits, target)
    from hemotorch.kernels.dice_ce_triton import Sums

    sums: Tensor = Sums.apply(logits.contiguous(), target.detach().contiguous(), float(positive_weight))
    return sums


def dice_ce_reference(logits: Tensor, target: Tensor, positive_weight: float = 1.0) -> Tensor:
    """What `dice_ce_sums` computes."""
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits if logits.dtype == torch.float64 else logits.float()
        target = target.to(logits.dtype)
        weight = None if positive_weight == 1 else logits.new_full((), positive_weight)
        entropy = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="sum")
        p = logits.sigmoid()
        return torch.stack([(p * target).sum(), p.sum() + target.sum(), entropy, p.new_full((), p.numel())])
