"""The training loop: it learns, it resumes bit for bit, and it stops with an explanation."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hemotorch.training.job
import hemotorch.training.learner
import tiny
from hemotorch import io
from hemotorch.data.dataset import Dataset
from hemotorch.data.prepare import prepare
from hemotorch.errors import InputError, OptionError, RunError
from hemotorch.grid import SliceSpacing, hu_to_working, place, slice_positions_mm
from hemotorch.inference.checkpoint import load_checkpoint
from hemotorch.inference.predictor import Predictor
from hemotorch.inference.torch_model import TorchModel
from hemotorch.recipe import Optimizer, load_recipe
from hemotorch.run import BEST, LAST, Run
from hemotorch.scan import even_scan
from hemotorch.system.device import choose
from hemotorch.system.events import Progress, Stopped, listening
from hemotorch.system.ranks import Ranks
from hemotorch.training import loop as training
from hemotorch.training import losses
from hemotorch.training import state as state_module
from hemotorch.training.job import open_job, training_parts
from hemotorch.training.loop import train
from hemotorch.training.optimizer import learning_rate


def _weights(root: Path, name: str = LAST) -> dict[str, torch.Tensor]:
    checkpoint = load_checkpoint(root / name)
    return {**checkpoint.weights, **{f"raw.{k}": v for k, v in checkpoint.trainer.get("net", {}).items()}}


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_it_learns_the_tiny_heads(tiny_run):
    rows = Run.open(tiny_run).metrics
    assert [row.epoch for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1].loss < rows[0].loss - 0.5
    assert rows[-1].val["n"] >= 1 and rows[-1].val["dice"] > 0.6


def test_the_run_folder_says_what_was_done(tiny_run, tiny_prepared):
    run = Run.open(tiny_run)
    assert run.recipe == tiny.recipe("train.epochs=6", "train.steps_per_epoch=20")
    assert run.split == Dataset(tiny_prepared).splits["patient"]
    record = run.record
    assert record.device.name == "cpu" and len(record.device.reasons) >= 3
    assert record.environment["torch"] == torch.__version__ and record.memory.startswith("resident: loading takes ")


#: Trains on, and kills itself: in the step after so many ("step"), or when that many are done and a checkpoint was
#: written under another name ("before") or has just got its own ("after"). Says how many steps it did.
KILL = """
import os, signal, sys, tiny
import hemotorch.training.learner as s
import hemotorch.training.loop as t
limit, moment, calls, inner, replace = int(sys.argv[3]), sys.argv[4], 0, s.Learner.update, os.replace
def die(now):
    if moment == now and calls > limit - (now != "step"):
        os.kill(os.getpid(), signal.SIGKILL)
def update(*a):
    global calls
    calls += 1
    die("step")
    inner(*a)
def move(old, new):
    wanted = str(new).endswith(".pt")
    wanted and die("before")
    replace(old, new)
    wanted and die("after")
s.Learner.update, os.replace = update, move
t.LOSS_EVERY = 2
t.train(sys.argv[1], sys.argv[2], tiny.recipe("train.checkpoint_s=0.0", *sys.argv[5:]), device="cpu", resume=True)
print(calls)
"""
NEVER = 10**6


def _command(data: Path, root: Path, steps: int, moment: str = "step", *settings: str) -> dict[str, Any]:
    command = [sys.executable, "-c", KILL, str(data), str(root), str(steps), moment, *settings]
    return {"args": command, "env": {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}}


def _killed(*how: Any) -> None:
    assert subprocess.run(**_command(*how), capture_output=True, timeout=120).returncode == -signal.SIGKILL


def _goes_on(data: Path, root: Path, total: int, *settings: str) -> None:
    """To the end, and does only the steps that the last checkpoint lacks."""
    last = load_checkpoint(root / LAST).trainer
    ended = subprocess.run(
        **_command(data, root, NEVER, "step", *settings), capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) == total - (last["epoch"] * 7 + last["step"]) < total


def test_a_killed_run_ends_bit_for_bit_like_one_that_was_not(tiny_prepared, tmp_path):
    train(tiny_prepared, tmp_path / "whole", tiny.recipe("train.checkpoint_s=0.0"), device="cpu")
    # 3 epochs of 7 steps: killed inside an epoch, while an epoch's end is written, within the next one's checkpoint and
    # after it; then to the end.
    for steps, moment in ((4, "step"), (3, "before"), (3, "after"), (2, "step")):
        _killed(tiny_prepared, tmp_path / "killed", steps, moment)
    assert len(list((tmp_path / "killed").glob(".*.part.best.pt"))) == 1, "written, and not named yet"
    _goes_on(tiny_prepared, tmp_path / "killed", 21)
    for name in (LAST, BEST):
        assert _same(_weights(tmp_path / "whole", name), _weights(tmp_path / "killed", name))
    rows = [[dataclasses.replace(row, seconds=0) for row in Run(tmp_path / n).metrics] for n in ("whole", "killed")]
    assert [r.epoch for r in rows[1]] == [1, 2, 3]
    assert rows[0][-1].val == rows[1][-1].val
    assert np.allclose([r.loss for r in rows[0]], [r.loss for r in rows[1]], rtol=1e-6)


@pytest.mark.parametrize(("label", "done"), [("training", 10), ("validating", 1)])
def test_who_listens_may_stop_it_and_it_goes_on_from_that_very_step(tiny_prepared, tmp_path, updates, label, done):
    """Within an epoch, though no checkpoint is due, and while the second one is validated, which is done again."""

    def stop(event):
        if isinstance(event, Progress) and (event.label, event.done) == (label, done) and len(updates) >= 10:
            raise Stopped

    recipe = tiny.recipe("train.checkpoint_s=600")
    with pytest.raises(Stopped), listening(stop):
        train(tiny_prepared, tmp_path / "stopped", recipe, device="cpu")
    done_before = len(updates)
    assert done_before == (10 if label == "training" else 14)
    stored = load_checkpoint(tmp_path / "stopped" / LAST).trainer
    assert stored["epoch"] * 7 + stored["step"] == done_before
    stopped = train(tiny_prepared, tmp_path / "stopped", device="cpu", resume=True)
    assert len(updates) == 21
    whole = train(tiny_prepared, tmp_path / "whole", recipe, device="cpu")
    for name in (LAST, BEST):
        assert _same(_weights(whole.root, name), _weights(stopped.root, name))
    for row, other in zip(whole.metrics, stopped.metrics, strict=True):
        assert row.loss == pytest.approx(other.loss, rel=1e-6) and row.val == other.val


@pytest.mark.long
def test_fifty_random_kills(tiny_prepared, tmp_path):
    """Each after the process has gone on and written a checkpoint, which it does every two steps, or within one.
    HEMOTORCH_KILLS=500 kills it more often."""
    kills = int(os.environ.get("HEMOTORCH_KILLS", "50"))
    long = f"train.epochs={3 * kills}"
    train(tiny_prepared, tmp_path / "whole", tiny.recipe("train.checkpoint_s=0.0", long), device="cpu")
    random, last = np.random.default_rng(0), tmp_path / "killed" / LAST
    for _ in range(kills):
        before = last.stat().st_mtime_ns if last.exists() else None
        command = _command(tiny_prepared, tmp_path / "killed", NEVER, "step", long)
        with subprocess.Popen(**command, stderr=subprocess.DEVNULL) as process:
            until = time.monotonic() + 60
            while (not last.exists() or last.stat().st_mtime_ns == before) and time.monotonic() < until:
                time.sleep(0.005)
            time.sleep(random.uniform(0, 0.3))
            assert process.poll() is None, "it was still training"
            assert last.exists() and last.stat().st_mtime_ns != before, "it went on"
            process.kill()
    assert load_checkpoint(last).epoch < 3 * kills
    _goes_on(tiny_prepared, tmp_path / "killed", 21 * kills, long)
    for name in (LAST, BEST):
        assert _same(_weights(tmp_path / "whole", name), _weights(tmp_path / "killed", name))
    whole, killed = (load_checkpoint(tmp_path / name / LAST).trainer["optimizer"] for name in ("whole", "killed"))
    assert whole["state"].keys() == killed["state"].keys()
    for number, state in whole["state"].items():
        assert _same(state, killed["state"][number])


def test_streamed_and_resident_training_are_the_same(tiny_prepared, tmp_path):
    for memory in ("resident", "stream"):
        settings = (f"data.memory='{memory}'", "train.epochs=1")
        train(tiny_prepared, tmp_path / memory, tiny.recipe(*settings), device="cpu")
        assert Run.open(tmp_path / memory).record.memory == f"{memory}: asked for"
    assert _same(_weights(tmp_path / "resident"), _weights(tmp_path / "stream"))


def test_slices_of_several_sizes_train_alike_resident_and_streamed(tmp_path):
    source = tiny.write_dataset(tmp_path / "source", patients=6, normal=1)
    scan, mask = tiny.head(5)
    wide = ((0, 0), (0, 32), (0, 32))
    larger = even_scan(np.pad(scan.hu, wide, constant_values=-1000), tiny.PIXEL_MM, 5.0)
    io.write_scan(larger, source / "ct_scans/054.nii")
    io.write_mask(larger, np.pad((mask > 0).astype(np.uint8), wide), source / "masks/054.nii")
    prepare(source, tmp_path / "prepared")
    native = (
        "grid.size_px=0",
        "grid.pixel_mm=0",
        "train.epochs=1",
        "train.steps_per_epoch=0",
        "data.split=slice-80-20",
    )
    blocks = ("tiles.size_px=32", "tiles.stride_px=32", "data.slices=all")
    for more in ((), blocks):
        steps = set()
        for memory in ("resident", "stream"):
            root = tmp_path / f"{memory}{len(more)}"
            recipe = tiny.recipe(
                *native, "data.validation=false", "train.best_by=last", f"data.memory='{memory}'", *more
            )
            steps.add(train(tmp_path / "prepared", root, recipe, device="cpu").metrics[-1].step)
        assert len(steps) == 1
        assert _same(_weights(tmp_path / f"resident{len(more)}"), _weights(tmp_path / f"stream{len(more)}"))


def test_the_last_epoch_is_kept_where_asked_for(tiny_prepared, tmp_path):
    run = train(tiny_prepared, tmp_path / "run", tiny.recipe("train.best_by=last"), device="cpu")
    assert load_checkpoint(run.root / BEST).epoch == 3 and all(row.val is not None for row in run.metrics)


def test_another_seed_is_another_training(tiny_prepared, tmp_path):
    for seed in (0, 1):
        train(tiny_prepared, tmp_path / str(seed), tiny.recipe("train.epochs=1", f"train.seed={seed}"), device="cpu")
    assert not _same(_weights(tmp_path / "0"), _weights(tmp_path / "1"))


def test_accumulated_batches_give_the_gradient_of_their_mean(tiny_prepared, tmp_path):
    # Nothing random, and no batch norm in the way: two batches of 2 are one of 4, to rounding.
    common = [
        f"augment.{key}=0.0"
        for key in dataclasses.asdict(load_recipe("fast").augment)
        if key not in ("flip", "crop_px")
    ]
    common += [
        "augment.flip=false",
        "augment.crop_px=0",
        "net.name=unet",
        "net.options={channels=4, levels=2, dropout=0.0}",
    ]
    common += ["loss.name=cross-entropy", "data.positive_share=0", "optimizer.name=sgd", "optimizer.momentum=0"]
    common += ["optimizer.schedule=constant", "optimizer.weight_decay=0", "optimizer.warmup=0"]
    common += ["train.ema=0", "train.epochs=1", "grid.size_px=32", "grid.pixel_mm=6"]
    one = tiny.recipe(*common, "train.batch=4", "train.steps_per_epoch=1")
    two = tiny.recipe(*common, "train.batch=2", "train.steps_per_epoch=1", "train.accumulate=2")
    for name, recipe in (("one", one), ("two", two)):
        train(tiny_prepared, tmp_path / name, recipe, device="cpu")
    a, b = _weights(tmp_path / "one"), _weights(tmp_path / "two")
    assert all(torch.allclose(a[key].float(), b[key].float(), atol=1e-6) for key in a)


def test_recipes_of_the_literature_take_a_step(tiny_prepared, tmp_path):
    small = ("train.epochs=1", "train.steps_per_epoch=1", "train.batch=2", "data.split=patient")
    options = {
        "paper": ("net.options.channels=4",),
        "hssayeni-full": ("net.options.channels=4", "train.accumulate=2"),
        "hssayeni-blocks": ("net.options.channels=4", "tiles.size_px=32", "tiles.stride_px=16"),
    }
    for name, more in options.items():
        run = train(tiny_prepared, tmp_path / name, load_recipe(name).changed([*small, *more]), device="cpu")
        assert (run.metrics[0].val is not None) == (name != "paper")
        assert (run.root / BEST).is_file()


def test_nan_stops_with_the_last_good_checkpoint(tiny_prepared, tmp_path, monkeypatch):
    def diverge(row):
        monkeypatch.setattr(hemotorch.training.learner, "learning_rate", lambda *_: 1e30)

    recipe = tiny.recipe("train.epochs=3")
    with (
        pytest.raises(RunError, match=r"the loss became nan.*epoch 2.*lower optimizer.lr|epoch 2.*the loss became nan"),
        listening(tiny.on_epochs(diverge)),
    ):
        train(tiny_prepared, tmp_path / "run", recipe, device="cpu")
    assert load_checkpoint(tmp_path / "run" / LAST).epoch == 1
    assert all(bool(v.isfinite().all()) for v in _weights(tmp_path / "run").values())


def test_out_of_memory_says_what_to_lower(tiny_prepared, tmp_path, monkeypatch):
    def full(*_):
        # What torch's CPU allocator really does when asked for far too much.
        return torch.empty(2**60)

    monkeypatch.setattr(hemotorch.training.job.losses, "build", lambda name, **options: losses.Loss(full, full))
    with pytest.raises(RunError, match=r"out of memory on cpu with a batch of 4x3x32x32; not even the smallest"):
        train(tiny_prepared, tmp_path / "run", tiny.recipe(), device="cpu")


def test_a_full_disk_leaves_the_last_checkpoint_and_the_run_goes_on(tiny_prepared, tmp_path, tmpfs, updates):
    root, recipe = tmpfs / "run", tiny.recipe("train.checkpoint_s=0.0")
    subprocess.run(["mount", "-o", "remount,size=40m", str(tmpfs)], check=True)
    filler, kept = tmpfs / "filler", {}

    def fill(row):
        if row.epoch == 1:
            kept.update(_weights(root))
            with contextlib.suppress(OSError):
                filler.write_bytes(bytes(64 * 1024**2))

    with pytest.raises(RunError, match="the disk is full") as error, listening(tiny.on_epochs(fill)):
        train(tiny_prepared, root, recipe, device="cpu")
    assert str(root) in str(error.value)
    assert kept and _same(kept, _weights(root)) and load_checkpoint(root / BEST).epoch == 1
    filler.unlink()
    done = len(updates)
    train(tiny_prepared, root, device="cpu", resume=True)
    assert len(updates) - done == 14, "two epochs of seven steps"
    train(tiny_prepared, tmp_path / "whole", recipe, device="cpu")
    assert _same(_weights(root), _weights(tmp_path / "whole"))


def test_stopped_before_the_first_checkpoint_it_starts_again(tiny_prepared, tmp_path):
    _killed(tiny_prepared, tmp_path / "run", 0)
    assert (tmp_path / "run" / "run.json").exists() and not (tmp_path / "run" / LAST).exists()
    assert len(train(tiny_prepared, tmp_path / "run", device="cpu", resume=True).metrics) == 3


def test_two_trainings_into_one_folder(tiny_prepared, tmp_path):
    root = tmp_path / "run"
    train(tiny_prepared, root, tiny.recipe("train.epochs=1"), device="cpu")
    with pytest.raises(InputError, match="holds a training run already; add --resume"):
        train(tiny_prepared, root, tiny.recipe(), device="cpu")
    with Run(root).locked(), pytest.raises(RunError, match="another training is using"):
        train(tiny_prepared, root, tiny.recipe(), device="cpu", resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not a run folder"):
        train(tiny_prepared, tmp_path / "other", tiny.recipe(), device="cpu")


def test_wrong_options_are_named_before_anything_is_written(tiny_prepared, tmp_path):
    for setting, says in {
        "data.split=patiant": "has no split 'patiant'",
        "net.name=unett": "did you mean 'unet'",
        "net.options.chanels=[4]": "did you mean 'channels'",
        "loss.name=focall": "did you mean 'focal'",
        "loss.options.epsilon=1": "eps",
        "data.split=patient-80-20": "no validation part",
        "augment.crop_px=20": "must be a multiple of 8 for 'compact', not 20",
        "tiles.size_px=20": "must be",
        "engine.threads=999999999999": "must be from 0 to 4096",
        "optimizer.lr=1e300": "must be above 0 and up to 1000000",
        "train.batch=1000000000": "must be from 1 to",
        "train.steps_per_epoch=1000000000000": "must be from 0 to",
        "train.steps_per_epoch=9000000 train.batch=64": "an epoch of .* samples is more than",
    }.items():
        with pytest.raises((OptionError, InputError), match=says):
            train(tiny_prepared, tmp_path / "run", tiny.recipe(*setting.split()), device="cpu")
        assert not (tmp_path / "run" / "run.json").exists()


def test_resuming_with_another_recipe_or_other_scans_is_refused(tiny_prepared, tmp_path):
    root = tmp_path / "run"
    train(tiny_prepared, root, tiny.recipe("train.epochs=1"), device="cpu")
    with pytest.raises(OptionError, match=r"was started with train.epochs = 1, not 5"):
        train(tiny_prepared, root, tiny.recipe("train.epochs=5"), device="cpu", resume=True)
    assert len(train(tiny_prepared, root, device="cpu", resume=True).metrics) == 1
    prepare(tiny.write_dataset(tmp_path / "other", seed=500), tmp_path / "prepared")
    with pytest.raises(InputError, match="was changed since this run was started"):
        train(tmp_path / "prepared", root, device="cpu", resume=True)


@pytest.mark.parametrize("settings", [("train.batch=1",), ("train.batch=2",), ("data.positive_share=1.0",)])
def test_small_batches_and_full_shares_have_their_plan(tiny_prepared, tmp_path, settings):
    recipe = tiny.recipe("train.epochs=1", "train.steps_per_epoch=2", *settings)
    assert train(tiny_prepared, tmp_path / "run", recipe, device="cpu").metrics[0].step == 2


def test_cuda_without_cuda(tiny_prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match=r"'cuda' was asked for, but .*--device cpu"):
        train(tiny_prepared, tmp_path / "run", tiny.recipe(), device="cuda")


def test_without_validation_its_patients_are_trained_on(tiny_prepared):
    split = Dataset(tiny_prepared).splits["patient"]
    merged, validation = training_parts(split, load_recipe("paper"))
    assert merged.keys() == split.train.keys() | split.val.keys() and not validation
    kept, validation = training_parts(split, load_recipe("fast"))
    assert kept == split.train and validation == split.val
    assert not merged.keys() & split.test.keys()


def test_learning_rate():
    flat = Optimizer(lr=0.1)
    assert {learning_rate(flat, s, 10) for s in range(10)} == {0.1}
    cycle = Optimizer(lr=1.0, schedule="one-cycle", warmup=0.2)
    rates = [learning_rate(cycle, s, 100) for s in range(100)]
    assert np.argmax(rates) == 20 and rates[20] == 1.0 and rates[-1] < 0.01
    assert all(np.diff(rates[:21]) > 0) and all(np.diff(rates[20:]) < 0)


def test_short_epochs_share_a_checkpoint(tiny_prepared, tmp_path, monkeypatch, updates):
    written = []
    inner = state_module.save_checkpoint
    monkeypatch.setattr(state_module, "save_checkpoint", lambda *a: written.append(a[1].name) or inner(*a))
    monkeypatch.setattr(training, "SHORT_S", 600.0)  # this machine may be busy
    recipe = tiny.recipe("train.checkpoint_s=120", "data.validation=false", "train.epochs=4")
    run = train(tiny_prepared, tmp_path / "run", recipe, device="cpu")
    assert written == ["best.pt", "last.pt"] and len(run.metrics) == 4
    assert load_checkpoint(run.root / "last.pt").epoch == 4

    # Stopped before the first one, it starts again, and no row is there twice.
    def stop(row):
        raise InterruptedError

    with pytest.raises(InterruptedError), listening(tiny.on_epochs(stop)):
        train(tiny_prepared, tmp_path / "stopped", recipe, device="cpu")
    assert not (tmp_path / "stopped" / "last.pt").exists()
    updates.clear()
    again = train(tiny_prepared, tmp_path / "stopped", device="cpu", resume=True)
    assert len(updates) == 28 and [row.epoch for row in again.metrics] == [1, 2, 3, 4]
    written.clear()
    train(tiny_prepared, tmp_path / "validated", recipe.changed(["data.validation=true"]), device="cpu")
    assert written.count("last.pt") == 4


@pytest.fixture(scope="module")
def mixed_prepared(tmp_path_factory):
    """Tiny heads of slices 5 mm apart, but for one of 2.5 mm and one that is uneven."""
    folder = tmp_path_factory.mktemp("mixed")
    source = tiny.write_dataset(folder / "source", patients=8, normal=2)
    for name, seed in (("054", 5), ("055", 6)):
        scan, mask = tiny.head(seed)
        thin = even_scan(np.repeat(scan.hu, 2, axis=0), tiny.PIXEL_MM, 2.5)
        io.write_scan(thin, source / f"ct_scans/{name}.nii")
        io.write_mask(thin, np.repeat((mask > 0).astype(np.uint8), 2, axis=0), source / f"masks/{name}.nii")
    prepare(source, folder / "prepared")
    return folder / "prepared"


MIXED = ("data.split=slice-80-20", "data.validation=false", "train.best_by=last")


def test_other_slice_distances_train_alike_resident_and_streamed(mixed_prepared, tmp_path):
    blocks = ("tiles.size_px=32", "tiles.stride_px=32", "data.slices=all", "augment.crop_px=0")
    for more in ((), blocks):
        for memory in ("resident", "stream"):
            recipe = tiny.recipe("train.epochs=1", f"data.memory='{memory}'", *MIXED, *more)
            train(mixed_prepared, tmp_path / f"{memory}{len(more)}", recipe, device="cpu")
        assert _same(_weights(tmp_path / f"resident{len(more)}"), _weights(tmp_path / f"stream{len(more)}"))


def test_what_a_network_is_trained_on_is_what_it_predicts_on(mixed_prepared):
    """Sample by sample, a thin scan's, whose slices are made for it, and one of the usual distance."""
    dataset, recipe = Dataset(mixed_prepared), tiny.recipe(*MIXED)
    split = dataset.split("slice-80-20")
    job, net = open_job(dataset, *training_parts(split, recipe), recipe, choose("cpu", recipe.engine), Ranks())
    assert job.deployment.slice_spacing == SliceSpacing(5.0, 2.5, 5.0)
    predictor = Predictor(TorchModel.of(net, job.device, job.deployment), job.deployment)
    number = 0
    thin = 0
    for case, indices in sorted(training_parts(split, recipe)[0].items()):
        scan = dataset.scan(case)
        working = hu_to_working(scan.hu, place(predictor.grid, scan))
        stacks = predictor.model._reader._stacks(working, slice_positions_mm(scan))(np.arange(len(scan.hu)))
        thin += not np.array_equal(stacks[1], working[[0, 1, 2]])
        for index in indices:
            hu, _, rows = job.slices.take(torch.tensor([number]))
            assert np.array_equal(hu[rows[0]], stacks[index]), (case, index)
            number += 1
    assert thin == 2 and number == len(job.slices.positive)


def test_a_run_of_a_version_without_slice_spacing_goes_on_as_it_began(mixed_prepared, tmp_path):
    """And one of today is not changed by it: the two differ, since the dataset has thin scans."""
    whole = train(mixed_prepared, tmp_path / "whole", tiny.recipe(*MIXED), device="cpu")
    assert whole.record.slice_spacing == SliceSpacing(usual_mm=5.0, least_mm=2.5, most_mm=5.0)
    assert load_checkpoint(whole.root / BEST).deployment.slice_spacing == whole.record.slice_spacing
    old = tmp_path / "old"
    shutil.copytree(whole.root, old)
    for path in (old / BEST, old / LAST, old / "metrics.jsonl"):
        path.unlink()
    record = json.loads((old / "run.json").read_text())
    del record["slice_spacing"]
    (old / "run.json").write_text(json.dumps({**record, "format": 4}))
    train(mixed_prepared, old, device="cpu", resume=True)
    assert load_checkpoint(old / BEST).deployment.slice_spacing is None
    assert not _same(_weights(whole.root), _weights(old))
    record["slice_spacing"] = {"usual_mm": 5.0, "least_mm": 2.5, "most_mm": 5.0}
    (old / "run.json").write_text(json.dumps(record))
    for path in (old / BEST, old / LAST, old / "metrics.jsonl"):
        path.unlink()
    train(mixed_prepared, old, device="cpu", resume=True)
    assert _same(_weights(whole.root), _weights(old))
