"""Dropout by keys: each sample's own, whole channels or single values, in the share that was asked for."""

from __future__ import annotations

import pytest
import torch

from hemotorch import nets
from hemotorch.draws import keys
from hemotorch.nets.dropout import Dropout, draw


@pytest.mark.parametrize("channels", [False, True])
def test_it_drops_its_share_and_keeps_the_mean(channels: bool) -> None:
    layer = Dropout(0.3, channels)
    draw(layer, keys(0, 0, 1, 64)[0])
    out = layer(torch.ones(64, 50, 6, 7))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert (out == 0).float().mean() == pytest.approx(0.3, abs=0.02)
    whole = (out == 0).flatten(2).float().mean(2)
    assert bool(((whole == 0) | (whole == 1)).all()) == channels


def test_a_sample_has_its_own_whoever_is_beside_it() -> None:
    layer, made = Dropout(0.5), keys(0, 0, 1, 6)[0]
    draw(layer, made)
    whole = layer(torch.ones(6, 3, 4, 4))
    draw(layer, made[1::2])
    assert torch.equal(layer(torch.ones(3, 3, 4, 4)), whole[1::2])
    assert not torch.equal(whole[0], whole[1])


def test_layers_draw_apart_and_evaluation_drops_nothing() -> None:
    net = torch.nn.Sequential(Dropout(0.5), Dropout(0.5))
    draw(net, keys(0, 0, 1, 1)[0])
    first, second = (layer(torch.ones(1, 1, 40, 40)) == 0 for layer in net)
    assert 0.4 < (first == second).float().mean() < 0.6
    assert torch.equal(net.eval()(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_a_step_is_the_same_again_with_its_keys_and_random_without() -> None:
    net = nets.build("unet-medicaltorch", channels=4)
    hu = torch.full((2, 1, 16, 16), 40.0)
    net.draw(keys(0, 0, 1, 2)[0])
    with torch.no_grad():
        assert torch.equal(net(hu), net(hu))
        net.draw(None)
        assert not torch.equal(net(hu), net(hu))
