"""The prepared dataset on disk: scans as Zarr groups, a manifest with one row per slice, named splits.

OUT/dataset.json          format, source, options, counts, one entry per case
OUT/manifest.csv          one row per slice
OUT/splits.json           named splits: which slices of which cases train, validate and test
OUT/audit.json            every patient and identical slice on both sides of each split
OUT/scans.zarr/CASE/      one Zarr v3 group per scan: `hu` int16, `mask` and `inside` uint8 if known, attributes
OUT/png/                  the paper's image/ and label/ folders, if they are asked for
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import numpy as np
from pydantic import Field

from hemotorch.data.case_record import FORMAT, PngOptions, mask_hash, read_record, scan_of, slice_hash
from hemotorch.data.manifest import SliceRow, read_manifest, volume_ml
from hemotorch.data.shards import REPLACE, Shard, open_shard, write_shard
from hemotorch.data.splits import Split, read_splits
from hemotorch.errors import InputError, nearest
from hemotorch.labels import TYPES
from hemotorch.scan import Scan
from hemotorch.system.files import read_json, short_name
from hemotorch.system.records import build, record, shown
from hemotorch.task import Task

EVERYTHING = "all"  #: name of the split that tests on nothing
KIND = "hemotorch prepared dataset"
PREPARE_AGAIN = "run the same `hemotorch prepare` again"

Length = Annotated[int, Field(gt=0, lt=2**31)]


@record
class CaseEntry:
    """A case's entry in dataset.json; see `CaseRecord`. volume_ml: of the mask, None if that is unknown."""

    patient: str | None
    shape: tuple[Length, Length, Length]
    has_mask: bool
    patient_assumed: bool = False
    has_inside: bool = False
    site: str | None = None
    age: float | None = None
    sex: str | None = None
    types_from: Literal["table", "mask"] | None = None
    volume_ml: float | None = None
    warnings: tuple[str, ...] = ()


@record
class DatasetInfo:
    """All of dataset.json.

    source: the folders that it was prepared from. planned: names of all cases of the source. complete: whether the last
    run of `prepare` came to its end; counts and failed are there only then. failed: why a case is not there, by name.
    """

    kind: str
    format: int
    hemotorch: str
    complete: bool
    layout: str
    source: str
    planned: tuple[str, ...]
    cases: dict[str, CaseEntry]
    description: str = ""
    png: PngOptions | None = None
    counts: dict[str, Any] = Field(default_factory=dict)
    failed: dict[str, str] = Field(default_factory=dict)


class Dataset:
    """A prepared dataset, opened for reading. Threads may share it; a spawned worker gets its own by pickling.

    cases: names, in the order of the source. slices: all manifest rows, case by case, foot to head. splits: by name.
    patients_known: whether the source says of every case which patient it is of. layout: the source's.
    info: all of dataset.json.
    Raises InputError if `root` is no prepared dataset, is unfinished, or was written by another version.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.info = read_info(self.root)
        if not self.info.complete:
            raise InputError("was not prepared to its end", self.root, PREPARE_AGAIN)
        self.slices = read_manifest(self.root / "manifest.csv")
        self.cases: tuple[str, ...] = tuple(self.info.cases)
        if not self.cases:
            raise InputError("holds no scans", self.root, "run `hemotorch prepare` on a folder that has some")
        slice_counts = {case: entry.shape[0] for case, entry in self.info.cases.items()}
        self.splits, self.split_warnings = read_splits(self.root / "splits.json", slice_counts)
        self.layout = self.info.layout
        entries = self.info.cases.values()
        self.patients_known = all(entry.patient is not None and not entry.patient_assumed for entry in entries)
        self._shards: dict[tuple[str, str], Shard] = {}
        listed = Counter(row.case for row in self.slices)
        if listed != slice_counts or not _in_order(self.slices):
            raise InputError("does not list the slices of its scans", self.root / "manifest.csv", PREPARE_AGAIN)

    def __reduce__(self) -> tuple[type[Dataset], tuple[Path]]:
        return Dataset, (self.root,)

    @cached_property
    def rows(self) -> dict[str, tuple[SliceRow, ...]]:
        """The manifest rows of each case, foot to head."""
        rows_by_case: dict[str, list[SliceRow]] = {case: [] for case in self.cases}
        for row in self.slices:
            rows_by_case[row.case].append(row)
        return {case: tuple(rows) for case, rows in rows_by_case.items()}

    def split(self, name: str) -> Split:
        """The named split; "all" trains on every scan that has a mask, for a network that is measured on other data.

        Raises InputError saying which there are, and why one is missing.
        """
        if name == EVERYTHING:
            train = {case: tuple(range(len(rows))) for case, rows in self.rows.items() if self.has_mask(case)}
            return Split(EVERYTHING, "patient", train, {}, {})
        if name not in self.splits:
            known = ", ".join([*self.splits, EVERYTHING])
            reason = f" ({'; '.join(self.split_warnings)})" if self.split_warnings else ""
            raise InputError(f"has no split '{name}'{reason}", self.root, f"choose one of: {known or 'none'}")
        return self.splits[name]

    def scan(self, case: str) -> Scan:
        """The whole scan, equal to what was read from its source: geometry, slice numbers, paths and warnings too.

        Raises InputError if its voxels are not those that were stored.
        """
        case_record = read_record(self._group(case))
        hu = self._shard(case, "hu").read()
        if tuple(map(slice_hash, hu)) != case_record.slices.hash:
            raise InputError("its voxels were damaged on the disk", self._group(case), REPLACE)
        return scan_of(case_record.scan, hu)

    def has_mask(self, case: str) -> bool:
        """Whether somebody drew a mask for this scan; an empty one counts."""
        return self._entry(case).has_mask

    def mask(self, case: str) -> np.ndarray | None:
        """(slices, rows, columns) uint8 codes of `labels`, or None if nobody drew one."""
        if not self.has_mask(case):
            return None
        mask = self._shard(case, "mask").read()
        if mask_hash(mask) != read_record(self._group(case)).mask_hash:
            raise InputError("its mask was damaged on the disk", self._group(case), REPLACE)
        return mask

    def read(self, case: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Slices start to stop: HU int16 and mask uint8, both (stop - start, rows, columns); zeros without a mask."""
        hu = self._shard(case, "hu").read(start, stop)
        if not self.has_mask(case):
            return hu, np.zeros(hu.shape, np.uint8)
        return hu, self._shard(case, "mask").read(start, stop)

    def has_inside(self, case: str) -> bool:
        """Whether it is known what lies inside the skull of this scan."""
        return self._entry(case).has_inside

    def inside(self, case: str) -> np.ndarray | None:
        """(slices, rows, columns) bool, what lies inside the skull, or None if that is unknown."""
        if not self.has_inside(case):
            return None
        inside = self._shard(case, "inside").read()
        if mask_hash(inside) != read_record(self._group(case)).inside_hash:
            raise InputError("what lies inside its skull was damaged on the disk", self._group(case), REPLACE)
        return inside > 0

    def target(self, case: str, task: Task) -> np.ndarray:
        """What is known of each voxel, as bits, see `Task.target`; (slices, rows, columns) uint8.

        A scan without a mask counts as one without bleeding.
        """
        mask = self.mask(case)
        if mask is None:
            mask = np.zeros(self._entry(case).shape, np.uint8)
        inside = self.inside(case) if task.types else None
        return task.target(mask, tuple(row.types for row in self.rows[case]), inside)

    def read_target(self, case: str, start: int, stop: int, task: Task) -> tuple[np.ndarray, np.ndarray]:
        """Slices start to stop: HU int16, and the target uint8 as of `target`; both (stop - start, rows, columns)."""
        hu, mask = self.read(case, start, stop)
        inside = None
        if task.types and self.has_inside(case):
            inside = self._shard(case, "inside").read(start, stop) > 0
        slice_types = tuple(row.types for row in self.rows[case][start:stop])
        return hu, task.target(mask, slice_types, inside)

    def digest(self, case: str) -> str:
        """A hash of the scan's voxels: what tells two scans of one name apart."""
        hashes = ";".join(row.hash for row in self.rows[self._checked(case)])
        return hashlib.sha256(hashes.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def mask_digest(self, case: str) -> str:
        """A hash of the scan's mask, "" without one: what tells whether it was corrected."""
        mask_hash = read_record(self._group(case)).mask_hash
        if mask_hash is None:
            return ""
        pixels = [row.positive_pixels for row in self.rows[case]]
        return hashlib.sha256(f"{mask_hash} {pixels}".encode()).hexdigest()[:16]

    def volume_ml(self, case: str) -> float:
        """mL of bleeding in the mask. NaN if spacing is unknown or there is no mask."""
        rows = self.rows[self._checked(case)]
        return volume_ml(rows) if self.has_mask(case) else math.nan

    def types(self, case: str) -> frozenset[str] | None:
        """Types of bleeding in the scan; None if those of some slice are unknown."""
        rows = [row.types for row in self.rows[self._checked(case)]]
        if None in rows:
            return None
        names: set[str] = set()
        for types in rows:
            names.update(itertools.compress(TYPES, types or ()))
        return frozenset(names)

    def _checked(self, case: str) -> str:
        """The case's name. Raises InputError with the nearest one if there is no such case."""
        if case not in self.info.cases:
            raise InputError(f"has no case '{case}'", self.root, nearest(case, self.cases))
        return case

    def _entry(self, case: str) -> CaseEntry:
        return self.info.cases[self._checked(case)]

    def _group(self, case: str) -> Path:
        return group_folder(self.root, self._checked(case))

    def _shard(self, case: str, name: str) -> Shard:
        key = (case, name)
        # Two threads may both open it; both get the same.
        if key not in self._shards:
            shard = open_shard(self._group(case) / name)
            if shard.shape != self._entry(case).shape:
                raise InputError("has another shape than dataset.json says", self._group(case) / name, REPLACE)
            self._shards[key] = shard
        return self._shards[key]


def file_name(case: str) -> str:
    """The case's name as a file name: what a path or Zarr would take amiss is %-escaped, and long names are shortened.

    43 Cyrillic letters are 258 bytes once they are escaped, more than a file system takes.
    """
    safe = quote(os.fsencode(case), safe=" +,=@()[]")
    if safe.startswith((".", "_")):  # hidden files, and names that Zarr reserves
        safe = f"%{ord(safe[0]):02X}{safe[1:]}"
    return short_name(safe)


def group_folder(root: Path, case: str) -> Path:
    """Where the scan's Zarr group is."""
    return root / "scans.zarr" / file_name(case)


def read_info(root: Path, any_older: bool = False) -> DatasetInfo:
    """The content of dataset.json.

    Args:
        root: of the prepared dataset.
        any_older: take older formats too, to prepare into the same folder again.

    Raises:
        InputError: if `root` is no prepared dataset, is damaged, or has another format.
    """
    if not root.exists():
        raise InputError("no such folder", root, "make it with `hemotorch prepare SRC OUT`")
    path = root / "dataset.json"
    if not path.is_file():
        raise InputError("is not a prepared dataset", root, "make one with `hemotorch prepare SRC OUT`")
    values = read_json(path)
    if not isinstance(values, dict) or values.get("kind") != KIND:
        raise InputError("is not a prepared dataset's", path, "make one with `hemotorch prepare`")
    version = values.get("format")
    if type(version) is int and version > FORMAT:
        writer = f"format {shown(version)}, hemotorch {values.get('hemotorch')}"
        raise InputError(f"was written by a newer version ({writer})", root, "update hemotorch")
    info = build(DatasetInfo, values, path, "remove the folder and prepare again")
    if info.format < FORMAT and not any_older:
        raise InputError(f"has the old format {info.format}", root, PREPARE_AGAIN)
    return info


def _in_order(rows: Iterable[SliceRow]) -> bool:
    """Whether the slices of each case are listed from 0, each once."""
    following: dict[str, int] = {}
    for row in rows:
        if row.index != following.get(row.case, 0):
            return False
        following[row.case] = row.index + 1
    return True


def write_group(folder: Path, scan: Scan, mask: np.ndarray | None, inside: np.ndarray | None = None) -> dict[str, int]:
    """Writes a scan's arrays as a new Zarr group without its attributes; returns the bytes of each array's file."""
    sizes = {"hu": write_shard(folder / "hu", scan.hu)}
    if mask is not None:
        sizes["mask"] = write_shard(folder / "mask", mask)
    if inside is not None:
        sizes["inside"] = write_shard(folder / "inside", inside.astype(np.uint8))
    return sizes
