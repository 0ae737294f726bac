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
from hemotorch.phantom.variety import Variety
from hemotorch.scan import CaseInfo, Scan, even_scan

RENDERED_MM = (0.8, 1.8)  #: finest and coarsest grid on which the head is rendered, before it is carried to the image's
WARP_MM = 1.1  #: by which no head is the average one
LAYER_MM = 1.8  #: thickness of the layers a slice is averaged from
THIN_MM = 1.6  #: a slice so thin is one layer
WHITE_HU = 120.0  #: above it a voxel at the skull's edge is taken for bone
SEEN_MM = 0.5  #: blur with which a reader sees that, beside a third of a pixel
LEAST_ML, TRIES = 0.2, 4  #: a patient who is to bleed bleeds at least so much, or is sampled anew
SPECK_VOXELS = 3  #: smaller regions of a mask are left out
FRACTURE_SHARE, FRACTURE_VOXELS = 0.3, 3  #: a slice shows a fracture if so many voxels are cracks to that share
OVERLAP_MM = 1.2  #: to either side of the inner table, where both bone and brain are rendered and mixed
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
    """The grid on which a head is rendered: `count` layers per slice, `step_mm` in plane, around the head's centre."""

    slices: int
    count: int
    rows: int
    columns: int
    step_mm: float
    layer_mm: float
    over: int  #: layers over which each layer is averaged before, if slices overlap

    @staticmethod
    def of(protocol: Protocol) -> Layers:
        """The grid for a protocol: as fine as the pixels, within RENDERED_MM, and a box around the head."""
        step_mm = float(np.clip(protocol.pixel_mm, *RENDERED_MM))
        fewest = 1 if protocol.slice_mm < THIN_MM else 2
        count = int(np.clip(round(protocol.slice_mm / LAYER_MM), fewest, 4))
        over = max(round(count * protocol.thickness_mm / protocol.slice_mm), 1)
        rows, columns = (int(2 * half / step_mm) for half in reversed(HALF_MM))
        return Layers(protocol.slices, count, rows, columns, step_mm, protocol.slice_mm / count, over)

    def averaged(self, values: Array) -> Array:
        """Layers to slices, the mean over each slice's thickness: partial volume along z."""
        layers = values.reshape(self.slices * self.count, self.rows, self.columns)
        if self.over > self.count:
            layers = ndimage.uniform_filter1d(layers, self.over - self.count + 1, axis=0, mode="nearest")
        return layers.reshape(self.slices, self.count, self.rows, self.columns).mean(axis=1)


def _points(protocol: Protocol, grid: Layers, patient: Patient, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """x, y, z in the head's frame of every voxel of the layers: turned, scaled and gently warped."""
    shape = (grid.slices * grid.count, grid.rows, grid.columns)
    u = (np.arange(grid.columns, dtype=np.float32) - (grid.columns - 1) / 2) * np.float32(grid.step_mm)
    v = (np.arange(grid.rows, dtype=np.float32) - (grid.rows - 1) / 2) * np.float32(grid.step_mm)
    w = (np.arange(shape[0], dtype=np.float32) + 0.5) * np.float32(grid.layer_mm) + np.float32(protocol.bottom_mm)
    right, front, up = -u[None, None, :], -v[None, :, None], w[:, None, None]
    if protocol.tilt_deg:
        up = up + front * np.float32(np.tan(np.radians(protocol.tilt_deg)))
    warp = [grid_noise(rng, shape, (grid.layer_mm, grid.step_mm, grid.step_mm), 48.0) for _ in range(3)]
    turn, points = _rotation(protocol.angles_deg), []
    for axis, centre in enumerate((0.0, -17.0, 0.0)):
        along = turn[axis, 0] * right + turn[axis, 1] * front + turn[axis, 2] * up
        scaled = along / np.float32(patient.size[axis])
        points.append(scaled + np.float32(centre) + np.float32(WARP_MM) * warp[axis])
    x, y, z = points
    return x, y, z


def _rotation(angles_deg: tuple[float, float, float]) -> Array:
    """The matrix (3, 3) float32 of yaw, pitch and roll."""
    yaw, pitch, roll = np.radians(angles_deg)
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_y = np.array([[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]])
    return (about_z @ about_x @ about_y).astype(np.float32)


@dataclass(eq=False)
class Rendered:
    """What lies at a list of points, float32 (points,), or averaged to slices (slices, rows, columns).

    hu: values. cavity: share of each voxel that lies inside the skull; crack: share that is a crack in bone; blood:
    share of each type of bleeding present, by its code.
    """

    hu: Array
    cavity: Array
    crack: Array
    blood: dict[int, Array]

    @staticmethod
    def air(points: int) -> Rendered:
        """Nothing but air."""
        hu = np.full(points, AIR, np.float32)
        return Rendered(hu, np.zeros(points, np.float32), np.zeros(points, np.float32), {})

    def add_blood(self, code: int, where: Array | slice, share: Array) -> None:
        """Sets the share of one type at some of the points."""
        self.blood.setdefault(code, np.zeros(len(self.hu), np.float32))[where] = share

    def put(self, where: slice, part: Rendered) -> None:
        """Takes over what lies at some of the points."""
        self.hu[where] = part.hu
        self.cavity[where] = part.cavity
        self.crack[where] = part.crack
        for code, share in part.blood.items():
            self.add_blood(code, where, share)

    def changed(self, change: Callable[[Array], Array]) -> Rendered:
        """Everything, changed in the same way."""
        blood = {code: change(share) for code, share in self.blood.items()}
        return Rendered(change(self.hu), change(self.cavity), change(self.crack), blood)


def _render(
    head: Head, brain: Inside, lesions: list[Lesion], grid: Layers, xyz: tuple[Array, Array, Array], protocol: Protocol
) -> Rendered:
    """What every slice holds, on the layers' grid."""
    shape = xyz[0].shape
    x, y, z = (a.ravel() for a in xyz)
    rendered = Rendered.air(x.size)
    block = shape[1] * shape[2] * grid.count * 3
    for start in range(0, x.size, block):
        part = slice(start, min(start + block, x.size))
        points = Points(x[part], y[part], z[part], grid.step_mm * 1.05)
        rendered.put(part, _render_points(head, brain, lesions, points, protocol))
    return rendered.changed(grid.averaged)


def _render_points(head: Head, brain: Inside, lesions: list[Lesion], p: Points, protocol: Protocol) -> Rendered:
    """What the points hold."""
    rendered = Rendered.air(len(p))
    possible = np.flatnonzero((np.abs(p.x) < 105) & (p.y > -135) & (p.y < 122) & (p.z < 100))
    p = p.where(possible)
    cavity, dome = head.cavity(p)
    rough = np.flatnonzero(np.abs(cavity) < 4)
    cavity[rough] += np.float32(0.35) * head.rough_noise.of(p.where(rough))
    value = np.full(len(p), AIR, np.float32)
    shell = np.flatnonzero(cavity > -OVERLAP_MM)
    value[shell], rendered.crack[possible[shell]] = _render_shell(
        head, p.where(shell), cavity[shell], dome[shell], protocol
    )
    brainy = np.flatnonzero(cavity < OVERLAP_MM)
    if len(brainy):
        points, depth = p.where(brainy), -cavity[brainy]
        soft, blood = _render_brain(brain, lesions, points, depth, protocol)
        rim = points.filled(depth)
        value[brainy] = soft * (1 - rim) + np.where(depth < OVERLAP_MM, value[brainy], 0) * rim
        rendered.cavity[possible[brainy]] = (1 - rim) * (1 - head.canal(points))
        for code, share in blood.items():
            rendered.add_blood(code, possible[brainy], share * (1 - rim))
    rendered.hu[possible] = value
    return rendered


def _render_shell(head: Head, p: Points, cavity: Array, dome: Array, protocol: Protocol) -> tuple[Array, Array]:
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


def _render_brain(
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
    image_mm = (np.arange(size) - (size - 1) / 2) * protocol.pixel_mm
    rows = (image_mm - dy) / grid.step_mm + (grid.rows - 1) / 2
    columns = (image_mm - dx) / grid.step_mm + (grid.columns - 1) / 2
    image = _linear(_linear(values, rows, 0), columns, 1)
    in_rows = (rows >= 0) & (rows <= grid.rows - 1)
    in_columns = (columns >= 0) & (columns <= grid.columns - 1)
    return np.where(in_rows[:, None] & in_columns[None], image, background).astype(np.float32)


def _linear(values: Array, positions: Array, axis: int) -> Array:
    n = values.shape[axis]
    low = np.clip(np.floor(positions).astype(int), 0, n - 2)
    share = np.clip(positions - low, 0, 1).astype(np.float32)
    share = share[:, None] if axis == 0 else share[None]
    return np.take(values, low, axis) * (1 - share) + np.take(values, low + 1, axis) * share


def sample_case(
    chosen: Preset, index: int, seed: int, attempt: int = 0
) -> tuple[Patient, Protocol, list[Lesion], tuple[Injury, ...]]:
    """Who patient `index` is, how it is scanned and what is wrong: independent streams of (seed, index)."""
    patient = Patient.sample(generator(seed, index, 1))
    protocol = Protocol.sample(generator(seed, index, 2), chosen)
    protocol = scanner.less_even(protocol, generator(seed, index, 7), chosen)
    leading = chosen.leading_type(index, seed)
    lesions: list[Lesion] = []
    if leading is not None:
        lesions = sample_lesions.sample_bleeding(generator(seed, index, 3, attempt), leading)
    injuries = sample_lesions.sample_injuries(generator(seed, index, 6), lesions)
    confounders = sample_lesions.sample_confounders(generator(seed, index, 4), patient)
    variety = Variety(chosen.chances, (seed, index))
    confounders += variety.confounders(patient)
    lesions = variety.bleeding(lesions, attempt)
    patient = variety.patient(patient)
    return patient, variety.protocol(protocol, patient), lesions + confounders, tuple(injuries)


def make_case(spec: str | Preset, index: int, seed: int = 0, projection: bool = False) -> PhantomCase:
    """Patient `index` of a phantom dataset; a function of (preset, index, seed) and of nothing else.

    Args:
        spec: a name of PRESETS, or a Preset.
        index: of the patient, from 0.
        seed: of the dataset.
        projection: scan it the long way (see `projection.py`), which is slow.

    Raises:
        OptionError: for an unknown preset.
    """
    chosen = preset(spec)
    for attempt in range(TRIES):
        patient, protocol, lesions, injuries = sample_case(chosen, index, seed, attempt)
        grid = Layers.of(protocol)
        xyz = _points(protocol, grid, patient, generator(seed, index, 5))
        rendered = _render(Head(patient, injuries), Inside(patient), lesions, grid, xyz, protocol)
        hu = _tissue_on_image(rendered.hu, grid, protocol)
        blood = {code: _share_on_image(share, grid, protocol) for code, share in rendered.blood.items()}
        tissue = scanner.mixed_slices(hu, protocol) if protocol.tilt_deg else hu
        mask = _mask(blood, tissue, protocol.pixel_mm)
        ml = np.count_nonzero(mask) * protocol.pixel_mm**2 * protocol.slice_mm / 1000
        if ml >= LEAST_ML or not any(lesion.code for lesion in lesions):
            break
    cavity = _share_on_image(rendered.cavity, grid, protocol)
    crack = _share_on_image(rendered.crack, grid, protocol)
    finish = finish_projected if projection else scanner.finish
    image = finish(hu, protocol, grid.step_mm)
    if protocol.tilt_deg:
        image = scanner.mixed_slices(image, protocol)
    image = scanner.shaded(image, protocol)
    name = chosen.case_name(index)
    image_hu = np.rint(np.clip(image, -1024, 3071)).astype(np.int16)
    contrast = "a phantom's patient to whom contrast was given" if patient.contrast else ""
    scan = even_scan(image_hu, protocol.pixel_mm, protocol.slice_mm, name, contrast=contrast)
    inside = (cavity >= 0.5) | (mask > 0)
    info = _case_info(name, patient, scan, mask, crack)
    return PhantomCase(scan, mask, inside, info, tuple(lesions), protocol)


def _tissue_on_image(hu: Array, grid: Layers, protocol: Protocol) -> Array:
    """HU from the layers' grid on the image's, with the table and head rest; (slices, rows, columns)."""
    holder = scanner.holder_hu(protocol)
    return np.stack([np.maximum(_to_image(slice_hu, grid, protocol, AIR), holder) for slice_hu in hu])


def _share_on_image(share: Array, grid: Layers, protocol: Protocol) -> Array:
    """A share of each voxel on the layers' grid as one on the image's, (slices, rows, columns)."""
    on_image = np.stack([_to_image(slice_share, grid, protocol, 0.0) for slice_share in share])
    return scanner.mixed_slices(on_image, protocol) if protocol.tilt_deg else on_image


def _mask(shares: dict[int, Array], tissue: Array, pixel_mm: float) -> np.ndarray:
    """A typed mask: a voxel of which blood fills at least half has the code of its largest part.

    No specks, and no voxel that bone whitens so that no reader would see blood in it.

    Args:
        shares: (slices, rows, columns) of each code.
        tissue: HU before noise and blur.
        pixel_mm: size of a pixel.
    """
    mask = bleeding.typed_mask(shares, tissue.shape)
    if not shares:
        return mask
    sigma = SEEN_MM / pixel_mm + 0.35
    mask[ndimage.gaussian_filter(tissue, (0, sigma, sigma)) >= WHITE_HU] = 0
    regions, count = ndimage.label(mask > 0)
    if count:
        sizes = np.bincount(regions.ravel())
        mask[(sizes < SPECK_VOXELS)[regions]] = 0
    return mask


def _case_info(name: str, patient: Patient, scan: Scan, mask: np.ndarray, crack: Array) -> CaseInfo:
    """What a dataset's tables would say of the case."""
    types = types_per_slice(mask)
    per_slice = {}
    for number, held in zip(scan.slice_numbers, types, strict=True):
        per_slice[number] = frozenset(np.array(TYPES)[held].tolist())
    cracked = (crack > FRACTURE_SHARE).sum(axis=(1, 2)) >= FRACTURE_VOXELS
    fractures = frozenset(np.array(scan.slice_numbers)[cracked].tolist())
    return CaseInfo(name, name, patient.age, patient.sex, per_slice, fractures, bool(types.any()), "phantom")


__all__ = ["PRESETS", "PhantomCase", "make_case", "sample_case"]
