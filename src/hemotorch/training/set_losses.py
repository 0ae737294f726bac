"""Losses whose truth is a set of channels per voxel: a softmax over the channels, then the probability of the set.

What is known of a voxel is often not one channel: a plain mask says "some type of bleeding". The probability that the
network gives to a set is the sum over its channels, and that is what is compared (as in Fidon et al. 2021,
arXiv:2107.03846, "label-set loss functions"). `Task` says which bits stand for which channel.

As in `losses`, everything is sums over voxels that are divided last, in float32 (float64 stays), autocast or not.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hemotorch.task import Task

#: In place of the logarithm of a probability that does not count. Unlike -inf it can be multiplied by 0, and a set
#: that holds every channel leaves nothing else outside.
LOG_NOTHING = -1e30


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
        log_p, member = _log_probabilities(logits, target, task)
        entropy = -_log_of(log_p, member)
        if positive_weight != 1:
            entropy = torch.where(_bleeds(member, task), positive_weight * entropy, entropy)
        return _with_count(entropy)


def focal_sums(logits: Tensor, target: Tensor, task: Task, gamma: float, alpha: float) -> Tensor:
    """As `entropy_sums`, each voxel's cross-entropy times (1 - p)**gamma, p the probability of its set.

    alpha: weight of voxels of bleeding, 1 - alpha that of the others; below 0 there are no weights.
    """
    with torch.autocast(logits.device.type, enabled=False):
        log_p, member = _log_probabilities(logits, target, task)
        log_wrong = _log_of(log_p, ~member)
        loss = -_log_of(log_p, member) * (gamma * log_wrong).exp()
        if alpha >= 0:
            loss = torch.where(_bleeds(member, task), alpha * loss, (1 - alpha) * loss)
        return _with_count(loss)


def dice_sums(logits: Tensor, target: Tensor, task: Task) -> Tensor:
    """What the Dice of each type of bleeding, and of all bleeding together, is made of.

    A type is looked at where a voxel's set decides it: the set is that type alone, or does not hold it. Bleeding of all
    types together is decided everywhere.

    Returns:
        (3 * types + 3,): for each type, and last for all bleeding, the sums of p t, of p and of t.
    """
    with torch.autocast(logits.device.type, enabled=False):
        log_p, member = _log_probabilities(logits, target, task)
        probability = log_p[:, : task.bleeding].exp()
        alone = member.sum(dim=1, keepdim=True) == 1
        truth = member[:, : task.bleeding] & alone
        decided = truth | ~member[:, : task.bleeding]
        per_type = _overlap(probability * decided, truth)
        together = _overlap(probability.sum(dim=1, keepdim=True), _bleeds(member, task)[:, None])
        return torch.cat([per_type, together]).flatten()


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


def _log_probabilities(logits: Tensor, target: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """Log-softmax over the channels, and whether each channel belongs to the voxel's set, both (N, channels, h, w).

    Raises ValueError for shapes that do not belong together.
    """
    channels = len(task.channels)
    wanted = (len(logits), 1, *logits.shape[2:])
    if logits.ndim != 4 or logits.shape[1] != channels or target.shape != wanted:
        what = f"logits {tuple(logits.shape)} and target {tuple(target.shape)} differ in shape"
        raise ValueError(f"{what}, or are not of {channels} channels")
    bits = target.to(torch.uint8)
    bits = torch.where(bits == 0, task.background_bits, bits)
    member = torch.cat([(bits & (1 << channel)) != 0 for channel in range(channels)], dim=1)
    return F.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=1), member


def _log_of(log_p: Tensor, member: Tensor) -> Tensor:
    """(N, h, w) logarithm of the summed probability of the channels that are members."""
    return log_p.masked_fill(~member, LOG_NOTHING).logsumexp(dim=1)


def _bleeds(member: Tensor, task: Task) -> Tensor:
    """(N, h, w) bool: whether a voxel is bleeding, of whatever type."""
    return ~member[:, task.bleeding :].any(dim=1)


def _overlap(probability: Tensor, truth: Tensor) -> Tensor:
    """(C, 3) sums of p t, p and t over samples and voxels, of (N, C, h, w)."""
    truth = truth.to(probability.dtype)
    sums = [value.sum(dim=(0, 2, 3)) for value in (probability * truth, probability, truth)]
    return torch.stack(sums, dim=1)


def _with_count(values: Tensor) -> Tensor:
    total = values.sum()
    return torch.stack([total, total.new_full((), values.numel())])
