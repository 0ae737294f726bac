"""What only some patients have, or only some scans: what is mistaken for bleeding, and how else a head is scanned.

Every choice has a random stream of its own, so that switching one off (`presets.Chances`) changes no other.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

from hemotorch.phantom import sample_lesions
from hemotorch.phantom.anatomy import DOME_CENTRE, Dense, Implant, Opening, Patient, Wide
from hemotorch.phantom.fields import generator
from hemotorch.phantom.lesions import Lesion
from hemotorch.phantom.presets import Chances
from hemotorch.phantom.scanner import Protocol

MOST_SLICES = 60  #: of thin slices, so that a patient stays a matter of seconds
METAL_HU = 3000.0
FAINTEST_HU = 16.0  #: above grey matter; below it nothing tells bleeding from a noisy brain
NOISIEST_HU = 20.0
HEAD_MM = (-62.0, 80.0)  #: from the foramen magnum to the vertex, in the head's frame
#: The highest slice's upper face is not lower. Of some small heads bent forward nothing inside the skull lies below -49
#: mm: a part of four slices of such a one, number 49 of seed 1013, showed none, and `prepare` refused it.
LOWEST_TOP_MM = -36.0
ELSEWHERE = 0.5  #: of what is unusual bleeding


@dataclass(frozen=True)
class Variety:
    """The choices of one patient. key: seed and index."""

    chances: Chances
    key: tuple[int, int]

    def _stream(self, name: str, attempt: int = 0) -> np.random.Generator | None:
        """Random numbers of a choice if it falls on this patient, else None."""
        rng = generator(*self.key, zlib.crc32(name.encode()), attempt)
        return rng if rng.random() < getattr(self.chances, name) else None

    def patient(self, patient: Patient) -> Patient:
        """The patient with dense veins and membranes, contrast, calcifications, wide spaces, surgery and implants."""
        patient = replace(patient, dense=self._dense(patient))
        if (rng := self._stream("calcified")) is not None:
            strengths = [max(old, rng.uniform(0.3, 1.2) * (rng.random() < 0.6)) for old in patient.calcified]
            pineal, plexus, basal, falx = (float(strength) for strength in strengths)
            patient = replace(patient, calcified=(pineal, plexus, basal, falx))
        if (rng := self._stream("wide")) is not None:
            patient = _widened(patient, rng)
        if (rng := self._stream("surgery")) is not None:
            patient = replace(patient, openings=_openings(rng))
        if (rng := self._stream("shunt")) is not None:
            patient = _with_shunt(patient, rng)
        if (rng := self._stream("metal")) is not None:
            patient = replace(patient, implants=(*patient.implants, _metal(rng)))
        return replace(patient, finer=self._stream("finer") is not None, contrast=self._is_contrast())

    def _is_contrast(self) -> bool:
        return self._stream("contrast") is not None

    def _dense(self, patient: Patient) -> Dense | None:
        """What is dense in the head; None if it is as usual."""
        if not (self.chances.contrast or self.chances.dense_veins or self.chances.dense_membranes):
            return None
        sides = generator(*self.key, 0x51DE)
        right, left = (float(np.clip(sides.normal(0.95, 0.3), 0.35, 1.6)) for _ in range(2))
        dense = Dense(patient.blood_pool, patient.blood_pool, right, left)
        if (rng := self._stream("dense_veins")) is not None:
            sinuses = float(rng.uniform(14, 38))
            dense = replace(dense, sinuses=sinuses, arteries=sinuses * float(rng.uniform(0.5, 1)))
        if (rng := self._stream("dense_membranes")) is not None:
            dense = replace(
                dense,
                falx=float(rng.uniform(15, 45)),
                falx_mm=float(rng.uniform(0.6, 1.6)),
                tentorium=float(rng.uniform(10, 38)),
                tentorium_mm=float(rng.uniform(0.6, 1.7)),
                dura=float(rng.uniform(8, 35)),
                dura_mm=float(max(rng.uniform(-1.0, 1.6), 0)),
            )
        if (rng := self._stream("contrast")) is not None:
            dense = _with_contrast(dense, rng)
        return dense

    def protocol(self, protocol: Protocol, patient: Patient) -> Protocol:
        """The protocol with other slices, parts of the head, narrow images, more noise and errors of correction."""
        protocol = replace(protocol, implants=bool(patient.implants) or any(o.plates for o in patient.openings))
        if (rng := self._stream("thin")) is not None:
            protocol = _thin(protocol, rng)
        if (rng := self._stream("overlap")) is not None:
            protocol = _overlapping(protocol, rng)
        if (rng := self._stream("part")) is not None:
            protocol = _part(protocol, rng)
        if (rng := self._stream("zoom")) is not None:
            shift = float(rng.normal(0, 18)), float(rng.normal(0, 18))
            protocol = replace(protocol, pixel_mm=float(rng.uniform(120, 190)) / protocol.size_px, shift_mm=shift)
        if (rng := self._stream("noise")) is not None:
            noise_hu = min(protocol.noise_hu * float(rng.uniform(1.4, 3)), NOISIEST_HU)
            protocol = replace(protocol, noise_hu=noise_hu)
        if self.chances.motion:
            rng = self._stream("motion")
            protocol = replace(protocol, motion_mm=float(rng.uniform(0.2, 1.6)) if rng is not None else 0.0)
        if (rng := self._stream("rim")) is not None:
            cupping_hu, vertex_hu = float(rng.uniform(-10, 22)), float(rng.uniform(-8, 22))
            protocol = replace(protocol, cupping_hu=cupping_hu, vertex_hu=vertex_hu)
        if (rng := self._stream("bands")) is not None:
            protocol = replace(protocol, hardening=float(rng.uniform(1.5, 4.5)))
        if (rng := self._stream("rings")) is not None:
            protocol = replace(protocol, rings_hu=float(rng.uniform(1, 6)))
        if self._stream("holder") is not None:
            protocol = replace(protocol, holder=3)
        return protocol

    def confounders(self, patient: Patient) -> list[Lesion]:
        """More of what is no bleeding: old infarcts."""
        rng = self._stream("infarcts")
        if rng is None:
            return []
        return [sample_lesions.old_infarct(rng) for _ in range(int(rng.integers(1, 4)))]

    def bleeding(self, lesions: list[Lesion], attempt: int) -> list[Lesion]:
        """Bleeding that is thinner, smaller, fainter or off the bone, or lies where it rarely does."""
        rng = self._stream("bleeding", attempt)
        if rng is None:
            return lesions
        if rng.random() < ELSEWHERE:
            return [sample_lesions.widened(rng, lesion) for lesion in lesions]
        return [_lesser(lesion, rng) for lesion in lesions]


def _with_contrast(dense: Dense, rng: np.random.Generator) -> Dense:
    """Contrast agent: early in the arteries, late in the veins."""
    pool = float(rng.uniform(60, 215))
    return replace(
        dense,
        arteries=pool * float(rng.uniform(0.5, 1.3)),
        sinuses=pool,
        falx=float(rng.uniform(25, 90)),
        tentorium=float(rng.uniform(25, 90)),
        tentorium_mm=float(rng.uniform(0.6, 1.3)),
        dura=float(rng.uniform(10, 50)),
        dura_mm=float(max(rng.uniform(-0.6, 1.0), 0)),
        plexus=float(rng.uniform(10, 90)),
        veins=pool * float(rng.uniform(0.2, 0.9)),
    )


def _widened(patient: Patient, rng: np.random.Generator) -> Patient:
    """Wide sulci, wide or unequal ventricles, a wide cisterna magna: one or several of them."""
    atrophy, ventricles, unequal, magna = patient.atrophy, 0.0, 0.0, 0.0
    if rng.random() < 0.45:
        atrophy = float(rng.uniform(0.7, 1.35))
    if rng.random() < 0.35:
        ventricles = float(rng.uniform(1, 6))
    if rng.random() < 0.35:
        unequal = float(rng.normal(0, 2.2))
    if rng.random() < 0.3:
        magna = float(rng.uniform(2, 11))
    return replace(patient, atrophy=atrophy, wide=Wide(ventricles, unequal, magna))


def _direction(rng: np.random.Generator, middle: tuple[float, ...], spread: float) -> tuple[float, float, float]:
    """A unit vector near another, on a random side."""
    vector = np.array(middle) + rng.normal(0, spread, 3)
    vector = vector / np.linalg.norm(vector) * np.array((rng.choice((-1, 1)), 1, 1))
    return float(vector[0]), float(vector[1]), float(vector[2])


def _openings(rng: np.random.Generator) -> tuple[Opening, ...]:
    """Burr holes, a flap that was put back, or a hole left open."""
    direction = _direction(rng, (0.75, 0.2, 0.5), 0.3)
    kind = rng.random()
    if kind < 0.4:
        second = _direction(rng, (0.6, -0.3, 0.7), 0.3)
        holes = (Opening(direction, float(rng.uniform(5, 9))), Opening(second, float(rng.uniform(5, 9))))
        return holes[: int(rng.integers(1, 3))]
    if kind < 0.85:
        gap_mm, plates = float(rng.uniform(1, 4)), int(rng.choice((0, 3, 4)))
        return (Opening(direction, float(rng.uniform(22, 42)), gap_mm, plates),)
    return (Opening(direction, float(rng.uniform(25, 45))),)


def _with_shunt(patient: Patient, rng: np.random.Generator) -> Patient:
    """A tube from a hole in front or behind to a lateral ventricle, and down under the scalp."""
    middle = (0.3, 0.55, 0.8) if rng.random() < 0.5 else (0.45, -0.6, 0.6)
    direction = _direction(rng, middle, 0.06)
    side = 1.0 if direction[0] > 0 else -1.0
    radius, hu = float(rng.uniform(1.1, 1.7)), float(rng.uniform(150, 900))
    x, y, z = (float(86 * d + c) for d, c in zip(direction, DOME_CENTRE, strict=True))
    tip = (side * 8.0, float(rng.uniform(5, 22)), float(rng.uniform(8, 18)), radius)
    below = (side * 84.0, -40.0, 0.0, radius + 0.3), (side * 76.0, -45.0, -70.0, radius + 0.3)
    tube = Implant((tip, (x, y, z, radius), *below), hu)
    hole = Opening(direction, float(rng.uniform(4, 7)))
    return replace(patient, implants=(*patient.implants, tube), openings=(*patient.openings, hole))


def _metal(rng: np.random.Generator) -> Implant:
    """A clip or a ball of coils on an artery at the base."""
    side = float(rng.choice((-1, 0, 1)))
    x, y, z = side * float(rng.uniform(8, 36)), float(rng.uniform(2, 14)), float(rng.uniform(-14, -2))
    radius = float(rng.uniform(1.2, 4.5))
    return Implant(((x, y, z, radius), (x + float(rng.uniform(1, 7)), y, z, radius * 0.7)), METAL_HU)


def _thin(protocol: Protocol, rng: np.random.Generator) -> Protocol:
    """Slices of 0.6 to 2 mm, noisier; only a part of the head if the whole would be too many."""
    slice_mm = float(rng.choice((0.6, 0.75, 1.0, 1.25, 1.5, 2.0)))
    noisier = float(rng.uniform(0.8, 1.2)) * (protocol.slice_mm / slice_mm) ** 0.4
    noise_hu = min(protocol.noise_hu * noisier, NOISIEST_HU)
    low, high = HEAD_MM
    slices = min(int(rng.integers(8, MOST_SLICES)), int((high - low) / slice_mm))
    thin = replace(protocol, slice_mm=slice_mm, noise_hu=noise_hu, tilt_deg=0.0, metal=False)
    return _between(thin, float(rng.uniform(low + slices * slice_mm, high)), slices)


def _between(protocol: Protocol, top_mm: float, slices: int) -> Protocol:
    """The protocol with so many slices up to a height, or as many as are made."""
    slices = int(np.clip(slices, 4, MOST_SLICES))
    top_mm = max(top_mm, LOWEST_TOP_MM)
    return replace(protocol, slices=slices, bottom_mm=top_mm - slices * protocol.slice_mm)


def _overlapping(protocol: Protocol, rng: np.random.Generator) -> Protocol:
    """Slices twice as thick as they are apart: of thin ones their thickness grows, of others the distance falls."""
    if protocol.slice_mm < 2.5:
        return replace(protocol, thickness_mm=2 * protocol.slice_mm)
    top_mm = protocol.bottom_mm + protocol.slices * protocol.slice_mm
    halved = replace(protocol, slice_mm=protocol.slice_mm / 2, thickness_mm=protocol.slice_mm)
    return _between(halved, top_mm - float(rng.uniform(0, 30)), protocol.slices * 2)


def _part(protocol: Protocol, rng: np.random.Generator) -> Protocol:
    """From the neck to the base, from the middle to the vertex, or a few slices anywhere."""
    low, high = HEAD_MM
    kind = rng.random()
    if kind < 0.4:
        bottom_mm, top_mm = float(rng.uniform(-85, -50)), float(rng.uniform(-30, 20))
    elif kind < 0.6:
        bottom_mm, top_mm = float(rng.uniform(5, 45)), high + 8
    else:
        bottom_mm = float(rng.uniform(low, high - 25))
        top_mm = bottom_mm + float(rng.uniform(4, 12)) * protocol.slice_mm
    return _between(protocol, top_mm, round((top_mm - bottom_mm) / protocol.slice_mm))


def _lesser(lesion: Lesion, rng: np.random.Generator) -> Lesion:
    """One bleeding, thinner, smaller or fainter; near bone it may lie off the bone."""
    if rng.random() < 0.35:
        faint = max(lesion.contrast - float(rng.uniform(4, 14)), FAINTEST_HU)
        lesion = replace(lesion, contrast=min(faint, lesion.contrast))
    x, y, z = lesion.axes
    if lesion.kind in ("subdural", "epidural"):
        gap_mm = float(rng.uniform(0, 1.8)) if rng.random() < 0.4 else 0.0
        shrink = float(rng.uniform(0.35, 0.8)) if rng.random() < 0.6 else 1.0
        length = float(rng.uniform(0.7, 1.2))
        axes = (x * length, y * length, max(z * shrink, 2.4))
        return replace(lesion, axes=axes, gap_mm=gap_mm)
    if lesion.kind == "intraventricular":
        return replace(lesion, level=lesion.level * float(rng.uniform(0.35, 1)))
    shrink = float(rng.uniform(0.45, 1))
    axes = (x * shrink, y * shrink, z * shrink)
    if lesion.kind == "intraparenchymal" and rng.random() < 0.3:  # a contusion on the skull base
        side = float(rng.choice((-1, 1)))
        spots = ((side * 22.0, 38.0, -14.0), (side * 46.0, 16.0, -26.0), (side * 52.0, -20.0, -26.0))
        middle = np.array(spots[int(rng.integers(3))]) + rng.normal(0, 4, 3)
        small = float(rng.uniform(3, 9)) / max(axes)
        axes = (axes[0] * small, axes[1] * small, axes[2] * small)
        return replace(lesion, centre=(float(middle[0]), float(middle[1]), float(middle[2])), axes=axes)
    return replace(lesion, axes=axes)
