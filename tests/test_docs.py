"""What README and docs name exists: files, links, names in modules, commands, options, recipe keys. Examples run."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from hemotorch import nets
from hemotorch.cli import main
from hemotorch.errors import OptionError
from hemotorch.recipe import Recipe
from hemotorch.task import TYPED
from hemotorch.training import losses

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "hemotorch"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
#: Pages that tell what was: they may name code as it was called then.
HISTORY = ("docs/log.md",)
#: A path in a page may start at any of these.
STARTS = (ROOT, ROOT / "src", SOURCE, ROOT / "docs")
#: First parts of paths that are the repository's.
FOLDERS = {"src", "tests", "benchmarks", "docs", "model", "web"} | {
    path.name for path in SOURCE.iterdir() if path.is_dir()
}
#: Commands with commands of their own.
FAMILIES = ("bench", "cluster")
#: What follows the dot in the name of a file, not of a function or a key.
SUFFIXES = ("csv", "html", "json", "jsonl", "png", "py", "sbatch", "toml")


def code_spans(text: str) -> list[str]:
    """What stands between backticks, and every line of a block of code, without its comment."""
    fence = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
    lines = [re.split(r"(?:^| )#", line)[0].strip() for block in fence.findall(text) for line in block.splitlines()]
    spans = re.findall(r"`([^`]+)`", fence.sub("", text))
    return lines + [" ".join(span.split()) for span in spans]


def missing_links(page: str, text: str) -> list[str]:
    """Relative links that lead to no file, or to no heading of it."""
    missing = []
    for link in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if link.startswith("http"):
            continue
        if not target.exists() or (anchor and anchor not in anchors(text if not path else target.read_text("utf-8"))):
            missing.append(link)
    return missing


def anchors(text: str) -> set[str]:
    """What links to the headings of a page are called, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing_paths(page: str, text: str) -> list[str]:
    """Paths that begin as the repository's do, and names of Python files, which are not there."""
    missing = []
    for span in code_spans(text):
        for word in re.findall(r"(?<![\w/.~-])[\w.-]+(?:/[\w.-]+)*", span):
            path = word.rpartition("/")[0] if "NAME" in word else word
            if "/" in word and word.split("/")[0] in FOLDERS:
                candidates = [start / f"{path}{suffix}" for start in STARTS for suffix in ("", ".py")]
                exists = any(candidate.exists() for candidate in candidates)
            elif word.endswith(".py") and page not in HISTORY:
                exists = any(SOURCE.rglob(Path(word).name))
            else:
                continue
            if not exists:
                missing.append(word)
    return missing


def missing_names(page: str, text: str) -> list[str]:
    """`module.name` that the module's text does not hold, and `section.key` that no recipe has."""
    missing = []
    for span in code_spans(text):
        match = re.fullmatch(r"([a-z_]+)\.(\w+)", span)
        if not match or match[2] in SUFFIXES or page in HISTORY:
            continue
        owner, name = match.groups()
        modules = list(SOURCE.rglob(f"{owner}.py"))
        known = recipe_has(owner, name) or any(name in words(path) for path in modules)
        if (modules or hasattr(Recipe(), owner)) and not known:
            missing.append(span)
    return missing


def words(path: Path) -> set[str]:
    return set(re.findall(r"\w+", path.read_text(encoding="utf-8")))


def recipe_has(section: str, key: str) -> bool:
    """Whether recipes have that key. `section.key` itself stands for any."""
    return (section, key) == ("section", "key") or hasattr(getattr(Recipe(), section, None), key)


@cache
def help_of(command: tuple[str, ...]) -> str:
    """What `hemotorch COMMAND --help` prints; nothing if there is no such command."""
    output = io.StringIO()
    silence = contextlib.redirect_stderr(io.StringIO())
    with contextlib.redirect_stdout(output), silence, contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return output.getvalue()


def missing_options(page: str, text: str) -> list[str]:
    """Commands that hemotorch does not have, options that its command does not have, and settings of no recipe key."""
    missing = []
    for span in code_spans(text):
        for part in re.split(r"&&|;|\|| do ", span):
            words = part.removeprefix("time ").split()
            if words[:1] != ["hemotorch"] or len(words) < 2 or words[1].isupper():
                continue
            command = tuple(words[1:3] if words[1] in FAMILIES else words[1:2])
            text_of_help = help_of(() if command[0].startswith("-") else command)
            options = {word.partition("=")[0] for word in words if word.startswith("--")}
            if not text_of_help:
                missing.append(" ".join(command))
            missing += [f"{command[0]} {option}" for option in options if option not in text_of_help]
        settings = re.findall(r"--set (\w+)\.(\w+)", span)
        missing += [f"{section}.{key}" for section, key in settings if not recipe_has(section, key)]
    return missing


CHECKS = (missing_links, missing_paths, missing_names, missing_options)


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in PAGES])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_a_page_names_exists(check: Callable[[str, str], list[str]], page: str) -> None:
    assert check(page, (ROOT / page).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("check", "text", "expected"),
    [
        (missing_links, "[a page](no-such-page.md#part)", "no-such-page.md"),
        (missing_links, "# One\n[a heading](#two)", "#two"),
        (missing_links, "[a heading](design.md#no-such-heading)", "#no-such-heading"),
        (missing_paths, "see `io/no_such_file.py`", "io/no_such_file.py"),
        (missing_paths, "see `no_such_file.py`", "no_such_file.py"),
        (missing_names, "see `losses.no_such_loss`", "losses.no_such_loss"),
        (missing_names, "set `train.no_such_key`", "train.no_such_key"),
        (missing_options, "```\nhemotorch outline run scan.nii\n```\n", "outline"),
        (missing_options, "`hemotorch train data run --no-such-option`", "train --no-such-option"),
        (missing_options, "`hemotorch train data run --set train.no_such_key=3`", "no_such_key"),
    ],
)
def test_what_does_not_exist_is_named(check: Callable[[str, str], list[str]], text: str, expected: str) -> None:
    assert any(expected in fault for fault in check("docs/page.md", text))


def entries(folder: Path) -> set[str]:
    """Names of what lies in a folder of the package; folders end with a slash."""
    left_out = ("__pycache__", "__init__.py", "py.typed")
    return {path.name + "/" * path.is_dir() for path in folder.iterdir() if path.name not in left_out}


def test_the_readme_has_a_line_for_each_file_and_folder() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| file or folder |")[2]
    assert set(re.findall(r"^\| `([\w.]+/?)` \|", table, re.MULTILINE)) == entries(SOURCE)


@pytest.mark.parametrize("init", [str(path.relative_to(SOURCE)) for path in sorted(SOURCE.glob("*/**/__init__.py"))])
def test_a_folder_has_a_line_for_each_of_its_modules(init: str) -> None:
    docstring = ast.get_docstring(ast.parse((SOURCE / init).read_text(encoding="utf-8"))) or ""
    lines = set(re.findall(r"^([\w.]+/?) +\S", docstring, re.MULTILINE))
    modules = {name.removesuffix(".py") for name in entries((SOURCE / init).parent) if name.endswith((".py", "/"))}
    assert modules <= lines


def example(file: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Runs the block of docs/design.md that begins with that file's name, on a copy of the names given."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^```python\n# src/hemotorch/{file}.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    names = dict(namespace)
    exec("from __future__ import annotations\n" + blocks[0], names)
    return names


def test_the_network_of_the_design_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("nets/plain.py", {"__name__": "plain"})
    builder = example("nets/__init__.py", {**vars(nets), "PlainNet": module["PlainNet"]})
    monkeypatch.setitem(nets.NETS, "plain", builder["plain"])
    net = nets.build("plain", slices=3, windows=["brain", "bone"], channels=4, outputs=7)
    assert net(torch.zeros(2, 3, 5, 6)).shape == (2, 7, 5, 6)


def test_the_loss_of_the_design_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(losses.LOSSES, "tversky", example("training/losses.py", vars(losses))["tversky"])
    loss = losses.build("tversky", missed=0.75)
    logits = torch.tensor([40.0, 40.0, -40.0, -40.0]).reshape(1, 1, 1, 4)
    target = torch.tensor([1, 0, 1, 0]).reshape(1, 1, 1, 4)  # one pixel hit, one false alarm, one missed
    assert float(loss(logits, target)) == pytest.approx(-1 / (1 + 0.25 + 0.75), abs=1e-4)
    with pytest.raises(OptionError, match="is for the task bleeding"):
        losses.build("tversky", task=TYPED)
