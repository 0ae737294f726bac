"""A prepared dataset as plain NIfTI files, the same for all contenders, and the split by patient beside them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from hemotorch.data.dataset import Dataset
from hemotorch.data.splits import PARTS
from hemotorch.evaluation.evaluate import slices_of, truth_of
from hemotorch.scan import Scan

SPLIT = "patient"
LOW_HU, HIGH_HU = -20.0, 100.0  #: the brain window, 40/120


def export(dataset: Dataset, out: Path) -> dict[str, dict[str, str]]:
    """Writes OUT/hu, OUT/brain and OUT/mask/ID.nii.gz and cases.json; again only where cases.json is another.

    Returns, a part of the split, the case of each ID. Voxels are stored as (columns, rows, slices), so that a
    reader's array turned round is a Scan's (slices, rows, columns).
    """
    split = dataset.split(SPLIT)
    ids = {case: f"case{number:03d}" for number, case in enumerate(dataset.cases)}
    parts = {part: {ids[case]: case for case in slices_of(dataset, split, part)} for part in PARTS}
    scans = [dataset.scan(case) for case in parts["train"].values()]
    about = {
        **parts,
        "digests": {case: dataset.digest(case) + dataset.mask_digest(case) for case in dataset.cases},
        "side_px": max(max(scan.shape[1:]) for scan in scans),
        "pixel_mm": float(np.median([scan.pixel_mm for scan in scans])),
    }
    listed = out / "cases.json"
    if listed.is_file() and json.loads(listed.read_text()) == about:
        return parts
    for kind in ("hu", "brain", "mask"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        for name, case in parts[part].items():
            scan = dataset.scan(case)
            truth = truth_of(dataset, case, split.part(part)[case])
            if truth is None:
                raise SystemExit(f"{case} has no mask")
            brain = np.clip((scan.hu - LOW_HU) / (HIGH_HU - LOW_HU), 0, 1).astype(np.float32)
            for kind, values in (("hu", scan.hu), ("brain", brain), ("mask", (truth > 0).astype(np.uint8))):
                image = nib.Nifti1Image(values.transpose(2, 1, 0), _affine(scan))
                nib.save(image, out / kind / f"{name}.nii.gz")
    listed.write_text(json.dumps(about, indent=1))
    return parts


def _affine(scan: Scan) -> np.ndarray:
    """Right is x, front is y: columns run to the left, rows to the back. Gantry tilt is left out."""
    row_mm, column_mm = scan.pixel_mm
    slice_mm = float(np.median(scan.slice_distances_mm)) if len(scan.hu) > 1 else 1.0
    return np.diag([-column_mm, -row_mm, slice_mm, 1.0])
