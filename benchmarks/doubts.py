"""Which predictions are doubted: phantoms as they are and changed, and what is outlined wrongly in them.

    python benchmarks/doubts.py MODEL [--patients 12] [--seed 11] [--out doubts.jsonl]

Each phantom is predicted as it is and after each of the CHANGES. A prediction is wrong if more than 5 mL are outlined
farther than 3 mm from any bleeding. Printed are how many of the wrong ones are doubted, and how many of the others are,
by change and by code.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from hemotorch import load_model
from hemotorch.errors import InputError
from hemotorch.phantom import PRESETS, Preset, make_case
from hemotorch.phantom.presets import VARIED, Chances
from hemotorch.scan import Scan

WRONG_ML, EDGE_MM = 5.0, 3.0

Changed = tuple[Scan, np.ndarray]  #: a scan and its true mask
Change = Callable[[Scan, np.ndarray, np.random.Generator], Changed]


def soft(scan: Scan, added: Any) -> Scan:
    """The scan with HU added to its soft tissue."""
    hu = scan.hu + np.rint(added * ((scan.hu > -200) & (scan.hu < 300)))
    return replace(scan, hu=np.clip(hu, -1024, 3071).astype(np.int16))


def slices(scan: Scan, mask: np.ndarray, first: int, last: int) -> Changed:
    """Some neighbouring slices of a scan."""
    origins, numbers = scan.slice_origins_mm[first:last], scan.slice_numbers[first:last]
    part = replace(scan, hu=scan.hu[first:last], slice_origins_mm=origins, slice_numbers=numbers, source=None)
    return part, mask[first:last]


def level(hu: float) -> Change:
    """Darker or brighter."""
    return lambda scan, mask, rng: (soft(scan, hu), mask)


def to_the_back(hu: float) -> Change:
    """Brighter and brighter toward the back."""
    return lambda scan, mask, rng: (soft(scan, np.linspace(-hu, hu, scan.shape[1])[None, :, None]), mask)


def patchy(hu: float) -> Change:
    """A smooth random field."""

    def change(scan: Scan, mask: np.ndarray, rng: np.random.Generator) -> Changed:
        shape = scan.shape[1:]
        nodes = rng.normal(0, hu, (4, 4))
        at = np.meshgrid(*(np.linspace(0, 3, side) for side in shape), indexing="ij")
        return soft(scan, ndimage.map_coordinates(nodes, at, order=3, mode="nearest")[None]), mask

    return change


def noise(hu: float) -> Change:
    """More noise."""
    return lambda scan, mask, rng: (soft(scan, rng.normal(0, hu, scan.shape)), mask)


def thick(scan: Scan, mask: np.ndarray, rng: np.random.Generator) -> Changed:
    """Every two slices averaged."""
    even = len(scan.hu) // 2 * 2
    hu = scan.hu[:even].reshape(-1, 2, *scan.shape[1:]).mean(1).round().astype(np.int16)
    origins = scan.slice_origins_mm[:even].reshape(-1, 2, 3).mean(1)
    merged = replace(scan, hu=hu, slice_origins_mm=origins, slice_numbers=scan.slice_numbers[:even:2], source=None)
    return merged, mask[:even].reshape(-1, 2, *scan.shape[1:]).max(1)


def turned(scan: Scan, mask: np.ndarray, rng: np.random.Generator) -> Changed:
    """The head turned by 35 degrees."""
    hu = ndimage.rotate(scan.hu, 35, (1, 2), reshape=False, order=1, cval=-1024)
    return replace(scan, hu=hu), ndimage.rotate(mask, 35, (1, 2), reshape=False, order=0)


def scaled(factor: float) -> Change:
    """HU on another scale."""

    def change(scan: Scan, mask: np.ndarray, rng: np.random.Generator) -> Changed:
        hu = np.clip((scan.hu + 1024.0) * factor - 1024, -1024, 3071) if factor > 1 else scan.hu * factor
        return replace(scan, hu=hu.round().astype(np.int16)), mask

    return change


def prone(scan: Scan, mask: np.ndarray, rng: np.random.Generator) -> Changed:
    """Front and back exchanged, as a header that is wrong does."""
    return replace(scan, hu=scan.hu[:, ::-1].copy()), mask[:, ::-1]


CHANGES: dict[str, Change] = {
    "as it is": level(0),
    "20 HU darker": level(-20),
    "15 HU brighter": level(15),
    "30 HU brighter": level(30),
    "shaded to the back, 15 HU": to_the_back(15),
    "shaded in patches, 15 HU": patchy(15),
    "noise of 15 HU": noise(15),
    "noise of 30 HU": noise(30),
    "slices twice as thick": thick,
    "the lower half": lambda scan, mask, rng: slices(scan, mask, 0, len(scan.hu) // 2),
    "six slices": lambda scan, mask, rng: slices(scan, mask, len(scan.hu) // 2 - 3, len(scan.hu) // 2 + 3),
    "turned by 35 degrees": turned,
    "HU halved": scaled(0.5),
    "front and back exchanged": prone,
}

#: What is made by another scanner or of another head; each phantom is predicted once.
PHANTOMS: dict[str, Preset] = {
    "contrast given": replace(PRESETS["small"], chances=Chances(contrast=1.0)),
    "what is mistaken for bleeding": replace(PRESETS["small"], chances=VARIED),
}


def wrong_ml(scan: Scan, outlined: np.ndarray, truth: np.ndarray) -> float:
    """mL that are outlined farther than EDGE_MM from any bleeding, in plane."""
    far = [
        ndimage.distance_transform_edt(true == 0, scan.pixel_mm) > EDGE_MM if true.any() else np.ones(true.shape, bool)
        for true in truth
    ]
    return scan.volume_ml((outlined > 0) & np.stack(far))


def judged(predictor: Any, change: str, scan: Scan, truth: np.ndarray) -> dict[str, Any]:
    """One prediction."""
    try:
        result = predictor.predict(scan, any_anatomy=False, doubts=True)
    except InputError:
        return {"change": change, "scan": scan.name, "refused": True}
    return {
        "change": change,
        "scan": scan.name,
        "bleeds_ml": round(scan.volume_ml(truth > 0), 1),
        "outlined_ml": round(result.volume_ml["total"], 1),
        "false_ml": round(scan.volume_ml((result.mask > 0) & (truth == 0)), 1),
        "wrong_ml": round(wrong_ml(scan, result.mask, truth), 1),
        "interval_ml": result.interval_ml,
        "doubts": {doubt.code: doubt.value for doubt in result.doubts or ()},
        "seconds": result.seconds,
    }


def shown(rows: list[dict[str, Any]]) -> str:
    """The table: by change and by how much is wrong, how many predictions are doubted, and of how many."""
    lines = [
        "| change | over 5 mL wrong | 1 to 5 mL wrong | under 1 mL wrong | the most frequent doubts |",
        "| - " * 5 + "|",
    ]
    for change in [*dict.fromkeys(row["change"] for row in rows), "all"]:
        chosen = [row for row in rows if change in ("all", row["change"])]
        taken = [row for row in chosen if "refused" not in row]
        cells = []
        for low, high in ((WRONG_ML, np.inf), (1.0, WRONG_ML), (-1.0, 1.0)):
            part = [row for row in taken if low < row["wrong_ml"] <= high]
            cells.append(f"{sum(bool(row['doubts']) for row in part)} of {len(part)}")
        codes = Counter(code for row in taken for code in row["doubts"]).most_common(4)
        refused = [f"{len(chosen) - len(taken)} refused"] if len(taken) < len(chosen) else []
        text = ", ".join([*(f"{code} {count}" for code, count in codes), *refused])
        lines.append(f"| {change} | {' | '.join(cells)} | {text} |")
    spent = sum(row["seconds"]["doubts"] for row in rows if "seconds" in row)
    whole = sum(sum(row["seconds"].values()) for row in rows if "seconds" in row)
    return "\n".join([*lines, f"\nlooking for doubts adds {100 * spent / (whole - spent):.0f} % to the time"])


def main() -> None:
    """Predicts all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path, help="a line of JSON per prediction")
    options = parser.parse_args()
    predictor = load_model(options.model)
    rows = []
    for index in range(options.patients):
        case = make_case("small", index, options.seed)
        scans = [
            (name, *change(case.scan, case.mask, np.random.default_rng(index))) for name, change in CHANGES.items()
        ]
        for name, preset in PHANTOMS.items():
            other = make_case(preset, index, options.seed + 1)
            scans.append((name, other.scan, other.mask))
        rows += [judged(predictor, *each) for each in scans]
        if options.out:
            options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(shown(rows))


if __name__ == "__main__":
    main()
