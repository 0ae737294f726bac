"""What writing for a PACS takes: SEG, structured report and secondary capture of a scan of 512 x 512 x 32 in DICOM.

    python benchmarks/dicom_out.py

The scan is a synthetic head with bleeding of all five types on half of its slices. Prints a Markdown table: CPU seconds
of the first scan of a process, in which highdicom is imported and reads its tables of the standard, and of the next
one; MB of the files. For memory, run a whole `hemotorch predict` under `/usr/bin/time -v`, with and without
`--no-dicom`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hemotorch.inference.predictor import volumes_ml
from hemotorch.io import dicom, read_scan
from hemotorch.io.dicom.write import write_series
from hemotorch.scan import Prediction, Scan, even_scan
from hemotorch.task import TYPED

SHAPE = (32, 512, 512)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        write_series(_head(), study)
        # A process of its own, in which nothing was imported for writing the study.
        subprocess.run([sys.executable, __file__, str(study)], check=True)


def _measure(study: Path) -> None:
    scan = read_scan(study)
    prediction = _prediction(scan)
    seconds = []
    for name in ("first", "next"):
        start = time.process_time()
        files = dicom.write_dicom(prediction, study.parent, name, "0").files
        seconds.append(time.process_time() - start)
    sizes = " | ".join(f"{path.stat().st_size / 1e6:.1f}" for path in files.values())
    print("| first, CPU s | next, CPU s | SEG MB | SR MB | SC MB |\n| --- | --- | --- | --- | --- |")
    print(f"| {seconds[0]:.2f} | {seconds[1]:.2f} | {sizes} |")


def _head() -> Scan:
    """A round head of brain and skull with noise."""
    _, rows, columns = SHAPE
    radius = np.hypot(*(np.indices((rows, columns)) - 256))
    hu = np.where(radius < 190, 35.0, np.where(radius < 205, 1000.0, -1000.0))
    noise = np.random.default_rng(0).normal(0, 5, SHAPE)
    return even_scan(np.rint(hu + noise).astype(np.int16), 0.45, 5.0)


def _prediction(scan: Scan) -> Prediction:
    """Five balls beside each other on half of the slices."""
    mask = np.zeros(scan.shape, np.uint8)
    rows, columns = np.indices(scan.shape[1:])
    for code in range(1, 6):
        mask[8:24, np.hypot(rows - 256, columns - 60 - 65 * code) < 25] = code
    return Prediction(scan, mask, None, volumes_ml(scan, mask, TYPED), "synthetic", task=TYPED)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _measure(Path(sys.argv[1]))
    else:
        main()
