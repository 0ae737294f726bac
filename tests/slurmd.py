"""A real SLURM of one node on this machine while a test runs: munged, slurmctld and slurmd, started as root."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=100000
SlurmdParameters=config_overrides
ReturnToService=2
InactiveLimit=0
KillWait=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=tiny Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")


def missing() -> str:
    """Why there can be no SLURM here, or nothing."""
    gone = [name for name in PROGRAMS if shutil.which(name, path=path()) is None]
    if gone:
        return f"{', '.join(gone)} not installed: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "SLURM's daemons are started as root"


def path() -> str:
    """Daemons are where only root's PATH looks."""
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


@contextmanager
def running(root: Path) -> Iterator[dict[str, str]]:
    """Starts it in `root`, whose path must be short, and yields the environment to use it in. All is ended after."""
    for name in ("state", "spool"):
        (root / name).mkdir()
    ports = dict(zip(("control_port", "node_port"), free_ports(2), strict=True))
    host = socket.gethostname().partition(".")[0]
    (root / "slurm.conf").write_text(CONFIG.format(root=root, host=host, **ports))
    (root / "key").write_bytes(os.urandom(128))
    (root / "key").chmod(0o400)
    environment = {**os.environ, "SLURM_CONF": str(root / "slurm.conf"), "PATH": path()}
    files = [
        f"--{name}={root}/munge.{name.partition('-')[0]}" for name in ("socket", "pid-file", "log-file", "seed-file")
    ]
    daemons = [
        (
            ["munged", "--foreground", "--force", f"--key-file={root}/key", *files],
            lambda: (root / "munge.socket").exists(),
        ),
        (["slurmctld", "-D", "-c"], lambda: "UP" in asked(environment, "scontrol", "ping")),
        (["slurmd", "-D", "-c"], lambda: "idle" in asked(environment, "sinfo", "--noheader", "--format=%T")),
    ]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command, ready in daemons:
            with open(root / f"{command[0]}.out", "wb") as out:
                started.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))
            until(ready, 30, lambda command=command: log(root, command[0]))
        yield environment
    finally:
        asked(environment, "scancel", "--user=root")
        time.sleep(1)
        for daemon in reversed(started):
            daemon.terminate()
        for daemon in reversed(started):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def log(root: Path, name: str) -> str:
    """What a daemon said last."""
    texts = [
        file.read_text(errors="replace")[-1500:] for file in root.glob(f"{name}.*") if file.suffix in (".out", ".log")
    ]
    return f"{name}: " + "\n".join(texts)


def asked(environment: dict[str, str], *command: str) -> str:
    """A command's standard output."""
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False).stdout


def until(true: Callable[[], object], seconds: float, otherwise: Callable[[], str] = str) -> None:
    """Waits; fails with the words of `otherwise` when it takes longer."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds} s in vain; {otherwise()}"
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
