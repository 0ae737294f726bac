"""Workers as they really are: measured, killed, hung; the clock they carry; and that the reference loop trains."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hemotorch.bench import clock as clock_module
from hemotorch.bench import worker
from hemotorch.bench.clock import Clock, memory_mb, peak_gflops
from hemotorch.bench.data import checked, quick_recipe, why_no_reference, write_reference_pngs
from hemotorch.bench.loops import Loop, png_size, reference_loop
from hemotorch.bench.processes import Pace, chosen_layout, measure, once, run_together
from hemotorch.bench.records import PHASES, Config, Round, Spec
from hemotorch.bench.reference import ReferenceLoop
from hemotorch.bench.setup import engine_settings
from hemotorch.data.dataset import Dataset
from hemotorch.errors import InputError
from hemotorch.recipe import Recipe, load_recipe
from hemotorch.system.events import Event, listening
from hemotorch.system.ranks import Ranks
from hemotorch.training.png_pairs import ICHDataset

LIMIT_S = 120.0
PAPER = ("net.options.channels=4", "grid.size_px=64", "train.batch=2")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("paper").changed(PAPER)


@pytest.fixture(scope="module")
def pngs(tiny_prepared: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reference_pngs(Dataset(tiny_prepared), recipe, tmp_path_factory.mktemp("pngs"))


def spec(recipe: Recipe, data: Path, **config) -> Spec:
    made = Config("tried", **{"threads": 1, "batch": 2, **config})
    return Spec(made, str(data), recipe.changed(engine_settings(made)).to_toml(), seconds=0.2)


def python(code: str, *environments: dict[str, str], limit_s: float = LIMIT_S) -> tuple[str, str]:
    return run_together([sys.executable, "-c", code], environments or ({},), limit_s)


def test_children_print_and_end_together() -> None:
    code = "import os; print('rank', os.environ['RANK'])"
    assert python(code, {"RANK": "0"}, {"RANK": "1"}) == ("rank 0\n", "")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed by signal SIGKILL, as the system does"),
        (
            "import os, sys; print('so far', file=sys.stderr, flush=True); os.abort()",
            "was killed by signal SIGABRT: so far",
        ),
        ("raise ValueError('my last words')", "ValueError: my last words"),
        ("import sys; sys.exit(3)", "ended with status 3 and without a word"),
    ],
)
def test_a_child_that_dies_leaves_its_last_words(code, says) -> None:
    printed, error = python(code)
    assert printed == "" and error.startswith(says)


def test_a_child_that_hangs_is_stopped_with_all_it_started(tmp_path) -> None:
    note = tmp_path / "pid"
    start = "import pathlib, subprocess, time; started = subprocess.Popen(['sleep', '600'])"
    code = f"{start}; pathlib.Path({str(note)!r}).write_text(str(started.pid)); time.sleep(600)"
    assert python(code, limit_s=3.0)[1] == "did not finish within 3 s and was stopped"
    status = Path(f"/proc/{note.read_text()}/status")
    until = time.monotonic() + 10
    while status.exists() and "zombie" not in status.read_text() and time.monotonic() < until:
        time.sleep(0.05)
    assert not status.exists() or "zombie" in status.read_text()


def test_one_rank_that_dies_ends_the_others() -> None:
    code = "import os, time; time.sleep(60) if os.environ['RANK'] == '0' else os._exit(7)"
    began = time.monotonic()
    assert python(code, {"RANK": "0"}, {"RANK": "1"})[1].startswith("ended with status 7")
    assert time.monotonic() - began < 20


def test_a_worker_measures_our_step(tiny_prepared, recipe) -> None:
    found = once(spec(recipe, tiny_prepared, threads=1), LIMIT_S)
    assert len(found.step_s) >= 2 and found.images == 2 and found.images_s > 0
    assert sum(found.shares.values()) == pytest.approx(1) and set(found.shares) == set(PHASES)
    assert found.shares["forward"] > 0 and found.shares["backward"] > found.shares["optimiser"] > 0
    assert found.peak_gflops > 0 and found.memory_mb > 100
    assert found.storage == "resident" and found.size == (64, 64)
    assert found.epochs == 150 and found.image_gflop == pytest.approx(300 / 256 * (64 / 512) ** 2, rel=0.15)
    assert len(set(found.losses)) == 2, "it trains"


@pytest.mark.long
def test_two_processes_share_a_step(tiny_prepared, recipe) -> None:
    found = once(spec(recipe, tiny_prepared, ranks=2), LIMIT_S)
    assert found.images == 2 and found.images_s > 0 and found.memory_mb > 200, "memory of both"


@pytest.mark.long
def test_the_layout_is_what_a_training_settles_on(tiny_prepared, recipe) -> None:
    layout, why = chosen_layout(spec(recipe, tiny_prepared, threads=1))
    known = {"engine.channels_last=on": "channels-last", "engine.channels_last=off": "contiguous"}
    assert why.startswith(f"On the CPU in {known[layout]} layout (measured, seconds a step: as above ")
    layout, why = chosen_layout(spec(recipe, tiny_prepared / "nowhere"))
    assert layout == "engine.channels_last=on" and "layout (untried: " in why and "no such folder" in why


@pytest.mark.long
def test_a_worker_that_cannot_says_why_and_the_bench_goes_on(tiny_prepared, recipe) -> None:
    broken = spec(recipe, tiny_prepared / "nowhere", threads=1)
    fine = spec(recipe, tiny_prepared, threads=2)
    said: list[Event] = []
    with listening(said.append):
        rows, told = measure([broken, fine], Pace(rounds=2, limit_s=LIMIT_S))
    assert "no such folder" in rows[0].error and not rows[0].measured
    assert rows[1].measured and len(rows[1].rounds) == 2 and rows[1].error == "" and told == ""
    assert len(said) == 3, "what failed is not tried again"


def test_a_killed_worker_is_its_rows_error(tiny_prepared, recipe) -> None:
    endless = Spec(
        spec(recipe, tiny_prepared).config, str(tiny_prepared), spec(recipe, tiny_prepared).recipe, seconds=600.0
    )
    killed = threading.Thread(target=_kill_a_child_that_measures)
    killed.start()
    rows, _ = measure([endless], Pace(rounds=3, limit_s=LIMIT_S))
    killed.join()
    assert rows[0].error.startswith("was killed by signal SIGKILL")


def _kill_a_child_that_measures() -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for path in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
            for child in path.read_text().split():
                try:
                    command = Path(f"/proc/{child}/cmdline").read_bytes()
                except OSError:
                    continue
                if b"hemotorch.bench.worker" in command:
                    time.sleep(1)
                    os.kill(int(child), signal.SIGKILL)
                    return
        time.sleep(0.05)


def test_no_round_is_begun_that_would_take_too_long(tiny_prepared, recipe) -> None:
    rows, told = measure([spec(recipe, tiny_prepared)], Pace(5, LIMIT_S, budget_s=0.1))
    assert len(rows[0].rounds) == 1 and told.startswith("1 of 5 rounds")


class FakeLoop:
    """Steps that take as long as they are told, on a device that is not there and by a clock of their own.

    With real time, other work on the machine would decide how many steps are measured.
    """

    def __init__(self, seconds: list[float], monkeypatch: pytest.MonkeyPatch):
        self.seconds, self.now, self.steps = seconds, 0.0, 0
        self.mark: Callable[[str], None] = lambda phase: None
        fake_time = SimpleNamespace(perf_counter=lambda: self.now, process_time=lambda: self.now)
        for module in (worker, clock_module):
            monkeypatch.setattr(module, "time", fake_time)

    def step(self) -> torch.Tensor:
        self.mark("data")
        self.now += self.seconds[min(self.steps, len(self.seconds) - 1)]
        self.steps += 1
        self.mark("forward")
        return torch.tensor(1.0 / self.steps)

    def listen(self, mark: Callable[[str], None]) -> None:
        self.mark = mark

    def on(self, device: str) -> Loop:
        return Loop(self.step, self.listen, torch.device(device), Round((), 4, image_gflop=1.0, size=(64, 64)))


def test_the_first_step_does_not_say_how_many_are_timed(monkeypatch) -> None:
    monkeypatch.setattr(worker, "peak_gflops", lambda *_: 1.0)
    loop = FakeLoop([0.5, 0.01], monkeypatch)  # it compiles
    found = worker.measure(loop.on("cpu"), Spec(Config("", threads=1), "", "", seconds=0.2), Ranks())
    assert len(found.step_s) == 20 and found.seconds == pytest.approx(0.01) and found.losses[0] == 1.0


def test_a_step_that_other_work_stops_does_not_say_how_many_are_timed(monkeypatch) -> None:
    monkeypatch.setattr(worker, "peak_gflops", lambda *_: 1.0)
    loop = FakeLoop([0.01, 0.5, 0.01], monkeypatch)
    found = worker.measure(loop.on("cpu"), Spec(Config("", threads=1), "", "", seconds=0.2), Ranks())
    assert len(found.step_s) == 20


@pytest.mark.parametrize("graphs", [False, True])
def test_a_gpu_runs_ahead_of_its_host_and_is_then_looked_at(monkeypatch, graphs: bool) -> None:
    """As far as a CPU can: blocks of steps that nothing is waited in, then steps with a clock."""
    waits: list[int] = []
    loop = FakeLoop([0.002], monkeypatch)
    monkeypatch.setattr(worker, "peak_gflops", lambda *_: 7.0)
    monkeypatch.setattr(worker, "BLOCK_S", 0.02)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: waits.append(loop.steps))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda *_: 5e6)
    spec = Spec(Config("", "cuda", graphs=graphs), "", "", seconds=0.2)
    found = worker.measure(loop.on("cuda"), spec, Ranks())
    assert found.gpu_memory_mb == 5.0 and found.peak_gflops == 7.0
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.shares["graph" if graphs else "forward"] == pytest.approx(1)
    assert len(found.step_s) == 10 and found.seconds == pytest.approx(0.002)
    # Between the ends of two blocks stand ten steps.
    timed = sorted(set(waits))[worker.WARM_UP["cuda"] : worker.WARM_UP["cuda"] + 5]
    assert [later - earlier for earlier, later in itertools.pairwise(timed)] == [10] * 4


def test_the_clock_gives_each_phase_its_time() -> None:
    clock = Clock(torch.device("cpu"), threads=1)
    clock.start()
    time.sleep(0.2)
    clock.mark("data")
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    clock.mark("forward")
    time.sleep(0.1)
    clock.mark("backward")
    shares, total = clock.shares, sum(clock.seconds.values())
    assert clock.seconds["data"] == pytest.approx(0.2, abs=0.1)
    assert clock.seconds["forward"] == pytest.approx(0.2, abs=0.05)
    assert clock.seconds["backward"] < 0.05 < clock.seconds["waiting"], "a phase that sleeps waits"
    assert sum(shares.values()) == pytest.approx(1) and shares["data"] == clock.seconds["data"] / total


def test_idle_threads_are_waiting() -> None:
    clock = Clock(torch.device("cpu"), threads=4)
    clock.start()
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    clock.mark("optimiser")
    assert clock.shares["waiting"] >= 0.74 and clock.shares["optimiser"] <= 0.26


def test_peak_and_memory() -> None:
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    assert 0.5 < peak_gflops(torch.device("cpu"), "fp32", 1, side=256) < 1e5
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before
    held = np.ones(60_000_000 // 8)
    most = memory_mb()
    assert most > held.nbytes / 1e6
    del held
    assert memory_mb() > 0.99 * most, "the most that was ever held"


def test_the_reference_loop_trains_as_the_authors_did(pngs, recipe) -> None:
    size, count = png_size(str(pngs), recipe)
    assert size == (64, 64) and count == len(ICHDataset(pngs))
    assert all(item["gt"].any() for item in (ICHDataset(pngs)[i] for i in range(count))), "slices with bleeding only"
    eager = recipe.changed(["train.batch=4", "net.options.drop_rate=0.0", "optimizer.lr=1e-2"])
    loop = ReferenceLoop(pngs, eager, 0, "cpu", size)
    marks: list[str] = []
    loop.on_phase_end = marks.append
    first = float(loop.step())
    assert marks == ["data", "forward", "backward", "optimiser", "metric"]
    for _ in range(40):
        last = float(loop.step())
    assert last < first - 0.05, "its negative Dice falls"
    assert 0 <= loop.dice <= 1


def test_the_reference_loop_resizes_and_has_workers(pngs, recipe) -> None:
    loop = ReferenceLoop(pngs, recipe, 1, "cpu", (32, 48))
    shapes: list[tuple[int, ...]] = []
    handle = loop.net.body.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    assert np.isfinite(float(loop.step()))
    handle.remove()
    assert shapes == [(2, 1, 32, 48)]


def test_a_batch_larger_than_the_data_is_all_of_it(pngs, recipe, tiny_prepared) -> None:
    many = spec(recipe.changed(["train.batch=500"]), tiny_prepared, batch=500, reference=True, threads=0)
    loop = reference_loop(replace(many, pngs=str(pngs)))
    assert loop.facts.images == len(ICHDataset(pngs)) and np.isfinite(float(loop.step())) and loop.facts.steps == 1


def test_what_the_reference_loop_cannot_do() -> None:
    assert why_no_reference(load_recipe("paper")) == "" and why_no_reference(load_recipe("hssayeni-full")) == ""
    assert "3 slices in 3 windows" in why_no_reference(load_recipe("fast"))
    assert "blocks" in why_no_reference(load_recipe("hssayeni-blocks"))


def test_a_quick_recipe_has_slices_of_192() -> None:
    assert quick_recipe(load_recipe("paper")).grid.size_px == 192
    for name in ("fast", "hssayeni-blocks"):
        assert quick_recipe(load_recipe(name)) == load_recipe(name)


def test_a_dataset_without_anything_to_train_on(tiny_prepared, recipe, tmp_path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        checked(tmp_path / "nowhere", recipe)
    with pytest.raises(InputError, match="has no split 'mine'"):
        checked(tiny_prepared, recipe.changed(["data.split=mine"]))
