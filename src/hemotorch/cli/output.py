"""Results of commands: as text for people, or as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hemotorch.errors import one_line

if TYPE_CHECKING:
    from hemotorch.inference.study import StudyRecord


def show(arguments: argparse.Namespace, values: Any, text: str) -> None:
    """Prints a command's result: `values` as JSON if --json was given, else the text."""
    from hemotorch.system.events import print_lines
    from hemotorch.system.files import jsonable

    if arguments.json:
        print(json.dumps(jsonable(values), indent=2), flush=True)
    else:
        print_lines(text)


def study_lines(name: str, record: StudyRecord) -> list[str]:
    """What is printed of a predicted study: its mL on one line, then its doubts, its change and its remarks."""
    mark = "IN DOUBT: " if record.doubts else ""
    slices, seconds = len(record.slices_with_bleeding), sum(record.seconds.values())
    lines = [f"{name}   {mark}{volume_text(record.volume_ml)} on {slices} slices   {seconds:.1f} s"]
    lines += [f"    doubt ({doubt.code}): {one_line(doubt.text)}" for doubt in record.doubts]
    lines += change_lines(record)
    if record.left_out is not None:
        lines.append(f"    {record.left_out.text}")
    lines += [f"    {one_line(warning)}" for warning in record.warnings]
    if record.no_dicom:
        lines.append(f"    {one_line(record.no_dicom)}")
    return lines


def change_lines(record: StudyRecord) -> list[str]:
    """The line on the change since the patient's earlier study, if there is one."""
    change = record.follow_up
    if change is None:
        return []
    text = f"{change.change_ml:+.1f} mL since {change.earlier}, {change.hours:.0f} hours before"
    if change.grown:
        text += ": GROWN by more than 6 mL or 33 %"
    return [f"    {text}{f' ({change.note})' if change.note else ''}"]


def volume_text(volume_ml: Mapping[str, float | None]) -> str:
    """What was outlined, as "12.6 mL", or "12.6 mL (subdural 8.0, epidural 4.6)" if the network tells types apart.

    Args:
        volume_ml: `volume_ml` of a prediction: "total", and one entry per type; None or NaN if it is unknown.
    """
    total = f"{_millilitres(volume_ml['total'])} mL"
    types = {name: value for name, value in volume_ml.items() if name != "total" and value}
    if not types:
        return total
    largest_first = sorted(types, key=lambda name: -(types[name] or 0.0))
    return f"{total} ({', '.join(f'{name} {_millilitres(types[name])}' for name in largest_first)})"


def _millilitres(value: float | None) -> str:
    return "unknown" if value is None or value != value else f"{value:.1f}"
