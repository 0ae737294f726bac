"""A step however it is computed, and what a CPU decides by measuring."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import tiny
from hemotorch.nets import Net
from hemotorch.system import machine
from hemotorch.training import loop
from hemotorch.training.batches import batches
from hemotorch.training.learner import Learner
from hemotorch.training.loop import steps, train
from tiny import opened


def test_each_phase_of_a_step_is_marked_and_an_epoch_ends(tiny_prepared: Path) -> None:
    job, net = opened(tiny_prepared, "train.steps_per_epoch=3", "train.accumulate=2")
    learner, phases = Learner(job, net), []
    learner.on_phase_end = phases.append
    losses = list(steps(learner, 0))
    assert len(losses) == job.steps == 3 and all(loss.ndim == 0 for loss in losses)
    one = ["augment", "forward", "backward"]
    assert phases == 3 * ["data", *one, *one, "optimiser"]


def test_an_epoch_from_its_middle_is_the_rest_of_it(tiny_prepared: Path) -> None:
    job, _ = opened(tiny_prepared)
    rows = [[part.rows for part in batches(job.slices, job.plan, 1, job.device)]]
    rows += [[part.rows for part in batches(job.slices, job.plan, 1, job.device, first=4)]]
    assert all(torch.equal(a, b) for a, b in zip(rows[0][4:], rows[1], strict=True)) and len(rows[1]) == 3


def test_bf16_on_a_cpu_that_has_it_learns_too(tiny_prepared: Path, tmp_path: Path) -> None:
    if not machine.has_bf16():
        pytest.skip("this CPU has no bf16 units")
    recipe = tiny.recipe("engine.precision=bf16", "train.epochs=4", "train.steps_per_epoch=20")
    rows = train(tiny_prepared, tmp_path / "run", recipe, device="cpu").metrics
    assert rows[-1].loss < rows[0].loss - 0.4


def test_scaled_gradients_learn_too(tiny_prepared: Path) -> None:
    """What fp16 adds to a step, on a CPU as far as it goes: scaling, unscaling before clipping, a skipped overflow."""
    job, net = opened(tiny_prepared, "optimizer.name=sgd", "optimizer.lr=0.05", "optimizer.clip_norm=1")
    learner = Learner(replace(job, device=replace(job.device, precision="fp16")), net)
    assert learner.scaler is not None
    before = {key: value.clone() for key, value in learner.net.named_parameters()}
    inner, learner.update = learner.update, lambda: (_overflow(learner.net), inner())
    next(losses := steps(learner, 0))
    assert all(torch.equal(value, before[key]) for key, value in learner.net.named_parameters()), "left out"
    del learner.update
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
    next(steps(learner, 0))
    state = learner.optimizer.state_dict()
    state["param_groups"][0] |= {"capturable": True, "lr": torch.tensor(7.0)}
    learner.load_optimizer(state)
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

    whole = loop.train_step
    for name, fake in {"CUDAGraph": Graph, "graph": capture, "Stream": FakeStream, "current_stream": FakeStream,
                       "stream": lambda stream: nullcontext()}.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, fake)
    settings = ("data.positive_share=0", "train.steps_per_epoch=0", "train.batch=8", "train.accumulate=2")
    ended = []
    for graphs in (False, True):
        job, net = opened(tiny_prepared, *settings)
        assert job.plan.steps % 2, "the last step is of one batch: a graph of its own"
        monkeypatch.setattr(loop, "train_step", watched if graphs else whole)
        learner = Learner(replace(job, device=replace(job.device, graphs=graphs)), net)
        ended.append([float(loss) for epoch in range(3) for loss in steps(learner, epoch)])
        assert len(learner._graphs) == (2 if graphs else 0)
        hu, target, _ = job.slices.take(torch.tensor([0]))
        for graph in learner._graphs.values():
            assert all(batch.hu is hu and batch.target is target for batch in graph._batches), "resident: not copied"
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
        losses = list(steps(learner, 0))
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
        ended.append([float(loss) for loss in steps(learner, 0)])
    # Of the first steps; later ones carry the rounding of those before, and grow apart.
    assert ended[0][:3] == pytest.approx(ended[1][:3], abs=1e-3) and ended[0][0] == pytest.approx(ended[1][0], abs=1e-5)


def kernels_and_references(prepared: Path, *settings: str) -> None:
    """Trains a little both ways."""
    ended = []
    for kernels in (False, True):
        job, net = opened(prepared, "train.steps_per_epoch=2", "train.batch=2", *settings)
        learner = Learner(replace(job, device=replace(job.device, kernels=kernels)), net)
        ended.append([float(loss) for loss in steps(learner, 0)])
    assert ended[0] == pytest.approx(ended[1], abs=1e-4) and ended[0][0] == pytest.approx(ended[1][0], abs=1e-5)
    assert ended[0] != ended[1], "computed another way"


@pytest.mark.parametrize("loss", ["dice-cross-entropy", "negative-dice", "cross-entropy"])
def test_a_step_by_own_kernels_is_that_by_their_references(tiny_prepared: Path, interpreted: Any, loss: str) -> None:
    interpreted(kernels_and_references, tiny_prepared, f"loss.name={loss}", "augment.elastic=0.02")
