"""The pages' own checks: types, tests in vitest, and that what they copy from Python is still so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hemotorch.labels import COLOURS

ROOT = Path(__file__).parents[1]
WEB = ROOT / "web"


@pytest.fixture(scope="module")
def npm() -> tuple[list[str], dict[str, str]]:
    """The command of npm and its environment; skips if web/node_modules is missing, or fails if CI=true."""
    if not (WEB / "node_modules" / ".bin" / "vitest").exists():
        reason = "web/node_modules is missing: npm ci in web/"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    sys.path.insert(0, str(ROOT))
    try:
        from hatch_build import node
    finally:
        sys.path.remove(str(ROOT))
    return node()


def run_script(npm: tuple[list[str], dict[str, str]], name: str) -> None:
    """Runs a script of package.json; fails with what it said."""
    command, environment = npm
    done = subprocess.run(
        [*command, "run", name], cwd=WEB, env={**environment, "CI": "true"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_types(npm: tuple[list[str], dict[str, str]]) -> None:
    run_script(npm, "check")


def test_vitest(npm: tuple[list[str], dict[str, str]]) -> None:
    run_script(npm, "test")


def test_schema_is_the_servers(npm: tuple[list[str], dict[str, str]]) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{npm[1]['PATH']}"
    command = [sys.executable, str(WEB / "make_types.py"), "--check"]
    done = subprocess.run(command, env={**npm[1], "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_colours_are_those_of_labels() -> None:
    css = (WEB / "src" / "app.css").read_text(encoding="utf-8")
    in_css = {name: tuple(map(int, rgb.split())) for name, rgb in re.findall(r"--(\w+): rgb\(([\d ]+)\)", css)}
    assert {name: in_css.get(name) for name in COLOURS} == COLOURS


def test_no_style_or_script_that_the_policy_would_refuse() -> None:
    for path in [WEB / "index.html", *WEB.glob("src/**/*.svelte")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\sstyle=|@html|https?://(?!www\.w3\.org)", text), path
    assert not re.search(r"<script>|<style", (WEB / "index.html").read_text(encoding="utf-8"))


def test_lock_file_names_no_registry() -> None:
    packages = json.loads((WEB / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert len(packages) > 50
    assert [name for name, package in packages.items() if "resolved" in package] == []
