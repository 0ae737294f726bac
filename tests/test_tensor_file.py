"""Checkpoints that take more memory than they hold, or would run code, are refused; the others are read exactly."""

from __future__ import annotations

import io
import pickle
import resource
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hemotorch import nets
from hemotorch.errors import InputError, OptionError
from hemotorch.inference.checkpoint import _digest, load_checkpoint
from hemotorch.run import BEST, LAST
from hemotorch.system.tensor_file import ForeignCode, TensorFileError, read

MOST = 10**9


def saved(value: Any, path: Path) -> Path:
    torch.save(value, path)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """The same archive with its entries changed; checksums are right."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, change(name, content))
    return path


def with_structure(path: Path, structure: bytes) -> Path:
    """A good archive whose data.pkl is another."""
    saved({"a": torch.zeros(4)}, path)
    return rewritten(path, lambda name, content: structure if name.endswith("data.pkl") else content)


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other)
    return bool(one == other)


@pytest.mark.parametrize("name", [BEST, LAST])
def test_what_torch_reads(tiny_run: Path, name: str) -> None:
    assert same(read(tiny_run / name, MOST), torch.load(tiny_run / name, weights_only=True))


def test_types_strides_and_shared_storages(tmp_path: Path) -> None:
    kinds = (
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
    base = torch.arange(24.0)
    value = {
        "types": [torch.ones(3, 2).to(kind) for kind in kinds],
        "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "part": base[5:11].view(2, 3).T,
        "shared": (base, base[1:]),
        "none": torch.zeros(0, 4),
        "scalar": torch.tensor(3),
        "plain": [1, -2, 0.5, True, None, "text", (1, 2), {3: "four"}],
        "state": OrderedDict(a=torch.ones(2)),
    }
    assert same(read(saved(value, tmp_path / "a.pt"), MOST), value)


def test_packed_entries(tmp_path: Path) -> None:
    path = saved({"a": torch.zeros(10**6)}, tmp_path / "a.pt")
    rewritten(path, lambda name, content: content, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    with pytest.raises(TensorFileError, match="packed or encrypted entry"):
        read(path, MOST)


def test_entries_upon_each_other(tmp_path: Path) -> None:
    """Many entries of one stretch of the file: each is stored, all together hold more than the file."""
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("archive/data.pkl", bytes(10_000))
        info = archive.infolist()[0]
        archive.filelist.extend([info] * 1000)
    with pytest.raises(TensorFileError, match="lie upon each other"):
        read(tmp_path / "a.pt", MOST)


def test_more_than_is_read(tmp_path: Path) -> None:
    with pytest.raises(TensorFileError, match="more than the 0.0 GB that are read"):
        read(saved({"a": torch.zeros(1000)}, tmp_path / "a.pt"), 3000)


def test_many_tensors_of_one_storage(tmp_path: Path) -> None:
    storage = torch.zeros(10**6)
    path = saved([storage[number:] for number in range(2000)], tmp_path / "a.pt")
    assert path.stat().st_size < 6e6
    with pytest.raises(TensorFileError, match="tensors of more than the 1.0 GB that are read"):
        read(path, MOST)
    assert len(read(saved([storage[number:] for number in range(200)], tmp_path / "b.pt"), MOST)) == 200


class Call:
    """Asks the reader to call a function."""

    def __init__(self, function: Any, *arguments: Any):
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


@pytest.mark.parametrize("function", [print, bytearray, torch.empty, torch._utils._rebuild_tensor, getattr])
def test_functions_that_no_checkpoint_needs(tmp_path: Path, function: Any) -> None:
    path = with_structure(tmp_path / "a.pt", pickle.dumps({"a": Call(function, 10**10)}, protocol=2))
    with pytest.raises(ForeignCode, match="could run code"):
        read(path, MOST)


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((10**12,), (0,), 0),
        ((5,), (1,), 0),
        ((2, 2), (3, 1), 0),
        ((2,), (1,), 3),
        ((2,), (-1,), 1),
        ((2, 4), (0, 1), 0),
    ],
)
def test_tensors_larger_than_what_is_stored(tmp_path: Path, size: Any, stride: Any, offset: int) -> None:
    path = saved({"a": torch.zeros(4).as_strided((4,), (1,), 0)}, tmp_path / "a.pt")
    structure = {}

    class Storage(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if value == "the storage" else None

    buffer = io.BytesIO()
    rebuild = Call(torch._utils._rebuild_tensor_v2, "the storage", offset, size, stride, False, OrderedDict())
    structure["a"] = rebuild
    Storage(buffer, 2).dump(structure)
    rewritten(path, lambda name, content: buffer.getvalue() if name.endswith("data.pkl") else content)
    with pytest.raises(TensorFileError, match="a tensor in it is"):
        read(path, MOST)


def nested(times: int) -> Any:
    value: Any = ["x"]
    for _ in range(times):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("structure", "says"),
    [
        (b"\x80\x02]r\xff\xff\xff\x7f.", "structure"),  # a list, kept at place 2**31 - 1
        (pickle.dumps(nested(40), 2), "more values than any checkpoint"),
        (pickle.dumps(nested(60), 2), "more values than any checkpoint"),
        (b"\x80\x02" + b"]" * 2000 + b"a" * 1999 + b".", "nested more deeply"),
        (b"\x80\x02]q\x00h\x00a.", "nested more deeply"),  # a list that holds itself
        (pickle.dumps({"a": 10**5000}, 2), "something else than tensors"),
        (pickle.dumps({"a": 1j.imag, "b": {1, 2}}, 4), "something else than tensors"),
        (b"", "cut, damaged or not a checkpoint"),
        (b"\x80\x02", "cut, damaged or not a checkpoint"),
    ],
)
def test_structures_that_take_all_memory_or_time(tmp_path: Path, structure: bytes, says: str) -> None:
    path = with_structure(tmp_path / "a.pt", structure)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TensorFileError, match=says):
        read(path, MOST)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04", b"no zip at all", pickle.dumps({"a": 1})])
def test_what_is_no_archive(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(raw)
    with pytest.raises(TensorFileError, match="cut, damaged or not a checkpoint"):
        read(tmp_path / "a.pt", MOST)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.update(options=[]),
        lambda values: values.update(options={1: 2}),
        lambda values: values.update(net=None),
        lambda values: values.update(epoch="1"),
        lambda values: values.update(step=-1),
        lambda values: values.update(deployment=3),
        lambda values: values.update(other=1),
        lambda values: values.pop("step"),
        lambda values: values["weights"].update(more="x"),
    ],
)
def test_values_of_other_types_though_the_digest_is_right(tiny_run: Path, tmp_path: Path, change: Any) -> None:
    values = torch.load(tiny_run / BEST, weights_only=True)
    del values["digest"]
    change(values)
    with pytest.raises(InputError, match="its values are of other types"):
        load_checkpoint(saved({**values, "digest": _digest(values)}, tmp_path / "a.pt"))


def test_a_digest_does_not_depend_on_how_a_tensor_is_stored() -> None:
    one = torch.rand(8, 3, 4, 5)
    assert _digest(one) == _digest(one.to(memory_format=torch.channels_last))
    long = torch.arange(3 * 2**20)
    assert _digest(long[::2]) == _digest(long[::2].contiguous()) != _digest(long[1::2])
    assert _digest(torch.zeros(0, 3).T) == _digest(torch.zeros(3, 0))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet", {"channels": 10**12}),
        ("unet", {"channels": 4096}),
        ("unet", {"levels": 40}),
        ("unet-medicaltorch", {"channels": 4000}),
        ("compact", {"channels": [8] * 40}),
        ("compact", {"channels": [4096, 4096]}),
        ("mlp", {"patch": 10**9 + 1}),
        ("mlp", {"patch": 127, "hidden": [16384]}),
        ("mlp", {"hidden": [2] * 10**6}),
        ("compact", {"windows": ["brain"] * 10**6}),
        ("compact", {"slices": 10**9 + 1}),
    ],
)
def test_networks_too_large_for_any_head(name: str, options: dict[str, Any]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(OptionError, match="at most|more than"):
        nets.build(name, **options)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize("name", nets.NETS)
def test_counting_weights_first_does_not_change_them(name: str) -> None:
    torch.manual_seed(3)
    built = nets.build(name).state_dict()
    torch.manual_seed(3)
    uncounted = nets.NETS[name](**nets.options_of(name)).state_dict()
    for key, weight in uncounted.items():
        assert torch.equal(built[f"body.{key}"], weight)
