"""The phantom's bleeding painted into a scan of someone else, a real one above all; also into a part of a head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from hemotorch.errors import InputError
from hemotorch.head import enclosed
from hemotorch.head.tissue import brain_level
from hemotorch.labels import TYPES
from hemotorch.phantom import lesions as bleeding
from hemotorch.phantom import sample_lesions
from hemotorch.phantom.anatomy import Patient
from hemotorch.phantom.brain import GREY, Brain, Inside
from hemotorch.phantom.fields import Array, Points, generator
from hemotorch.phantom.head_frame import HeadFrame
from hemotorch.phantom.lesions import Lesion
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
LEAST_MM2 = 5000.0  #: area inside the skull on its fullest slice
TISSUE_HU = (-25.0, 110.0)  #: of what is inside the skull, once it is smoothed by a millimetre or two
OPENED_MM, PIECE_MM2 = 3.0, 400.0  #: thinner or smaller than this is an orbit, a sinus or a gap in bone
BONE_HU, CALCIFIED_ML = 300, 3.0  #: bone, and the most that a calcification is
BESIDE_MM = 12.0  #: around the space inside the skull where its bone is looked for
#: What is painted into a slab whose height in the head is unknown: its ventricles and cisterns cannot be told apart.
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
    inside = _brain_space(scan)
    row_mm, column_mm = scan.pixel_mm
    if inside.sum(axis=(1, 2)).max() * row_mm * column_mm < LEAST_MM2:
        raise InputError("no skull encloses a brain in this scan, so that there is nowhere to bleed", scan.name)
    frame = HeadFrame.fit(scan, inside)
    level = brain_level(scan)
    if level is None:
        raise InputError("what the skull encloses does not look like brain in HU", scan.name)
    depth = _depth_mm(scan, inside)
    if lesions is None:
        rng = generator(seed, 0xB1EED)
        lesions = sample_lesions.sample_bleeding(rng, leading or str(rng.choice(TYPES)), wide=True)
        if not frame.height_known:
            lesions = [lesion for lesion in lesions if lesion.kind in OF_PARTS]
        lesions = frame.in_view(lesions, scan, depth, rng)
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


def _brain_space(scan: Scan) -> np.ndarray:
    """What bone encloses and is soft tissue, in large pieces, (slices, rows, columns) bool.

    No air of the nose or ear, and no orbit: paint went there in a scan of the skull base alone.
    """
    row_mm, column_mm = scan.pixel_mm
    inside = enclosed(scan)
    for index in np.flatnonzero(inside.any(axis=(1, 2))):
        smooth = ndimage.uniform_filter(np.clip(scan.hu[index], -200, 200).astype(np.float32), 2 / column_mm)
        tissue = inside[index] & (smooth > TISSUE_HU[0]) & (smooth < TISSUE_HU[1])
        steps = max(1, round(OPENED_MM / column_mm))
        core = ndimage.binary_erosion(tissue, iterations=steps)
        labels, count = ndimage.label(core)
        if count:
            mm2 = np.bincount(labels.ravel()) * row_mm * column_mm
            mm2[0] = 0
            core = (mm2 > PIECE_MM2 / 4)[labels]
        whole = ndimage.binary_dilation(core, iterations=steps + 1) & inside[index]
        inside[index] = whole if whole.sum() * row_mm * column_mm > PIECE_MM2 else False
    return inside


def _depth_mm(scan: Scan, inside: np.ndarray) -> Array:
    """How far each voxel inside the skull lies from bone, mm: (slices, rows, columns) float32, 0 elsewhere.

    Not from what is merely not inside: where the ring of bone is open, nothing is known to be inside, and half of a
    posterior fossa was painted over because of its neighbours. Calcifications are no bone here.
    """
    depth = np.zeros(scan.shape, np.float32)
    rows, columns = (np.flatnonzero(inside.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    margin = round(BESIDE_MM / scan.pixel_mm[0])
    box = np.s_[
        :, max(rows[0] - margin, 0) : rows[-1] + margin + 1, max(columns[0] - margin, 0) : columns[-1] + margin + 1
    ]
    labels, count = ndimage.label(scan.hu[box] > BONE_HU)
    voxel_ml = float(np.median(scan.shares_mm) * np.prod(scan.pixel_mm) / 1000)
    is_bone = (np.bincount(labels.ravel(), minlength=count + 1) * voxel_ml > CALCIFIED_ML)[labels] & (labels > 0)
    spacing = (float(np.median(scan.shares_mm)), *scan.pixel_mm)
    within = ndimage.distance_transform_edt(~is_bone, spacing)
    depth[box] = np.maximum(within - scan.pixel_mm[0] / 2, 0.01)
    return depth * inside


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
    lesions: list[Lesion], scan: Scan, frame: HeadFrame, inside: np.ndarray, depth: Array, calm: Array
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
