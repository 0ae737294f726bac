"""The prepared dataset on disk: scans as Zarr groups, a manifest with a row a slice, named splits.

OUT/dataset.json          format, source, options, counts, a record a case
OUT/manifest.csv          a row a slice
OUT/splits.json           named splits: which slices of which cases train, validate and test
OUT/audit.json            every patient and identical slice on both sides of each split
OUT/scans.zarr/CASE/      one Zarr v3 group a scan: `hu` int16; `mask` and `inside` uint8 if they are known; attributes
OUT/png/                  the paper's image/ and label/ folders, where asked for
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from hemotorch.data.manifest import SliceRow, read_manifest, volume_ml
from hemotorch.data.shards import Shard, group_metadata, open_shard, write_shard
from hemotorch.data.splits import Split, read_splits
from hemotorch.errors import InputError, nearest
from hemotorch.labels import TYPES
from hemotorch.scan import Frame, Scan, Source
from hemotorch.system.files import read_json, short_name
from hemotorch.task import Task

FORMAT = 1  #: raised whenever what is written can no longer be read by the code before it
KIND = "hemotorch prepared dataset"


class Dataset:
    """A prepared dataset, opened for reading. Threads may share it; a spawned worker gets its own by pickling.

    cases: names, in the order of the source. slices: all manifest rows, case by case, foot to head. splits: by name.
    patients_known: whether the source says of every case which patient it is of. layout: the source's.
    info: all of dataset.json.
    Raises InputError where `root` is no prepared dataset, is unfinished, or was written by another version.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.info = read_info(self.root)
        if not self.info["complete"]:
            raise InputError("was not prepared to its end", self.root, "run the same `hemotorch prepare` again")
        self.slices = read_manifest(self.root / "manifest.csv")
        self.cases: tuple[str, ...] = tuple(self.info["cases"])
        if not self.cases:
            raise InputError("holds no scans", self.root, "run `hemotorch prepare` on a folder that has some")
        slice_counts = {case: entry["shape"][0] for case, entry in self.info["cases"].items()}
        self.splits, self.split_warnings = read_splits(self.root / "splits.json", slice_counts)
        self.layout: str = self.info["layout"]
        self.patients_known: bool = all(
            entry["patient"] is not None and not entry.get("patient_assumed", False)
            for entry in self.info["cases"].values()
        )
        self._shards: dict[tuple[str, str], Shard] = {}
        listed = Counter(row.case for row in self.slices)
        if listed != slice_counts or not _in_order(self.slices):
            todo = "run the same `hemotorch prepare` again"
            raise InputError("does not list the slices of its scans", self.root / "manifest.csv", todo)

    def __reduce__(self) -> tuple[type[Dataset], tuple[Path]]:
        return Dataset, (self.root,)

    @cached_property
    def rows(self) -> dict[str, tuple[SliceRow, ...]]:
        """The manifest rows of each case, foot to head."""
        found: dict[str, list[SliceRow]] = {case: [] for case in self.cases}
        for row in self.slices:
            found[row.case].append(row)
        return {case: tuple(rows) for case, rows in found.items()}

    def split(self, name: str) -> Split:
        """The named split. Raises InputError saying which there are, and why one is missing."""
        if name not in self.splits:
            known = ", ".join(self.splits)
            reason = f" ({'; '.join(self.split_warnings)})" if self.split_warnings else ""
            raise InputError(f"has no split '{name}'{reason}", self.root, f"choose one of: {known or 'none'}")
        return self.splits[name]

    def scan(self, case: str) -> Scan:
        """The whole scan, equal to what was read from its source: geometry, slice numbers, paths and warnings too.

        Raises InputError where its voxels are not those that were stored.
        """
        record, hu = read_record(self._group(case)), self._shard(case, "hu").read()
        if [slice_hash(one) for one in hu] != record["slices"]["hash"]:
            raise InputError("its voxels were damaged on the disk", self._group(case), "run `hemotorch prepare` again")
        return scan_of(record, hu)

    def has_mask(self, case: str) -> bool:
        """Whether somebody drew a mask for this scan; an empty one counts."""
        return bool(self._entry(case)["has_mask"])

    def mask(self, case: str) -> np.ndarray | None:
        """(slices, rows, columns) uint8 codes of `labels`, or None where nobody drew one."""
        if not self.has_mask(case):
            return None
        mask = self._shard(case, "mask").read()
        if mask_hash(mask) != read_record(self._group(case))["mask_hash"]:
            raise InputError("its mask was damaged on the disk", self._group(case), "run `hemotorch prepare` again")
        return mask

    def read(self, case: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Slices start to stop: HU int16 and mask uint8, both (stop - start, rows, columns); zeros without a mask."""
        hu = self._shard(case, "hu").read(start, stop)
        if not self.has_mask(case):
            return hu, np.zeros(hu.shape, np.uint8)
        return hu, self._shard(case, "mask").read(start, stop)

    def has_inside(self, case: str) -> bool:
        """Whether it is known what lies inside the skull of this scan."""
        return bool(self._entry(case).get("has_inside", False))  # datasets made before it was kept lack it

    def inside(self, case: str) -> np.ndarray | None:
        """(slices, rows, columns) bool, what lies inside the skull, or None if that is unknown."""
        if not self.has_inside(case):
            return None
        inside = self._shard(case, "inside").read()
        if mask_hash(inside) != read_record(self._group(case))["inside_hash"]:
            what = "what lies inside its skull was damaged on the disk"
            raise InputError(what, self._group(case), "run `hemotorch prepare` again")
        return inside > 0

    def target(self, case: str, task: Task) -> np.ndarray:
        """What is known of each voxel, as bits, see `Task.target`; (slices, rows, columns) uint8.

        A scan without a mask counts as one without bleeding.
        """
        mask = self.mask(case)
        if mask is None:
            mask = np.zeros(self._entry(case)["shape"], np.uint8)
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
        return hashlib.sha256(
            ";".join(row.hash for row in self.rows[self._known(case)]).encode("utf-8", "surrogateescape")
        ).hexdigest()[:16]

    def mask_digest(self, case: str) -> str:
        """A hash of the scan's mask, "" without one: what tells whether it was corrected."""
        drawn = read_record(self._group(case))["mask_hash"]
        if drawn is None:
            return ""
        pixels = [row.positive_pixels for row in self.rows[case]]
        return hashlib.sha256(f"{drawn} {pixels}".encode()).hexdigest()[:16]

    def volume_ml(self, case: str) -> float:
        """mL of bleeding in the mask. NaN where spacing is unknown or there is no mask."""
        rows = self.rows[self._known(case)]
        return volume_ml(rows) if self.has_mask(case) else math.nan

    def types(self, case: str) -> frozenset[str] | None:
        """Types of bleeding in the scan; None where those of some slice are unknown."""
        rows = [row.types for row in self.rows[self._known(case)]]
        if any(types is None for types in rows):
            return None
        return frozenset(name for types in rows if types for name, held in zip(TYPES, types, strict=True) if held)

    def _known(self, case: str) -> str:
        if case not in self.info["cases"]:
            raise InputError(f"has no case '{case}'", self.root, nearest(case, self.cases))
        return case

    def _entry(self, case: str) -> dict[str, Any]:
        return self.info["cases"][self._known(case)]

    def _group(self, case: str) -> Path:
        return group_folder(self.root, self._known(case))

    def _shard(self, case: str, name: str) -> Shard:
        key = (case, name)
        if key not in self._shards:  # two threads may both open it; both get the same
            shard = open_shard(self._group(case) / name)
            if list(shard.shape) != list(self._entry(case)["shape"]):
                todo = "run `hemotorch prepare` again"
                raise InputError("has another shape than dataset.json says", self._group(case) / name, todo)
            self._shards[key] = shard
        return self._shards[key]


def slice_hash(hu: np.ndarray) -> str:
    """Of a slice's size and HU, (rows, columns) int16."""
    digest = hashlib.sha256(str(hu.shape).encode())
    digest.update(np.ascontiguousarray(hu, "<i2").data)
    return digest.hexdigest()[:32]


def mask_hash(mask: np.ndarray) -> str:
    """Of the slices that hold anything; a record has the number of their pixels for all."""
    digest = hashlib.sha256()
    for one in mask:
        if one.any():
            digest.update(np.ascontiguousarray(one).data)
    return digest.hexdigest()[:32]


def file_name(case: str) -> str:
    """The case's name as a file name: what a path or Zarr would take amiss is %-escaped, and long names are shortened.

    43 Cyrillic letters are 258 bytes once they are escaped, more than a file system takes.
    """
    safe = quote(os.fsencode(case), safe=" +,=@()[]")
    return short_name(f"%{ord(safe[0]):02X}{safe[1:]}" if safe.startswith((".", "_")) else safe)


def group_folder(root: Path, case: str) -> Path:
    """Where the scan's Zarr group is."""
    return root / "scans.zarr" / file_name(case)


def read_info(root: Path, any_older: bool = False) -> dict[str, Any]:
    """dataset.json. Raises InputError where `root` is no prepared dataset, damaged, or one of another format.

    any_older: take older formats too, to prepare into the same folder again.
    """
    if not root.exists():
        raise InputError("no such folder", root, "make it with `hemotorch prepare SRC OUT`")
    if not (root / "dataset.json").is_file():
        raise InputError("is not a prepared dataset", root, "make one with `hemotorch prepare SRC OUT`")
    info = read_json(root / "dataset.json")
    if not isinstance(info, dict) or info.get("kind") != KIND:
        raise InputError("is not a prepared dataset's", root / "dataset.json", "make one with `hemotorch prepare`")
    if not {"format", "hemotorch", "complete", "cases", "layout", "source", "planned"} <= info.keys():
        raise InputError("is damaged: parts of it are missing", root / "dataset.json", "remove it and prepare again")
    if not _well_formed(info):
        todo = "remove the folder and prepare again"
        raise InputError("is damaged: some of its values cannot be", root / "dataset.json", todo)
    if info["format"] > FORMAT:
        wrote = f"format {info['format']}, hemotorch {info['hemotorch']}"
        raise InputError(f"was written by a newer version ({wrote})", root, "update hemotorch")
    if info["format"] < FORMAT and not any_older:
        raise InputError(f"has the old format {info['format']}", root, "run the same `hemotorch prepare` again")
    return info


def _well_formed(info: dict[str, Any]) -> bool:
    """Whether the values of dataset.json are of the kinds that `prepare` writes."""
    cases = info["cases"]
    if type(info["format"]) is not int or not isinstance(info["complete"], bool) or not isinstance(cases, dict):
        return False
    if not isinstance(info["planned"], list) or not all(isinstance(info[key], str) for key in ("source", "layout")):
        return False
    return all(_well_formed_entry(entry) for entry in cases.values())


def _well_formed_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not {"shape", "patient", "has_mask"} <= entry.keys():
        return False
    shape = entry["shape"]
    if not isinstance(shape, list) or len(shape) != 3:
        return False
    if not all(type(length) is int and 0 < length < 2**31 for length in shape):
        return False
    patient_possible = entry["patient"] is None or isinstance(entry["patient"], str)
    flags = (entry["has_mask"], entry.get("patient_assumed", False), entry.get("has_inside", False))
    return patient_possible and all(isinstance(flag, bool) for flag in flags)


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


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Writes the attributes of a scan's group, whole or not at all: a group without them is not finished.

    Nothing is synced, which would wait for every file written so far; `hu` and `mask` are not either.
    """
    temporary = folder / ".zarr.json.part"
    signed = {**record, "digest": record_digest(record)}
    temporary.write_text(group_metadata({"hemotorch": signed}), encoding="utf-8")
    os.replace(temporary, folder / "zarr.json")


def record_digest(record: dict[str, Any]) -> str:
    """A hash of all that a record says of its scan, geometry above all: an edited one would give wrong mL."""
    told = {key: value for key, value in record.items() if key != "digest"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def read_record(folder: Path) -> dict[str, Any]:
    """The attributes of a scan's group.

    Raises:
        InputError: if they are missing, or not those that were written (older records have no digest).
    """
    try:
        record: dict[str, Any] = read_json(folder / "zarr.json")["attributes"]["hemotorch"]
        digest = record.get("digest")
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError("is not a scan of a prepared dataset", folder, "run `hemotorch prepare` again") from error
    if digest is not None and digest != record_digest(record):
        todo = "run `hemotorch prepare` again"
        raise InputError("what it says of its scan (geometry, counts) was altered", folder / "zarr.json", todo)
    return record


def geometry(scan: Scan) -> dict[str, Any]:
    """All of a scan but its voxels, in JSON's types; floats keep every bit."""
    return {
        "name": scan.name,
        "slice_origins_mm": np.asarray(scan.slice_origins_mm, float).tolist(),
        "row_step_mm": np.asarray(scan.row_step_mm, float).tolist(),
        "column_step_mm": np.asarray(scan.column_step_mm, float).tolist(),
        "slice_numbers": [int(number) for number in scan.slice_numbers],
        "source": None if scan.source is None else asdict(scan.source),
        "warnings": list(scan.warnings),
        "spacing_known": scan.spacing_known,
        "slice_mm": scan.slice_mm,
    }


def scan_of(record: dict[str, Any], hu: np.ndarray) -> Scan:
    """The scan whose `geometry` a record holds. Raises InputError for a geometry that cannot be."""
    try:
        entry = record["scan"]
        origins = np.array(entry["slice_origins_mm"], float)
        steps = [np.array(entry[name], float) for name in ("row_step_mm", "column_step_mm")]
        if origins.shape != (len(hu), 3) or any(step.shape != (3,) for step in steps):
            raise ValueError("its geometry has another shape")
        return Scan(
            hu,
            slice_origins_mm=origins,
            row_step_mm=steps[0],
            column_step_mm=steps[1],
            name=entry["name"],
            slice_numbers=tuple(entry["slice_numbers"]),
            source=_source(entry, len(hu)),
            warnings=tuple(entry["warnings"]),
            spacing_known=entry["spacing_known"],
            slice_mm=entry.get("slice_mm"),  # datasets made before it was kept lack it
        )
    except (KeyError, TypeError, ValueError) as error:
        what = f"the record of a prepared scan is damaged ({error})"
        raise InputError(what, str(record.get("case")), "run `hemotorch prepare` again") from error


def _source(entry: dict[str, Any], slices: int) -> Source | None:
    """The source that a scan's `geometry` names."""
    if "source" in entry:
        stored = entry["source"]
        if stored is None:
            return None
        frames = tuple(Frame(int(file), int(number)) for file, number in stored["frames"])
        return Source(str(stored["format"]), tuple(map(str, stored["files"])), frames)
    # Datasets prepared by 0.1 name files only, which were NIfTI volumes or one PNG for each slice.
    files = tuple(map(str, entry["paths"]))
    if not files:
        return None
    if files[0].lower().endswith(".png"):
        return Source("png", files, tuple(Frame(file, 0) for file in range(slices)))
    return Source("nifti", files, tuple(Frame(0, int(number) - 1) for number in entry["slice_numbers"]))
