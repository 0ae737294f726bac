"""Several processes train as one: the same numbers, the same end, and a word of what happened to one that died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

import tiny
from hemotorch.data.prepare import prepare
from hemotorch.errors import OptionError
from hemotorch.inference.checkpoint import load_checkpoint
from hemotorch.run import LAST, Run
from hemotorch.system import machine
from hemotorch.system.ranks import process_group
from hemotorch.training.learner import Learner
from hemotorch.training.loop import train

TRAIN = "import sys\n{before}\nfrom hemotorch.cli import main\nsys.exit(main(sys.argv[1:]))"
STORES: list[dist.TCPStore] = []  # kept while their ranks run
#: Nothing random is left out: dropout, augmentation, noise. fp64, so that only what differs in kind shows.
EXACT = ("engine.precision=fp64", "engine.sync_batch_norm=true", "train.epochs=2", "train.steps_per_epoch=6")


def ranks(count: int, data: Path, root: Path, *settings: str, before: str = "") -> list[subprocess.Popen[str]]:
    """Starts that many ranks of `hemotorch train` on this machine, as torchrun would; `before` is run in each first."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    STORES.append(store)
    recipe = root.with_suffix(".toml")
    recipe.write_text(tiny.recipe(*settings).to_toml())
    shared = {"OMP_WAIT_POLICY": "PASSIVE", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}  # torchrun too holds the store outside of its ranks
    shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    command = [sys.executable, "-c", TRAIN.format(before=before), "train", str(data), str(root)]
    command += ["--recipe", str(recipe), "--device", "cpu", "--resume"]
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit status and output of each."""
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


def weights(root: Path) -> dict[str, torch.Tensor]:
    checkpoint = load_checkpoint(root / LAST)
    return {**checkpoint.weights, **{f"raw.{k}": v for k, v in checkpoint.trainer["net"].items()}}


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[key].double() - b[key].double()).abs().max()) for key in a)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty tiny heads, of which several with bleeding are validated on."""
    folder = tmp_path_factory.mktemp("several")
    prepare(tiny.write_dataset(folder / "data", patients=20), folder / "prepared")
    return folder / "prepared"


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("net.name=unet-medicaltorch", "net.options={channels=4}", "loss.name=negative-dice", "optimizer.name=adam"),
        ("train.accumulate=2", "loss.name=cross-entropy", "optimizer.name=sgd", "optimizer.lr=0.05"),
    ],
    ids=["fast", "paper", "accumulated"],
)
def test_two_ranks_follow_one(several: Path, tmp_path: Path, settings: tuple[str, ...]) -> None:
    train(several, tmp_path / "one", tiny.recipe(*EXACT, *settings), device="cpu")
    for status, output in ended(ranks(2, several, tmp_path / "two", *EXACT, *settings)):
        assert status == 0, output
    assert furthest(weights(tmp_path / "one"), weights(tmp_path / "two")) < 1e-9
    one, two = (Run.open(tmp_path / name) for name in ("one", "two"))
    assert two.record.ranks == 2
    for row, other in zip(one.metrics, two.metrics, strict=True):
        assert row.val == other.val, "counts are put together and divided once"
        assert row.val["n"] >= 2, "each rank has its own scans"
        assert row.loss == pytest.approx(other.loss, abs=1e-7)


def test_plain_batch_norm_is_another_training(tiny_prepared: Path, tmp_path: Path) -> None:
    """What docs/parallel.md says of it, and what shows that the test above could fail."""
    plain = ("engine.precision=fp64", "train.epochs=1")
    train(tiny_prepared, tmp_path / "one", tiny.recipe(*plain), device="cpu")
    for status, output in ended(ranks(2, tiny_prepared, tmp_path / "two", *plain)):
        assert status == 0, output
    assert 1e-5 < furthest(weights(tmp_path / "one"), weights(tmp_path / "two")) < 1


def test_a_run_goes_on_with_another_number_of_ranks(
    tiny_prepared: Path, tmp_path: Path, updates: list[Learner]
) -> None:
    dies = "import hemotorch.training.learner as s, os, signal\ninner, calls = s.Learner.update, []\n"
    dies += (
        "def update(self):\n    calls.append(1)\n    if len(calls) > 8:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    dies += "    inner(self)\ns.Learner.update = update\n"
    steady = (*EXACT, "train.checkpoint_s=0.0")
    killed = ended(ranks(2, tiny_prepared, tmp_path / "run", *steady, before=dies))
    assert [status for status, _ in killed] == [-signal.SIGKILL] * 2
    train(tiny_prepared, tmp_path / "run", device="cpu", resume=True)
    assert len(updates) == 6, "the second epoch alone"
    record = Run(tmp_path / "run").record
    (later,) = record.resumed
    assert (record.ranks, later.ranks, later.epoch) == (2, 1, 1)
    assert later.device.threads == machine.cores(), "all of them, and not a rank's share"
    train(tiny_prepared, tmp_path / "whole", tiny.recipe(*steady), device="cpu")
    assert furthest(weights(tmp_path / "run"), weights(tmp_path / "whole")) < 1e-9


@pytest.mark.long
def test_a_killed_rank_stops_the_other_at_once_and_is_named(tiny_prepared: Path, tmp_path: Path) -> None:
    started = ranks(2, tiny_prepared, tmp_path / "run", "train.epochs=500", "train.checkpoint_s=0.0")
    until = time.monotonic() + 60
    while not (tmp_path / "run" / LAST).exists() and time.monotonic() < until:
        time.sleep(0.05)
    started[1].kill()
    began = time.monotonic()
    (status, output), _ = ended(started)
    assert status == 1 and "rank 1 was killed; go on from the last checkpoint with --resume" in output
    assert time.monotonic() - began < 20 and "Traceback" not in output
    kept = load_checkpoint(tmp_path / "run" / LAST)
    assert kept.trainer["epoch"] + kept.trainer["step"] > 0


@pytest.mark.parametrize("ill", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_rank_with_an_error_tells_the_other(tiny_prepared: Path, tmp_path: Path, ill: int) -> None:
    fails = "import os\nimport hemotorch.training.loop as s\ninner = s.train_step\n"
    fails += "def backward(*a):\n    from hemotorch.errors import InputError\n"
    fails += f"    if os.environ['RANK'] == '{ill}':\n        raise InputError('is damaged', 'scan 7')\n"
    fails += "    return inner(*a)\ns.train_step = backward\n"
    results = ended(ranks(2, tiny_prepared, tmp_path / "run", before=fails))
    status, output = results[ill]
    assert status == 1 and output.splitlines()[-1] == "hemotorch train: scan 7: is damaged"
    assert ill or "3 epochs of 7 steps" in output.splitlines()[0]
    assert len(output.splitlines()) == (1 if ill else 2)
    assert results[1 - ill][0] == 1
    assert f"rank {1 - ill}: rank {ill} stopped: scan 7: is damaged" in results[1 - ill][1].splitlines()[-1]


@pytest.mark.long
def test_a_rank_that_hangs_is_named(tiny_prepared: Path, tmp_path: Path) -> None:
    hangs = "import os, time\nimport hemotorch.training.learner as s\ninner = s.Learner.update\n"
    hangs += "def update(self):\n    if os.environ['RANK'] == '1':\n        time.sleep(60)\n    inner(self)\n"
    hangs += "s.Learner.update = update\n"
    started = ranks(2, tiny_prepared, tmp_path / "run", "engine.rank_timeout_s=4", before=hangs)
    output = started[0].communicate(timeout=60)[0]
    started[1].kill()
    started[1].communicate()
    assert started[0].returncode == 1
    assert "rank 1 has not answered for 4 s" in output.splitlines()[-1]


def test_more_ranks_than_cores(tiny_prepared: Path, tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    results = ended(ranks(cores + 1, tiny_prepared, tmp_path / "run"))
    assert all(status == 1 and f"{cores + 1} ranks were started on a machine of" in text for status, text in results)


def test_a_batch_that_cannot_be_shared(tiny_prepared: Path, tmp_path: Path) -> None:
    for status, output in ended(ranks(2, tiny_prepared, tmp_path / "run", "train.batch=5")):
        assert status == 1 and "a batch of 5 is not shared evenly by 2 ranks; choose a multiple of 2" in output


def test_an_environment_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match="start the ranks with torchrun"), process_group():
        pass


def test_one_process_is_a_rank_too() -> None:
    with process_group() as alone:
        values = torch.arange(3.0)
        assert alone.all_sum(values) is values and alone.gather(5) == [5] and alone.first
        assert alone.mine(np.arange(4)).tolist() == [0, 1, 2, 3]
        alone.average_([values])
        assert values.tolist() == [0, 1, 2]
