"""A step however it is computed, and what a CPU decides by measuring."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import hemotorch.fits
import hemotorch.step
import tiny
from hemotorch import machine
from hemotorch.dataset import Dataset
from hemotorch.device import Device, choose
from hemotorch.errors import RunError
from hemotorch.fits import memory_explained
from hemotorch.nets import Net
from hemotorch.ranks import GO_ON, Ranks
from hemotorch.run import Run
from hemotorch.step import Job, Learner, open_job, settle
from hemotorch.train import parts, train


def opened(prepared: Path, *settings: str) -> tuple[Job, Net]:
    used, dataset = tiny.recipe(*settings), Dataset(prepared)
    training, validation = parts(dataset.split("patient"), used)
    return open_job(dataset, training, validation, used, choose("cpu", used.engine), Ranks())


def test_each_phase_of_a_step_is_marked_and_an_epoch_ends(tiny_prepared: Path) -> None:
    job, net = opened(tiny_prepared, "train.steps_per_epoch=3", "train.accumulate=2")
    learner, phases = Learner(job, net), []
    learner.mark = phases.append
    losses = list(learner.epoch(0))
    assert len(losses) == job.steps == 3 and all(loss.ndim == 0 for loss in losses)
    one = ["augment", "forward", "backward"]
    assert phases == 3 * ["data", *one, *one, "optimiser"]


def test_an_epoch_from_its_middle_is_the_rest_of_it(tiny_prepared: Path) -> None:
    job, _ = opened(tiny_prepared)
    batches = [[part.rows for part in hemotorch.step.batches(job.slices, job.plan, 1, job.device)]]
    batches += [[part.rows for part in hemotorch.step.batches(job.slices, job.plan, 1, job.device, first=4)]]
    assert all(torch.equal(a, b) for a, b in zip(batches[0][4:], batches[1], strict=True)) and len(batches[1]) == 3


def test_a_short_training_measures_nothing(tiny_prepared: Path) -> None:
    job, net = opened(tiny_prepared)
    assert settle(job, net).reasons[-1] == "nothing was measured: the training is short"


def test_a_long_one_measures_without_touching_its_network(tiny_prepared: Path) -> None:
    job, net = opened(tiny_prepared, "train.epochs=100")
    before = {key: value.clone() for key, value in net.state_dict().items()}
    settled = settle(job, net)
    assert re.match(r"measured, seconds a step: as above [\d.]+, contiguous [\d.]+; chosen: ", settled.reasons[-1])
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.get_num_threads() == job.device.threads


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"contiguous": 0.95}, {"channels_last": True}),  # within the noise
        ({"contiguous": 0.8}, {"channels_last": False}),
        ({"contiguous": 0.8, "compiled": 0.5}, {"channels_last": False, "compile": True}),
        ({"compiled": 0.95}, {"channels_last": True, "compile": False}),
        ({"threads": 0.7}, {"threads": 1}),
    ],
)
def test_only_what_is_clearly_faster_is_chosen(
    tiny_prepared: Path, monkeypatch: pytest.MonkeyPatch, seconds: dict, chosen: dict
) -> None:
    monkeypatch.setattr(machine, "physical_cores", lambda: 1)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(machine, "has_compiler", lambda: True)

    def one(device: Device) -> float:
        if device.compile:
            return seconds.get("compiled", 2.0)
        usual = seconds.get("contiguous", 2.0) if not device.channels_last else 1.0
        return min(usual, seconds.get("threads", 2.0)) if device.threads == 1 else usual

    def measured(job: Job, net: Net, ways: dict[str, Device]) -> dict[str, float]:
        return {name: one(device) for name, device in ways.items()}

    monkeypatch.setattr(hemotorch.step, "_seconds", measured)
    job, net = opened(tiny_prepared, "train.epochs=1000")
    settled = settle(job, net)
    assert {key: getattr(settled, key) for key in chosen} == chosen


def test_what_was_asked_for_is_not_measured(tiny_prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(
        hemotorch.step, "_seconds", lambda job, net, ways: tried.extend(ways) or dict.fromkeys(ways, 1.0)
    )
    settings = ("train.epochs=1000", "engine.channels_last=on", "engine.compile=off", "engine.threads=2")
    assert settle(*opened(tiny_prepared, *settings)).channels_last and tried == ["as above"]


def test_measured_choices_are_written_and_kept(tiny_prepared: Path, tmp_path: Path, monkeypatch) -> None:
    chosen = settle(*opened(tiny_prepared)).with_reason("measured: for the test", channels_last=False)
    monkeypatch.setattr("hemotorch.train.settle", lambda job, net: chosen)
    train(tiny_prepared, tmp_path / "run", tiny.recipe("train.epochs=1"), device="cpu")
    record = Run.open(tmp_path / "run").record["device"]
    assert record["channels_last"] is False and record["reasons"][-1] == "measured: for the test"
    seen: list[Job] = []

    class Seen(Learner):
        def __init__(self, job: Job, net: Net):
            seen.append(job)
            super().__init__(job, net)

    monkeypatch.setattr("hemotorch.train.Learner", Seen)
    (tmp_path / "run" / "last.pt").unlink()
    train(tiny_prepared, tmp_path / "run", device="cpu", resume=True)
    assert seen[0].device.channels_last is False


def test_bf16_on_a_cpu_that_has_it_learns_too(tiny_prepared: Path, tmp_path: Path) -> None:
    if not machine.has_bf16():
        pytest.skip("this CPU has no bf16 units")
    used = tiny.recipe("engine.precision=bf16", "train.epochs=4", "train.steps_per_epoch=20")
    rows = train(tiny_prepared, tmp_path / "run", used, device="cpu").metrics
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.4


def test_scaled_gradients_learn_too(tiny_prepared: Path) -> None:
    """What fp16 adds to a step, on a CPU as far as it goes: scaling, unscaling before clipping, a skipped overflow."""
    job, net = opened(tiny_prepared, "optimizer.name=sgd", "optimizer.lr=0.05", "optimizer.clip_norm=1")
    learner = Learner(replace(job, device=replace(job.device, precision="fp16")), net)
    assert learner.scaler is not None
    before = {key: value.clone() for key, value in learner.net.named_parameters()}
    inner, learner._update = learner._update, lambda: (_overflow(learner.net), inner())
    next(losses := learner.epoch(0))
    assert all(torch.equal(value, before[key]) for key, value in learner.net.named_parameters()), "left out"
    del learner._update
    scale = learner.scaler.get_scale()
    assert scale < 65536 and all(math.isfinite(loss) for loss in losses)
    assert all(value.isfinite().all() and not torch.equal(value, before[key])
               for key, value in learner.net.named_parameters())  # fmt: skip


def _overflow(net: Net) -> None:
    for value in net.parameters():
        assert value.grad is not None
        value.grad.fill_(math.inf)


def test_an_optimiser_taken_back_computes_as_its_own_device_wants(tiny_prepared: Path) -> None:
    job, net = opened(tiny_prepared)
    learner = Learner(job, net)
    next(learner.epoch(0))
    state = learner.optimizer.state_dict()
    state["param_groups"][0] |= {"capturable": True, "lr": torch.tensor(7.0)}
    learner.load(state)
    group = learner.optimizer.param_groups[0]
    assert group["capturable"] is False and group["lr"] is learner.lr and float(learner.lr) != 7


def test_a_replayed_step_is_the_eager_one(tiny_prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph as far as a CPU has one: what is captured is done again when it is replayed, on the same memory."""
    capturing: list[Any] = []

    class Graph:
        def replay(self) -> None:
            self.loss.copy_(whole(self.learner, self.parts))

    @contextmanager
    def capture(graph: Any, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        capturing.append(graph)
        yield
        capturing.pop()

    def watched(learner: Learner, parts: Any) -> torch.Tensor:
        if not capturing:
            return whole(learner, parts)
        capturing[-1].learner, capturing[-1].parts, capturing[-1].loss = learner, parts, torch.zeros(())
        return capturing[-1].loss

    whole = Learner._whole
    for name, fake in {"CUDAGraph": Graph, "graph": capture, "Stream": FakeStream, "current_stream": FakeStream,
                       "stream": lambda stream: nullcontext()}.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, fake)
    settings = ("data.positive_share=0", "train.steps_per_epoch=0", "train.batch=8", "train.accumulate=2")
    ended = []
    for graphs in (False, True):
        job, net = opened(tiny_prepared, *settings)
        assert job.plan.steps % 2, "the last step is of one batch: a graph of its own"
        monkeypatch.setattr(Learner, "_whole", watched if graphs else whole)
        learner = Learner(replace(job, device=replace(job.device, graphs=graphs)), net)
        ended.append([float(loss) for epoch in range(3) for loss in learner.epoch(epoch)])
        assert len(learner._graphs) == (2 if graphs else 0)
    assert ended[0] == ended[1]


class Waits(TorchDispatchMode):
    """Counts what makes a host wait for its device: a tensor's value read, or a size that depends on values."""

    WORDS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "_to_copy")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        moved = name != "_to_copy" or (kwargs or {}).get("device", args[0].device) != args[0].device
        if name in self.WORDS and moved:
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "settings",
    [
        ("augment.elastic=0.02", "train.accumulate=2"),
        ("net.name=unet-medicaltorch", "net.options={channels=4}", "loss.name=negative-dice", "optimizer.name=adam"),
        ("optimizer.name=sgd", "loss.name=focal", "train.ema=0", "optimizer.clip_norm=0"),
    ],
    ids=["fast", "paper", "sgd"],
)
def test_nothing_in_an_epoch_waits_for_the_device(tiny_prepared: Path, settings: tuple[str, ...]) -> None:
    learner = Learner(*opened(tiny_prepared, *settings))
    with Waits() as waits:
        losses = list(learner.epoch(0))
        assert waits.seen == [] and len(losses) == 7
        float(losses[-1])
        assert waits.seen == ["_local_scalar_dense"], "it would have been seen"


class FakeStream:
    """Of no GPU."""

    def wait_stream(self, other: FakeStream) -> None:
        """There is nothing to wait for."""


@pytest.mark.long
def test_a_compiled_step_is_the_eager_one_to_rounding(tiny_prepared: Path) -> None:
    if not machine.has_compiler():
        pytest.skip("there is no C++ compiler")
    ended = []
    for compiled in (False, True):
        job, net = opened(tiny_prepared, "net.name=unet-medicaltorch", "net.options={channels=4}")
        learner = Learner(replace(job, device=replace(job.device, compile=compiled)), net)
        ended.append([float(loss) for loss in learner.epoch(0)])
    # Of the first steps; later ones carry the rounding of those before, and grow apart.
    assert ended[0][:3] == pytest.approx(ended[1][:3], abs=1e-3) and ended[0][0] == pytest.approx(ended[1][0], abs=1e-5)


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

    def step(job: Job, net: Net, size: int) -> None:
        tried.append(size)
        if size > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(hemotorch.fits, "_step", step)
    says = f"a batch of {named} fits, as measured: --set train.batch={named} " if named else "not even the smallest"
    told = pytest.raises(RunError, match=f"out of memory on cuda:0 with a batch of 64x3x32x32; {says}")
    with told, memory_explained(gpu, net, tmp_path / "last.pt"):
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

    monkeypatch.setattr(Learner, "_update", update)
    with pytest.raises(RunError if lost else kind) as caught:
        train(tiny_prepared, tmp_path / "run", tiny.recipe(), device="cpu")
    if lost:
        todo = f"see nvidia-smi; then {GO_ON}"
        assert str(caught.value) == f"training: cpu was lost ({says.splitlines()[0]}); {todo}"


def kernels_and_references(prepared: Path, *settings: str) -> None:
    """Trains a little both ways."""
    ended = []
    for kernels in (False, True):
        job, net = opened(prepared, "train.steps_per_epoch=2", "train.batch=2", *settings)
        learner = Learner(replace(job, device=replace(job.device, kernels=kernels)), net)
        ended.append([float(loss) for loss in learner.epoch(0)])
    assert ended[0] == pytest.approx(ended[1], abs=1e-4) and ended[0][0] == pytest.approx(ended[1][0], abs=1e-5)
    assert ended[0] != ended[1], "computed another way"


@pytest.mark.parametrize("loss", ["dice-cross-entropy", "negative-dice", "cross-entropy"])
def test_a_step_by_own_kernels_is_that_by_their_references(tiny_prepared: Path, interpreted: Any, loss: str) -> None:
    interpreted(kernels_and_references, tiny_prepared, f"loss.name={loss}", "augment.elastic=0.02")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says what a process holds")
def test_what_a_process_holds_is_seen() -> None:
    before, _ = machine.resident(reset_peak=True)
    block = bytearray(2**26)
    block[:: 2**12] = b"x" * len(block[:: 2**12])
    del block
    now, most = machine.resident()
    assert most - before > 0.9 * 2**26 and now < most
