"""The phantom's bleeding painted into a scan of someone else, a real one above all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from hemotorch.errors import InputError
from hemotorch.head import depth_mm, enclosed
from hemotorch.head.tissue import brain_level
from hemotorch.labels import TYPES
from hemotorch.phantom import lesions as bleeding
from hemotorch.phantom import sample_lesions
from hemotorch.phantom.anatomy import DOME_AXES, DOME_CENTRE, Patient
from hemotorch.phantom.brain import GREY, Brain, Inside
from hemotorch.phantom.fields import Array, Points, generator
from hemotorch.phantom.lesions import SURFACE_MM, Lesion
from hemotorch.scan import Scan

LAYERS = 3  #: a slice's partial volume is the mean over so many layers
EDGE_MM, CALM_MM = 1.0, 1.3  #: blur of the painted edges, and of the scan to tell its own tissue apart
#: By which an even brain's level varies: white matter around the ventricles. Taken for shading, a tenth to a quarter
#: less of the ventricles was found in a real head.
OWN_HU = 4.0
EDGE_HU, EDGE_ZONE_MM = 95, 4.0  #: brighter than this, so near the skull, is taken for partial bone
NEAR_MM, FAR_MM = 7.0, 22.0  #: of the phantom's ventricles, where those of a scan are looked for
DEEP_MM, MIDLINE_MM, BODY_MM = 24.0, 5.0, 8.0  #: deeper than sulci; beside the fissure; above the third ventricle
HORN_LOW_MM, HORN_FRONT_MM, HORN_MM = -8.0, 6.0, 14.0  #: frontal horns: lowest, hindmost, farthest from the phantom's
WHITE_DEEP_MM, WHITE_SIDE_MM = 18.0, 12.0  #: white matter: deep, and off the midline,
WHITE_ABOVE_MM, WHITE_FRONT_MM = 15.0, 22.0  #: above the insula or in front of it
LOW = 9.0  #: HU under the brain's level at which a calm voxel is half fluid
FULL_SIZE_MM2 = 6000.0  #: least area inside the skull on its fullest slice
PART_MM = 90.0  #: fewer millimetres of brain, from foot to head, are a part of a head
#: What is painted into a part: where its ventricles and cisterns lie cannot be told.
OF_PARTS = ("intraparenchymal", "epidural", "subdural")


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
    sampled = lesions is None
    if lesions is None:
        lesions = sample_lesions.sample_bleeding(rng, leading or str(rng.choice(TYPES)), wide=True)
    inside = enclosed(scan)
    row_mm, column_mm = scan.pixel_mm
    if inside.sum(axis=(1, 2)).max() * row_mm * column_mm < FULL_SIZE_MM2:
        raise InputError("no skull encloses a brain in this scan, so that there is nowhere to bleed", scan.name)
    frame = _Frame.fit(scan, inside)
    if sampled and _covered_mm(scan, inside) < PART_MM:
        lesions = [lesion for lesion in lesions if lesion.kind in OF_PARTS and lesion.site not in ("falx", "tentorium")]
        frame = frame.raised(scan, inside, lesions, rng)
    level = brain_level(scan)
    if level is None:
        raise InputError("what the skull encloses does not look like brain in HU", scan.name)
    depth = depth_mm(scan, inside)
    # Voxels that share bone at the skull's edge stay as they are.
    inside &= (scan.hu < EDGE_HU) | (depth > EDGE_ZONE_MM)
    calm = _calm(scan, inside)
    # Relative to the level of the brain around: blood in a shaded head is shaded too.
    for index in range(len(calm)):
        deviation = level.on_slice(index, scan.shape[1:]) - np.float32(level.median)
        shading = deviation - np.clip(deviation, -OWN_HU, OWN_HU)
        calm[index] -= shading + np.float32(level.median - (GREY - 4.0))
    change, shares = _rendered(lesions, scan, frame, inside, depth, calm)
    soft = (0, EDGE_MM / 2 / row_mm, EDGE_MM / 2 / column_mm)
    change = ndimage.gaussian_filter(change, soft)
    hu = np.rint(np.clip(scan.hu + change, -1024, 3071)).astype(np.int16)
    mask = bleeding.typed_mask(shares, scan.shape)
    warnings = (*scan.warnings, "synthetic bleeding was painted into it")
    return replace(scan, hu=hu, source=None, warnings=warnings), mask


def _covered_mm(scan: Scan, inside: np.ndarray) -> float:
    """How much of the brain the slices show, from foot to head."""
    areas = inside.sum(axis=(1, 2))
    return float(np.nansum(scan.shares_mm[areas > 0.1 * areas.max()]))


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

    def raised(self, scan: Scan, inside: np.ndarray, lesions: list[Lesion], rng: np.random.Generator) -> _Frame:
        """The frame of a part of a head, whose height is unknown: the first lesion lies on a random slice."""
        if not lesions:
            return self
        first = lesions[0]
        lesion_mm = first.centre[2]
        if first.site != "brain":
            lesion_mm = DOME_CENTRE[2] + SURFACE_MM * first.centre[2]
        areas = inside.sum(axis=(1, 2))
        k = int(rng.choice(np.flatnonzero(areas > 0.3 * areas.max())))
        height = float(scan.slice_origins_mm[k] @ scan.normal)
        top = height - (lesion_mm - DOME_CENTRE[2] - DOME_AXES[2]) * float(self.scale[2])
        return _Frame(self.centre, self.scale, top)

    def points(self, scan: Scan, k: int, pixels: tuple[Array, Array], offset: float) -> Points:
        """The positions of pixels (rows, columns) of slice k, `offset` slices above its middle."""
        row_mm, column_mm = scan.pixel_mm
        height = float(scan.slice_origins_mm[k] @ scan.normal) + offset * float(scan.shares_mm[k])
        x = (self.centre[0] - pixels[1]) * column_mm / self.scale[0] + DOME_CENTRE[0]
        y = (self.centre[1] - pixels[0]) * row_mm / self.scale[1] + DOME_CENTRE[1]
        z = np.full(len(x), (height - self.top) / self.scale[2] + DOME_CENTRE[2] + DOME_AXES[2])
        return Points(x.astype(np.float32), y.astype(np.float32), z.astype(np.float32), max(column_mm, 1.0))


def _calm(scan: Scan, inside: np.ndarray) -> Array:
    """The scan without its noise, (slices, rows, columns) float32: a Gaussian mean of what lies inside.

    Bone beside it does not count. When it did, the paint beside bone was made up for the brightness of the bone: a
    dark rim of up to 3 mm, darker than any blood.

    Args:
        inside: (slices, rows, columns) bool, voxels that are painted on.
    """
    row_mm, column_mm = scan.pixel_mm
    sigma = (CALM_MM / row_mm, CALM_MM / column_mm)
    calm = np.zeros(scan.shape, np.float32)
    for index in np.flatnonzero(inside.any(axis=(1, 2))):
        weight = inside[index].astype(np.float32)
        total = ndimage.gaussian_filter(weight, sigma)
        hu = np.clip(scan.hu[index], -200, 300) * weight
        calm[index] = ndimage.gaussian_filter(hu, sigma) / np.maximum(total, 1e-3)
    return calm


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
            is_ventricle = _ventricles(inner, p, deep)
            wet = fluid[k][pixels]
            ventricle = np.where(is_ventricle, (0.5 - wet) * 2, 9).astype(np.float32)
            sulci = wet * ~(is_ventricle | _white_matter(p, deep))
            brain = Brain(p, p, deep, before.copy(), sulci, ventricle, inner.tent(p), deep)
            blood = bleeding.apply(lesions, brain)
            change[k][pixels] += (brain.hu - before) / LAYERS
            for code, share in blood.items():
                shares[code][k][pixels] += share / LAYERS
    return change, shares


def _ventricles(inner: Inside, p: Points, depth: Array) -> Array:
    """Where low density is taken for ventricle, (points,) bool; elsewhere it is taken for sulci and cisterns.

    Near the phantom's ventricles, and farther from them if it lies too deep for a sulcus and off the midline, where
    the fissure between the hemispheres is: the ventricles of the old reach far beyond the phantom's.

    Args:
        inner: the phantom's inside of the skull.
        depth: mm under the inner table.
    """
    distance_mm = inner.ventricles(p)
    is_deep = (depth > DEEP_MM) & (np.abs(p.x) > MIDLINE_MM)
    is_body = is_deep & (p.z > BODY_MM) & (distance_mm < FAR_MM)
    is_horn = is_deep & (p.z > HORN_LOW_MM) & (p.y > HORN_FRONT_MM) & (distance_mm < HORN_MM)
    return (distance_mm < NEAR_MM) | is_body | is_horn


def _white_matter(p: Points, depth: Array) -> Array:
    """Where low density is no sulcus though no ventricle is near, (points,) bool: dark white matter of the old."""
    is_above_insula = (p.z > WHITE_ABOVE_MM) | (p.y > WHITE_FRONT_MM)
    return (depth > WHITE_DEEP_MM) & (np.abs(p.x) > WHITE_SIDE_MM) & is_above_insula
