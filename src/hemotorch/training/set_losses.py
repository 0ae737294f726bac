"""Losses whose truth is a set of channels per voxel: a softmax over the channels, then the probability of the set.

What is known of a voxel is often not one channel: a plain mask says "some type of bleeding". The probability that the
network gives to a set is the sum over its channels, and that is what is compared (as in Fidon et al. 2021,
arXiv:2107.03846, "label-set loss functions"). `Task` says which bits stand for which channel.

As in `losses`, everything is sums over voxels that are divided last, in float32 (float64 stays), autocast or not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hemotorch.task import Task

#: In place of the logarithm of a probability that does not count. Unlike -inf it can be multiplied by 0, and a set
#: that holds every channel leaves nothing else outside.
LOG_NOTHING = -1e30
LEAST_EXPONENT = -80.0  #: whose exponential float32 still has


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
    with torch.autocast(logits.device.type, enabled=False):
        sets, log_p = _compared(logits, target, task)
        return _entropy_sums(sets, log_p, positive_weight)


def focal_sums(logits: Tensor, target: Tensor, task: Task, gamma: float, alpha: float) -> Tensor:
    """As `entropy_sums`, each voxel's cross-entropy times (1 - p)**gamma, p the probability of its set.

    alpha: weight of voxels of bleeding, 1 - alpha that of the others; below 0 there are no weights.
    """
    with torch.autocast(logits.device.type, enabled=False):
        sets, log_p = _compared(logits, target, task)
        log_wrong = _log_of(log_p, 1 - sets.member)
        loss = -_log_of(log_p, sets.member) * (gamma * log_wrong).exp()
        if alpha >= 0:
            loss = torch.where(sets.bleeds, alpha * loss, (1 - alpha) * loss)
        return _with_count(loss)


def dice_sums(logits: Tensor, target: Tensor, task: Task) -> Tensor:
    """What the Dice of each type of bleeding, and of all bleeding together, is made of.

    A type is looked at where a voxel's set decides it: the set is that type alone, or does not hold it. Bleeding of all
    types together is decided everywhere.

    Returns:
        (3 * types + 3,): for each type, and last for all bleeding, the sums of p t, of p and of t.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return _dice_sums(*_compared(logits, target, task))


def dice_entropy_sums(logits: Tensor, target: Tensor, task: Task, positive_weight: float = 1.0) -> Tensor:
    """`dice_sums` and then `entropy_sums`, which share most of their work."""
    with torch.autocast(logits.device.type, enabled=False):
        sets, log_p = _compared(logits, target, task)
        return torch.cat([_dice_sums(sets, log_p), _entropy_sums(sets, log_p, positive_weight)])


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
    that the set holds. bleeds: (N, 1, h, w) bool, whether a voxel is bleeding, of whatever type. Numbers, since a CPU
    multiplies by them several times faster than by bool.
    """

    member: Tensor
    alone: Tensor
    bleeds: Tensor


def _compared(logits: Tensor, target: Tensor, task: Task) -> tuple[_Sets, Tensor]:
    """The sets of the voxels, and log-softmax over the channels. Raises ValueError for shapes that do not fit."""
    channels = len(task.channels)
    wanted = (len(logits), 1, *logits.shape[2:])
    if logits.ndim != 4 or logits.shape[1] != channels or target.shape != wanted:
        what = f"logits {tuple(logits.shape)} and target {tuple(target.shape)} differ in shape"
        raise ValueError(f"{what}, or are not of {channels} channels")
    if logits.dtype != torch.float64:
        logits = logits.float()
    bits = target.to(torch.uint8)
    bits = torch.where(bits == 0, task.background_bits, bits)
    members = [(bits & (1 << channel)) != 0 for channel in range(channels)]
    alone = [bits == (1 << channel) for channel in range(task.bleeding)]
    sets = _Sets(
        member=torch.cat(members, dim=1).to(logits.dtype),
        alone=torch.cat(alone, dim=1).to(logits.dtype),
        bleeds=(bits & task.background_bits) == 0,
    )
    return sets, F.log_softmax(logits, dim=1)


def _entropy_sums(sets: _Sets, log_p: Tensor, positive_weight: float) -> Tensor:
    entropy = -_log_of(log_p, sets.member)
    if positive_weight != 1:
        entropy = torch.where(sets.bleeds, positive_weight * entropy, entropy)
    return _with_count(entropy)


def _dice_sums(sets: _Sets, log_p: Tensor) -> Tensor:
    types = sets.alone.shape[1]
    probability = log_p[:, :types].exp()
    decided = sets.alone + 1 - sets.member[:, :types]
    per_type = _overlap(probability * decided, sets.alone)
    together = _overlap(probability.sum(dim=1, keepdim=True), sets.bleeds.to(probability.dtype))
    return torch.cat([per_type, together]).flatten()


def _log_of(log_p: Tensor, member: Tensor) -> Tensor:
    """(N, 1, h, w) logarithm of the summed probability of the channels that are members."""
    chosen = log_p + (1 - member) * LOG_NOTHING
    # As torch.logsumexp, which takes ten times as long here: over a dimension that is not the last, and with exponents
    # that underflow, on which a CPU spends twelve times as much. Beside the peak's 1 what is clamped is nothing.
    peak = chosen.detach().amax(dim=1, keepdim=True)
    below_peak = (chosen - peak).clamp(min=LEAST_EXPONENT)
    return below_peak.exp().sum(dim=1, keepdim=True).log() + peak


def _overlap(probability: Tensor, truth: Tensor) -> Tensor:
    """(C, 3) sums of p t, p and t over samples and voxels, of (N, C, h, w)."""
    over_pixels = (0, 2, 3)
    both = (probability * truth).sum(dim=over_pixels)
    return torch.stack([both, probability.sum(dim=over_pixels), truth.sum(dim=over_pixels)], dim=1)


def _with_count(values: Tensor) -> Tensor:
    total = values.sum()
    return torch.stack([total, total.new_full((), values.numel())])
