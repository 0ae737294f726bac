"""Device decisions, with the device faked where this machine has none, and how much memory may be used."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from hemotorch import machine
from hemotorch.device import choose, free_memory
from hemotorch.errors import OptionError


def _fake_gpu(monkeypatch: pytest.MonkeyPatch, bf16: bool, count: int = 1) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Fake GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation)


def test_a_cpu_computes_in_fp32_and_says_why():
    chosen = choose("cpu")
    assert chosen.name == "cpu" and not chosen.autocast and chosen.threads >= 1
    assert any("asked for" in reason for reason in chosen.reasons)


def test_a_gpu_gets_bf16_only_where_it_is_native(monkeypatch):
    _fake_gpu(monkeypatch, bf16=True)
    assert choose("auto").autocast == "bfloat16" and choose("auto").name == "cuda"
    _fake_gpu(monkeypatch, bf16=False)
    assert choose("cuda:0").autocast == ""


@pytest.mark.parametrize("wanted", ["gpu", "cuda:x", "cuda:7", "cpu:1:2", ""])
def test_devices_that_are_not_there(monkeypatch, wanted):
    _fake_gpu(monkeypatch, bf16=True)
    with pytest.raises(OptionError):
        choose(wanted)


def test_a_containers_limit_counts(monkeypatch, tmp_path):
    plenty = free_memory(torch.device("cpu"))
    limit, used, cached = (tmp_path / f"memory.{name}" for name in ("max", "current", "stat"))
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert free_memory(torch.device("cpu")) == pytest.approx(plenty, rel=0.2)
    limit.write_text("max\n")
    used.write_text("5\n")
    assert free_memory(torch.device("cpu")) == pytest.approx(plenty, rel=0.2)
    limit.write_text(f"{10**8}\n")
    used.write_text(f"{4 * 10**7}\n")
    assert free_memory(torch.device("cpu")) == 6 * 10**7
    cached.write_text("anon 5\ninactive_file 30000000\n")
    assert free_memory(torch.device("cpu")) == 9 * 10**7
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert machine.cores() == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.cores() >= 1


FAULTS = """
import resource, torch
from hemotorch.device import choose
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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is Linux's")
def test_memory_of_freed_tensors_is_kept():
    def faults(keep: bool) -> int:
        code = FAULTS.format(keep=keep)
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    assert 3 * faults(True) < faults(False)  # 20 tensors of 48 MiB are 245,760 pages of 4 KiB
