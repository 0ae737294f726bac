"""The phantom's bleeding painted into a scan of someone else, a real one above all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from hemotorch.errors import InputError
from hemotorch.head import enclosed
from hemotorch.labels import TYPES
from hemotorch.phantom import lesions as bleeding
from hemotorch.phantom import sample_lesions
from hemotorch.phantom.anatomy import DOME_AXES, DOME_CENTRE, Patient
from hemotorch.phantom.brain import GREY, Brain, Inside
from hemotorch.phantom.fields import Array, Points, generator
from hemotorch.phantom.lesions import Lesion
from hemotorch.scan import Scan

LAYERS = 3  #: a slice's partial volume is the mean over so many layers
EDGE_MM, CALM_MM = 1.0, 1.3  #: blur of the painted edges, and of the scan to tell its own tissue apart
BRAIN_HU = (5, 70)  #: where the level of the brain is looked for
EDGE_HU, EDGE_ZONE_MM = 95, 4.0  #: brighter than this, so near the skull, is taken for partial bone
LOW = 9.0  #: HU under the brain's level at which a calm voxel is half fluid
FULL_SIZE_MM2 = 6000.0  #: least area inside the skull on its fullest slice


def paint(
    scan: Scan, lesions: list[Lesion] | None = None, seed: int = 0, leading: str | None = None
) -> tuple[Scan, np.ndarray]:
    """Paints bleeding into a scan. Its own noise stays; the brain is not displaced.

    Args:
        scan: what is painted into. Its low densities are taken for fluid.
        lesions: in the phantom's frame, which is fitted to the box of the space inside the skull; by default random.
        seed: of random lesions.
        leading: the type that leads them; by default a random one.

    Returns:
        The new scan, and its typed mask (slices, rows, columns) uint8.

    Raises:
        InputError: for a scan without a head's skull or spacing.
    """
    if not scan.spacing_known or len(scan.hu) < 2:
        what = "bleeding can be painted only if the distances between pixels and slices are known"
        raise InputError(what, scan.name)
    rng = generator(seed, 0xB1EED)
    if lesions is None:
        lesions = sample_lesions.sample_bleeding(rng, leading or str(rng.choice(TYPES)))
    inside = enclosed(scan)
    row_mm, column_mm = scan.pixel_mm
    if inside.sum(axis=(1, 2)).max() * row_mm * column_mm < FULL_SIZE_MM2:
        raise InputError("no skull encloses a brain in this scan, so that there is nowhere to bleed", scan.name)
    frame = _Frame.fit(scan, inside)
    sigma = (0, CALM_MM / row_mm, CALM_MM / column_mm)
    calm = ndimage.gaussian_filter(np.clip(scan.hu, -200, 300).astype(np.float32), sigma)
    brain_like = inside & (calm > BRAIN_HU[0]) & (calm < BRAIN_HU[1])
    level = float(np.median(calm[brain_like])) - (GREY - 4.0)
    depth = _depth(scan, inside)
    # Voxels that share bone at the skull's edge stay as they are.
    inside &= (scan.hu < EDGE_HU) | (depth > EDGE_ZONE_MM)
    change, shares = _rendered(lesions, scan, frame, inside, depth, calm - level)
    soft = (0, EDGE_MM / 2 / row_mm, EDGE_MM / 2 / column_mm)
    change = ndimage.gaussian_filter(change, soft)
    hu = np.rint(np.clip(scan.hu + change, -1024, 3071)).astype(np.int16)
    mask = bleeding.typed_mask(shares, scan.shape)
    warnings = (*scan.warnings, "synthetic bleeding was painted into it")
    return replace(scan, hu=hu, source=None, warnings=warnings), mask


class _Frame:
    """The phantom's frame fitted to a scan: millimetres of the scan to millimetres of `Points`, axis by axis."""

    def __init__(self, centre: Array, scale: Array, top: float):
        self.centre, self.scale, self.top = centre, scale, top

    @staticmethod
    def fit(scan: Scan, inside: np.ndarray) -> _Frame:
        """From the box of the space inside the skull on the fullest slices, and from its top."""
        areas = inside.sum(axis=(1, 2))
        heights = (scan.slice_origins_mm @ scan.normal).astype(np.float32)
        full = np.flatnonzero(areas > 0.8 * areas.max())
        rows = np.flatnonzero(inside[full].any(axis=(0, 2)))
        columns = np.flatnonzero(inside[full].any(axis=(0, 1)))
        row_mm, column_mm = scan.pixel_mm
        half = np.array([np.ptp(columns) * column_mm, np.ptp(rows) * row_mm]) / 2
        top = float(heights[np.flatnonzero(areas > 0.05 * areas.max())[-1]])
        scale = np.array([half[0] / DOME_AXES[0], half[1] / DOME_AXES[1], 0.0])
        scale[2] = float(np.clip(scale[:2].mean(), 0.85, 1.15))
        return _Frame(np.array([columns.mean(), rows.mean()]), scale, top)

    def points(self, scan: Scan, k: int, pixels: tuple[Array, Array], offset: float) -> Points:
        """The positions of pixels (rows, columns) of slice k, `offset` slices above its middle."""
        row_mm, column_mm = scan.pixel_mm
        height = float(scan.slice_origins_mm[k] @ scan.normal) + offset * float(scan.shares_mm[k])
        x = (self.centre[0] - pixels[1]) * column_mm / self.scale[0] + DOME_CENTRE[0]
        y = (self.centre[1] - pixels[0]) * row_mm / self.scale[1] + DOME_CENTRE[1]
        z = np.full(len(x), (height - self.top) / self.scale[2] + DOME_CENTRE[2] + DOME_AXES[2])
        return Points(x.astype(np.float32), y.astype(np.float32), z.astype(np.float32), max(column_mm, 1.0))


def _depth(scan: Scan, inside: np.ndarray) -> Array:
    """Millimetres under the inner table, 0 outside; computed in the box of the space inside the skull."""
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    spacing = (float(np.median(scan.shares_mm)), *scan.pixel_mm)
    padded = np.pad(inside[box], 1)
    depth = np.zeros(scan.shape, np.float32)
    within = ndimage.distance_transform_edt(padded, spacing)[1:-1, 1:-1, 1:-1]
    depth[box] = np.maximum(within - scan.pixel_mm[0] / 2, 0)
    return depth


def _rendered(
    lesions: list[Lesion], scan: Scan, frame: _Frame, inside: np.ndarray, depth: Array, calm: Array
) -> tuple[Array, dict[int, Array]]:
    """Change in HU and shares of blood, (slices, rows, columns) float32 each. calm: HU at the phantom's own level."""
    fluid = np.clip((GREY - 4.0 - calm) / np.float32(2 * LOW), 0, 1) * (calm > -20) * inside
    inner = Inside(Patient.sample(generator(0)))
    change = np.zeros(scan.shape, np.float32)
    shares = {lesion.code: np.zeros(scan.shape, np.float32) for lesion in lesions if lesion.code}
    for k in range(len(scan.hu)):
        rows, columns = np.nonzero(inside[k])
        if not len(rows):
            continue
        pixels = (rows, columns)
        before = calm[k][pixels]
        for layer in range(LAYERS):
            offset = (layer + 0.5) / LAYERS - 0.5
            p = frame.points(scan, k, pixels, offset)
            near = min(max(k + (1 if offset > 0 else -1), 0), len(depth) - 1)
            deep = depth[k][pixels] * (1 - abs(offset)) + depth[near][pixels] * abs(offset)
            # Low density near the usual ventricles is taken for ventricle, all other for sulci and cisterns.
            template = inner.ventricles(p)
            wet = fluid[k][pixels]
            ventricle = np.where(template < 7, (0.5 - wet) * 2, 9).astype(np.float32)
            brain = Brain(p, p, deep, before.copy(), wet * (template >= 7), ventricle, inner.tent(p), deep)
            blood = bleeding.apply(lesions, brain)
            change[k][pixels] += (brain.hu - before) / LAYERS
            for code, share in blood.items():
                shares[code][k][pixels] += share / LAYERS
    return change, shares
