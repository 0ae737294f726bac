"""`kernels.dice_ce` as two Triton kernels, forward and backward, each one pass over logits and target."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 1024  #: pixels a program; fixed, so that the order of adding is


class Sums(torch.autograd.Function):
    """`kernels.dice_ce.dice_ce_sums` on contiguous logits and target of one shape."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, positive_weight: float) -> Tensor:
        target = target.view(torch.uint8) if target.dtype == torch.bool else target
        ctx.save_for_backward(logits, target)
        ctx.positive_weight = positive_weight
        parts = logits.new_empty((triton.cdiv(logits.numel(), BLOCK), 4), dtype=torch.float32)
        if len(parts):
            with torch.cuda.device_of(logits):
                _forward[(len(parts),)](logits, target, parts, logits.numel(), positive_weight, BLOCK=BLOCK)
        return parts.sum(0, dtype=torch.float64).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, sums: Tensor) -> tuple[Tensor, None, None]:
        """sums: (4,) the loss's gradient with respect to the sums."""
        logits, target = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        if count := logits.numel():
            grid = (triton.cdiv(count, BLOCK),)
            with torch.cuda.device_of(logits):
                _backward[grid](logits, target, sums.contiguous(), gradient, count, ctx.positive_weight, BLOCK=BLOCK)
        return gradient, None, None


@triton.jit
def _forward(logits, target, parts, count, positive_weight, BLOCK: tl.constexpr):
    """Program k adds up its pixels into row k of parts (programs, 4)."""
    x, t, inside, _ = _load(logits, target, count, BLOCK)
    e, p, _ = _sigmoid(x)
    # log(1 + e) for e from 0 to 1: 1 + e loses the digits of a small e, and the factor gives them back
    u = 1.0 + e
    log = tl.where(u == 1.0, e, tl.log(u) * (e / tl.where(u == 1.0, 1.0, u - 1.0)))
    # -log(1 - p) and -log(p), neither of which cancels
    entropy = (1.0 - t) * (tl.maximum(x, 0.0) + log) + positive_weight * t * (tl.maximum(-x, 0.0) + log)
    parts += 4 * tl.program_id(0).to(tl.int64)
    tl.store(parts, tl.sum(tl.where(inside, p * t, 0.0)))
    tl.store(parts + 1, tl.sum(tl.where(inside, p + t, 0.0)))
    tl.store(parts + 2, tl.sum(tl.where(inside, entropy, 0.0)))
    tl.store(parts + 3, tl.sum(inside.to(tl.float32)))


@triton.jit
def _backward(logits, target, sums, gradient, count, positive_weight, BLOCK: tl.constexpr):
    """The gradient of each logit from those of the sums: p is sigmoid(x), whose derivative is p (1 - p)."""
    x, t, inside, start = _load(logits, target, count, BLOCK)
    _, p, q = _sigmoid(x)
    slope = p * q * (tl.load(sums) * t + tl.load(sums + 1))
    slope += tl.load(sums + 2) * ((1.0 - t) * p - positive_weight * t * q)
    tl.store(gradient + start + tl.arange(0, BLOCK), slope.to(gradient.dtype.element_ty), mask=inside)


@triton.jit
def _load(logits, target, count, BLOCK: tl.constexpr):
    """This program's logits and target in float32, which of them exist, and the 64-bit index of the first."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    lanes = tl.arange(0, BLOCK)
    inside = start + lanes < count
    x = tl.load(logits + start + lanes, mask=inside, other=0).to(tl.float32)
    t = tl.load(target + start + lanes, mask=inside, other=0).to(tl.float32)
    return x, t, inside, start


@triton.jit
def _sigmoid(x):
    """exp(-|x|), sigmoid(x) and 1 - sigmoid(x): no overflow, and no digits lost on either side."""
    e = tl.exp(-tl.abs(x))
    larger = 1.0 / (1.0 + e)
    smaller = e / (1.0 + e)
    return e, tl.where(x >= 0, larger, smaller), tl.where(x >= 0, smaller, larger)
