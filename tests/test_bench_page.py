"""The bench's page and chart: well-formed, in need of nothing else, and honest about what was not measured here."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benches import bench, row
from hemotorch.bench.bench_page import bench_page, write_bench
from hemotorch.bench.charts import speedup_chart
from hemotorch.bench.records import Bench, Config, Row, read_bench
from webpage import Page

CURVES = tuple(
    {
        "task": "Digits", "algorithm": name, "device": "cpu", "lr": 0.1, "value_name": "accuracy", "note": "digits",
        "steps": (1, 10, 100), "seconds": (0.1, 0.2, 0.3), "loss": (2.0, 1.0, 0.5), "value": (0.1, 0.5, 0.9),
        "wanted": 0.81, "reached": [0.3, 0.2, None], "reached_steps": [100, 10, None],
    }
    for name in ("SGD", "momentum", "Adam")
)  # fmt: skip


def written(made: Bench) -> tuple[str, Page]:
    text = bench_page(made)
    assert "<script" not in text and "@import" not in text and "url(http" not in text
    assert not re.search(r"#0[0-9]0[0-9]0[0-9]\b", text), "every figure colour became one of the page's"
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids)), "figures share no ids"
    found = Page(text)
    assert all(link.startswith("#") for link in found.links)
    assert "nan" not in " ".join(found.words).lower().split()
    return text, found


def test_it_says_all_that_was_asked() -> None:
    _, found = written(bench())
    words = " ".join(found.words)
    assert found.words[0] == "Quick: small." and found.words[1].startswith("Research use only")
    assert found.words[3] == "Arithmetic is the limit."
    for made in bench().rows:
        assert made.config.label in words
    for wanted in ("Example 9000", "GFLOP/s", "of peak", "efficiency", "reference", "Quick: small.", "SIGKILL"):
        assert wanted in words
    assert "310" in found.words and "7.8×" in found.words
    assert 'name = "<paper>"' in words


def test_published_figures_are_marked_as_such() -> None:
    _, found = written(bench())
    at = found.words.index("GeForce RTX 2080")
    assert found.words[at + 1 : at + 3] == ["5 hours for 150 epochs", "published, not measured here"]
    assert found.words.count("published, not measured here") == 3


def test_bars_and_shares_are_drawn_to_scale() -> None:
    text, _ = written(bench(row(50, {"data": 0.25, "backward": 0.75}), row(100)))
    widths = [float(width) for width in re.findall(r'<i style="width:([0-9.]+)%"', text)]
    assert widths == [pytest.approx(100 / 2.04, abs=0.01), pytest.approx(100 / 1.02, abs=0.01)]
    assert re.search(r"flex:0.2500 0 0;background:var\(--s1\).*?flex:0.7500 0 0;background:var\(--s4\)", text)
    assert 'aria-label="waiting for data 25%, backward 75%"' in text


def test_a_page_without_any_measurement_tells_why() -> None:
    failed = Row(Config("CPU, 1 thread", threads=1), error="<out of memory>")
    _, found = written(bench(failed))
    assert "<out of memory>" in found.words


def test_small_networks_have_curves() -> None:
    made = replace(bench(row(40), row(60, batch=8)), kind="mlp", curves=CURVES)
    made = replace(made, settings={**made.settings, "net": "mlp"})
    text, found = written(made)
    assert "Digits" in found.words and "momentum" in found.words and text.count("<svg") == 4
    assert "published" not in " ".join(found.words)


def test_cards_are_of_the_batch_that_the_sentence_is_about() -> None:
    _, found = written(bench(row(1.1, reference=True, threads=0), row(2.4), row(9.9, batch=8)))
    cards = " ".join(found.words).partition("How fast")[0]
    assert "2.40" in cards and "9.9" not in cards


def test_a_machine_of_which_little_is_known_has_a_page_too() -> None:
    _, found = written(replace(bench(), environment={}))
    assert "an unknown processor" in " ".join(found.words)


def test_names_are_escaped() -> None:
    made = replace(bench(), sentence="<b>&", notes=("<i>",))
    _, found = written(made)
    assert "<b>&" in found.words and "<i>" in found.words


def test_the_chart_is_a_whole_picture() -> None:
    picture = speedup_chart(bench().rows)
    root = ElementTree.fromstring(picture)
    assert root.tag.endswith("svg") and "var(--" not in picture
    words = " ".join(element.text or "" for element in root.iter() if element.tag.endswith("text"))
    assert "GPU, bf16, compiled, graphs" in words and "(7.8×)" in words and "× is against" in words
    alone = speedup_chart([row(3), row(2, threads=1)])
    assert "×" not in alone, "nothing was compared with the reference loop"


def test_files(tmp_path: Path) -> None:
    assert write_bench(bench(), tmp_path) == tmp_path / "bench.html"
    assert {path.name for path in tmp_path.iterdir()} == {"bench.json", "bench.html", "speedup.svg"}
    first = (tmp_path / "bench.html").read_text()
    write_bench(read_bench(tmp_path), tmp_path)
    assert (tmp_path / "bench.html").read_text() == first, "the page is a function of bench.json"
