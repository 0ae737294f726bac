"""Several ranks on one machine: they train as one does, and what happens when one is killed, hangs or fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from torch.distributed.elastic.multiprocessing import SignalException

import tiny
from hemotorch.cluster import torchrun
from hemotorch.cluster.torchrun import _explained
from hemotorch.cluster.training import Devices, Training
from hemotorch.errors import HemotorchError, InputError, OptionError, RankLost, RunError
from hemotorch.inference.checkpoint import load_checkpoint
from hemotorch.run import LAST, Run
from hemotorch.system.events import ignore, listening
from hemotorch.system.ranks import GO_ON
from hemotorch.training.loop import train
from processes import epochs, until

#: In fp64 and with common batch statistics several ranks compute what one does.
EXACT = ("engine.precision=fp64", "engine.sync_batch_norm=true", "train.checkpoint_s=0.0")


def started(
    data: Path, root: Path, *options: str, settings: tuple[str, ...] = (), **kwargs: object
) -> subprocess.Popen:
    """`hemotorch cluster torchrun` with two ranks on the CPU, in a process group of its own."""
    recipe = root.with_suffix(".toml")
    recipe.write_text(tiny.recipe(*settings).to_toml())
    command = [sys.executable, "-m", "hemotorch.cli", "cluster", "torchrun", str(data), str(root)]
    command += ["--recipe", str(recipe), "--device", "cpu", "--ranks", "2", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen(command, **{**pipes, **kwargs})


def ranks_of(launcher: int) -> list[int]:
    """Process numbers of the ranks that a launcher has started, in order."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and b"spawn_main" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except (OSError, IndexError):
            continue
    return sorted(found)


def weights(root: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(root / LAST).weights


@pytest.mark.long
def test_a_killed_rank_is_started_again_and_the_run_ends_as_if_nothing_had_been(tiny_prepared, tmp_path):
    settings = (*EXACT, "train.epochs=4", "train.steps_per_epoch=24")
    run = tmp_path / "run"
    launcher = started(tiny_prepared, run, "--restarts", "1", settings=settings)
    until(lambda: epochs(run) and (run / LAST).exists(), launcher)
    first = Run(run).metrics[0]
    os.kill(ranks_of(launcher.pid)[1], signal.SIGKILL)
    out, error = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, error
    assert error == ""
    assert out.count("rank 1: was killed by SIGKILL") == 1 and "starting the ranks again (1 of 1)" in out
    assert re.findall(r"^epoch +(\d)", out, re.M) == ["1", "2", "3", "4"], "the first rank alone prints"
    assert epochs(run) == [1, 2, 3, 4] and Run(run).record.ranks == 2
    assert Run(run).metrics[0] == first, "what was done is not done again"
    train(tiny_prepared, tmp_path / "one", tiny.recipe(*settings), device="cpu")
    one, two = weights(tmp_path / "one"), weights(run)
    assert max(float((one[name].double() - two[name].double()).abs().max()) for name in one) < 1e-9


@pytest.mark.long
def test_a_killed_rank_is_named_in_one_line_and_one_process_goes_on(tiny_prepared, tmp_path, updates):
    run = tmp_path / "run"
    launcher = started(tiny_prepared, run, "--json", settings=("train.epochs=3", "train.steps_per_epoch=60"))
    until(lambda: epochs(run) and (run / LAST).exists(), launcher)
    began = time.monotonic()
    os.kill(ranks_of(launcher.pid)[0], signal.SIGKILL)
    out, error = launcher.communicate(timeout=60)
    assert time.monotonic() - began < 20, "not a time-out"
    assert (launcher.returncode, out) == (1, "")
    assert error.count("\n") == 1 and error.startswith("hemotorch cluster torchrun: rank 0: was killed by SIGKILL")
    assert "go on from the last checkpoint with --resume" in error and ranks_of(launcher.pid) == []
    last = load_checkpoint(run / LAST).trainer
    told: list[int] = []
    with listening(tiny.on_epochs(lambda row: told.append(row.epoch))):
        train(tiny_prepared, run, device="cpu", resume=True)
    assert told == list(range(last["epoch"] + 1, 4)) and epochs(run) == [1, 2, 3]
    assert len(updates) == 3 * 60 - (last["epoch"] * 60 + last["step"]) < 3 * 60


@pytest.mark.parametrize("when", ["starting", "training"])
def test_ctrl_c_says_how_to_go_on(tiny_prepared, tmp_path, when):
    run = tmp_path / "run"
    launcher = started(tiny_prepared, run, settings=("train.epochs=500",))
    until(lambda: len(ranks_of(launcher.pid)) == 2 if when == "starting" else (run / LAST).exists(), launcher)
    time.sleep(0.2)  # a rank is seen before Python, which starts it, knows of it
    os.killpg(launcher.pid, signal.SIGINT)  # as a terminal does: to launcher and ranks
    _, error = launcher.communicate(timeout=60)
    kept = "with --resume it goes on from its last checkpoint"
    none = "no checkpoint was written yet, with --resume it starts from the beginning"
    said = f"hemotorch cluster torchrun: stopped; {none if when == 'starting' else kept}"
    assert launcher.returncode == 130 and error.strip() == said


def test_a_signal_before_the_agent_knows_its_ranks_ends_them(tmp_path, monkeypatch):
    started = []

    def interrupted(config, function):
        def launch(*arguments):
            started.append(get_context("spawn").Process(target=time.sleep, args=(60,)))
            started[0].start()
            raise SignalException("", signal.SIGINT)

        return launch

    monkeypatch.setattr(torchrun, "elastic_launch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        torchrun._launch(Training(str(tmp_path), str(tmp_path), None), 2)
    assert started[0].exitcode == -signal.SIGKILL


@pytest.mark.long
def test_a_launcher_that_is_told_to_end_starts_nothing_again(tiny_prepared, tmp_path):
    run = tmp_path / "run"
    launcher = started(tiny_prepared, run, "--restarts", "2", settings=("train.epochs=500",))
    until(lambda: epochs(run), launcher)
    launcher.send_signal(signal.SIGTERM)
    out, error = launcher.communicate(timeout=60)
    assert launcher.returncode == 1 and "starting the ranks again" not in out
    said = "hemotorch cluster torchrun: training: was stopped by SIGTERM; go on from the last checkpoint with --resume"
    assert error.strip() == said


@pytest.mark.long
def test_ranks_end_when_their_launcher_is_killed(tiny_prepared, tmp_path):
    run = tmp_path / "run"
    launcher = started(tiny_prepared, run, settings=("train.epochs=500",), stderr=subprocess.DEVNULL)
    until(lambda: epochs(run), launcher)
    launcher.kill()
    launcher.communicate(timeout=60)  # standard output stays open as long as a rank lives
    assert launcher.returncode == -signal.SIGKILL


@pytest.mark.long
def test_a_rank_that_hangs_is_named(tiny_prepared, tmp_path):
    run = tmp_path / "run"
    settings = ("train.epochs=500", "engine.rank_timeout_s=4")
    launcher = started(tiny_prepared, run, settings=settings)
    until((run / LAST).exists, launcher)
    os.kill(ranks_of(launcher.pid)[1], signal.SIGSTOP)  # torch waits 30 s for a process to end before it kills it
    _, error = launcher.communicate(timeout=90)
    assert launcher.returncode == 1 and error.count("\n") == 1
    assert "rank 0: rank 1 has not answered for 4 s; go on from the last checkpoint" in error


@pytest.mark.long
def test_the_error_of_a_rank_is_told_in_one_line(tiny_prepared, tmp_path):
    launcher = started(tiny_prepared, tmp_path / "run", "--restarts", "3", settings=("train.batch=3",))
    out, error = launcher.communicate(timeout=60)
    assert (launcher.returncode, out) == (1, "")
    assert "train.batch: a batch of 3 is not shared evenly by 2 ranks" in error and error.count("\n") == 1


def test_what_cannot_work_is_said_before_ranks_are_started(tiny_prepared, tiny_run, tmp_path, capsys):
    from hemotorch.cli import main

    command = ["cluster", "torchrun", str(tiny_prepared), str(tmp_path / "run"), "--device", "cpu"]
    assert main([*command, "--ranks", "9999"]) == 1
    cores = len(os.sched_getaffinity(0))
    assert f"9999 ranks were asked for, but this machine has {cores} core(s)" in capsys.readouterr().err
    assert main([*command[:3], str(tiny_run)]) == 1
    assert "add --resume to go on with it" in capsys.readouterr().err
    assert main(["cluster", "torchrun", "NOWHERE", str(tmp_path / "run")]) == 1
    assert "hemotorch prepare" in capsys.readouterr().err
    assert main([*command, "--recipe", "fats"]) == 1
    assert "did you mean 'fast'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--ranks", "0"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("asked", "device", "gpus", "cores", "expected"),
    [
        (None, "auto", 4, 64, 4),
        (None, "auto", 0, 64, 2),
        (None, "cpu", 4, 64, 2),
        (None, "auto", 0, 1, 1),
        (3, "auto", 4, 64, 3),
        (64, "cpu", 4, 64, 64),
        (5, "auto", 4, 64, "has 4 GPU"),
        (3, "auto", 0, 2, "has 2 core"),
    ],
)
def test_how_many_ranks_are_started(asked, device, gpus, cores, expected):
    if isinstance(expected, int):
        assert Devices(gpus, cores).ranks(asked, device) == expected
    else:
        with pytest.raises(OptionError, match=expected):
            Devices(gpus, cores).ranks(asked, device)


def test_ranks_that_left_no_word(tmp_path):
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    training = Training(str(tmp_path / "data"), str(tmp_path / "run"), None)
    killed = _explained(1, ProcessFailure(1, 4242, -signal.SIGSEGV, str(tmp_path / "none")), training, tmp_path)
    assert str(killed) == "rank 1: was killed by SIGSEGV; start again" and isinstance(killed, RankLost)
    ended = _explained(0, ProcessFailure(0, 4242, 3, str(tmp_path / "none")), training, tmp_path)
    assert str(ended) == "rank 0: ended with exit status 3; start again"


def received(folder: Path, error: HemotorchError) -> HemotorchError:
    """What the launcher makes of the error that a rank ended with."""
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    class Failing(Training):
        def start(self) -> None:
            raise error

    with pytest.raises(type(error)), pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", "0")
        torchrun._rank(Failing("data", "run", None), ignore, folder)
    training = Training(str(folder), str(folder / "run"), None)
    return _explained(0, ProcessFailure(0, 4242, 1, str(folder / "none")), training, folder)


def test_only_a_lost_rank_is_worth_another_start(tmp_path):
    lost = received(tmp_path, RankLost("rank 1 has not answered for 4 s", "rank 0", GO_ON))
    assert isinstance(lost, RankLost) and str(lost) == f"rank 0: rank 1 has not answered for 4 s; {GO_ON}"
    for error in (RunError("the loss became nan", "epoch 1", "lower it"), InputError("is damaged", "scan 7")):
        known = received(tmp_path, error)
        assert type(known) is type(error) and str(known) == f"rank 0: {error}"
    note = received(tmp_path, RunError("rank 1 stopped: the disk is full", "rank 0", GO_ON))
    assert not isinstance(note, RankLost), "the other rank's own words"
