"""The bottleneck in one sentence: made-up rows of which anyone would say the same."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benches import COMPUTING, row
from hemotorch.bench.records import Config, Machine, Round, Row
from hemotorch.bench.sentence import bottleneck
from hemotorch.bench.speedup import compared

GPU = {"device": "cuda", "precision": "bf16"}


WHOLE = Machine(8, 1, compiler=True, precisions=("fp32", "tf32", "bf16"), compiled=True, graphs=True)


def say(*rows: Row, cores: int = 8, machine: Machine = WHOLE) -> str:
    text = bottleneck(compared(rows, cores), replace(machine, cores=cores))
    assert text.endswith(".") and "\n" not in text and "nan" not in text
    return text


def test_a_gpu_that_waits_for_data() -> None:
    shares = {"data": 0.41, "forward": 0.2, "backward": 0.39}
    streamed = row(100, shares, storage="stream", **GPU)
    text = say(row(2), streamed)
    assert text.startswith("The GPU waits for data 41% of the time") and "data.memory=resident" in text
    assert "train.batch" in say(row(100, shares, **GPU))


def test_a_cpu_that_waits_for_data() -> None:
    assert say(row(5, {"data": 0.3, "backward": 0.7})).startswith("The processor waits for data 30% of the time")


def test_a_gpu_that_waits_for_python() -> None:
    text = say(row(100, launch=0.92, **GPU))
    assert "waits for Python's next call 92% of the time" in text and "engine.graphs=on" in text
    graphs = row(300, {"graph": 1.0}, launch=0.01, graphs=True, **GPU)
    assert "Python" not in say(row(100, launch=0.92, **GPU), graphs)


def test_a_switch_that_was_measured_is_no_advice() -> None:
    lost = row(90, launch=0.9, compile=True, graphs=True, **GPU)
    text = say(row(100, launch=0.92, **GPU), lost)
    assert "Python's next call" in text and "engine." not in text
    slow = say(row(1, threads=1), row(7, threads=8, peak_share=0.12), row(6, threads=8, compile=True, peak_share=0.1))
    assert "engine.compile=on" not in slow and "fewer channels" in slow


def test_what_cannot_be_used_there_is_no_advice() -> None:
    slow = [row(1, threads=1), row(7, threads=8, peak_share=0.12)]
    assert "engine.compile=on" in say(*slow) and "engine.compile" not in say(*slow, machine=Machine())
    lost = {"device": "cuda", "launch": 0.92}
    turing = Machine(gpus=2, precisions=("fp32", "fp16"))
    assert "engine." not in say(row(100, precision="fp16", **lost), machine=turing)
    assert "engine.graphs" not in say(row(100, ranks=2, precision="bf16", **lost))
    assert "engine.graphs=on, engine.compile=on" in say(row(100, precision="bf16", **lost))
    low = say(row(100, device="cuda", peak_share=0.1), machine=turing)
    assert "engine.precision=fp16" in low and "bf16" not in low and "compile" not in low


def test_an_optimiser_that_takes_the_time() -> None:
    text = say(row(50, {"forward": 0.2, "backward": 0.4, "optimiser": 0.4}, **GPU))
    assert "optimiser takes 40%" in text and "train.batch" in text and "train.accumulate" in text


def test_augmentation_that_takes_the_time() -> None:
    assert "[augment]" in say(row(50, {"augment": 0.5, "forward": 0.2, "backward": 0.3}))


def test_cores_that_are_busy_with_something_else() -> None:
    text = say(row(1), row(5, {"forward": 0.2, "backward": 0.4, "waiting": 0.4}))
    assert "stand idle or do other work 40% of the time" in text


def test_ranks_that_beat_threads() -> None:
    text = say(row(1, threads=1), row(4, threads=8), row(6, threads=1, ranks=8))
    assert "8 processes of 1 thread are 1.5 times as fast" in text
    assert "hemotorch cluster torchrun DATA RUN --ranks 8" in text
    assert "torchrun" not in say(row(1, threads=1), row(6, threads=8), row(6.1, threads=1, ranks=8)), (
        "noise is no advice"
    )


def test_too_few_threads() -> None:
    assert "Only 1 of 8 cores" in say(row(1, threads=1))


def test_threads_that_are_too_many() -> None:
    text = say(row(4, threads=2), row(2, threads=8))
    assert "2 of 8 are 2.0 times as fast as 8" in text and "engine.threads=2" in text


def test_noise_is_no_advice() -> None:
    once = [row(4, spread=(1.0,), threads=2), row(2, spread=(1.0,), threads=8)]
    wide = [row(4, spread=(0.25, 1.0, 1.5), threads=2), row(2, spread=(0.5, 1.0, 3.0), threads=8)]
    for rows in (once, wide):
        assert "engine.threads" not in say(*rows)


def test_threads_that_hardly_help() -> None:
    text = say(row(1, threads=1), row(2.4, threads=8))
    assert "8 threads are only 2.4 times as fast as one" in text and "train.batch" in text


def test_memory_that_is_slower_than_arithmetic() -> None:
    text = say(row(1, threads=1), row(7, threads=8, peak_share=0.12))
    assert text.startswith("Moving numbers through memory takes the time") and "12%" in text
    assert "engine.compile=on" in text and "bf16" not in text
    assert "engine.precision=bf16" in say(row(7, peak_share=0.12, device="cuda"))


def test_arithmetic_that_is_the_limit() -> None:
    cpu = say(row(1, threads=1), row(7, threads=8, peak_share=0.76))
    assert "Arithmetic is the limit" in cpu and "97%" in cpu and "76%" in cpu and "a GPU" in cpu
    gpu = say(row(7), row(300, peak_share=0.6, **GPU))
    assert "Arithmetic is the limit" in gpu and "faster GPU" in gpu


def test_the_reference_loop_and_other_batches_are_not_advised_on() -> None:
    slow = {"data": 0.9, "forward": 0.1}
    text = say(row(1, threads=1), row(7), row(99, slow, peak_share=11.3, reference=True), row(50, slow, 5.7, batch=32))
    assert "data" not in text and "Arithmetic" in text


def test_unknown_shares_and_peaks() -> None:
    bare = Row(Config("CPU, 8 threads", threads=8), (Round((1.0,), 3),))
    assert math.isnan(bare.peak_share)
    assert "Arithmetic" in say(bare)


@pytest.mark.parametrize("error", ["out of memory", ""])
def test_nothing_was_measured(error) -> None:
    text = bottleneck([row(3, COMPUTING, reference=True), Row(Config("CPU"), error=error)], WHOLE)
    assert text.startswith("Nothing of hemotorch's own could be measured") and (error or "nothing to measure") in text
