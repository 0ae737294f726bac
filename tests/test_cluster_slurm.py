"""The batch script, read as text and run by a real SLURM of one node."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import slurmd
import tiny
from hemotorch.cli import main
from hemotorch.cluster.slurm import BatchJob, minutes_of, submit, write_script
from hemotorch.errors import InputError, OptionError
from hemotorch.run import Run
from processes import epochs
from slurmd import asked, until

SETTINGS = ("train.epochs=4", "train.steps_per_epoch=30", "train.checkpoint_s=0.0")


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """The environment of a SLURM that runs while this file's tests do."""
    if reason := slurmd.missing():
        _ = pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as root, slurmd.running(Path(root)) as environment:
        yield environment


def cluster(slurm: dict[str, str], data: Path, run: Path, *options: str) -> str:
    """Writes a script with `hemotorch cluster slurm`, submits it, and returns the job's number."""
    recipe = run.with_suffix(".toml")
    recipe.write_text(tiny.recipe(*SETTINGS).to_toml())
    command = [sys.executable, "-m", "hemotorch.cli", "cluster", "slurm", str(data), str(run), "--recipe", str(recipe)]
    command += ["--device", "cpu", "--submit", "--json", *options]
    done = subprocess.run(command, env=slurm, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["job"])


def state(slurm: dict[str, str], job: str) -> str:
    """PENDING, RUNNING, COMPLETED, ..."""
    return asked(slurm, "scontrol", "show", "job", job).partition("JobState=")[2].partition(" ")[0]


def log(run: Path) -> str:
    return "\n".join(file.read_text() for file in run.parent.glob(f"{run.name}-*.log"))


def test_a_job_whose_time_is_up_is_queued_again_and_goes_on(slurm, tiny_prepared, tmp_path):
    run = tmp_path / "my first run"
    job = cluster(slurm, tiny_prepared, run, "--ranks-per-node", "2", "--time", "1:00:00")
    until(lambda: "epoch   1" in log(run), 120, lambda: log(run))
    asked(slurm, "scancel", "--batch", "--signal=USR1", job)  # what SLURM sends before the time is up
    until(lambda: state(slurm, job) == "PENDING", 30, lambda: log(run))
    done = len(epochs(run))
    assert done < 4
    until(lambda: state(slurm, job) == "COMPLETED", 180, lambda: log(run))
    said = log(run)
    assert f"out of time: job {job} is queued again and will go on from its last checkpoint" in said
    told = re.findall(r"^epoch +(\d)", said, re.M)
    assert sorted(set(told)) == ["1", "2", "3", "4"] and told.count("1") == 1, "it did not begin anew"
    assert epochs(run) == [1, 2, 3, 4] and Run(run).record.ranks == 2


@pytest.mark.long
def test_a_cancelled_job_goes_on_when_submitted_again_with_another_number_of_ranks(slurm, tiny_prepared, tmp_path):
    run = tmp_path / "run"
    job = cluster(slurm, tiny_prepared, run, "--ranks-per-node", "2")
    until(lambda: "epoch   1" in log(run), 120, lambda: log(run))
    asked(slurm, "scancel", job)
    until(lambda: state(slurm, job) == "CANCELLED", 30, lambda: log(run))
    first = log(run)
    job = cluster(slurm, tiny_prepared, run, "--ranks-per-node", "1", "--resume", "--overwrite")
    until(lambda: state(slurm, job) == "COMPLETED", 180, lambda: log(run))
    assert epochs(run) == [1, 2, 3, 4]
    assert "epoch   1" in first and log(run).count("epoch   1") == 1


@pytest.mark.long
def test_a_killed_rank_stops_the_job_with_a_word_of_it(slurm, tiny_prepared, tmp_path):
    run = tmp_path / "run"
    job = cluster(slurm, tiny_prepared, run, "--ranks-per-node", "2")
    until(lambda: "epoch   1" in log(run), 120, lambda: log(run))
    os.kill(rank_process(run, 1), signal.SIGKILL)
    until(lambda: state(slurm, job) == "FAILED", 30, lambda: log(run))
    said = log(run)
    assert "task 1: Killed" in said and "submitted again, this script goes on from the last checkpoint" in said


def rank_process(run: Path, rank: int) -> int:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = ((process / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
        except OSError:
            continue
        if str(run).encode() in command and f"RANK={rank}".encode() in environment and b"hemotorch.cli" in command:
            return int(process.name)
    raise AssertionError(f"no rank {rank}")


TRAIN = ["/data/with space", "/run/o'clock", "--recipe", "fast", "--set", "net.options={channels=[8, 16]}", "--resume"]


def test_the_script_says_what_was_asked_for(tmp_path):
    batch = BatchJob(2, 4, 4, 8, "12:00:00", "gpu", ("account=neuro", "--mem=64G"))
    text = write_script(tmp_path / "run", TRAIN, batch).read_text()
    for line in (
        "nodes=2",
        "ntasks-per-node=4",
        "gpus-per-node=4",
        "cpus-per-task=8",
        "time=12:00:00",
        "partition=gpu",
    ):
        assert f"#SBATCH --{line}\n" in text
    assert "#SBATCH --account=neuro\n#SBATCH --mem=64G\n" in text and "#SBATCH --requeue\n" in text
    assert max(text.index(line) for line in re.findall("#SBATCH.*", text)) < text.index("python=")
    assert "--cpus-per-task=8 bash" in text, "srun does not take it from sbatch"


def test_every_word_of_the_command_reaches_python(tmp_path):
    """The script is run as it is, with stand-ins for SLURM's programs and for Python."""
    path = write_script(tmp_path / "run", TRAIN, BatchJob())
    tools = {"scontrol": "echo node7; echo node8", "srun": 'while [ "$1" != bash ]; do shift; done; "$@"'}
    tools["python"] = 'printf "%s\\n" "$RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT" "$@"'
    for name, lines in tools.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{lines}\n")
        (tmp_path / name).chmod(0o755)
    path.write_text(path.read_text().replace(f"python={sys.executable}\n", "python=python\n"))
    job = {"JOB_ID": "40007", "JOB_NODELIST": "node[7-8]", "NTASKS": "4", "NTASKS_PER_NODE": "2"}
    job |= {"PROCID": "3", "LOCALID": "1"}
    environment = {
        **{f"SLURM_{name}": value for name, value in job.items()},
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    done = subprocess.run(["bash", str(path)], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["3 1 4 2 node7 10007", "-m", "hemotorch.cli", "train", *TRAIN]


def test_a_script_that_was_edited_is_not_overwritten(tmp_path):
    path = write_script(tmp_path / "run", TRAIN, BatchJob())
    write_script(tmp_path / "run", TRAIN, BatchJob())
    path.write_text(path.read_text() + "# mine\n")
    with pytest.raises(InputError, match="says something else; submit it with `sbatch .*, or add --overwrite"):
        write_script(tmp_path / "run", TRAIN, BatchJob())
    assert "# mine" not in write_script(tmp_path / "run", TRAIN, BatchJob(), overwrite=True).read_text()


def test_more_ranks_than_gpus_a_node():
    with pytest.raises(OptionError, match=r"8 ranks were asked for on nodes of 4 GPU\(s\); start at most 4"):
        BatchJob(ranks=8, gpus=4)


@pytest.mark.parametrize(
    ("time", "minutes"),
    [("5", 5), ("5:30", 5.5), ("1:00:00", 60), ("1-12", 36 * 60), ("1-0:30", 24 * 60 + 30), ("1-0:0:30", 1440.5)],
)
def test_times_as_slurm_takes_them(time, minutes):
    assert minutes_of(time) == minutes


@pytest.mark.parametrize("time", ["0", "UNLIMITED", "a:b", "1:2:3:4", "-5", "1-"])
def test_what_is_no_time_is_left_to_slurm(time):
    assert minutes_of(time) == 0 and BatchJob(time=time).time == time


@pytest.mark.parametrize("asked", [{"partition": "a\nrm -rf x"}, {"time": "1\n2"}, {"options": ("account=a\n",)}])
def test_nothing_is_smuggled_into_a_script(asked):
    with pytest.raises(OptionError, match="holds a line break or another control character"):
        BatchJob(**asked)


def test_names_that_make_no_script(tmp_path):
    with pytest.raises(OptionError, match="RUN: holds a line break"):
        write_script(tmp_path / "x\ny", TRAIN, BatchJob())
    with pytest.raises(OptionError, match="--sbatch: is empty"):
        BatchJob(options=("",))


def test_a_job_too_short_to_train_in():
    with pytest.raises(OptionError, match="5 minutes are too short to train in.*ask for at least 10"):
        BatchJob(time="5")


def test_a_run_with_a_percent_sign_keeps_its_log(tmp_path):
    text = write_script(tmp_path / "50%j", TRAIN, BatchJob()).read_text()
    assert f"#SBATCH --output={tmp_path}/50%%j-%j.log\n" in text


def test_a_refused_requeue_is_told(tmp_path):
    """The script's own answer to the signal, with a scontrol that refuses."""
    text = write_script(tmp_path / "run", TRAIN, BatchJob()).read_text()
    answer = text[text.index("out_of_time() {") : text.index("trap out_of_time")]
    program = f"scontrol() {{ return 1; }}\nSLURM_JOB_ID=7\n{answer}out_of_time"
    said = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True).stdout
    assert "SLURM did not queue it again: submit it again" in said


def test_without_slurm_the_script_is_written_and_the_rest_is_said(tiny_prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    run = tmp_path / "run"
    assert main(["cluster", "slurm", str(tiny_prepared), str(run)]) == 0
    assert f"sbatch {run}.sbatch" in capsys.readouterr().out
    assert main(["cluster", "slurm", str(tiny_prepared), str(run), "--submit"]) == 1
    error = capsys.readouterr().err
    assert "there is no sbatch on this machine" in error and error.count("\n") == 1
    assert not run.exists()


def test_what_slurm_refuses(slurm, tiny_prepared, tmp_path, monkeypatch):
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    path = write_script(tmp_path / "run", TRAIN, BatchJob(partition="nowhere"))
    with pytest.raises(Exception, match=r"SLURM refused it \(.*[Pp]artition"):
        submit(path)
