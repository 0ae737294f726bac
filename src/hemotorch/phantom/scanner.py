"""The CT that scans the phantom: protocol, kernel, blur, noise, artefacts; fast, in the image domain.

`projection.py` does the same the long way round. Both share `Kernel`, so that blur and noise have one source.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import ndimage, sparse

from hemotorch.phantom.fields import Array, Points, step
from hemotorch.phantom.presets import Preset

SOFT_CUTOFF, SHARP_CUTOFF = (0.36, 0.52), (0.60, 0.85)  #: line pairs per mm at which a kernel's MTF falls to 1/e
COARSE_PIXEL = 1.6  #: how much a kernel gives way to large pixels
VEIL_LP_MM = 0.13  #: where the veil's MTF falls to 1/e
COARSE_PX, COARSE_ANGLES = 96, 120  #: the grid on which beam hardening, streaks and the noise map are computed
WATER_MU = 0.0195  #: 1/mm at 66 keV, about the mean energy of a 120 kV beam behind its filter (NIST)
SHADING_NODES = (3, 4, 4)  #: of a shading, along slices, rows and columns
SHADED_HU = (-200, 300)  #: soft tissue; in bone and air nobody sees a shading
SHADING_KEY, RINGS_KEY = 0x5ADE, 0x0121  #: what a protocol's seed is joined with for shading and rings
IMPLANT_HU = 1900.0  #: brighter than bone after the blur of the coarse grid
SLOW_MM = 20.0  #: blur that tells a slow error, which scanners correct, from bands and streaks


@dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel: MTF(f) = exp(-(f / cutoff)^2) (1 + boost (f / cutoff)^2) before interpolation, less a
    `veil` that spreads over some millimetres (scatter, focal spot): the soft foot of every edge of bone."""

    cutoff: float  #: line pairs per mm
    boost: float
    veil: float

    def mtf(self, f: Array, pixel_mm: float) -> Array:
        """Transfer at f line pairs per mm, with the interpolation between detector cells as wide as a pixel."""
        # A coarse image is reconstructed (or averaged down) with a filter that its pixels can hold.
        cutoff = 1 / np.sqrt(self.cutoff**-2 + (COARSE_PIXEL * pixel_mm) ** 2)
        t = (f / np.float32(cutoff)) ** 2
        main = np.exp(-t) * (1 + np.float32(self.boost) * t) * np.sinc(f * np.float32(pixel_mm)) ** 2
        veil = np.exp(-((f / np.float32(VEIL_LP_MM)) ** 2))
        return main * (1 - np.float32(self.veil)) + np.float32(self.veil) * veil

    def noise_amplitude(self, f: Array, pixel_mm: float) -> Array:
        """Square root of the noise power, unscaled: the ramp filter's sqrt(f) times the MTF."""
        return np.sqrt(f) * self.mtf(f, pixel_mm)


@dataclass(frozen=True)
class Protocol:
    """How one scan was made. Lengths in mm, angles in degrees, levels in HU."""

    size_px: int
    pixel_mm: float
    slices: int
    slice_mm: float
    bottom_mm: float  #: lowest slice, in the head's own frame
    shift_mm: tuple[float, float]  #: head's centre off the image's centre, to its left, to its back
    angles_deg: tuple[float, float, float]  #: yaw, pitch (chin up), roll
    tilt_deg: float  #: gantry tilt that a correction took out by mixing slices; 0 none
    kernel: Kernel
    noise_hu: float  #: standard deviation in the middle of the brain
    level_hu: float  #: added to the soft tissue
    gain: float  #: on differences between soft tissues
    hardening: float  #: strength of beam hardening, 1 usual
    cupping_hu: float  #: brightness under the skull
    vertex_hu: float  #: added toward the vertex, where the section is small and bone all around
    motion_mm: float
    metal: bool
    table: float  #: height of the table behind the head, mm; head rest follows
    holder: int  #: 0 none, 1 cup-shaped head rest, 2 flat table, 3 bright cup
    seed: int
    shading_hu: float = 0.0  #: amplitude of a smooth field over soft tissue
    thickness_mm: float = 0.0  #: of a slice, if it is not the distance to the next
    rings_hu: float = 0.0  #: amplitude of rings around the middle of the image
    implants: bool = False  #: metal in the head makes streaks

    @staticmethod
    def sample(rng: np.random.Generator, preset: Preset) -> Protocol:
        """A random protocol around a preset's sizes; a share of the scans leaves them for the whole range."""
        pixel_mm, slice_mm = _sample_sizes(rng, preset)
        low = -58 - 0.4 * (preset.coverage_mm - 140)
        bottom_mm = float(np.clip(rng.normal(low, 13), low - 37, low + 28))
        covered_mm = preset.coverage_mm + rng.normal(6, 8) + (-45 - bottom_mm) * 0.8
        slices = int(np.clip(round(covered_mm / slice_mm), 12, 70))
        sharp = rng.random() < 0.22
        cutoff = rng.uniform(*(SHARP_CUTOFF if sharp else SOFT_CUTOFF))
        kernel = Kernel(float(cutoff), float(rng.uniform(0, 0.5)), float(rng.uniform(0, 0.035)))
        # Thin slices and sharp kernels are noisier; small pixels of a soft kernel are not.
        noise_hu = float(np.exp(rng.normal(np.log(5.2), 0.38))) * (1.6 if sharp else 1.0) * (5 / slice_mm) ** 0.3
        # Two families of scanners, one reading low and one high, and some between: grey matter at 25 to 50 HU.
        level_hu = float(-13 + 25 * rng.beta(0.55, 0.55))
        return Protocol(
            size_px=preset.size_px,
            pixel_mm=pixel_mm,
            slices=slices,
            slice_mm=slice_mm,
            bottom_mm=bottom_mm,
            shift_mm=(float(rng.normal(0, 7)), float(rng.normal(4, 8))),
            angles_deg=(float(rng.normal(0, 6)), float(rng.normal(9, 8)), float(rng.normal(0, 4))),
            tilt_deg=_sample_tilt(rng),
            kernel=kernel,
            noise_hu=float(np.clip(noise_hu, 3.0, 15)),
            level_hu=level_hu,
            gain=float(np.clip(rng.normal(1, 0.08), 0.8, 1.2)),
            hardening=float(np.clip(rng.gamma(2.2, 0.4), 0.1, 2.2)),
            cupping_hu=float(np.clip(rng.normal(6, 3), -1, 12)),
            vertex_hu=float(np.clip(rng.normal(5, 4), -2, 14)),
            motion_mm=float(rng.gamma(2, 1.2)) if rng.random() < 0.15 else 0.0,
            metal=bool(rng.random() < 0.06),
            table=float(rng.uniform(112, 150)),
            holder=int(rng.choice(3, p=(0.25, 0.55, 0.2))),
            seed=int(rng.integers(2**31)),
        )


def less_even(protocol: Protocol, rng: np.random.Generator, preset: Preset) -> Protocol:
    """A protocol with the shading and the offset that a preset asks for; itself if it asks for none.

    Args:
        protocol: as the preset's usual scanners have it.
        rng: of its own, so that everything else stays as it is.
        preset: with `shading_hu` and `offset_hu`.
    """
    if not preset.shading_hu and not preset.offset_hu:
        return protocol
    offset_hu = preset.offset_hu * float(rng.uniform(-1, 1))
    shading_hu = preset.shading_hu * float(rng.random())
    return replace(protocol, level_hu=protocol.level_hu + offset_hu, shading_hu=shading_hu)


def _sample_sizes(rng: np.random.Generator, preset: Preset) -> tuple[float, float]:
    """Pixel size and slice distance, mm."""
    pixel_mm = preset.pixel_mm * float(np.clip(rng.normal(1, preset.pixel_spread), 0.85, 1.18))
    slice_mm = preset.slice_mm * float(np.clip(rng.normal(1, 0.03), 0.9, 1.1))
    if rng.random() >= preset.vary:
        return pixel_mm, slice_mm
    usual_field = rng.random() < 0.8
    field_mm = float(rng.uniform(215, 270) if usual_field else rng.uniform(270, 500))
    return field_mm / preset.size_px, float(rng.uniform(2.5, 8.0))


def _sample_tilt(rng: np.random.Generator) -> float:
    """Degrees; 0 for most."""
    if rng.random() >= 0.2:
        return 0.0
    return float(rng.uniform(8, 24) * rng.choice((-1, 1), p=(0.2, 0.8)))


def frequencies(size: int, pixel_mm: float) -> Array:
    """Radial frequency of a real 2-D FFT, line pairs per mm, (size, size // 2 + 1) float32."""
    fy, fx = np.fft.fftfreq(size, pixel_mm), np.fft.rfftfreq(size, pixel_mm)
    return np.hypot(fy[:, None], fx[None]).astype(np.float32)


def blurred(hu: Array, kernel: Kernel, pixel_mm: float, rendered_mm: float) -> Array:
    """One slice seen through kernel and detector cells, (rows, columns) float32.

    The blur of having been rendered on pixels of `rendered_mm` is taken off as far as it can be.
    """
    f = frequencies(len(hu), pixel_mm)
    transfer = kernel.mtf(f, pixel_mm) * np.sinc(f * np.float32(pixel_mm)) ** 2
    return _filtered_slice(hu, transfer * _sharpening(f, pixel_mm, rendered_mm))


def sharpened(hu: Array, pixel_mm: float, rendered_mm: float) -> Array:
    """One slice without the blur of having been rendered on pixels of `rendered_mm`, as far as the detector cells will
    put it back."""
    f = frequencies(len(hu), pixel_mm)
    return _filtered_slice(hu, _sharpening(f, pixel_mm, rendered_mm))


def _filtered_slice(hu: Array, transfer: Array) -> Array:
    return np.fft.irfft2(np.fft.rfft2(hu) * transfer, s=hu.shape).astype(np.float32)


def _sharpening(f: Array, pixel_mm: float, rendered_mm: float) -> Array:
    """What undoes linear interpolation from pixels of `rendered_mm`, within what detector cells blur again."""
    cells = np.sinc(f * np.float32(pixel_mm)) ** 2
    interpolation = np.sinc(f * np.float32(rendered_mm)) ** 2
    return np.minimum(1 / np.maximum(interpolation, 0.4), 1.5 / np.maximum(cells, 0.1))


def texture(rng: np.random.Generator, size: int, kernel: Kernel, pixel_mm: float) -> Array:
    """Noise of standard deviation 1 with the spectrum of filtered back-projection, (size, size) float32."""
    amplitude = kernel.noise_amplitude(frequencies(size, pixel_mm), pixel_mm)
    white = rng.standard_normal((size, size), dtype=np.float32)
    noise = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=(size, size)).astype(np.float32)
    return noise / noise.std()


@lru_cache(maxsize=2)
def _projector(size: int, angles: int) -> tuple[sparse.csr_matrix, Array]:
    """A parallel-beam projector (angles * size, size * size) for coarse images, and the ramp filter (FFT)."""
    ys, xs = np.mgrid[:size, :size].astype(np.float32) - (size - 1) / 2
    cells = np.arange(size * size)
    inside = (np.hypot(ys, xs) < size / 2 - 1).ravel()
    rows, columns, values = [], [], []
    for k in range(angles):
        angle = np.pi * k / angles
        t = (xs * np.cos(angle) + ys * np.sin(angle)).ravel() + (size - 1) / 2
        low = np.floor(t).astype(np.int64)
        for shift, weight in ((0, 1 - (t - low)), (1, t - low)):
            good = inside & (low + shift >= 0) & (low + shift < size)
            rows.append(k * size + low[good] + shift)
            columns.append(cells[good])
            values.append(weight[good])
    shape = (angles * size, size * size)
    matrix = sparse.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape)
    return matrix.astype(np.float32), np.abs(np.fft.rfftfreq(2 * size)).astype(np.float32)


def _filtered(sinogram: Array, size: int) -> Array:
    """Ramp-filtered back-projection on the coarse grid. sinogram: (angles * size, slices)."""
    matrix, ramp = _projector(size, COARSE_ANGLES)
    views = sinogram.reshape(COARSE_ANGLES, size, -1)
    padded = np.fft.rfft(views, 2 * size, axis=1) * (2 * ramp)[None, :, None]
    filtered = np.fft.irfft(padded, 2 * size, axis=1)[:, :size].astype(np.float32)
    return matrix.T @ filtered.reshape(COARSE_ANGLES * size, -1) * np.float32(np.pi / (2 * COARSE_ANGLES))


def artefacts(hu: Array, protocol: Protocol, rng: np.random.Generator) -> tuple[Array, Array]:
    """Beam hardening, streaks of motion and metal, and where the noise is strong.

    Bone's path lengths are projected, bent as a beam bends them, and projected back, on a coarse grid.

    Args:
        hu: (slices, rows, columns) float32.
        protocol: how the scan is made.
        rng: of the streaks.

    Returns:
        HU to add, and a factor on the noise, both (slices, COARSE_PX, COARSE_PX).
    """
    size, slices = COARSE_PX, len(hu)
    zoom = (1, size / hu.shape[1], size / hu.shape[2])
    coarse = ndimage.zoom(hu, zoom, order=1, grid_mode=True, mode="nearest")
    cell_mm = protocol.pixel_mm * protocol.size_px / size
    matrix, _ = _projector(size, COARSE_ANGLES)
    flat = coarse.reshape(slices, -1).T
    bone = np.clip(flat - 120, 0, 3000) / np.float32(1000)
    water = np.clip(flat / 1000 + 1, 0, 3)
    bone_path = (matrix @ bone) * np.float32(cell_mm / 10)  # cm of extra water
    path = (matrix @ water) * np.float32(cell_mm * WATER_MU)
    bent = -0.005 * protocol.hardening * bone_path**2 - 0.002 * protocol.hardening * bone_path * path
    if protocol.motion_mm > 0:
        bent = bent + _motion(path, protocol.motion_mm / cell_mm, rng, slices)
    if protocol.metal:
        bent = bent + _metal(matrix, rng, slices, size)
    if protocol.implants:
        shadow = matrix @ (np.clip(flat - IMPLANT_HU, 0, 3000) / np.float32(1500))
        bent = bent + 0.3 * shadow * rng.uniform(0.0, 1.2, shadow.shape).astype(np.float32)
    starved = np.exp(np.minimum(path, 9.5) / 2)
    grain = rng.standard_normal(path.shape, dtype=np.float32) * starved
    views = grain.reshape(COARSE_ANGLES, size, slices)
    grain = ndimage.gaussian_filter(views, (0, 0.8, 0)).reshape(path.shape)
    to_hu = np.float32(1000 / (WATER_MU * cell_mm))
    added = _evened(_filtered(bent.astype(np.float32), size) * to_hu, water, cell_mm)
    streaks = _filtered(grain, size)
    streaks *= 0.22 * protocol.noise_hu / max(float(streaks[(water > 0.9)].std()), 1e-6)
    in_tissue = 0.25 + 0.75 * np.clip((water - 0.5) * 4, 0, 1)
    to_add = np.clip(added + streaks, -400, 400) * in_tissue
    volume = (slices, size, size)
    noise = _noise_level(matrix, starved, water)
    return to_add.T.reshape(volume).astype(np.float32), noise.T.reshape(volume).astype(np.float32)


def _motion(path: Array, moved_cells: float, rng: np.random.Generator, slices: int) -> Array:
    """What a head that moves during some views adds to its rays."""
    jump = np.zeros((COARSE_ANGLES, 1, slices), np.float32)
    start = int(rng.integers(COARSE_ANGLES))
    jump[start : start + int(rng.integers(5, 30))] = rng.normal(0, moved_cells, slices)
    views = path.reshape(COARSE_ANGLES, COARSE_PX, slices)
    return (jump * np.gradient(views, axis=1)).reshape(path.shape) * 0.5


def _noise_level(matrix: sparse.csr_matrix, starved: Array, water: Array) -> Array:
    """A factor on the noise of each coarse cell, 1 in the middle of the tissue."""
    level = np.sqrt((matrix.T @ starved**2) / COARSE_ANGLES + 1)
    tissue = (water > 0.97) & (water < 1.1)
    middle = np.median(level[tissue]) if tissue.any() else level.mean()
    return np.clip(level / middle, 0.25, 3)


def _evened(added: Array, water: Array, cell_mm: float) -> Array:
    """Takes most of the slow part off, as a scanner's own bone correction does: bands and streaks stay. Bone's own
    error is replaced by its neighbours', since coarse cells would smear it over the brain beside it."""
    cube = added.reshape(COARSE_PX, COARSE_PX, -1)
    inside = ((water > 0.9) & (water < 1.1)).reshape(cube.shape)
    weight = inside.astype(np.float32)

    def spread(sigma: float, floor: float) -> Array:
        blur = (sigma, sigma, 0)
        total = ndimage.gaussian_filter(cube * weight, blur)
        return total / (ndimage.gaussian_filter(weight, blur) + np.float32(floor))

    slow = spread(SLOW_MM / cell_mm, 0.02)
    filled = np.where(inside, cube, spread(1.2, 1e-3))
    return (filled - np.float32(0.92) * slow).reshape(added.shape)


def _metal(matrix: sparse.csr_matrix, rng: np.random.Generator, slices: int, size: int) -> Array:
    """What a clip or a plate in a few slices does to its rays."""
    image = np.zeros((size, size, slices), np.float32)
    z = int(rng.integers(0, max(slices - 3, 1)))
    y, x = rng.integers(size * 3 // 10, size * 7 // 10, 2)
    image[y, x, z : z + int(rng.integers(1, 3))] = 1.0
    shadow = matrix @ image.reshape(-1, slices)
    return (0.3 * shadow * rng.uniform(0.1, 1.2, shadow.shape)).astype(np.float32)


def upsampled(coarse: Array, size: int) -> Array:
    """One coarse slice on the image's grid, (size, size) float32."""
    factor = size / coarse.shape[0]
    return ndimage.zoom(coarse, factor, order=1, grid_mode=True, mode="nearest", output=np.float32)[:size, :size]


def finish(hu: Array, protocol: Protocol, rendered_mm: float) -> Array:
    """From tissue to image: (slices, rows, columns) float32 in, the same out. Kernel, artefacts, noise."""
    rng = np.random.Generator(np.random.Philox(protocol.seed))
    added, noise_map = artefacts(hu, protocol, rng)
    out = np.empty_like(hu)
    for k in range(len(hu)):
        image = blurred(hu[k], protocol.kernel, protocol.pixel_mm, rendered_mm)
        grain = texture(rng, protocol.size_px, protocol.kernel, protocol.pixel_mm)
        image += upsampled(added[k], protocol.size_px)
        image += grain * upsampled(noise_map[k], protocol.size_px) * np.float32(protocol.noise_hu)
        out[k] = image
    return out + rings(protocol, len(hu)) if protocol.rings_hu else out


def rings(protocol: Protocol, slices: int) -> Array:
    """Rings around the middle of the image, as detector cells that are off leave them: (slices, rows, columns) HU."""
    rng = np.random.Generator(np.random.Philox([protocol.seed, RINGS_KEY]))
    size = protocol.size_px
    y, x = np.mgrid[:size, :size].astype(np.float32) - (size - 1) / 2
    radius = np.hypot(y, x)
    cells = np.arange(size)
    off = rng.standard_normal(size) * (rng.random(size) < 0.25)
    off = off + np.convolve(off, [-0.5, 0, -0.5], "same")
    fades = protocol.rings_hu / np.sqrt(1 + cells / 12)
    image = np.interp(radius, cells, off * fades).astype(np.float32)
    return image * rng.uniform(0.6, 1.4, (slices, 1, 1)).astype(np.float32)


def shaded(hu: Array, protocol: Protocol) -> Array:
    """Images with a smooth field over their soft tissue, as scanners whose correction is amiss have it.

    Args:
        hu: (slices, rows, columns) float32.
        protocol: with `shading_hu`, the field's amplitude.

    Returns:
        The same shape: cubic splines through normal values at SHADING_NODES nodes, times the amplitude. Neighbouring
        slices are shaded alike.
    """
    if not protocol.shading_hu:
        return hu
    rng = np.random.Generator(np.random.Philox([protocol.seed, SHADING_KEY]))
    nodes = rng.standard_normal(SHADING_NODES, dtype=np.float32) * np.float32(protocol.shading_hu)
    slices, rows, columns = hu.shape
    low, high = SHADED_HU
    # Slices first, while they are small: in plane it is then as quick as two products of matrices.
    per_slice = ndimage.zoom(nodes, (slices / SHADING_NODES[0], 1, 1), order=3, mode="nearest")
    down, across = _spline_weights(rows, SHADING_NODES[1]), _spline_weights(columns, SHADING_NODES[2])
    out = hu.copy()
    for index in range(slices):
        field = down @ per_slice[index] @ across.T
        out[index] += field * ((hu[index] >= low) & (hu[index] <= high))
    return out


def _spline_weights(size: int, nodes: int) -> Array:
    """(size, nodes) how much each node counts at each pixel, the outer nodes at the outer pixels."""
    return ndimage.zoom(np.eye(nodes, dtype=np.float32), (size / nodes, 1), order=3, mode="nearest")


def holder_hu(protocol: Protocol) -> Array:
    """(rows, columns) HU of table and head rest, -1000 elsewhere: the same in every slice."""
    size, pixel = protocol.size_px, protocol.pixel_mm
    y, x = (np.mgrid[:size, :size].astype(np.float32) - (size - 1) / 2) * np.float32(pixel)
    edge = np.float32(max(pixel, 1.0))
    hu = np.full((size, size), -1000.0, np.float32)

    def layer(distance: Array, value: float) -> None:
        hu[:] += np.clip(0.5 - distance / edge, 0, 1) * (value - hu)

    x0, y0 = protocol.shift_mm
    behind = y0 + 107.0
    if protocol.holder == 1:
        cup = np.hypot((x - x0) / 1.02, (y - (behind - 106)) / 1.0) - 114
        reach = np.maximum(np.abs(cup) - 1.3, behind - 70 - y)
        layer(np.maximum(np.abs(cup + 4) - 3, behind - 20 - y), -930)
        layer(reach, 20 + 60 * ((protocol.seed % 7) / 7))
    elif protocol.holder == 3:  # a shell of a carbon fibre that is as bright as bone, up to the ears
        cup = np.hypot((x - x0) / 0.95, (y - (behind - 108)) / 1.05) - 116
        layer(np.maximum(np.abs(cup + 5) - 4, behind - 60 - y), -930)
        layer(np.maximum(np.abs(cup) - 1.6, behind - 60 - 8 * (protocol.seed % 7) - y), 60 + 60 * (protocol.seed % 5))
    elif protocol.holder == 2:
        layer(np.maximum(np.abs(y - behind - 9) - 9, np.abs(x - x0) - 70), -940)
    top = y0 + protocol.table + 14 + 0.0022 * (x - x0) ** 2
    layer(np.maximum(np.abs(y - top - 9) - 9, np.abs(x - x0) - 200), -900)
    layer(np.maximum(np.minimum(np.abs(y - top), np.abs(y - top - 18)) - 0.9, np.abs(x - x0) - 200), -150)
    return hu


def mixed_slices(volume: Array, protocol: Protocol) -> Array:
    """What a tilt correction does: each row is mixed from two neighbouring slices, its own share each."""
    rows, slices = volume.shape[1], len(volume)
    back = (np.arange(rows) - (rows - 1) / 2) * protocol.pixel_mm
    offset = back * np.tan(np.radians(protocol.tilt_deg)) / protocol.slice_mm
    position = np.clip(np.arange(slices)[:, None] + offset[None], 0, slices - 1)
    low = np.minimum(np.floor(position).astype(int), slices - 2)
    share = (position - low).astype(np.float32)[..., None]
    row = np.arange(rows)[None]
    return volume[low, row] * (1 - share) + volume[low + 1, row] * share


def cupping(p: Points, depth: Array, protocol: Protocol) -> Array:
    """Brightness of the brain (points,), HU: under the skull, fading over a centimetre or two, and at the vertex."""
    under = np.maximum(depth, 0)
    skull = 0.3 * np.exp(-under / np.float32(5)) + 0.8 * np.exp(-under / np.float32(15))
    return np.float32(protocol.cupping_hu) * skull + np.float32(protocol.vertex_hu) * step(p.z - 50, 28)
