"""How many threads compute, and that they wait without spinning, in every command and the processes it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tiny
from hemotorch import nets
from hemotorch.bench.processes import child_environment
from hemotorch.errors import OptionError
from hemotorch.inference.checkpoint import Checkpoint, save_checkpoint
from hemotorch.inference.deployment import Deployment
from hemotorch.inference.load import load_model
from hemotorch.io.nifti import write_scan
from hemotorch.recipe import Engine
from hemotorch.system import machine, threads
from hemotorch.system.device import choose
from hemotorch.system.threads import OPENMP, THREADS, WAITING
from hemotorch.task import BLEEDING

VARIABLES = (*WAITING, OPENMP, THREADS)

#: Runs the command line, and tells how many threads torch has after it, and how OpenMP was told to wait when it began.
CHILD = """
import os, sys
from hemotorch import cli
seen = []
run = cli._run
cli._run = lambda *given: (seen.append(os.environ.get("OMP_WAIT_POLICY", "")), run(*given))[1]
status = cli.main(sys.argv[1:])
import torch
print("TOLD", torch.get_num_threads(), *seen)
sys.exit(status)
"""


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No variable of threads is set."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def told(*arguments: str | Path, **variables: str) -> list[str]:
    """Threads of torch and the way of waiting, of a command in a process of its own."""
    environment = {name: value for name, value in child_environment().items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, arguments)],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def test_the_order_is_option_recipe_variable_cores(unset):
    unset.setattr(machine, "cores", lambda: 16)
    assert threads.count() == (16, "every core this process may use")
    assert threads.count(processes=4) == (4, "its share of 16 cores")
    unset.setenv(OPENMP, "3")
    assert threads.count(processes=4) == (3, OPENMP)
    assert threads.count(5) == (5, "asked for")
    unset.setenv(THREADS, "7")
    assert threads.count(5) == (7, "--threads")
    assert choose("cpu", Engine(threads=5)).threads == 7


@pytest.mark.parametrize(("text", "number"), [("4,2", 4), (" 2 ", 2), ("", 0)])
def test_variables_as_openmp_reads_them(unset, text, number):
    unset.setenv(OPENMP, text)
    assert threads.wanted() == number


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", "²", "9999999999999999999", "4097"])
def test_variables_that_are_no_number(unset, text):
    unset.setenv(OPENMP, text)
    with pytest.raises(OptionError, match=r"OMP_NUM_THREADS is set to .* no number of threads; set a whole number"):
        choose("cpu")


@pytest.mark.parametrize("name", WAITING)
def test_the_users_way_of_waiting_is_left_alone(unset, name):
    assert threads.waiting({}) == threads.WITHOUT_SPINNING
    assert threads.waiting({name: "1"}) == {}
    unset.setenv(name, "1")
    assert "PASSIVE" not in child_environment().values()


def test_what_a_command_sets_is_undone(unset):
    unset.setenv(OPENMP, "2")
    before = dict(os.environ)
    with threads.process_environment(5):
        assert (os.environ[THREADS], os.environ[OPENMP]) == ("5", "5")
    assert dict(os.environ) == before


def test_predicting_in_this_process_takes_one_thread_if_told_so(unset, tmp_path):
    recipe = tiny.recipe("engine.threads=3")
    net = nets.build(recipe.net.name, **recipe.net.options)
    deployment = Deployment.of(recipe, BLEEDING, None, 1)
    checkpoint = Checkpoint(net.name, net.options, net.state_dict(), deployment, 1, 7)
    save_checkpoint(checkpoint, tmp_path / "best.pt")
    before = torch.get_num_threads()
    unset.setenv(OPENMP, "1")
    assert load_model(tmp_path / "best.pt", "cpu").model.device.threads == torch.get_num_threads() == 1
    with threads.process_environment(2):
        assert load_model(tmp_path / "best.pt", "cpu").model.device.threads == torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.long
def test_training_and_evaluating_take_the_threads_they_are_given(tiny_prepared, tmp_path):
    (tmp_path / "tiny.toml").write_text(tiny.recipe("train.epochs=1", "engine.threads=3").to_toml())
    run = tmp_path / "run"
    train = ("train", tiny_prepared, run, "--recipe", tmp_path / "tiny.toml", "--device", "cpu")
    assert told(*train, "--threads", "2") == ["2", "PASSIVE"]
    assert json.loads((run / "run.json").read_text())["device"]["threads"] == 2
    evaluate = ("evaluate", run, "--out", tmp_path / "report", "--device", "cpu")
    assert told(*evaluate, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="ACTIVE") == ["1", "ACTIVE"]


@pytest.mark.long
def test_predicting_takes_the_threads_it_is_given(tiny_run, tmp_path):
    scan, _ = tiny.head(1)
    file = tmp_path / "a.nii.gz"
    write_scan(scan, file)
    predict = ("predict", tiny_run, file, "--out", tmp_path / "out", "--device", "cpu", "--overwrite")
    assert told(*predict, OMP_NUM_THREADS="1") == ["1", "PASSIVE"]
    assert told(*predict, "--threads", "3", OMP_NUM_THREADS="1") == ["3", "PASSIVE"]


@pytest.mark.long
def test_ranks_and_their_record_have_the_threads_of_the_option(tiny_prepared, tmp_path):
    (tmp_path / "tiny.toml").write_text(tiny.recipe("train.epochs=1", "train.steps_per_epoch=2").to_toml())
    run = tmp_path / "run"
    told("cluster", "torchrun", tiny_prepared, run, "--recipe", tmp_path / "tiny.toml", "--device", "cpu",
         "--ranks", "2", "--threads", "2")  # fmt: skip
    device = json.loads((run / "run.json").read_text())["device"]
    assert (device["threads"], device["reasons"][5]) == (2, "2 threads: --threads")
