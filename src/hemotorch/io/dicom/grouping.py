"""Images as series: which belong together, and in which order.

Order and distances come from positions along the normal of the slices, never from file names or instance numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from hemotorch.errors import some_of
from hemotorch.io.dicom.header import ImageHeader
from hemotorch.io.dicom.judging import doubts_of, why_no_ct, why_not_axial
from hemotorch.io.dicom.series import Series, heights_mm

SAME_PLACE_MM = 0.02  #: positions along the normal that are no further apart are one
LEAST_PASS = 4  #: images of an acquisition that may be a series of its own
SAME_DIRECTION = 0.01  #: difference of direction cosines, half a degree, within which slices are parallel


def group_series(headers: Iterable[ImageHeader]) -> list[Series]:
    """Images as series: of one patient, study and series, one size, one direction and one kernel each; judged.

    Several reconstructions with one UID are told apart; so are an oblique image and a localizer among axial slices, and
    patients: what made their files anonymous may have given all of them one UID.
    """
    headers = list(headers)
    patients_of: dict[tuple[str, str], set[str]] = {}
    for header in headers:
        patients_of.setdefault(_uids(header), set()).add(header.patient_id)
    alike: dict[tuple[object, ...], list[ImageHeader]] = {}
    for header in headers:
        # Images without an id belong to the only patient there is.
        is_shared = len(patients_of[_uids(header)] - {""}) > 1
        patient = header.patient_id if is_shared else ""
        alike.setdefault((patient, *_key(header)), []).append(header)
    series: list[Series] = []
    for images in alike.values():
        for images_of_direction, doubts in _by_direction(images):
            series.extend(_series_of(images_of_direction, doubts))
    return sorted(series, key=lambda entry: (str(entry.first.path.parent), entry.first.series_number or 0, entry.uid))


def _key(header: ImageHeader) -> tuple[object, ...]:
    pixel = None if header.pixel_mm is None else tuple(round(value, 3) for value in header.pixel_mm)
    several = str(header.path) if header.frames > 1 else ""
    return (
        *(*_uids(header), several, header.rows, header.columns, pixel, header.bits[0]),
        *(header.kernel, header.contrast, why_no_ct(header)),
    )


def _uids(header: ImageHeader) -> tuple[str, str]:
    """What tells its study and its series apart; without UIDs the folder is all that does."""
    folder = str(header.path.parent)
    return header.study or folder, header.series or f"{folder} {header.series_number} {header.description}"


def _by_direction(images: list[ImageHeader]) -> list[tuple[list[ImageHeader], list[str]]]:
    """Images in lists of one direction each, with doubts. Those without one follow the others if these agree."""
    groups: list[list[ImageHeader]] = []
    directions = np.zeros((len(images), 6))  # of the groups so far; at once, since frames may have 20,000 directions
    without = []
    for image in images:
        if image.orientation is None:
            without.append(image)
            continue
        differences = np.abs(directions[: len(groups)] - image.orientation).max(axis=1, initial=0.0)
        same = np.flatnonzero(differences <= SAME_DIRECTION)
        if len(same):
            groups[int(same[0])].append(image)
        else:
            directions[len(groups)] = image.orientation
            groups.append([image])
    if not without:
        return [(group, []) for group in groups]
    if len(groups) != 1 or len(without) > len(groups[0]):
        return [*((group, []) for group in groups), (without, [])]
    direction = groups[0][0].orientation
    names = some_of([image.path.name for image in without], 5)
    doubt = f"{len(without)} images do not state their direction and are taken to have that of the others: {names}"
    return [([*groups[0], *(replace(image, orientation=direction) for image in without)], [doubt])]


def _series_of(images: list[ImageHeader], doubts: list[str]) -> list[Series]:
    """The series of images of one direction: one, or one for each pass over the same positions."""
    if reason := why_no_ct(images[0]) or why_not_axial(images[0]):
        return [Series(tuple(images), aside=reason)]
    with_position = [image for image in images if image.position is not None]
    if len(images) > 1 and len(with_position) < len(images):
        lost = [image.path.name for image in images if image.position is None]
        if len(with_position) < 2:
            return [Series(tuple(images), aside="its images have no position (ImagePositionPatient is missing)")]
        doubts.append(f"{len(lost)} images without a position are left out: {some_of(lost, 5)}")
        images = with_position
    if len(images) > 1:
        heights = dict(zip(map(id, images), heights_mm(images).tolist(), strict=True))
        images = sorted(images, key=lambda image: (heights[id(image)], _order(image)))
    passes = [images]
    if len(images) > 1:
        images, repeated = _without_copies(images)
        if repeated:
            doubts.append(f"{len(repeated)} files are copies of others and are left out: {some_of(repeated, 5)}")
        passes, doubt = _passes(images)
        doubts.extend(doubt)
    result = []
    for entry in passes:
        series = Series(tuple(entry))
        result.append(replace(series, doubts=(*doubts, *doubts_of(series))))
    return result


def _without_copies(images: list[ImageHeader]) -> tuple[list[ImageHeader], list[str]]:
    """Images, each once by its UID and position, and the names of the copies."""
    seen: dict[tuple[object, ...], ImageHeader] = {}
    repeated = []
    for image in images:
        key: tuple[object, ...] = (image.path, image.frame)
        if image.instance:
            key = (image.instance, image.frame, image.position)
        if key in seen:
            repeated.append(image.path.name)
        else:
            seen[key] = image
    return list(seen.values()), repeated


def _passes(images: list[ImageHeader]) -> tuple[list[list[ImageHeader]], list[str]]:
    """Images without two at one position: one list if there are none, else one for each time a position is met."""
    places: list[list[ImageHeader]] = []
    last = -math.inf
    for image, height in zip(images, heights_mm(images).tolist(), strict=True):
        if height - last <= SAME_PLACE_MM:
            places[-1].append(image)
        else:
            places.append([image])
            last = height
    counts = {len(images_there) for images_there in places}
    if (counts == {1} or len(counts) > 1) and (acquisitions := _overlapping_acquisitions(images)):
        text = f"{len(acquisitions)} acquisitions cover the same part of the body: taken as {len(acquisitions)} series"
        passes, doubts = [], [text]
        for acquisition in acquisitions:
            of_acquisition, more = _passes(acquisition)
            passes += of_acquisition
            doubts += more
        return passes, doubts
    if counts == {1}:
        return [images], []
    most = max(counts)
    doubled = sum(len(images_there) > 1 for images_there in places)
    if len(counts) == 1:
        doubt = f"each of its {len(places)} positions was scanned {most} times: taken as {most} series"
        return [[images_there[index] for images_there in places] for index in range(most)], [doubt]
    # Acquisitions that begin where another ends share a slice; the earlier one of both is kept.
    doubt = f"at {doubled} of {len(places)} positions lie several images: the one of the first acquisition is read"
    return [[images_there[0] for images_there in places]], [doubt]


def _overlapping_acquisitions(images: list[ImageHeader]) -> list[list[ImageHeader]]:
    """The images of each acquisition if all of them cover the same part of the body; none if they do not.

    A second pass, after contrast was given or since the patient moved, lies some tenths of a mm off the first one.
    Acquisitions that follow each other from foot to head are one series.
    """
    by_acquisition: dict[int | None, list[ImageHeader]] = {}
    for image in images:
        by_acquisition.setdefault(image.acquisition, []).append(image)
    acquisitions = list(by_acquisition.values())
    if len(acquisitions) < 2 or min(map(len, acquisitions)) < LEAST_PASS:
        return []
    heights = dict(zip(map(id, images), heights_mm(images).tolist(), strict=True))
    spans = [(heights[id(entry[0])], heights[id(entry[-1])]) for entry in acquisitions]
    shared_mm = min(high for _, high in spans) - max(low for low, _ in spans)
    shortest_mm = min(high - low for low, high in spans)
    return acquisitions if shared_mm > shortest_mm / 2 else []


def _order(image: ImageHeader) -> tuple[int, int, str, int]:
    """Of images at one position: the earlier acquisition first."""
    return (image.acquisition or 0, image.number or 0, str(image.path), image.frame)
