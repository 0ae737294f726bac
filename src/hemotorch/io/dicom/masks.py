"""Masks in DICOM: segmentations (SEG) and contours (RTSTRUCT), put on the slices of a scan by their positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hemotorch.errors import InputError, some_of
from hemotorch.io.dicom.header import lenient, read_dataset
from hemotorch.io.dicom.reader import oriented
from hemotorch.scan import Scan
from hemotorch.system import limits

SAME_POSITION = 0.1  #: frames whose corner lies closer to a slice's than this share of a pixel lie on it
_TO_RAS = np.array([-1.0, -1.0, 1.0])
_MOST_NAMES = 255  # that uint8 can tell apart
_MOST_POINTS = 1_000_000  # of all contours of a file


def mask_names(path: Path) -> dict[int, str]:
    """What the values of a mask are called: its segments, or its regions of interest, numbered from 1.

    Raises:
        InputError: for a file that is no segmentation and no structure set, or damaged.
    """
    with lenient():
        return _names(read_dataset(path, pixels=True), path)


def mask_series(path: Path) -> set[str]:
    """The SeriesInstanceUIDs of the images that a mask was drawn on, as it says itself; none if it does not."""
    try:
        with lenient():
            dataset = read_dataset(path, pixels=True)
            if "ReferencedSeriesSequence" in dataset:
                return {str(item.SeriesInstanceUID) for item in dataset.ReferencedSeriesSequence}
            uids = set()
            for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []:
                for study in frame.get("RTReferencedStudySequence") or []:
                    uids |= {str(item.SeriesInstanceUID) for item in study.get("RTReferencedSeriesSequence") or []}
            return uids
    except Exception:  # a damaged file says so when it is read
        return set()


def mask_of_file(path: Path, scan: Scan) -> tuple[np.ndarray, list[str]]:
    """A segmentation or structure set as a mask of a scan.

    Args:
        path: of the file.
        scan: that it was drawn on.

    Returns:
        (slices, rows, columns) uint8 of the values that `mask_names` names, and warnings.

    Raises:
        InputError: if it does not lie on the scan's slices, or is damaged.
    """
    with lenient():
        dataset = read_dataset(path, pixels=True)
        names = _names(dataset, path)
        try:
            if _segments(dataset):
                return _from_segments(dataset, scan, path)
            return _from_contours(dataset, scan, path, len(names))
        except InputError:
            raise
        except Exception as error:  # pydicom raises whatever a damaged value leads to
            raise InputError(f"cannot be read as a mask: damaged ({type(error).__name__})", path) from error


def _segments(dataset: Any) -> list[Any]:
    return list(dataset.get("SegmentSequence") or [])


def _names(dataset: Any, path: Path) -> dict[int, str]:
    try:
        segments = _segments(dataset)
        if segments:
            names = {int(item.SegmentNumber): str(item.get("SegmentLabel", "")) for item in segments}
        else:
            regions = list(dataset.get("StructureSetROISequence") or [])
            names = {index: str(item.get("ROIName", "")) for index, item in enumerate(regions, start=1)}
    except Exception as error:  # as above
        raise InputError(f"its segments are damaged ({type(error).__name__})", path) from error
    if not names:
        raise InputError("holds no segments and no regions: it is no mask", path)
    if max(names) > _MOST_NAMES or min(names) < 1:
        raise InputError(f"has segments numbered from {min(names)} to {max(names)}, not from 1 to {_MOST_NAMES}", path)
    return names


def _from_segments(dataset: Any, scan: Scan, path: Path) -> tuple[np.ndarray, list[str]]:
    frames = list(dataset.PerFrameFunctionalGroupsSequence)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    limits.check_voxels((max(len(frames), int(dataset.get("NumberOfFrames") or 1)), rows, columns), path)
    shared = (list(dataset.get("SharedFunctionalGroupsSequence") or []) or [None])[0]
    kind = str(dataset.get("SegmentationType", "BINARY")).upper()
    pixels = np.asarray(dataset.pixel_array).reshape(len(frames), rows, columns)
    if kind == "FRACTIONAL":
        pixels = pixels >= int(dataset.get("MaximumFractionalValue", 255)) / 2
    regions_of_mask = _Regions(scan.shape)
    for frame, values in zip(frames, pixels, strict=True):
        # A frame without a mark says nothing, wherever it lies.
        if not values.any():
            continue
        position = np.asarray(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        direction = np.asarray(_group(frame, shared, "PlaneOrientationSequence").ImageOrientationPatient, float)
        spacing = np.asarray(_group(frame, shared, "PixelMeasuresSequence").PixelSpacing, float)
        on_slice, index = _on_slice(values, position, direction, spacing, scan, path)
        if kind == "LABELMAP":
            for number in np.unique(on_slice[on_slice > 0]).tolist():
                regions_of_mask.add(number, index, on_slice == number)
        else:
            number = int(_group(frame, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
            regions_of_mask.add(number, index, on_slice > 0)
    mask, overlapping = regions_of_mask.merged()
    warnings = []
    if overlapping:
        warnings.append(f"{overlapping} voxels lie in several segments of the mask: the smallest one counts")
    return mask, warnings


class _Regions:
    """Segments or regions that may overlap, and the one mask that they come to.

    Of several at one voxel the smallest counts: a brain that was outlined around a bleeding does not hide it.
    """

    def __init__(self, shape: tuple[int, int, int]):
        self._shape = shape
        # Bits, packed: of 255 regions of 40 slices of 512 x 512 the bytes alone would be 2.7 GB.
        self._slices: dict[int, dict[int, np.ndarray]] = {}

    def add(self, value: int, index: int, marked: np.ndarray) -> None:
        """Marks pixels, (rows, columns) bool, of slice `index` as `value`, beside those that have it already."""
        of_value = self._slices.setdefault(value, {})
        bits = np.packbits(marked)
        of_value[index] = bits | of_value[index] if index in of_value else bits

    def merged(self) -> tuple[np.ndarray, int]:
        """(slices, rows, columns) uint8, and how many voxels have several values."""
        mask = np.zeros(self._shape, np.uint8)
        pixels = self._shape[1] * self._shape[2]
        sizes = {}
        for value, slices in self._slices.items():
            sizes[value] = sum(int(np.unpackbits(bits).sum(dtype=np.int64)) for bits in slices.values())
        several = 0
        for value in sorted(sizes, key=lambda value: -sizes[value]):
            for index, bits in self._slices[value].items():
                marked = np.unpackbits(bits, count=pixels).reshape(self._shape[1:]).astype(bool)
                several += int(np.count_nonzero(mask[index][marked]))
                mask[index][marked] = value
        return mask, several


def _group(frame: Any, shared: Any, name: str) -> Any:
    """The first item of a functional group, of the frame or else of all frames."""
    for groups in (frame, shared):
        if groups is not None and groups.get(name):
            return groups.get(name)[0]
    raise KeyError(name)


def _on_slice(
    values: np.ndarray, position: np.ndarray, direction: np.ndarray, spacing: np.ndarray, scan: Scan, path: Path
) -> tuple[np.ndarray, int]:
    """A frame in the scan's order of rows and columns, and the slice that it lies on. Raises InputError for none."""
    turned, origins, row_step, column_step = oriented(
        values[None], direction, (float(spacing[0]), float(spacing[1])), position[None]
    )
    nearest = int(np.linalg.norm(scan.slice_origins_mm - origins[0], axis=1).argmin())
    off_mm = float(np.linalg.norm(scan.slice_origins_mm[nearest] - origins[0]))
    tolerance = SAME_POSITION * min(scan.pixel_mm)
    rows, columns = scan.shape[1:]
    far_corner = (row_step - scan.row_step_mm) * rows + (column_step - scan.column_step_mm) * columns
    if turned.shape[1:] != (rows, columns):
        raise InputError(f"this mask's frames are {turned.shape[1:]}, its scan's slices {(rows, columns)}", path)
    if off_mm > tolerance or float(np.linalg.norm(far_corner)) > tolerance:
        raise InputError(f"a frame of this mask lies {off_mm:.2f} mm away from the nearest slice of its scan", path)
    return turned[0], nearest


def _from_contours(dataset: Any, scan: Scan, path: Path, regions: int) -> tuple[np.ndarray, list[str]]:
    index_of = {int(item.ROINumber): index for index, item in enumerate(dataset.StructureSetROISequence, start=1)}
    regions_of_mask = _Regions(scan.shape)
    points_read = 0
    other_kinds: dict[str, int] = {}
    for region in dataset.get("ROIContourSequence") or []:
        value = index_of[int(region.ReferencedROINumber)]
        filled: dict[int, np.ndarray] = {}
        for contour in region.get("ContourSequence") or []:
            kind = str(contour.get("ContourGeometricType", "CLOSED_PLANAR"))
            if not kind.startswith("CLOSED"):
                other_kinds[kind] = other_kinds.get(kind, 0) + 1
                continue
            points = np.asarray(contour.ContourData, float).reshape(-1, 3) * _TO_RAS
            if not np.isfinite(points).all():
                raise InputError("has points that are no numbers", path)
            points_read += len(points)
            if points_read > _MOST_POINTS:
                raise InputError(f"has more than {_MOST_POINTS:,} points", path)
            index = _slice_of(points, scan, path)
            # Even-odd, so that a contour inside another one is a hole.
            inside = inside_polygon(_pixels(points, scan, index), scan.shape[1:])
            filled[index] = filled[index] ^ inside if index in filled else inside
        for index, marked in filled.items():
            regions_of_mask.add(value, index, marked)
    mask, overlapping = regions_of_mask.merged()
    warnings = []
    if overlapping:
        text = f"{overlapping} voxels lie in several of the {regions} regions of the mask: the smallest one counts"
        warnings.append(text)
    if other_kinds:
        warnings.append(f"contours that enclose nothing are left out: {some_of(sorted(other_kinds))}")
    return mask, warnings


def _slice_of(points: np.ndarray, scan: Scan, path: Path) -> int:
    """The slice that the points of a contour lie on. Raises InputError if they lie on none."""
    heights = points @ scan.normal
    distances = np.abs(scan.slice_origins_mm @ scan.normal - heights.mean())
    index = int(distances.argmin())
    share = float(np.nan_to_num(scan.shares_mm[index], nan=1.0))
    if np.ptp(heights) > share / 2 or distances[index] > share / 2:
        raise InputError(f"a contour lies {distances[index]:.2f} mm away from the nearest slice of its scan", path)
    return index


def _pixels(points: np.ndarray, scan: Scan, index: int) -> np.ndarray:
    """(points, 2) rows and columns of points, whole numbers at the centres of pixels."""
    steps = np.stack([scan.row_step_mm, scan.column_step_mm], axis=1)
    solution, *_ = np.linalg.lstsq(steps, (points - scan.slice_origins_mm[index]).T, rcond=None)
    return solution.T


def inside_polygon(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which pixels' centres lie inside a closed polygon, by the even-odd rule.

    Args:
        points: (points, 2) rows and columns.
        shape: rows and columns.

    Returns:
        bool of that shape.
    """
    rows, columns = shape
    crossings = np.zeros((rows, columns + 1), np.int64)
    following = np.roll(points, -1, axis=0)
    for (row_a, column_a), (row_b, column_b) in zip(points.tolist(), following.tolist(), strict=True):
        low, high = min(row_a, row_b), max(row_a, row_b)
        # Half open, so that a corner that two edges share is crossed once.
        first, last = max(0, int(np.ceil(low))), min(rows, int(np.ceil(high)))
        if last <= first:
            continue
        crossed = np.arange(first, last)
        at = column_a + (crossed - row_a) * (column_b - column_a) / (row_b - row_a)
        start = np.clip(np.ceil(at), 0, columns).astype(int)
        crossings[crossed, start] += 1
    return np.cumsum(crossings, axis=1)[:, :columns] % 2 == 1
