"""What is wrong with a patient, at random: bleeding, what is mistaken for it, and blows to the skull.

The order in which numbers are drawn is part of the phantom: another order is another dataset (`presets.VERSION`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hemotorch.phantom.anatomy import DOME_CENTRE, Injury, Patient
from hemotorch.phantom.lesions import Lesion, Vector

Rng = np.random.Generator


@dataclass(frozen=True)
class Region:
    """Where intraparenchymal bleeding lies. share: how often, relative to the other regions; centre on the right side
    and spread in mm; least_ml, most_ml: its volume."""

    share: float
    centre: Vector
    spread: Vector
    least_ml: float
    most_ml: float


#: Shares in the textbooks' order: basal ganglia and lobes first, cerebellum and brain stem rarer.
PARENCHYMA = (
    Region(0.22, (25, -2, 5), (4, 8, 5), 0.5, 50),  # basal ganglia
    Region(0.10, (12, -18, 8), (2, 4, 3), 0.4, 15),  # thalamus
    Region(0.13, (30, 45, 15), (10, 10, 14), 0.3, 60),  # frontal lobe
    Region(0.14, (46, -35, 28), (8, 16, 16), 0.3, 60),  # parietal lobe
    Region(0.11, (48, -12, -12), (6, 16, 8), 0.3, 40),  # temporal lobe
    Region(0.08, (28, -78, 12), (8, 8, 12), 0.3, 40),  # occipital lobe
    Region(0.08, (24, -62, -36), (8, 8, 6), 0.4, 20),  # cerebellum
    Region(0.03, (0, -26, -30), (3, 3, 4), 0.3, 5),  # brain stem
    Region(0.11, (38, 50, -2), (12, 8, 5), 0.2, 8),  # contusions of the frontal pole
)

#: Directions of epidural bleeding from the middle of the skull, on the right, and how often.
EPIDURAL_DIRECTIONS = ((0.95, 0.0, -0.05), (0.75, -0.4, 0.5), (0.55, 0.75, 0.25), (0.35, -0.9, 0.0))
EPIDURAL_CHANCES = (0.45, 0.25, 0.18, 0.12)

SUBDURAL_SITES = ("vault", "falx", "tentorium", "crossing")
SUBDURAL_CHANCES = (0.68, 0.13, 0.09, 0.10)

#: What often goes with a leading bleeding, and how often.
COMPANIONS = ("subarachnoid", "subdural", "intraparenchymal", "epidural")
COMPANION_CHANCES = (0.28, 0.34, 0.28, 0.10)

#: How often the skull over a bleeding is struck.
BLOW_CHANCES = {"epidural": 0.6, "subdural": 0.3, "subarachnoid": 0.25, "intraparenchymal": 0.12}


def _triple(values: np.ndarray) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])


def _uniform(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _perhaps(rng: Rng, chance: float, low: float, high: float) -> float:
    """A number between two bounds with that chance, else 0."""
    if rng.random() < chance:
        return _uniform(rng, low, high)
    return 0.0


def _ml(rng: Rng, low: float, high: float) -> float:
    """A volume between two bounds, small ones more often."""
    return float(np.exp(np.log(low) + (np.log(high) - np.log(low)) * rng.beta(2.2, 1.3)))


def _contrast(rng: Rng, low: float = 21, high: float = 45) -> float:
    """HU above grey matter."""
    return float(low + (high - low) * rng.beta(1.9, 1.6))


def _seed(rng: Rng) -> int:
    return int(rng.integers(2**31))


def _toward(rng: Rng, middle: Vector, spread: Vector) -> Vector:
    """A direction from the middle of the skull, on a random side."""
    direction = np.array(middle) + rng.normal(0, 1, 3) * np.array(spread)
    direction = direction / np.linalg.norm(direction)
    side = rng.choice((-1, 1))
    return _triple(direction * np.array((side, 1, 1)))


def _intraparenchymal(rng: Rng, shrink: float = 1.0) -> Lesion:
    shares = np.array([region.share for region in PARENCHYMA])
    region = PARENCHYMA[rng.choice(len(PARENCHYMA), p=shares / shares.sum())]
    ml = _ml(rng, region.least_ml, region.most_ml * shrink)
    shape = np.exp(rng.normal(0, 0.22, 3))
    radius_mm = (ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3)
    axes = radius_mm * shape / np.prod(shape) ** (1 / 3)
    side = rng.choice((-1, 1))
    centre = np.array(region.centre) + rng.normal(0, 1, 3) * np.array(region.spread)
    mixed = _perhaps(rng, 0.35, 0.2, 0.8)
    return Lesion(
        "intraparenchymal",
        _triple(centre * np.array((side, 1, 1))),
        _triple(axes),
        _contrast(rng, 22),
        second=_uniform(rng, -6, 18),
        mixed=mixed,
        seed=_seed(rng),
        oedema_mm=_perhaps(rng, 0.75, 1, 3 + ml**0.4),
        push=_uniform(rng, 0.2, 1.0),
    )


def _epidural(rng: Rng) -> Lesion:
    middle = EPIDURAL_DIRECTIONS[rng.choice(4, p=EPIDURAL_CHANCES)]
    radius = _uniform(rng, 13, 42)
    thickness = float(np.clip(radius * rng.uniform(0.2, 0.55), 4, 22))
    mixed = _perhaps(rng, 0.4, 0.2, 0.6)
    direction = _toward(rng, middle, (0.15, 0.25, 0.2))
    return Lesion(
        "epidural",
        direction,
        (radius * rng.uniform(0.85, 1.3), radius, thickness),
        _contrast(rng, 20, 42),
        second=_uniform(rng, -4, 10),
        mixed=mixed,
        site="vault",
        push=_uniform(rng, 0.5, 0.95),
        seed=_seed(rng),
    )


def _subdural(rng: Rng) -> Lesion:
    site = rng.choice(SUBDURAL_SITES, p=SUBDURAL_CHANCES)
    contrast = _contrast(rng, 20, 42)
    if site in ("falx", "tentorium"):
        return _subdural_sheet(rng, site, contrast)
    if site == "crossing":
        direction = _toward(rng, (0.1, 0.9, 0.35), (0.15, 0.1, 0.15))
    else:
        direction = _toward(rng, (0.85, 0.1, 0.3), (0.12, 0.45, 0.2))
    age = rng.choice(("acute", "mixed", "subacute"), p=(0.72, 0.24, 0.04))
    thickness = float(np.clip(rng.gamma(4.2, 2.1), 5, 18))
    axes = (_uniform(rng, 38, 95), _uniform(rng, 28, 60), thickness)
    if age == "subacute":
        contrast = _uniform(rng, 5, 11)
    second, mixed = _uniform(rng, -16, 2), 0.0
    if age == "mixed":
        mixed = _uniform(rng, 0.2, 0.7)
    push = _uniform(rng, 0.5, 0.95)
    return Lesion("subdural", direction, axes, contrast, second, mixed, site, push=push, seed=_seed(rng))


def _subdural_sheet(rng: Rng, site: str, contrast: float) -> Lesion:
    """Along the falx or on the tentorium."""
    front_back, up = (-80, 45), (35, 60)
    if site == "tentorium":
        front_back, up = (-75, -50), (0, 0)
    y = _uniform(rng, *front_back)
    side = float(rng.choice((-0.5, 0.5)))
    z = _uniform(rng, *up) if site == "falx" else 0.0
    axes = (_uniform(rng, 18, 45), _uniform(rng, 15, 30), _uniform(rng, 3.5, 7))
    return Lesion("subdural", (side, y, z), axes, contrast, site=site, seed=_seed(rng))


def _intraventricular(rng: Rng) -> Lesion:
    cast = rng.random() < 0.35
    level = _uniform(rng, 0.7, 1.05) if cast else _uniform(rng, 0.35, 0.7)
    clot = rng.random() < 0.3
    centre, axes = (0.0, -20.0, 10.0), (30.0, 50.0, 30.0)
    if clot:
        side = float(rng.choice((-1, 1)) * 12)
        centre = (side, _uniform(rng, -45, 20), 14.0)
        axes = (18.0, _uniform(rng, 16, 40), 22.0)
    contrast = _contrast(rng, 21, 43)
    mixed = 1.0 if clot else float(rng.choice((0.0, 0.3)))
    return Lesion("intraventricular", centre, axes, contrast, mixed=mixed, level=level, seed=_seed(rng))


def _subarachnoid(rng: Rng) -> Lesion:
    if rng.random() < 0.45:  # an aneurysm's: around the base
        centre = (float(rng.normal(0, 12)), 6.0, -10.0)
        axes = rng.uniform(22, 42, 3)
    else:  # an injury's: some sulci of the convexity
        direction = np.array(_toward(rng, (0.8, 0.1, 0.5), (0.2, 0.5, 0.3)))
        centre = _triple(direction * 62 + np.array(DOME_CENTRE))
        axes = rng.uniform(18, 36, 3)
    contrast, push = _contrast(rng, 20, 40), _uniform(rng, 0.4, 0.9)
    return Lesion("subarachnoid", centre, _triple(axes), contrast, push=push, seed=_seed(rng))


SAMPLERS = {
    "intraparenchymal": _intraparenchymal,
    "epidural": _epidural,
    "subdural": _subdural,
    "intraventricular": _intraventricular,
    "subarachnoid": _subarachnoid,
}


def sample_bleeding(rng: Rng, leading: str, wide: bool = False) -> list[Lesion]:
    """The bleeding of one patient: the leading type, and often others that go with it.

    Args:
        rng: where the numbers come from.
        leading: the type.
        wide: what lies under the skull lies anywhere under it, and may be thinner. For training: on what is usual
            alone, a network misses what is not.
    """
    lesions = _sample_bleeding(rng, leading)
    if wide:
        lesions = [widened(rng, lesion) for lesion in lesions]
    return lesions


def widened(rng: Rng, lesion: Lesion) -> Lesion:
    """The lesion elsewhere under the skull, thinner or thicker, and never as faint as the brain is beside bone."""
    # No bleeding is so dark that nothing tells it from the brain, and no part of one.
    contrast = _uniform(rng, 25, 46)
    lesion = replace(lesion, contrast=contrast, second=max(lesion.second, 0.6 * contrast - 4))
    if lesion.site not in ("vault", "crossing"):
        return lesion
    direction = rng.normal(0, 1, 3) * np.array((1, 1, 0.55)) + np.array((0, 0, 0.2))
    length, height, thickness = lesion.axes
    site = lesion.site
    if lesion.kind == "epidural":
        thickness = float(np.clip(height * rng.uniform(0.12, 0.5), 3, 22))
    else:
        thickness = float(np.clip(rng.gamma(2.2, 2.6), 2.5, 18))
        # A network that had seen few of them found 0.38 of a crescent over both occipital lobes (docs/log.md, round 4).
        if rng.random() < 0.3:
            site = "crossing"
            direction = np.array((0.15, float(rng.choice((-1, 1))), 0.3)) * rng.normal((0, 1, 0.6), (1, 0.1, 1))
            length = float(rng.uniform(50, 110))
    centre = _triple(direction / np.linalg.norm(direction))
    return replace(lesion, centre=centre, axes=(length, height, thickness), site=site)


def _sample_bleeding(rng: Rng, leading: str) -> list[Lesion]:
    """The bleeding of one patient as it usually is."""
    first = SAMPLERS[leading](rng)
    lesions = [first]
    if leading == "intraparenchymal":
        # What lies deep breaks into the ventricles.
        if abs(first.centre[0]) < 30 and rng.random() < 0.4:
            lesions.append(_intraventricular(rng))
        while rng.random() < 0.3 and len(lesions) < 4:
            lesions.append(_intraparenchymal(rng, 0.2))
    if rng.random() < 0.25:
        companion = str(rng.choice(COMPANIONS, p=COMPANION_CHANCES))
        lesion = SAMPLERS[companion](rng)
        if companion == "epidural":
            lesion = replace(lesion, push=0.4)
        lesions.append(lesion)
    if leading == "subarachnoid" and rng.random() < 0.35:
        lesions.append(_intraventricular(rng))
    return lesions


def sample_confounders(rng: Rng, patient: Patient) -> list[Lesion]:
    """What else is wrong with this head and may be mistaken for bleeding, or hide it."""
    old, lesions = patient.age / 90, []
    if rng.random() < 0.30 * old + 0.08:
        lesions += [_infarct(rng) for _ in range(int(rng.integers(1, 3)))]
    if rng.random() < 0.14 * old + 0.02:
        for _ in range(int(rng.integers(1, 3))):
            sheet = replace(_subdural(rng), kind="hygroma", contrast=_uniform(rng, -2, 8), mixed=0)
            if sheet.site in ("vault", "crossing"):
                length, height, thickness = sheet.axes
                lesions.append(replace(sheet, axes=(length, height, min(thickness, 9))))
    if rng.random() < 0.05:
        lesions.append(_tumour(rng))
    if rng.random() < 0.12:
        for _ in range(int(rng.integers(1, 4))):
            centre = _intraparenchymal(rng).centre
            axes, contrast = _triple(rng.uniform(1.2, 3.2, 3)), _uniform(rng, 60, 300)
            lesions.append(Lesion("calcification", centre, axes, contrast, seed=_seed(rng)))
    return lesions


def _infarct(rng: Rng) -> Lesion:
    clot = _intraparenchymal(rng)
    if rng.random() < 0.7:
        kind, contrast = "infarct", _uniform(rng, 2, 15)
    else:
        kind, contrast = "fresh infarct", _uniform(rng, 3, 9)
    axes = _triple(1.25 * np.array(clot.axes))
    return replace(clot, kind=kind, contrast=contrast, axes=axes, push=0, oedema_mm=0)


def old_infarct(rng: Rng) -> Lesion:
    """A defect as dark as fluid or a little brighter."""
    return replace(_infarct(rng), kind="infarct", contrast=_uniform(rng, 1, 14))


def _tumour(rng: Rng) -> Lesion:
    direction = np.array(_toward(rng, (0.6, 0.4, 0.6), (0.4, 0.5, 0.3)))
    centre = direction * rng.uniform(58, 68) + np.array(DOME_CENTRE)
    size = _uniform(rng, 7, 15)
    contrast = _uniform(rng, 3, 14)
    return Lesion("tumour", _triple(centre), (size, size, size), contrast, seed=_seed(rng), push=0.6)


def sample_injuries(rng: Rng, lesions: list[Lesion]) -> list[Injury]:
    """Cracks in the vault and swellings of the scalp: over half of the epidurals, with some of the rest."""
    injuries = []
    for lesion in lesions:
        if rng.random() < BLOW_CHANCES.get(lesion.kind, 0.0):
            direction = lesion.centre
            if lesion.site != "vault":
                direction = _toward(rng, (0.8, 0.2, 0.4), (0.2, 0.6, 0.2))
            injuries.append(_injury(rng, direction))
    if rng.random() < 0.1:
        injuries.append(_injury(rng, _toward(rng, (0.7, 0.4, 0.4), (0.3, 0.6, 0.2))))
    return injuries[:2]


def _injury(rng: Rng, direction: Vector) -> Injury:
    unit = np.array(direction) / (np.linalg.norm(direction) + 1e-6)
    across = np.cross(unit, rng.normal(0, 1, 3))
    across = across / (np.linalg.norm(across) + 1e-6)
    cracked = rng.random() < 0.6
    reach_mm = _uniform(rng, 20, 60)
    gap_mm = _uniform(rng, 0.5, 1.4) if cracked else 0.0
    swelling_mm = _perhaps(rng, 0.75, 3, 12)
    return Injury(_triple(unit), _triple(across), reach_mm, gap_mm, swelling_mm)
