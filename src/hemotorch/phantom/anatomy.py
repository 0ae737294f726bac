"""A head as continuous functions of position: who it is, the cavity of the skull, its bone, scalp, face and neck.

Distances are signed millimetres in the frame of `Points` (MNI-like). Proportions were read off the average head CT
of older adults (neurolabusc/Clinical, `scct`); what is not said to be measured is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from hemotorch.phantom.fields import (
    Array,
    Noise,
    Points,
    bump,
    ellipsoid,
    smooth_max,
    smooth_min,
    step,
    tube,
)

DOME_CENTRE = (0.0, -17.0, 6.0)  #: centre of the inner table's dome, mm
DOME_AXES = (70.5, 89.0, 74.0)  #: half-axes of the dome above its centre, mm
DOME_DEPTH = 100.0  #: half-axis of the dome below its centre, before the skull base cuts it, mm
DOME_POWER = 2.3  #: a little boxier than an ellipsoid
AIR, FAT, SKIN, MUSCLE, CSF, CARTILAGE = -1000.0, -95.0, 45.0, 58.0, 8.0, 120.0  #: HU at the nominal brain level
FORAMEN_MM = (0.0, -49.0)  #: x and y of the middle of the foramen magnum
FORAMEN_AXES = (15.0, 18.0)  #: its half-axes along x and y, mm
MAP_X, MAP_Y = np.arange(-90, 91), np.arange(-130, 111)  #: the skull base's height map: 1 mm


@dataclass(frozen=True)
class Dense:
    """What is denser than the brain without being bleeding. HU above grey matter, lengths in mm.

    arteries, sinuses: blood in them. right, left: factors on the width of the transverse and sigmoid sinuses. falx,
    tentorium: their HU; falx_mm, tentorium_mm: half their thickness, None as usual. dura, dura_mm: a layer under the
    inner table. plexus: the choroid plexus, 0 if it does not stand out. veins: those in the sulci.
    """

    arteries: float
    sinuses: float
    right: float = 1.0
    left: float = 1.0
    falx: float = 18.0
    falx_mm: float | None = None
    tentorium: float = 11.0
    tentorium_mm: float = 0.6
    dura: float = 0.0
    dura_mm: float = 0.0
    plexus: float = 0.0
    veins: float = 0.0


@dataclass(frozen=True)
class Wide:
    """By how much fluid spaces are wider than usual, mm.

    ventricles: added to their radii. unequal: the same, to one side's alone, negative for the left. magna: added to the
    half-axes of the cisterna magna.
    """

    ventricles: float = 0.0
    unequal: float = 0.0
    magna: float = 0.0


@dataclass(frozen=True)
class Opening:
    """Where the skull was opened.

    direction: from the middle of the skull, a unit vector. radius_mm: of the hole or the flap. gap_mm: width of the cut
    around a flap that was put back; 0 for a hole. plates: of metal, along the cut.
    """

    direction: tuple[float, float, float]
    radius_mm: float
    gap_mm: float = 0.0
    plates: int = 0


@dataclass(frozen=True)
class Implant:
    """A tube along (x, y, z, radius) waypoints, or a piece of metal if they are all close together; HU at full size."""

    path: tuple[tuple[float, float, float, float], ...]
    hu: float


@dataclass(frozen=True)
class Patient:
    """What one patient is made of; lengths in mm, levels in HU."""

    age: int
    sex: str
    size: tuple[float, float, float]  #: factors on left-right, front-back and foot-head
    atrophy: float  #: 0 young and full, 1 very atrophic
    white_matter_disease: float  #: 0 to 1
    skull_mm: float
    scalp_mm: float
    diploe: float  #: HU
    table: float  #: HU of compact bone
    calcified: tuple[float, float, float, float]  #: pineal, choroid plexus, basal ganglia, falx: 0 none, 1 strong
    sinus_air: float  #: size of the air sinuses, 1 usual
    blood_pool: float  #: HU of vessels and dural sinuses above grey matter
    grey_white: float  #: HU between grey and white matter
    seed: int
    contrast: bool = False  #: contrast agent was given
    dense: Dense | None = None  #: None: as `blood_pool` says
    wide: Wide = Wide()
    finer: bool = False  #: a round third ventricle, sigmoid sinuses, a neck of muscle with thin planes of fat
    openings: tuple[Opening, ...] = ()
    implants: tuple[Implant, ...] = ()

    @staticmethod
    def sample(rng: np.random.Generator) -> Patient:
        """A random patient: adults mostly, as in a trauma and stroke service (ours)."""
        age = int(np.clip(rng.normal(58, 20), 16, 95))
        old = np.clip((age - 35) / 55, 0, 1)
        size = _sample_size(rng)
        calcified = _sample_calcified(rng, old)
        return Patient(
            age=age,
            sex="F" if rng.random() < 0.42 else "M",
            size=size,
            atrophy=float(np.clip(old * 0.75 + rng.normal(0.1, 0.12), 0, 1)),
            white_matter_disease=float(np.clip(old * rng.uniform(-0.1, 1.2), 0, 1)),
            skull_mm=float(np.clip(rng.normal(6.8, 1.2), 4, 11)),
            scalp_mm=float(np.clip(rng.normal(5.0, 1.5), 2.5, 10)),
            diploe=float(rng.uniform(350, 1000)),
            table=float(rng.uniform(1150, 1800)),
            calcified=calcified,
            sinus_air=float(rng.uniform(0.55, 1.25)),
            blood_pool=float(rng.uniform(5, 24)),
            grey_white=float(rng.uniform(5.5, 11.5)),
            seed=int(rng.integers(2**31)),
        )


def _sample_size(rng: np.random.Generator) -> tuple[float, float, float]:
    """Factors on left-right, front-back and foot-head."""
    scale = rng.normal(1.0, 0.035)
    x, y, z = (float(np.clip(scale * rng.normal(1, 0.03), 0.88, 1.12)) for _ in range(3))
    return x, y, z


def _sample_calcified(rng: np.random.Generator, old: float) -> tuple[float, float, float, float]:
    """How strongly pineal, choroid plexus, basal ganglia and falx are calcified. old: 0 to 1."""
    strengths = []
    for chance in (0.25 + 0.5 * old, 0.25 + 0.6 * old, 0.04 + 0.08 * old, 0.05 + 0.15 * old):
        present = rng.random() < chance
        strengths.append(float(rng.uniform(0.2, 1)) if present else 0.0)
    pineal, plexus, basal, falx = strengths
    return pineal, plexus, basal, falx


@dataclass(frozen=True)
class Injury:
    """A blow to the vault.

    direction: from the middle of the skull, a unit vector. across: normal of the crack's plane. reach_mm: half the
    crack's length. gap_mm: its width, 0 for none. swelling_mm: of the scalp.
    """

    direction: tuple[float, float, float]
    across: tuple[float, float, float]
    reach_mm: float
    gap_mm: float
    swelling_mm: float


class Head:
    """The surfaces of one patient's head, from skin to inner table."""

    def __init__(self, patient: Patient, injuries: tuple[Injury, ...] = ()):
        self.patient, self.injuries = patient, injuries
        rng = np.random.Generator(np.random.Philox(patient.seed))
        self.thickness_noise, self.rough_noise = Noise(rng, 38), Noise(rng, 7)
        self.texture_noise, self.cell_noise, self.layer_noise = Noise(rng, 3.2), Noise(rng, 5.5), Noise(rng, 20)
        self.front, self.back = rng.normal(1, 0.05, 2)
        self.egg = rng.uniform(0.06, 0.17)
        self.base_height, self.base_bone = _skull_base(rng)
        self.foramen_z = _foramen_level(self.base_height)
        gy, gx = np.gradient(self.base_height)
        self.base_slope = np.sqrt(1 + np.minimum(gx**2 + gy**2, 16)).astype(np.float32)
        self.ear_noise = Noise(rng, 9)

    def cavity(self, p: Points) -> tuple[Array, Array]:
        """Signed distance to the inner table (negative inside), and that to the dome alone, without the skull base."""
        dome = self._dome(p)
        base = np.full(len(p), -99.0, np.float32)
        low = np.flatnonzero((p.z < 20) & (dome < 60))
        q = p.where(low)
        above = _look_up(self.base_height, q) - q.z
        base[low] = above / _look_up(self.base_slope, q)
        return smooth_max(dome, base, np.float32(3.0)), dome

    def canal(self, p: Points) -> Array:
        """Share of each voxel of the cavity that lies below the foramen magnum, in the spinal canal, 0 to 1."""
        below = np.where(_from_foramen(p.x, p.y) < 1.3, p.z - np.float32(self.foramen_z), np.float32(99))
        return p.filled(below)

    def _dome(self, p: Points) -> Array:
        """Signed distance to the dome, first order along the radius."""
        cx, cy, cz = (np.float32(c) for c in DOME_CENTRE)
        x, z = p.x - cx, p.z - cz
        y = p.y - cy + np.float32(0.14) * np.maximum(z - 25, 0)
        forward = y / np.float32(DOME_AXES[1])
        width = np.float32(DOME_AXES[0]) * (1 - np.float32(self.egg) * forward - np.float32(0.05) * forward**2)
        ax = np.abs(x) / np.maximum(width, 30)
        ay = np.abs(forward) / np.where(y > 0, np.float32(self.front), np.float32(self.back))
        az = np.abs(z) / np.where(z > 0, np.float32(DOME_AXES[2]), np.float32(DOME_DEPTH))
        powers = ax**DOME_POWER + ay**DOME_POWER + az**DOME_POWER
        scaled = np.power(powers, np.float32(1 / DOME_POWER)) + np.float32(1e-4)
        radius = np.sqrt(x * x + y * y + z * z)
        return ((1 - 1 / scaled) * radius * np.float32(0.97)).astype(np.float32)

    def base_thickness(self, p: Points) -> Array:
        """Of the bone under the skull base, mm."""
        return _look_up(self.base_bone, p)

    def skull_thickness(self, p: Points) -> Array:
        """Of the vault, mm: thick in front, behind and at the vertex, thin at the temples."""
        temple = bump((np.abs(p.x) - 68) / 22, (p.y - 5) / 32, (p.z + 5) / 30)
        front = bump((p.y - 72) / 16, p.x / 40, (p.z - 10) / 30)
        ends = front + bump((p.y + 105) / 16, p.x / 25, (p.z + 5) / 28)
        noise = self.thickness_noise.of(p)
        usual = self.patient.skull_mm * (1 + np.float32(0.16) * noise)
        mm = usual - np.float32(3.2) * temple + np.float32(3.0) * ends
        return np.maximum(mm, np.float32(1.8))

    def scalp_thickness(self, p: Points) -> Array:
        """Skin, fat and muscle over the vault, mm: temporal muscle at the sides, neck muscle behind."""
        temple = bump((np.abs(p.x) - 68) / 25, (p.y - 20) / 32, (p.z + 18) / 30)
        neck = step(-p.z - 32, 22) * step(-p.y - 30, 30)
        return self.patient.scalp_mm + np.float32(9) * temple + np.float32(26) * neck + self.swollen(p)

    def swollen(self, p: Points) -> Array:
        """Blood and swelling of the scalp over a blow, mm."""
        total = np.zeros(len(p), np.float32)
        for injury in self.injuries:
            if injury.swelling_mm > 0:
                _, _, away = _from_blow(injury, p)
                total += np.float32(injury.swelling_mm) * np.exp(-((away / 26) ** 2))
        return total

    def cracked(self, p: Points) -> Array:
        """How much of a bone's voxel is a crack, 0 to 1."""
        total = np.zeros(len(p), np.float32)
        for injury in self.injuries:
            if injury.gap_mm > 0:
                across, wiggle, away = _from_blow(injury, p)
                gap = np.abs(across + 1.2 * np.sin(wiggle / 5)) - injury.gap_mm / 2
                total = np.maximum(total, p.filled(np.maximum(gap, away - injury.reach_mm)))
        return total

    def skin(self, p: Points, dome: Array) -> Array:
        """Signed distance to the skin: the vault's cover, the face and the neck."""
        vault = dome - self.patient.skull_mm - self.scalp_thickness(p)
        low = np.flatnonzero(p.z < 12)
        q = p.where(low)
        face = ellipsoid(q, (0, 36, -62), (66, 62, 72))
        nose = tube(q, ((0, 88, -22, 4), (0, 103, -52, 9)))
        neck = np.sqrt((q.x / 66) ** 2 + ((q.y + 28) / 76) ** 2) * 66 - 66
        neck = np.maximum(neck, q.z + 40)
        with_face = smooth_min(smooth_min(vault[low], face, 12), nose, 6)
        skin = vault.copy()
        skin[low] = smooth_min(with_face, neck, 14)
        return skin


def _from_blow(injury: Injury, p: Points) -> tuple[Array, Array, Array]:
    """Millimetres along the vault from a blow: across the crack, along it, and in all."""
    x, y, z = (v - np.float32(c) for v, c in zip((p.x, p.y, p.z), DOME_CENTRE, strict=True))
    r = np.sqrt(x * x + y * y + z * z) + np.float32(1)
    x, y, z = (v / r - c for v, c in zip((x, y, z), injury.direction, strict=True))
    along_normal = x * injury.across[0] + y * injury.across[1] + z * injury.across[2]
    across = 80 * along_normal
    away = 80 * np.sqrt(x * x + y * y + z * z)
    return across, np.sqrt(np.maximum(away**2 - across**2, 0)), away


def _look_up(table: Array, p: Points) -> Array:
    """Bilinear values of a 1 mm map over (y, x) at points."""
    y = np.clip(p.y - np.float32(MAP_Y[0]), 0, len(MAP_Y) - 1.001)
    x = np.clip(p.x - np.float32(MAP_X[0]), 0, len(MAP_X) - 1.001)
    iy, ix = y.astype(np.int32), x.astype(np.int32)
    corner, flat = iy * len(MAP_X) + ix, table.ravel()
    fy, fx = y - iy, x - ix
    near, far = flat.take(corner), flat.take(corner + len(MAP_X))
    near = near + fx * (flat.take(corner + 1) - near)
    far = far + fx * (flat.take(corner + len(MAP_X) + 1) - far)
    return (near + fy * (far - near)).astype(np.float32)


def _skull_base(rng: np.random.Generator) -> tuple[Array, Array]:
    """Height of the floor of the cavity and thickness of the bone under it, mm, over (y, x): three fossae with the
    orbital roofs, the sphenoid and petrous ridges, the sella, the clivus and the foramen magnum."""
    y, x = np.meshgrid(MAP_Y.astype(np.float32), MAP_X.astype(np.float32), indexing="ij")
    ax = np.abs(x + rng.normal(0, 0.8))
    wavy = ndimage.gaussian_filter(rng.standard_normal(x.shape).astype(np.float32), 3.2)
    wavy = wavy / wavy.std()
    gyral = ndimage.gaussian_filter(rng.standard_normal(x.shape).astype(np.float32), 4.5)
    gyral = rng.uniform(0.8, 2.6) * gyral / gyral.std()  # what the gyri press into the orbital roofs, mm
    roof, petrous, low = rng.normal(0, 2.5), rng.normal(0, 2.5), rng.normal(0, 3)
    sphenoid_y, petrous_y = 1 + 0.48 * ax, -12 - 0.62 * ax
    anterior = -23 + (12.5 + roof) * _orbital_roofs(ax, y) + 1.6 * wavy + gyral
    clivus = -19 - 42 * step((-y - 24), 15)
    middle = -44 + 0.012 * (ax - 42) ** 2 + low + 0.8 * wavy
    middle += (clivus - middle) * step(15 - ax, 3)
    middle += _sella(rng, x, y) + 0.8 * wavy * step(18 - ax, 4) * step(y + 20, 4)
    posterior = -58 + low + 0.5 * wavy + 14 * bump(ax / 5, (y + 85) / 22)
    at_clivus = clivus * step(14 - ax, 4) - 99 * step(ax - 14, 4)
    posterior = np.where(y > -45, np.maximum(posterior, at_clivus), posterior)
    front, behind = step(y - sphenoid_y, 4), step(petrous_y - y, 4)
    height = front * anterior + behind * posterior + (1 - front - behind) * middle
    ridge = -19 + petrous + 1.5 * wavy - 1.15 * np.maximum(np.abs(y - petrous_y - 2) - 1.5, 0)
    ridge = ridge - 60 * step(15 - ax, 4) - 60 * step(ax - 68, 6)
    wing = -13 + roof / 2 + wavy - 1.5 * np.maximum(np.abs(y - sphenoid_y) - 0.5, 0)
    wing = wing - 60 * step(12 - ax, 4) - 40 * step(ax - 52, 6)
    height = np.maximum(np.maximum(height, ridge), wing)
    opening = _from_foramen(x, y)
    height = np.where(opening < 1.25, height - 160 * step(1.05 - opening, 0.16), height)
    petrous_bone = 16 * bump((y - petrous_y) / 11) * step(ax - 8, 5)
    sphenoid_bone = 14 * bump(ax / 14) * step(-y - 5, 10) * step(y + 42, 4)
    bone = 3.2 + petrous_bone + sphenoid_bone
    thin_roof = rng.uniform(0.8, 2.2) * bump((ax - 31) / 16, (y - 44) / 24)
    bone += 7 * step(ax - 45, 8) * step(20 - y, 12) - thin_roof
    smooth_height, smooth_bone = ndimage.gaussian_filter(height, 1.0), ndimage.gaussian_filter(bone, 2)
    return smooth_height.astype(np.float32), np.maximum(smooth_bone, 0.9).astype(np.float32)


def _orbital_roofs(ax: Array, y: Array) -> Array:
    """Where the floor rises over the orbits, 0 to 1. Flat on top, so that a slice grazes much of the roof."""
    return 1 - (1 - bump((ax - 31) / 16, (y - 44) / 22)) ** 2


def _from_foramen(x: Array, y: Array) -> Array:
    """Distance from the middle of the foramen magnum, 1 at its edge."""
    return np.sqrt(((x - FORAMEN_MM[0]) / FORAMEN_AXES[0]) ** 2 + ((y - FORAMEN_MM[1]) / FORAMEN_AXES[1]) ** 2)


def _foramen_level(base_height: Array) -> float:
    """The height of the foramen magnum's edge, mm: the middle of the bone around it, where the brain's space ends."""
    y, x = np.meshgrid(MAP_Y.astype(np.float32), MAP_X.astype(np.float32), indexing="ij")
    distance = _from_foramen(x, y)
    return float(np.median(base_height[(distance > 1.3) & (distance < 1.5)]))


def _sella(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """What the sella adds to the height of the middle of the base, mm: its pit, the dorsum behind it, and the anterior
    and posterior clinoid processes, each side of its own height."""
    ax = np.abs(x)
    pit = -rng.uniform(6, 10) * bump(ax / 6.5, (y + 4) / 4.5)
    dorsum = rng.uniform(2, 6) * bump(ax / 9, (y + 13) / 2.6)
    height = pit + dorsum
    for side in (-1, 1):
        height += rng.uniform(1, 6) * bump((side * x - 12) / 3, (y - 5) / 4.5)
        height += rng.uniform(0, 5) * bump((side * x - 7.5) / 2.6, (y + 13) / 3)
    return height
