"""Dice and cross-entropy sums: reference against SciPy and finite differences, kernels against the reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor

from hemotorch.errors import OptionError
from hemotorch.training import losses
from hemotorch.training.kernels.dice_ce import dice_ce_reference, dice_ce_sums

Interpreted = Callable[..., Any]
HALVES = [torch.float32, torch.bfloat16, torch.float16]
PULL = torch.tensor([0.7, -0.2, 0.3, 5.0])  #: what the sums' gradient is tested with; the count has none


def batch(shape: tuple[int, ...] = (3, 1, 37, 53), spread: float = 4.0) -> tuple[Tensor, Tensor]:
    """Logits float32 and a mask uint8. By default 5.7 blocks of pixels."""
    generator = torch.Generator().manual_seed(math.prod(shape))
    logits = spread * torch.randn(shape, generator=generator)
    return logits, (torch.rand(shape, generator=generator) < 0.2).to(torch.uint8)


def sums_and_gradient(logits: Tensor, target: Tensor, weight: float, triton: bool = False) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().requires_grad_()
    sums = dice_ce_sums(leaf, target, weight, triton=triton)
    return sums.detach(), torch.autograd.grad(sums @ PULL.to(sums), leaf)[0]


def test_by_hand() -> None:
    """Probabilities 1/2, 3/4 and 9/10; the first and the last pixel bleed."""
    logits = torch.tensor([0.0, math.log(3), math.log(9)], dtype=torch.float64)
    target = torch.tensor([True, False, True])
    entropy = -5 * math.log(0.5) - math.log(0.25) - 5 * math.log(0.9)
    expected = torch.tensor([1.4, 2.15 + 2, entropy, 3], dtype=torch.float64)
    torch.testing.assert_close(dice_ce_sums(logits, target, 5.0), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("weight", [1.0, 3.5])
def test_reference_is_scipys(weight: float) -> None:
    logits, target = batch()
    x, t = logits.double().numpy(), target.double().numpy()
    p = special.expit(x)
    entropy = -(weight * t * special.log_expit(x) + (1 - t) * special.log_expit(-x))
    expected = [(p * t).sum(), (p + t).sum(), entropy.sum(), x.size]
    found = dice_ce_sums(logits.double(), target, weight)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    with torch.autocast("cpu", torch.bfloat16):
        single = dice_ce_sums(logits, target, weight)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("weight", [1.0, 3.5])
def test_gradient_of_the_reference_is_that_of_its_values(weight: float) -> None:
    logits, target = batch((2, 1, 3, 5), 2.0)
    torch.autograd.gradcheck(lambda x: dice_ce_reference(x, target, weight), (logits.double().requires_grad_(),))


def test_sums_give_the_losses() -> None:
    logits, target = batch()
    sums = dice_ce_sums(logits.double(), target, 2.0)
    loss = losses.build("dice-cross-entropy", dice_weight=0.7, positive_weight=2.0)
    found = sums[2] / sums[3] - 0.7 * losses.dice_ratio(sums[:2])
    torch.testing.assert_close(found, loss(logits.double(), target), rtol=1e-12, atol=0)


def check_agreement(device: str, dtype: torch.dtype, target_dtype: torch.dtype, weight: float) -> None:
    """Sums to 1e-6 of the reference in float64 on the same logits; gradients to 1e-6, or to a logit's own rounding
    (Triton's interpreter does not round to bfloat16, it cuts off)."""
    logits, target = batch()
    logits, target = logits.to(dtype), target.to(target_dtype)
    exact, slopes = sums_and_gradient(logits.double(), target, weight)
    found, gradient = sums_and_gradient(logits.to(device), target.to(device), weight, triton=True)
    assert found.dtype == torch.float32 and gradient.dtype == dtype
    torch.testing.assert_close(found.cpu().double(), exact, rtol=1e-6, atol=0)
    assert found[3] == target.numel()
    rounding = torch.finfo(dtype).eps / (1 if (device, dtype) == ("cpu", torch.bfloat16) else 2)
    smallest = torch.finfo(dtype).smallest_normal * rounding
    torch.testing.assert_close(gradient.cpu().double(), slopes, rtol=rounding + 1e-6, atol=1e-7 + smallest)
    single = sums_and_gradient(logits, target, weight)
    torch.testing.assert_close(found.cpu(), single[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.cpu(), single[1], rtol=2 * rounding + 1e-6, atol=1e-6)


def check_small_probabilities(device: str) -> None:
    """Sure of almost every pixel, right or wrong: what is small is as exact, relatively, as what is large."""
    for middle in (-16, -12, -8, -4, 4, 8, 12, 16):  # further out float64 cancels in the reference
        x = torch.linspace(middle - 0.4, middle + 0.4, 1500)
        for t in (torch.zeros(1500), torch.ones(1500)):
            exact, slopes = sums_and_gradient(x.double(), t, 1.0)
            found, gradient = sums_and_gradient(x.to(device), t.to(device), 1.0, triton=True)
            torch.testing.assert_close(found.cpu().double(), exact, rtol=3e-6, atol=0)
            torch.testing.assert_close(gradient.cpu().double(), slopes, rtol=1e-5, atol=1e-12)


def check_huge_logits(device: str) -> None:
    _, target = batch()
    for dtype in HALVES:
        for sign in (1, -1):
            logits = (sign * 1e4 * (2 * target.float() - 1)).to(dtype)
            exact, _ = sums_and_gradient(logits.double(), target, 3.0)
            for triton in (False, True):
                place = device if triton else "cpu"
                found, gradient = sums_and_gradient(logits.to(place), target.to(place), 3.0, triton)
                assert found.isfinite().all() and gradient.isfinite().all()
                torch.testing.assert_close(found.cpu().double(), exact, rtol=1e-6, atol=0)


def check_layouts(device: str) -> None:
    """Logits and target in any order in memory, one pixel, and none."""
    logits, target = batch((2, 3, 25, 21))
    plain = sums_and_gradient(logits, target, 2.0)
    wide, framed = logits.transpose(2, 3).contiguous().transpose(2, 3), torch.zeros(2, 3, 30, 40)
    framed[..., 2:27, 5:26] = logits
    last = {"memory_format": torch.channels_last}
    for x in (logits, logits.contiguous(**last), wide, framed[..., 2:27, 5:26]):
        for t in (target, target.contiguous(**last)):
            found, gradient = sums_and_gradient(x.to(device), t.to(device), 2.0, triton=True)
            torch.testing.assert_close(found.cpu(), plain[0], rtol=1e-6, atol=0)
            torch.testing.assert_close(gradient.cpu(), plain[1], rtol=1e-6, atol=1e-6)
    one = logits[:, :1].contiguous(**last)
    assert one.stride() != logits[:, :1].contiguous().stride()
    gradient = sums_and_gradient(one.to(device), target[:, :1].to(device), 2.0, triton=True)[1]
    assert gradient.stride() == one.stride()
    for shape, count in (((1, 1, 1, 1), 1), ((0, 1, 8, 8), 0)):
        x, t = (part.to(device) for part in batch(shape))
        found, gradient = sums_and_gradient(x, t, 1.0, triton=True)
        torch.testing.assert_close(found.cpu(), sums_and_gradient(x.cpu(), t.cpu(), 1.0)[0], rtol=1e-6, atol=0)
        assert found[3] == count and gradient.shape == shape


def check_repeats(device: str) -> None:
    logits, target = (part.to(device) for part in batch())
    first = sums_and_gradient(logits.bfloat16(), target, 2.0, triton=True)
    for _ in range(3):
        again = sums_and_gradient(logits.bfloat16(), target, 2.0, triton=True)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def check_refusals(device: str) -> None:
    logits, target = (part.to(device) for part in batch((1, 1, 4, 4)))
    with pytest.raises(ValueError, match="float32, bfloat16 or float16, not torch.float64"):
        dice_ce_sums(logits.double(), target, triton=True)
    squared = dice_ce_sums(logits.requires_grad_(), target, triton=True).square().sum()
    (slope,) = torch.autograd.grad(squared, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def check_graph(device: str) -> None:
    """Forward and backward recorded once and replayed on other numbers in the same memory."""
    logits, target = (part.to(device) for part in batch())
    sums_and_gradient(logits, target, 2.0, triton=True)  # builds the kernels
    leaf, pull, graph = logits.clone().requires_grad_(), PULL.to(device), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        sums = dice_ce_sums(leaf, target, 2.0, triton=True)
        (gradient,) = torch.autograd.grad((sums * pull).sum(), leaf)
    for factor in (1.0, -0.5):
        leaf.data.copy_(logits * factor)
        graph.replay()
        expected = sums_and_gradient(logits * factor, target, 2.0, triton=True)
        assert torch.equal(sums.detach(), expected[0])
        torch.testing.assert_close(gradient, expected[1], rtol=1e-6, atol=1e-7)


def build_all(capability: int) -> list[str]:
    from ahead import BUILT, compile_only
    from hemotorch.training.kernels.dice_ce_triton import Sums

    compile_only(capability)
    for dtype in HALVES:
        for target_dtype in (torch.uint8, torch.bool, torch.float32):
            leaf = torch.zeros(1 if dtype == torch.float16 else 3000, dtype=dtype, requires_grad=True)
            torch.autograd.grad(Sums.apply(leaf, torch.zeros(leaf.shape, dtype=target_dtype), 2.0).sum(), leaf)
    return BUILT


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("target_dtype", [torch.uint8, torch.bool, torch.float32, torch.int64])
def test_kernels_are_the_reference(interpreted: Interpreted, dtype: torch.dtype, target_dtype: torch.dtype) -> None:
    interpreted(check_agreement, "cpu", dtype, target_dtype, 2.5 if target_dtype == torch.uint8 else 1.0)


CHECKS = [check_small_probabilities, check_huge_logits, check_layouts, check_repeats, check_refusals]


@pytest.mark.parametrize("check", CHECKS)
def test_kernels(interpreted: Interpreted, check: Callable[[str], None]) -> None:
    interpreted(check, "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_kernels_on_a_gpu() -> None:
    for dtype in HALVES:
        for target_dtype in (torch.uint8, torch.bool, torch.float32, torch.int64):
            check_agreement("cuda", dtype, target_dtype, 2.5)
    for check in (*CHECKS, check_graph):
        check("cuda")


def test_kernels_can_be_built_for_gpus(built: Interpreted) -> None:
    """What the interpreter lets pass and the compiler does not."""
    assert built(build_all, 80) == ["_forward", "_backward"] * 9


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1, 4, 4\) and target \(2, 4, 4\) differ in shape"):
        dice_ce_sums(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4))


def test_without_a_gpu_the_kernels_are_refused() -> None:
    with pytest.raises(OptionError, match="Triton's kernels were asked for, but"):
        dice_ce_sums(*batch(), triton=True)
