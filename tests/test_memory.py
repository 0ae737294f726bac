"""What is said where memory runs out, or a GPU is lost; and what a process holds."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import hemotorch.training.autotune
import hemotorch.training.memory
import tiny
from hemotorch.errors import RunError
from hemotorch.nets import Net
from hemotorch.system import machine
from hemotorch.system.ranks import GO_ON
from hemotorch.training.job import Job
from hemotorch.training.learner import Learner, Steps
from hemotorch.training.loop import steps, train
from hemotorch.training.memory import memory_explained
from tiny import opened


def test_out_of_memory_names_a_batch_that_fits_as_measured(tiny_prepared: Path, tmp_path: Path) -> None:
    # Whole slices first, 400 GB of HU in one piece, more than this machine can have: refused at once.
    asked = 2**18
    still = [f"augment.{key}=0" for key in ("rotate_deg", "shift", "shear", "zoom", "crop_px")]
    settings = (f"train.batch={asked}", "train.steps_per_epoch=1", "grid.size_px=512", "augment.flip=false", *still)
    with pytest.raises(RunError, match=f"out of memory on cpu with a batch of {asked}x3x512x512; a batch of") as error:
        train(tiny_prepared, tmp_path / "run", tiny.recipe(*settings), device="cpu")
    size = int(str(error.value).split("a batch of ")[2].split()[0])
    assert f"--set train.batch={size} --set train.accumulate={-(-asked // size)}" in str(error.value)
    # A sample's step takes between its own input and a hundred times that.
    sample = 3 * 512 * 512 * 4
    assert machine.free_memory() / (100 * sample) < size < machine.free_memory() / sample


@pytest.mark.parametrize(("fits", "named"), [(37, 36), (1, 1), (0, 0), (63, 56)])
def test_a_gpus_largest_batch_is_tried(
    tiny_prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: int, named: int
) -> None:
    job, net = opened(tiny_prepared, "train.batch=64", "train.steps_per_epoch=1")
    gpu = replace(job, device=replace(job.device, name="cuda:0"))
    tried: list[int] = []

    def step(job: Job, net: Net, size: int, steps: Steps) -> None:
        tried.append(size)
        if size > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(hemotorch.training.memory, "_step", step)
    batch = f"a batch of {named} fits, as measured: train into a new folder with --set train.batch={named} "
    says = batch if named else "not even the smallest"
    told = pytest.raises(RunError, match=f"out of memory on cuda:0 with a batch of 64x3x32x32; {says}")
    with told, memory_explained(gpu, net, tmp_path / "last.pt", steps):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB.")
    assert named <= fits and len(tried) <= 7


@pytest.mark.parametrize(
    ("says", "lost"),
    [
        ("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA", True),
        ("CUDA error: uncorrectable ECC error encountered", True),
        ("CUDA error: CUDA-capable device(s) is/are busy or unavailable", True),
        ("CUDA error: device-side assert triggered", False),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_a_gpu_that_disappears(
    tiny_prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, lost: bool
) -> None:
    kind = getattr(torch, "AcceleratorError", RuntimeError)

    def update(learner: Learner) -> None:
        raise kind(says)

    monkeypatch.setattr(Learner, "update", update)
    with pytest.raises(RunError if lost else kind) as caught:
        train(tiny_prepared, tmp_path / "run", tiny.recipe(), device="cpu")
    if lost:
        todo = f"see nvidia-smi; then {GO_ON}"
        assert str(caught.value) == f"training: cpu was lost ({says.splitlines()[0]}); {todo}"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says what a process holds")
def test_what_a_process_holds_is_seen() -> None:
    before, _ = machine.resident(reset_peak=True)
    block = bytearray(2**26)
    block[:: 2**12] = b"x" * len(block[:: 2**12])
    del block
    now, most = machine.resident()
    assert most - before > 0.9 * 2**26 and now < most
