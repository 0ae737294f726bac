"""A SLURM batch script that trains on one node or several, goes on by itself after its time is up, and can be read."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hemotorch.errors import InputError, OptionError, RunError
from hemotorch.system.files import write_text

WARNING_S = 60  #: before a job's time is up SLURM tells its script, which puts the job back into the queue
LEAST_MIN = 10  #: of a job's time: a shorter one would hardly begin before it is queued again


@dataclass(frozen=True)
class BatchJob:
    """What is wanted of SLURM.

    ranks, gpus: per node. cpus: cores per rank, None for SLURM's default. time: until the job is queued again.
    partition: the queue, None for SLURM's default. options: further lines, as sbatch takes them.
    """

    nodes: int = 1
    ranks: int = 1
    gpus: int = 0
    cpus: int | None = None
    time: str = "24:00:00"
    partition: str | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.gpus and self.ranks > self.gpus:
            what = f"{self.ranks} ranks were asked for on nodes of {self.gpus} GPU(s)"
            raise OptionError(what, "--ranks-per-node", f"start at most {self.gpus}")
        _must_be_a_line("--partition", self.partition or "")
        _must_be_a_line("--time", self.time)
        for option in self.options:
            _must_be_a_line("--sbatch", option)
        if not all(self.options):
            raise OptionError("is empty", "--sbatch", "for example --sbatch account=neuro")
        minutes = minutes_of(self.time)
        if 0 < minutes < LEAST_MIN:
            what = f"{minutes:g} minutes are too short to train in: the job would be queued again all the time"
            raise OptionError(what, "--time", f"ask for at least {LEAST_MIN}")

    def directives(self, root: Path) -> list[str]:
        """The script's #SBATCH lines, without what every script has."""
        lines = [f"job-name={shlex.quote(root.name)}", f"nodes={self.nodes}", f"ntasks-per-node={self.ranks}"]
        if self.gpus:
            lines.append(f"gpus-per-node={self.gpus}")
        if self.cpus:
            lines.append(f"cpus-per-task={self.cpus}")
        lines.append(f"time={self.time}")
        if self.partition:
            lines.append(f"partition={self.partition}")
        log = str(root).replace("%", "%%")  # SLURM replaces %j, and everything else after a %
        lines.append("output=" + shlex.quote(f"{log}-%j.log"))
        lines += [option.removeprefix("--") for option in self.options]
        return lines


def _must_be_a_line(name: str, text: str) -> None:
    """Raises OptionError: what comes after a line break would be run."""
    if any(ord(letter) < ord(" ") or letter == "\x7f" for letter in text):
        raise OptionError(f"holds a line break or another control character: {text!r}", name)


def minutes_of(time: str) -> float:
    """The minutes of a time as SLURM takes it (`man sbatch`): M, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    Returns:
        0 for anything else, and for 0, which is no limit.
    """
    match = re.fullmatch(r"(?:([0-9]+)-)?([0-9]+)(?::([0-9]+))?(?::([0-9]+))?", time)
    if match is None:
        return 0.0
    days, *parts = match.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is None and len(numbers) < 3:  # M or M:S: no hours
        numbers.insert(0, 0)
    hours, minutes, seconds = [*numbers, 0, 0][:3]
    return 60 * (24 * int(days or 0) + hours) + minutes + seconds / 60


SCRIPT = """\
#!/bin/bash
# Trains {root} on SLURM. Written by `hemotorch cluster slurm`; read it, edit it, and submit it with
#     sbatch {script}
# Submitted again it goes on from the last checkpoint, as it does by itself when its time is up or a node fails.
# Dataset, run folder and Python have to be on a disk that all nodes see under the same path.
{directives}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@{warning}

# The environment. EDIT HERE what your cluster needs before this Python runs, for example
#     module load cuda          or          source ~/miniconda3/bin/activate hemotorch
# and, where nodes have several networks, the one that ranks talk through:
#     export GLOO_SOCKET_IFNAME=ib0 NCCL_SOCKET_IFNAME=ib0
python={python}

# The ranks meet at the first node, on a port of the job's own.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE

# {warning} s before the time is up the job goes back into the queue.
out_of_time() {{
    echo "out of time: job $SLURM_JOB_ID is queued again and will go on from its last checkpoint"
    scontrol requeue "$SLURM_JOB_ID" || echo "SLURM did not queue it again: submit it again, and it goes on from there"
}}
trap out_of_time USR1

# One task a rank. One that fails stops the others. Each sees all of the job's cores on its node, and takes its share.
srun --kill-on-bad-exit=1 --cpu-bind=none{srun} bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID
    exec "$@"' rank \\
    "$python" -m hemotorch.cli train \\
    {train} &
ranks=$!
while true; do
    wait "$ranks"
    status=$?
    # A signal ends the waiting, not the ranks.
    kill -0 "$ranks" 2>/dev/null || break
done
[ "$status" = 0 ] || echo "a rank failed, as said above; submitted again, this script goes on from the last checkpoint"
exit "$status"
"""


def script_path(root: Path) -> Path:
    """RUN.sbatch beside the run folder."""
    return root.with_name(f"{root.name}.sbatch")


def write_script(root: Path | str, train: Sequence[str], batch: BatchJob, overwrite: bool = False) -> Path:
    """Writes RUN.sbatch. train: the command line of `hemotorch train` with absolute paths, RUN in it, and --resume.

    Raises InputError if another script is there, which may have been edited.
    """
    root = Path(root).resolve()
    _must_be_a_line("RUN", str(root))
    path = script_path(root)
    text = SCRIPT.format(
        root=root,
        script=shlex.quote(str(path)),
        directives="\n".join(f"#SBATCH --{line}" for line in batch.directives(root)),
        warning=WARNING_S,
        python=shlex.quote(sys.executable),
        srun=f" --cpus-per-task={batch.cpus}" if batch.cpus else "",
        train=shlex.join(train),
    )
    if path.exists() and path.read_text(encoding="utf-8") != text and not overwrite:
        todo = f"submit it with `sbatch {shlex.quote(str(path))}`, or add --overwrite"
        raise InputError("is there already and says something else", path, todo)
    write_text(path, text)
    return path


def submit(script: Path) -> str:
    """Hands a script to SLURM, returns the job's number. Raises OptionError without sbatch, RunError if it refuses."""
    if shutil.which("sbatch") is None:
        todo = f"on a machine of the cluster run `sbatch {shlex.quote(str(script))}`"
        raise OptionError("there is no sbatch on this machine", "--submit", todo)
    done = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.splitlines() or ["it did not say why"]
        reason = lines[-1].removeprefix("sbatch: ").removeprefix("error: ")
        raise RunError(f"SLURM refused it ({reason})", script)
    return done.stdout.strip().partition(";")[0]
