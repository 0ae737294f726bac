"""Device decisions, with the device faked where this machine has none, and how much memory may be used."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest
import torch

from hemotorch.errors import OptionError
from hemotorch.recipe import Engine
from hemotorch.system import device, machine
from hemotorch.system.device import Device, choose, free_memory
from hemotorch.system.ranks import Ranks
from hemotorch.system.records import build, to_values


def _fake_gpu(monkeypatch: pytest.MonkeyPatch, bf16: bool, count: int = 1, capability: tuple = (9, 0)) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Fake GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation)


def test_a_cpu_computes_in_fp32_and_says_why():
    chosen = choose("cpu")
    assert (chosen.name, chosen.precision, chosen.compile, chosen.graphs) == ("cpu", "fp32", False, False)
    assert chosen.threads == machine.cores()
    assert any("asked for" in reason for reason in chosen.reasons)


def test_a_gpu_gets_the_fastest_precision_that_it_has_itself(monkeypatch):
    _fake_gpu(monkeypatch, bf16=True)
    assert choose("auto").precision == "bf16" and choose("auto").name == choose("cuda").name == "cuda:0"
    _fake_gpu(monkeypatch, bf16=False, capability=(7, 5))
    assert choose("cuda:0").precision == "fp16" and not choose("cuda:0").graphs
    assert any("gradients are scaled" in reason for reason in choose("cuda:0").reasons)
    with pytest.raises(OptionError, match=r"engine.precision: this GPU has no native bf16"):
        choose("cuda", Engine(precision="bf16"))
    assert choose("cuda:0", Engine(precision="fp32")).precision == "fp32"
    _fake_gpu(monkeypatch, bf16=False, capability=(6, 1))
    assert choose("cuda:0").precision == "fp32"


def test_a_gpu_is_not_given_what_it_has_not(monkeypatch):
    _fake_gpu(monkeypatch, bf16=False, capability=(7, 5), count=2)
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None)
    pair = Ranks(rank=1, world=2, local=1, beside=2)
    for engine, ranks, says in (
        (Engine(precision="tf32"), None, "no TF32"),
        (Engine(compile="on"), None, "torch.compile cannot run here: triton is not installed"),
        (Engine(kernels="on"), None, "from Ampere on"),
        (Engine(graphs="on"), pair, "several ranks is not captured"),
        (Engine(graphs="on"), None, r"scaled gradients \(fp16\) is not captured"),
    ):
        with pytest.raises(OptionError, match=says):
            choose("cuda", engine, ranks)
    with pytest.raises(OptionError, match="2 ranks cannot share 'cuda:1'"):
        choose("cuda:1", ranks=pair)


def test_a_gpu_can_be_set_up(monkeypatch):
    """All but what CUDA itself does: torch refuses to make a GPU without a number the current one."""
    _fake_gpu(monkeypatch, bf16=True)
    made: list[int] = []
    monkeypatch.setattr(torch._C, "_cuda_setDevice", made.append, raising=False)
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        choose("auto").use()
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = True, False
    assert made == [0]


def test_a_gpu_compiles_and_captures_where_that_can_be(monkeypatch):
    _fake_gpu(monkeypatch, bf16=True, count=2)
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None)
    alone = choose("cuda")
    assert not alone.compile and alone.graphs and "not compiled: triton is not installed" in alone.reasons
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(device.shutil, "which", lambda name: "/usr/bin/cc" if name == "cc" else None)
    assert choose("cuda").compile and not choose("cuda", Engine(compile="off")).compile
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    assert "not compiled: no C compiler" in choose("cuda").reasons
    second = choose("cuda", ranks=Ranks(rank=1, world=2, local=1, beside=2))
    assert second.name == "cuda:1" and not second.graphs
    assert choose("cuda", Engine(graphs="off")).graphs is False


def test_a_cpu_is_not_given_what_it_has_not(monkeypatch):
    for precision in ("tf32", "fp16"):
        with pytest.raises(OptionError, match=f"a CPU has no {precision}"):
            choose("cpu", Engine(precision=precision))
    monkeypatch.setattr(machine, "has_bf16", lambda: False)
    with pytest.raises(OptionError, match=r"no bf16 units.*use fp32"):
        choose("cpu", Engine(precision="bf16"))
    monkeypatch.setattr(machine, "has_bf16", lambda: True)
    assert choose("cpu", Engine(precision="bf16")).precision == "bf16"
    assert choose("cpu").precision == "fp32", "it changes results beyond rounding, so it is asked for"
    monkeypatch.setattr(machine, "has_compiler", lambda: False)
    with pytest.raises(OptionError, match=r"needs a C\+\+ compiler"):
        choose("cpu", Engine(compile="on"))
    assert any("no C++ compiler" in reason for reason in choose("cpu").reasons)
    with pytest.raises(OptionError, match=r"engine.graphs: needs a CUDA GPU"):
        choose("cpu", Engine(graphs="on"))


def test_ranks_share_cores_and_gpus(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 16)
    assert choose("cpu", ranks=Ranks(world=4, beside=4)).threads == 4
    assert choose("cpu", Engine(threads=3), Ranks(world=4, beside=4)).threads == 3
    with pytest.raises(OptionError, match=r"17 ranks were started on a machine of 16 cores"):
        choose("cpu", ranks=Ranks(world=17, beside=17))
    _fake_gpu(monkeypatch, bf16=True, count=2)
    with pytest.raises(OptionError, match=r"3 ranks were started on a machine of 2 GPU"):
        choose("cuda", ranks=Ranks(world=3, beside=3))


def test_decisions_come_back_from_a_record():
    chosen = choose("cpu").with_reason("measured: this", channels_last=False)
    again = build(Device, json.loads(json.dumps(to_values(chosen))), "run.json")
    assert again == chosen and again.reasons[-1] == "measured: this"


def test_cores_are_told_from_their_hardware_threads(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(machine, "CPUS", tmp_path)
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.physical_cores() == 4, "where the system does not say"
    for number, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings)
    assert machine.physical_cores() == 2 and machine.cores() == 4


@pytest.mark.parametrize("wanted", ["gpu", "cuda:x", "cuda:7", "cpu:1:2", ""])
def test_devices_that_are_not_there(monkeypatch, wanted):
    _fake_gpu(monkeypatch, bf16=True)
    with pytest.raises(OptionError):
        choose(wanted)


def test_a_containers_limit_counts(monkeypatch, tmp_path):
    plenty = free_memory(torch.device("cpu"))
    limit, recipe, cached = (tmp_path / f"memory.{name}" for name in ("max", "current", "stat"))
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert free_memory(torch.device("cpu")) == pytest.approx(plenty, rel=0.2)
    limit.write_text("max\n")
    recipe.write_text("5\n")
    assert free_memory(torch.device("cpu")) == pytest.approx(plenty, rel=0.2)
    limit.write_text(f"{10**8}\n")
    recipe.write_text(f"{4 * 10**7}\n")
    assert free_memory(torch.device("cpu")) == 6 * 10**7
    cached.write_text("anon 5\ninactive_file 30000000\n")
    assert free_memory(torch.device("cpu")) == 9 * 10**7
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert machine.cores() == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.cores() >= 1


FAULTS = """
import resource, torch
from hemotorch.system.device import choose
if {keep}:
    choose("cpu").use()
torch.set_num_threads(1)
for _ in range(6):
    torch.empty(12 * 1024**2).fill_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.empty(12 * 1024**2).fill_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory its own way")
def test_memory_of_freed_tensors_is_kept():
    def faults(keep: bool) -> int:
        code = FAULTS.format(keep=keep)
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    assert 3 * faults(True) < faults(False)  # 20 tensors of 48 MiB are 245,760 pages of 4 KiB
