"""Half and twice the size: torch's own values, and its own gradients gathered."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hemotorch.nets.scale import Doubled, Halved, doubled, halved

SIZES = ((2, 3, 4, 6), (1, 8, 2, 2), (3, 1, 8, 2))


def both(size: tuple[int, ...], layout: torch.memory_format, distinct: int) -> Tensor:
    """Of few distinct values, so that many pixels are equal."""
    values = torch.randint(0, distinct, size, generator=torch.Generator().manual_seed(1)).double() / distinct
    return values.contiguous(memory_format=layout).requires_grad_()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", SIZES)
def test_gathered_gradients_are_torchs_own(size: tuple[int, ...], layout: torch.memory_format) -> None:
    for ours, torchs, distinct in (
        (Doubled.apply, lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), 1000),
        (Halved.apply, lambda x: F.max_pool2d(x, 2), 3),
    ):
        x = both(size, layout, distinct)
        out, wanted = ours(x), torchs(x)
        assert torch.equal(out, wanted)
        pull = both(tuple(out.shape), layout, 1000).detach()
        (found,), (gradient,) = torch.autograd.grad(out, x, pull), torch.autograd.grad(wanted, x, pull)
        assert torch.allclose(found, gradient, rtol=0, atol=1e-14) and found.abs().sum() > 0


def test_the_gradient_of_a_part_of_the_channels_stays_channels_last() -> None:
    x = both((2, 8, 4, 4), torch.channels_last, 1000)
    skipped = both((2, 8, 8, 8), torch.channels_last, 1000)
    (found,) = torch.autograd.grad(torch.cat([Doubled.apply(x), skipped], dim=1).square().sum(), x)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_on_a_cpu_they_are_torchs() -> None:
    x = both((1, 2, 4, 4), torch.channels_last, 1000)
    for out, name in ((halved(x), "MaxPool"), (doubled(x), "Upsample"), (doubled(x, True), "Upsample")):
        assert out.grad_fn is not None and name in type(out.grad_fn).__name__
