"""What a typed model finds in real heads without bleeding, in heads with painted bleeding, and in phantoms.

    python benchmarks/table_b.py MODEL... [--data ../shared/data] [--only heads painted phantoms thin] [--json FILE]

MODEL is a run folder, a checkpoint or an ONNX file; several are averaged; without one the model in the box is
measured. OMP_NUM_THREADS sets the threads.
The phantoms are those of `hemotorch phantom CACHE/phantoms --preset small --seed 7 --layout folder`, prepared in
CACHE/prepared; both are made once. Prints a row per figure with what is asked of the model in the box, and writes them
to FILE. The exit status says whether all of them are met.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from thin_slices import dice, finer

from hemotorch.inference.load import load_model
from hemotorch.inference.predictor import Predictor
from hemotorch.io import read_mask, read_scan
from hemotorch.labels import CODES

PARTS = ("heads", "painted", "phantoms", "thin")
CACHE = Path("runs") / "table_b"
#: Real heads without bleeding: name, folder in the data, the most mL that may be found.
CLEAN = (
    ("GE head", "head-ct-ge/dicom", 1.0),
    ("GE head as NIfTI", "head-ct-nifti/head.nii.gz", 1.0),
    ("Philips part", "head-ct-philips-partial/dicom", 1.0),
    ("slab", "head-ct-slab/dicom", 1.0),
)
#: Heads with painted bleeding: name, folder, least Dice, aim.
PAINTED = (
    ("painted1", "head-ct-painted", 0.75, 0.85),
    ("painted3", "head-ct-painted", 0.88, 0.92),
    ("painted5", "head-ct-painted-2", 0.80, 0.90),
    ("painted6", "head-ct-painted-2", 0.88, 0.93),
)
#: Types whose share found is asked for, and in which heads they are.
SHARES = {"painted5": ("subdural",), "painted6": ("epidural", "subarachnoid")}
THIN = ("painted1", "painted3")
TIMES = 8  #: times as many slices: 0.65 mm in place of 5.24


@dataclass(frozen=True)
class Figure:
    """One measured figure. least, aim: what is asked for, as a bound from below, or from above if `most` says so.

    part: of the table. ci95: the interval over patients, none for a single head. unit: "" for a number without one.
    """

    part: str
    what: str
    value: float
    unit: str = ""
    least: float | None = None
    aim: float | None = None
    most: bool = False
    ci95: tuple[float, float] | None = None
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether it is as good as is asked for; a figure of which nothing is asked is."""
        if self.least is None:
            return True
        return self.value <= self.least if self.most else self.value >= self.least

    def text(self) -> str:
        """Its value, and the interval if it has one."""
        if self.ci95 is None:
            return self.number(self.value)
        return f"{self.number(self.value)} ({self.number(self.ci95[0])} to {self.number(self.ci95[1])})"

    def asked(self) -> str:
        """What is asked for; nothing of some."""
        if self.least is None:
            return ""
        return f"{'at most' if self.most else 'at least'} {self.number(self.least)}"

    def row(self) -> str:
        """The figure as a row of a Markdown table."""
        aim = "" if self.aim is None else self.number(self.aim)
        return (
            f"| {self.what} | {self.text()} | {self.asked()} | {aim} | {'' if self.met else 'MISSED'} | {self.note} |"
        )

    def number(self, value: float) -> str:
        """A value of its kind as text."""
        if math.isnan(value):
            return "undefined"
        if self.unit == "%":
            return f"{value:.1%}"
        return f"{value:.1f} {self.unit}" if self.unit else f"{value:.3f}"


def clean_heads(predictor: Predictor, data: Path) -> Iterator[Figure]:
    """mL found in real heads that hold no bleeding, and the doubts that go with them."""
    for name, path, most in CLEAN:
        # The parts of heads are no whole heads, and are to be predicted all the same.
        prediction = predictor.predict(read_scan(data / path), any_anatomy=True, doubts=True)
        ml = prediction.volume_ml["total"]
        doubts = ", ".join(doubt.code for doubt in prediction.doubts or ())
        note = f"doubts: {doubts}" if doubts else "no doubt"
        yield Figure("heads", f"{name}, no bleeding: found", ml, "mL", most, 0.0, most=True, note=note)


def painted_heads(predictor: Predictor, data: Path) -> Iterator[Figure]:
    """Dice of all bleeding and the share found of each type in heads with painted bleeding."""
    for name, folder, least, aim in PAINTED:
        scan = read_scan(data / folder / f"{name}.nii.gz")
        truth = read_mask(data / folder / f"{name}_mask.nii.gz", scan)
        prediction = predictor.predict(scan)
        mask = prediction.mask > 0
        note = f"{scan.volume_ml(mask):.1f} mL of {scan.volume_ml(truth):.1f}, "
        note += f"{scan.volume_ml(mask & (truth == 0)):.1f} mL beside it"
        yield Figure("painted", f"{name}: Dice", dice(prediction.mask, truth), "", least, aim, note=note)
        for kind, code in CODES.items():
            voxels = truth == code
            if voxels.any():
                asked = kind in SHARES.get(name, ())
                of_type = f"Dice as {kind} {dice(prediction.mask == code, voxels):.2f}"
                bounds = (0.6, 0.85) if asked else (None, None)
                yield Figure("painted", f"{name}: {kind} found", float(mask[voxels].mean()), "", *bounds, note=of_type)


def thin_slices(predictor: Predictor, data: Path) -> Iterator[Figure]:
    """How far mL in slices of 0.65 mm are from those in the same head's slices of 5.24 mm."""
    for name in THIN:
        folder = data / "head-ct-painted"
        scan = read_scan(folder / f"{name}.nii.gz")
        own_ml = predictor.predict(scan).volume_ml["total"]
        thin, _ = finer(scan, np.zeros(scan.shape, np.uint8), TIMES)
        ml = predictor.predict(thin).volume_ml["total"]
        change = abs(ml / own_ml - 1) if own_ml else math.nan
        note = f"{ml:.1f} mL, {own_ml:.1f} in its own slices"
        yield Figure("thin", f"{name} in slices of 0.65 mm: mL differ", change, "%", 0.15, 0.05, most=True, note=note)


def phantoms(predictor: Predictor, cache: Path) -> Iterator[Figure]:
    """Dice over the phantoms of `small --seed 7`, and how many normal ones stay clean."""
    from hemotorch.data.dataset import EVERYTHING, Dataset
    from hemotorch.evaluation.evaluate import evaluate
    from hemotorch.evaluation.over_scans import share_over

    dataset = Dataset(_prepared_phantoms(cache))
    scores = evaluate(predictor, dataset, dataset.split(EVERYTHING), "train", baseline=None, examples=False)
    summary = scores.summary
    mean = summary["dice"]["scan"]
    note = f"{mean['n']} scans with bleeding"
    yield Figure(
        "phantoms", "phantoms: Dice per scan", mean["mean"], "", 0.75, 0.85, ci95=_pair(mean["ci95"]), note=note
    )
    if "macro" in summary:
        macro = summary["macro"]
        note = f"{macro['types']} types"
        interval = _pair(macro["ci95"])
        yield Figure(
            "phantoms", "phantoms: macro Dice over types", macro["dice"], "", 0.5, 0.65, ci95=interval, note=note
        )
    normal = [scan.compared(scan.network) for scan in scores.scans if not scan.network.bleeding]
    share, interval = share_over(normal, lambda scan: float(scan.comparison.predicted_ml == 0), lambda _: 1.0, 0)
    note = f"{len(normal)} normal phantoms"
    yield Figure("phantoms", "normal phantoms left clean", share, "%", 0.8, 0.95, ci95=_pair(interval), note=note)
    for name, values in summary.get("types", {}).items():
        note = f"Dice {values['dice']['mean']:.2f}" if "dice" in values else ""
        found = values["sensitivity"]
        yield Figure("phantoms", f"phantoms: {name} found", found, ci95=_pair(values["ci95"]), note=note)


def _prepared_phantoms(cache: Path) -> Path:
    from hemotorch.data.phantom_folders import write_phantom
    from hemotorch.data.prepare import prepare

    prepared = cache / "prepared"
    if not (prepared / "splits.json").exists():
        write_phantom(cache / "phantoms", "small", seed=7, layout="folder")
        prepare(cache / "phantoms", prepared)
    return prepared


def _pair(values: Sequence[float]) -> tuple[float, float]:
    low, high = values
    return low, high


def measure(predictor: Predictor, data: Path, cache: Path, parts: Sequence[str] = PARTS) -> Iterator[Figure]:
    """The figures of the table, as they are measured."""
    if "heads" in parts:
        yield from clean_heads(predictor, data)
    if "painted" in parts:
        yield from painted_heads(predictor, data)
    if "phantoms" in parts:
        yield from phantoms(predictor, cache)
    if "thin" in parts:
        yield from thin_slices(predictor, data)


def main() -> None:
    """Prints a row per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="*", type=Path)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help="for the phantoms")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts of the table")
    parser.add_argument("--json", type=Path, metavar="FILE")
    a = parser.parse_args()
    predictor = load_model(a.model or None)
    began = time.perf_counter()
    print(
        f"{predictor.deployment.model}\n\n| figure | value | asked | aim | | |\n| --- | --- | --- | --- | --- | --- |"
    )
    figures = []
    for figure in measure(predictor, a.data, a.cache, a.only):
        figures.append(figure)
        print(figure.row(), flush=True)
    missed = sum(not figure.met for figure in figures)
    print(f"\n{missed} of {len(figures)} figures are missed; {time.perf_counter() - began:.0f} s")
    if a.json:
        values = {"model": predictor.deployment.model, "sha256": predictor.digest}
        values["figures"] = [asdict(figure) for figure in figures]
        a.json.write_text(json.dumps(values, indent=1), encoding="utf-8")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
