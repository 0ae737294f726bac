"""Case: one study of a dataset on disk. Collection: all of them, and what was noticed on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hemotorch import io
from hemotorch.errors import InputError
from hemotorch.labels import UNTYPED
from hemotorch.scan import Scan

BINARY = {1: UNTYPED, 255: UNTYPED}  #: what 0/1 and 0/255 masks mean: bleeding of unknown type


@dataclass(frozen=True)
class Case:
    """One study: where its files are, and what the dataset says of it.

    scan_paths, mask_paths: one file, or one for each slice (PNG); no mask path means that no mask is known.
    patient, site: None where unknown. patient_assumed: nobody said whose scan it is; it is taken for a patient's own.
    slice_types: by the source's own slice number, the types named for that slice, none meaning no bleeding; None where
        the dataset names none. age: years; sex: "F" or "M".
    mask_codes: what each mask value other than 0 means, as codes of `labels`; any other value is an error.
    inside_path: a mask of what lies inside the skull, None if that is unknown.
    warnings: what was noticed of this case; `read` hands them on to the scan.
    """

    name: str
    scan_paths: tuple[Path, ...]
    mask_paths: tuple[Path, ...] = ()
    patient: str | None = None
    site: str | None = None
    slice_types: Mapping[int, frozenset[str]] | None = None
    layout: str = ""
    warnings: tuple[str, ...] = ()
    mask_codes: Mapping[int, int] = field(default_factory=lambda: dict(BINARY))
    age: float | None = None
    sex: str | None = None
    patient_assumed: bool = False
    inside_path: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that the case is made from."""
        inside = () if self.inside_path is None else (self.inside_path,)
        return self.scan_paths + self.mask_paths + inside

    def read_inside(self, scan: Scan) -> np.ndarray | None:
        """What lies inside the skull, (slices, rows, columns) bool, or None if that is unknown.

        Raises:
            InputError: for a file that cannot be read, does not fit the scan, or holds other values than 0 and 1 (255).
        """
        if self.inside_path is None:
            return None
        raw = io.read_mask(self.inside_path, scan)
        if ((raw > 1) & (raw < 255)).any():
            raise InputError("holds other values than 0 (outside the skull) and 1 (inside)", self.inside_path)
        return raw > 0

    def read(self) -> tuple[Scan, np.ndarray | None]:
        """The scan, and its mask in codes of `labels`, (slices, rows, columns) uint8, or None where there is none.

        Raises InputError for files that cannot be read, do not fit each other, or hold values nobody declared.
        """
        scan = io.read_scan(self.scan_paths)
        scan = replace(scan, name=self.name, warnings=scan.warnings + self.warnings)
        if not self.mask_paths:
            return scan, None
        values, warnings = io.read_mask_and_warnings(self.mask_paths, scan)
        # By file, so that a value that nobody declared is reported with its slice's file.
        by_file = np.array_split(values, len(self.mask_paths))
        codes = [self._coded(part, path) for part, path in zip(by_file, self.mask_paths, strict=True)]
        return replace(scan, warnings=(*scan.warnings, *warnings)), np.concatenate(codes)

    def _coded(self, raw: np.ndarray, path: Path) -> np.ndarray:
        codes = np.full(256, 255, dtype=np.uint8)
        codes[0] = 0
        for value, code in self.mask_codes.items():
            codes[value] = code
        held = raw != 0
        mask = np.zeros(raw.shape, dtype=np.uint8)
        mask[held] = codes[raw[held]]
        if (odd := mask == 255).any():
            values = ", ".join(str(value) for value in np.unique(raw[odd])[:8])
            declared = ", ".join(str(value) for value in sorted({0, *self.mask_codes}))
            raise InputError(f"holds mask values nobody declared: {values} (declared are {declared})", path)
        return mask


@dataclass(frozen=True)
class Collection:
    """A dataset on disk: its cases in the order of their names, warnings, and one line saying what was recognised.

    passed_over: what stands there, looks like a part of the dataset and is not read, a line for each kind.
    """

    layout: str
    root: Path
    cases: tuple[Case, ...]
    description: str
    warnings: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()


def files_by_name(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """The folder's files with these suffixes by name without suffix, sorted; hidden files left out.

    Raises InputError if the folder is forbidden, or two files have the same name but for the suffix.
    """
    found: dict[str, Path] = {}
    try:
        if not folder.is_dir():
            return found
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", folder) from error
    for path in entries:
        suffix = next((s for s in sorted(suffixes, key=len, reverse=True) if path.name.lower().endswith(s)), None)
        if suffix is None or path.name.startswith(".") or not path.is_file():
            continue
        name = path.name[: len(path.name) - len(suffix)]
        if name in found:
            raise InputError(f"stands beside {found[name].name}: two files for one case", path, "remove one of them")
        found[name] = path
    return found


def drawn_masks(masks: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """The masks that no network of hemotorch made, and a line that names the others.

    Args:
        masks: by case.
    """
    predicted = {name for name, path in masks.items() if io.is_predicted(path)}
    drawn = {name: path for name, path in masks.items() if name not in predicted}
    if not predicted:
        return drawn, []
    # A network that learns from its own masks learns its own faults, and is scored by them.
    text = f"masks that hemotorch itself predicted, which are no truth to learn from: {some(sorted(predicted))}"
    advice = "if someone has corrected them, clear `descrip` in their headers and move NAME.json away from them"
    return drawn, [f"{text}; {advice}"]


def some(names: Iterable[object], most: int = 10) -> str:
    """The first few of many names: "049, 050 and 7 more"."""
    words = [str(name) for name in names]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def unpaired(scans: Iterable[str], masks: Iterable[str], scan: str = "scan", mask: str = "mask") -> list[str]:
    """Warnings naming scans without a mask and masks without a scan."""
    scans, masks, warnings = list(scans), list(masks), []
    if alone := sorted(set(scans) - set(masks)):
        warnings.append(f"{len(alone)} of {len(scans)} {scan}s have no {mask}: {some(alone)}")
    if alone := sorted(set(masks) - set(scans)):
        warnings.append(f"{len(alone)} {mask}s have no {scan} and are left out: {some(alone)}")
    return warnings
