"""Millilitres and Dice of one network on the same head at several slice distances.

    python benchmarks/thin_slices.py RUN [--data ../shared/data] [--device cpu] [--json FILE]

RUN is a run folder or a checkpoint. The two heads with painted bleeding (`head-ct-painted`) are predicted at their own
distance of 5.24 mm, resampled by cubic splines to 2.6, 1.3 and 0.65 mm, and thinned out to every second slice. "by
index" is the same network with neighbouring slices taken by their index whatever their distance, as hemotorch did
before. Masks are resampled to the nearest slice, so that truth keeps its mL.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline

from hemotorch.inference.load import load_model
from hemotorch.io import read_mask, read_scan
from hemotorch.scan import Scan

HEADS = ("painted1", "painted3")
FINER = (2, 4, 8)  #: times as many slices
ALLOWED = 0.15  #: of the mL at the scan's own distance


def finer(scan: Scan, mask: np.ndarray, times: int) -> tuple[Scan, np.ndarray]:
    """The scan and its mask with `times` as many slices over the same body."""
    places = (np.arange(len(scan.hu) * times) + 0.5) / times - 0.5
    spline = CubicSpline(np.arange(len(scan.hu)), scan.hu.astype(np.float32), axis=0)
    hu = np.empty((len(places), *scan.shape[1:]), np.int16)
    for number, position in enumerate(places.clip(0, len(scan.hu) - 1)):
        hu[number] = np.rint(spline(position)).clip(-1024, 3071)
    step = np.diff(scan.slice_origins_mm, axis=0).mean(axis=0)
    origins = scan.slice_origins_mm[0] + places[:, None] * step
    nearest = np.repeat(mask, times, axis=0)
    return replace(scan, hu=hu, slice_origins_mm=origins, slice_numbers=(), source=None), nearest


def coarser(scan: Scan, mask: np.ndarray) -> tuple[Scan, np.ndarray]:
    """Every second slice."""
    origins = scan.slice_origins_mm[::2]
    halved = replace(scan, hu=scan.hu[::2].copy(), slice_origins_mm=origins, slice_numbers=(), source=None)
    return halved, mask[::2]


def dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Of two masks in pixels."""
    both = np.count_nonzero((predicted > 0) & (truth > 0))
    return 2 * both / max(1, np.count_nonzero(predicted) + np.count_nonzero(truth))


def variants(scan: Scan, mask: np.ndarray) -> list[tuple[Scan, np.ndarray]]:
    """The head at its own distance first, then at the others."""
    return [(scan, mask), *(finer(scan, mask, times) for times in FINER), coarser(scan, mask)]


def main() -> None:
    """Prints a row per head, distance and way of taking neighbours; the exit status says whether mL stay the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args()
    predictor = load_model(a.run, a.device)
    print(f"{predictor.deployment.model}, trained on {predictor.model.spacings[0]}")
    ways = {"by distance": predictor, "by index": replace(predictor, model=replace(predictor.model, spacing=None))}
    rows, worst = [], 0.0
    print("head       way           mm     mL    of own   Dice   seconds")
    for head in HEADS:
        folder = a.data / "head-ct-painted"
        scan = read_scan(folder / f"{head}.nii.gz")
        truth = read_mask(folder / f"{head}_mask.nii.gz", scan)
        heads = variants(scan, truth)
        for way, model in ways.items():
            own_ml = 0.0
            for number, (changed, mask) in enumerate(heads):
                began = time.perf_counter()
                prediction = model.predict(changed)
                seconds = time.perf_counter() - began
                ml = prediction.volume_ml["total"]
                own_ml = own_ml if number else ml
                row = {
                    "head": head,
                    "way": way,
                    "slice_mm": float(np.median(changed.slice_distances_mm)),
                    "ml": ml,
                    "of_own": ml / own_ml,
                    "truth_ml": changed.volume_ml(mask),
                    "dice": dice(prediction.mask, mask),
                    "seconds": seconds,
                }
                rows.append(row)
                figures = f"{row['slice_mm']:5.2f} {ml:6.1f} {ml / own_ml:8.2f} {row['dice']:7.3f} {seconds:7.1f}"
                print(f"{head:10} {way:12} {figures}", flush=True)
                if way == "by distance" and number <= len(FINER):
                    worst = max(worst, abs(ml / own_ml - 1))
    if a.json:
        a.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(f"by distance, finer slices change the mL by at most {worst:.0%} ({ALLOWED:.0%} are allowed)")
    sys.exit(worst > ALLOWED)


if __name__ == "__main__":
    main()
