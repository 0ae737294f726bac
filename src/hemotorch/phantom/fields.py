"""The alphabet of the phantom: smooth random fields, and signed distances (mm, negative inside) of simple shapes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

Array = np.ndarray  #: float32 values at a list of points, shape (points,) unless a docstring says otherwise

Waypoint = tuple[float, float, float, float]  #: x, y, z and radius of a tube, mm

WHOLE = slice(None)  #: all points, where a choice of them is asked for
LATTICE = 40  #: nodes along each edge of a periodic noise lattice
SPLINE_GAIN = 3.0  #: makes up for what three cubic splines take off the standard deviation of white noise
SMOOTH = 2.0  #: Gaussian blur of the lattice, nodes


def generator(*key: int) -> np.random.Generator:
    """Random numbers that depend on the key alone, not on what was drawn before."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([int(k) & 0xFFFFFFFF for k in key])))


@dataclass(frozen=True, eq=False)
class Points:
    """Positions in the head: x to the patient's right, y to the front, z to the top, millimetres from the anterior
    commissure, in the frame of the MNI average head. `edge` is the width (mm) over which a surface is smoothed."""

    x: Array
    y: Array
    z: Array
    edge: float

    def __len__(self) -> int:
        return len(self.x)

    def where(self, keep: Array) -> Points:
        """The chosen points: a boolean mask or indices."""
        return Points(self.x[keep], self.y[keep], self.z[keep], self.edge)

    def moved(self, dx: Array | float, dy: Array | float, dz: Array | float) -> Points:
        """The points displaced by millimetres."""
        return Points(self.x + dx, self.y + dy, self.z + dz, self.edge)

    def filled(self, distance: Array) -> Array:
        """How much of a point's voxel lies inside a surface, 0 to 1, from the signed distance in mm."""
        return np.clip(np.float32(0.5) - distance / np.float32(self.edge), 0, 1)


class Noise:
    """A smooth, periodic random field in 3-D with mean 0 and standard deviation 1."""

    def __init__(self, rng: np.random.Generator, scale_mm: float):
        """scale_mm: typical distance between neighbouring zero crossings."""
        white = rng.standard_normal((LATTICE,) * 3, dtype=np.float32)
        smooth = ndimage.gaussian_filter(white, SMOOTH, mode="wrap", truncate=3)
        self.lattice = np.pad((smooth / smooth.std()).astype(np.float32), (0, 1), mode="wrap")
        # Zero crossings of Gaussian-filtered white noise lie pi * sqrt(2) * sigma apart (Rice's formula).
        self.step_mm = scale_mm / (np.pi * np.sqrt(2) * SMOOTH)
        self.steepness: Array | None = None
        #: standard deviation of a directional derivative, 1/mm: value / slope is roughly the distance to a zero
        self.slope = float(1 / (np.sqrt(2) * SMOOTH * self.step_mm))

    def at(self, x: Array, y: Array, z: Array) -> Array:
        """Values at points, in mm."""
        return self._look_up(self.lattice, x, y, z)

    def to_zero(self, x: Array, y: Array, z: Array) -> Array:
        """Distance (mm) to the surface where the field is 0, first order: value over local slope."""
        if self.steepness is None:
            core = np.stack(np.gradient(np.pad(self.lattice[:-1, :-1, :-1], 1, mode="wrap")))[:, 1:-1, 1:-1, 1:-1]
            steep = np.sqrt((core**2).sum(axis=0)) / self.step_mm
            self.steepness = np.pad(steep.astype(np.float32), (0, 1), mode="wrap")
        steep = self._look_up(self.steepness, x, y, z)
        return np.abs(self.at(x, y, z)) / (steep + np.float32(0.4 * self.slope))

    def _look_up(self, lattice: Array, x: Array, y: Array, z: Array) -> Array:
        inverse = np.float32(1 / self.step_mm)
        (ix, fx), (iy, fy), (iz, fz) = (_cell(v * inverse) for v in (x, y, z))
        edge = LATTICE + 1
        corner = (ix * edge + iy) * edge + iz
        flat = lattice.ravel()

        def along_z(offset: int) -> Array:
            low = flat.take(corner + offset)
            return low + fz * (flat.take(corner + (offset + 1)) - low)

        near, far = along_z(0), along_z(edge * edge)
        near += fy * (along_z(edge) - near)
        far += fy * (along_z(edge * edge + edge) - far)
        return near + fx * (far - near)

    def of(self, p: Points) -> Array:
        """Values at Points."""
        return self.at(p.x, p.y, p.z)


def _cell(v: Array) -> tuple[Array, Array]:
    """The lattice cell a coordinate lies in, and how far in. Written out, since it is three times as fast as
    scipy.ndimage.map_coordinates, which was half of the phantom's time."""
    low = np.floor(v)
    return low.astype(np.int32) % LATTICE, v - low


def _knots(n: int, step: float, period: float) -> Array:
    """(n, nodes) cubic B-spline weights that carry values on nodes `period` apart to n samples `step` apart."""
    positions = np.arange(n) * (step / period) + 1
    nodes = int(np.ceil(positions[-1])) + 3
    t = np.abs(positions[:, None] - np.arange(nodes)[None])
    near = 2 / 3 - t**2 + t**3 / 2
    far = (2 - t) ** 3 / 6
    return np.where(t < 1, near, np.where(t < 2, far, 0)).astype(np.float32)


def grid_noise(
    rng: np.random.Generator, shape: tuple[int, int, int], step_mm: tuple[float, float, float], scale_mm: float
) -> Array:
    """A smooth field over a regular grid, (planes, rows, columns) float32, standard deviation about 1: random values on
    a coarse grid `scale_mm` apart, carried to the fine one by separable cubic splines."""
    weights = [_knots(n, step, scale_mm) for n, step in zip(shape, step_mm, strict=True)]
    coarse = rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32) * np.float32(SPLINE_GAIN)
    for axis, w in enumerate(weights):
        coarse = np.moveaxis(np.tensordot(w, coarse, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(coarse, dtype=np.float32)


def step(value: Array, width: float = 1.0) -> Array:
    """A smooth step from 0 (value <= -width) to 1 (value >= width)."""
    t = np.clip(value / np.float32(2 * width) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def bump(*terms: Array) -> Array:
    """A Gaussian bump, 1 where all terms are 0."""
    total = terms[0] ** 2
    for term in terms[1:]:
        total = total + term**2
    return np.exp(-total)


def ellipsoid(p: Points, centre: tuple[float, ...], axes: tuple[float, ...]) -> Array:
    """Signed distance to an ellipsoid, first order."""
    x = (p.x - np.float32(centre[0])) / np.float32(axes[0])
    y = (p.y - np.float32(centre[1])) / np.float32(axes[1])
    z = (p.z - np.float32(centre[2])) / np.float32(axes[2])
    scaled = np.sqrt(x * x + y * y + z * z) + np.float32(1e-6)
    slope = np.sqrt((x / axes[0]) ** 2 + (y / axes[1]) ** 2 + (z / axes[2]) ** 2) + np.float32(1e-6)
    return (scaled * (scaled - 1) / slope).astype(np.float32)


def tube(p: Points, path: tuple[Waypoint, ...]) -> Array:
    """Signed distance to a tube along waypoints, the radius changing linearly between them."""
    return np.minimum.reduce([_cone(p, start, end) for start, end in pairwise(path)])


def _cone(p: Points, start: Waypoint, end: Waypoint) -> Array:
    """Signed distance to a piece of a tube, round at both ends."""
    sx, sy, sz, radius = (np.float32(v) for v in start)
    ux, uy, uz = end[0] - start[0], end[1] - start[1], end[2] - start[2]
    length2 = ux * ux + uy * uy + uz * uz + 1e-6
    dx, dy, dz = p.x - sx, p.y - sy, p.z - sz
    along = (dx * np.float32(ux) + dy * np.float32(uy) + dz * np.float32(uz)) / np.float32(length2)
    t = np.clip(along, 0, 1)
    ex, ey, ez = dx - t * np.float32(ux), dy - t * np.float32(uy), dz - t * np.float32(uz)
    return np.sqrt(ex * ex + ey * ey + ez * ez) - (radius + t * np.float32(end[3] - start[3]))


def smooth_min(a: Array, b: Array, k: float | np.floating) -> Array:
    """The smaller of two distances, rounded off over k mm where they meet."""
    h = np.clip(np.float32(0.5) + (b - a) / np.float32(2 * k), 0, 1)
    return b + h * (a - b) - np.float32(k) * h * (1 - h)


def smooth_max(a: Array, b: Array, k: float | np.floating) -> Array:
    """The larger of two distances, rounded off over k mm where they meet."""
    return -smooth_min(-a, -b, k)


def near(p: Points, low: tuple[float, float, float], high: tuple[float, float, float]) -> Array:
    """Indices of the points in a box, so that a small structure is computed only where it can be."""
    inside = (p.z > low[2]) & (p.z < high[2])
    inside &= (p.y > low[1]) & (p.y < high[1])
    inside &= (p.x > low[0]) & (p.x < high[0])
    return np.flatnonzero(inside)


def mirror(p: Points) -> Points:
    """Both sides folded onto x >= 0."""
    return Points(np.abs(p.x), p.y, p.z, p.edge)


def blend(hu: Array, where: Array | slice, amount: Array, value: Array | float | np.floating) -> None:
    """Mixes `value` into hu[where] in place: hu (1 - amount) + value amount."""
    old = hu[where]
    hu[where] = old + amount * (value - old)
