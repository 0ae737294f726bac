"""Results of commands: as text for people, or as JSON."""

from __future__ import annotations

import argparse
import json
from typing import Any


def show(arguments: argparse.Namespace, values: Any, text: str) -> None:
    """Prints a command's result: `values` as JSON if --json was given, else the text."""
    from hemotorch.system.events import print_lines
    from hemotorch.system.files import jsonable

    if arguments.json:
        print(json.dumps(jsonable(values), indent=2), flush=True)
    else:
        print_lines(text)


def millilitres(value: float | None) -> str:
    """A volume with one decimal; unknown if it is None or NaN."""
    return "unknown" if value is None or value != value else f"{value:.1f}"
