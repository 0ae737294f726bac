"""How many threads compute, and how they wait, in every command and the processes it starts."""

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

OURS = (threads.WITHOUT_SPINNING, threads.SPINNING_SHORTLY)
WAYS = ("PASSIVE", "spins 1000")  #: which of them depends on what else this machine does
VARIABLES = (*WAITING, OPENMP, THREADS)

#: Runs the command line, and tells how many threads torch has after it, and how OpenMP was told to wait when it began.
CHILD = """
import os, sys
from hemotorch import cli
seen = []
run = cli._run
def waits():
    seen.append(os.environ.get("OMP_WAIT_POLICY") or "spins " + os.environ.get("GOMP_SPINCOUNT", ""))
cli._run = lambda *given: (waits(), run(*given))[1]
status = cli.main(sys.argv[1:])
import torch
print("TOLD", torch.get_num_threads(), *seen, sep=",")
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
    return done.stdout.splitlines()[-1].split(",")[1:]


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
    assert threads.waiting({}) in OURS
    assert threads.waiting({name: "7"}) == {}
    unset.setenv(name, "7")
    environment = child_environment()
    assert {key: environment[key] for key in WAITING if key in environment} == {name: "7"}


@pytest.mark.parametrize(
    ("others", "wanted", "expected"),
    [
        (0, None, threads.SPINNING_SHORTLY),
        (1, None, threads.WITHOUT_SPINNING),
        (1, 7, threads.SPINNING_SHORTLY),
        (2, 7, threads.WITHOUT_SPINNING),
        (40, 1, threads.WITHOUT_SPINNING),
        (None, None, threads.WITHOUT_SPINNING),
    ],
)
def test_threads_spin_for_a_moment_if_there_are_cores_for_all(unset, others, wanted, expected):
    unset.setattr(machine, "others_running", lambda: others)
    unset.setattr(machine, "cores", lambda: 8)
    unset.setattr(os, "cpu_count", lambda: 8)
    assert threads.waiting({}, wanted) == expected


@pytest.mark.skipif(not machine.LOADAVG.exists(), reason="only Linux says what runs")
def test_processes_that_compute_are_seen():
    busy = [subprocess.Popen([sys.executable, "-c", "print(1, flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
            for _ in range(2)]  # fmt: skip
    try:
        for process in busy:
            assert process.stdout is not None
            process.stdout.readline()
        assert machine.others_running() >= 2
    finally:
        for process in busy:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("text", ["", "0.1 0.2 0.3", "0.1 0.2 0.3 x/7 9"])
def test_a_system_that_does_not_say_what_runs(monkeypatch, tmp_path, text):
    monkeypatch.setattr(machine, "LOADAVG", tmp_path / "loadavg")
    assert machine.others_running() is None
    (tmp_path / "loadavg").write_text(text)
    assert machine.others_running() is None


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
    assert told(*train, "--threads", "2") in [["2", way] for way in WAYS]
    assert json.loads((run / "run.json").read_text())["device"]["threads"] == 2
    evaluate = ("evaluate", run, "--out", tmp_path / "report", "--device", "cpu")
    assert told(*evaluate, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="ACTIVE") == ["1", "ACTIVE"]


@pytest.mark.long
def test_predicting_takes_the_threads_it_is_given(tiny_run, tmp_path):
    scan, _ = tiny.head(1)
    file = tmp_path / "a.nii.gz"
    write_scan(scan, file)
    predict = ("predict", tiny_run, file, "--out", tmp_path / "out", "--device", "cpu", "--overwrite")
    assert told(*predict, OMP_NUM_THREADS="1") in [["1", way] for way in WAYS]
    assert told(*predict, "--threads", "3", OMP_NUM_THREADS="1") in [["3", way] for way in WAYS]


@pytest.mark.long
def test_ranks_and_their_record_have_the_threads_of_the_option(tiny_prepared, tmp_path):
    (tmp_path / "tiny.toml").write_text(tiny.recipe("train.epochs=1", "train.steps_per_epoch=2").to_toml())
    run = tmp_path / "run"
    told("cluster", "torchrun", tiny_prepared, run, "--recipe", tmp_path / "tiny.toml", "--device", "cpu",
         "--ranks", "2", "--threads", "2")  # fmt: skip
    device = json.loads((run / "run.json").read_text())["device"]
    assert (device["threads"], device["reasons"][5]) == (2, "2 threads: --threads")
