"""`unet-medicaltorch` against the published package, installed without its dependencies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import require
from hemotorch import nets
from hemotorch.errors import OptionError
from hemotorch.hu import apply_window
from hemotorch.keyed_random import keys
from hemotorch.nets import Net, medicaltorch, scale
from hemotorch.nets.dropout import Dropout
from hemotorch.nets.scale import Doubled
from hemotorch.training import losses


def theirs(seed: int = 0) -> nn.Module:
    """MedicalTorch's network in evaluation mode, its running averages and batch-norm weights away from their start."""
    models = require("medicaltorch.models")
    torch.manual_seed(seed)
    net = models.Unet()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, 0.0, 0.3)
            nn.init.uniform_(module.running_var, 0.2, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return net.eval()


@pytest.mark.filterwarnings("ignore:nn.functional.sigmoid is deprecated")
def test_loads_their_weights_and_gives_their_numbers() -> None:
    reference = theirs()
    net = nets.build("unet-medicaltorch").eval()
    net.body.load_state_dict(reference.state_dict(), strict=True)
    hu = torch.randint(-100, 200, (2, 1, 64, 48), dtype=torch.int16)
    with torch.no_grad():
        expected = reference(apply_window(hu, 40, 120))
        ours = net(hu).sigmoid()
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:nn.functional.sigmoid is deprecated")
def test_trains_like_theirs_without_dropout() -> None:
    """Batch statistics, running averages and gradients: one step of training agrees too."""
    reference = theirs().train()
    net = nets.build("unet-medicaltorch", drop_rate=0.0).train()
    net.body.load_state_dict(reference.state_dict())
    for module in reference.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    reference.double()
    net.double()
    hu = torch.randint(-100, 200, (2, 1, 32, 32), dtype=torch.int16)
    reference(apply_window(hu, 40, 120).double()).sum().backward()
    net(hu).sigmoid().sum().backward()
    for (key, ours), (_, expected) in zip(net.body.named_parameters(), reference.named_parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-7, atol=1e-9, msg=key)
    for (key, ours), (_, expected) in zip(net.body.named_buffers(), reference.named_buffers(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12, msg=key)


def test_one_seed_starts_both_alike() -> None:
    models = require("medicaltorch.models")
    torch.manual_seed(5)
    reference = models.Unet().state_dict()
    torch.manual_seed(5)
    ours = nets.build("unet-medicaltorch").body.state_dict()
    assert list(ours) == list(reference)
    assert all(torch.equal(ours[key], reference[key]) for key in ours)


def test_has_their_dropout() -> None:
    models = require("medicaltorch.models")
    ours = {
        key: m.p
        for key, m in nets.build("unet-medicaltorch").body.named_modules()
        if isinstance(m, Dropout) and m.channels
    }
    expected = {key: m.p for key, m in models.Unet().named_modules() if isinstance(m, nn.Dropout2d)}
    assert ours == expected and len(ours) == 14 and set(ours.values()) == {0.4}


def test_align_corners_is_an_option() -> None:
    torch.manual_seed(0)
    release = nets.build("unet-medicaltorch", channels=4).eval()
    newest = nets.build("unet-medicaltorch", channels=4, align_corners=True).eval()
    newest.load_state_dict(release.state_dict())
    hu = torch.randint(-100, 200, (1, 1, 32, 32), dtype=torch.int16)
    assert not torch.allclose(newest(hu), release(hu), atol=1e-4)


def loss_and_gradients(net: Net, model: Any, step: int) -> tuple[Tensor, list[Tensor]]:
    random = torch.Generator().manual_seed(step)
    hu = 60 * torch.randn((2, 1, 32, 48), generator=random, dtype=torch.float64) + 40
    target = (torch.rand(hu.shape, generator=random) > 0.9).double()
    net.set_dropout_keys(keys(0, step, 1, 2)[0])
    loss = losses.build("negative-dice")(model(hu), target)
    return loss.detach(), list(torch.autograd.grad(loss, list(net.parameters())))


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.long)])
def test_what_is_computed_otherwise_on_a_gpu_is_the_same(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    """As far as a CPU goes: in float64, where it differs by rounding alone; compiled it is Inductor's for a CPU."""
    net = nets.build("unet-medicaltorch", channels=8).double().to(memory_format=torch.channels_last).train()
    wanted = [loss_and_gradients(net, net, step) for step in range(2)]
    asked: list[str] = []
    for module in (scale, medicaltorch):
        monkeypatch.setattr(module, "compiled_for_gpu", lambda x: asked.append("asked") or True)
    monkeypatch.setattr(medicaltorch, "doubled", lambda x, align_corners: Doubled.apply(x))
    options = {"force_layout_optimization": True}
    model = torch.compile(net, dynamic=False, options=options) if compiled else net
    for step, (loss, gradients) in enumerate(wanted):
        found, ours = loss_and_gradients(net, model, step)
        torch.testing.assert_close(found, loss, rtol=0, atol=1e-12)
        for one, other in zip(ours, gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)
    assert compiled or len(asked) == 2 * (3 + 15)


def test_drop_rate_out_of_range() -> None:
    with pytest.raises(OptionError, match="drop_rate"):
        nets.build("unet-medicaltorch", drop_rate=1.5)
