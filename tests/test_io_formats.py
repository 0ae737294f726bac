"""Formats and layouts are registered once: each module has the same names, and nobody else asks which one it is."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import hemotorch
from hemotorch import io
from hemotorch.data.layouts import LAYOUTS, Layout

SOURCE = Path(hemotorch.__file__).parent


def names_of(protocol: type) -> list[str]:
    """What a module has to hold."""
    functions = [name for name, _ in inspect.getmembers(protocol, inspect.isfunction) if not name.startswith("_")]
    return [*protocol.__annotations__, *functions]


@pytest.mark.parametrize("module", [*io.FORMATS, *LAYOUTS.values()], ids=lambda module: module.__name__)
def test_each_module_has_the_names_that_are_asked_for(module: object) -> None:
    protocol = io.Format if module in io.FORMATS else Layout
    assert len(names_of(protocol)) > 6
    for name in names_of(protocol):
        asked_for = getattr(protocol, name, None)
        assert hasattr(module, name), name
        if asked_for is not None:  # arguments are called alike, so that they can be named
            given = [*inspect.signature(getattr(module, name)).parameters]
            assert ["self", *given] == [*inspect.signature(asked_for).parameters], name


def test_a_file_is_of_one_format() -> None:
    suffixes = [suffix for module in io.FORMATS for suffix in module.SUFFIXES]
    assert len(suffixes) == len(set(suffixes)) and all(suffix == suffix.lower() for suffix in suffixes)
    assert sorted(suffixes) == sorted((*io.VOLUME_SUFFIXES, *io.SLICE_SUFFIXES))
    assert len({module.NAME for module in io.FORMATS}) == len(io.FORMATS)
    for suffix in suffixes:
        known = io.format_of(f"A.B{suffix.upper()}")
        assert known is not None and suffix in known.SUFFIXES
        assert io.stem(f"x/A.B{suffix.upper()}") == "A.B"
    assert io.format_of("a.mha") is None and io.stem("x/a.b.mha") == "a.b"


def test_no_file_but_those_of_formats_asks_for_the_suffix_of_a_volume() -> None:
    asking = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path.parent.name == "io":
            continue
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names_of_outputs = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in nodes:
            is_suffix = isinstance(node, ast.Constant) and node.value in io.VOLUME_SUFFIXES
            if is_suffix and id(node) not in names_of_outputs:
                asking.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert asking == []
