"""The paper's dataset class, on folders that `prepare --png` wrote; and reading ahead."""

from __future__ import annotations

import shutil
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from hemotorch.data import layouts
from hemotorch.data.dataset import Dataset
from hemotorch.data.prepare import prepare
from hemotorch.errors import InputError
from hemotorch.grid import Grid, SliceSpacing
from hemotorch.keyed_random import keys
from hemotorch.labels import CODES
from hemotorch.scan import CaseInfo, even_scan
from hemotorch.system.device import choose
from hemotorch.system.ranks import Ranks
from hemotorch.task import BLEEDING, INSIDE_BIT, OUTSIDE_BIT, TYPED
from hemotorch.training import batches as batches_module
from hemotorch.training.batches import Plan, _read_ahead, batches
from hemotorch.training.job import open_job
from hemotorch.training.png_pairs import ICHDataset
from hemotorch.training.slices import open_slices
from tiny import opened


@pytest.fixture(scope="module")
def pngs(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("png") / "prepared"
    prepare(tiny_data, out, png=True)
    return out / "png"


def test_elements_are_float_tensors_of_grey_and_label(pngs: Path) -> None:
    data = ICHDataset(pngs)
    assert len(data) == 60 and isinstance(data, torch.utils.data.Dataset)
    bleeding = 0
    for index, name in enumerate(data.names):
        element = data[index]
        assert set(element) == {"input", "gt"}
        for tensor in element.values():
            assert tensor.dtype == torch.float32 and tensor.shape == (1, 64, 64)
        grey = np.asarray(Image.open(pngs / "image" / name), np.float32) / 255
        torch.testing.assert_close(element["input"][0], torch.from_numpy(grey))
        assert set(element["gt"].unique().tolist()) <= {0.0, 1.0}
        bleeding += bool(element["gt"].any())
    assert 7 <= bleeding < 60


def test_a_transform_gets_and_returns_pil_images(pngs: Path) -> None:
    seen = []

    def transform(sample: dict) -> dict:
        seen.append({key: (image.mode, image.size) for key, image in sample.items()})
        return {"input": sample["input"].rotate(90), "gt": "anything"}

    element = ICHDataset(pngs, transform)[3]
    assert seen == [{"input": ("L", (64, 64)), "gt": ("L", (64, 64))}]
    assert isinstance(element["input"], Image.Image) and element["gt"] == "anything"


def test_it_can_still_be_imported_from_where_it_used_to_be() -> None:
    assert batches_module.ICHDataset is ICHDataset


def test_it_loads_in_batches(pngs: Path) -> None:
    batch = next(iter(torch.utils.data.DataLoader(ICHDataset(pngs), batch_size=4, shuffle=True)))
    assert batch["input"].shape == batch["gt"].shape == (4, 1, 64, 64)


def test_folders_it_cannot_use(pngs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no image"):
        ICHDataset(tmp_path)
    root = shutil.copytree(pngs, tmp_path / "copy")
    gone = sorted((root / "label").iterdir())[0]
    gone.unlink()
    with pytest.raises(InputError, match=f"1 images have no label, {gone.name} first"):
        ICHDataset(root)


def test_reading_ahead_keeps_the_order_and_its_distance() -> None:
    begun: list[int] = []

    def read(number: torch.Tensor) -> tuple[torch.Tensor, ...]:
        begun.append(int(number))
        time.sleep(0.02 if int(number) % 3 == 0 else 0)
        return (number * 10,)

    numbers, found = torch.arange(30), []
    for (one,) in _read_ahead(read, numbers, 3):
        found.append(int(one))
        assert max(begun) <= len(found) + 2 * 3 + 1, "memory is bounded"
    assert found == [10 * number for number in range(30)] and sorted(begun) == list(range(30))


def test_an_error_while_reading_ahead_is_raised_where_the_batch_is_waited_for() -> None:
    def read(number: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if int(number) == 4:
            raise InputError("is damaged", "scan 4")
        return (number,)

    found = []
    with pytest.raises(InputError, match="scan 4: is damaged"):
        found += [int(one) for (one,) in _read_ahead(read, torch.arange(30), 2)]
    began = time.monotonic()
    for (one,) in _read_ahead(read, torch.arange(4), 2):
        found.append(int(one))
    assert found[-4:] == [0, 1, 2, 3] and time.monotonic() - began < 10


def test_what_is_streamed_to_a_gpu_is_what_a_cpu_reads(tiny_prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as a CPU goes: pinning is faked, and where the batches are put."""
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda part: pinned.append(part) or part)
    job, _ = opened(tiny_prepared, "data.memory=stream")
    here = list(batches(job.slices, job.plan, 1, job.device))
    inner, gpu = torch.Tensor.to, replace(job.device, name="cuda:0")
    monkeypatch.setattr(
        torch.Tensor, "to", lambda part, *a, **k: part if a[:1] == (gpu.torch_device,) else inner(part, *a, **k)
    )
    monkeypatch.setattr("hemotorch.training.batches.keys", lambda *a: keys(*a[:-1], torch.device("cpu")))
    for first in (0, 4):
        pinned.clear()
        there = list(batches(job.slices, job.plan, 1, gpu, first=first))
        assert len(pinned) == 3 * len(there) == 3 * (7 - first)
        for one, other in zip(here[first:], there, strict=True):
            assert all(
                torch.equal(getattr(one, name), getattr(other, name)) for name in ("hu", "target", "rows", "keys")
            )


@pytest.fixture(scope="module")
def typed_prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three heads of two types of bleeding with what lies inside their skulls; one of them of thin slices."""
    root = tmp_path_factory.mktemp("typed")
    for index, slices in enumerate((6, 6, 12)):
        scan, mask = tiny.head(index, slices=slices)
        if slices == 12:
            scan = even_scan(scan.hu, tiny.PIXEL_MM, 2.0)
        mask[..., 32:][mask[..., 32:] > 0] = CODES["subdural"]
        inside = (scan.hu > -100) & (scan.hu < 300)
        name = f"{49 + index:03d}"
        layouts.write_case("folder", root / "data", name, scan, mask, CaseInfo(name, name), inside)
    layouts.write_tables("folder", root / "data", [CaseInfo(f"{49 + index:03d}", f"p{index}") for index in range(3)])
    prepare(root / "data", root / "prepared")
    return root / "prepared"


@pytest.mark.parametrize("grid", [Grid(), Grid(4.0, 40)])
def test_typed_targets_are_the_same_resident_and_streamed(typed_prepared: Path, grid: Grid) -> None:
    dataset = Dataset(typed_prepared)
    part = {case: tuple(range(len(dataset.rows[case]))) for case in dataset.cases}
    spacing = SliceSpacing(5.0, 5.0, 5.0)
    both = []
    for memory in ("resident", "stream"):
        slices = open_slices(dataset, part, 3, grid, memory, torch.device("cpu"), spacing=spacing, task=TYPED)
        assert slices.memory == memory
        samples = []
        for number in range(len(slices.positive)):
            hu, target, rows = slices.take(torch.tensor([number]))
            assert target.dtype == torch.uint8 and hu.shape == target.shape
            samples.append((hu[rows[0]], target[rows[0]]))
        both.append(samples)
    for (hu, target), (streamed_hu, streamed_target) in zip(*both, strict=True):
        assert torch.equal(hu, streamed_hu) and torch.equal(target, streamed_target)
    values = {int(value) for _, target in both[0] for value in target.unique()}
    assert values == {1 << (CODES["intraparenchymal"] - 1), 1 << (CODES["subdural"] - 1), INSIDE_BIT, OUTSIDE_BIT}
    if grid == Grid():
        middle = np.stack([target[1].numpy() for _, target in both[0][:6]])
        np.testing.assert_array_equal(middle, dataset.target(dataset.cases[0], TYPED))


def test_a_grid_too_large_to_predict_on_is_refused_before_slices_are_loaded(
    typed_prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset(typed_prepared)
    part = {case: tuple(range(len(dataset.rows[case]))) for case in dataset.cases}
    recipe = tiny.recipe("grid.size_px=4096", "augment.crop_px=0", "data.validation=false")
    slices = max(map(len, part.values()))
    monkeypatch.setenv("HEMOTORCH_MAX_VOXELS", str(slices * 4096**2 - 1))
    tracemalloc.start()
    for training, validation in ((part, {}), ({dataset.cases[0]: (0,)}, part)):
        with pytest.raises(InputError, match=r"on the network's grid \(grid.size_px.* voxels, more than"):
            open_job(dataset, training, validation, recipe, choose("cpu", recipe.engine), Ranks())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4096**2  # a single slice has twice as many bytes
    # Of a grid in mm, only the scan itself says how many pixels it has there.
    monkeypatch.setenv("HEMOTORCH_MAX_VOXELS", "100000")
    for memory in ("resident", "stream"):
        with pytest.raises(InputError, match="grid.pixel_mm"):
            open_slices(dataset, part, 1, Grid(0.1), memory, torch.device("cpu"))


def test_the_task_that_only_asks_for_bleeding_gets_0_and_1(typed_prepared: Path) -> None:
    dataset = Dataset(typed_prepared)
    part = {"049": tuple(range(6))}
    slices = open_slices(dataset, part, 1, Grid(), "resident", torch.device("cpu"))
    _, target, _ = slices.take(torch.arange(6))
    np.testing.assert_array_equal(target.numpy(), dataset.mask("049") > 0)


def test_blocks_of_typed_slices_are_those_with_bleeding(typed_prepared: Path) -> None:
    """What lies inside the skull is in every block, and makes none of them one with bleeding."""
    dataset = Dataset(typed_prepared)
    part = {case: tuple(range(len(dataset.rows[case]))) for case in dataset.cases[:2]}
    recipe = tiny.recipe("tiles.size_px=24", "tiles.stride_px=24", "augment.crop_px=0", "data.slices=positive")
    plans = []
    for task in (TYPED, BLEEDING):
        slices = open_slices(dataset, part, 1, Grid(), "resident", torch.device("cpu"), task=task)
        plans.append(Plan(slices, recipe))
    typed, plain = plans
    np.testing.assert_array_equal(typed.corners, plain.corners)
    np.testing.assert_array_equal(typed.positive, plain.positive)
    assert typed.positive.all() and 0 < len(typed.numbers) < 9 * len(slices.positive)
