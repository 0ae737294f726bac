"""Seconds and MB of the records, pseudonyms, table and list of many studies.

python benchmarks/study_records.py --studies 10000
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from pathlib import Path

from hemotorch import NOTICE
from hemotorch.inference.pseudonyms import KEY_FILE, Pseudonyms
from hemotorch.inference.study import StudyRecord
from hemotorch.io import dicom
from hemotorch.labels import TYPES
from hemotorch.report.study_list import TABLE, StudyList
from hemotorch.scan import Doubt
from hemotorch.system import records


def record(name: str, patient: str, choice: random.Random) -> StudyRecord:
    """A record as long as real ones are."""
    types = {kind: round(choice.uniform(0, 20), 3) for kind in TYPES}
    doubts = [Doubt("shading", "its brain is shaded: its level differs by 14 HU from place to place", 14.0, "HU")]
    return StudyRecord(
        scan=(),
        volume_ml={"total": round(sum(types.values()), 3), **types},
        hemotorch="0.1.0",
        notice=NOTICE,
        name=name,
        patient=patient,
        source_digest="0" * 64,
        interval_ml=(1.0, 60.0),
        doubts=tuple(doubts[: choice.randrange(2)]),
        slices=32,
        slices_with_bleeding=tuple(range(8, 20)),
        warnings=("series 3 was chosen: of 3 that can be read, it is thicker; the next best is series 4",) * 2,
        model="typed, 4,000 steps",
        model_digest="1" * 64,
        card="x" * 800,
        seconds={"prepare": 0.1, "network": 0.4, "mask": 0.1, "doubts": 0.1, "read": 0.2, "write": 0.4},
        sha256={f"{name}{ending}": "2" * 64 for ending in ("_mask.nii.gz", ".png", "_seg.dcm", ".html")},
    )


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=10_000)
    count = parser.parse_args().studies
    choice = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        pseudonyms = Pseudonyms(folder)
        for number in range(count):
            patient = number * 2 // 3  # some have two studies
            identity = dicom.Identity(f"1.2.{number}", f"ID{patient}", "A^B", "19500101", "20240101", f"{number:06}")
            known = pseudonyms.of(identity, folder / "cd" / str(number))
            records.write(folder / f"{known.study}.json", record(known.study, known.patient, choice))
        pseudonyms.save()
        print(f"| {count} records and pseudonyms written | {time.perf_counter() - start:.1f} s | |")
        start = time.perf_counter()
        again = Pseudonyms(folder)
        for path in folder.glob("study-*.json"):
            again.earlier(path.stem)
        size = (folder / KEY_FILE).stat().st_size / 1e6
        print(
            f"| pseudonyms read, earlier studies of each found | {time.perf_counter() - start:.1f} s | {size:.1f} MB |"
        )
        start = time.perf_counter()
        studies = StudyList(folder)
        print(f"| all records read | {time.perf_counter() - start:.1f} s | |")
        start = time.perf_counter()
        index = studies.write()
        sizes = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.1f}" for path in (folder / TABLE, index))
        print(f"| table and list written | {time.perf_counter() - start:.1f} s | {sizes} MB |")
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"| whole process | | {peak_mb:.0f} MB of memory |")


if __name__ == "__main__":
    main()
