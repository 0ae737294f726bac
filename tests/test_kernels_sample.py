"""Sampling: its reference against SciPy, its kernel against the reference, and what both must give exactly."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from hemotorch.errors import OptionError
from hemotorch.hu import AIR_HU
from hemotorch.nets.net import WindowLayer
from hemotorch.task import BLEEDING_BITS, INSIDE_BIT, OUTSIDE_BIT
from hemotorch.training.kernels import available
from hemotorch.training.kernels.sample import Samples, node_weights, sample

Interpreted = Callable[..., Any]
STILL = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
TURNED = torch.tensor([[[0.9, 0.2, 0.05], [-0.15, 1.1, -0.1]], [[-1.3, 0.4, 0.3], [0.3, 0.8, 0.2]]])
SIZES = [(37, 53), (24, 31), (1, 1), (1, 70), (70, 1)]


def slices(count: int = 6, height: int = 37, width: int = 53) -> tuple[Tensor, Tensor]:
    """Noise from air to metal, and half of all pixels bleeding: the hardest case for agreement."""
    generator = torch.Generator().manual_seed(count * height + width)
    hu = torch.randint(AIR_HU, 3000, (count, height, width), generator=generator, dtype=torch.int16)
    return hu, torch.randint(0, 2, hu.shape, generator=generator, dtype=torch.uint8)


def typed(count: int = 6, height: int = 37, width: int = 53) -> Tensor:
    """Targets of every kind of set, another one at each pixel."""
    generator = torch.Generator().manual_seed(count + height * width)
    values = torch.tensor([0, 0, INSIDE_BIT, OUTSIDE_BIT, 1, 2, 4, 0b10001, BLEEDING_BITS], dtype=torch.uint8)
    return values[torch.randint(0, len(values), (count, height, width), generator=generator)]


def picks(count: int = 2, wide: int = 3) -> Tensor:
    return torch.arange(count * wide).flip(0).view(count, wide)


def changes(count: int = 2, nodes: int = 4, windows: bool = False) -> dict[str, Any]:
    """All options, drawn."""
    generator = torch.Generator().manual_seed(nodes)
    found: dict[str, Any] = {
        "field": 0.1 * torch.randn(count, 2, nodes, nodes, generator=generator),
        "gain": 0.5 + torch.rand(count, generator=generator),
        "offset": 10 * torch.randn(count, generator=generator),
    }
    return {**found, "windows": WindowLayer(["brain", "bone"]).bounds} if windows else found


def by_scipy(
    hu: np.ndarray, mask: np.ndarray, theta: np.ndarray, size: tuple[int, int], field: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One image (H, W), pixel by pixel: HU, and the share of bleeding that decides about the mask."""
    places = np.empty((2, *size))
    nodes = field.shape[-1]
    for i, j in np.ndindex(size):
        start = np.array([(2 * j + 1) / size[1] - 1, (2 * i + 1) / size[0] - 1, 1])
        x, y = theta @ start
        at = i / (size[0] - 1) * (nodes - 1), j / (size[1] - 1) * (nodes - 1)
        for row, column in np.ndindex(nodes, nodes):
            near = np.clip([1 - abs(at[0] - row), 1 - abs(at[1] - column)], 0, 1)
            weight = np.prod(3 * near**2 - 2 * near**3)
            x, y = x + weight * field[0, row, column], y + weight * field[1, row, column]
        places[:, i, j] = ((y + 1) * hu.shape[0] - 1) / 2, ((x + 1) * hu.shape[1] - 1) / 2
    options: dict[str, Any] = {"order": 1, "mode": "grid-constant"}
    return (
        ndimage.map_coordinates(hu.astype(float), places, cval=AIR_HU, **options),
        ndimage.map_coordinates(mask.astype(float), places, cval=0, **options),
    )


def test_reference_is_scipys() -> None:
    (hu, mask), rows, options = slices(), picks(), changes()
    found, target = sample(Samples(hu, mask, rows, TURNED.double(), (24, 31), **options))
    assert found.shape == (2, 3, 24, 31) and target.shape == (2, 1, 24, 31) and target.dtype == torch.uint8
    for n in range(2):
        for s in range(3):
            image, bleeding = (stack[rows[n, s]].numpy() for stack in (hu, mask))
            theta, field = TURNED[n].double().numpy(), options["field"][n].double().numpy()
            moved, share = by_scipy(image, bleeding, theta, (24, 31), field)
            changed = 40 + (moved - 40) * float(options["gain"][n]) + float(options["offset"][n])
            np.testing.assert_allclose(found[n, s].numpy(), changed, rtol=0, atol=1e-8)
            if s == 1:
                clear = abs(share - 0.5) > 1e-9
                assert clear.mean() > 0.99
                np.testing.assert_array_equal(target[n, 0].numpy()[clear], share[clear] >= 0.5)


def nearest_by_hand(target: np.ndarray, theta: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One target (H, W), pixel by pixel, from the rule; and by how much each pixel is decided."""
    out, margin = np.zeros(size, np.uint8), np.zeros(size)
    height, width = target.shape
    for i, j in np.ndindex(size):
        x, y = theta @ np.array([(2 * j + 1) / size[1] - 1, (2 * i + 1) / size[0] - 1, 1])
        row, column = ((y + 1) * height - 1) / 2, ((x + 1) * width - 1) / 2
        corners = []
        for r in (int(np.floor(row)), int(np.floor(row)) + 1):
            for c in (int(np.floor(column)), int(np.floor(column)) + 1):
                value = int(target[r, c]) if 0 <= r < height and 0 <= c < width else 0
                corners.append(((1 - abs(row - r)) * (1 - abs(column - c)), value))
        share = sum(weight for weight, value in corners if value & BLEEDING_BITS)
        ranked = sorted((weight, value) for weight, value in corners if bool(value & BLEEDING_BITS) == (share >= 0.5))
        out[i, j] = ranked[-1][1]
        second = ranked[-2][0] if len(ranked) > 1 else 0.0
        margin[i, j] = min(abs(share - 0.5), ranked[-1][0] - second)
    return out, margin


def test_a_target_of_sets_is_that_of_the_nearest_pixel_that_bleeds_or_does_not() -> None:
    (hu, _), target, rows = slices(), typed(), picks()
    _, moved = sample(Samples(hu, target, rows, TURNED.double(), (24, 31)))
    for n in range(2):
        expected, margin = nearest_by_hand(target[rows[n, 1]].numpy(), TURNED[n].double().numpy(), (24, 31))
        clear = margin > 1e-9
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(moved[n, 0].numpy()[clear], expected[clear])
    assert set(moved.unique().tolist()) == set(target.unique().tolist())


def test_a_target_of_sets_bleeds_where_the_plain_mask_does() -> None:
    (hu, _), target, rows, options = slices(), typed(), picks(), changes()
    plain = ((target & BLEEDING_BITS) > 0).to(torch.uint8)
    _, moved = sample(Samples(hu, target, rows, TURNED, (24, 31), **options))
    _, moved_plain = sample(Samples(hu, plain, rows, TURNED, (24, 31), **options))
    assert torch.equal((moved & BLEEDING_BITS) > 0, moved_plain > 0)
    assert moved_plain.any() and not moved_plain.all()


def check_plain(device: str, triton: bool = True) -> None:
    """Targets of 0 and 1 come out alike, whether or not it is said that they are no more than that."""
    stack = put((*slices(), picks(), TURNED), device)
    options = put(changes(), device)
    as_sets = sample(Samples(*stack, (24, 31), **options), triton)
    plain = sample(Samples(*stack, (24, 31), **options, typed=False), triton)
    assert all(torch.equal(a, b) for a, b in zip(as_sets, plain, strict=True))


def test_targets_of_0_and_1_are_sampled_alike_either_way() -> None:
    check_plain("cpu", triton=False)


def test_reference_in_float32_is_as_exact_as_it_says() -> None:
    (hu, mask), rows, options = slices(), picks(), changes()
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = sample(Samples(hu, mask, rows, TURNED, (24, 31), **options))
    exact, _ = sample(Samples(hu, mask, rows, TURNED.double(), (24, 31), **options))
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 2 * 53 * 6e-8 * 1.5 * 4000  # two axes, W, the largest gain, the contrast


def test_windows_are_the_window_layers() -> None:
    (hu, mask), rows = slices(), picks()
    layer = WindowLayer(["brain", "bone"])
    plain, _ = sample(Samples(hu, mask, rows, TURNED, (24, 31), **changes()))
    shown, _ = sample(Samples(hu, mask, rows, TURNED, (24, 31), **changes(windows=True)))
    assert torch.equal(shown, layer(plain))


def test_field_reaches_its_nodes_at_the_outermost_pixels_and_is_smooth() -> None:
    weights = node_weights(21, 5, torch.device("cpu"))
    assert torch.equal(weights[::5], torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(weights.sum(1), torch.ones(21, dtype=torch.float64), rtol=0, atol=1e-15)
    fine = node_weights(4001, 5, torch.device("cpu")) @ torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5]).double()
    slopes = fine.diff() * 1000
    assert slopes.abs().max() == pytest.approx(1.5 * 3, rel=1e-3)
    assert slopes[999:1001].abs().max() < 0.01  # flat at a node, from both sides


def check_agreement(device: str, size: tuple[int, int], nodes: int, windows: bool) -> None:
    """HU to 2e-3 HU on noise of 4000 HU, and the mask but where half is a matter of rounding."""
    (hu, mask), rows, options = slices(), picks(), changes(nodes=nodes, windows=windows)
    if not nodes:
        options = {"windows": options.pop("windows", None)}
    exact, target = sample(Samples(hu, mask, rows, TURNED.double(), size, **options))
    bleeding = mask.to(torch.int16) * 1000 + AIR_HU  # moved like HU, its share of bleeding comes back unrounded
    share = sample(Samples(bleeding, mask, rows[:, 1:2], TURNED.double(), size, field=options.get("field")))[0]
    share = (share - AIR_HU) / 1000
    there = [put(x, device) for x in (hu, mask, rows, TURNED)]
    found, moved = sample(Samples(*there, size, **put(options, device)), triton=True)
    assert found.dtype == torch.float32 and moved.dtype == torch.uint8 and found.is_contiguous()
    torch.testing.assert_close(found.cpu().double(), exact, rtol=0, atol=1e-4 if windows else 2e-3)
    close = (share - 0.5).abs() <= 1e-5
    assert torch.equal(moved.cpu()[~close], target[~close])
    assert close.float().mean() < 0.01
    assert size[0] * size[1] < 500 or 0.3 < target.float().mean() < 0.6


def put(thing: Any, device: str) -> Any:
    if isinstance(thing, Tensor):
        return thing.to(device)
    if isinstance(thing, dict):
        return {key: put(value, device) for key, value in thing.items()}
    return tuple(put(part, device) for part in thing) if isinstance(thing, tuple) else thing


def check_whole_pixels(device: str, height: int, width: int) -> None:
    """Moves by whole pixels interpolate nothing, however odd the size: the stored integers come back."""
    hu, mask = slices(3, height, width)
    rows = torch.tensor([[2, 0, 1]])
    mirrored = STILL * torch.tensor([[-1.0], [1.0]])
    for theta, expected in ((STILL, hu[rows]), (mirrored, hu[rows].flip(-1)), (-STILL, hu[rows].flip(-1, -2))):
        found, _ = sample(Samples(*[put(x, device) for x in (hu, mask, rows, theta)], (height, width)), triton=True)
        assert torch.equal(found.cpu(), expected.float())
    _, target = sample(Samples(*[put(x, device) for x in (hu, mask, rows, STILL)], (height, width)), triton=True)
    assert torch.equal(target.cpu()[0, 0], mask[0])


def check_crop(device: str) -> None:
    """A cut of 16 x 32 at row 8 and column 20 of 32 x 64, which float32 holds exactly; and one half outside."""
    hu, mask = slices(3, 32, 64)
    rows = torch.tensor([[1]])
    theta = torch.tensor([[[0.5, 0.0, (20 + 16 - 32) / 32], [0.0, 0.5, (8 + 8 - 16) / 16]]])
    found, target = sample(Samples(*[put(x, device) for x in (hu, mask, rows, theta)], (16, 32)), triton=True)
    assert torch.equal(found.cpu()[0, 0], hu[1, 8:24, 20:52].float())
    assert torch.equal(target.cpu()[0, 0], mask[1, 8:24, 20:52])
    theta[0, 0, 2] = 1.0
    found, target = sample(Samples(*[put(x, device) for x in (hu, mask, rows, theta)], (16, 32)), triton=True)
    assert torch.equal(found.cpu()[0, 0, :, :16], hu[1, 8:24, 48:].float())
    assert (found[..., 16:] == AIR_HU).all() and not target[..., 16:].any()


def check_sets(device: str, size: tuple[int, int], nodes: int) -> None:
    """A target of sets is the reference's, but where two pixels are equally near or half is a matter of rounding."""
    (hu, _), target, rows = slices(), typed(), picks()
    field = changes(nodes=nodes)["field"] if nodes else None
    _, expected = sample(Samples(hu, target, rows, TURNED.double(), size, field))
    there = [put(x, device) for x in (hu, target, rows, TURNED)]
    _, moved = sample(Samples(*there, size, put(field, device)), triton=True)
    assert moved.dtype == torch.uint8 and moved.shape == expected.shape
    assert (moved.cpu() == expected).float().mean() > 0.995
    assert size[0] * size[1] < 500 or len(moved.unique()) == len(target.unique())
    _, still = sample(Samples(*there[:3], put(STILL, device).expand(2, 2, 3), (37, 53)), triton=True)
    assert torch.equal(still.cpu()[:, 0], target[rows[:, 1]])


def check_far_outside(device: str) -> None:
    """Where a map leads nowhere there is air, whatever its numbers."""
    hu, mask = slices()
    theta = STILL * torch.tensor([1e30, float("inf"), float("nan"), 1e9])[:, None, None] + 7
    found, target = sample(Samples(*[put(x, device) for x in (hu, mask, picks(4, 1), theta)], (9, 11)), triton=True)
    assert (found == AIR_HU).all() and not target.any()


def check_beyond_32_bits(device: str) -> None:
    """The last of 2.2e9 pixels. Memory that nobody writes to takes none."""
    stacks = [np.zeros((1100, 1400, 1410), kind) for kind in (np.int16, np.uint8)]
    hu, mask = (torch.from_numpy(stack) for stack in stacks)
    assert hu.numel() > 2**31
    hu[-1, -9:, -7:], mask[-1, -9:, -7:] = slices(1, 9, 7)
    expected = hu[-1, -9:, -7:].float(), mask[-1, -9:, -7:].clone()
    theta = torch.tensor([[[7 / 1410, 0, 1 - 7 / 1410], [0, 9 / 1400, 1 - 9 / 1400]]])
    hu, mask = put((hu, mask), device)
    found, target = sample(Samples(hu, mask, *put((torch.tensor([[1099]]), theta), device), (9, 7)), triton=True)
    torch.testing.assert_close(found[0, 0].cpu(), expected[0], rtol=0, atol=1.0)  # theta's own float32: 1e-4 pixels
    assert torch.equal(target[0, 0].cpu(), expected[1])


def check_graph(device: str) -> None:
    """Recorded once and replayed on other numbers in the same memory, on whatever stream records."""
    slabs, theta = put(slices(), device), TURNED.to(device)
    rows, options = picks().to(device), put(changes(windows=True), device)
    sample(Samples(*slabs, rows, theta, (24, 31), **options), triton=True)  # builds the kernel
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = sample(Samples(*slabs, rows, theta, (24, 31), **options), triton=True)
    for turn in (1.0, -1.0):
        theta.copy_(TURNED * turn)
        graph.replay()
        expected = sample(Samples(*slabs, rows, theta, (24, 31), **options), triton=True)
        assert all(torch.equal(a, b) for a, b in zip(out, expected, strict=True))


def build_all(capability: int) -> list[str]:
    from ahead import BUILT, compile_only
    from hemotorch.training.kernels.sample_triton import launch

    compile_only(capability)
    for size, nodes in ((37, 53), 0), ((24, 31), 1), ((24, 31), 4), ((1, 1), 4):
        options = changes(nodes=nodes, windows=nodes == 4) if nodes else {}
        launch(Samples(*slices(), picks(), TURNED, size, **options))
    launch(Samples(*slices(), picks(), TURNED, (24, 31), typed=False))
    return BUILT


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("nodes", "windows"), [(0, False), (1, False), (4, True), (7, False)])
def test_kernel_is_the_reference(interpreted: Interpreted, size: tuple[int, int], nodes: int, windows: bool) -> None:
    interpreted(check_agreement, "cpu", size, nodes, windows)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("nodes", [0, 4])
def test_kernel_moves_sets_as_the_reference_does(interpreted: Interpreted, size: tuple[int, int], nodes: int) -> None:
    interpreted(check_sets, "cpu", size, nodes)


@pytest.mark.parametrize("shape", [(37, 53), (30, 1), (1, 1)])
def test_kernel_gives_whole_pixels_back(interpreted: Interpreted, shape: tuple[int, int]) -> None:
    interpreted(check_whole_pixels, "cpu", *shape)


@pytest.mark.parametrize("check", [check_crop, check_far_outside, check_beyond_32_bits, check_plain])
def test_kernel(interpreted: Interpreted, check: Callable[[str], None]) -> None:
    interpreted(check, "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_kernel_on_a_gpu() -> None:
    for size in SIZES:
        for nodes, windows in ((0, False), (1, False), (4, True), (7, False)):
            check_agreement("cuda", size, nodes, windows)
            check_sets("cuda", size, nodes)
    check_whole_pixels("cuda", 37, 53)
    for check in (check_crop, check_far_outside, check_beyond_32_bits, check_plain, check_graph):
        check("cuda")


def test_kernel_can_be_built_for_gpus(built: Interpreted) -> None:
    """What the interpreter lets pass and the compiler does not."""
    assert built(build_all, 80) == ["_sample"] * 5


def test_no_samples(interpreted: Interpreted) -> None:
    found, target = interpreted(none_at_all)
    assert found == (0, 3, 8, 9) and target == (0, 1, 8, 9)


def none_at_all() -> tuple[tuple[int, ...], ...]:
    pair = sample(Samples(*slices(), picks()[:0], TURNED[:0], (8, 9)), triton=True)
    return tuple(tuple(tensor.shape) for tensor in pair)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"hu": torch.zeros(6, 37, 53)}, r"hu must be torch.int16 \(6, 37, 53\), not torch.float32"),
        ({"target": torch.zeros(6, 37, 52, dtype=torch.uint8)}, r"target must be torch.uint8 \(6, 37, 53\)"),
        ({"rows": picks().int()}, "rows must be torch.int64"),
        ({"theta": TURNED[:1]}, r"theta must be torch.float32 \(2, 2, 3\), not torch.float32 \(1, 2, 3\)"),
        ({"theta": TURNED.half()}, "theta must be torch.float32"),
        ({"field": torch.zeros(2, 2, 3, 4)}, r"field must be torch.float32 \(2, 2, 4, 4\)"),
        ({"gain": torch.ones(3)}, "gain must be"),
        ({"offset": torch.ones(2, 1)}, "offset must be"),
        ({"windows": (torch.zeros(2), torch.ones(1))}, "windows' width must be"),
        ({"size": (0, 5)}, "images must have"),
        ({"size": (2**15, 2**15)}, "images must have"),
        ({"hu": slices()[0].transpose(1, 2).contiguous().transpose(1, 2)}, "must be contiguous"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], expected: str) -> None:
    hu, mask = slices()
    fitting = {"hu": hu, "target": mask, "rows": picks(), "theta": TURNED, "size": (8, 9)}
    sample(Samples(**fitting))
    with pytest.raises(ValueError, match=expected):
        sample(Samples(**{**fitting, **change}))


def test_without_a_gpu_the_kernel_is_refused() -> None:
    assert not available("cpu")
    assert torch.cuda.is_available() or not available("cuda")
    with pytest.raises(OptionError, match="the tensors are on 'cpu', not on a GPU; use triton=False"):
        sample(Samples(*slices(), picks(), TURNED, (8, 9)), triton=True)


def test_nothing_needs_triton() -> None:
    """A process in which triton cannot be imported."""
    program = """
import sys
sys.modules["triton"] = None
import torch
from hemotorch.training import kernels
from hemotorch.training import loop as train
from hemotorch.errors import OptionError
from hemotorch.training.kernels.dice_ce import dice_ce_sums
from hemotorch.training.kernels.sample import Samples, sample
x = torch.zeros(1, 1, 2, 2)
assert dice_ce_sums(x, x).tolist()[3] == 4
assert not kernels.available("cpu") and not kernels.available("cuda")
try:
    dice_ce_sums(x, x, triton=True)
except OptionError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "triton cannot be imported" in done.stdout and len(done.stdout.splitlines()) == 1


def test_triton_is_not_imported_before_a_kernel_is_asked_for() -> None:
    program = """
import sys
import torch
before = "triton" in sys.modules
from hemotorch.training.kernels import dice_ce, sample
sys.exit(("triton" in sys.modules) != before)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
