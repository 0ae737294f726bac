"""What more ranks, and accumulated batches, change in a training: its loss and its Dice, beside another seed's.

    python benchmarks/ranks.py DATA [--steps 240] [--json FILE]

DATA is a prepared dataset. `fast` is trained with batches of 8, in float64, so that only what differs in kind shows: by
one process, by two ranks of 4 with plain and with synchronised batch norm, as two batches of 4 accumulated, and by one
process with another seed. Losses are means over twenty steps; Dice is that of the validation scans at the end, a few.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

EVERY = 20  #: steps a row of metrics
TWO = ["cluster", "torchrun", "--ranks", "2"]
HALVED = ["train.batch=4", "train.accumulate=2"]
WAYS: dict[str, tuple[list[str], list[str]]] = {
    "1 rank of 8": (["train"], []),
    "2 ranks of 4, plain batch norm": (TWO, []),
    "2 ranks of 4, synchronised": (TWO, ["engine.sync_batch_norm=true"]),
    "2 batches of 4, accumulated": (["train"], HALVED),
    "1 rank of 8, seed 1": (["train"], ["train.seed=1"]),
}


def trained(data: Path, run: Path, steps: int, way: str) -> list[dict[str, Any]]:
    """The rows of metrics of a training."""
    how, settings = WAYS[way]
    epochs = steps // EVERY
    common = [
        "engine.precision=fp64",
        f"train.steps_per_epoch={EVERY}",
        f"train.epochs={epochs}",
        f"train.validate_every={epochs}",
    ]
    options = [part for setting in [*common, *settings] for part in ("--set", setting)]
    command = [sys.executable, "-m", "hemotorch.cli", *how, str(data), str(run), "--recipe", "fast", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    """Trains each way and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, way in enumerate(WAYS):
            rows = trained(a.data, Path(folder) / str(number), a.steps, way)
            val = rows[-1]["val"]
            results[way] = {"loss": [row["loss"] for row in rows], "dice": val["dice"], "scans": val["n"]}
            print(f"{way}: {rows[-1]['seconds']:.0f} s", file=sys.stderr, flush=True)
    first = next(iter(results.values()))["loss"]
    print(f"| | loss, first {EVERY} steps | away from 1 rank | loss, last {EVERY} | away from 1 rank, mean | Dice |")
    print("| --- | --- | --- | --- | --- | --- |")
    for way, result in results.items():
        away = [abs(mine - theirs) for mine, theirs in zip(result["loss"], first, strict=True)]
        ends = f"{result['loss'][0]:.4f} | {away[0]:.1e} | {result['loss'][-1]:.4f} | {sum(away) / len(away):.1e}"
        print(f"| {way} | {ends} | {result['dice']:.3f} ({result['scans']}) |")
    if a.json:
        a.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
