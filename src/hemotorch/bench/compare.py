"""`hemotorch bench compare`: two results row by row, and what is not the same about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from hemotorch.bench.records import Bench, Config, Row, busy
from hemotorch.report.pages.table import Column, table, text_lines

#: Settings without which two results say little about each other.
SAME = {
    "recipe": "the recipe",
    "net": "the network",
    "quick": "--quick",
    "layout": "the data's layout",
    "scans": "the number of scans",
    "slices": "the number of slices",
}
MACHINE = ("processor", "cores", "gpu", "gpus", "driver", "hemotorch", "torch", "cuda", "python", "variables")


Role = tuple[Any, ...]  #: what rows of two benches have in common that are compared


@dataclass(frozen=True)
class Pair:
    """One config in both. ratio: B's images per second by A's; apart: whether their intervals do not touch."""

    label: str
    a: float
    b: float
    ratio: float
    apart: bool

    @property
    def verdict(self) -> str:
        """In a word, "" if their rounds overlap."""
        if not self.apart:
            return ""
        return "faster" if self.ratio > 1 else "slower"


@dataclass(frozen=True)
class BenchComparison:
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
        columns = [
            Column("", lambda pair: pair.label),
            Column("A images/s", lambda pair: f"{pair.a:.3g}"),
            Column("B images/s", lambda pair: f"{pair.b:.3g}"),
            Column("B / A", lambda pair: f"{pair.ratio:.2f}"),
            Column("", lambda pair: pair.verdict),
        ]
        lines = [f"warning: {text}" for text in self.warnings]
        lines += [f"differs: {text}" for text in self.differences]
        lines += ["", *text_lines(table(columns, self.pairs))] if self.pairs else ["no config is in both"]
        for name, labels in (("A", self.only_a), ("B", self.only_b)):
            if labels:
                lines.append(f"only in {name}: {', '.join(labels)}")
        lines += [f"failed in {text}" for text in self.failed]
        return [*lines, "Faster and slower are said if the rounds of the two do not overlap."]


def compare(a: Bench, b: Bench) -> BenchComparison:
    """A and B row by row. "All threads" of machines with other numbers of cores are the same config."""
    rows_a, rows_b = _by_role(a), _by_role(b)
    pairs = []
    for role, row in rows_a.items():
        other = rows_b.get(role)
        if other is not None and row.images_s > 0 and other.images_s > 0:
            pairs.append(_pair(row, other))
    return BenchComparison(
        pairs=tuple(pairs),
        only_a=_only(rows_a, rows_b),
        only_b=_only(rows_b, rows_a),
        failed=(*_failed("A", a), *_failed("B", b)),
        warnings=tuple(_warnings(a, b)),
        differences=tuple(_differences(a, b)),
    )


def _only(rows: Mapping[Role, Row], others: Mapping[Role, Row]) -> tuple[str, ...]:
    """Labels of what was measured and has no partner."""
    return tuple(row.config.label for role, row in rows.items() if role not in others and row.measured)


def _failed(name: str, bench: Bench) -> list[str]:
    return [f"{name}: {row.config.label} ({row.error})" for row in bench.rows if not row.measured]


def _pair(row: Row, other: Row) -> Pair:
    labels = dict.fromkeys((row.config.label, other.config.label))
    apart = row.high < other.low or other.high < row.low
    return Pair(" / ".join(labels), row.images_s, other.images_s, other.images_s / row.images_s, apart)


def _by_role(bench: Bench) -> dict[Role, Row]:
    cores = int(bench.environment.get("cores") or 0)
    return {_role(row.config, bench.kind, cores): row for row in bench.rows}


def _role(config: Config, kind: str, cores: int) -> Role:
    """Its key, with -1 for as many threads as the machine has cores; ways to predict are told apart by their labels."""
    if kind == "predict":
        return (config.label,)
    # One thread is one thread on any machine, also on one that has no more.
    whole = config.threads * config.ranks == cores and (config.threads > 1 or config.device == "cuda")
    return replace(config, threads=-1).key if whole else config.key


def _warnings(a: Bench, b: Bench) -> Iterator[str]:
    if a.kind != b.kind:
        yield f"what was measured is not the same: {a.kind} in A, {b.kind} in B"
    for key, name in SAME.items():
        if a.settings.get(key) != b.settings.get(key):
            yield f"{name} is not the same: {a.settings.get(key)} in A, {b.settings.get(key)} in B"
    same_recipe = a.settings.get("recipe") == b.settings.get("recipe")
    if same_recipe and a.settings.get("recipe_toml") != b.settings.get("recipe_toml"):
        yield f"the two trained recipe {a.settings.get('recipe')} with other values: {_first_change(a, b)}"
    sizes_a, sizes_b = _sizes(a), _sizes(b)
    if sizes_a and sizes_b and sizes_a != sizes_b:
        yield f"slices are not of the same size: {sizes_a} in A, {sizes_b} in B"
    yield from filter(None, (busy(a.environment, "A"), busy(b.environment, "B")))


def _first_change(a: Bench, b: Bench) -> str:
    lines_a, lines_b = (str(bench.settings.get("recipe_toml", "")).splitlines() for bench in (a, b))
    for line_a, line_b in zip(lines_a, lines_b, strict=False):
        if line_a != line_b:
            return f"{line_a} in A, {line_b} in B"
    return "one has more of them"


def _sizes(bench: Bench) -> str:
    sizes = {row.last.size for row in bench.rows if row.last.size}
    return ", ".join(" x ".join(map(str, size)) for size in sorted(sizes))


def _differences(a: Bench, b: Bench) -> Iterator[str]:
    for key in MACHINE:
        if a.environment.get(key) != b.environment.get(key):
            yield f"{key}: {a.environment.get(key)} in A, {b.environment.get(key)} in B"
