"""What the model in the box is trained on: its sources, by the beginning of their scans' names once prepared."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Where scans of a training come from.

    text, licence: of its scans. synthetic: what of them is. folder: in the folder of openly licensed scans; "" if
    hemotorch makes them. per_scan: paintings of each scan. shows: beginnings of the figures of `table_b` that are
    measured on the same head.
    """

    text: str
    licence: str
    synthetic: str
    folder: str = ""
    per_scan: int = 0
    shows: tuple[str, ...] = ()


PAINTED = "the bleeding; the head is real"
SOURCES = {
    "phantom": Source("heads of `hemotorch phantom --preset default`", "Apache-2.0", "all of it"),
    "ge-nifti": Source(
        "neurolabusc/dcm_qa_ct, one GE head, as NIfTI",
        "BSD-2-Clause",
        f"{PAINTED}, and is the one that painted1 to painted6 were made from",
        "head-ct-nifti",
        48,
        ("GE head", "painted"),
    ),
    "ge-dicom": Source(
        "neurolabusc/dcm_qa_ct, the same GE head, as DICOM",
        "BSD-2-Clause",
        PAINTED,
        "head-ct-ge/dicom",
        16,
        ("GE head", "painted"),
    ),
    "philips": Source(
        "TCGA-THCA of The Cancer Imaging Archive, 30 slices of a Philips neck series, contrast given",
        "CC BY 3.0",
        PAINTED,
        "head-ct-philips-partial/dicom",
        16,
        ("Philips",),
    ),
    "slab": Source(
        "fast-radiology/hydrocephalus, four slices of one head", "MIT", PAINTED, "head-ct-slab/dicom", 16, ("slab",)
    ),
}
