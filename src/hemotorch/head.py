"""What bone encloses: the space inside the skull, and whether a scan shows a head at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from hemotorch.errors import InputError
from hemotorch.scan import Scan

BONE_HU = 220  #: above dense bleeding (at most about 100) and faint calcification, below any skull
TISSUE_HU = (-30, 110)  #: brain, its fluid spaces and bleeding
BODY_HU = -300  #: everything that is not air or lung
COARSE_MM = 2.0  #: pixel size at which a head is looked for
GAP_MM = 6.0  #: gaps in a bone ring that are closed: sutures, thin plates, fractures
HEAD_AREA_MM2 = 4000.0  #: soft tissue enclosed by bone on a head's fullest slice; an adult's is 10,000 and more
LARGEST_MM2 = 40_000.0  #: of the same; the largest heads have 25,000
HEIGHT_MM = (10.0, 600.0)  #: of the whole scan, if it has more than three slices
HEAD_SHARE = 0.35  #: of that slice's body; ribs and pelvis enclose less of a trunk, if anything
BRAIN_ML = (300.0, 2500.0)  #: of a skull-stripped scan


def enclosed(scan: Scan, pixel_mm: float | None = None, bone_hu: float = BONE_HU) -> np.ndarray:
    """(slices, rows, columns) bool: what bone encloses on each slice, bone itself left out.

    pixel_mm: the pixel size to assume where the scan's own is not known. bone_hu: what lies above it is bone.
    """
    iterations = max(1, round(GAP_MM / 2 / (pixel_mm or scan.pixel_mm[0])))
    out = np.zeros(scan.shape, bool)
    for i, hu in enumerate(scan.hu):
        bone = hu > bone_hu
        if bone.any():
            ring = np.pad(bone, iterations + 1)
            ring = ndimage.binary_closing(ring, _CROSS, iterations)
            inside = ndimage.binary_fill_holes(ring)[iterations + 1 : -iterations - 1, iterations + 1 : -iterations - 1]
            out[i] = inside & ~bone
    return out


_CROSS = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True)
class Doubt:
    """Why a scan may not be a head; `may_be_head` where predicting is still sensible."""

    text: str
    may_be_head: bool


def check_head(scan: Scan, any_anatomy: bool) -> tuple[str, ...]:
    """Refuses a scan that does not look like a head in HU; preparing and predicting both ask here.

    Args:
        scan: as it was read.
        any_anatomy: take such scans too, with a warning.

    Returns:
        Warnings: what is doubtful about a scan that is taken nevertheless.

    Raises:
        InputError: if the scan does not look like a head CT, and `any_anatomy` is false.
    """
    doubt = why_not_a_head(scan)
    if doubt is None:
        return ()
    if any_anatomy or doubt.may_be_head:
        return (doubt.text,)
    where = str(scan.source or scan.name)
    raise InputError(f"does not look like a head CT: {doubt.text}", where, "if it is, add --any-anatomy")


def why_not_a_head(scan: Scan) -> Doubt | None:
    """Doubt about a scan being a head CT, or None. Scans without known spacing are not doubted.

    The greys of a PNG end at the top of its window, often at 100 HU. There bone is what reaches the top.
    """
    if not scan.spacing_known:
        return None
    height = scan.height_mm
    if len(scan.hu) > 3 and not HEIGHT_MM[0] < height < HEIGHT_MM[1]:
        return Doubt(
            f"its {len(scan.hu)} slices are {height:.4g} mm high together: is its slice distance right?", False
        )
    bone_hu = _bone_hu(scan)
    coarse = _coarse(scan, bone_hu)
    area = coarse.pixel_mm[0] * coarse.pixel_mm[1]
    tissue = (coarse.hu > TISSUE_HU[0]) & (coarse.hu < TISSUE_HU[1])
    body = coarse.hu > BODY_HU
    if not (coarse.hu > bone_hu).sum() * area > 500:
        # Skull-stripped volumes are filled with 0, which must not count as tissue.
        dense = (coarse.hu > 5).sum((1, 2))
        brain_ml = float((dense * np.nan_to_num(coarse.shares_mm, nan=5.0)).sum() * area / 1000)
        brain_like = (tissue & (coarse.hu > 5)).sum() > 0.9 * dense.sum() and BRAIN_ML[0] < brain_ml < BRAIN_ML[1]
        if brain_like:
            return Doubt("no skull in this scan (skull-stripped?): networks are trained on heads with a skull", True)
        return Doubt("no bone in this scan", False)
    inside = enclosed(coarse, bone_hu=bone_hu) & tissue
    areas = np.array([_largest(part) for part in inside]) * area
    best = int(areas.argmax())
    share = areas[best] / max(1.0, float(body[best].sum() * area))
    if areas[best] > LARGEST_MM2:
        text = f"{areas[best] / 100:.4g} cm2 of soft tissue lie inside bone on a slice: is its pixel size right?"
        return Doubt(text, False)
    if areas[best] < HEAD_AREA_MM2 or share < HEAD_SHARE:
        return Doubt(
            f"at most {areas[best] / 100:.0f} cm2 of soft tissue lie inside bone on any slice "
            f"({100 * share:.0f} % of the body there)",
            False,
        )
    return None


def _bone_hu(scan: Scan) -> float:
    """HU above which lies bone: BONE_HU, or just below the top of a PNG's window that clips bone."""
    is_png = scan.source is not None and scan.source.format == "png"
    top = float(scan.hu.max())
    if is_png and top <= BONE_HU:
        return top - 1
    return BONE_HU


def _coarse(scan: Scan, bone_hu: float) -> Scan:
    """Every n-th row and column, so that pixels measure about 2 mm."""
    rows, columns = (
        min(length, max(1, round(COARSE_MM / mm))) for mm, length in zip(scan.pixel_mm, scan.shape[1:], strict=True)
    )
    # Bone is thin: keep the brightest of the rows and columns that are left out.
    hu = scan.hu[:, : scan.shape[1] // rows * rows, : scan.shape[2] // columns * columns]
    hu = hu.reshape(len(hu), scan.shape[1] // rows, rows, scan.shape[2] // columns, columns)
    bright, plain = hu.max((2, 4)), hu[:, :, rows // 2, :, columns // 2]
    merged = np.where(bright > bone_hu, bright, plain)
    return Scan(merged, scan.slice_origins_mm, scan.row_step_mm * rows, scan.column_step_mm * columns, scan.name)


def _largest(mask: np.ndarray) -> int:
    labels, count = ndimage.label(mask)
    return int(np.bincount(labels.ravel())[1:].max()) if count else 0
