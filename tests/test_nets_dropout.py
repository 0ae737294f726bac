"""Dropout by keys: each sample's own, whole channels or single values, in the share that was asked for."""

from __future__ import annotations

import itertools

import pytest
import torch

from hemotorch import nets
from hemotorch.keyed_random import BENDING, NOISE, fold, keys, uniform
from hemotorch.nets.dropout import Dropout, set_dropout_keys


@pytest.mark.parametrize("channels", [0, 50])
def test_it_drops_its_share_and_keeps_the_mean(channels: int) -> None:
    layer = Dropout(0.3, channels)
    set_dropout_keys([layer], keys(0, 0, 1, 640)[0])
    out = layer(torch.ones(640, 50, 6, 7))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert (out == 0).float().mean() == pytest.approx(0.3, abs=0.02)
    whole = (out == 0).flatten(2).float().mean(2)
    assert bool(((whole == 0) | (whole == 1)).all()) == bool(channels)


def test_a_sample_has_its_own_whoever_is_beside_it() -> None:
    layer, made = Dropout(0.5), keys(0, 0, 1, 6)[0]
    set_dropout_keys([layer], made)
    whole = layer(torch.ones(6, 3, 4, 4))
    set_dropout_keys([layer], made[1::2])
    assert torch.equal(layer(torch.ones(3, 3, 4, 4)), whole[1::2])
    assert not torch.equal(whole[0], whole[1])


def test_layers_draw_apart_and_evaluation_drops_nothing() -> None:
    net, made = nets.build("unet-medicaltorch", channels=4), keys(0, 0, 1, 400)[0]
    net.set_dropout_keys(made)
    first, second = [layer for layer in net.train().modules() if isinstance(layer, Dropout)][:2]
    drawn = [(layer(torch.ones(400, 4, 1, 1)) == 0).flatten() for layer in (first, second)]
    # Nor as the noise and the bending of the sample's augmentation.
    drawn += [(uniform(fold(made, use), (4,)) < first.p).flatten() for use in (NOISE, BENDING)]
    for one, other in itertools.combinations(drawn, 2):
        assert (one & other).float().mean() == pytest.approx(first.p**2, abs=0.05)
    assert torch.equal(first.eval()(torch.ones(400, 4, 4, 4)), torch.ones(400, 4, 4, 4))


def test_bfloat16_is_scaled_as_exactly_as_it_can_be() -> None:
    layer = Dropout(0.4)
    set_dropout_keys([layer], keys(0, 0, 1, 1)[0])
    out = layer(torch.full((1, 1, 9, 9), 194.0, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16 and set(out.unique().tolist()) == {0.0, 324.0}, "by a rounded 1 / 0.6 it is 322"


def test_a_step_is_the_same_again_with_its_keys_and_random_without() -> None:
    net = nets.build("unet-medicaltorch", channels=4)
    hu = torch.full((2, 1, 16, 16), 40.0)
    net.set_dropout_keys(keys(0, 0, 1, 2)[0])
    with torch.no_grad():
        assert torch.equal(net(hu), net(hu))
        net.set_dropout_keys(None)
        assert not torch.equal(net(hu), net(hu))
