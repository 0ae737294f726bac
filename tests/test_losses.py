"""Losses against MedicalTorch, MONAI and hand-computed values, at the edges of half precision and on empty masks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from conftest import require
from hemotorch.errors import OptionError
from hemotorch.training import losses

NAMES = tuple(losses.LOSSES)


def batch(seed: int = 0, positive: float = 0.1) -> tuple[Tensor, Tensor]:
    """Logits and target (3, 1, 16, 16), float64 so that rounding hides nothing."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, 1, 16, 16, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), (torch.rand(3, 1, 16, 16, generator=generator) < positive).double()


def value_and_gradient(loss: losses.Loss, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, target)
    return value, torch.autograd.grad(value, leaf)[0]


def same(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor], rtol: float = 1e-10) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * 1e-4, check_dtype=False)


@pytest.mark.parametrize("positive", [0.0, 0.1, 1.0])
def test_negative_dice_is_medicaltorchs(positive: float) -> None:
    theirs = require("medicaltorch.losses")
    logits, target = batch(positive=positive)
    same(
        value_and_gradient(losses.build("negative-dice"), logits, target),
        value_and_gradient(lambda x, t: theirs.dice_loss(x.sigmoid(), t), logits, target),
    )


@pytest.mark.parametrize("positive", [0.0, 0.1])
def test_negative_dice_is_monais_batch_dice_less_one(positive: float) -> None:
    monai = require("monai.losses")
    logits, target = batch(positive=positive)
    theirs = monai.DiceLoss(sigmoid=True, batch=True, smooth_nr=1e-4, smooth_dr=1e-4)
    same(
        value_and_gradient(losses.build("negative-dice"), logits, target),
        value_and_gradient(lambda x, t: theirs(x, t) - 1, logits, target),
    )


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, -1.0), (0.5, 0.25), (0.0, 0.75)])
def test_focal_is_monais(gamma: float, alpha: float) -> None:
    monai = require("monai.losses")
    logits, target = batch()
    theirs = monai.FocalLoss(gamma=gamma, alpha=alpha if alpha >= 0 else None)
    same(
        value_and_gradient(losses.build("focal", gamma=gamma, alpha=alpha), logits, target),
        value_and_gradient(theirs, logits, target),
        rtol=2e-5,  # MONAI's focal loss computes in float32, whatever it is given
    )


def test_dice_cross_entropy_is_monais_less_one() -> None:
    monai = require("monai.losses")
    logits, target = batch()
    theirs = monai.DiceCELoss(sigmoid=True, batch=True, smooth_nr=1e-4, smooth_dr=1e-4, lambda_dice=0.7)
    same(
        value_and_gradient(losses.build("dice-cross-entropy", dice_weight=0.7), logits, target),
        value_and_gradient(lambda x, t: theirs(x, t) - 0.7, logits, target),
    )


def test_by_hand() -> None:
    """Probabilities 1/2, 3/4 and 9/10; the first and the last pixel bleed."""
    logits = torch.tensor([0.0, math.log(3), math.log(9)], dtype=torch.float64).view(1, 1, 1, 3)
    target = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64).view(1, 1, 1, 3)
    dice = 2 * (0.5 + 0.9) / (0.5 + 0.75 + 0.9 + 2)
    entropy = -(math.log(0.5) + math.log(0.25) + math.log(0.9)) / 3
    weighted = -(5 * math.log(0.5) + math.log(0.25) + 5 * math.log(0.9)) / 3
    focal = -(0.5**2 * math.log(0.5) + 0.75**2 * math.log(0.25) + 0.1**2 * math.log(0.9)) / 3
    expected = {
        losses.build("negative-dice", eps=0): -dice,
        losses.build("cross-entropy"): entropy,
        losses.build("cross-entropy", positive_weight=5): weighted,
        losses.build("dice-cross-entropy", eps=0, dice_weight=2): entropy - 2 * dice,
        losses.build("focal"): focal,
    }
    for loss, value in expected.items():
        assert loss(logits, target).item() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_sums_of_parts_add_up_to_those_of_the_batch(name: str) -> None:
    """What several processes rely on: add the sums, divide once."""
    logits, target = batch()
    target[0] = 0  # unequal parts
    loss = losses.build(name)
    parts = [loss.sums(logits[i : i + 1], target[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(loss.value(sum(parts[1:], parts[0])), loss(logits, target), rtol=1e-12, atol=0)
    if "dice" in name:
        mean_of_values = torch.stack([loss.value(part) for part in parts]).mean()
        assert abs(mean_of_values - loss(logits, target)) > 1e-3  # the order matters, or this test says nothing


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("sign", [1, -1], ids=["right", "wrong"])
def test_finite_at_huge_logits(name: str, dtype: torch.dtype, sign: int) -> None:
    _, target = batch(positive=0.3)
    logits = (sign * 1e4 * (2 * target - 1)).to(dtype)
    value, gradient = value_and_gradient(losses.build(name), logits, target)
    assert value.dtype == torch.float32
    assert value.isfinite() and gradient.isfinite().all()
    assert value.item() == pytest.approx(losses.build(name)(logits.double(), target).item(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loses_nothing_of_its_own(name: str, dtype: torch.dtype) -> None:
    """300,000 pixels: sums above float16's largest number and far above bfloat16's 8 bits."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 1, 550, 550, generator=generator).to(dtype)
    target = torch.rand(1, 1, 550, 550, generator=generator) < 0.3
    exact = losses.build(name)(logits.double(), target)
    with torch.autocast("cpu", torch.bfloat16):
        value = losses.build(name)(logits, target)
    assert value.item() == pytest.approx(exact.item(), rel=2e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.float16])
def test_targets_of_any_type(name: str, dtype: torch.dtype) -> None:
    logits, target = batch()
    assert losses.build(name)(logits, target.to(dtype)).item() == losses.build(name)(logits, target).item()


@pytest.mark.parametrize("name", ["cross-entropy", "dice-cross-entropy", "focal"])
def test_empty_mask_pushes_false_positives_down(name: str) -> None:
    logits = torch.full((2, 1, 64, 64), 2.0)
    value, gradient = value_and_gradient(losses.build(name), logits, torch.zeros_like(logits))
    assert value.isfinite() and value > 0
    assert (gradient * logits.numel() > 0.5).all()  # of a mean over pixels: as strong as on any other batch


def test_empty_mask_and_negative_dice() -> None:
    """MedicalTorch's eps decides: almost 0 with a vanishing gradient while much is found, -1 when nothing is."""
    dice = losses.build("negative-dice")
    full = torch.full((2, 1, 64, 64), 2.0, dtype=torch.float64)
    empty = torch.zeros_like(full)
    found = full.sigmoid().sum().item()
    value, gradient = value_and_gradient(dice, full, empty)
    assert value.item() == pytest.approx(-1e-4 / (found + 1e-4))
    assert (gradient > 0).all() and gradient.sum() < 1e-8
    assert dice(torch.full_like(full, -100.0), empty).item() == pytest.approx(-1.0)


def test_full_mask_found_is_a_dice_of_one() -> None:
    ones = torch.ones(1, 1, 8, 8)
    assert losses.build("negative-dice")(100 * ones, ones).item() == -1.0


@pytest.mark.parametrize("name", NAMES)
def test_shapes_that_would_broadcast_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        losses.build(name)(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4))


def test_wrong_names_and_options() -> None:
    with pytest.raises(OptionError, match="'cross-entropi'; did you mean 'cross-entropy'"):
        losses.build("cross-entropi")
    with pytest.raises(OptionError, match="no option 'gama'; did you mean 'gamma'"):
        losses.build("focal", gama=2)
    with pytest.raises(OptionError, match=r"focal\.gamma: must be a number"):
        losses.build("focal", gamma="2")  # type: ignore[arg-type]
