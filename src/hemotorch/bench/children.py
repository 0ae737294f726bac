"""Child processes that belong together: all end, none is left behind, and one that fails leaves its last words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hemotorch
from hemotorch.system.files import write_json
from hemotorch.system.threads import waiting

SOURCE = Path(hemotorch.__file__).parents[1]
POLL_S = 0.02
WORDS = 240  #: characters of the last words


def end_with_parent() -> None:
    """In a child: ends it within seconds of its parent, which may be killed without a word."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def ask(
    module: str, question: Any, environments: Sequence[Mapping[str, str]], limit_s: float
) -> tuple[dict[str, Any], str]:
    """What `python -m module FILE` answers to the question in FILE, both JSON; and why it gave no answer, or "".

    The answer is the last line that it prints. environments, limit_s: as in `run_together`.
    """
    with TemporaryDirectory(prefix="hemotorch-bench-") as folder:
        path = Path(folder) / "question.json"
        write_json(path, question)
        printed, error = run_together([sys.executable, "-m", module, str(path)], environments, limit_s)
    if error:
        return {}, error
    try:
        return dict(json.loads(printed.splitlines()[-1]).items()), ""
    except (ValueError, IndexError, AttributeError):
        return {}, f"gave no answer: {printed[-WORDS:]!r}"


def run_together(command: Sequence[str], environments: Sequence[Mapping[str, str]], limit_s: float) -> tuple[str, str]:
    """Runs the command once for each environment, all at once; what the first of them printed, and why it failed or "".

    environments: additions to this process's own. When one fails, or `limit_s` seconds are over, all are killed, and
    whatever they started.
    """
    with TemporaryDirectory(prefix="hemotorch-bench-") as folder:
        outputs = [Path(folder) / f"{n}.out" for n in range(len(environments))]
        errors = [path.with_suffix(".err") for path in outputs]
        children: list[subprocess.Popen[bytes]] = []
        try:
            for added, out, err in zip(environments, outputs, errors, strict=True):
                with open(out, "wb") as stdout, open(err, "wb") as stderr:
                    child = subprocess.Popen(
                        command,
                        stdout=stdout,
                        stderr=stderr,
                        env={**own_environment(), **added},
                        start_new_session=True,
                    )
                children.append(child)
            failed = _first_failure(children, time.monotonic() + limit_s)
        finally:
            for child in children:
                _kill(child)
        if failed is None:
            return outputs[0].read_text(errors="replace"), ""
        if failed < 0:
            return "", f"did not finish within {limit_s:.0f} s and was stopped{_last_words(errors[0])}"
        return "", _cause(children[failed].returncode, errors[failed])


def own_environment() -> dict[str, str]:
    """This process's environment, in which its children find this very hemotorch, and wait without spinning."""
    before = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        **waiting(os.environ),
        "PYTHONPATH": f"{SOURCE}{os.pathsep}{before}" if before else str(SOURCE),
    }


def _first_failure(children: Sequence[subprocess.Popen[bytes]], deadline: float) -> int | None:
    """Waits for all: None where all ended well, else the number of the first that did not, -1 where time ran out."""
    while True:
        states = [child.poll() for child in children]
        bad = [number for number, state in enumerate(states) if state]
        if bad:
            # The one that was killed, not those that miss it.
            return min(bad, key=lambda number: states[number] or 0)
        if all(state == 0 for state in states):
            return None
        if time.monotonic() > deadline:
            return -1
        time.sleep(POLL_S)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """The child and all it started, which share its process group."""
    if sys.platform == "win32":
        child.kill()
    else:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _cause(status: int, errors: Path) -> str:
    words = _last_words(errors)
    if status >= 0:
        return words.removeprefix(": ") or f"ended with status {status} and without a word"
    name = signal.Signals(-status).name
    memory = ", as the system does where memory runs out" if -status == signal.SIGKILL else ""
    return f"was killed by signal {name}{memory}{words}"


def _last_words(errors: Path) -> str:
    lines = [line.strip() for line in errors.read_text(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1][:WORDS]}" if lines else ""
