"""What speaks against a prediction: the scan is unlike those trained on, or the answer itself is not credible.

Each doubt has a code, a sentence and the number behind it. Nothing here changes a mask or a volume.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from hemotorch.grid import SliceSpacing, slice_positions_mm, typical_distance_mm
from hemotorch.grid.slabs import RANGE_TOLERANCE
from hemotorch.head.measured import MeasuredHead
from hemotorch.head.vessels import SINUS_MM2
from hemotorch.inference.seen import Seen
from hemotorch.scan import Doubt, Scan

WHOLE_HEAD_MM = 90.0  #: less of a head than this, from foot to head, is a part of it
OPEN_TOP = 0.6  #: of the fullest slice's area inside the skull; the highest slice of a whole head has less
CUT_BORDER = 0.08  #: of the picture's border that is body, on the slices with brain; more, and the head is cut
OUTSIDE_ML, OUTSIDE_SHARE = 1.0, 0.2  #: bleeding farther than NEAR_MM from what bone encloses
NEAR_MM = 4.0
MOST_ML = 250.0  #: of bleeding in a head; larger ones are hardly survived
MOST_SHARE = 0.25  #: of the space inside the skull
SHIFT_HU = 6.0  #: by which a scan is made darker and brighter, about half of what scanners differ by
STEADY_ML, STEADY_SHARE = 3.0, 0.4  #: width of the interval, in mL or of the volume, that is no doubt; the wider counts


def doubts_about(scan: Scan, mask: np.ndarray, seen: Seen, spacings: tuple[SliceSpacing | None, ...]) -> list[Doubt]:
    """What speaks against a prediction, as the scan and the mask tell.

    Args:
        scan: as it was read.
        mask: (slices, rows, columns), what was outlined.
        seen: what the model has seen in training.
        spacings: of the model's networks.
    """
    if not scan.spacing_known:
        return [Doubt("spacing", "its pixel size is unknown: there are no mL, and nothing else was checked")]
    head = MeasuredHead.of(scan)
    doubts = [*_about_tissue(head, seen), *_about_contrast(scan, head, seen), *_about_field(scan, head)]
    positions_mm = slice_positions_mm(scan)
    if positions_mm is not None:
        doubts += _about_slices(typical_distance_mm(positions_mm), spacings)
    if mask.any():
        doubts += _about_mask(scan, head, mask)
    return doubts


def _about_tissue(head: MeasuredHead, seen: Seen) -> list[Doubt]:
    """Level, noise and shading outside what was seen."""
    if head.level is None:
        return [Doubt("no-brain", "nothing that bone encloses looks like brain in HU")]
    doubts = []
    level, shading_hu = head.level.median, head.level.shading_hu
    if not seen.level_hu[0] <= level <= seen.level_hu[1]:
        text = f"its brain is at {level:.0f} HU; the model has seen {_range(seen.level_hu)} HU"
        doubts.append(Doubt("level", text, level, "HU"))
    if head.noise > seen.noise_hu:
        text = f"its noise is {head.noise:.0f} HU; the model has seen up to {seen.noise_hu:.0f} HU"
        doubts.append(Doubt("noise", text, head.noise, "HU"))
    if shading_hu > seen.shading_hu:
        text = (
            f"its brain is shaded: its level differs by {shading_hu:.0f} HU from place to place; the model has "
            f"seen up to {seen.shading_hu:.0f} HU"
        )
        doubts.append(Doubt("shading", text, shading_hu, "HU"))
    return doubts


def _about_contrast(scan: Scan, head: MeasuredHead, seen: Seen) -> list[Doubt]:
    """Contrast that was given, as the header says or as sinuses show, unless scans with it were trained on."""
    if seen.contrast:
        return []
    shines = head.sinus_mm2 >= SINUS_MM2
    if not shines and not scan.contrast:
        return []
    signs = [f"the header says {scan.contrast}"] if scan.contrast else []
    if shines:
        signs.append(f"{head.sinus_mm2:.0f} mm2 of a slice shine like a sinus filled with it")
    text = f"contrast was given ({'; '.join(signs)}): bright vessels may be taken for bleeding"
    return [Doubt("contrast", text, head.sinus_mm2, "mm2") if shines else Doubt("contrast", text)]


def _range(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.0f} to {bounds[1]:.0f}"


def _about_field(scan: Scan, head: MeasuredHead) -> list[Doubt]:
    """A part of a head, or a head that the picture cuts."""
    areas = np.count_nonzero(head.inside, axis=(1, 2))
    if not areas.any():
        return [Doubt("no-skull", "bone encloses nothing in this scan")]
    with_brain = areas > 0.1 * areas.max()
    covered_mm = float(np.nansum(scan.shares_mm[with_brain]))
    if covered_mm < WHOLE_HEAD_MM:
        text = f"only {covered_mm:.0f} mm of the head are in it, from foot to head: mL are of that part"
        return [Doubt("part", text, covered_mm, "mm")]
    doubts = []
    if areas[-1] > OPEN_TOP * areas.max():
        text = "it ends below the top of the head: mL are of the part that is in it"
        doubts.append(Doubt("part", text, float(areas[-1] / areas.max())))
    share = _body_on_border(head.small.hu[with_brain])
    if share > CUT_BORDER:
        text = f"its picture cuts the head: {100 * share:.0f} % of the border are body"
        doubts.append(Doubt("field", text, share))
    return doubts


def _body_on_border(hu: np.ndarray) -> float:
    """Share of the pictures' border that is body and no air, without the table: that lies behind, at the lower edge."""
    edges = [hu[:, 0, :], hu[:, :, 0], hu[:, :, -1]]
    body = sum(np.count_nonzero((edge > -150) & (edge < 1000)) for edge in edges)
    return float(body / sum(edge.size for edge in edges))


def _about_slices(distance_mm: float, spacings: tuple[SliceSpacing | None, ...]) -> list[Doubt]:
    """Slices much closer or farther apart than those trained on."""
    known = [spacing for spacing in spacings if spacing is not None]
    if not known:
        return []
    low = min(spacing.least_mm for spacing in known) * (1 - RANGE_TOLERANCE)
    high = max(spacing.most_mm for spacing in known) * (1 + RANGE_TOLERANCE)
    if low <= distance_mm <= high:
        return []
    text = f"its slices are {distance_mm:.3g} mm apart; the model has seen {low:.3g} to {high:.3g} mm"
    return [Doubt("slices", text, distance_mm, "mm")]


def _about_mask(scan: Scan, head: MeasuredHead, mask: np.ndarray) -> list[Doubt]:
    """Bleeding outside the skull, or more of it than a head holds."""
    doubts = []
    total_ml = scan.volume_ml(mask)
    outside_ml = _outside_ml(scan, head, mask)
    if outside_ml > max(OUTSIDE_ML, OUTSIDE_SHARE * total_ml):
        text = f"{outside_ml:.1f} of {total_ml:.1f} mL lie outside what bone encloses"
        doubts.append(Doubt("outside", text, outside_ml, "mL"))
    space_ml = float((np.count_nonzero(head.inside, axis=(1, 2)) * head.small.voxel_ml).sum())
    if total_ml > MOST_ML or total_ml > MOST_SHARE * space_ml:
        text = f"{total_ml:.0f} mL of bleeding are hardly credible in a skull of {space_ml:.0f} mL"
        doubts.append(Doubt("volume", text, total_ml, "mL"))
    return doubts


def _outside_ml(scan: Scan, head: MeasuredHead, mask: np.ndarray) -> float:
    """mL of the mask farther than NEAR_MM from what bone encloses, in plane or on the next slices."""
    total = 0.0
    rows, columns = np.array(scan.shape[1:]) // np.array(head.small.shape[1:])
    for index in np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1)).tolist():
        near = head.inside[max(0, index - 1) : index + 2].any(axis=0)
        if near.any():
            far = ndimage.distance_transform_edt(~near, head.small.pixel_mm) > NEAR_MM
        else:
            far = np.ones(near.shape, bool)
        at_rows, at_columns = np.nonzero(mask[index])
        at_rows = np.minimum(at_rows // rows, far.shape[0] - 1)
        at_columns = np.minimum(at_columns // columns, far.shape[1] - 1)
        total += float(np.count_nonzero(far[at_rows, at_columns]) * scan.voxel_ml[index])
    return total


def about_interval(total_ml: float, interval_ml: tuple[float, float]) -> list[Doubt]:
    """Doubt if the volume depends much on the scanner's level.

    Args:
        total_ml: what was outlined.
        interval_ml: least and most mL that the model finds in the same scan, a little darker and brighter.
    """
    low, high = interval_ml
    if high - low <= max(STEADY_ML, STEADY_SHARE * total_ml):
        return []
    text = f"made {SHIFT_HU:g} HU darker and brighter, the same scan has {low:.1f} to {high:.1f} mL"
    return [Doubt("unsteady", text, high - low, "mL")]
