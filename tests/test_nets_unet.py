"""`unet`: Ronneberger's sizes, and valid convolutions with mirrored margins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hemotorch import nets
from hemotorch.nets.unet import Unet, mirror


def test_64_to_1024_channels_and_the_articles_number_of_weights() -> None:
    """31,030,658 parameters are known of the article's network with its two-class output; here the output is one."""
    body = nets.build("unet").body
    assert [block[0].out_channels for block in body.down] == [64, 128, 256, 512, 1024]
    assert sum(p.numel() for p in body.parameters()) == 31_030_658 - (64 + 1)


def test_valid_convolutions_lose_what_the_article_says() -> None:
    """572x572 in, 388x388 out: with the margin taken away, the centre crop has nothing to cut."""
    body = Unet(1, channels=2, valid=True).eval()
    assert body.margin == (572 - 388) // 2 + 2
    body.margin = 0
    seen = []
    body.last.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    with torch.no_grad():
        body(torch.zeros(1, 1, 572, 572))
    assert seen == [(1, 1, 388, 388)]


def test_valid_and_padded_agree_far_from_the_edge() -> None:
    """Same weights, same pooling grid: only where the padded one has seen zeros do the two differ."""
    torch.manual_seed(0)
    padded = nets.build("unet", channels=3, levels=3).eval()
    valid = nets.build("unet", channels=3, levels=3, padding="valid").eval()
    valid.load_state_dict(padded.state_dict())
    hu = torch.randint(-100, 200, (1, 1, 80, 64), dtype=torch.int16)
    with torch.no_grad():
        a, b = padded(hu), valid(hu)
    assert a.shape == b.shape == (1, 1, 80, 64)
    reach = valid.body.margin
    inner = (..., slice(reach, -reach), slice(reach, -reach))
    torch.testing.assert_close(a[inner], b[inner], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("size", [(1, 2), (3, 8), (30, 5)])
def test_mirror_is_numpys_reflect(size: tuple[int, int]) -> None:
    """Also where the margin is many times the image."""
    x = torch.arange(size[0] * size[1]).reshape(1, 1, *size)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (17, 17), (17, 17)), mode="reflect")
    np.testing.assert_array_equal(mirror(x, 17).numpy(), expected)


def test_weights_start_as_in_the_article() -> None:
    torch.manual_seed(0)
    body = nets.build("unet", channels=32, levels=3).body
    conv = body.down[2][2]
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert conv.bias.abs().max() == 0


def test_dropout_on_the_two_deepest_levels_only() -> None:
    torch.manual_seed(0)
    body = nets.build("unet", channels=4, levels=4).body
    dropped = []
    for layer in body.drop:
        layer.register_forward_hook(lambda module, inputs, output: dropped.append(output.shape[1]))
    body(torch.rand(1, 1, 16, 16))
    assert dropped == [16, 32] and all(layer.p == 0.5 for layer in body.drop)


def test_batch_norm_is_an_option() -> None:
    count = [
        sum(isinstance(m, nn.BatchNorm2d) for m in nets.build("unet", channels=2, batch_norm=on).modules())
        for on in (False, True)
    ]
    assert count == [0, 18]
