"""One patient of the phantom, from its number to its scan and mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from hemotorch.labels import TYPES, types_per_slice
from hemotorch.phantom import lesions as bleeding
from hemotorch.phantom import sample_lesions, scanner
from hemotorch.phantom.anatomy import AIR, Head, Injury, Patient
from hemotorch.phantom.brain import GREY, Inside
from hemotorch.phantom.fields import Array, Points, generator, grid_noise
from hemotorch.phantom.lesions import Lesion
from hemotorch.phantom.presets import PRESETS, Preset, preset
from hemotorch.phantom.projection import finish_projected
from hemotorch.phantom.scanner import Protocol
from hemotorch.phantom.shell import ears, paint_shell
from hemotorch.scan import CaseInfo, Scan, even_scan

DRAWN_MM = (0.8, 1.8)  #: finest and coarsest grid on which the head is drawn, before it is carried to the image's
WARP_MM = 1.1  #: by which no head is the average one
LAYER_MM = 1.8  #: thickness of the layers a slice is averaged from
WHITE_HU, SEEN_MM = (
    120.0,
    0.5,
)  #: above it, seen with this blur and a third of a pixel, a voxel at the skull's edge is taken for bone
LEAST_ML, TRIES = 0.2, 4  #: a patient who is to bleed bleeds at least so much, or is drawn anew
FRACTURE_SHARE = 0.3  #: of a voxel, above which a slice counts as showing a fracture
OVERLAP_MM = 1.2  #: to either side of the inner table, where both bone and brain are drawn and mixed
HALF_MM = (112.0, 132.0)  #: half-size of the box that holds the head, left-right and front-back


@dataclass(frozen=True, eq=False)
class PhantomCase:
    """A scan, its truth and what is known about it.

    mask: (slices, rows, columns) uint8 codes of `labels`. inside: (slices, rows, columns) bool, what lies inside the
    skull: voxels of which at least half does, and all bleeding.
    """

    scan: Scan
    mask: np.ndarray
    inside: np.ndarray
    info: CaseInfo
    lesions: tuple[Lesion, ...]
    protocol: Protocol


@dataclass(frozen=True, eq=False)
class Layers:
    """The grid on which a head is drawn: `count` layers a slice, `step_mm` in plane, around the head's centre."""

    slices: int
    count: int
    rows: int
    columns: int
    step_mm: float
    layer_mm: float

    @staticmethod
    def of(protocol: Protocol) -> Layers:
        """The grid for a protocol: as fine as the pixels, within DRAWN_MM, and a box around the head."""
        fine = float(np.clip(protocol.pixel_mm, *DRAWN_MM))
        count = int(np.clip(round(protocol.slice_mm / LAYER_MM), 2, 4))
        rows, columns = (int(2 * half / fine) for half in reversed(HALF_MM))
        return Layers(protocol.slices, count, rows, columns, fine, protocol.slice_mm / count)

    def averaged(self, values: Array) -> Array:
        """Layers to slices, the mean over each slice's thickness: partial volume along z."""
        return values.reshape(self.slices, self.count, self.rows, self.columns).mean(axis=1)


def _points(protocol: Protocol, grid: Layers, patient: Patient, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """x, y, z in the head's frame of every voxel of the layers: turned, scaled and gently warped."""
    shape = (grid.slices * grid.count, grid.rows, grid.columns)
    u = (np.arange(grid.columns, dtype=np.float32) - (grid.columns - 1) / 2) * np.float32(grid.step_mm)
    v = (np.arange(grid.rows, dtype=np.float32) - (grid.rows - 1) / 2) * np.float32(grid.step_mm)
    w = (np.arange(shape[0], dtype=np.float32) + 0.5) * np.float32(grid.layer_mm) + np.float32(protocol.bottom_mm)
    yaw, pitch, roll = np.radians(protocol.angles_deg)
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    turn = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    turn = (turn @ np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])).astype(np.float32)
    right, front, up = -u[None, None, :], -v[None, :, None], w[:, None, None]
    if protocol.tilt_deg:
        up = up + front * np.float32(np.tan(np.radians(protocol.tilt_deg)))
    warp = [grid_noise(rng, shape, (grid.layer_mm, grid.step_mm, grid.step_mm), 48.0) for _ in range(3)]
    out = []
    for axis, centre in enumerate((0.0, -17.0, 0.0)):
        along = turn[axis, 0] * right + turn[axis, 1] * front + turn[axis, 2] * up
        out.append(along / np.float32(patient.size[axis]) + np.float32(centre) + np.float32(WARP_MM) * warp[axis])
    return out[0], out[1], out[2]


@dataclass(eq=False)
class Drawn:
    """What was drawn at a list of points, float32 (points,), or averaged to slices (slices, rows, columns).

    hu: values. cavity: share of each voxel that lies inside the skull; crack: share that is a crack in bone; blood:
    share of each type of bleeding present, by its code.
    """

    hu: Array
    cavity: Array
    crack: Array
    blood: dict[int, Array]

    @staticmethod
    def air(points: int) -> Drawn:
        """Nothing but air."""
        hu = np.full(points, AIR, np.float32)
        return Drawn(hu, np.zeros(points, np.float32), np.zeros(points, np.float32), {})

    def add_blood(self, code: int, where: Array | slice, share: Array) -> None:
        """Sets the share of one type at some of the points."""
        self.blood.setdefault(code, np.zeros(len(self.hu), np.float32))[where] = share

    def put(self, where: slice, part: Drawn) -> None:
        """Takes over what was drawn at some of the points."""
        self.hu[where], self.cavity[where], self.crack[where] = part.hu, part.cavity, part.crack
        for code, share in part.blood.items():
            self.add_blood(code, where, share)

    def changed(self, change: Callable[[Array], Array]) -> Drawn:
        """Everything, changed in the same way."""
        blood = {code: change(share) for code, share in self.blood.items()}
        return Drawn(change(self.hu), change(self.cavity), change(self.crack), blood)


def _draw(
    head: Head, brain: Inside, lesions: list[Lesion], grid: Layers, xyz: tuple[Array, Array, Array], protocol: Protocol
) -> Drawn:
    """What every slice holds, on the layers' grid."""
    shape = xyz[0].shape
    x, y, z = (a.ravel() for a in xyz)
    drawn = Drawn.air(x.size)
    block = shape[1] * shape[2] * grid.count * 3
    for start in range(0, x.size, block):
        part = slice(start, min(start + block, x.size))
        points = Points(x[part], y[part], z[part], grid.step_mm * 1.05)
        drawn.put(part, _draw_points(head, brain, lesions, points, protocol))
    return drawn.changed(grid.averaged)


def _draw_points(head: Head, brain: Inside, lesions: list[Lesion], p: Points, protocol: Protocol) -> Drawn:
    """What the points hold."""
    drawn = Drawn.air(len(p))
    possible = np.flatnonzero((np.abs(p.x) < 105) & (p.y > -135) & (p.y < 122) & (p.z < 100))
    p = p.where(possible)
    cavity, dome = head.cavity(p)
    rough = np.flatnonzero(np.abs(cavity) < 4)
    cavity[rough] += np.float32(0.35) * head.rough_noise.of(p.where(rough))
    value = np.full(len(p), AIR, np.float32)
    shell = np.flatnonzero(cavity > -OVERLAP_MM)
    value[shell], drawn.crack[possible[shell]] = _draw_shell(head, p.where(shell), cavity[shell], dome[shell], protocol)
    brainy = np.flatnonzero(cavity < OVERLAP_MM)
    if len(brainy):
        points, depth = p.where(brainy), -cavity[brainy]
        soft, blood = _draw_brain(brain, lesions, points, depth, protocol)
        rim = points.filled(depth)
        value[brainy] = soft * (1 - rim) + np.where(depth < OVERLAP_MM, value[brainy], 0) * rim
        drawn.cavity[possible[brainy]] = (1 - rim) * (1 - head.canal(points))
        for code, share in blood.items():
            drawn.add_blood(code, possible[brainy], share * (1 - rim))
    drawn.hu[possible] = value
    return drawn


def _draw_shell(head: Head, p: Points, cavity: Array, dome: Array, protocol: Protocol) -> tuple[Array, Array]:
    """HU of what surrounds the brain, and the share of cracks in bone."""
    hu, crack = np.full(len(p), AIR, np.float32), np.zeros(len(p), np.float32)
    skin = head.skin(p, dome)
    near_skin = skin < 2
    body = np.flatnonzero(near_skin)
    flesh = np.empty(len(body), np.float32)
    crack[body] = paint_shell(head, p.where(body), flesh, cavity[body], dome[body], skin[body])
    hu[body] = _scaled(flesh, protocol)
    beyond = np.flatnonzero(~near_skin)
    ear = beyond[np.abs(p.x[beyond]) > 70]
    if len(ear):
        points = p.where(ear)
        hu[ear] += points.filled(ears(head, points, skin[ear])) * (1000 + 40)
    return hu, crack


def _draw_brain(
    brain: Inside, lesions: list[Lesion], p: Points, depth: Array, protocol: Protocol
) -> tuple[Array, dict[int, Array]]:
    """HU of what lies inside the skull, and the share of each type of bleeding present. depth: mm under the bone."""
    source, source_depth = bleeding.displaced(lesions, p, depth)
    tissue = brain.render(source, p, source_depth, bleeding.swelling(lesions, p))
    tissue.depth = depth
    blood = bleeding.apply(lesions, tissue)
    return _scaled(tissue.hu, protocol) + scanner.cupping(p, depth, protocol), blood


def _scaled(hu: Array, protocol: Protocol) -> Array:
    """Soft tissue at the scanner's own level and gain."""
    soft = np.clip(1 - np.abs(hu - 30) / 200, 0, 1)
    return hu + soft * (protocol.level_hu + (protocol.gain - 1) * (hu - GREY))


def _to_image(values: Array, grid: Layers, protocol: Protocol, background: float | Array) -> Array:
    """From the layers' grid to the image's: (rows, columns) of one slice, linear, `background` outside the box."""
    size = protocol.size_px
    dx, dy = protocol.shift_mm
    at = (np.arange(size) - (size - 1) / 2) * protocol.pixel_mm
    rows = (at - dy) / grid.step_mm + (grid.rows - 1) / 2
    columns = (at - dx) / grid.step_mm + (grid.columns - 1) / 2
    out = _linear(_linear(values, rows, 0), columns, 1)
    inside = ((rows >= 0) & (rows <= grid.rows - 1))[:, None] & ((columns >= 0) & (columns <= grid.columns - 1))[None]
    return np.where(inside, out, background).astype(np.float32)


def _linear(values: Array, where: Array, axis: int) -> Array:
    n = values.shape[axis]
    low = np.clip(np.floor(where).astype(int), 0, n - 2)
    share = np.clip(where - low, 0, 1).astype(np.float32)
    share = share[:, None] if axis == 0 else share[None]
    return np.take(values, low, axis) * (1 - share) + np.take(values, low + 1, axis) * share


def draw_case(
    chosen: Preset, index: int, seed: int, attempt: int = 0
) -> tuple[Patient, Protocol, list[Lesion], tuple[Injury, ...]]:
    """Who patient `index` is, how it is scanned and what is wrong: independent streams of (seed, index)."""
    patient = Patient.sample(generator(seed, index, 1))
    protocol = Protocol.draw(generator(seed, index, 2), chosen)
    leading = chosen.leading_type(index, seed)
    lesions = sample_lesions.sample_bleeding(generator(seed, index, 3, attempt), leading) if leading else []
    injuries = tuple(sample_lesions.sample_injuries(generator(seed, index, 6), lesions))
    return patient, protocol, lesions + sample_lesions.sample_confounders(generator(seed, index, 4), patient), injuries


def make_case(spec: str | Preset, index: int, seed: int = 0, projection: bool = False) -> PhantomCase:
    """Patient `index` of a phantom dataset; a function of (preset, index, seed) and of nothing else.

    spec: a name of PRESETS, or a Preset. projection: scan it the long way (see `projection.py`), which is slow.
    Raises OptionError for an unknown preset.
    """
    chosen = preset(spec)
    for attempt in range(TRIES):
        patient, protocol, lesions, injuries = draw_case(chosen, index, seed, attempt)
        grid = Layers.of(protocol)
        xyz = _points(protocol, grid, patient, generator(seed, index, 5))
        drawn = _draw(Head(patient, injuries), Inside(patient), lesions, grid, xyz, protocol)
        holder = scanner.holder_hu(protocol)
        hu = np.stack([np.maximum(_to_image(s, grid, protocol, AIR), holder) for s in drawn.hu])
        cavity, crack = (_shares(share, grid, protocol) for share in (drawn.cavity, drawn.crack))
        blood = {code: _shares(share, grid, protocol) for code, share in drawn.blood.items()}
        tissue = scanner.mixed_slices(hu, protocol) if protocol.tilt_deg else hu
        mask = _mask(blood, tissue, protocol.pixel_mm)
        ml = np.count_nonzero(mask) * protocol.pixel_mm**2 * protocol.slice_mm / 1000
        if ml >= LEAST_ML or not any(lesion.code for lesion in lesions):
            break
    image = (finish_projected if projection else scanner.finish)(hu, protocol, grid.step_mm)
    if protocol.tilt_deg:
        image = scanner.mixed_slices(image, protocol)
    name = chosen.case_name(index)
    scan = even_scan(np.rint(np.clip(image, -1024, 3071)).astype(np.int16), protocol.pixel_mm, protocol.slice_mm, name)
    info = _facts(name, patient, scan, mask, crack)
    return PhantomCase(scan, mask, (cavity >= 0.5) | (mask > 0), info, tuple(lesions), protocol)


def _shares(share: Array, grid: Layers, protocol: Protocol) -> Array:
    """A share of each voxel on the layers' grid as one on the image's, (slices, rows, columns)."""
    on_image = np.stack([_to_image(one_slice, grid, protocol, 0.0) for one_slice in share])
    return scanner.mixed_slices(on_image, protocol) if protocol.tilt_deg else on_image


def _mask(shares: dict[int, Array], tissue: Array, pixel_mm: float) -> np.ndarray:
    """Typed mask: where blood fills at least half of a voxel, the code of its largest part; no specks, and not where
    bone whitens the voxel so that no reader would see blood in it. tissue: HU before noise and blur."""
    mask = np.zeros(tissue.shape, np.uint8)
    if not shares:
        return mask
    codes = np.array(sorted(shares), np.uint8)
    stack = np.stack([shares[int(code)] for code in codes])
    sigma = SEEN_MM / pixel_mm + 0.35
    seen = (stack.sum(axis=0) >= 0.5) & (ndimage.gaussian_filter(tissue, (0, sigma, sigma)) < WHITE_HU)
    mask = np.where(seen, codes[stack.argmax(axis=0)], 0).astype(np.uint8)
    found, count = ndimage.label(mask > 0)
    if count:
        sizes = np.bincount(found.ravel())
        mask[(sizes < 3)[found]] = 0
    return mask


def _facts(name: str, patient: Patient, scan: Scan, mask: np.ndarray, crack: Array) -> CaseInfo:
    types = types_per_slice(mask)
    per_slice = {
        number: frozenset(t for t, there in zip(TYPES, row, strict=True) if there)
        for number, row in zip(scan.slice_numbers, types, strict=True)
    }
    shown = (crack > FRACTURE_SHARE).sum(axis=(1, 2)) >= 3
    cracked = frozenset(number for number, there in zip(scan.slice_numbers, shown, strict=True) if there)
    return CaseInfo(name, name, patient.age, patient.sex, per_slice, cracked, bool(types.any()), "phantom")


__all__ = ["PRESETS", "PhantomCase", "draw_case", "make_case"]
