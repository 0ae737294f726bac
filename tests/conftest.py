"""What tests share."""

from __future__ import annotations

import importlib
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tiny
from hemotorch.data.prepare import prepare
from hemotorch.phantom import PhantomCase, make_case
from hemotorch.training.learner import Learner
from hemotorch.training.loop import train


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real CTs, kept outside the repository."""
    folder = Path(os.environ.get("HEMOTORCH_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real CT data is not here ({folder}); set HEMOTORCH_SHARED_DATA")
    return folder


def require(module: str) -> ModuleType:
    """The module of an independent reference; without it the test is skipped with the reason, and fails under CI."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        reason = f"the reference '{module}' cannot be imported here: {error}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason, allow_module_level=True)


@contextmanager
def apart(**environment: str) -> Iterator[Callable[..., Any]]:
    """Calls a function, with these arguments, in a process of its own with these variables."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            process.submit(int).result(timeout=60)  # starts it, and it keeps the variables
        yield lambda function, *args: process.submit(function, *args).result(timeout=120)


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Callable[..., Any]]:
    """Calls a function where Triton's kernels run on the CPU; a process that imported triton so stays so."""
    require("triton")
    with apart(TRITON_INTERPRET="1") as call:
        yield call


@pytest.fixture
def built(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Calls a function where Triton's kernels are built for a GPU, and not run, see ahead.py."""
    require("triton")
    with apart(TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path)) as call:
        yield call


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten tiny heads in the CT-ICH layout, seven with bleeding."""
    return tiny.write_dataset(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="session")
def tiny_prepared(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, prepared. Not to be written to."""
    out = tmp_path_factory.mktemp("tiny") / "prepared"
    prepare(tiny_data, out)
    return out


@pytest.fixture(scope="session")
def tiny_run(tiny_prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training on it. Not to be written to."""
    root = tmp_path_factory.mktemp("tiny") / "run"
    train(tiny_prepared, root, tiny.recipe("train.epochs=6", "train.steps_per_epoch=20"), device="cpu")
    return root


@pytest.fixture(scope="session")
def looked_at_once() -> Iterator[None]:
    """A bench asks a new process what its machine is, for seconds; the machine stays the same."""
    from hemotorch.bench import processes  # not above: the tests on a GPU's machine do without what it imports

    look = cache(processes.look_at_machine)
    with pytest.MonkeyPatch.context() as patch:
        for bench in ("setup", "predict"):
            patch.setattr(f"hemotorch.bench.{bench}.look_at_machine", look)
        yield


@pytest.fixture(scope="session")
def small_cases() -> list[PhantomCase]:
    """A few phantoms of `small`, with and without bleeding."""
    return [make_case("small", index, 7) for index in (0, 1, 4, 9, 17, 21)]


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[Learner]:
    """Grows by one with each step of the optimiser in this process."""
    done: list[Learner] = []
    inner = Learner.update

    def counted(learner: Learner) -> None:
        inner(learner)
        done.append(learner)

    monkeypatch.setattr(Learner, "update", counted)
    return done


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A disk of 600 kB in memory. Needs the right to mount, which root has."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        reason = f"cannot mount a tmpfs: {mounted.stderr.strip()}"
        _ = pytest.fail(reason) if os.environ.get("CI") and os.geteuid() == 0 else pytest.skip(reason)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
