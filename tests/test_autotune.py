"""What a CPU decides by measuring, and keeps."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import hemotorch.training.autotune
import hemotorch.training.memory
import tiny
from hemotorch.nets import Net
from hemotorch.run import Run
from hemotorch.system import machine
from hemotorch.system.device import Device
from hemotorch.system.ranks import Ranks
from hemotorch.training.autotune import autotune
from hemotorch.training.job import Job
from hemotorch.training.learner import Learner, Steps
from hemotorch.training.loop import steps, train
from tiny import opened


def test_a_short_training_measures_nothing(tiny_prepared: Path) -> None:
    job, net = opened(tiny_prepared)
    assert autotune(job, net, steps).reasons[-1] == "nothing was measured: the training is short"


def test_a_long_one_measures_without_touching_its_network(tiny_prepared: Path) -> None:
    job, net = opened(tiny_prepared, "train.epochs=100")
    before = {key: value.clone() for key, value in net.state_dict().items()}
    settled = autotune(job, net, steps)
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

    def measured(job: Job, net: Net, ways: dict[str, Device], steps: Steps) -> dict[str, float]:
        return {name: one(device) for name, device in ways.items()}

    monkeypatch.setattr(hemotorch.training.autotune, "_step_seconds", measured)
    job, net = opened(tiny_prepared, "train.epochs=1000")
    settled = autotune(job, net, steps)
    assert {key: getattr(settled, key) for key in chosen} == chosen


def test_what_was_asked_for_is_not_measured(tiny_prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(
        hemotorch.training.autotune,
        "_step_seconds",
        lambda job, net, ways, steps: tried.extend(ways) or dict.fromkeys(ways, 1.0),
    )
    settings = ("train.epochs=1000", "engine.channels_last=on", "engine.compile=off", "engine.threads=2")
    assert autotune(*opened(tiny_prepared, *settings), steps).channels_last and tried == ["as above"]


def test_measured_choices_are_written_and_kept(tiny_prepared: Path, tmp_path: Path, monkeypatch) -> None:
    chosen = autotune(*opened(tiny_prepared), steps).with_reason("measured: for the test", channels_last=False)
    monkeypatch.setattr("hemotorch.training.loop.autotune", lambda job, net, steps: chosen)
    train(tiny_prepared, tmp_path / "run", tiny.recipe("train.epochs=1"), device="cpu")
    device = Run.open(tmp_path / "run").record.device
    assert device.channels_last is False and device.reasons[-1] == "measured: for the test"
    seen: list[Job] = []

    class Seen(Learner):
        def __init__(self, job: Job, net: Net):
            seen.append(job)
            super().__init__(job, net)

    monkeypatch.setattr("hemotorch.training.state.Learner", Seen)
    (tmp_path / "run" / "last.pt").unlink()
    train(tiny_prepared, tmp_path / "run", device="cpu", resume=True)
    assert seen[0].device.channels_last is False


def test_a_run_that_goes_on_with_fewer_cores_takes_those(tiny_prepared: Path, tmp_path: Path, monkeypatch) -> None:
    root, here = tmp_path / "run", machine.cores()
    with monkeypatch.context() as patch:
        patch.setattr(machine, "cores", lambda: here + 3)
        train(tiny_prepared, root, tiny.recipe("train.epochs=1"), device="cpu")
        (root / "last.pt").unlink()
        train(tiny_prepared, root, device="cpu", resume=True)
        assert not Run.open(root).record.resumed, "nothing is another"
    for _ in range(2):
        (root / "last.pt").unlink()
        train(tiny_prepared, root, device="cpu", resume=True)
    record = Run.open(root).record
    (later,) = record.resumed  # the second time it goes on as it did the first
    assert record.device.threads == here + 3 and later.device.threads == here
    assert record.device.precision == later.device.precision
    assert record.device.channels_last == later.device.channels_last


class Pair(Ranks):
    """Two ranks, of which the other says no to everything."""

    def gather(self, value: Any) -> list[Any]:
        """Both answers."""
        return [value, False]


@pytest.mark.parametrize(("seconds", "compiled"), [(0.01, False), (0.2, True)])
def test_a_gpu_compiles_where_it_pays(
    tiny_prepared: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, compiled: bool
) -> None:
    job, net = opened(tiny_prepared, "train.epochs=200")
    assert job.total == 1400
    gpu = replace(job, device=replace(job.device, name="cuda:0", compile=True, graphs=True))
    tried: list[Device] = []

    def measured(job: Job, net: Net, ways: dict[str, Device], steps: Steps) -> dict[str, float]:
        tried.extend(ways.values())
        return dict.fromkeys(ways, seconds)

    monkeypatch.setattr(hemotorch.training.autotune, "_step_seconds", measured)
    settled = autotune(gpu, net, steps)
    assert settled.compile is compiled and settled.graphs and f"{seconds * 1400:.0f} s" in settled.reasons[-1]
    assert [(way.compile, way.graphs) for way in tried] == [(False, True)]
    asked = replace(gpu, recipe=gpu.recipe.changed(["engine.compile=on"]))
    assert autotune(asked, net, steps).compile and len(tried) == 1
    # Of two ranks the other cannot.
    pair = replace(gpu, ranks=Pair())
    assert autotune(pair, net, steps).compile is False and len(tried) == 1
