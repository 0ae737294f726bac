"""`hemotorch bench compare`: two results row by row, and what is not the same about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from hemotorch.bench.result import Bench, aligned, busy
from hemotorch.bench.rows import Config, Row

SAME = {
    "kind": "what was measured",
    "recipe": "the recipe",
    "net": "the network",
    "quick": "--quick",
    "layout": "the data's layout",
    "scans": "the number of scans",
    "slices": "the number of slices",
}  #: settings without which two results say little about each other
MACHINE = ("processor", "cores", "gpu", "gpus", "driver", "hemotorch", "torch", "cuda", "python", "variables")


@dataclass(frozen=True)
class Pair:
    """One config in both. ratio: B's images a second by A's; apart: whether their intervals do not touch."""

    label: str
    a: float
    b: float
    ratio: float
    apart: bool


@dataclass(frozen=True)
class Comparison:
    """pairs: configs that both have. only_a, only_b: the others. failed: what was not measured in one of them, and why.
    warnings: what makes the two hard to compare. differences: what is another in the machine or the software, which is
    what one may have wanted to compare."""

    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    failed: tuple[str, ...]
    warnings: tuple[str, ...]
    differences: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)

    def lines(self) -> list[str]:
        """As text."""
        table = [["", "A images/s", "B images/s", "B / A", ""]]
        for pair in self.pairs:
            verdict = "" if not pair.apart else "faster" if pair.ratio > 1 else "slower"
            table.append([pair.label, f"{pair.a:.3g}", f"{pair.b:.3g}", f"{pair.ratio:.2f}", verdict])
        lines = [f"warning: {text}" for text in self.warnings]
        lines += [f"differs: {text}" for text in self.differences]
        lines += ["", *aligned(table)] if self.pairs else ["no config is in both"]
        lines += [
            f"only in {name}: {', '.join(labels)}"
            for name, labels in (("A", self.only_a), ("B", self.only_b))
            if labels
        ]
        lines += [f"failed in {told}" for told in self.failed]
        return [*lines, "Faster and slower are said where the rounds of the two do not overlap."]


def compare(a: Bench, b: Bench) -> Comparison:
    """A and B row by row. "All threads" of machines with other numbers of cores are the same config."""
    ours, theirs = _by_role(a), _by_role(b)
    pairs = []
    for role, row in ours.items():
        other = theirs.get(role)
        if other is not None and row.measured and other.measured:
            apart = row.high < other.low or other.high < row.low
            label = (
                row.config.label
                if row.config.label == other.config.label
                else f"{row.config.label} / {other.config.label}"
            )
            pairs.append(Pair(label, row.images_s, other.images_s, other.images_s / row.images_s, apart))
    only_a, only_b = (
        tuple(row.config.label for role, row in mine.items() if role not in other and row.measured)
        for mine, other in ((ours, theirs), (theirs, ours))
    )
    failed = tuple(
        f"{name}: {row.config.label} ({row.error})"
        for name, bench in (("A", a), ("B", b))
        for row in bench.rows
        if not row.measured
    )
    return Comparison(tuple(pairs), only_a, only_b, failed, tuple(_warnings(a, b)), tuple(_differences(a, b)))


def _by_role(bench: Bench) -> dict[tuple[Any, ...], Row]:
    cores = int(bench.environment.get("cores", 0))
    return {_role(row.config, cores): row for row in bench.rows}


def _role(config: Config, cores: int) -> tuple[Any, ...]:
    """Its key, with -1 for as many threads as the machine has cores."""
    whole = config.threads * config.ranks == cores and (config.threads > 1 or config.device == "cuda")
    return replace(config, threads=-1).key if whole else config.key


def _warnings(a: Bench, b: Bench) -> Iterator[str]:
    for key, name in SAME.items():
        mine, other = (bench.kind if key == "kind" else bench.settings.get(key) for bench in (a, b))
        if mine != other:
            yield f"{name} is not the same: {mine} in A, {other} in B"
    if a.settings.get("recipe") == b.settings.get("recipe") and a.settings.get("recipe_toml") != b.settings.get(
        "recipe_toml"
    ):
        yield f"the two trained recipe {a.settings.get('recipe')} with other values: {_first_change(a, b)}"
    mine, other = ({row.last.size for row in bench.rows if row.last.size} for bench in (a, b))
    if mine and other and mine != other:
        yield f"slices are not of the same size: {_sizes(mine)} in A, {_sizes(other)} in B"
    for name, bench in (("A", a), ("B", b)):
        if told := busy(bench.environment, name):
            yield told


def _first_change(a: Bench, b: Bench) -> str:
    mine, other = (str(bench.settings.get("recipe_toml", "")).splitlines() for bench in (a, b))
    for one, two in zip(mine, other, strict=False):
        if one != two:
            return f"{one} in A, {two} in B"
    return "one has more of them"


def _sizes(sizes: set[tuple[int, ...]]) -> str:
    return ", ".join(" x ".join(map(str, size)) for size in sorted(sizes))


def _differences(a: Bench, b: Bench) -> Iterator[str]:
    for key in MACHINE:
        mine, other = a.environment.get(key), b.environment.get(key)
        if mine != other:
            yield f"{key}: {mine} in A, {other} in B"
