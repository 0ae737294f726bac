"""Every reader is given a few hundred damaged and hostile files: each is read or refused in a line, small and soon."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fuzzing import KINDS

COUNT = 300  #: inputs of each kind

pytestmark = pytest.mark.long


@pytest.mark.parametrize("kind", KINDS)
def test_no_damaged_file_ends_in_a_traceback(
    kind: str, tiny_data: Path, tiny_prepared: Path, tiny_run: Path, tmp_path: Path
) -> None:
    program = Path(__file__).with_name("fuzzing.py")
    folders = [tiny_data, tiny_prepared, tiny_run, tmp_path / "work"]
    command = [sys.executable, program, kind, str(COUNT), *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        now = tmp_path / "work" / "now"
        number = now.read_text() if now.exists() else "none"
        pytest.fail(f"{kind}: ended with status {done.returncode} at input {number}\n{done.stderr[-2000:]}")
    *wrong, last = map(json.loads, done.stdout.splitlines())
    assert last["refused"] > COUNT / 50  # else the damage is none
    shown = "\n\n".join(f"{entry['kind']} {entry['number']}: {entry['wrong'][-1500:]}" for entry in wrong[:5])
    assert not wrong, f"{len(wrong)} of {COUNT} inputs:\n{shown}"
