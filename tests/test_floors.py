"""The floors of docs/design.md: a file imports only from lower floors, or from those listed above it on its own."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "hemotorch"

#: Files and folders of the package, lowest floor first; on a floor, each may import those before it.
FLOORS = (
    ("errors", "system", "hu", "labels", "task", "pictures", "scan", "head", "grid", "recipe", "keyed_random"),
    ("io", "nets", "phantom"),
    ("data",),
    ("run",),
    ("inference",),
    ("evaluation",),
    ("training",),
    ("report",),
    ("bench", "cluster", "app"),
    ("demo", "cli"),
)
HEIGHT = {part: (floor, place) for floor, parts in enumerate(FLOORS) for place, part in enumerate(parts)}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, without `hemotorch.`; the package itself left out."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if name := ".".join(parts[:-1] if parts[-1] == "__init__" else parts):
            found[name] = path
    return found


MODULES = modules()


@cache
def imported_names(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of every import in a file, wherever it stands. Fails on relative ones."""
    names: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            names += [(node.lineno, arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant)]
    return names


def imports(path: Path, known: dict[str, Path]) -> list[tuple[int, str]]:
    """(line, module) of every import of the package in a file; module without `hemotorch.`"""
    found = []
    for line, name in imported_names(path):
        if not name.startswith("hemotorch."):
            continue
        name = name.removeprefix("hemotorch.")
        while name and name not in known:  # a function or class: the module that holds it
            name = name.rpartition(".")[0]
        if name:
            found.append((line, name))
    return found


def faults(known: dict[str, Path]) -> list[str]:
    """Every arrow that runs up, and every part that stands on no floor."""
    wrong = []
    for name, path in known.items():
        part = name.partition(".")[0]
        if part not in HEIGHT:
            wrong.append(f"{name}: stands on no floor; give it one here and in the design")
            continue
        for line, other in imports(path, known):
            target = other.partition(".")[0]
            if target != part and (target not in HEIGHT or HEIGHT[target] > HEIGHT[part]):
                wrong.append(f"{path.name}:{line}: {name} imports {other}, which stands above it")
    return wrong


def test_no_import_runs_up() -> None:
    assert len(MODULES) > 20
    assert faults(MODULES) == []


def test_the_root_stays_short() -> None:
    entries = [path.name for path in SOURCE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 27


def test_no_part_stands_on_two_floors() -> None:
    parts = [part for floor in FLOORS for part in floor]
    assert sorted(parts) == sorted(set(parts))


def test_no_two_public_classes_have_one_name() -> None:
    """A reader who meets `Task` need not ask which one it is. Private classes are met in their own file only."""
    modules_of: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules_of.setdefault(node.name, []).append(name)
    assert {name: homes for name, homes in modules_of.items() if len(homes) > 1} == {}


def test_no_circle() -> None:
    graph = {name: {other for _, other in imports(path, MODULES) if other != name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("hu", "from hemotorch.training.loop import train\n", "hu imports training.loop"),
        ("hu", "def f():\n    import hemotorch.io.nifti\n", "hu imports io.nifti"),
        ("hu", "def f():\n    from hemotorch import scan\n", "hu imports scan"),
        ("hu", "import importlib\nm = importlib.import_module('hemotorch.cli')\n", "hu imports cli"),
        ("io.nifti", "from hemotorch.data.layouts.case import Case\n", "io.nifti imports data.layouts.case"),
        ("novelty", "", "novelty: stands on no floor"),
    ],
)
def test_faults_are_found(tmp_path: Path, name: str, text: str, expected: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(text)
    assert any(expected in fault for fault in faults({**MODULES, name: path}))


def test_relative_imports_are_found(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("from . import errors\n")
    with pytest.raises(AssertionError, match="relative import"):
        imports(path, MODULES)
