"""What tests share."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

import pytest


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
    return pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
