"""What tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real CTs, kept outside the repository."""
    folder = Path(os.environ.get("HEMOTORCH_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real CT data is not here ({folder}); set HEMOTORCH_SHARED_DATA")
    return folder
