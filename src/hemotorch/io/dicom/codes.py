"""What a segment or a group of measurements shows, in codes of SNOMED CT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Concept(NamedTuple):
    """A code of SNOMED CT and its meaning."""

    value: str
    meaning: str


@dataclass(frozen=True)
class SegmentCode:
    """What a segment shows, in codes of SNOMED CT.

    finding: its type. region: where, if the finding does not say it.
    """

    finding: Concept
    region: Concept | None = None


CATEGORY = Concept("49755003", "Morphologically Abnormal Structure")  # CID 7150 of PS3.16
_INTRACRANIAL = Concept("1386000", "Intracranial hemorrhage")
#: 1386000, 49755003 and 35764002 stand in PS3.16 (pydicom.sr.codedict holds its tables). 274100004 and 21454007 stand
#: in public value sets with these names, the others in public code. None was looked up in SNOMED CT itself. For blood
#: in the ventricles none could be confirmed: two that are found in public code have a wrong check digit. So it is the
#: general finding and its place.
SEGMENT_CODES = {
    "epidural": SegmentCode(Concept("82999001", "Epidural intracranial hemorrhage")),
    "intraparenchymal": SegmentCode(Concept("274100004", "Cerebral hemorrhage")),
    "intraventricular": SegmentCode(_INTRACRANIAL, Concept("35764002", "Brain ventricle")),
    "subarachnoid": SegmentCode(Concept("21454007", "Subarachnoid intracranial hemorrhage")),
    "subdural": SegmentCode(Concept("35486000", "Subdural intracranial hemorrhage")),
}
UNTYPED_CODE = SegmentCode(_INTRACRANIAL)
