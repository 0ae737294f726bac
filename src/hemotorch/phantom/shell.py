"""What surrounds the brain, as HU: scalp, bone with its air, face, orbits, neck and ears."""

from __future__ import annotations

import numpy as np

from hemotorch.phantom.anatomy import AIR, CSF, DOME_CENTRE, FAT, MUSCLE, SKIN, Head, Opening
from hemotorch.phantom.fields import WHOLE, Array, Points, Waypoint, blend, ellipsoid, mirror, near, step, tube

FACE_TOP_MM = 25.0  #: above it lies no face
VAULT_MM = 80.0  #: mean radius of the vault; turns an angle into a distance along it
SCAR, TITANIUM = 42.0, 2600.0  #: HU of what fills a hole in the skull, and of a plate over it

#: Bones as tubes along (x, y, z, radius) waypoints, one side of the head; the other is its mirror image.
OUTER_ORBIT: tuple[Waypoint, ...] = (
    (47, 52, -8, 3.5),
    (51, 48, -26, 3.5),
    (46, 60, -44, 5),
    (28, 70, -46, 3.5),
    (12, 72, -40, 3),
)
UPPER_ORBIT_AND_NOSE: tuple[Waypoint, ...] = (
    (47, 52, -8, 3.5),
    (30, 66, -6, 4),
    (12, 70, -14, 4),
    (6, 78, -26, 3),
    (5, 88, -40, 2),
)
CHEEK_ARCH: tuple[Waypoint, ...] = ((50, 56, -46, 4.5), (62, 32, -50, 2.5), (66, 0, -48, 2.5), (62, -12, -42, 4))
MANDIBLE: tuple[Waypoint, ...] = ((52, -8, -50, 5.5), (53, -3, -62, 4), (52, 5, -110, 4))
ORBIT_WALL: tuple[Waypoint, ...] = ((51, 48, -26, 1.8), (42, 24, -26, 2.2), (34, 16, -20, 3.5))
ATLAS: tuple[Waypoint, ...] = ((18, -36, -66, 6), (24, -46, -80, 6), (12, -68, -86, 4), (0, -72, -86, 4))
DENS: tuple[Waypoint, ...] = ((0, -26, -64, 4.5), (0, -27, -110, 6))
PTERYGOID: tuple[Waypoint, ...] = ((26, 10, -40, 2.2), (28, 10, -85, 2))
EAR_CANAL: tuple[Waypoint, ...] = ((75, -22, -43, 4.5), (50, -20, -40, 3.2))

#: What lies in an orbit: the optic nerve, and the muscles that run back from the eyeball.
OPTIC_NERVE: tuple[Waypoint, ...] = ((34, 55, -26, 2.4), (17, 22, -23, 2.2))
ORBIT_MUSCLES: tuple[tuple[Waypoint, ...], ...] = (
    ((44, 62, -26, 1.6), (41, 48, -26, 2.6), (20, 22, -24, 1.5)),
    ((23, 62, -26, 1.6), (22, 48, -26, 2.6), (18, 22, -24, 1.5)),
    ((33, 62, -15, 1.6), (31, 48, -14, 2.6), (18, 22, -22, 1.5)),
    ((33, 62, -37, 1.6), (31, 48, -38, 2.6), (18, 22, -26, 1.5)),
)


def paint_shell(head: Head, p: Points, hu: Array, inner: Array, dome: Array, skin: Array) -> Array:
    """Paints scalp, face and bone into hu, for points outside the inner table.

    Args:
        head: whose they are.
        p: the points.
        hu: (points,) what is changed.
        inner: (points,) signed distance to the inner table, mm.
        dome: the same to the dome alone, without the skull base.
        skin: the same to the skin.

    Returns:
        (points,) share of each that is a crack in bone.
    """
    base = step(inner - dome - 2, 3)
    thickness = head.skull_thickness(p) * (1 - base) + head.base_thickness(p) * base
    _soft_tissue(head, p, hu, dome, skin, thickness)
    if (p.z < FACE_TOP_MM).any():
        low = np.flatnonzero((p.z < FACE_TOP_MM) & (inner > -2))
        face = hu[low]
        _face(head, p.where(low), face)
        hu[low] = face
    bone = p.filled(inner - thickness)  # its inner edge comes when the brain is laid over it
    bony = np.flatnonzero(bone > 0)
    texture = _bone_texture(head, p.where(bony), inner[bony], thickness[bony], base[bony])
    blend(hu, bony, bone[bony], texture)
    _air_in_bone(head, p, hu, inner, thickness)
    crack = np.zeros(len(p), np.float32)
    for opening in head.patient.openings:
        _open(opening, p, hu, inner, thickness, bone)
    for implant in head.patient.implants:
        blend(hu, WHOLE, p.filled(tube(p, implant.path)), np.float32(implant.hu))
    if head.injuries:
        vault = (inner[bony] > 0) * (base[bony] < 0.5)
        crack[bony] = head.cracked(p.where(bony)) * vault * bone[bony]
        blend(hu, bony, crack[bony], np.float32(45))
    blend(hu, WHOLE, p.filled(-skin), np.float32(AIR))
    return crack


def _soft_tissue(head: Head, p: Points, hu: Array, dome: Array, skin: Array, thickness: Array) -> None:
    """Skin, a layer of fat, muscle with fat planes if there is room for it."""
    depth = -skin
    noise = head.layer_noise.of(p)
    under = dome - thickness
    planes = 0.03 if head.patient.finer else 0.13  # of fat, as a share of the noise between muscles
    muscle = step(depth - 5.0 + 1.5 * noise, 1.2) * step(np.abs(noise) - planes, 0.10)
    thin = step(11 - (depth + under), 2) * step(dome + 4, 2) * step(p.z + 45, 8)
    hu[:] = FAT + noise * 6
    blend(hu, WHOLE, muscle * (1 - thin), MUSCLE + np.float32(6) * noise)
    if head.injuries:
        swollen = step(head.swollen(p) - 2, 1.5)
        blend(hu, WHOLE, swollen, np.float32(58) + 5 * noise)
    galea = p.filled(np.abs(under - 1.0) - 1.0) * (p.z > -25)
    blend(hu, WHOLE, galea, np.float32(25))
    blend(hu, WHOLE, p.filled(depth - 1.9), np.float32(SKIN))


def _open(opening: Opening, p: Points, hu: Array, inner: Array, thickness: Array, bone: Array) -> None:
    """Scar instead of bone in a hole or a saw cut, and plates of metal over the cut."""
    x, y, z = (v - np.float32(c) for v, c in zip((p.x, p.y, p.z), DOME_CENTRE, strict=True))
    r = np.sqrt(x * x + y * y + z * z) + np.float32(1)
    away = [v / r - np.float32(c) for v, c in zip((x, y, z), opening.direction, strict=True)]
    away_mm = VAULT_MM * np.sqrt(away[0] ** 2 + away[1] ** 2 + away[2] ** 2)
    distance = away_mm - opening.radius_mm
    if opening.gap_mm:
        distance = np.abs(distance) - opening.gap_mm / 2
    blend(hu, WHOLE, p.filled(distance) * bone * (inner > -2), np.float32(SCAR))
    for k in range(opening.plates):
        turn = 2 * np.pi * (k + 0.3) / opening.plates
        middle = np.array(opening.direction) + opening.radius_mm / VAULT_MM * _around(opening.direction, turn)
        middle = middle / np.linalg.norm(middle)
        off = [v / r - np.float32(c) for v, c in zip((x, y, z), middle, strict=True)]
        off_mm = VAULT_MM * np.sqrt(off[0] ** 2 + off[1] ** 2 + off[2] ** 2)
        plate = np.maximum(off_mm - 6, np.abs(inner - thickness - 0.4) - 0.5)
        blend(hu, WHOLE, p.filled(plate), np.float32(TITANIUM))


def _around(direction: tuple[float, float, float], turn: float) -> Array:
    """A unit vector across a direction, `turn` radians around it."""
    across = np.cross(direction, (0.0, 0.0, 1.0)) + np.array((1e-6, 0.0, 0.0))
    across = across / np.linalg.norm(across)
    along = np.cross(across, direction)
    return np.cos(turn) * across + np.sin(turn) * along


def _bone_texture(head: Head, p: Points, inner: Array, thickness: Array, base: Array) -> Array:
    """HU of compact tables with diploe between, and sutures; in the base (0 to 1) thin tables and marrow."""
    patient = head.patient
    texture = head.texture_noise.of(p)
    table = np.minimum(inner, thickness - inner)
    spongy = step(table - 1.7 - 0.2 * texture, 0.6)
    diploe = patient.diploe + 170 * texture
    hu = patient.table + 60 * texture + spongy * (diploe - patient.table)
    cells = head.cell_noise.of(p)
    marrow = 0.45 * patient.diploe + 170 * texture + 260 * cells
    in_base = base * step(table - 0.7 - 0.3 * texture, 0.4)
    hu += in_base * (np.maximum(marrow, -60) - hu)
    return hu - 650 * np.clip(1.2 - _suture_distance(p, texture), 0, 1)


def _suture_distance(p: Points, texture: Array) -> Array:
    """Distance to the nearest suture of the vault, mm."""
    wiggle = 2.5 * np.sin(p.z * np.float32(0.9) + 2 * texture)
    coronal = np.abs(p.y - 8 - 0.15 * p.z + 0.5 * wiggle) + 60 * (p.z < 5)
    lambdoid = np.abs(p.y + 78 + 0.55 * p.z - 0.35 * np.abs(p.x) + wiggle) + 60 * (p.z < -10)
    sagittal = np.abs(p.x + wiggle) + 60 * (p.z < 30)
    return np.minimum(np.minimum(coronal, lambdoid), sagittal)


def _air_in_bone(head: Head, p: Points, hu: Array, inner: Array, thickness: Array) -> None:
    """Frontal sinuses and mastoid cells, where the bone is thick enough."""
    size = head.patient.sinus_air
    chosen = near(p, (-50, 62, -25), (50, 100, 30))
    q = mirror(p.where(chosen))
    sinus = ellipsoid(q, (13, 79, 2), (15 * size, 7, 13 * size))
    wall = np.maximum(1.2 - inner[chosen], inner[chosen] - thickness[chosen] + 1.2)
    septum = 0.8 - np.abs(p.x[chosen] - 2)
    frontal = np.maximum(np.maximum(sinus, wall), septum)
    blend(hu, chosen, q.filled(frontal), np.float32(AIR))
    chosen = near(p, (-85, -70, -62), (85, -5, -8))
    q = mirror(p.where(chosen))
    region = ellipsoid(q, (58, -40, -34), (11 * size, 15 * size, 18 * size))
    cells = (np.abs(head.cell_noise.of(p.where(chosen))) - 0.42) / head.cell_noise.slope
    mastoid = np.maximum(np.maximum(region, -cells), 2.0 - inner[chosen])
    blend(hu, chosen, q.filled(mastoid), np.float32(-900))


def _face(head: Head, p: Points, hu: Array) -> None:
    """Orbits, nose, sinuses, jaw, throat and spine below the skull base."""
    q, noise = mirror(p), head.cell_noise.of(p)
    _bones_of_the_face(q, hu, noise)
    _orbit(q, hu)
    _sinuses(head, q, hu, noise)
    _nose(head, q, hu, noise)
    throat = ellipsoid(q, (0, 6, -68), (13, 8, 16))
    blend(hu, WHOLE, q.filled(throat), np.float32(AIR))
    blend(hu, WHOLE, q.filled(tube(q, EAR_CANAL)), np.float32(AIR))


def _sinuses(head: Head, q: Points, hu: Array, noise: Array) -> None:
    """Ethmoid cells, sphenoid and maxillary sinuses. q: mirrored points."""
    mucosa_mm, size = abs(head.front - 1) * 10 + 0.6, head.patient.sinus_air
    airy = np.minimum(np.abs(noise) / head.cell_noise.slope - 0.5, 9)
    ethmoid = np.maximum(np.maximum(q.x - 12, np.abs(q.y - 36) - 25), np.abs(q.z + 30) - 13)
    blend(hu, WHOLE, q.filled(np.maximum(ethmoid, -airy)), np.float32(-920))
    blend(hu, WHOLE, q.filled(np.maximum(ethmoid, airy)), np.float32(260))
    sphenoid = ellipsoid(q, (9, 9, -31), (9 * size, 11, 9))
    maxillary = ellipsoid(q, (30, 42, -64), (15 * size, 20 * size, 18))
    for sinus in (sphenoid, maxillary):
        blend(hu, WHOLE, q.filled(np.abs(sinus - 0.8) - 0.8), np.float32(700))
        blend(hu, WHOLE, q.filled(sinus + mucosa_mm), np.float32(30))
        blend(hu, WHOLE, q.filled(sinus + mucosa_mm + 1.2), np.float32(AIR))


def _nose(head: Head, q: Points, hu: Array, noise: Array) -> None:
    """Air between the turbinates, and the septum. q: mirrored points."""
    nose = np.maximum(np.maximum(q.x - 13, np.abs(q.y - 50) - 36), np.abs(q.z + 62) - 20)
    between = np.maximum(nose, -(noise / head.cell_noise.slope + 1.2))
    blend(hu, WHOLE, q.filled(between), np.float32(AIR))
    blend(hu, WHOLE, q.filled(np.maximum(nose, q.x - 0.9)), np.float32(300))


def _bones_of_the_face(q: Points, hu: Array, noise: Array) -> None:
    """Walls of the orbit, cheek bones and arches, upper jaw, mandible, mastoid, first vertebrae. q: mirrored points."""
    tubes = (OUTER_ORBIT, UPPER_ORBIT_AND_NOSE, CHEEK_ARCH, MANDIBLE, ORBIT_WALL, ATLAS, DENS, PTERYGOID)
    mastoid = ellipsoid(q, (57, -40, -46), (12, 15, 25))
    palate = ellipsoid(q, (0, 52, -92), (32, 36, 6))
    distance = np.minimum.reduce([mastoid, palate, *(tube(q, path) for path in tubes)])
    value = np.float32(1250) - 650 * step(-distance - 1.6, 0.6) + 120 * noise
    blend(hu, WHOLE, q.filled(distance), value)
    canal = np.maximum(np.sqrt(q.x**2 + (q.y + 48) ** 2) - 11, q.z + 58)
    blend(hu, WHOLE, q.filled(canal), np.float32(CSF))
    cord = np.maximum(np.sqrt((q.x / 1.3) ** 2 + (q.y + 47) ** 2) - 5.5, q.z + 58)
    blend(hu, WHOLE, q.filled(cord), np.float32(32))


def _orbit(q: Points, hu: Array) -> None:
    """Fat, eyeball with lens, optic nerve, muscles and lacrimal gland. q: mirrored points."""
    chosen = near(q, (0, 15, -56), (62, 100, -2))
    p = q.where(chosen)
    cone = np.maximum(ellipsoid(p, (33, 50, -26), (19.5, 36, 17)), p.y - 82)
    wall = np.maximum(np.abs(cone - 0.9) - 0.9, p.y - 62)
    muscles = [(tube(p, path), 55.0) for path in ORBIT_MUSCLES]
    layers: list[tuple[Array, float]] = [
        (wall, 750),
        (cone, FAT),
        (tube(p, OPTIC_NERVE), 32),
        *muscles,
        (ellipsoid(p, (46, 62, -17), (3, 8, 5)), 48),  # lacrimal gland
        (ellipsoid(p, (33, 66, -26), (12.6, 12.6, 12.6)), 55),  # eyeball's wall
        (ellipsoid(p, (33, 66, -26), (11.3, 11.3, 11.3)), 10),  # vitreous body
        (ellipsoid(p, (33, 75, -26), (4.6, 2.1, 4.6)), 85),  # lens
    ]
    for distance, value in layers:
        blend(hu, chosen, p.filled(distance), np.float32(value))


def ears(head: Head, p: Points, skin: Array) -> Array:
    """Signed distance to the outer ears, for points outside the skin: folded flaps behind the ear canal."""
    q = mirror(p)
    flap = ellipsoid(q, (84, -28, -30), (9, 16, 30))
    folds = np.abs(head.ear_noise.of(p)) / head.ear_noise.slope - 1.6
    return np.maximum(flap, folds)
