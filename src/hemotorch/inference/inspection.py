"""What is in files and folders before anything is predicted: `hemotorch inspect`.

Names and ids of patients are left out unless somebody asks for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hemotorch.errors import HemotorchError, OptionError, explain, one_line
from hemotorch.head import why_not_a_head
from hemotorch.head.tissue import odd_level
from hemotorch.inference.scan_files import volumes_in
from hemotorch.io import dicom, is_dicom, read_scan
from hemotorch.io.walk import grouped
from hemotorch.scan import Scan


@dataclass(frozen=True)
class ScanReport:
    """What reading a scan's pixels told.

    geometry: in words. head: why it may be no head, "" if it looks like one. error: why it cannot be read, or "".
    """

    geometry: str = ""
    head: str = ""
    warnings: tuple[str, ...] = ()
    error: str = ""

    @property
    def whole(self) -> bool:
        """Whether it can be predicted."""
        return not self.error and not self.head

    def lines(self) -> list[str]:
        """For people."""
        if self.error:
            return [f"cannot be read: {self.error}"]
        lines = [self.geometry]
        if self.head:
            lines.append(f"does not look like a head CT: {self.head}")
        return [*lines, *(f"note: {text}" for text in self.warnings)]


@dataclass(frozen=True)
class SeriesReport:
    """One series of a study. Lengths are in mm; None is what is not known.

    aside: why it is not read, "" if it could be. chosen: whether it is the one that is read.
    """

    uid: str
    number: int | None
    description: str
    images: int
    rows: int
    columns: int
    pixel_mm: float | None
    thickness_mm: float | None
    distance_mm: float | None
    coverage_mm: float | None
    tilt_deg: float
    kernel: str
    kernel_kind: str
    contrast: str
    region: str
    image_type: str
    aside: str
    chosen: bool
    notes: tuple[str, ...]

    def line(self) -> str:
        """One line for people."""
        mark = "->" if self.chosen else "  "
        name = f'{self.number if self.number is not None else "-"} "{self.description}"'
        parts = [f"{self.images} image{'s' * (self.images != 1)}"]
        if self.thickness_mm is not None:
            parts.append(f"{self.thickness_mm:.4g} mm thick")
        if self.coverage_mm is not None:
            parts.append(f"covers {self.coverage_mm:.0f} mm")
        if self.kernel:
            parts.append(f"kernel {self.kernel}{f' ({self.kernel_kind})' if self.kernel_kind else ''}")
        if self.contrast:
            parts.append("contrast")
        if self.tilt_deg:
            parts.append(f"tilted {self.tilt_deg:.1f} degrees")
        text = f"{mark} {name}: {', '.join(parts)}"
        if self.aside:
            text += f"; set aside: {self.aside}"
        return text


@dataclass(frozen=True)
class StudyReport:
    """A study in DICOM.

    location: its file or folder. why: why its series was chosen. patient: {} unless asked for. scan: None if pixels
    were not looked at, or no series can be read.
    """

    location: str
    uid: str
    series: tuple[SeriesReport, ...]
    why: str
    patient: dict[str, str]
    scan: ScanReport | None

    @property
    def whole(self) -> bool:
        """Whether a series of it can be predicted, so far as was looked."""
        return any(entry.chosen for entry in self.series) and (self.scan is None or self.scan.whole)

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"study in {self.location}"]
        if self.patient:
            lines.append("  " + ", ".join(f"{name} {value}" for name, value in self.patient.items()))
        for entry in self.series:
            lines.append(f"  {entry.line()}")
        chosen = next((entry for entry in self.series if entry.chosen), None)
        if chosen is None:
            lines.append(f"  nothing is read: {self.why}")
            return lines
        lines.append(f"  read: {self.why}; its UID is {chosen.uid or 'missing'}")
        if self.scan is not None:
            lines.extend(f"  {line}" for line in self.scan.lines())
        else:
            lines.extend(f"  note: {text}" for text in chosen.notes)
        return lines


@dataclass(frozen=True)
class PathReport:
    """What is at one path. unread: what is not read and why, by names."""

    path: str
    volumes: dict[str, ScanReport | None]
    studies: tuple[StudyReport, ...]
    unread: dict[str, str]

    @property
    def whole(self) -> bool:
        """Whether there is something and all of it can be predicted, so far as was looked."""
        if self.unread or not (self.volumes or self.studies):
            return False
        return all(volume is None or volume.whole for volume in self.volumes.values()) and all(
            study.whole for study in self.studies
        )

    def lines(self) -> list[str]:
        """For people."""
        lines = []
        for name, volume in self.volumes.items():
            lines.append(f"volume {name}")
            if volume is not None:
                lines.extend(f"  {line}" for line in volume.lines())
        for study in self.studies:
            lines.extend(study.lines())
        for names, reason in self.unread.items():
            lines.append(f"not read: {names}: {reason}")
        # Names of files may hold anything, line breaks too.
        return [one_line(line) for line in lines or [f"{self.path}: holds no scan"]]

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return {**asdict(self), "whole": self.whole}


def inspect_paths(
    paths: Sequence[Path | str], series: str | None = None, pixels: bool = True, show_patient: bool = False
) -> list[PathReport]:
    """Looks at files and folders.

    Args:
        paths: files, folders, zips, DICOMDIRs.
        series: of DICOM, the series that is asked for instead of the best one.
        pixels: also read what would be predicted, and ask whether it is a head in HU.
        show_patient: also tell names and ids.

    Returns:
        One report for each path; what cannot be read is in it.

    Raises:
        OptionError: if no path holds the series that is asked for.
    """
    reports = [_inspect(Path(path), series, pixels, show_patient) for path in paths]
    if series is not None:
        known = {entry.uid for report in reports for study in report.studies for entry in study.series}
        if series not in known:
            raise OptionError(f"no series {series} is there", "--series", "`hemotorch inspect` without it lists all")
    return reports


def _inspect(path: Path, series: str | None, pixels: bool, show_patient: bool) -> PathReport:
    volumes: dict[str, ScanReport | None] = {}
    unread: dict[str, str] = {}
    is_container = dicom.is_container(path) or is_dicom(path)
    if not is_container:
        volumes[str(path)] = _report([path])
    elif path.is_dir():
        files, not_read = volumes_in(path)
        for file in files:
            volumes[str(file)] = _report([file]) if pixels else None
        unread.update(grouped(not_read, path))
    studies: list[StudyReport] = []
    if is_container:
        try:
            inventory = dicom.look_into(path)
        except HemotorchError as error:
            return PathReport(str(path), volumes, (), {**unread, str(path): error.what})
        unread.update(grouped(inventory.unread, path))
        for study in inventory.studies:
            studies.append(_study_report(study, series, pixels, show_patient))
    return PathReport(str(path), volumes, tuple(studies), unread)


def _report(files: Sequence[Path], notes: tuple[str, ...] = ()) -> ScanReport:
    """What reading a scan tells. notes: what was left out of it before, which its reader no longer sees."""
    try:
        scan = read_scan(files)
        doubt = why_not_a_head(scan)
    except Exception as error:  # one scan, whatever is wrong with it, does not stop the others
        return ScanReport(error=str(explain(error, files[0])))
    head = "" if doubt is None or doubt.may_be_head else doubt.text
    warnings = list(dict.fromkeys((*notes, *scan.warnings)))
    if doubt is not None and doubt.may_be_head:
        warnings.append(doubt.text)
    if not head and (level_doubt := odd_level(scan)):
        warnings.append(level_doubt)
    return ScanReport(_geometry(scan), head, tuple(warnings))


def _geometry(scan: Scan) -> str:
    slices, rows, columns = scan.shape
    text = f"{slices} slice{'s' * (slices != 1)} of {rows} x {columns} pixels"
    if not scan.spacing_known:
        return f"{text}, spacing unknown"
    text += f" of {scan.pixel_mm[0]:.4g} x {scan.pixel_mm[1]:.4g} mm"
    if slices == 1:
        return text
    least, most = scan.slice_distances_mm.min(), scan.slice_distances_mm.max()
    apart = f"{least:.4g}" if most - least < 0.001 * most else f"{least:.4g} to {most:.4g}"
    return f"{text}, {apart} mm apart"


def _study_report(study: dicom.DicomStudy, series: str | None, pixels: bool, show_patient: bool) -> StudyReport:
    chosen, why = study.chosen, study.why
    if series is not None:
        wanted = [entry for entry in study.series if entry.uid == series and not entry.aside]
        chosen = max(wanted, key=dicom.score) if wanted else None
        why = "asked for with --series" if wanted else "the series that was asked for cannot be read"
    patient = {}
    hide: Callable[[str], str] = str
    if not show_patient:
        hide = dicom.hider(study.secrets)
    else:
        first = study.series[0].first
        patient = {"patient": first.patient_name, "id": first.patient_id, "date": first.study_date}
    scan = None
    if pixels and chosen is not None:
        scan = _hidden(_report(chosen.files, chosen.doubts), hide)
    reports = tuple(_series_report(entry, entry is chosen, hide) for entry in study.series)
    return StudyReport(str(study.location), study.uid, reports, hide(why), patient, scan)


def _hidden(report: ScanReport, hide: Callable[[str], str]) -> ScanReport:
    """A report whose texts do not name the patient."""
    return replace(report, warnings=tuple(map(hide, report.warnings)), error=hide(report.error))


def _series_report(series: dicom.Series, chosen: bool, hide: Callable[[str], str]) -> SeriesReport:
    first = series.first
    coverage = series.coverage_mm
    has_heights = len(series.images) > 1 and math.isfinite(coverage)
    return SeriesReport(
        uid=series.uid,
        number=first.series_number,
        description=hide(first.description),
        images=len(series.images),
        rows=first.rows,
        columns=first.columns,
        pixel_mm=None if first.pixel_mm is None else first.pixel_mm[0],
        thickness_mm=series.thickness_mm,
        distance_mm=float(np.median(series.distances_mm)) if has_heights else None,
        coverage_mm=coverage if math.isfinite(coverage) and not series.aside else None,
        tilt_deg=0.0 if series.aside else series.tilt_deg,
        kernel=first.kernel,
        kernel_kind=series.kernel,
        contrast=hide(series.contrast),
        region=series.region,
        image_type="\\".join(first.image_type),
        aside=series.aside,
        chosen=chosen,
        notes=tuple(map(hide, series.doubts)),
    )
