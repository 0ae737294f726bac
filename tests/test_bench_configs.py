"""Which configs are measured, and what --sweep takes."""

from __future__ import annotations

import pytest

from hemotorch.bench.configs import (
    Scope,
    base_configs,
    devices_of,
    parse_devices,
    parse_sweep,
    sweep_configs,
    usual,
)
from hemotorch.bench.records import Config, Machine
from hemotorch.errors import OptionError

TWO = Machine(cores=2)
BIG = Machine(cores=16, gpus=2, compiler=True, precisions=("fp32", "tf32", "bf16"), compiled=True, graphs=True)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("batch=1..32", (1, 2, 4, 8, 16, 32)),
        ("workers=0..2", (0, 1, 2)),
        ("threads=3..12", (3, 4, 8, 12)),
        ("ranks=2..2", (2,)),
        ("threads=4,1,2,2", (1, 2, 4)),
        ("batch=7", (7,)),
    ],
)
def test_a_range_is_its_ends_and_the_powers_of_two_between(text, values) -> None:
    assert parse_sweep([text]) == {text.partition("=")[0]: values}


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["batch"], "is not NAME=VALUES"),
        (["bach=1"], "did you mean 'batch'"),
        (["batch=1", "batch=2"], "names batch twice"),
        (["batch=0..4"], "from 1 to"),
        (["batch=8..2"], "write batch=2..8"),
        (["batch="], "from 1 to"),
        (["batch=1,,2"], "from 1 to"),
        (["threads=-1"], "from 1 to"),
        (["threads=two"], "from 1 to"),
        (["ranks=²"], "from 1 to"),
        (["workers=1..99999"], "from 0 to"),
        (["batch=1...4"], "from 1 to"),
    ],
)
def test_bad_sweeps_are_explained_in_one_line(texts, says) -> None:
    with pytest.raises(OptionError) as caught:
        parse_sweep(texts)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def scope(
    devices: str, machine: Machine, batch: int = 4, shared: int = 4, reference: bool = True, quick: bool = True
) -> Scope:
    return Scope(machine, (devices,), batch, shared, reference=reference, quick=quick)


def around(where: Scope) -> dict[str, Config]:
    return {device: usual(where, device) for device in where.devices}


def test_a_cpu_is_measured_with_one_thread_all_and_two_processes() -> None:
    found, left = base_configs(scope("cpu", TWO))
    labels = [config.label for config in found]
    assert labels == ["reference loop, CPU", "CPU, 1 thread", "CPU, 2 threads", "CPU, 2 processes of 1 thread"]
    assert left == []
    one, _ = base_configs(scope("cpu", Machine(cores=1), reference=False))
    assert [config.label for config in one] == ["CPU, 1 thread"]


def test_processes_share_a_batch_evenly() -> None:
    found, left = base_configs(scope("cpu", Machine(cores=3), reference=False))
    assert {(config.ranks, config.threads) for config in found} == {(1, 1), (1, 3), (2, 1)}
    assert left == ["3 processes: they cannot share a batch of 4 evenly"], "told, not left out in silence"
    accumulated, left = base_configs(scope("cpu", TWO, batch=6, shared=3, reference=False))
    assert all(config.ranks == 1 for config in accumulated) and len(left) == 1


def test_a_gpu_is_measured_in_each_precision_with_and_without_compiling_and_graphs() -> None:
    found, _ = base_configs(scope("cuda", BIG, quick=False))
    ways = {(c.precision, c.compile, c.graphs) for c in found if c.ranks == 1 and not c.reference}
    assert len(ways) == 12 and {way[0] for way in ways} == {"fp32", "tf32", "bf16"}
    assert [c.precision for c in found if c.ranks == 2] == ["fp32", "bf16"]
    assert len({config.key for config in found}) == len({config.label for config in found}) == len(found)
    turing = Machine(cores=4, gpus=1, precisions=("fp32", "fp16"), compiled=True)
    old, _ = base_configs(scope("cuda", turing, quick=False))
    assert {config.precision for config in old} == {"fp32", "fp16"}, "no TF32 there, the reference loop has none"
    assert [config.compile for config in old if config.precision == "fp16"] == [False, True]
    assert not any(config.graphs for config in old if config.precision == "fp16")
    quick, _ = base_configs(scope("cuda", BIG))
    assert len(quick) == 4, "reference, eager, what is chosen eagerly, and what is chosen"


def test_sweeps_vary_one_thing_at_a_time() -> None:
    sweep = parse_sweep(["batch=2..8", "threads=1..4", "workers=0,1", "ranks=1..4"])
    where = scope("cpu", TWO)
    found, left = sweep_configs(sweep, where, around(where))
    assert [config.label for config in found["batch"]] == [
        "CPU, 2 threads, batch 2",
        "CPU, 2 threads",
        "CPU, 2 threads, batch 8",
    ]
    assert [config.label for config in found["workers"]] == ["reference loop, CPU", "reference loop, CPU, 1 worker"]
    assert [(config.ranks, config.threads) for config in found["ranks"]] == [(1, 1), (2, 1)]
    assert left == ["4 threads: this machine has 2 cores", "4 processes: this machine has 2 cores"]
    base = {config.key for config in base_configs(where)[0]}
    assert {config.key for config in found["threads"]} <= base, "measured once, shown twice"


def test_a_gpu_is_swept_as_the_engine_would_train_on_it() -> None:
    where = scope("cuda", BIG)
    found, _ = sweep_configs(parse_sweep(["batch=32", "ranks=2"]), where, around(where))
    config = found["batch"][0]
    assert (config.precision, config.compile, config.graphs, config.batch) == ("bf16", True, True, 32)
    assert not found["ranks"][0].graphs


def test_what_cannot_be_varied_is_told() -> None:
    where = scope("cpu", BIG, reference=False)
    found, left = sweep_configs(parse_sweep(["workers=1", "ranks=8"]), where, around(where))
    assert found == {} and len(left) == 2
    assert "only the reference loop has them" in left[0] and "cannot share a batch of 4 evenly" in left[1]


@pytest.mark.parametrize(
    ("text", "machine", "says"),
    [
        ("gpu", BIG, "unknown device 'gpu'"),
        ("cpu,", BIG, "unknown device ''"),
        ("cpu,cuda", TWO, "torch finds no CUDA GPU"),
    ],
)
def test_devices_that_are_not_there(text, machine, says) -> None:
    with pytest.raises(OptionError, match=says):
        devices_of(parse_devices(text), machine)


def test_devices() -> None:
    assert devices_of(parse_devices("auto"), BIG) == ["cpu", "cuda"] and devices_of(parse_devices("auto"), TWO) == [
        "cpu"
    ]
    assert devices_of(parse_devices("cuda, cpu,cuda"), BIG) == ["cuda", "cpu"]
