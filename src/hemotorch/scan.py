"""Scan: one CT volume. Source: the files it came from. Prediction: what a network made of it, in the same geometry.

CaseInfo: what is known of a case beside its scan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from hemotorch.errors import InputError
from hemotorch.system.arrays import voxels_per_slice
from hemotorch.task import BLEEDING, Task

UNEVEN_TOLERANCE = 0.02  #: slice distances that differ by more than this share of their median are uneven
SAME_DISTANCE = 0.1  #: distances that differ by no more than this share are one protocol's: positions are often rounded
#: A lone distance of this many times the usual one beside it is a gap. One missing slice makes 2; a change of protocol
#: within a series, 4 to 7 mm, has made 1.75, but then many slices in a row have the new distance.
GAP_RATIO = 1.6
LONE_GAP_RATIO = 3.0  #: the same if no distance of the scan repeats, so that none can be called usual
THICKEST_SLICE_MM = 15.0  #: head CT is made in slices of up to 10 mm; a longer distance is not a usual one


class Frame(NamedTuple):
    """Where one slice lies in its source.

    file: index into `Source.files`. number: which slice of that file it is, from 0 in the file's own order.
    """

    file: int
    number: int


@dataclass(frozen=True)
class Source:
    """The files that a scan was read from; writers reread their headers.

    format: `NAME` of one of `io.FORMATS`.
    files: paths as they were given, the one that names the scan first. Text, so that they may lie in an object store.
    frames: one for each slice of the scan, in its order.
    """

    format: str
    files: tuple[str, ...]
    frames: tuple[Frame, ...]

    def __str__(self) -> str:
        return self.files[0]


@dataclass(frozen=True, eq=False)
class Scan:
    """One CT volume as a radiologist looks at it.

    hu: (slices, rows, columns) int16 Hounsfield units; slices from foot to head, rows from front to back, columns from
        the patient's right to left.
    slice_origins_mm: (slices, 3) centre of each slice's first voxel, RAS millimetres (x right, y front, z head).
    row_step_mm, column_step_mm: (3,) from one row, one column, to the next, RAS millimetres.
    name: what files made from it are called.
    slice_numbers: the source's own number of each slice (CT-ICH counts from 1).
    source: the files that it was read from, or None if it was made or changed by a program.
    warnings: what the reader noticed or repaired.
    spacing_known: False for a PNG without spacing: there are then no millimetres and no mL (NaN).
    slice_mm: distance from one slice to the next as its source states it, or None if only the positions tell.
    contrast: why contrast agent is likely in it, "" if nothing says so.
    """

    hu: np.ndarray
    slice_origins_mm: np.ndarray
    row_step_mm: np.ndarray
    column_step_mm: np.ndarray
    name: str = "scan"
    slice_numbers: tuple[int, ...] = ()
    source: Source | None = None
    warnings: tuple[str, ...] = ()
    spacing_known: bool = True
    slice_mm: float | None = None
    contrast: str = ""

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or self.hu.dtype != np.int16:
            raise InputError(f"a scan is a 3-D int16 array of HU, not {self.hu.ndim}-D {self.hu.dtype}", self.name)
        if self.slice_origins_mm.shape != (len(self.hu), 3):
            raise InputError("one origin of three millimetres is needed for each slice", self.name)
        if not self.slice_numbers:
            object.__setattr__(self, "slice_numbers", tuple(range(1, len(self.hu) + 1)))
        if self.source is not None and len(self.source.frames) != len(self.hu):
            raise InputError("its source has another number of slices", self.name)
        warning = self._gap_warning()
        if warning and warning not in self.warnings:
            object.__setattr__(self, "warnings", (*self.warnings, warning))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return self.hu.shape

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Distance between rows and between columns."""
        return float(np.linalg.norm(self.row_step_mm)), float(np.linalg.norm(self.column_step_mm))

    @cached_property
    def normal(self) -> np.ndarray:
        """(3,) unit vector across the slices, toward the head."""
        normal = np.cross(self.column_step_mm, self.row_step_mm)
        normal = normal / np.linalg.norm(normal)
        upward = np.array([0.0, 0.0, 1.0])
        if len(self.hu) > 1:
            upward = self.slice_origins_mm[-1] - self.slice_origins_mm[0]
        if upward @ normal < 0:
            return -normal
        return normal

    @cached_property
    def slice_distances_mm(self) -> np.ndarray:
        """(slices - 1,) distance between neighbouring slices along the normal."""
        return np.diff(self.slice_origins_mm @ self.normal)

    @cached_property
    def thickness_mm(self) -> np.ndarray:
        """(2, slices - 1) mm between neighbours, as the lower and as the upper one counts it; see `bridged_mm`."""
        return bridged_mm(self.slice_distances_mm, self.slice_mm)

    @cached_property
    def shares_mm(self) -> np.ndarray:
        """(slices,) how much of the body each slice stands for, in mm.

        It is half the distance along the normal to each neighbour, end slices mirrored. Beside a gap, where slices are
        missing, it is half the usual distance on that side. A single slice has the distance that its source states,
        or NaN if it states none.
        """
        stated = np.full(1, np.nan if self.slice_mm is None else self.slice_mm)
        if len(self.hu) == 1:
            return stated
        to_upper, to_lower = self.thickness_mm
        below_first = to_upper[:1]
        above_last = to_lower[-1:]
        if self.slice_mm is not None:
            below_first = above_last = stated
        below = np.concatenate([below_first, to_lower])
        above = np.concatenate([to_upper, above_last])
        return (below + above) / 2

    @property
    def height_mm(self) -> float:
        """mm from the lower edge of the first slice to the upper edge of the last, gaps included; NaN if not known."""
        return float(self.slice_distances_mm.sum() + (self.shares_mm[0] + self.shares_mm[-1]) / 2)

    def _gap_warning(self) -> str:
        """A sentence on the gaps between slices, or none."""
        if len(self.hu) == 1 or not self.spacing_known:
            return ""
        distances = self.slice_distances_mm
        is_gap = (self.thickness_mm != distances).any(axis=0)
        if is_gap.any():
            count = int(np.count_nonzero(is_gap))
            first = int(is_gap.argmax())
            below, above = self.slice_numbers[first : first + 2]
            usual_mm = self.thickness_mm[0, first]
            return (
                f"slices are missing in {count} place{'s' * (count > 1)}, first between {below} and {above}, "
                f"{distances[first]:.4g} mm apart: slices beside a gap stand for the usual {usual_mm:.4g} mm, "
                "and what lies in the gap is not counted"
            )
        if distances.max() > THICKEST_SLICE_MM:
            return f"slices are up to {distances.max():.4g} mm apart, more than any slice is thick: mL may be too high"
        return ""

    @property
    def even(self) -> bool:
        """Whether one affine describes all slices: even distances and no shear drift."""
        if len(self.hu) < 3:
            return True
        steps = np.diff(self.slice_origins_mm, axis=0)
        usual = np.median(steps, axis=0)
        deviation = np.abs(steps - usual).max()
        return bool(deviation <= UNEVEN_TOLERANCE * np.linalg.norm(usual))

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) from (slice, row, column) to RAS mm. Raises InputError if the slices are uneven."""
        if not self.even:
            raise InputError("its slices are unevenly spaced, so that no single affine describes it", self.name)
        slice_step = self.normal
        if len(self.hu) > 1:
            slice_step = np.median(np.diff(self.slice_origins_mm, axis=0), axis=0)
        affine = np.eye(4)
        affine[:3, 0] = slice_step
        affine[:3, 1] = self.row_step_mm
        affine[:3, 2] = self.column_step_mm
        affine[:3, 3] = self.slice_origins_mm[0]
        return affine

    @cached_property
    def voxel_ml(self) -> np.ndarray:
        """(slices,) mL of one voxel of each slice: area times share. NaN if spacing is unknown."""
        if not self.spacing_known:
            return np.full(len(self.hu), np.nan)
        area = float(np.linalg.norm(np.cross(self.row_step_mm, self.column_step_mm)))
        return area * self.shares_mm / 1000.0

    def __repr__(self) -> str:
        return f"<Scan {self.name!r}: {self._geometry_text()}>"

    def _repr_html_(self) -> str:
        """The scan in a notebook: a slider over its slices, which needs no kernel and no network."""
        from hemotorch.pictures.viewer import scan_html

        return scan_html(self, [self._geometry_text()], self.warnings)

    def _geometry_text(self) -> str:
        """Shape and spacing in words."""
        slices, rows, columns = self.shape
        shape = f"{slices} slice{'s' if slices != 1 else ''} of {rows} x {columns} pixels"
        if not self.spacing_known:
            return f"{shape}, spacing unknown"
        row_mm, column_mm = self.pixel_mm
        text = f"{shape}, {row_mm:.3g} x {column_mm:.3g} mm"
        if slices > 1:
            text += f", {float(np.median(self.slice_distances_mm)):.3g} mm apart"
        return text

    def volume_ml(self, mask: np.ndarray) -> float:
        """mL of the non-zero voxels of a mask.

        Args:
            mask: of this scan's shape.

        Returns:
            NaN if spacing is unknown.

        Raises:
            InputError: if the mask has another shape.
        """
        if mask.shape != self.shape:
            raise InputError(f"a mask of shape {mask.shape} does not fit a scan of shape {self.shape}", self.name)
        return float((voxels_per_slice(mask) * self.voxel_ml).sum())


def bridged_mm(distances: np.ndarray, slice_mm: float | None = None) -> np.ndarray:
    """Distances between slices, with the usual distance in place of each gap that missing slices leave.

    If the distance is stated, whatever is 1.5 times as long or longer is a gap, since at least one slice is missing.
    Otherwise a distance is usual if a neighbouring distance is the same, as when a protocol changes from 5 to 10 mm
    within a series; but not if it is longer than any slice is thick, or if just two such lie between shorter ones,
    which is a slice left alone. A distance that is not usual is a gap from `GAP_RATIO` times the usual distances on
    both sides. If no distance is usual, it is a gap from `LONE_GAP_RATIO` times the median of those that a slice may be
    thick.

    Args:
        distances: (slices - 1,) mm between neighbouring slices.
        slice_mm: the distance from one slice to the next as the source states it, or None.

    Returns:
        (2, slices - 1) mm, both rows the distances themselves if there is no gap. At a gap, the first row has the
        usual distance below it, for the slice below, and the second row that above it.
    """
    bridged = np.stack([distances, distances])
    if slice_mm is not None:
        return np.where(bridged >= 1.5 * slice_mm, slice_mm, bridged)
    is_usual = _usual(distances)
    if not is_usual.any():
        possible = distances[distances <= THICKEST_SLICE_MM]
        if not possible.size:
            possible = distances
        # The lower of two middle ones, so that it is a distance that the scan has.
        median = float(np.sort(possible)[(len(possible) - 1) // 2])
        return np.where(bridged > LONE_GAP_RATIO * median, median, bridged)
    usual = np.flatnonzero(is_usual)
    for index in np.flatnonzero(~is_usual):
        nearest = [*usual[usual < index][-1:], *usual[usual > index][:1]]
        if distances[index] >= GAP_RATIO * distances[nearest].max():
            bridged[0, index] = distances[nearest[0]]
            bridged[1, index] = distances[nearest[-1]]
    return bridged


def _usual(distances: np.ndarray) -> np.ndarray:
    """Which distances are the scan's own, and not a gap: bool of the distances' shape."""
    shorter = np.minimum(distances[1:], distances[:-1])
    is_same = np.abs(np.diff(distances)) <= SAME_DISTANCE * shorter
    run_edges = np.flatnonzero(np.concatenate([[True], ~is_same, [True]]))
    usual = np.zeros(len(distances), bool)
    for start, end in pairwise(run_edges.tolist()):
        length = float(np.median(distances[start:end]))
        if length > THICKEST_SLICE_MM or end - start < 2:
            continue
        # Two long distances between shorter ones: a slice left alone in a gap.
        is_inside = start > 0 and end < len(distances)
        if end - start == 2 and is_inside and GAP_RATIO * distances[[start - 1, end]].max() <= length:
            continue
        usual[start:end] = True
    return usual


def even_scan(hu: np.ndarray, pixel_mm: float, slice_mm: float, name: str = "scan", **other: Any) -> Scan:
    """An upright, evenly spaced scan around the origin: square pixels of `pixel_mm`, slices `slice_mm` apart."""
    return upright_scan(hu, pixel_mm, np.arange(len(hu)) * slice_mm, name=name, **other)


def upright_scan(hu: np.ndarray, pixel_mm: float, heights_mm: np.ndarray, **other: Any) -> Scan:
    """A scan of horizontal slices whose middles lie above each other.

    Args:
        hu: (slices, rows, columns) that are rounded already.
        pixel_mm: edge of a square pixel.
        heights_mm: (slices,) of each slice.
        other: fields of `Scan`.
    """
    _, rows, columns = hu.shape
    corner = np.array([(columns - 1) / 2, (rows - 1) / 2, 0.0]) * pixel_mm
    return Scan(
        hu.astype(np.int16, copy=False),
        slice_origins_mm=corner + np.outer(heights_mm, [0.0, 0.0, 1.0]),
        row_step_mm=np.array([0.0, -pixel_mm, 0.0]),
        column_step_mm=np.array([-pixel_mm, 0.0, 0.0]),
        **other,
    )


@dataclass(frozen=True)
class Doubt:
    """What speaks against a prediction.

    code: one word for programs, see `inference.doubts`. text: a sentence. value: the number behind it, None if there is
    none. unit: of that number.
    """

    code: str
    text: str
    value: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class LeftOut:
    """Connected pieces that a network outlined and that were dropped from the mask, since they were small.

    pieces: how many. ml: of all of them together. least_ml: of a piece that is not dropped.
    """

    pieces: int
    ml: float
    least_ml: float

    @property
    def text(self) -> str:
        """A sentence without its end."""
        amount = f"{self.ml:.1f} mL" if self.ml >= 0.05 else "less than 0.05 mL"
        if self.pieces == 1:
            return f"1 piece of {amount} was left out: it is under {self.least_ml:g} mL"
        return f"{self.pieces} pieces, {amount} together, were left out: each is under {self.least_ml:g} mL"


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a predictor found in a scan, in the scan's geometry.

    mask: (slices, rows, columns) uint8, 0 or 1 (or codes of `labels` if the network has types).
    probability: same shape, float32 in [0, 1], or None if a predictor has none (the rule-based baseline).
    volume_ml: {"total": mL, and one entry per type if the network has types}; NaN if spacing is unknown.
    model: what produced it, in words; seconds: time spent, a stage each.
    task: what was asked of the scan: bleeding or not, or its types.
    doubts: what speaks against it; None if that was not looked for.
    interval_ml: least and most mL found in the same scan mirrored, moved, made a little darker and brighter; None if
    that was not tried.
    digest: SHA-256 of the model's file, "" if it is not known.
    card: what the model's makers say about it.
    left_out: small pieces that are not in the mask; None if there were none.
    """

    scan: Scan
    mask: np.ndarray
    probability: np.ndarray | None
    volume_ml: dict[str, float]
    model: str
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    task: Task = BLEEDING
    doubts: tuple[Doubt, ...] | None = None
    interval_ml: tuple[float, float] | None = None
    digest: str = ""
    card: str = ""
    left_out: LeftOut | None = None

    def __repr__(self) -> str:
        amounts = ", ".join(f"{name} {ml:.1f} mL" for name, ml in self.volume_ml.items())
        return f"<Prediction of {self.scan.name!r}: {amounts}; by {self.model}>"

    def _repr_html_(self) -> str:
        """The prediction in a notebook: a slider over slices with outlines and mL, without kernel or network."""
        from hemotorch.pictures.viewer import scan_html

        doubted = [f"doubt: {doubt.text}" for doubt in self.doubts or ()]
        return scan_html(
            self.scan, [self.model], (*doubted, *self.remarks), predicted=self.mask, typed=bool(self.task.types)
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader has to know beside the doubts: what was left out, then the warnings."""
        left_out = () if self.left_out is None else (self.left_out.text,)
        return (*left_out, *self.warnings)

    @property
    def interval_text(self) -> str:
        """What the interval of the mL says, "" if there is none."""
        if self.interval_ml is None:
            return ""
        low, high = self.interval_ml
        return f"{low:.1f} to {high:.1f} mL if the same scan is mirrored, moved, made a little darker or brighter"

    @property
    def slices_with_bleeding(self) -> list[int]:
        """The source's own numbers of the slices that hold bleeding."""
        return [self.scan.slice_numbers[index] for index in np.flatnonzero(voxels_per_slice(self.mask))]


@dataclass(frozen=True)
class CaseInfo:
    """What a writer needs to know of a case beside its scan and mask.

    age: years; sex: "F" or "M"; slice_types: by slice number, the types in it, none meaning no bleeding;
    fracture_slices: slice numbers; note: free text for a demographics table.
    """

    name: str
    patient: str
    age: float | None = None
    sex: str | None = None
    slice_types: Mapping[int, frozenset[str]] = field(default_factory=dict)
    fracture_slices: frozenset[int] = frozenset()
    hemorrhage: bool = False
    note: str = ""
