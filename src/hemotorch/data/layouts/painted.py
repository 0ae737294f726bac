"""Which scans of a dataset hold synthetic bleeding: painted.json, which `hemotorch paint` writes beside them."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from hemotorch.data.layouts.case import Case, Collection
from hemotorch.system import records
from hemotorch.system.records import record

PAINTED = "painted.json"
SYNTHETIC = "synthetic bleeding was painted into it"  #: a warning of each such scan, from its file to the report
AS_IT_WAS = "taken for a scan without bleeding, by `hemotorch paint`"  #: likewise, of the scans painted on


@record
class PaintedScan:
    """A scan that `paint` wrote."""

    case: str = Field(description="its name here")
    source: str = Field(description="name of the scan it was made from")
    patient: str = Field(description="the patient of that scan")
    patient_assumed: bool = Field(description="nobody said whose scan it is: taken for one of a patient of its own")
    seed: int | None = Field(description="of the bleeding; none for the scan as it was")
    leading: str | None = Field(description="the type that leads the bleeding")
    volume_ml: dict[str, float] = Field(description="mL painted, by type")


@record
class PaintedSet:
    """What painted.json holds."""

    hemotorch: str = Field(description="version that painted")
    seed: int = Field(description="of the whole set")
    per_scan: int = Field(description="paintings of each scan")
    scans: tuple[PaintedScan, ...] = Field(description="every scan of the folder")


def assign_painted(collection: Collection) -> Collection:
    """Marks the cases that painted.json names, and gives each its patient, so that paintings of one scan stay together.

    Raises:
        InputError: if painted.json cannot be used.
    """
    path = collection.root / PAINTED
    if not path.is_file():
        return collection
    scans = {scan.case: scan for scan in records.read(path, PaintedSet).scans}
    cases = tuple(_marked(case, scans.get(case.name)) for case in collection.cases)
    synthetic = sum(scan.seed is not None for scan in scans.values())
    text = f"{collection.description}; {synthetic} of them with painted bleeding, which is synthetic"
    return replace(collection, cases=cases, description=text)


def _marked(case: Case, scan: PaintedScan | None) -> Case:
    if scan is None:
        return case
    mark = AS_IT_WAS if scan.seed is None else SYNTHETIC
    return replace(case, patient=scan.patient, patient_assumed=scan.patient_assumed, warnings=(*case.warnings, mark))
