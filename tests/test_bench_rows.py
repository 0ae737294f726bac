"""Rows of a bench: medians over rounds, speed-ups, efficiency and cost, and that JSON loses nothing."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest
from pydantic import TypeAdapter

from benches import bench, row
from hemotorch.bench.processes import Results, row_of
from hemotorch.bench.records import Config, Round, Row, Spec, read_bench
from hemotorch.bench.speedup import compared
from hemotorch.bench.tables import bench_lines
from hemotorch.errors import InputError
from hemotorch.system.files import jsonable, write_json

CONFIG = Config("CPU, 2 threads", threads=2)


def row_with(rounds: list[Round], errors: list[str]) -> Row:
    return row_of(Spec(CONFIG, "data", "recipe"), Results(rounds, errors))


def of(*step_s: float, **other) -> Round:
    return Round(
        step_s, 4, {"data": 0.25, "forward": 0.75}, **{"steps": 10, "epochs": 3, "losses": (-0.1, -0.2), **other}
    )


def test_a_row_is_the_median_of_its_rounds() -> None:
    found = row_with([of(2.0, 1.0, 9.0), of(4.0), of(1.0, losses=(-0.1, -0.5))], [])
    assert found.rates == (2.0, 1.0, 4.0)  # 4 images in the median step of 2, 4 and 1 seconds
    assert (found.images_s, found.low, found.high) == (2.0, 1.0, 4.0)
    assert (found.step_s, found.epoch_s, found.training_s) == (2.0, 20.0, 60.0)
    assert found.losses == (-0.1, -0.5) and found.shares["forward"] == 0.75 and found.shares["data"] == 0.25


def test_arithmetic_is_three_forward_passes() -> None:
    found = row_with([of(2.0, image_gflop=5.0, peak_gflops=40.0)], [])
    assert found.gflops == 3 * 5.0 * 2.0 and math.isnan(found.peak_share), "before it is compared"
    assert compared([found], 2)[0].peak_share == 0.75


def test_memory_is_the_most_that_any_round_held() -> None:
    assert row_with([of(1.0, memory_mb=100.0), of(1.0, memory_mb=300.0), of(1.0, memory_mb=200.0)], []).memory_mb == 300


def test_failed_rounds_are_told() -> None:
    none = row_with([], ["out of memory"])
    assert not none.measured and none.error == "out of memory" and math.isnan(none.images_s)
    some = row_with([of(1.0)], ["was killed"])
    assert some.measured and some.error == "1 of 2 rounds failed: was killed"


def test_what_rows_are_compared_with() -> None:
    rows = compared([
        row(2, reference=True, threads=0),
        row(3, threads=1),
        row(12, threads=8),
        row(18, threads=4, ranks=2),
        row(120, device="cuda"),
        row(60, device="cuda", reference=True, threads=0),
        row(24, threads=8, batch=32),
    ], 8, price=2.0)  # fmt: skip
    reference, one, whole, ranks, gpu, gpu_reference, large = rows
    assert [each.to_cpu for each in (one, whole, ranks, gpu)] == [0.25, 1.0, 1.5, 10.0]
    assert (one.to_reference, whole.to_reference, gpu.to_reference, gpu_reference.to_reference) == (1.5, 6.0, 2.0, 1.0)
    assert (one.efficiency, whole.efficiency, ranks.efficiency) == (1.0, 0.5, 0.75)
    assert gpu.efficiency == 1.0 and math.isnan(large.efficiency) and math.isnan(reference.efficiency)
    assert large.to_cpu == 2.0
    assert one.cost == pytest.approx(one.training_s / 3600 * 2)
    assert all(math.isnan(each.cost) for each in compared([row(1)], 8))


def test_what_is_not_alike_is_not_compared() -> None:
    rows = compared([
        row(2, reference=True, threads=0), row(12, threads=8), row(11, threads=16), row(24, threads=8, batch=32),
        row(3, reference=True, threads=0, workers=2),
    ], 8)  # fmt: skip
    assert math.isnan(rows[3].to_reference), "the reference loop had another batch"
    assert rows[2].to_cpu == pytest.approx(11 / 12), "against as many threads as there are cores, not the most"
    assert rows[1].to_reference == 6.0, "against the reference loop without workers"


def test_all_on_as_many_cores_have_one_peak() -> None:
    rows = [row(2, reference=True, threads=0), row(9, threads=8), row(8, threads=4, ranks=2), row(1, threads=1)]
    before = [one.peak_gflops for one in rows]
    after = [one.peak_gflops for one in compared(rows, 8)]
    assert len(set(before)) == 4 and after == [max(before[:3])] * 3 + before[3:]


def test_nothing_to_compare_with() -> None:
    alone = compared([row(120, device="cuda")], 8)[0]
    assert math.isnan(alone.to_cpu) and math.isnan(alone.to_reference)
    assert compared([], 8) == []


def test_json_and_back(tmp_path) -> None:
    spec = Spec(CONFIG, "data", "toml", "", 1.0)
    measured = of(1.0, image_gflop=5.0, size=(48, 48), reasons=("a",))
    for value in (spec, measured, row(3), Row(CONFIG, error="x")):
        again = TypeAdapter(type(value)).validate_python(json.loads(json.dumps(jsonable(asdict(value)))))
        assert jsonable(asdict(again)) == jsonable(asdict(value))
        assert isinstance(getattr(again, "rounds", ()), tuple)
    write_json(tmp_path / "bench.json", bench().to_json())
    again = read_bench(tmp_path)
    assert again.to_json() == bench().to_json() and again.rows[1].config == bench().rows[1].config
    assert len(json.loads((tmp_path / "bench.json").read_text())["rows"]) == len(bench().rows)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "is not a bench's result"),
        ("[1]", "is not a bench's result"),
        ("{", "cannot be read as JSON"),
        ('{"format": 99, "kind": "", "rows": [], "settings": {}, "environment": {}}', "has format 99"),
        (
            '{"format": 2, "kind": "predict", "rows": [{"label": "import torch"}], "settings": {}, "environment": {}}',
            "is damaged",
        ),
        ('{"format": 2, "kind": "mlp", "rows": [], "settings": {}, "environment": {}}', "is damaged"),
        ('{"format": 2, "kind": "train", "rows": [3], "settings": {}, "environment": {}}', "is damaged"),
        ('{"format": 2, "kind": "train", "rows": [{}], "settings": {}, "environment": {}}', "is damaged"),
    ],
)
def test_a_file_that_is_no_result(tmp_path, text, says) -> None:
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(InputError, match=says):
        read_bench(tmp_path / "bench.json")


def test_the_text_table_is_aligned_and_names_failures() -> None:
    lines = bench_lines(bench())
    assert lines[-1] == "Arithmetic is the limit." and "was killed by signal SIGKILL" in "\n".join(lines)
    assert "efficiency" in lines[0] and "training" in lines[0]
    small = bench_lines(replace(bench(), kind="mlp"))[0]
    assert "a step" in small and "training" not in small
    figures = [line for line in lines if "per epoch]" in line]
    assert len(figures) == len([row for row in bench().rows if row.measured])
    assert len({line.index("per epoch]") for line in figures}) == 1 and all(line.isascii() for line in figures)
