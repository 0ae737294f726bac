"""Bleeding of the five types, and what is mistaken for it: what is drawn, how it displaces the brain, how it looks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hemotorch.labels import CODES
from hemotorch.phantom.anatomy import CSF, DOME_CENTRE
from hemotorch.phantom.brain import GREY, Brain
from hemotorch.phantom.fields import Array, Noise, Points, blend, bump, ellipsoid, near, step

Vector = tuple[float, float, float]
SURFACE_MM = 80.0  #: mean radius of the inner table; turns an angle into a distance along it
CONFOUNDERS = ("infarct", "hygroma", "tumour", "calcification", "fresh infarct")


@dataclass(frozen=True)
class Lesion:
    """One lesion in the frame of `Points`.

    kind: a type of `labels.TYPES`, or one of CONFOUNDERS. centre: its middle in mm; for what lies on a surface, the
    direction from the middle of the skull. axes: half-axes in mm; on a surface: (half-length, half-height, thickness).
    contrast: HU above grey matter; second: HU above grey matter of its other part, `mixed` of it (0 to 1).
    site: "vault", "crossing", "falx", "tentorium" or "brain". level: share of a ventricle that is filled, from behind.
    oedema_mm: width of the dark rim. push: displaced volume over own volume. gap_mm: between it and the inner table.
    """

    kind: str
    centre: Vector
    axes: Vector
    contrast: float
    second: float = 0.0
    mixed: float = 0.0
    site: str = "brain"
    level: float = 1.0
    oedema_mm: float = 0.0
    push: float = 0.0
    seed: int = 0
    gap_mm: float = 0.2

    @property
    def code(self) -> int:
        """Its code in a typed mask, 0 for what is not bleeding."""
        return CODES.get(self.kind, 0)

    @property
    def side(self) -> float:
        """+1 right, -1 left."""
        return 1.0 if self.centre[0] >= 0 else -1.0


def _direction(p: Points) -> tuple[Array, Array, Array]:
    """Unit vectors from the middle of the skull."""
    x, y, z = p.x - DOME_CENTRE[0], p.y - np.float32(DOME_CENTRE[1]), p.z - np.float32(DOME_CENTRE[2])
    r = np.sqrt(x * x + y * y + z * z) + np.float32(1)
    return x / r, y / r, z / r


def thickness(lesion: Lesion, p: Points, noise: Noise) -> Array:
    """How thick a lesion on the inner table is under each point, mm (points,): a lens or a crescent."""
    dx, dy, dz = _direction(p)
    middle = np.array(lesion.centre) / (np.linalg.norm(lesion.centre) + 1e-6)
    across = np.cross(middle, (0.0, 0.0, 1.0))
    across = across / (np.linalg.norm(across) + 1e-6)
    along = np.cross(across, middle)
    u = (dx * across[0] + dy * across[1] + dz * across[2]) * np.float32(SURFACE_MM / lesion.axes[0])
    v = (dx * along[0] + dy * along[1] + dz * along[2]) * np.float32(SURFACE_MM / lesion.axes[1])
    facing = dx * middle[0] + dy * middle[1] + dz * middle[2]
    w = noise.at(dx * 80, dy * 80, dz * 80)
    e2 = u * u + v * v + 0.14 * w * np.sqrt(u * u + v * v)
    if lesion.kind == "epidural":
        profile = np.maximum(1 - e2, -1) * (1 + 0.10 * w)
    else:
        profile = np.sign(1 - e2) * np.sqrt(np.abs(1 - e2)) * (1 + 0.28 * w) - 0.06
        if lesion.site != "crossing":
            profile = np.minimum(profile, (p.x * np.float32(lesion.side) - 1.0) / 4)
    return np.where(facing > -0.2, profile, -1).astype(np.float32) * np.float32(lesion.axes[2])


def displaced(lesions: list[Lesion], p: Points, depth: Array) -> tuple[Points, Array]:
    """Mass effect: where the brain at each point lay before the lesions came, and how deep under the inner table."""
    x, y, z = p.x.copy(), p.y.copy(), p.z.copy()
    source_depth = depth.copy()
    for lesion in lesions:
        if lesion.push <= 0:
            continue
        if lesion.site in ("vault", "crossing"):
            full = np.maximum(thickness(lesion, p, _noise(lesion)), 0)
            inward = full * np.exp(-depth / np.float32(28))
            inward *= np.float32(lesion.push)
            dx, dy, dz = _direction(p)
            x, y, z = x + inward * dx, y + inward * dy, z + inward * dz
            source_depth -= full * np.exp(-depth / np.float32(50))
        elif lesion.site == "brain":
            rx, ry, rz = (a - np.float32(c) for a, c in zip((p.x, p.y, p.z), lesion.centre, strict=True))
            r = np.sqrt(rx * rx + ry * ry + rz * rz) + np.float32(0.5)
            size = np.float32(np.prod(lesion.axes) ** (1 / 3))
            # Fades toward the skull, which does not give way.
            shift = np.float32(0.45 * lesion.push) * size * np.exp(-((r / (2.2 * size)) ** 2)) * step(depth - 9, 9)
            x, y, z = x - shift * rx / r, y - shift * ry / r, z - shift * rz / r
    return Points(x, y, z, p.edge), source_depth


def swelling(lesions: list[Lesion], p: Points) -> Array | float:
    """How much wider the blood keeps sulci and fissures, mm half-width."""
    total: Array | float = 0.0
    for lesion in lesions:
        if lesion.kind == "subarachnoid":
            total = total + _region(lesion, p) * np.float32(lesion.push)
    return total


def _noise(lesion: Lesion) -> Noise:
    """The lesion's own noise field."""
    size = 24.0
    if lesion.site == "brain":
        size = 2.0 * min(lesion.axes[0], lesion.axes[1])
    return Noise(np.random.Generator(np.random.Philox(lesion.seed)), float(np.clip(size, 5, 30)))


def _region(lesion: Lesion, p: Points) -> Array:
    """Where in the head a lesion without a shape of its own may be, 0 to 1."""
    terms = []
    for values, centre, axis in zip((p.x, p.y, p.z), lesion.centre, lesion.axes, strict=True):
        terms.append((values - np.float32(centre)) / np.float32(axis))
    return bump(*terms)


def apply(lesions: list[Lesion], brain: Brain) -> dict[int, Array]:
    """Draws the lesions into brain.hu and returns the share of blood (points,) of each code present."""
    blood: dict[int, Array] = {}
    for lesion in sorted(lesions, key=lambda each: each.code):
        noise = _noise(lesion)
        if lesion.kind in CONFOUNDERS:
            _confound(lesion, brain, noise)
            continue
        chosen, amount = _amount(lesion, brain, noise)
        part = brain.position.where(chosen)
        if lesion.oedema_mm > 0:
            _oedema(lesion, brain, noise)
        blend(brain.hu, chosen, amount, _density(lesion, part, noise))
        for other in blood.values():
            other[chosen] *= 1 - amount
        total = blood.setdefault(lesion.code, np.zeros(len(brain.hu), np.float32))
        total[chosen] = total[chosen] + amount * (1 - total[chosen])
    return blood


def _amount(lesion: Lesion, brain: Brain, noise: Noise) -> tuple[Array, Array]:
    """Which points a bleeding touches, and its share of their voxels."""
    if lesion.kind == "intraventricular":
        chosen = np.flatnonzero(brain.ventricle < 1)
        q = brain.position.where(chosen)
        amount = q.filled(brain.ventricle[chosen] + 0.15)
        return chosen, amount * _filling(lesion, q, noise)
    if lesion.kind == "subarachnoid":
        chosen = np.flatnonzero(brain.fluid > 0.02)
        q = brain.position.where(chosen)
        patchy = step(_region(lesion, q) - 0.35 + 0.16 * noise.of(q), 0.12)
        return chosen, brain.fluid[chosen] * patchy
    if lesion.site in ("vault", "crossing"):
        chosen = np.flatnonzero(brain.depth < lesion.axes[2] * 1.9 + 2)
        return chosen, _under_the_table(lesion, brain, chosen, noise, np.float32(lesion.gap_mm))
    if lesion.site in ("falx", "tentorium"):
        return _on_a_membrane(lesion, brain, noise)
    return _within(lesion, brain, noise)


def _under_the_table(lesion: Lesion, brain: Brain, chosen: Array, noise: Noise, gap_mm: float | np.floating) -> Array:
    """Shares of what lies on the inner table, as thick as the lesion is there."""
    q, depth = brain.position.where(chosen), brain.depth[chosen]
    return q.filled(np.maximum(depth - thickness(lesion, q, noise), gap_mm - depth))


def _filling(lesion: Lesion, q: Points, noise: Noise) -> Array:
    """How far a ventricle is filled: blood settles behind (the patient lies on the back) or clots in one part."""
    if lesion.mixed > 0.5:
        return step(_region(lesion, q) - 0.3 + 0.12 * noise.of(q), 0.08)
    front, back = 34.0, -78.0
    height = back + (front - back) * lesion.level
    level = height - q.y + 0.15 * q.z
    if lesion.mixed > 0:
        level = level + 1.2 * noise.of(q)
    return step(level, 1.0)


def _on_a_membrane(lesion: Lesion, brain: Brain, noise: Noise) -> tuple[Array, Array]:
    """A thin subdural sheet along the falx or on the tentorium."""
    p = brain.position
    reach = (np.abs(p.y - lesion.centre[1]) < lesion.axes[0] + 5) & (np.abs(p.z - lesion.centre[2]) < 60)
    chosen = np.flatnonzero(reach & (brain.depth > 0))
    q, w = p.where(chosen), noise.at(p.x[chosen] * 0, p.y[chosen], p.z[chosen])
    along = ((q.y - lesion.centre[1]) / lesion.axes[0]) ** 2
    if lesion.site == "falx":
        e2 = along + ((q.z - lesion.centre[2]) / lesion.axes[1]) ** 2
        height = brain.p.x[chosen] * lesion.side
        beyond = brain.tent[chosen] < 2
    else:
        e2 = along + ((q.x - 32 * lesion.side) / 28) ** 2
        height = brain.tent[chosen]
        beyond = q.y + 12 + 0.62 * np.abs(q.x) > 0
    profile = np.sqrt(np.maximum(1 - e2, 0)) * (1 + 0.3 * w)
    thick = lesion.axes[2] * profile - 0.3 * (e2 > 1) - 9 * beyond
    return chosen, q.filled(np.maximum(height - thick, -height + 0.3))


def _shape(lesion: Lesion, p: Points, noise: Noise) -> Array:
    """Signed distance to an irregular ellipsoid, mm."""
    size = np.float32(np.prod(lesion.axes) ** (1 / 3))
    return ellipsoid(p, lesion.centre, lesion.axes) + np.float32(0.17) * size * noise.of(p)


def _near_lesion(lesion: Lesion, brain: Brain, margin: float) -> Array:
    """Indices of the points around a lesion in the brain."""
    (x, y, z), (rx, ry, rz) = lesion.centre, (1.5 * axis for axis in lesion.axes)
    low = (x - rx - margin, y - ry - margin, z - rz - margin)
    high = (x + rx + margin, y + ry + margin, z + rz + margin)
    return near(brain.position, low, high)


def _within(lesion: Lesion, brain: Brain, noise: Noise) -> tuple[Array, Array]:
    """An irregular clot in the brain."""
    chosen = _near_lesion(lesion, brain, 2)
    q = brain.position.where(chosen)
    inside = np.maximum(_shape(lesion, q, noise), 1.6 - brain.depth[chosen])
    return chosen, q.filled(inside)


def _oedema(lesion: Lesion, brain: Brain, noise: Noise) -> None:
    """A dark rim around a clot, broader in white matter."""
    chosen = _near_lesion(lesion, brain, lesion.oedema_mm + 4)
    q = brain.position.where(chosen)
    distance = _shape(lesion, q, noise) - lesion.oedema_mm * (1 + 0.4 * noise.at(q.y, q.z, q.x))
    rim = step(-distance, 2.0) * step(brain.hu[chosen] - 20, 5)
    brain.hu[chosen] -= np.float32(6 + lesion.oedema_mm * 0.6) * rim


def _density(lesion: Lesion, q: Points, noise: Noise) -> Array:
    """HU of a bleeding at points: even or swirled, or settled into a light and a dense part."""
    texture = noise.at(q.x * 2.1, q.y * 2.1, q.z * 2.1)
    hu = GREY + np.float32(lesion.contrast) + np.float32(2.2) * texture
    if lesion.mixed <= 0 or lesion.kind == "intraventricular":
        return hu
    other = GREY + np.float32(lesion.second) + np.float32(2) * texture
    if lesion.kind == "subdural":
        height = (q.y - lesion.centre[1] * SURFACE_MM) / np.float32(lesion.axes[0]) + 0.5 * noise.of(q)
        share = step(height + 1.2 * lesion.mixed - 0.5, 0.22)
    else:
        share = step(noise.at(q.z * 1.3, q.x * 1.3, q.y * 1.3) + 2 * lesion.mixed - 1.3, 0.4)
    return hu + share * (other - hu)


def _confound(lesion: Lesion, brain: Brain, noise: Noise) -> None:
    """What is not bleeding: old and fresh infarcts, hygromas, dense tumours, calcified spots."""
    if lesion.kind == "hygroma":
        chosen = np.flatnonzero(brain.depth < lesion.axes[2] * 1.9 + 2)
        amount = _under_the_table(lesion, brain, chosen, noise, 0.2)
        blend(brain.hu, chosen, amount, np.float32(CSF + lesion.contrast))
        return
    chosen = _near_lesion(lesion, brain, 3)
    q = brain.position.where(chosen)
    shape = _shape(lesion, q, noise)
    if lesion.kind == "infarct":
        amount = step(-shape, 2.2) * step(brain.hu[chosen] - 12, 4) * step(brain.depth[chosen] - 1, 1)
        blend(brain.hu, chosen, amount, np.float32(CSF + lesion.contrast))
    elif lesion.kind == "fresh infarct":
        brain.hu[chosen] -= np.float32(lesion.contrast) * step(-shape, 3.0) * step(brain.hu[chosen] - 20, 4)
    else:
        inside = np.maximum(shape, 0.5 - brain.depth[chosen])
        blend(brain.hu, chosen, q.filled(inside), GREY + np.float32(lesion.contrast) + 2 * noise.of(q))


def typed_mask(shares: dict[int, Array], shape: tuple[int, ...]) -> np.ndarray:
    """The code of the largest part of each voxel that blood fills at least half of, else 0.

    Args:
        shares: (slices, rows, columns) of each code of `labels`, from 0 to 1.
        shape: of the mask, which is all 0 without shares.

    Returns:
        uint8 of that shape.
    """
    if not shares:
        return np.zeros(shape, np.uint8)
    codes = np.array(sorted(shares), np.uint8)
    stack = np.stack([shares[int(code)] for code in codes])
    return np.where(stack.sum(axis=0) >= 0.5, codes[stack.argmax(axis=0)], 0).astype(np.uint8)
