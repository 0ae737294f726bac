"""Checkpoints that ask for all memory, run code or were damaged: one line, before anything is built."""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from hemotorch import nets
from hemotorch.errors import HemotorchError, InputError
from hemotorch.inference.predictor import Predictor
from hemotorch.run import Checkpoint, _digest, load_checkpoint, save_checkpoint
from hemotorch.system.torch_archive import check_archive


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """An untrained network."""
    recipe = tiny.recipe()
    net = nets.build(recipe.net.name, **recipe.net.options)
    return Checkpoint(net.name, net.options, net.state_dict(), asdict(recipe), 1, 7)


@pytest.fixture
def file(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """Written as a training does."""
    save_checkpoint(checkpoint, tmp_path / "best.pt")
    return tmp_path / "best.pt"


def written(path: Path, checkpoint: Checkpoint, **changes: Any) -> Path:
    """A checkpoint with other values and a digest that fits them, as somebody who means harm would write it."""
    values = {**vars(checkpoint), **changes}
    torch.save({**values, "digest": _digest(values)}, path)
    return path


def rezipped(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """The same archive with other bytes in its entries."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, change(name, data))


def test_a_good_one_is_read_whole(file, checkpoint):
    check_archive(file)
    found = load_checkpoint(file)
    assert (found.net, found.epoch, found.step) == (checkpoint.net, 1, 7)
    assert all(torch.equal(found.weights[name], weight) for name, weight in checkpoint.weights.items())
    assert Predictor.load(file, "cpu").net.name == checkpoint.net


def test_compressed_entries_are_refused(file):
    rezipped(file, lambda name, data: data + bytes(10**7) * name.endswith("data/0"), zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 10**6
    with pytest.raises(InputError, match=r"best.pt: is damaged \(.* in it is compressed\); use another"):
        load_checkpoint(file)


def test_a_tensor_of_more_elements_than_its_storage_is_refused(file, checkpoint):
    # Without the check its digest alone takes 4 TB.
    values = vars(checkpoint) | {"weights": {"w": torch.zeros(1).expand(10**12)}, "digest": ""}
    torch.save(values, file)
    assert file.stat().st_size < 10**5
    with pytest.raises(InputError, match="a tensor in it is larger than its storage"):
        load_checkpoint(file)


def test_a_storage_that_is_longer_than_its_entry_is_refused(file):
    # torch would read memory behind it, which is not the file's.
    rezipped(file, lambda name, data: data[:-4] if "/data/" in name and len(data) > 8 else data)
    with pytest.raises(InputError, match="has another length than it says"):
        load_checkpoint(file)


def test_tensors_that_share_a_storage_often_are_refused(file, checkpoint):
    one = torch.zeros(100_000)
    written(file, checkpoint, weights={f"w{i}": one[: 100_000 - i] for i in range(20)})
    with pytest.raises(InputError, match="its tensors are larger than the file"):
        load_checkpoint(file)


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def doubled(times: int) -> Any:
    """2 ** times values in a few hundred bytes."""
    value: Any = [0]
    for _ in range(times):
        value = [value, value]
    return value


@pytest.mark.parametrize("value", [nested(200), doubled(60)])
def test_lists_that_never_end_are_refused(file, checkpoint, value):
    torch.save(vars(checkpoint) | {"options": {"channels": value}, "digest": ""}, file)
    with pytest.raises(InputError, match="it holds too many values"):
        load_checkpoint(file)


class Harm:
    """What a pickle can do that is loaded without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


def test_code_is_not_run(file, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(vars(checkpoint) | {"options": Harm()}, file)
    with pytest.raises(InputError, match=r"something else than weights \(posix.mkdir\), which is not loaded"):
        load_checkpoint(file)
    file.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(InputError, match="is cut, damaged or not a checkpoint"):
        load_checkpoint(file)
    assert not (tmp_path / "harm").exists()


def test_what_is_no_file(tmp_path):
    for name, make in (("folder.pt", Path.mkdir), ("pipe.pt", os.mkfifo), ("empty.pt", Path.touch)):
        make(tmp_path / name)
        with pytest.raises(InputError, match=f"{name}: (is a folder|no such checkpoint|is not a|is cut)"):
            load_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": "1"},
        {"step": -1},
        {"net": 7},
        {"options": {7: 7}},
        {"weights": {"a": 1}},
        {"weights": [1]},
        {"recipe": None},
        {"trainer": 1},
        {"other": 1},
    ],
)
def test_values_of_other_types_are_refused(file, checkpoint, changes):
    with pytest.raises(InputError, match=r"is not a hemotorch checkpoint; use another"):
        load_checkpoint(written(file, checkpoint, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"net": "unet", "options": {"channels": 65536, "levels": 8}},
        {"net": "unet", "options": {"levels": 10**9}},
        {"net": "mlp", "options": {"patch": 10**9 + 1}},
        {"options": {"channels": [65536, 65536]}},
        {"options": {"channels": [1] * 10**5}},
        {"options": {"channels": [1] * 12}},
        {"options": {"windows": ["brain"] * 10**5}},
        {"options": {"channels": float("nan")}},
        {"recipe": {"grid": {"pixel_mm": 1e-6}}},
        {"recipe": {"train": {"epochs": torch.zeros(3)}}},
        {"recipe": {7: 7}},
        {"weights": {}},
    ],
)
def test_networks_and_recipes_that_are_absurd_are_refused(file, checkpoint, changes):
    with pytest.raises(HemotorchError) as caught:
        Predictor.load(written(file, checkpoint, **changes), "cpu")
    assert "\n" not in str(caught.value)


def test_mutated_bytes_end_in_one_line(file, tmp_path):
    data, rng = file.read_bytes(), random.Random(0)
    target, loaded = tmp_path / "mutated.pt", 0
    for _ in range(300):
        mutated = bytearray(data)
        for _ in range(rng.randint(1, 8)):
            # Mostly where the structure is: an archive's ends.
            at = rng.choice((rng.randrange(len(data)), rng.randrange(4000), len(data) - 1 - rng.randrange(4000)))
            mutated[at] = rng.randrange(256)
        target.write_bytes(mutated[: rng.choice((len(data), rng.randrange(len(data))))])
        try:
            load_checkpoint(target)
            loaded += 1
        except HemotorchError as error:
            assert "\n" not in str(error)
    assert loaded < 60  # bytes that say nothing, such as a date


def test_mutated_pickles_end_in_one_line(file, tmp_path):
    """With checksums that fit, so that it is the pickle that is read."""
    rng = random.Random(0)
    for _ in range(300):
        target = Path(shutil.copy(file, tmp_path / "mutated.pt"))

        def change(name: str, data: bytes) -> bytes:
            if not name.endswith("data.pkl"):
                return data
            mutated = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                mutated[rng.randrange(len(data))] = rng.randrange(256)
            return bytes(mutated)

        rezipped(target, change)
        try:
            load_checkpoint(target)
        except HemotorchError as error:
            assert "\n" not in str(error)


def test_a_pickle_that_claims_many_values_takes_no_memory(file):
    memo = b"\x80\x02r\xff\xff\xff\x7f."  # remember under number 2 ** 31 - 1
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", memo)
    file.write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="is cut, damaged or not a checkpoint"):
        load_checkpoint(file)
