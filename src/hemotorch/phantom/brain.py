"""What lies inside the skull, without bleeding: brain, fluid spaces, membranes, vessels, calcifications."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hemotorch.phantom.anatomy import CSF, Dense, Patient
from hemotorch.phantom.fields import (
    WHOLE,
    Array,
    Noise,
    Points,
    Waypoint,
    blend,
    bump,
    ellipsoid,
    mirror,
    near,
    smooth_min,
    step,
    tube,
)

Triple = tuple[float, float, float]

#: Tubes along (x, y, z, radius) waypoints on one side of the head; the other is its mirror image.
MIDBRAIN: tuple[Waypoint, ...] = ((0, -27, -6, 10), (0, -27, -15, 11))
PEDUNCLE: tuple[Waypoint, ...] = ((12, -12, -6, 5), (7, -17, -15, 6))
MEDULLA: tuple[Waypoint, ...] = ((0, -27, -22, 12.5), (0, -28, -33, 13), (0, -36, -46, 9), (0, -46, -70, 6))
AQUEDUCT: tuple[Waypoint, ...] = ((0, -30, 0, 0.9), (0, -38, -20, 1.1))
SIGMOID_SINUS: tuple[Waypoint, ...] = ((53, -56, -13, 3.6), (49, -50, -30, 4), (43, -46, -44, 4), (32, -42, -52, 3.5))
STRAIGHT_SINUS: tuple[Waypoint, ...] = ((0, -42, 9, 2), (0, -62, 2, 2), (0, -95, -12, 2.2))

GREY = 38.0  #: HU of grey matter at the nominal brain level (37 to 41 in textbooks)


@dataclass(eq=False)
class Brain:
    """The inside of the skull at a list of points, as lesions find and change it.

    p: points before any mass effect, which anatomy follows; position: the same points where they lie now.
    hu: values; depth: mm under the inner table; fluid: share of cerebrospinal fluid outside the ventricles;
    ventricle: signed distance to the ventricles, mm; tent: mm above the tentorium; cortex: mm under its surface.
    """

    p: Points
    position: Points
    depth: Array
    hu: Array
    fluid: Array
    ventricle: Array
    tent: Array
    cortex: Array


class Inside:
    """The inside of one patient's skull; `render` evaluates it at points."""

    def __init__(self, patient: Patient):
        self.patient = patient
        rng = np.random.Generator(np.random.Philox(patient.seed + 1))
        self.fold, self.fold2 = Noise(rng, rng.uniform(8.5, 11.5)), Noise(rng, rng.uniform(5.5, 7.5))
        self.slow, self.folia, self.wander = Noise(rng, 36), Noise(rng, 4.5), Noise(rng, 22)
        a = patient.atrophy
        self.gap = 0.1 + 1.3 * a * rng.uniform(0.3, 1.3)  #: fluid between cortex and dura, mm
        self.sulcus = 0.42 + 0.72 * a * rng.uniform(0.7, 1.3)  #: half-width of a sulcus, mm
        self.fissure = 0.3 + 1.0 * a * rng.uniform(0.5, 1.4)
        self.wide = float(np.clip(-1.6 + 5.0 * a + rng.normal(0, 0.9), -2.2, 4.5))  #: added to ventricular radii, mm
        self.lopsided = rng.normal(0, 0.7)  #: one lateral ventricle wider than the other, mm
        self.cistern = 1.2 + 2.4 * a * rng.uniform(0.6, 1.2) + rng.uniform(0, 1.2)
        self.callosum = rng.uniform(24, 30)
        self.falx = rng.uniform(0.5, 1.0)  #: half its thickness, mm
        self.vessels = _vessels(rng)
        #: half-axes of what is calcified of the choroid plexus, right and left, mm
        self.glomus = _glomus(rng), _glomus(rng)
        self.white = GREY - patient.grey_white
        self.wide += patient.wide.ventricles
        self.lopsided += patient.wide.unequal
        self.dense = patient.dense or Dense(patient.blood_pool, patient.blood_pool)
        if self.dense.falx_mm is not None:
            self.falx = self.dense.falx_mm
        self.disease = patient.white_matter_disease

    def render(self, p: Points, position: Points, depth: Array, swell: Array | float = 0.0) -> Brain:
        """Everything but lesions at points inside the inner table. depth: mm under it, before any mass effect;
        swell: mm by which sulci and fissures are held open by blood."""
        brain = Brain(p, position, depth, *(np.zeros(len(p), np.float32) for _ in range(5)))
        brain.tent = self.tent(p)
        brain.ventricle = self.ventricles(p)
        slow, wander = self.slow.of(p), self.wander.of(p)
        self._cortex(brain, slow, wander, swell)
        self._deep_grey(brain, wander)
        self._below_tentorium(brain, slow, wander)
        self._white_matter_disease(brain, slow)
        self._fissures(brain, wander, swell)
        self._cisterns(brain, wander)
        self._ventricle_fluid(brain)
        self._membranes(brain, wander)
        self._plexus(brain)
        self._calcifications(brain)
        for implant in self.patient.implants:
            blend(brain.hu, WHOLE, position.filled(tube(position, implant.path)), np.float32(implant.hu))
        return brain

    def tent(self, p: Points) -> Array:
        """Height above the tentorium, mm; far above in front of it."""
        ax = np.abs(p.x)
        height = -16 + 24 * np.clip(1 - ax / 52, 0, 1) * step(p.y + 72, 40) - 4 * step(-p.y - 80, 25)
        behind = p.y + 12 + 0.62 * ax + np.float32(12) * step(ax - 10, 14)
        return np.where(behind < 0, p.z - height, np.maximum(p.z - height, 60 * step(behind, 8))).astype(np.float32)

    def _cortex(self, b: Brain, slow: Array, wander: Array, swell: Array | float) -> None:
        """White matter, the grey ribbon and the sulci that run inward from the surface."""
        p = b.p
        above_callosum = 30 * step(self.callosum - p.z, 6) * step(45 - np.abs(p.y - 2), 8)
        medial = 1.5 * np.abs(p.x) + above_callosum + 0.8 * wander
        gap = self.gap * (0.5 + 0.5 * slow + 0.9 * step(p.y - 25, 25))
        surface = np.minimum(b.depth - gap, medial - self.fissure)
        inward = step(16 + 3 * slow + 4 * wander - surface, 4)
        primary, secondary = self._folds(p, surface, slow, wander)
        half_width = (self.sulcus * (1 + 0.35 * slow) + swell) * inward - 0.1
        half_width = half_width + 0.3 * self.sulcus * step(4 - surface, 3)
        sulcus = np.minimum(primary - half_width, secondary - 0.35 * half_width)
        in_sulci = np.clip(0.5 - sulcus / np.float32(max(p.edge, 0.8)), 0, 1) * inward
        b.fluid = np.maximum(p.filled(surface), in_sulci)
        b.cortex = surface
        along_sulci = np.where(inward > 0.3, np.minimum(primary - 2.6, secondary - 1.7), 9)
        grey = step(-np.minimum(surface - 3.6, along_sulci), 0.9)
        b.hu = (self.white + (GREY - self.white) * grey + 0.8 * slow).astype(np.float32)
        blend(b.hu, WHOLE, b.fluid, np.float32(CSF))

    def _folds(self, p: Points, surface: Array, slow: Array, wander: Array) -> tuple[Array, Array]:
        """Distances to the middle of the nearest primary and secondary sulcus, mm; they run toward the centre."""
        from_centre = np.sqrt(p.x**2 + (p.y + 17) ** 2 + (p.z - 6) ** 2) + 1
        radial = np.float32(0.35) + np.float32(45) / from_centre
        folded = (p.x * radial + 4 * wander, p.y * radial - 5 * slow, p.z * radial + 4 * wander)
        primary = self.fold.to_zero(*folded)
        secondary = self.fold2.to_zero(*folded) + 0.7 * step(surface - 7, 3) + 1.5 * step(wander, 0.6)
        return primary, secondary

    def _deep_grey(self, b: Brain, wander: Array) -> None:
        """Caudate, lentiform nucleus, thalamus, claustrum with insular cortex."""
        chosen = near(b.p, (-45, -36, -14), (45, 36, 32))
        p, w = mirror(b.p.where(chosen)), wander[chosen]
        aside = self.wide * 0.6
        caudate = tube(p, ((11 + aside, 24, 2, 6), (14 + aside, 12, 14, 5), (17 + aside, -4, 22, 3), (21, -22, 20, 2)))
        lentiform = np.maximum(ellipsoid(p, (24, 4, 2), (8, 19, 11)), 12 + 0.35 * np.abs(p.y - 2) - p.x)
        thalamus = ellipsoid(p, (11 + aside / 2, -18, 8), (9, 15, 9))
        claustrum = ellipsoid(p, (37, 0, 4), (2.5, 22, 14))
        distance = np.minimum.reduce((caudate, lentiform, thalamus, claustrum))
        grey = step(-distance + 0.8 * w, 1.2)
        blend(b.hu, chosen, grey, np.float32(GREY - 1.0) + w * np.float32(0.6))
        b.fluid[chosen] *= 1 - grey

    def _below_tentorium(self, b: Brain, slow: Array, wander: Array) -> None:
        """Cerebellum with folia and vermis, brain stem; they replace what the cortex left there."""
        chosen = near(b.p, (-70, -115, -95), (70, 5, 16))
        p, depth, tent = b.p.where(chosen), b.depth[chosen], b.tent[chosen]
        w, s = wander[chosen], slow[chosen]
        under = step(-tent, 0.8)
        folia = self.folia.at(p.x * 0.25, p.y * 0.5, p.z * 1.1 + 2 * w)
        between_folia = np.abs(folia) / self.folia.slope - 0.12 - 0.35 * self.patient.atrophy
        surface = np.minimum(depth - 0.8 * self.gap, -tent - 0.6 - 0.8 * self.patient.atrophy)
        in_folia = 0.75 * np.clip(0.4 - between_folia, 0, 1) * step(9 - surface, 3)
        fluid = np.maximum(p.filled(surface), in_folia)
        core = step(ellipsoid(mirror(p), (20, -58, -36), (16, 16, 10)) * -1 + w, 2.5)
        value = GREY - 0.4 - (0.55 * self.patient.grey_white) * core + 0.8 * s
        blend(b.hu, chosen, under, value + fluid * (CSF - value))
        b.fluid[chosen] = b.fluid[chosen] * (1 - under) + fluid * under

    def stem(self, p: Points) -> Array:
        """Signed distance to the brain stem, mm: midbrain with its peduncles, pons, medulla. p: mirrored points."""
        upper = smooth_min(tube(p, MIDBRAIN), tube(p, PEDUNCLE), 6)
        pons = ellipsoid(p, (0, -24, -30), (17, 11, 12))
        lower = smooth_min(tube(p, MEDULLA), pons, 4)
        return smooth_min(upper, lower, 4)

    def _cisterns(self, b: Brain, wander: Array) -> None:
        """Fluid around the brain stem and above the sella, with the brain stem standing in it."""
        chosen = near(b.p, (-42, -75, -80), (42, 26, 16))
        p = mirror(b.p.where(chosen))
        w = wander[chosen]
        to_stem = self.stem(p) + 0.6 * w
        wide = self.cistern * (1 + 0.35 * w)
        ambient = np.maximum(to_stem - wide, p.z - 6)
        ambient = np.maximum(ambient, np.where(p.z < -20, -30 - p.y, p.y + 17))
        suprasellar = ellipsoid(p, (0, 3, -15), (9 + wide, 9 + wide, 7))
        to_sylvian = tube(p, ((4, 6, -13, 1.5 + wide / 2), (26, 12, -12, 1.0 + wide / 3)))
        star = np.minimum(suprasellar, to_sylvian)
        prepontine = ellipsoid(p, (0, -14, -32), (14, 3 + wide, 20))
        quadrigeminal = ellipsoid(p, (0, -44, 2), (8 + wide, 5 + wide / 2, 7))
        more = self.patient.wide.magna
        magna = ellipsoid(p, (0, -72 - more / 2, -60), (12 + more, 8 + 2 * wide + np.float32(more), 9 + more))
        pontine_angle = ellipsoid(p, (20, -34, -36), (7 + wide, 4 + wide / 2, 7))
        distance = np.minimum.reduce((ambient, star, prepontine, quadrigeminal, magna, pontine_angle))
        amount = p.filled(distance + 0.5 * w)
        blend(b.hu, chosen, amount, np.float32(CSF + 3))
        b.fluid[chosen] = np.maximum(b.fluid[chosen], amount)
        stem = p.filled(to_stem) * (b.depth[chosen] > 1)
        blend(b.hu, chosen, stem, GREY - np.float32(4.5) + w)
        b.fluid[chosen] *= 1 - stem

    def ventricles(self, p: Points) -> Array:
        """Signed distance to the lateral, third and fourth ventricles and the aqueduct, mm."""
        distance = np.full(len(p), 25.0, np.float32)
        chosen = near(p, (-48, -90, -52), (48, 46, 42))
        real = p.where(chosen)
        q, wide = mirror(real), self.wide
        radius = np.float32(wide) + np.float32(self.lopsided) * np.sign(real.x)
        if self.patient.finer:
            third = ellipsoid(q, (0, -10, 1), (1.6 + 0.6 * max(wide + 1, 0), 17, 11))
        else:
            third = np.maximum(q.x - 1.6 - 0.7 * np.maximum(np.float32(wide) + 1, 0), np.abs(q.y + 11) - 17)
            third = np.maximum(third, np.abs(q.z - 1) - 10)
        fourth = ellipsoid(q, (0, -42, -31), (7 + wide, 5.5 + wide / 2, 9))
        low = np.minimum(tube(q, AQUEDUCT), fourth)
        lateral = self._lateral_ventricle(q, radius)
        distance[chosen] = np.minimum(np.minimum(lateral, third), low)
        return distance

    def _lateral_ventricle(self, q: Points, radius: Array) -> Array:
        """Signed distance to a lateral ventricle, mm. q: mirrored points; radius: what is added to its own, mm."""
        w = self.wide
        low_horn = tube(q, ((3.0, 8, 4, 1.6), (8, 20, 3, 2.4), (13 + w, 31 + w / 2, 1, 2.4)))
        high_horn = tube(q, ((4.0, 2, 14, 2.8), (8 + w / 2, 16, 13, 3.4), (13 + w, 29 + w / 2, 9, 2.6)))
        front = (7, 12, 18, 3.4), (9 + w / 2, -10, 22.5, 3.8)
        back = (14 + w / 2, -28, 21, 4.2), (21 + w / 2, -41, 16, 5.2)
        body = tube(q, (*front, *back))
        frontal = np.minimum(np.minimum(low_horn, high_horn), body)
        occipital = tube(q, ((22 + w / 2, -40, 16, 5.5), (27, -58, 9, 3.6), (24, -76, 5, 1.2)))
        temporal = tube(q, ((23 + w / 2, -40, 15, 5.0), (33, -34, 0, 2.8), (35, -20, -12, 1.7), (31, -8, -17, 1.4)))
        horns = np.minimum(occipital, temporal + 0.6 * radius)
        caudate = ellipsoid(q, (17.5 + 1.3 * w, 13, 9), (8, 13, 10))
        lateral = np.maximum(np.minimum(frontal, horns) - radius, -caudate)
        return np.maximum(lateral, 0.7 - q.x)

    def _ventricle_fluid(self, b: Brain) -> None:
        """Fluid in the ventricles."""
        amount = b.p.filled(b.ventricle)
        blend(b.hu, WHOLE, amount, np.float32(CSF - 1))
        b.fluid *= 1 - amount

    def _fissures(self, b: Brain, wander: Array, swell: Array | float) -> None:
        """Between the hemispheres, and the Sylvian fissure with its bed over the insula."""
        p, wide = mirror(b.p), self.fissure + swell
        between = p.x - wide * (0.7 + 0.3 * wander)
        between = np.maximum(between, np.minimum(self.callosum - p.z, 34 - np.abs(p.y - 2)))
        between = np.maximum(between, -b.tent)
        bed = p.x - 41 + 0.013 * (p.y - 2) ** 2 + 0.08 * (p.z - 4) - 2.0 * wander
        insula = np.abs(bed) - 0.4 * wide - 0.2
        insula = np.maximum(insula, np.abs(p.y - 2) - 21)
        insula = np.maximum(insula, np.abs(p.z - 4) - 13)
        lateral = np.abs(p.z - 1 + 0.32 * (p.y - 8) + 2.2 * wander) - wide * (0.9 + 0.4 * wander)
        lateral = np.maximum(lateral, np.maximum(39 - p.x, np.abs(p.y + 4) - 30))
        stem = np.abs(p.y - 17 - 0.1 * p.x + wander) - wide
        stem = np.maximum(stem, np.maximum(np.abs(p.z + 11) - 7, 20 - p.x))
        distance = np.minimum.reduce((between, insula, lateral, stem))
        amount = p.filled(distance) * (b.tent > 0)
        blend(b.hu, WHOLE, amount, np.float32(CSF + 1))
        b.fluid = np.maximum(b.fluid, amount)

    def _membranes(self, b: Brain, wander: Array) -> None:
        """Falx, tentorium, venous sinuses along the skull, arteries at the base: a little denser than the brain."""
        p, dense = b.p, self.dense
        if dense.dura_mm:
            blend(b.hu, WHOLE, p.filled(b.depth - np.float32(dense.dura_mm)), np.float32(GREY + dense.dura))
        falx_edge = self.callosum + 10 - 0.42 * np.maximum(22 - p.y, 0) - 40 * step(p.y - 40, 8)
        falx = np.abs(p.x + 0.6 * wander) - self.falx
        falx = np.maximum(falx, np.maximum(falx_edge - p.z, -b.tent))
        falx = np.maximum(falx, -(p.z + 8))
        blend(b.hu, WHOLE, 0.85 * p.filled(falx), np.float32(GREY + dense.falx))
        tent_edge = 9 - np.abs(p.x) - 30 * (p.y < -50)
        sheet = np.maximum(np.abs(b.tent) - np.float32(dense.tentorium_mm), tent_edge)
        tent = np.maximum(sheet, p.y + 12 + 0.62 * np.abs(p.x))
        blend(b.hu, WHOLE, 0.7 * p.filled(tent), np.float32(GREY + dense.tentorium))
        sagittal = np.maximum(np.abs(p.x) + 0.75 * b.depth - 5.0, -(p.z + 5))
        transverse = self._transverse_sinuses(b)
        sinus = np.minimum(np.minimum(sagittal, transverse), tube(p, STRAIGHT_SINUS))
        blend(b.hu, WHOLE, p.filled(sinus), np.float32(GREY + dense.sinuses))
        chosen = near(p, (-48, -45, -60), (48, 40, 14))
        if len(chosen):
            at_base = p.where(chosen)
            distance = np.minimum.reduce([tube(at_base, path) for path in self.vessels])
            blend(b.hu, chosen, at_base.filled(distance), np.float32(GREY + dense.arteries))
        if dense.veins:
            spots = b.fluid * step(self.folia.of(p) - 1.1, 0.3) * step(9 - b.depth, 3) * (b.tent > 0)
            blend(b.hu, WHOLE, np.clip(spots, 0, 1), np.float32(GREY + dense.veins))
        b.fluid *= 1 - np.maximum(p.filled(sinus), p.filled(falx))

    def _transverse_sinuses(self, b: Brain) -> Array:
        """Signed distance to them, mm, and in a finer head to the sigmoid sinuses."""
        p, dense = b.p, self.dense
        if not self.patient.finer:
            return np.maximum(np.hypot(b.depth - 1, b.tent) - 4.2, p.y + 35)
        wider = np.where(p.x >= 0, np.float32(dense.right), np.float32(dense.left))
        transverse = np.maximum(np.hypot(b.depth - 1, b.tent) - 4.2 * wider, p.y + 35)
        chosen = near(p, (-62, -70, -62), (62, -30, 0))
        sigmoid = tube(mirror(p.where(chosen)), SIGMOID_SINUS) + np.float32(4) * (1 - wider[chosen])
        transverse[chosen] = np.minimum(transverse[chosen], sigmoid)
        return transverse

    def _white_matter_disease(self, b: Brain, slow: Array) -> None:
        """Low density around the ventricles' horns, old lacunes: common in the old, never bleeding."""
        strength = self.disease
        if strength < 0.05:
            return
        halo = step(4 + 11 * strength + 3 * slow - b.ventricle, 7) * step(b.cortex - 6, 3) * (b.tent > 3)
        away = step(b.p.z - 8, 10) + bump((b.p.y - 30) / 14) + bump((b.p.y + 62) / 16)
        b.hu -= np.float32(9 * strength + 2) * halo * np.clip(away, 0, 1) * (b.hu > 20)

    def _plexus(self, b: Brain) -> None:
        """The choroid plexus of the lateral ventricles, if contrast agent makes it stand out."""
        if not self.dense.plexus:
            return
        chosen = near(b.p, (-42, -60, -10), (42, 20, 32))
        p, wide = mirror(b.p.where(chosen)), self.wide
        glomus = tube(p, ((23 + wide / 2, -46, 12, 2.5), (21 + wide / 2, -38, 18, 3.5), (11 + wide / 2, -14, 19, 1.2)))
        amount = p.filled(np.maximum(glomus + 0.8 * self.folia.of(p), b.ventricle[chosen]))
        blend(b.hu, chosen, amount, np.float32(GREY + self.dense.plexus))

    def _calcifications(self, b: Brain) -> None:
        """Pineal gland, choroid plexus, globus pallidus, falx."""
        pineal, plexus, basal, falx = self.patient.calcified
        right, left = self.glomus
        spots: tuple[tuple[float, Triple, Triple, float], ...] = (
            (pineal, (0.6, -31, 2), (2.6, 3.2, 2.8), 260),
            (plexus, (22 + self.wide / 2, -43, 15), right, 700),
            (plexus, (-22 - self.wide / 2, -41, 16), left, 650),
            (basal, (18.5, -1, 0), (4.5, 7, 4), 60),
            (basal, (-18.5, -1, 0), (4, 6.5, 4), 55),
            (falx, (0, 52, 34), (1.4, 9, 7), 420),
        )
        for strength, centre, axes, hu in spots:
            if strength > 0:
                self._calcify(b, centre, axes, strength, hu)

    def _calcify(self, b: Brain, centre: Triple, axes: Triple, strength: float, hu: float) -> None:
        """One grainy spot, `hu` above grey matter at strength 1."""
        reach = max(axes) + 5
        x, y, z = centre
        chosen = near(b.p, (x - reach, y - reach, z - reach), (x + reach, y + reach, z + reach))
        p = b.p.where(chosen)
        grain = self.folia.of(p)
        distance = ellipsoid(p, centre, axes) - 0.9 * grain + 1.5 * (1 - strength)
        amount = np.clip(0.4 - distance / 1.6, 0, 1) * np.clip(0.6 + 0.5 * grain, 0.1, 1)
        blend(b.hu, chosen, amount, np.float32(GREY + hu * strength))


def _glomus(rng: np.random.Generator) -> Triple:
    """Half-axes of what is calcified of the choroid plexus on one side, mm."""
    x, y, z = (rng.uniform(0.7, 1.3) * axis for axis in (3.2, 5.5, 4.5))
    return x, y, z


def _vessels(rng: np.random.Generator) -> list[tuple[Waypoint, ...]]:
    """Paths of the arteries at the base: basilar, and on each side middle, anterior and posterior cerebral."""
    jitter = rng.normal(0, 1.5, 12)
    r = float(rng.uniform(1.0, 1.7))
    lean = jitter[9]
    paths: list[tuple[Waypoint, ...]] = [
        ((0, -14 + jitter[8], -44, r + 0.3), (lean, -11, -30, r + 0.3), (lean, -12, -17, r + 0.2)),
    ]
    for side, (out, forward, forward2, out2) in ((1, jitter[0:4]), (-1, jitter[4:8])):
        carotid = (side * 11, 2, -18, r + 0.6), (side * 9, 4, -12, r + 0.4)
        middle = (
            (side * (20 + out), 6 + forward, -12, r),
            (side * (33 + out), 8 + forward2, -9, r),
            (side * (40 + out2), 4, 0, r - 0.5),
        )
        anterior = (side * 9, 4, -12, r), (side * 2, 12 + forward, -9, r - 0.2), (side * 1.5, 27, 2, r - 0.4)
        posterior = (0, -12, -17, r), (side * 12, -18, -14, r - 0.3), (side * 20, -34, -8, r - 0.5)
        paths += [(*carotid, *middle), anterior, posterior]
    return paths
