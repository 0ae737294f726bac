"""What is wrong with a patient: random bleeding, what is mistaken for it, and blows to the skull."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hemotorch.phantom.anatomy import DOME_CENTRE, Injury, Patient
from hemotorch.phantom.lesions import Lesion, Vector

#: Centres of intraparenchymal bleeding: (share, centre, spread, smallest and largest mL); shares in the textbooks'
#: order: basal ganglia and lobes first, cerebellum and brain stem rarer, contusions of frontal and temporal poles.
PARENCHYMA: tuple[tuple[float, Vector, Vector, tuple[float, float]], ...] = (
    (0.22, (25, -2, 5), (4, 8, 5), (0.5, 50)),
    (0.10, (12, -18, 8), (2, 4, 3), (0.4, 15)),
    (0.13, (30, 45, 15), (10, 10, 14), (0.3, 60)),
    (0.14, (46, -35, 28), (8, 16, 16), (0.3, 60)),
    (0.11, (48, -12, -12), (6, 16, 8), (0.3, 40)),
    (0.08, (28, -78, 12), (8, 8, 12), (0.3, 40)),
    (0.08, (24, -62, -36), (8, 8, 6), (0.4, 20)),
    (0.03, (0, -26, -30), (3, 3, 4), (0.3, 5)),
    (0.11, (38, 50, -2), (12, 8, 5), (0.2, 8)),
)


def _triple(values: np.ndarray) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])


def _ml(rng: np.random.Generator, low: float, high: float) -> float:
    """A volume between two bounds, small ones more often."""
    return float(np.exp(np.log(low) + (np.log(high) - np.log(low)) * rng.beta(2.2, 1.3)))


def _contrast(rng: np.random.Generator, low: float = 21, high: float = 45) -> float:
    return float(low + (high - low) * rng.beta(1.9, 1.6))


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _intraparenchymal(rng: np.random.Generator, shrink: float = 1.0) -> Lesion:
    shares = np.array([row[0] for row in PARENCHYMA])
    _, centre, spread, (low, high) = PARENCHYMA[rng.choice(len(PARENCHYMA), p=shares / shares.sum())]
    ml = _ml(rng, low, high * shrink)
    shape = np.exp(rng.normal(0, 0.22, 3))
    axes = (ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3) * shape / np.prod(shape) ** (1 / 3)
    side = rng.choice((-1, 1))
    place = np.array(centre) + rng.normal(0, 1, 3) * np.array(spread)
    mixed = float(rng.uniform(0.2, 0.8)) if rng.random() < 0.35 else 0.0
    return Lesion("intraparenchymal", _triple(place * np.array((side, 1, 1))), _triple(axes),
                  _contrast(rng, 22), second=float(rng.uniform(-6, 18)), mixed=mixed, seed=_seed(rng),
                  oedema_mm=float(rng.uniform(1, 3 + ml**0.4)) if rng.random() < 0.75 else 0.0,
                  push=float(rng.uniform(0.2, 1.0)))  # fmt: skip


def _towards(rng: np.random.Generator, middle: Vector, spread: Vector) -> Vector:
    """A direction from the middle of the skull, on a random side."""
    v = np.array(middle) + rng.normal(0, 1, 3) * np.array(spread)
    v = v / np.linalg.norm(v)
    return _triple(v * np.array((rng.choice((-1, 1)), 1, 1)))


def _epidural(rng: np.random.Generator) -> Lesion:
    middle = ((0.95, 0.0, -0.05), (0.75, -0.4, 0.5), (0.55, 0.75, 0.25), (0.35, -0.9, 0.0))[
        rng.choice(4, p=(0.45, 0.25, 0.18, 0.12))
    ]
    radius = float(rng.uniform(13, 42))
    thick = float(np.clip(radius * rng.uniform(0.2, 0.55), 4, 22))
    mixed = float(rng.uniform(0.2, 0.6)) if rng.random() < 0.4 else 0.0
    direction = _towards(rng, middle, (0.15, 0.25, 0.2))
    return Lesion("epidural", direction, (radius * rng.uniform(0.85, 1.3), radius, thick),
                  _contrast(rng, 20, 42), second=float(rng.uniform(-4, 10)), mixed=mixed, place="vault",
                  push=float(rng.uniform(0.5, 0.95)), seed=_seed(rng))  # fmt: skip


def _subdural(rng: np.random.Generator) -> Lesion:
    where = rng.choice(("vault", "falx", "tentorium", "crossing"), p=(0.68, 0.13, 0.09, 0.10))
    contrast = _contrast(rng, 20, 42)
    if where in ("falx", "tentorium"):
        y = rng.uniform(-80, 45) if where == "falx" else rng.uniform(-75, -50)
        centre = (float(rng.choice((-0.5, 0.5))), float(y), float(rng.uniform(35, 60) if where == "falx" else 0))
        axes = (float(rng.uniform(18, 45)), float(rng.uniform(15, 30)), float(rng.uniform(3.5, 7)))
        return Lesion("subdural", centre, axes, contrast, place=where, seed=_seed(rng))
    if where == "crossing":
        direction = _towards(rng, (0.1, 0.9, 0.35), (0.15, 0.1, 0.15))
    else:
        direction = _towards(rng, (0.85, 0.1, 0.3), (0.12, 0.45, 0.2))
    kind = rng.choice(("acute", "mixed", "subacute"), p=(0.72, 0.24, 0.04))
    thick = float(np.clip(rng.gamma(4.2, 2.1), 5, 18))
    return Lesion("subdural", direction, (float(rng.uniform(38, 95)), float(rng.uniform(28, 60)), thick),
                  contrast if kind != "subacute" else float(rng.uniform(5, 11)),
                  second=float(rng.uniform(-16, 2)), mixed=float(rng.uniform(0.2, 0.7)) if kind == "mixed" else 0.0,
                  place=where, push=float(rng.uniform(0.5, 0.95)), seed=_seed(rng))  # fmt: skip


def _intraventricular(rng: np.random.Generator) -> Lesion:
    cast = rng.random() < 0.35
    level = float(rng.uniform(0.7, 1.05)) if cast else float(rng.uniform(0.35, 0.7))
    clot = rng.random() < 0.3
    centre = (float(rng.choice((-1, 1)) * 12), float(rng.uniform(-45, 20)), 14.0) if clot else (0.0, -20.0, 10.0)
    axes = (18.0, float(rng.uniform(16, 40)), 22.0) if clot else (30.0, 50.0, 30.0)
    return Lesion("intraventricular", centre, axes, _contrast(rng, 21, 43), level=level,
                  mixed=1.0 if clot else float(rng.choice((0.0, 0.3))), seed=_seed(rng))  # fmt: skip


def _subarachnoid(rng: np.random.Generator) -> Lesion:
    if rng.random() < 0.45:  # an aneurysm's: around the base
        centre, axes = (float(rng.normal(0, 12)), 6.0, -10.0), tuple(rng.uniform(22, 42, 3))
    else:  # an injury's: some sulci of the convexity
        v = np.array(_towards(rng, (0.8, 0.1, 0.5), (0.2, 0.5, 0.3))) * 62 + np.array(DOME_CENTRE)
        centre, axes = _triple(v), tuple(rng.uniform(18, 36, 3))
    return Lesion("subarachnoid", centre, _triple(np.array(axes)), _contrast(rng, 20, 40),
                  push=float(rng.uniform(0.4, 0.9)), seed=_seed(rng))  # fmt: skip


DRAW = {
    "intraparenchymal": _intraparenchymal,
    "epidural": _epidural,
    "subdural": _subdural,
    "intraventricular": _intraventricular,
    "subarachnoid": _subarachnoid,
}


def draw_bleeding(rng: np.random.Generator, leading: str) -> list[Lesion]:
    """The bleeding of one patient: the leading type, and often others that go with it."""
    lesions = [DRAW[leading](rng)]
    if leading == "intraparenchymal":
        first = lesions[0]
        if abs(first.centre[0]) < 30 and rng.random() < 0.4:
            lesions.append(_intraventricular(rng))
        while rng.random() < 0.3 and len(lesions) < 4:
            lesions.append(_intraparenchymal(rng, 0.2))
    companion = rng.random()
    if companion < 0.25:
        others = ("subarachnoid", "subdural", "intraparenchymal", "epidural")
        other = str(rng.choice(others, p=(0.28, 0.34, 0.28, 0.10)))
        extra = DRAW[other](rng)
        lesions.append(extra if other != "epidural" else replace(extra, push=0.4))
    if leading == "subarachnoid" and rng.random() < 0.35:
        lesions.append(_intraventricular(rng))
    return lesions


def draw_confounders(rng: np.random.Generator, patient: Patient) -> list[Lesion]:
    """What else is wrong with this head, bleeding or not."""
    old = patient.age / 90
    lesions = []
    if rng.random() < 0.30 * old + 0.08:
        for _ in range(int(rng.integers(1, 3))):
            clot = _intraparenchymal(rng)
            kind, contrast = (
                ("infarct", rng.uniform(2, 15)) if rng.random() < 0.7 else ("fresh infarct", rng.uniform(3, 9))
            )
            axes = _triple(1.25 * np.array(clot.axes))
            lesions.append(replace(clot, kind=kind, contrast=float(contrast), axes=axes, push=0, oedema_mm=0))
    if rng.random() < 0.14 * old + 0.02:
        for _ in range(int(rng.integers(1, 3))):
            sheet = replace(_subdural(rng), kind="hygroma", contrast=float(rng.uniform(-2, 8)), mixed=0)
            if sheet.place in ("vault", "crossing"):
                lesions.append(replace(sheet, axes=(sheet.axes[0], sheet.axes[1], min(sheet.axes[2], 9))))
    if rng.random() < 0.05:
        direction = np.array(_towards(rng, (0.6, 0.4, 0.6), (0.4, 0.5, 0.3))) * rng.uniform(58, 68) + np.array(
            DOME_CENTRE
        )
        size = float(rng.uniform(7, 15))
        lesions.append(Lesion("tumour", _triple(direction), (size, size, size),
                              float(rng.uniform(3, 14)), seed=_seed(rng), push=0.6))  # fmt: skip
    if rng.random() < 0.12:
        for _ in range(int(rng.integers(1, 4))):
            place = _intraparenchymal(rng)
            axes, contrast = _triple(rng.uniform(1.2, 3.2, 3)), float(rng.uniform(60, 300))
            lesions.append(Lesion("calcification", place.centre, axes, contrast, seed=_seed(rng)))
    return lesions


def draw_injuries(rng: np.random.Generator, lesions: list[Lesion]) -> list[Injury]:
    """Cracks in the vault and swellings of the scalp: over half of the epidurals, with some of the rest."""
    chances = {"epidural": 0.6, "subdural": 0.3, "subarachnoid": 0.25, "intraparenchymal": 0.12}
    injuries = []
    for lesion in lesions:
        if rng.random() < chances.get(lesion.kind, 0.0):
            at = lesion.centre if lesion.place == "vault" else _towards(rng, (0.8, 0.2, 0.4), (0.2, 0.6, 0.2))
            injuries.append(_injury(rng, at))
    if rng.random() < 0.1:
        injuries.append(_injury(rng, _towards(rng, (0.7, 0.4, 0.4), (0.3, 0.6, 0.2))))
    return injuries[:2]


def _injury(rng: np.random.Generator, at: Vector) -> Injury:
    v = np.array(at) / (np.linalg.norm(at) + 1e-6)
    across = np.cross(v, rng.normal(0, 1, 3))
    across = across / (np.linalg.norm(across) + 1e-6)
    cracked = rng.random() < 0.6
    return Injury(_triple(v), _triple(across),
                  float(rng.uniform(20, 60)), float(rng.uniform(0.5, 1.4)) if cracked else 0.0,
                  float(rng.uniform(3, 12)) if rng.random() < 0.75 else 0.0)  # fmt: skip
