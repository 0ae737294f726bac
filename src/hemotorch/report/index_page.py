"""The list of all studies of a folder: a row for each, doubtful ones first. It sorts and filters without a server.

Rows are JSON in the page, and its script shows PAGE_ROWS of them at a time: 10,000 rows of a table would take a browser
many seconds to lay out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from markupsafe import Markup

from hemotorch.inference.study import MARK_ML
from hemotorch.labels import COLOURS, SHORT_NAMES, TYPES
from hemotorch.report.pages import render
from hemotorch.report.study_page import page_script
from hemotorch.system.files import jsonable

PAGE_ROWS = 200  #: shown at once


@dataclass(frozen=True)
class IndexDoubt:
    """A doubt of a study: its code, and the sentence behind it."""

    code: str
    text: str


@dataclass(frozen=True)
class IndexRow:
    """A study in the list.

    name: its pseudonym, or what its files are called. failed: why there is no result, "" if there is one. total_ml:
    None if it is not known. type_ml: by type; empty if types are not told apart. earlier: the name of the patient's
    earlier study, "" if there is none; hours, change_ml, change_percent: since then. grown: whether that is marked.
    files: what each is, and where it lies from the list's own folder. page: of the study, thumbnail: its picture, both
    from there too; "" if there is none. patient: a pseudonym. abc2_ml: of the largest piece. longest_mm: of all pieces.
    """

    name: str
    failed: str = ""
    total_ml: float | None = None
    type_ml: Mapping[str, float] = field(default_factory=dict)
    interval_ml: tuple[float, float] | None = None
    doubts: Sequence[IndexDoubt] = ()
    earlier: str = ""
    hours: float | None = None
    change_ml: float | None = None
    change_percent: float | None = None
    grown: bool = False
    slices: int = 0
    slices_with_bleeding: int = 0
    warnings: int = 0
    page: str = ""
    thumbnail: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    patient: str = ""
    abc2_ml: float | None = None
    longest_mm: float | None = None
    model: str = ""
    model_digest: str = ""


_TABLE_ONLY = ("patient", "abc2_ml", "longest_mm", "hours", "change_percent", "model", "model_digest")


def _shown(row: IndexRow) -> dict[str, Any]:
    """What the page needs of a row; the rest is for the table."""
    values = asdict(row)
    for key in _TABLE_ONLY:
        del values[key]
    return values


def index_page(rows: Sequence[IndexRow], made_by: str, table: str, key: str = "") -> str:
    """The list as HTML.

    Args:
        rows: in the order in which they are shown first.
        made_by: the model, in words.
        table: the file of the same rows for spreadsheets.
        key: the file that says whose the studies are and where they lie, "" if there is none.
    """
    script, script_hash = page_script("index.js")
    values = jsonable([_shown(row) for row in rows])
    # "<" would end the element if a name held "</script>".
    data = json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    doubtful = sum(bool(row.doubts) for row in rows)
    failed = sum(bool(row.failed) for row in rows)
    return render(
        "index.html",
        f"{len(rows):,} studies",
        data=Markup(data),
        count=len(rows),
        doubtful=doubtful,
        failed=failed,
        made_by=made_by,
        table=table,
        key=key,
        types=[(name, SHORT_NAMES[name], COLOURS[name]) for name in TYPES],
        has_changes=any(row.change_ml is not None for row in rows),
        page_rows=PAGE_ROWS,
        mark_ml=MARK_ML,
        script=script,
        script_hash=script_hash,
        images="'self' file: data:",
    )
