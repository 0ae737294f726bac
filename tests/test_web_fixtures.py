"""The references of the viewer's arithmetic are what numpy and scipy say today."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np

WEB = Path(__file__).parents[1] / "web"


def test_the_viewers_references_are_what_numpy_says():
    made = runpy.run_path(str(WEB / "fixtures.py"))
    folder: Path = made["FOLDER"]
    texts = made["texts"]()
    assert {path.name for path in folder.iterdir()} == set(texts), "python web/fixtures.py"
    for name, text in texts.items():
        _assert_same(json.loads((folder / name).read_text("utf-8")), json.loads(text), name)


def _assert_same(committed: object, now: object, where: str) -> None:
    """Equal, numbers to 1e-9: the last digit of a square root may differ from one processor to the next."""
    if isinstance(now, dict):
        assert isinstance(committed, dict) and committed.keys() == now.keys(), where
        for key in now:
            _assert_same(committed[key], now[key], f"{where} {key}")
    elif isinstance(now, list):
        assert isinstance(committed, list) and len(committed) == len(now), where
        if all(isinstance(value, int | float) for value in now):
            np.testing.assert_allclose(committed, now, rtol=0, atol=1e-9, err_msg=where)
        else:
            for before, after in zip(committed, now, strict=True):
                _assert_same(before, after, where)
    elif isinstance(now, float) and isinstance(committed, float):
        assert abs(committed - now) < 1e-9, where
    else:
        assert committed == now, where
