"""What every network promises: its window, its shapes, its options, and that a checkpoint can rebuild it."""

from __future__ import annotations

import copy
import io
import itertools
import json
import tomllib

import numpy as np
import pytest
import tomli_w
import torch
from torch import Tensor

from hemotorch import hu, nets
from hemotorch.errors import InputError, OptionError
from hemotorch.task import BLEEDING, TYPED

SMALL = {
    "compact": {"channels": [4, 8, 8]},
    "unet-medicaltorch": {"channels": 4},
    "unet": {"channels": 4, "levels": 3},
    "mlp": {"patch": 5, "hidden": [6, 5]},
}


def small(name: str, **options: object) -> nets.Net:
    torch.manual_seed(0)
    return nets.build(name, **SMALL[name] | options).eval()


def head(slices: int = 1, size: int = 32, count: int = 2, seed: int = 0) -> Tensor:
    """HU of tissue, bone and air, (count, slices, size, size) int16."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1024, 3000, (count, slices, size, size), generator=generator, dtype=torch.int16)


def test_every_network_is_tested_here() -> None:
    assert set(SMALL) == set(nets.NETS)


@pytest.mark.parametrize("name", SMALL)
def test_hu_in_logits_out(name: str) -> None:
    net = small(name)
    rows, columns = (5, 11) if net.multiple == 1 else (net.multiple, 3 * net.multiple)
    ct = head(net.slices, 64)[:, :, :rows, :columns]
    logits = net(ct)
    assert logits.shape == (2, 1, rows, columns) and logits.dtype == torch.float32
    torch.testing.assert_close(net(ct.float()), logits, rtol=0, atol=0)
    assert logits.std() > 0  # not blind to what it is shown


@pytest.mark.parametrize("name", SMALL)
def test_an_output_per_channel_of_the_task(name: str) -> None:
    torch.manual_seed(0)
    net = nets.build_for(TYPED, name, SMALL[name]).eval()
    logits = net(head(net.slices))
    assert net.outputs == net.options["outputs"] == logits.shape[1] == 7
    pairs = itertools.pairwise(logits.unbind(dim=1))
    assert not any(torch.equal(a, b) for a, b in pairs)  # each output has weights of its own
    again = nets.build(net.name, **net.options).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(head(net.slices)), logits)
    with pytest.raises(OptionError, match="net.options.outputs: is not set: it follows from the task"):
        nets.build_for(TYPED, name, {"outputs": 7})


@pytest.mark.parametrize("name", SMALL)
def test_one_output_is_what_networks_had_before_there_were_several(name: str) -> None:
    plain = small(name)
    torch.manual_seed(0)
    bleeding = nets.build_for(BLEEDING, name, SMALL[name])
    assert plain.outputs == 1 and bleeding.options == plain.options
    for key, value in plain.state_dict().items():
        assert torch.equal(value, bleeding.state_dict()[key])
    without = {key: value for key, value in plain.options.items() if key != "outputs"}
    assert nets.build(name, **without).options == plain.options


def test_a_typed_compact_network_starts_with_as_little_bleeding_as_an_untyped_one() -> None:
    """Its last layer's biases alone, as on features that are all zero."""
    shares = []
    for task in (BLEEDING, TYPED):
        last = nets.build_for(task, "compact", {}).body.last
        logits = last.bias.detach().view(-1, 4).mean(dim=1)
        shares.append(logits.sigmoid() if task is BLEEDING else logits.softmax(dim=0)[:5].sum())
    assert float(shares[0]) == pytest.approx(float(shares[1])) == pytest.approx(0.047, abs=0.001)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("windows", [["brain"], ["blood", [700, 3200.5]]])
def test_slices_and_windows_become_channels(name: str, windows: list) -> None:
    net = small(name, slices=5, windows=windows)
    ct = head(5)
    before = net(ct)
    ct[:, 4] = -1000
    assert not torch.equal(net(ct), before)  # the last neighbour is looked at
    with pytest.raises(InputError, match=r"takes HU \(N, 5, rows, columns\)"):
        net(head(3))


@pytest.mark.parametrize("name", ["compact", "unet-medicaltorch", "unet"])
def test_sizes_that_do_not_fit_are_refused(name: str) -> None:
    net = small(name)
    with pytest.raises(InputError, match=f"multiples of {net.multiple}"):
        net(head(net.slices, net.multiple + 1))


@pytest.mark.parametrize("name", SMALL)
def test_options_rebuild_the_network(name: str) -> None:
    net = small(name)
    options = json.loads(json.dumps(tomllib.loads(tomli_w.dumps(net.options))))
    assert options == net.options
    again = nets.build(net.name, **options)
    assert again.options == net.options and again.multiple == net.multiple and again.slices == net.slices
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True), strict=True)
    ct = head(net.slices)
    torch.testing.assert_close(again.eval()(ct), net(ct), rtol=0, atol=0)


@pytest.mark.parametrize("name", SMALL)
def test_one_seed_one_network(name: str) -> None:
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(torch.cat([p.detach().flatten() for p in nets.build(name, **SMALL[name]).parameters()]))
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_gets_a_gradient(name: str) -> None:
    net = small(name).train()
    net(head(net.slices, 32, count=4)).square().sum().backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        # a bias before batch norm that follows directly would have none: there is no such bias
        assert parameter.grad.abs().max() > 1e-6 * max(parameter.numel(), 1) ** -0.5, key


@pytest.mark.parametrize("name", SMALL)
def test_compiles_whole(name: str) -> None:
    """One graph without a break, as CUDA graphs and torch.compile(fullgraph=True) need; no compiler is run."""
    net = small(name)
    ct = head(net.slices)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(ct), net(ct), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_channels_last_changes_rounding_only(name: str) -> None:
    net = small(name)
    ct = head(net.slices)
    before = net(ct)
    after = net.to(memory_format=torch.channels_last)(ct.to(memory_format=torch.channels_last))
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_a_float64_network_works_in_float64(name: str) -> None:
    net = small(name)
    ct = head(net.slices)
    wide = copy.deepcopy(net).double()(ct)
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide, net(ct).double(), rtol=1e-3, atol=1e-3)


def test_window_is_hus() -> None:
    names = list(hu.WINDOWS)
    layer = nets.WindowLayer([*names, [40, 120.5]])
    ct = head(3)
    seen = layer(ct)
    assert seen.shape == (2, 3 * (len(names) + 1), 32, 32)
    pairs = [(hu.WINDOWS[name].level, hu.WINDOWS[name].width) for name in names] + [(40, 120.5)]
    for channel in range(seen.shape[1]):
        window, piece = divmod(channel, 3)
        expected = hu.apply_window(ct[:, piece].numpy(), *pairs[window])
        np.testing.assert_array_equal(seen[:, channel].numpy(), expected)


def test_window_keeps_the_layout() -> None:
    ct = head(3)
    last = nets.WindowLayer(["brain", "bone"])(ct.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, nets.WindowLayer(["brain", "bone"])(ct), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_window_stays_float32_whatever_the_network_is_cast_to(dtype: torch.dtype) -> None:
    """Levels of 700 and 41.3 HU cannot be written in bfloat16, nor CT values of 1023 HU."""
    layer = nets.WindowLayer([[700, 3200], [41.3, 80]])
    ct = head()
    expected = layer(ct)
    assert expected.dtype == torch.float32
    cast = copy.deepcopy(layer).to(dtype)
    for before, after in zip(layer.bounds, cast.bounds, strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cast(ct), expected)


def test_half_network_has_float32_window_and_half_body() -> None:
    net = small("compact").bfloat16()
    seen = {}
    net.body.register_forward_pre_hook(lambda module, inputs: seen.update(body=inputs[0]))
    net.window.register_forward_hook(lambda module, inputs, output: seen.update(window=output))
    assert net(head(3)).dtype == torch.bfloat16
    assert seen["window"].dtype == torch.float32 and seen["body"].dtype == torch.bfloat16


def test_autocast_reaches_the_body_only() -> None:
    net = small("compact")
    ct = head(3)
    seen = {}
    net.window.register_forward_hook(lambda module, inputs, output: seen.update(window=output))
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(ct)
    assert logits.dtype == torch.bfloat16 and seen["window"].dtype == torch.float32
    torch.testing.assert_close(logits.float(), net(ct), rtol=0.1, atol=0.1)


def test_windows_travel_with_the_weights() -> None:
    other = small("compact", windows=["stroke", "blood", [100, 200]])
    net = small("compact", windows=["brain", "subdural", "bone"])
    net.load_state_dict(other.state_dict())
    for ours, theirs in zip(net.window.bounds, other.window.bounds, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("compat", {}, "unknown network 'compat'; did you mean 'compact'?"),
        ("compact", {"chanels": [4, 4]}, "network 'compact' has no option 'chanels'; did you mean 'channels'?"),
        ("compact", {"channels": 16}, "compact.channels: must be like"),
        ("compact", {"channels": [16]}, "channels: must be at least 2, not 1"),
        ("compact", {"channels": [16, 0]}, "compact.channels: must be at least 1, not 0"),
        ("compact", {"channels": [16, 8.5]}, "compact.channels: must be whole numbers, not 8.5"),
        ("compact", {"slices": 2}, "slices: must be odd, not 2"),
        ("compact", {"slices": -1}, "compact.slices: must be at least 1, not -1"),
        ("compact", {"slices": True}, "compact.slices: must be like 3, not True"),
        ("compact", {"windows": []}, "at least one window"),
        ("compact", {"windows": ["brian"]}, "unknown window 'brian'; did you mean 'brain'?"),
        ("compact", {"windows": [[40]]}, "is not a window"),
        ("compact", {"windows": [40, 120]}, "is not a window"),
        ("compact", {"windows": [[40, -120]]}, "width must be above 0"),
        ("compact", {"windows": "brain"}, "compact.windows: must be like"),
        ("unet", {"padding": "mirror"}, "padding: 'mirror' is neither 'same' nor 'valid'"),
        ("unet", {"levels": 1}, "levels: must be at least 2, not 1"),
        ("unet", {"dropout": 1.5}, "dropout"),
        ("unet-medicaltorch", {"align_corners": 1}, "must be like False, not 1"),
        ("mlp", {"patch": 4}, "patch: must be odd, not 4"),
    ],
)
def test_wrong_names_and_options(name: str, options: dict, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        nets.build(name, **options)
    assert message in str(caught.value)


def test_a_whole_number_will_do_for_a_fraction() -> None:
    assert type(small("compact", bias=-2).options["bias"]) is float


def test_flops_of_a_single_layer_by_hand() -> None:
    """A 3x3 patch, 7 units, 10x10 pixels: 2 * 100 * (7 * 9 + 7), a multiply-add counted as two."""
    assert nets.flops(nets.build("mlp", patch=3, hidden=[7]), 10) == pytest.approx(2 * 100 * (7 * 9 + 7) / 1e9)


def test_flops_of_the_default_networks() -> None:
    """The issue's limit for `compact`, and its figure for the paper's network: 0.9 TFLOP to train on an image."""
    assert nets.flops(nets.build("compact"), 512) < 10
    assert 3 * nets.flops(nets.build("unet-medicaltorch"), 512) == pytest.approx(900, rel=0.03)


def test_pixels_of_a_typed_network_begin_alike():
    """Weights of their own for the four pixels of a square made rows of pixels alternate between two types."""
    torch.manual_seed(0)
    net = nets.build("compact", outputs=7, channels=[8, 8], slices=1, windows=["brain"])
    logits = net(torch.randint(0, 80, (1, 1, 16, 16)))
    assert torch.equal(logits, logits[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2))
