"""The scanner the long way round: tissue to attenuation, projection, beam, photons, filtered back-projection, HU.

Parallel rays in one plane, a detector cell as wide as a pixel. It shares `Kernel` with the fast way, so that a test can
hold the two against each other.
"""

from __future__ import annotations

import numpy as np

from hemotorch.hu import from_attenuation
from hemotorch.phantom.fields import Array
from hemotorch.phantom.scanner import Kernel, Protocol, sharpened

ANGLES_A_PIXEL = np.pi / 2  #: views over 180 degrees for each pixel of the image's side: enough not to alias
BONE_HU = 250.0  #: above it, the excess over water counts as bone mineral

#: A 120 kV beam behind 6 mm of aluminium in three bins: share of the detected energy, and linear attenuation (1/mm) of
#: water and of dense cortical bone (1.92 g/cm3), after NIST's tables (Hubbell and Seltzer) at 50, 70 and 95 keV.
BEAM = np.array([0.27, 0.43, 0.30], np.float32)
WATER = np.array([0.0227, 0.0193, 0.0173], np.float32)
BONE = np.array([0.0814, 0.0503, 0.0368], np.float32)
EFFECTIVE_WATER = float(BEAM @ WATER)
EFFECTIVE_BONE = float(BEAM @ BONE)
CORTICAL_HU = 1000 * (EFFECTIVE_BONE / EFFECTIVE_WATER - 1)  #: HU of that bone in the effective beam


def project(image: Array, angles: Array) -> Array:
    """Line integrals of a square image, in units of its values times pixels: (angles, size) float32.

    Every pixel is projected as four, since whole ones leave a checkerboard: along the diagonals their rays lie 0.7
    cells apart, and linear weights at that distance do not add up to the same everywhere.
    """
    size = len(image)
    ys, xs, inside = _grid(size)
    flat = image.ravel()[inside].astype(np.float64) / 4
    out = np.zeros((len(angles), size + 2))
    for k, angle in enumerate(angles):
        along, across = 0.25 * np.cos(angle), 0.25 * np.sin(angle)
        low, share = _cells(xs, ys, angle, size)
        for shift in (along + across, along - across, across - along, -along - across):
            position = share + np.float32(shift)
            cell = low + np.floor(position).astype(np.int64)
            weight = flat * (position - np.floor(position))
            out[k] += np.bincount(cell, flat - weight, size + 2) + np.bincount(cell + 1, weight, size + 2)
    return out[:, :size].astype(np.float32)


def back_project(views: Array, angles: Array) -> Array:
    """The mean over all directions of what each pixel's rays hold, times pi: (size, size) float32."""
    size = views.shape[1]
    ys, xs, inside = _grid(size)
    total = np.zeros(len(xs), np.float32)
    for view, angle in zip(views, angles, strict=True):
        low, share = _cells(xs, ys, angle, size)
        total += view[low] + share * (view[np.minimum(low + 1, size - 1)] - view[low])
    out = np.zeros(size * size, np.float32)
    out[inside] = total * np.float32(np.pi / len(angles))
    return out.reshape(size, size)


def _grid(size: int) -> tuple[Array, Array, Array]:
    """Row and column of the pixels inside the scanner's circle, from the centre, and which they are."""
    ys, xs = np.mgrid[:size, :size].astype(np.float32) - np.float32((size - 1) / 2)
    inside = (np.hypot(ys, xs) < size / 2 - 1).ravel()
    return ys.ravel()[inside], xs.ravel()[inside], inside


def _cells(xs: Array, ys: Array, angle: float, size: int) -> tuple[Array, Array]:
    """The detector cell that each pixel's ray meets, and how far it lies toward the next."""
    t = xs * np.float32(np.cos(angle)) + ys * np.float32(np.sin(angle)) + np.float32((size - 1) / 2)
    low = t.astype(np.int64)
    return low, (t - low).astype(np.float32)


def filtered(views: Array, kernel: Kernel, pixel_mm: float) -> Array:
    """Ramp and kernel along the detector. The interpolation of `back_project` and of `project` does the rest of the
    blur that `Kernel.mtf` holds, so that its share is divided out here."""
    size = views.shape[1]
    n = 2 * size
    distance = np.minimum(np.arange(n), n - np.arange(n))
    ramp = np.where(distance % 2 == 1, -1 / (np.pi * np.maximum(distance, 1)) ** 2, 0.0)
    ramp[0] = 0.25
    response = np.fft.rfft(ramp).real
    f = np.fft.rfftfreq(n, pixel_mm).astype(np.float32)
    response = response * kernel.mtf(f, pixel_mm) / np.sinc(f * pixel_mm) ** 2
    spectrum = np.fft.rfft(views, n, axis=1) * response
    return np.fft.irfft(spectrum, n, axis=1)[:, :size].astype(np.float32)


def scanned(hu: Array, protocol: Protocol, photons: float, rng: np.random.Generator) -> Array:
    """One slice (rows, columns) of true HU as the scanner shows it. photons: per ray without a patient."""
    size, pixel = len(hu), protocol.pixel_mm
    views = int(size * ANGLES_A_PIXEL)
    angles = np.pi * np.arange(views) / views
    mineral = np.maximum(hu - BONE_HU, 0) / np.float32(CORTICAL_HU)
    soft = np.maximum(1 + np.minimum(hu, BONE_HU) / 1000, 0) + mineral * BONE_HU / CORTICAL_HU
    bone = project(mineral, angles) * pixel
    water = project(soft, angles) * pixel
    seen = np.zeros_like(bone)
    for share, w, b in zip(BEAM, WATER, BONE, strict=True):
        seen += share * np.exp(-np.minimum(w * water + b * bone, 30))
    counts = rng.poisson(np.maximum(photons * seen, 1e-3)).astype(np.float32)
    path = -np.log(np.maximum(counts, 0.5) / photons)
    path = _water_corrected(path) + _bone_corrected(bone, water, protocol.hardening)
    mu = back_project(filtered(path, protocol.kernel, pixel), angles) / np.float32(pixel)
    image = from_attenuation(mu, EFFECTIVE_WATER, 0.0)
    ys, xs = np.mgrid[:size, :size] - (size - 1) / 2
    return np.where(np.hypot(ys, xs) < size / 2 - 1, image, -1000).astype(np.float32)


def _water_corrected(path: Array) -> Array:
    """The measured path as if the beam had one energy, from the path through as much water: a scanner's calibration."""
    mm = np.linspace(0, 450, 451)
    through = -np.log((BEAM[:, None] * np.exp(-WATER[:, None] * mm)).sum(axis=0))
    return np.interp(path, through, mm * EFFECTIVE_WATER).astype(np.float32)


def _bone_corrected(bone: Array, water: Array, strength: float) -> Array:
    """What a scanner's bone correction adds back: all but a share of the error that bone leaves after water's
    (a fifth at strength 1, ours)."""
    mono = EFFECTIVE_WATER * water + EFFECTIVE_BONE * bone
    seen = sum(s * np.exp(-(w * water + b * bone)) for s, w, b in zip(BEAM, WATER, BONE, strict=True))
    error = mono - _water_corrected(-np.log(np.maximum(seen, 1e-12)))
    return (error * np.float32(1 - np.clip(0.2 * strength, 0, 1))).astype(np.float32)


def photons_for(noise_hu: float, protocol: Protocol, path_mm: float = 190.0) -> float:
    """Photons per ray that give a noise of `noise_hu` behind `path_mm` of head.

    The variance of a pixel is pi^2 / views / pixel^2 times the filter's mean square times a ray's variance 1 / counts.
    """
    size, pixel = protocol.size_px, protocol.pixel_mm
    f = np.linspace(0, 0.5 / pixel, 2000, dtype=np.float32)
    power = float(np.trapezoid((f * protocol.kernel.mtf(f, pixel)) ** 2, f)) * 2 * pixel**2 * pixel
    views = int(size * ANGLES_A_PIXEL)
    pixel_variance = (noise_hu * EFFECTIVE_WATER / 1000 * pixel) ** 2
    ray_variance = pixel_variance / (np.pi**2 / views * power)
    return float(np.exp(EFFECTIVE_WATER * path_mm) / ray_variance)


def finish_projected(hu: Array, protocol: Protocol, rendered_mm: float) -> Array:
    """From tissue to image, (slices, rows, columns) float32 both: every slice projected and reconstructed."""
    rng = np.random.Generator(np.random.Philox(protocol.seed))
    photons = photons_for(protocol.noise_hu, protocol)
    images = []
    for true_hu in hu:
        sharp = sharpened(true_hu, protocol.pixel_mm, rendered_mm)
        images.append(scanned(sharp, protocol, photons, rng))
    return np.stack(images)
