"""What a GPU does, on a GPU: `pytest tests/test_cuda.py`. All other tests but two of kernels run without one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from hemotorch.data.dataset import Dataset
from hemotorch.errors import RunError
from hemotorch.inference.checkpoint import load_checkpoint
from hemotorch.inference.load import load_model
from hemotorch.run import LAST
from hemotorch.system.device import choose, environment
from hemotorch.system.events import Event, Message, listening
from hemotorch.system.metrics import EpochMetrics
from hemotorch.system.ranks import Ranks
from hemotorch.training import state as state_module
from hemotorch.training.job import open_job, training_parts
from hemotorch.training.learner import WARM_UP, Learner, endless
from hemotorch.training.loop import steps, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

EXACT = ("engine.precision=fp32", "engine.compile=off", "engine.graphs=off")
PAPER = ("net.name=unet-medicaltorch", "net.options={channels=8}", "loss.name=negative-dice", "optimizer.name=adam",
         "train.ema=0", "optimizer.clip_norm=0", "optimizer.lr=1e-3")  # fmt: skip
WAYS = {
    "fp32": EXACT,
    "compiled": ("engine.precision=fp32", "engine.compile=on", "engine.graphs=off"),
    "graphs": ("engine.precision=fp32", "engine.compile=off", "engine.graphs=on"),
    "compiled graphs": ("engine.precision=fp32", "engine.compile=on", "engine.graphs=on"),
    "own kernels": ("engine.precision=fp32", "engine.compile=on", "engine.graphs=on", "engine.kernels=on"),
    "streamed": (*EXACT, "data.memory=stream"),
    "streamed graphs": ("engine.precision=fp32", "engine.compile=off", "engine.graphs=on", "data.memory=stream"),
}


@pytest.fixture(autouse=True)
def as_found() -> Iterator[None]:
    """Trainings set up their process; the next test's is to be as it was."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = True, False
    torch.cuda.empty_cache()


def learner(prepared: Path, *settings: str, device: str = "cuda") -> Learner:
    """Before its first step."""
    recipe, dataset = tiny.recipe(*settings), Dataset(prepared)
    decided = choose(device, recipe.engine)
    decided.use()
    return Learner(*open_job(dataset, *training_parts(dataset.split("patient"), recipe), recipe, decided, Ranks()))


def losses(of: Learner, count: int) -> list[float]:
    """Of its first steps."""
    return [float(loss) for loss in itertools.islice(endless(of, steps), count)]


@pytest.mark.parametrize("net", [("augment.elastic=0.02",), PAPER], ids=["fast", "paper"])
def test_every_way_of_computing_follows_the_cpu(tiny_prepared: Path, net: tuple[str, ...]) -> None:
    settings = (*net, "train.accumulate=2", "train.steps_per_epoch=4")
    wanted = losses(learner(tiny_prepared, *settings, device="cpu"), 8)
    ampere = torch.cuda.get_device_capability() >= (8, 0)
    for name, way in WAYS.items() if ampere else [(n, w) for n, w in WAYS.items() if n != "own kernels"]:
        found = losses(learner(tiny_prepared, *settings, *way), 8)
        # Rounding grows from step to step.
        assert found[0] == pytest.approx(wanted[0], abs=1e-4), name
        assert found[:3] == pytest.approx(wanted[:3], abs=2e-3), name
        assert found == pytest.approx(wanted, abs=2e-2), name


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
@pytest.mark.parametrize("net", [(), PAPER], ids=["fast", "paper"])
def test_lower_precisions_learn_the_same(tiny_prepared: Path, precision: str, net: tuple[str, ...]) -> None:
    """Compiled and as graphs, as far as the precision goes with them."""
    wanted = losses(learner(tiny_prepared, *net, *EXACT), 60)
    found = losses(learner(tiny_prepared, *net, f"engine.precision={precision}"), 60)
    assert found != wanted and found[:20] == pytest.approx(wanted[:20], abs=0.1)
    ends = [float(np.mean(one[-10:])) for one in (found, wanted)]
    assert ends[0] == pytest.approx(ends[1], abs=0.1) and ends[0] < np.mean(found[:10])


def test_what_is_chosen_without_being_asked(tiny_prepared: Path) -> None:
    device = learner(tiny_prepared).job.device
    capable = torch.cuda.get_device_capability() >= (8, 0)
    assert device.precision == ("bf16" if capable else "fp16") and device.channels_last and device.graphs == capable
    assert len(device.reasons) == 6


@pytest.mark.parametrize("settings", [(), ("engine.graphs=off",), (*EXACT, "train.accumulate=2"), PAPER])
def test_nothing_in_an_epoch_waits_for_the_gpu(tiny_prepared: Path, settings: tuple[str, ...]) -> None:
    of = learner(tiny_prepared, *settings)
    losses(of, WARM_UP + 2)  # what is compiled and captured once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        ended = list(steps(of, 3))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(ended).isfinite().all()


@pytest.mark.parametrize("settings", [(), ("engine.compile=on",), EXACT], ids=["as chosen", "compiled", "exact"])
def test_a_resumed_training_ends_as_an_unbroken_one(
    tiny_prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    recipe = tiny.recipe("train.checkpoint_s=0", "train.steps_per_epoch=40", *settings)
    whole = train(tiny_prepared, tmp_path / "whole", recipe, device="cuda")

    class Enough(Exception):
        pass

    def stop(*saved: Any) -> None:
        inner(*saved)
        raise Enough

    inner = state_module.save_checkpoint
    with monkeypatch.context() as patch, pytest.raises(Enough):
        patch.setattr(state_module, "save_checkpoint", stop)
        train(tiny_prepared, tmp_path / "broken", recipe, device="cuda")
    assert load_checkpoint(tmp_path / "broken" / LAST).trainer["step"] == 20
    events: list[Event] = []
    with listening(events.append):
        broken = train(tiny_prepared, tmp_path / "broken", device="cuda", resume=True)
    messages = [event.text for event in events if isinstance(event, Message)]
    assert "going on after 20 of them" in messages[0]
    rows = [[row.loss for row in run.metrics] for run in (whole, broken)]
    assert len(rows[0]) == 3 and rows[0] == pytest.approx(rows[1], rel=2e-2)
    assert broken.record.device.name == "cuda:0"


def test_started_on_a_gpu_it_goes_on_on_a_cpu_and_back(tiny_prepared: Path, tmp_path: Path) -> None:
    recipe, seen = tiny.recipe("train.epochs=4"), []

    def stop(row: EpochMetrics) -> None:
        seen.append(row.epoch)
        if len(seen) < 4:
            raise InterruptedError

    for device in ("cuda", "cpu", "cuda"):
        asked_for = recipe if device == "cuda" and not seen else None
        with pytest.raises(InterruptedError), listening(tiny.on_epochs(stop)):
            train(tiny_prepared, tmp_path / "run", asked_for, device=device, resume=bool(seen))
    with listening(tiny.on_epochs(stop)):
        run = train(tiny_prepared, tmp_path / "run", device="cuda", resume=True)
    assert seen == [1, 2, 3, 4] and len(run.metrics) == 4


def test_a_gpu_predicts_what_a_cpu_does(tiny_prepared: Path, tiny_run: Path) -> None:
    dataset = Dataset(tiny_prepared)
    scan = dataset.scan(dataset.cases[-1])
    cpu, gpu = (load_model(tiny_run, device) for device in ("cpu", "cuda"))
    exact = replace(gpu, device=replace(gpu.device, precision="fp32"))
    exact.device.use()
    wanted = cpu.predict(scan)
    for model, near in ((exact, 1e-3), (gpu, 0.1)):
        found = model.predict(scan)
        assert np.abs(found.probability - wanted.probability).max() < near
        assert (found.mask != wanted.mask).sum() <= near * max(1, wanted.mask.sum())
    assert wanted.mask.any()


def test_the_largest_batch_of_a_full_gpu_is_named_and_fits(tiny_prepared: Path, tmp_path: Path) -> None:
    _, total = torch.cuda.mem_get_info()
    few = min(1.0, 3e9 / total)
    settings = ("grid.size_px=512", "grid.pixel_mm=0.4", "augment.crop_px=512", "engine.graphs=off",
                "engine.compile=off", "train.steps_per_epoch=1", "train.epochs=1", "data.validation=false")  # fmt: skip
    with limited(few), pytest.raises(RunError, match="out of memory on cuda:0 with a batch of 4096x3x512x512") as told:
        train(tiny_prepared, tmp_path / "run", tiny.recipe("train.batch=4096", *settings), device="cuda")
    size = int(str(told.value).split("a batch of ")[2].split()[0])
    assert 0 < size < 4096
    with limited(few):
        train(tiny_prepared, tmp_path / "fits", tiny.recipe(f"train.batch={size}", *settings), device="cuda")


@contextmanager
def limited(share: float) -> Iterator[None]:
    """This process has but a part of the GPU's memory."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_device_is_set_up_as_it_was_decided(tiny_prepared: Path) -> None:
    for precision, tf32 in (("tf32", True), ("fp32", False)):
        of = learner(tiny_prepared, f"engine.precision={precision}", "engine.compile=off", "engine.graphs=off")
        assert of.job.device.precision == precision and torch.backends.cudnn.allow_tf32 is tf32
    assert environment()["gpu"] == torch.cuda.get_device_name()
