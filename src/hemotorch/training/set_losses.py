"""Losses whose truth is a set of channels per voxel: a softmax over the channels, then the probability of the set.

What is known of a voxel is often not one channel: a plain mask says "some type of bleeding". The probability that the
network gives to a set is the sum over its channels, and that is what is compared (as in Fidon et al. 2021,
arXiv:2107.03846, "label-set loss functions"). `Task` says which bits stand for which channel.

As in `losses`, everything is sums over voxels that are divided last, in float32 (float64 stays), autocast or not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hemotorch.task import Task

#: In place of the logarithm of a probability that does not count. Unlike -inf it can be multiplied by 0, and a set
#: that holds every channel leaves nothing else outside.
LOG_NOTHING = -1e30
LEAST_EXPONENT = -80.0  #: whose exponential float32 still has
LOG2_E = math.log2(math.e)


def entropy_sums(logits: Tensor, target: Tensor, task: Task, positive_weight: float = 1.0) -> Tensor:
    """Sum of the voxels' cross-entropies, -log of the probability of each voxel's set.

    Args:
        logits: (N, channels, rows, columns), a channel for each of the task's.
        target: (N, 1, rows, columns) bits as `Task.target` makes them, of any type.
        task: A task with several channels.
        positive_weight: How many times a voxel of bleeding counts.

    Returns:
        (2,) the sum, and the number of voxels.
    """
    return dice_entropy_sums(logits, target, task, positive_weight)[-2:]


def dice_sums(logits: Tensor, target: Tensor, task: Task) -> Tensor:
    """What the Dice of each type of bleeding, and of all bleeding together, is made of.

    A type is looked at where a voxel's set decides it: the set is that type alone, or does not hold it. Bleeding of all
    types together is decided everywhere.

    Returns:
        (3 * types + 3,): for each type, and last for all bleeding, the sums of p t, of p and of t.
    """
    return dice_entropy_sums(logits, target, task)[:-2]


def dice_entropy_sums(logits: Tensor, target: Tensor, task: Task, positive_weight: float = 1.0) -> Tensor:
    """`dice_sums` and then `entropy_sums`, which share most of their work."""
    with torch.autocast(logits.device.type, enabled=False):
        logits, sets = _compared(logits, target, task)
        sums: Tensor = _DiceEntropySums.apply(logits, sets, positive_weight)
        return sums


def focal_sums(logits: Tensor, target: Tensor, task: Task, gamma: float, alpha: float) -> Tensor:
    """As `entropy_sums`, each voxel's cross-entropy times (1 - p)**gamma, p the probability of its set.

    alpha: weight of voxels of bleeding, 1 - alpha that of the others; below 0 there are no weights.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, sets = _compared(logits, target, task)
        log_p = F.log_softmax(logits.contiguous(), dim=1)
        log_wrong = _log_of(log_p, 1 - sets.member)
        loss = -_log_of(log_p, sets.member) * (gamma * log_wrong).exp()
        if alpha >= 0:
            loss = loss * (alpha * sets.bleeds + (1 - alpha) * (1 - sets.bleeds))
        return _with_count(loss)


def dice_of(sums: Tensor, eps: float) -> Tensor:
    """The Dice of `dice_sums`: half that of all bleeding together, half the mean over the types that the batch holds.

    A batch without a voxel of known type has the Dice of all bleeding alone.
    """
    both, probability, truth = sums.view(-1, 3).unbind(dim=1)
    dice = (2 * both + eps) / (probability + truth + eps)
    held = (truth[:-1] > 0).to(dice.dtype)
    of_types = (dice[:-1] * held).sum() / held.sum().clamp(min=1)
    # No branch in Python: it would wait for the device, and a captured step would keep to one side of it.
    return torch.where(held.any(), (of_types + dice[-1]) / 2, dice[-1])


@dataclass(frozen=True)
class _Sets:
    """The sets of a batch's voxels.

    member: (N, channels, h, w) 1 if a channel belongs to the set, else 0. alone: (N, types, h, w) 1 if a type is all
    that the set holds. bleeds: (N, 1, h, w) 1 if a voxel is bleeding, of whatever type. Numbers, since a CPU multiplies
    by them several times faster than by bool.
    """

    member: Tensor
    alone: Tensor
    bleeds: Tensor


def _compared(logits: Tensor, target: Tensor, task: Task) -> tuple[Tensor, _Sets]:
    """The logits as they are computed with, and the sets of the voxels. Raises ValueError if shapes do not fit."""
    channels = len(task.channels)
    wanted = (len(logits), 1, *logits.shape[2:])
    if logits.ndim != 4 or logits.shape[1] != channels or target.shape != wanted:
        what = f"logits {tuple(logits.shape)} and target {tuple(target.shape)} differ in shape"
        raise ValueError(f"{what}, or are not of {channels} channels")
    if logits.dtype != torch.float64:
        logits = logits.float()
    bits = target.to(torch.uint8)
    bits = bits + (bits == 0) * task.background_bits
    one_bit = 2 ** torch.arange(channels, dtype=torch.uint8, device=bits.device).view(1, -1, 1, 1)
    member = (bits & one_bit).clamp_(max=1).to(logits.dtype)  # clamping takes a tenth of the time of comparing
    single = (member.sum(dim=1, keepdim=True) == 1).to(logits.dtype)
    bleeds = ((bits & task.background_bits) == 0).to(logits.dtype)
    return logits, _Sets(member, member[:, : task.bleeding] * single, bleeds)


class _DiceEntropySums(torch.autograd.Function):
    """`dice_entropy_sums` with a gradient of its own, since autograd's keeps and walks every step in between.

    With it a batch of 8 x 7 x 128 x 128 took a quarter of the time (docs/log.md).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, sets: _Sets, positive_weight: float) -> Tensor:
        """(3 * types + 5,) sums; logits: (N, channels, h, w)."""
        types = sets.alone.shape[1]
        channels_last = logits.is_contiguous(memory_format=torch.channels_last)
        ctx.layout = torch.channels_last if channels_last else torch.contiguous_format
        # Channels-last, seven channels defeat a CPU's vectors: forward took 18 ms instead of 8.
        log_p = F.log_softmax(logits.contiguous(), dim=1)
        p = _exp(log_p)
        # Cross-entropy, -log of the set's probability; how the set's channels share that probability is its gradient.
        share, peak = _exponentials(log_p, sets.member)
        total = share.sum(dim=1, keepdim=True)
        entropy = -(total.log() + peak)
        share /= total
        weight = 1 + (positive_weight - 1) * sets.bleeds
        # Dice. A type is decided if the set is that type alone or does not hold it.
        decided = (sets.alone - sets.member[:, :types]).add_(1)
        of_types = p[:, :types]
        together = of_types.sum(dim=1, keepdim=True)
        ctx.save_for_backward(p, share, sets.alone, decided, sets.bleeds, weight)
        per_type = _overlap(of_types, sets.alone, decided)
        all_bleeding = _overlap(together, sets.bleeds)
        return torch.cat([per_type.flatten(), all_bleeding.flatten(), _with_count(entropy * weight)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Through the softmax: for any function of p with the slopes s, d/dlogits is p (s - sum of p s)."""
        p, share, alone, decided, bleeds, weight = ctx.saved_tensors
        types = alone.shape[1]
        both, probability, _ = gradient[:-2].view(-1, 3, 1, 1).unbind(dim=1)
        of_all = bleeds * both[-1] + probability[-1]
        slope = (alone * both[:-1]).addcmul_(decided, probability[:-1]).add_(of_all).mul_(p[:, :types])
        of_entropy = weight * gradient[-2]
        result = p * (of_entropy - slope.sum(dim=1, keepdim=True))
        result.addcmul_(share, of_entropy, value=-1)
        result[:, :types] += slope
        return result.contiguous(memory_format=ctx.layout), None, None


def _exponentials(log_p: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
    """The channels' probabilities in units of the largest member's, all but 0 if no member; and its logarithm.

    As torch.logsumexp, which takes ten times as long here: over a dimension that is not the last, and with exponents
    that underflow, on which a CPU spends twelve times as much. Beside the peak's 1 what is clamped is nothing.
    """
    chosen = torch.add(log_p, 1 - member, alpha=LOG_NOTHING)
    peak = chosen.detach().amax(dim=1, keepdim=True)
    return _exp(chosen.sub_(peak).clamp_(min=LEAST_EXPONENT)), peak


def _exp(x: Tensor) -> Tensor:
    """The exponential of x up to 0, in float32 to |x| times 6e-8 of it; on a CPU in half the time of torch.exp."""
    return (x * LOG2_E).exp2_()


def _log_of(log_p: Tensor, member: Tensor) -> Tensor:
    """(N, 1, h, w) logarithm of the summed probability of the channels that are members."""
    below_peak, peak = _exponentials(log_p, member)
    return below_peak.sum(dim=1, keepdim=True).log() + peak


def _overlap(probability: Tensor, truth: Tensor, decided: Tensor | None = None) -> Tensor:
    """(C, 3) sums of p t, p and t over samples and voxels, of (N, C, h, w)."""
    over_pixels = (0, 2, 3)
    both = (probability * truth).sum(dim=over_pixels)
    if decided is not None:
        probability = probability * decided
    return torch.stack([both, probability.sum(dim=over_pixels), truth.sum(dim=over_pixels)], dim=1)


def _with_count(values: Tensor) -> Tensor:
    total = values.sum()
    return torch.stack([total, total.new_full((), values.numel())])
