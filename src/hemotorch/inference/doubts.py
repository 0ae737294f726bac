"""What speaks against a prediction: the scan is unlike those trained on, or the answer itself is not credible.

Each doubt has a code, a sentence and the number behind it. Nothing here changes a mask or a volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from hemotorch.grid import SliceSpacing, slice_positions_mm, typical_distance_mm
from hemotorch.grid.slabs import RANGE_TOLERANCE
from hemotorch.head.measured import MeasuredHead
from hemotorch.head.vessels import SINUS_MM2
from hemotorch.inference.pieces import faint_ml
from hemotorch.inference.second_look import SecondLook
from hemotorch.inference.seen import Seen
from hemotorch.scan import Doubt, Scan
from hemotorch.task import INSIDE, OUTSIDE, Task

WHOLE_HEAD_MM = 90.0  #: less of a head than this, from foot to head, is a part of it
OPEN_TOP = 0.6  #: of the fullest slice's area inside the skull; the highest slice of a whole head has less
CUT_BORDER = 0.08  #: of the picture's border that is body, on the slices with brain; more, and the head is cut
OUTSIDE_ML, OUTSIDE_SHARE = 1.0, 0.2  #: bleeding farther than NEAR_MM from what bone encloses
NEAR_MM = 4.0
MOST_ML = 250.0  #: of bleeding in a head; larger ones are hardly survived
MOST_SHARE = 0.25  #: of the space inside the skull
STEADY_ML, STEADY_SHARE = 3.0, 0.4  #: width of the interval, in mL or of the volume, that is no doubt; the wider counts
#: Less of what some look outlines is outlined in each. Of 37 predictions of a network, the right ones had 0.70 and
#: more, those in which all was wrong 0.13 to 0.48.
LEAST_AGREEMENT = 0.6
#: Mean probability of a piece. Of the same, right pieces had 0.88 to 0.97, wrong ones 0.67 to 0.85, but for one.
SURE = 0.85
DENSE_HU, DENSE_SHARE = 110, 0.1  #: blood is darker; so much of the volume is more than noise and edges
FAINT_SHARE = 0.25  #: of the volume, and at least LEAST_ML, in pieces that are not so sure
LEAST_ML = 1.0  #: of which it is worth saying something
AROUND_MM, OUTSIDE_AROUND = 12.0, 0.8  #: side of a square around a pixel, and the share of it that is outside the skull


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model answered, as far as it can be doubted.

    mask: (slices, rows, columns), what was outlined. probability: of the same shape, None if there is none.
    second: what a second look at it gave. outside_ml: of what is outlined, what lies outside the skull by the network's
    own account.
    """

    mask: np.ndarray
    probability: np.ndarray | None = None
    second: SecondLook | None = None
    outside_ml: float = 0.0


def doubts_about(
    scan: Scan, answer: Answer, seen: Seen, spacings: tuple[SliceSpacing | None, ...]
) -> tuple[Doubt, ...]:
    """What speaks against a prediction, as the scan and the answer tell.

    Args:
        scan: as it was read.
        answer: what was outlined.
        seen: what the model has seen in training.
        spacings: of the model's networks.
    """
    if not scan.spacing_known:
        return (Doubt("spacing", "its pixel size is unknown: there are no mL, and nothing else was checked"),)
    head = MeasuredHead.of(scan)
    doubts = [*_about_tissue(head, seen), *_about_contrast(scan, head, seen), *_about_field(scan, head)]
    positions_mm = slice_positions_mm(scan)
    if positions_mm is not None:
        doubts += _about_slices(typical_distance_mm(positions_mm), spacings)
    total_ml = scan.volume_ml(answer.mask)
    if total_ml:
        doubts += _about_mask(scan, head, answer, total_ml)
        doubts += _about_sureness(scan, answer, total_ml)
    if answer.second is not None:
        doubts += _about_second_look(answer.second, total_ml)
    return tuple(doubts)


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
    """Contrast that was given, as the header says or as sinuses show, even if scans with it were trained on."""
    shines = head.sinus_mm2 >= SINUS_MM2
    if not shines and not scan.contrast:
        return []
    signs = [scan.contrast] if scan.contrast else []
    if shines:
        signs.append(f"{head.sinus_mm2:.0f} mm2 of a slice shine like a sinus filled with it")
    text = f"contrast was given ({'; '.join(signs)}): bright vessels may be taken for bleeding"
    if seen.contrast:
        text += ", though the model has seen some with it"
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


def _about_mask(scan: Scan, head: MeasuredHead, answer: Answer, total_ml: float) -> list[Doubt]:
    """Bleeding outside the skull, or more of it than a head holds."""
    doubts = []
    by_bone_ml = _outside_ml(scan, head, answer.mask)
    outside_ml = max(by_bone_ml, answer.outside_ml)
    if outside_ml > max(OUTSIDE_ML, OUTSIDE_SHARE * total_ml):
        where = (
            "what bone encloses" if by_bone_ml == outside_ml else "what the network itself takes for the skull's space"
        )
        text = f"{outside_ml:.1f} of {total_ml:.1f} mL lie outside {where}"
        doubts.append(Doubt("outside", text, outside_ml, "mL"))
    dense_ml = scan.volume_ml((answer.mask > 0) & (scan.hu > DENSE_HU))
    if dense_ml >= max(LEAST_ML, DENSE_SHARE * total_ml):
        text = f"{dense_ml:.1f} of {total_ml:.1f} mL are over {DENSE_HU} HU, as bone, calcium, metal or contrast is"
        doubts.append(Doubt("dense", text, dense_ml, "mL"))
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


def outside_by_network(
    bleeding: np.ndarray,
    probabilities: dict[int, np.ndarray],
    task: Task,
    threshold: float,
    pixel_mm: tuple[float, float],
    pixel_ml: np.ndarray,
) -> float:
    """mL that are outlined where the network itself has the outside of the skull all around; 0 if it does not say.

    Args:
        bleeding: (n, H, W) probabilities of bleeding on the grid.
        probabilities: by slice, (channels, H, W) float32.
        task: what the network answers.
        threshold: from which a probability is outlined.
        pixel_mm: of the grid's pixels.
        pixel_ml: (n,) of one pixel of the grid.
    """
    if OUTSIDE not in task.channels:
        return 0.0
    size = [max(3, round(AROUND_MM / mm)) for mm in pixel_mm]
    total = 0.0
    for index, channels in probabilities.items():
        outlined = bleeding[index] >= threshold
        if not outlined.any():
            continue
        outside = ndimage.uniform_filter(channels[task.channels.index(OUTSIDE)], size)
        inside = ndimage.uniform_filter(channels[task.channels.index(INSIDE)], size)
        far = outlined & (outside > OUTSIDE_AROUND * (outside + inside)) & (outside > inside)
        total += float(np.count_nonzero(far) * pixel_ml[index])
    return total


def _about_sureness(scan: Scan, answer: Answer, total_ml: float) -> list[Doubt]:
    """Pieces that the model itself is not sure of."""
    if answer.probability is None:
        return []
    faint = faint_ml(answer.mask, answer.probability, scan.voxel_ml, SURE)
    if faint < max(LEAST_ML, FAINT_SHARE * total_ml):
        return []
    unsure = f"the model is not sure (under {100 * SURE:.0f} % on average)"
    text = f"{faint:.1f} of {total_ml:.1f} mL are pieces of which {unsure}"
    return [Doubt("faint", text, faint, "mL")]


def _about_second_look(second: SecondLook, total_ml: float) -> list[Doubt]:
    """Volume or place of what is outlined depend on the scanner's level, on left and right, or on the position."""
    low, high = second.interval_ml
    ways = "mirrored, moved, made darker and brighter"
    if high - low > max(STEADY_ML, STEADY_SHARE * total_ml):
        text = f"{ways}, the same scan has {low:.1f} to {high:.1f} mL"
        return [Doubt("unsteady", text, high - low, "mL")]
    if total_ml >= LEAST_ML and second.agreement < LEAST_AGREEMENT:
        text = f"{ways}, only {100 * second.agreement:.0f} % of what is outlined in the same slices stays where it was"
        return [Doubt("unsteady", text, second.agreement)]
    return []
