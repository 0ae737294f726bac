"""The phantom's frame fitted to a scan of someone else, whole or a part, and bleeding moved to what the scan shows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hemotorch.phantom.anatomy import DOME_AXES, DOME_CENTRE
from hemotorch.phantom.fields import Array, Points
from hemotorch.phantom.lesions import Lesion, Vector
from hemotorch.scan import Scan

VAULT_MM2 = 10500.0  #: inside the skull on one slice: above it the vault is shown, below only the skull base
CLOSED = 0.45  #: of the fullest slice's area; if the highest slice holds more, the scan ends below the vertex
FLOOR_MM, FLOOR_MM2 = -58.0, 1200.0  #: height of the posterior fossa's floor, and the area that tells it
BACK_MM = -98.0  #: y of the inner table behind, at the level of the posterior fossa
MIDDLE_MM = 15.0  #: height of the middle of a slab that shows neither base nor vertex: at the ventricles
DEEP_MM, AT_BONE_MM = 8.0, 2.5  #: under the inner table: where bleeding in the brain, and beside bone, is moved to
MARGIN_MM = 4.0  #: by which bleeding may lie beyond the slices


@dataclass(frozen=True, eq=False)
class HeadFrame:
    """Millimetres of a scan to millimetres of `Points`, axis by axis.

    centre: column and row of DOME_CENTRE. scale: of x, y and z. top: height in the scan of the dome's top.
    height_known: the scan shows the vertex or the skull base.
    """

    centre: Array
    scale: Array
    top: float
    height_known: bool

    @staticmethod
    def fit(scan: Scan, inside: np.ndarray) -> HeadFrame:
        """From the space inside the skull: its box on the fullest slices, and its top if the scan shows it.

        Args:
            scan: whole or a part.
            inside: (slices, rows, columns) bool, the space inside the skull.
        """
        areas = inside.sum(axis=(1, 2)) * np.prod(scan.pixel_mm)
        heights = (scan.slice_origins_mm @ scan.normal).astype(np.float32)
        full = np.flatnonzero(areas > 0.8 * areas.max())
        rows = np.flatnonzero(inside[full].any(axis=(0, 2)))
        columns = np.flatnonzero(inside[full].any(axis=(0, 1)))
        row_mm, column_mm = scan.pixel_mm
        shows_vault = areas.max() > VAULT_MM2
        scale, centre = np.ones(3), np.array([columns.mean(), rows.mean()])
        if shows_vault:
            half = np.array([np.ptp(columns) * column_mm, np.ptp(rows) * row_mm]) / 2
            scale[:2] = half[0] / DOME_AXES[0], half[1] / DOME_AXES[1]
            scale[2] = float(np.clip(scale[:2].mean(), 0.85, 1.15))
        else:
            centre[1] = rows.max() - (DOME_CENTRE[1] - BACK_MM) / row_mm
        shown = np.flatnonzero(areas > 0.05 * areas.max())
        shows_vertex = areas[shown[-1]] < CLOSED * areas.max()
        shows_base = not shows_vault or areas[shown[0]] < CLOSED * areas.max()
        if shows_vault and shows_vertex:
            known, height = DOME_CENTRE[2] + DOME_AXES[2], heights[shown[-1]]
        elif shows_base:
            known, height = FLOOR_MM, heights[np.flatnonzero(areas > FLOOR_MM2)[0]]
        else:
            known, height = MIDDLE_MM, heights[shown].mean()
        top = float(height) + (DOME_CENTRE[2] + DOME_AXES[2] - known) * scale[2]
        return HeadFrame(centre, scale, float(top), shows_base or shows_vertex)

    def points(self, scan: Scan, k: int, pixels: tuple[Array, Array], offset: float) -> Points:
        """The positions of pixels (rows, columns) of slice k, `offset` slices above its middle."""
        row_mm, column_mm = scan.pixel_mm
        height = float(scan.slice_origins_mm[k] @ scan.normal) + offset * float(scan.shares_mm[k])
        x = (self.centre[0] - pixels[1]) * column_mm / self.scale[0] + DOME_CENTRE[0]
        y = (self.centre[1] - pixels[0]) * row_mm / self.scale[1] + DOME_CENTRE[1]
        z = np.full(len(x), (height - self.top) / self.scale[2] + DOME_CENTRE[2] + DOME_AXES[2])
        return Points(x.astype(np.float32), y.astype(np.float32), z.astype(np.float32), max(column_mm, 1.0))

    def in_view(self, lesions: list[Lesion], scan: Scan, depth: Array, rng: np.random.Generator) -> list[Lesion]:
        """Bleeding whose middle lies beyond the slices of a part of a head, moved to a random place that they show.

        Args:
            lesions: in the frame.
            scan: whose frame it is.
            depth: (slices, rows, columns) mm under the inner table, 0 outside the skull.
            rng: of the places.
        """
        shown = np.flatnonzero((depth > 0).any(axis=(1, 2)))
        ends = [self.points(scan, k, (np.zeros(1), np.zeros(1)), 0.0).z[0] for k in (shown[0], shown[-1])]
        low, high = min(ends) - MARGIN_MM, max(ends) + MARGIN_MM
        moved = []
        for lesion in lesions:
            if low <= _middle(lesion)[2] <= high:
                moved.append(lesion)
            else:
                moved.append(self._moved(lesion, scan, depth, rng))
        return moved

    def _moved(self, lesion: Lesion, scan: Scan, depth: Array, rng: np.random.Generator) -> Lesion:
        """The bleeding at a random place of its kind: beside bone, or in the brain."""
        beside_bone = lesion.site != "brain"
        places = (depth > 0) & (depth < AT_BONE_MM) if beside_bone else depth > DEEP_MM
        candidates = np.flatnonzero(places)
        if not len(candidates):
            return lesion
        k, row, column = np.unravel_index(int(rng.choice(candidates)), depth.shape)
        p = self.points(scan, int(k), (np.array([row]), np.array([column])), 0.0)
        x, y, z = float(p.x[0]), float(p.y[0]), float(p.z[0])
        if not beside_bone:
            return replace(lesion, centre=(x, y, z))
        from_middle = np.array((x, y, z)) - np.array(DOME_CENTRE)
        unit = from_middle / np.linalg.norm(from_middle)
        return replace(lesion, centre=(float(unit[0]), float(unit[1]), float(unit[2])), site="vault")


def _middle(lesion: Lesion) -> Vector:
    """Where a bleeding lies, mm: its centre, or the place on the vault in its direction."""
    if lesion.site not in ("vault", "crossing"):
        return lesion.centre
    x, y, z = (axis * d + c for axis, d, c in zip(DOME_AXES, lesion.centre, DOME_CENTRE, strict=True))
    return x, y, z
