"""The parts of benchmarks/peers.py that need no peer: what is handed to them, the clock, the score and the table."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from sklearn.metrics import f1_score

from hemotorch.data.dataset import Dataset
from hemotorch.recipe import load_recipe

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from peers.chart import draw  # noqa: E402
from peers.child import Job, Recorder  # noqa: E402
from peers.contenders import CONTENDERS  # noqa: E402
from peers.export import export  # noqa: E402
from peers.measure import run_alone  # noqa: E402
from peers.score import score  # noqa: E402
from peers.table import dice_after, table, targets, time_to, wins  # noqa: E402


def result(name: str, *points: tuple[float, float], **other: Any) -> dict[str, Any]:
    rows = [
        {"seconds": s, "dice": d, "ci95": [d - 0.1, d + 0.1], "normal_ml": 2.0, "predict_s": 8.0} for s, d in points
    ]
    fixed = {"image_px": 96, "batch": 8, "test_scans": 4, "parameters_m": 1.0, "gflop_slice": 3.0}
    return {"name": name, "title": f"{name}, told", "images_s": 50.0, "peak_mb": 1024, **fixed, **other, "rows": rows}


RESULTS = [
    result("fast", (120, 0.6)),
    result("fast-3", (30, 0.4), images_s=90.0, peak_mb=10),
    result("monai-dicece", (60, 0.5), (120, 0.3), (2400, 0.35), peak_mb=512),
    result("nnunet", (1200, 0.55), (2400, 0.58), images_s=10.0),
    result("paper", (3600, 0.7), images_s=None),
]


def test_time_to_a_dice_is_read_from_points_and_never_between_them() -> None:
    points = [(10.0, 0.2), (20.0, 0.5), (30.0, 0.4)]
    assert [time_to(points, dice) for dice in (0.1, 0.2, 0.3, 0.5, 0.51)] == [10, 10, 20, 20, None]
    assert [dice_after(points, s) for s in (9, 10, 25, 99)] == [None, 0.2, 0.5, 0.4]


def test_table_marks_where_a_peer_wins_and_how_long_fast_takes() -> None:
    lines = table(RESULTS).splitlines()
    head, fast, three, monai, nnunet, paper = (line.split(" | ") for line in (lines[0], *lines[2:]))
    assert all(len(line) == len(head) for line in (fast, three, monai, nnunet, paper))
    column = {name: place for place, name in enumerate(head)}
    race, memory = column["`fast` has that after, min"], column["peak memory, GiB"]
    assert monai[race] == "0.5, 1/80.0 (1/2.0)", "it had that Dice after 60 s already, and lost it again"
    assert nnunet[race] == "2.0, 1/20.0 (1/20.0)" and paper[race] == "**never**"
    assert monai[memory] == "**0.50**" and nnunet[memory] == "1.00" and three[memory] == "0.01"
    assert paper[column["Dice at the end"]].startswith("**0.700** [0.60")
    assert monai[column["Dice after 5 min"]] == "0.300" and nnunet[column["Dice after 5 min"]] == ""
    assert wins(RESULTS) == [
        "Dice at the end: paper, told has 0.700, `fast` 0.600",
        "peak memory, GiB: monai-dicece, told has 0.50, `fast` 1.00",
    ]
    assert wins(RESULTS[1:]) == ["unknown: `fast` has not run at its own length"]


def test_targets_take_the_better_peer_and_say_when_they_are_missed() -> None:
    peers, paper = targets(RESULTS)
    assert "(nnunet: 0.580 after 40.0 min): `fast` has it in 2.0 min, 1/20.0 (1/20.0 of when" in peers
    assert "nnunet first had it, after 40.0 min)" in peers and peers.endswith("aim reached")
    assert "without monai-dicece-1e-3, not run" in peers
    assert "has it never" in paper and paper.endswith("missed")
    slow = [result("fast", (900, 0.6)), *RESULTS[2:4]]
    assert targets(slow)[0].endswith(": reached")  # 900 of 2400 s: more than 1/5, less than 1/2
    assert targets(RESULTS[2:]) == []
    fell = [result("fast", (120, 0.6)), result("nnunet", (300, 0.55), (600, 0.5), (2400, 0.5))]
    assert "1/20.0 (1/2.5 of when nnunet first had it, after 5.0 min)" in targets(fell)[0]
    assert targets(fell)[0].endswith("aim reached"), "the verdict is by the time that it was given"


def test_picture_names_every_line(tmp_path: Path) -> None:
    draw(RESULTS, tmp_path / "peers.svg")
    text = (tmp_path / "peers.svg").read_text()
    assert all(name in text for name in ("monai-dicece, told  0.35", "nnunet, told  0.58", "hemotorch fast  0.60"))


def test_masks_that_come_back_as_they_were_handed_out_score_as_the_truth(tiny_prepared: Path, tmp_path: Path) -> None:
    dataset = Dataset(tiny_prepared)
    parts = export(dataset, tmp_path)
    split = dataset.split("patient")
    assert {part: set(cases.values()) for part, cases in parts.items()} == {
        part: set(split.part(part)) for part in ("train", "val", "test")
    }
    files = {name: tmp_path / "mask" / f"{name}.nii.gz" for name in parts["test"]}
    truth = {name: np.asarray(nib.load(file).dataobj).transpose(2, 1, 0) for name, file in files.items()}
    np.savez_compressed(tmp_path / "right.npz", **truth)
    moved = {name: np.roll(mask, 2, axis=2) for name, mask in truth.items()}
    np.savez_compressed(tmp_path / "moved.npz", **moved)
    assert score(dataset, parts["test"], tmp_path / "right.npz")["dice"] == 1
    found = score(dataset, parts["test"], tmp_path / "moved.npz")
    expected = {
        case: f1_score(truth[name].ravel(), moved[name].ravel())
        for name, case in parts["test"].items()
        if truth[name].any()
    }
    assert found["each"] == pytest.approx(expected) and found["scans"] == len(expected)
    assert found["dice"] == pytest.approx(np.mean(list(expected.values())))


def test_exported_images_are_the_scans_on_their_side_of_the_head(tiny_prepared: Path, tmp_path: Path) -> None:
    dataset = Dataset(tiny_prepared)
    name, case = next(iter(export(dataset, tmp_path)["train"].items()))
    image, brain = (nib.load(tmp_path / kind / f"{name}.nii.gz") for kind in ("hu", "brain"))
    hu = dataset.scan(case).hu
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S") and image.header.get_zooms() == (3, 3, 5)
    assert np.array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), hu)
    window = np.asarray(brain.dataobj).transpose(2, 1, 0)
    assert np.allclose(window, np.clip((hu + 20) / 120, 0, 1), atol=1e-6)


def test_clock_stands_still_while_scans_are_outlined(tiny_prepared: Path, tmp_path: Path) -> None:
    export(Dataset(tiny_prepared), tmp_path / "data")
    asked = {"data": str(tmp_path / "data"), "work": str(tmp_path), "minutes": 10, "every_s": 240, "options": {}}
    (tmp_path / "job.json").write_text(json.dumps({**asked, "cores": 1, "seed": 0, "began": time.time() - 100}))
    job = Job(tmp_path / "job.json")
    assert len(job.train + job.val + job.test) == 10 and job.side_px == 64
    recorder = Recorder(job)
    assert recorder.due and not recorder.over and recorder.seconds == pytest.approx(100, abs=1)
    recorder.step(8, 0.5)
    recorder.step(8, 0.3)
    recorder.point(lambda: time.sleep(0.3) or {"case000": np.full((1, 2, 2), 2)})
    assert not recorder.due and recorder.seconds == pytest.approx(100, abs=0.25)  # the next is at 120 s
    recorder.start(earlier_s=50)
    recorder.pause(-550)
    assert recorder.over and recorder.due and recorder.share == 1
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert row["images"] == 16 and row["loss"] == pytest.approx(0.4)
    with np.load(tmp_path / row["file"]) as masks:
        assert masks["case000"].dtype == bool and masks["case000"].all()
    recorder.finish(("numpy", "no-such-package"), batch=8)
    about = json.loads((tmp_path / "about.json").read_text())
    assert about["versions"]["numpy"] == np.__version__ and about["batch"] == 8
    assert about["images_s"] == pytest.approx(16 / 50, rel=0.05)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_memory_counts_all_processes_and_the_limit_ends_them_all(tmp_path: Path) -> None:
    holds = "import time; held = b'1' * 40_000_000; time.sleep({})"
    two = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {holds.format(99)!r}]); {holds.format(99)}"
    began = time.monotonic()
    status, peak_mb = run_alone([sys.executable, "-c", two], {}, tmp_path / "log", limit_s=2.5)
    assert status < 0 and time.monotonic() - began < 15 and 80 < peak_mb < 160
    assert run_alone([sys.executable, "-c", "raise SystemExit(3)"], {}, tmp_path / "log", limit_s=20)[0] == 3


def test_contenders_have_pinned_environments_and_valid_settings() -> None:
    assert len({one.name for one in CONTENDERS}) == len(CONTENDERS)
    torch = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    for one in CONTENDERS:
        assert (ROOT / "benchmarks" / "peers" / f"{one.module}.py").is_file()
        if one.ours:
            load_recipe(one.options["recipe"]).changed(one.options["set"])
            continue
        lines = (ROOT / "benchmarks" / "peers" / f"{one.environment}.txt").read_text().splitlines()
        assert torch in lines and all(line.count("==") == 1 for line in lines) and one.deviations
