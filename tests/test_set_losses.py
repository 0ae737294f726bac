"""Losses on sets of channels, against torch's own on single channels and our own of one channel on whole groups."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hemotorch.task import BLEEDING, BLEEDING_BITS, INSIDE_BIT, OUTSIDE_BIT, TYPED
from hemotorch.training import losses

NAMES = tuple(losses.LOSSES)
CHANNELS = len(TYPED.channels)


def batch(seed: int = 0, single: bool = False, size: int = 12) -> tuple[Tensor, Tensor]:
    """Logits (3, 7, size, size) in float64, and sets (3, 1, size, size) uint8: single channels or also groups."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, CHANNELS, size, size, generator=generator, dtype=torch.float64)
    sets = [1 << channel for channel in range(CHANNELS)]
    if not single:
        sets += [0, 0, INSIDE_BIT | OUTSIDE_BIT, BLEEDING_BITS, 0b00011, 0b10100]
    chosen = torch.randint(len(sets), (3, 1, size, size), generator=generator)
    return logits, torch.tensor(sets, dtype=torch.uint8)[chosen]


def value_and_gradient(loss: losses.Loss, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, target)
    return value, torch.autograd.grad(value, leaf)[0]


def same(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


def one_logit(logits: Tensor) -> Tensor:
    """(N, 1, h, w): the logit of bleeding of whatever type."""
    bleeding = logits[:, : TYPED.bleeding].logsumexp(dim=1, keepdim=True)
    return bleeding - logits[:, TYPED.bleeding :].logsumexp(dim=1, keepdim=True)


def test_cross_entropy_of_single_channels_is_torchs() -> None:
    logits, target = batch(single=True)
    classes = target[:, 0].double().log2().long()
    ours = value_and_gradient(losses.build("cross-entropy", TYPED), logits, target)
    theirs = losses.Loss(lambda x, t: F.cross_entropy(x, classes)[None], lambda sums: sums[0])
    same(ours, value_and_gradient(theirs, logits, target))


@pytest.mark.parametrize("weight", [0.3, 5.0])
def test_weight_of_bleeding_is_torchs_class_weight(weight: float) -> None:
    logits, target = batch(single=True)
    classes = target[:, 0].double().log2().long()
    weights = torch.tensor([weight] * TYPED.bleeding + [1.0, 1.0], dtype=torch.float64)
    ours = losses.build("cross-entropy", TYPED, positive_weight=weight)(logits, target)
    theirs = F.cross_entropy(logits, classes, weights, reduction="sum") / classes.numel()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("target_of_background", [0, INSIDE_BIT | OUTSIDE_BIT])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cross-entropy", {"positive_weight": 3.0}),
        ("focal", {"gamma": 1.5, "alpha": 0.3}),
        ("focal", {}),
        ("negative-dice", {}),
        ("dice-cross-entropy", {"dice_weight": 0.7, "positive_weight": 2.0}),
    ],
)
def test_bleeding_of_unknown_type_is_the_loss_of_one_channel(
    name: str, options: dict, target_of_background: int
) -> None:
    """On the sum of the types' probabilities, gradients to every channel included."""
    logits, groups = batch()
    bleeds = (groups & BLEEDING_BITS) != 0
    target = torch.where(bleeds, BLEEDING_BITS, target_of_background).to(torch.uint8)
    ours = value_and_gradient(losses.build(name, TYPED, **options), logits, target)
    binary = losses.build(name, BLEEDING, **options)
    through = losses.Loss(lambda x, t: binary.sums(one_logit(x), bleeds), binary.value)
    same(ours, value_and_gradient(through, logits, target))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_differences(name: str) -> None:
    logits, target = batch(size=3)
    loss = losses.build(name, TYPED)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_(), atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_sums_of_parts_add_up_to_those_of_the_batch(name: str) -> None:
    logits, target = batch()
    target[0] = 0  # unequal parts
    loss = losses.build(name, TYPED)
    parts = [loss.sums(logits[i : i + 1], target[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(loss.value(sum(parts[1:], parts[0])), loss(logits, target), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("sign", [1, -1], ids=["right", "wrong"])
def test_finite_at_huge_logits(name: str, dtype: torch.dtype, sign: int) -> None:
    _, target = batch()
    member = torch.cat([(target & (1 << channel)) != 0 for channel in range(CHANNELS)], dim=1)
    logits = (sign * 1e4 * (2 * member.double() - 1)).to(dtype)
    value, gradient = value_and_gradient(losses.build(name, TYPED), logits, target)
    assert value.dtype == torch.float32
    assert value.isfinite() and gradient.isfinite().all()
    assert value.item() == pytest.approx(losses.build(name, TYPED)(logits.double(), target).item(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_loses_nothing_of_its_own(name: str) -> None:
    logits, target = batch(size=100)
    logits = logits.bfloat16()
    exact = losses.build(name, TYPED)(logits.double(), target)
    with torch.autocast("cpu", torch.bfloat16):
        value = losses.build(name, TYPED)(logits, target)
    assert value.item() == pytest.approx(exact.item(), rel=3e-6)


def dice_by_hand(p: list[list[float]], sets: list[int], eps: float) -> float:
    """Voxel by voxel; p: probabilities of the channels of each voxel."""
    found = []
    for channel in range(TYPED.bleeding):
        both = probability = truth = 0.0
        for values, members in zip(p, sets, strict=True):
            if members == 1 << channel:
                both, truth = both + values[channel], truth + 1
            if members == 1 << channel or not members & 1 << channel:
                probability += values[channel]
        if truth:
            found.append((2 * both + eps) / (probability + truth + eps))
    bleeding = [sum(values[: TYPED.bleeding]) for values in p]
    truths = [bool(members & BLEEDING_BITS) for members in sets]
    both = sum(value for value, truth in zip(bleeding, truths, strict=True) if truth)
    together = (2 * both + eps) / (sum(bleeding) + sum(truths) + eps)
    return (sum(found) / len(found) + together) / 2 if found else together


@pytest.mark.parametrize(
    "sets",
    [
        [0b00001, 0b00100, 0b00101, 0, INSIDE_BIT, OUTSIDE_BIT],
        [BLEEDING_BITS, 0b10000, 0b10000, 0b11000, 0, 0],
        [BLEEDING_BITS, 0b00011, 0, 0, INSIDE_BIT, INSIDE_BIT],  # no voxel whose type is known
        [0, 0, 0, INSIDE_BIT, OUTSIDE_BIT, OUTSIDE_BIT],
    ],
)
def test_dice_voxel_by_voxel(sets: list[int]) -> None:
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(1, CHANNELS, 1, len(sets), generator=generator, dtype=torch.float64)
    target = torch.tensor(sets, dtype=torch.uint8).view(1, 1, 1, -1)
    p = logits.softmax(dim=1)[0, :, 0].T.tolist()
    value = losses.build("negative-dice", TYPED, eps=0.01)(logits, target)
    assert value.item() == pytest.approx(-dice_by_hand(p, sets, 0.01), rel=1e-10)


def test_perfect_typed_answers_have_a_dice_of_one() -> None:
    target = torch.tensor([0b00010, 0b10000, INSIDE_BIT, OUTSIDE_BIT], dtype=torch.uint8).view(1, 1, 2, 2)
    logits = torch.full((1, CHANNELS, 2, 2), -100.0)
    for index, channel in enumerate((1, 4, 5, 6)):
        logits[0, channel].view(-1)[index] = 100
    assert losses.build("negative-dice", TYPED)(logits, target).item() == pytest.approx(-1)
    swapped = logits[:, [0, 4, 2, 3, 1, 5, 6]]  # the two types for each other: all is found, under the wrong names
    expected = -(1 + 1e-4 / 2) / 2
    assert losses.build("negative-dice", TYPED)(swapped, target).item() == pytest.approx(expected, abs=1e-4)


def test_a_wrong_type_is_pushed_down_and_the_right_one_up() -> None:
    target = torch.full((1, 1, 4, 4), 0b00010, dtype=torch.uint8)
    logits = torch.zeros(1, CHANNELS, 4, 4)
    for name in NAMES:
        _, gradient = value_and_gradient(losses.build(name, TYPED), logits, target)
        assert (gradient[:, 1] < 0).all()
        others = gradient[:, [0, 2, 3, 4, 5, 6]]
        assert (others >= 0).all() and others.max() > 0


def test_shapes_that_would_broadcast_are_refused() -> None:
    for logits, target in ((6, (2, 1, 4, 4)), (7, (2, 4, 4)), (7, (2, 7, 4, 4)), (7, (1, 1, 4, 4)), (1, (2, 1, 4, 4))):
        for name in NAMES:
            with pytest.raises(ValueError, match="differ in shape, or are not of 7 channels"):
                losses.build(name, TYPED)(torch.zeros(2, logits, 4, 4), torch.zeros(target, dtype=torch.uint8))


def test_uniform_probabilities_by_hand() -> None:
    target = torch.tensor([0b00001, 0b00011, BLEEDING_BITS, 0], dtype=torch.uint8).view(1, 1, 2, 2)
    logits = torch.zeros(1, CHANNELS, 2, 2, dtype=torch.float64)
    expected = -sum(math.log(count / 7) for count in (1, 2, 5, 2)) / 4
    assert losses.build("cross-entropy", TYPED)(logits, target).item() == pytest.approx(expected, rel=1e-12)
