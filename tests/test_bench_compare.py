"""Two results beside one another: which rows are the same, and what is not."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

import tiny
from benches import MACHINE, bench, row
from hemotorch.bench.compare import compare
from hemotorch.bench.records import read_bench
from hemotorch.bench.tables import bench_lines
from hemotorch.cli import main
from hemotorch.errors import HemotorchError, InputError
from hemotorch.system.files import write_json


def test_ratios_row_by_row() -> None:
    a = bench(row(1, threads=1), row(4), row(100, device="cuda"))
    b = bench(row(2, threads=1), row(4.1), row(5, threads=4, ranks=2))
    found = compare(a, b)
    assert [(pair.label, round(pair.ratio, 3), pair.apart) for pair in found.pairs] == [
        ("CPU, 1 thread", 2.0, True),
        ("CPU, 8 threads", 1.025, False),
    ]
    assert found.only_a == ("GPU, fp32",) and found.only_b == ("CPU, 2 processes of 4 threads",)
    assert found.warnings == () and found.differences == ()
    text = "\n".join(found.lines())
    assert "2.00  faster" in text and "only in A: GPU, fp32" in text


def test_all_threads_of_another_machine_are_the_same_config() -> None:
    other = replace(bench(row(1, threads=1), row(30, threads=16)), environment={**MACHINE, "cores": 16})
    found = compare(bench(row(1, threads=1), row(4)), other)
    assert [pair.label for pair in found.pairs] == ["CPU, 1 thread", "CPU, 8 threads / CPU, 16 threads"]
    assert "cores: 8 in A, 16 in B" in found.differences


def test_what_failed_has_no_ratio() -> None:
    found = compare(bench(row(4)), bench(replace(row(4), rounds=(), error="was killed")))
    assert found.pairs == () and any("failed in B: CPU, 8 threads (was killed)" in line for line in found.lines())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"settings": {"recipe": "fast"}}, "the recipe is not the same: paper in A, fast in B"),
        ({"settings": {"quick": False}}, "--quick is not the same"),
        ({"settings": {"recipe_toml": 'name = "x"'}}, "with other values"),
        ({"settings": {"slices": 9}}, "number of slices"),
    ],
)
def test_settings_that_differ_are_warned_of(changed, says) -> None:
    assert any(says in text for text in compare(bench(row(4)), bench(row(4), **changed)).warnings)


def test_other_sizes_and_busy_machines_are_warned_of() -> None:
    other = replace(bench(row(4, size=(512, 512))), environment={**MACHINE, "load_before": 7.5, "torch": "2.14.0"})
    found = compare(bench(row(4)), other)
    assert any("192 x 192 in A, 512 x 512 in B" in text for text in found.warnings)
    assert any("B was not alone" in text for text in found.warnings)
    assert "torch: 2.13.0 in A, 2.14.0 in B" in found.differences


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found["environment"].update(cores="two"),
        lambda found: found["environment"].update(load_before="x"),
        lambda found: found["rows"][0]["rounds"][0].update(step_s=["a"]),
        lambda found: found["rows"][0]["rounds"][0].update(step_s="a"),
        lambda found: found["rows"][0]["config"].update(threads="two"),
        lambda found: found["rows"][0].update(config=None),
    ],
)
def test_a_damaged_result_is_named(tmp_path, change) -> None:
    found = bench().to_json()
    change(found)
    (tmp_path / "bench.json").write_text(json.dumps(found))
    with pytest.raises(InputError, match="is damaged; measure again"):
        read_bench(tmp_path)


def test_the_command(tmp_path, capsys) -> None:
    for name, rate in (("a", 1.0), ("b", 3.0)):
        write_json(tmp_path / f"{name}.json", bench(row(rate, threads=1)).to_json())
    assert main(["bench", "compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    assert "3.00  faster" in capsys.readouterr().out
    assert main(["bench", "compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--json"]) == 0
    assert '"ratio": 3.0' in capsys.readouterr().out
    assert main(["bench", "compare", str(tmp_path / "a.json"), str(tmp_path / "c.json")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no such file" in error


def test_mutated_results_end_in_one_line_or_in_a_comparison(tmp_path) -> None:
    path, rng, good = tmp_path / "bench.json", random.Random(0), 0
    write_json(path, bench().to_json())
    text, unchanged = path.read_text(), bench()
    for _ in range(300):
        path.write_bytes(tiny.mutated(text, rng))
        try:
            found = read_bench(path)
            assert compare(unchanged, found).lines() and compare(found, unchanged).lines() and bench_lines(found)
            good += 1
        except HemotorchError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
    assert 0 < good < 250
