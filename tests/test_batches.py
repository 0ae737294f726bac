"""The paper's dataset class, on folders that `prepare --png` wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hemotorch.batches import ICHDataset
from hemotorch.errors import InputError
from hemotorch.prepare import prepare


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
