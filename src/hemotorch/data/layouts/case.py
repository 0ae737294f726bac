"""Case: one study of a dataset on disk. Collection: all of them, and what was noticed on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hemotorch import io
from hemotorch.errors import InputError, some_of
from hemotorch.head import BODY_HU
from hemotorch.labels import UNTYPED
from hemotorch.scan import Scan

MOST_MARKED = 0.5  #: of the head that bleeding can fill on a slice; and of a mask that can lie in air
BINARY = {1: UNTYPED, 255: UNTYPED}  #: what 0/1 and 0/255 masks mean: bleeding of unknown type


@dataclass(frozen=True)
class Case:
    """One study: where its files are, and what the dataset says of it.

    scan_paths: one file, or one for each slice (PNG).
    mask_paths: likewise; none if no mask is known.
    patient, site: None if unknown.
    slice_types: by the source's own slice number, the types named for that slice, none meaning no bleeding; None if the
        dataset names none.
    layout: name of the dataset's layout.
    warnings: what was noticed of this case; `read` hands them on to the scan.
    mask_codes: what each mask value other than 0 means, as codes of `labels`; any other value is an error.
    age: years. sex: "F" or "M". None if unknown.
    patient_assumed: nobody said whose scan it is; it is taken for one of a patient of its own.
    inside_path: a mask of what lies inside the skull, None if that is unknown.
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
        return self.scan_paths + self.mask_paths + paths_of(self.inside_path)

    def read_inside(self, scan: Scan, mask: np.ndarray | None = None) -> np.ndarray | None:
        """What lies inside the skull, (slices, rows, columns) bool, or None if that is unknown.

        Args:
            scan: as `read` gives it.
            mask: likewise; if it is given, its bleeding must lie inside.

        Raises:
            InputError: for a file that cannot be read, does not fit the scan, holds other values than 0 and 1 (255), or
                marks what cannot be the inside of a skull.
        """
        if self.inside_path is None:
            return None
        values = io.read_mask(self.inside_path, scan)
        if ((values > 1) & (values < 255)).any():
            raise InputError("holds other values than 0 (outside the skull) and 1 (inside)", self.inside_path)
        inside = values > 0
        if fault := _fault_of_inside(inside, scan, mask):
            raise InputError(fault, self.inside_path, "1 is inside the skull, 0 is outside; mend it or remove it")
        return inside

    def read(self) -> tuple[Scan, np.ndarray | None]:
        """The scan, and its mask in codes of `labels`, (slices, rows, columns) uint8, or None if there is none.

        Raises:
            InputError: for files that cannot be read, do not fit each other, or hold values nobody declared.
        """
        scan = io.read_scan(self.scan_paths)
        of_scan = dict.fromkeys((*scan.warnings, *self.warnings))
        scan = replace(scan, name=self.name, warnings=tuple(of_scan))
        if not self.mask_paths:
            return scan, None
        values, warnings = io.read_mask_and_warnings(self.mask_paths, scan)
        # By file, so that a value that nobody declared is reported with its slice's file.
        by_file = np.array_split(values, len(self.mask_paths))
        codes = [self._coded(part, path) for part, path in zip(by_file, self.mask_paths, strict=True)]
        return replace(scan, warnings=(*scan.warnings, *warnings)), np.concatenate(codes)

    def check_mask(self, scan: Scan, mask: np.ndarray) -> None:
        """Raises InputError if a mask marks what cannot be the bleeding of its scan. Both are as `read` gives them."""
        if not (fault := _fault_of_mask(mask, scan)):
            return
        path = self.mask_paths[0]
        where = path if len(self.mask_paths) == 1 else path.parent
        raise InputError(fault, where, "1 (or white) is bleeding, 0 (or black) is not: mend the mask, or remove it")

    def _coded(self, values: np.ndarray, path: Path) -> np.ndarray:
        """A mask's values as codes of `labels`. Raises InputError for a value that nobody declared."""
        declared = {0: 0, **self.mask_codes}
        undeclared = 255
        code_of_value = np.full(256, undeclared, np.uint8)
        code_of_value[list(declared)] = list(declared.values())
        # Most of a mask is 0: looking up the rest alone takes 20 ms for 30 slices of 512 x 512, looking up all 50 ms.
        marked = values != 0
        mask = np.zeros(values.shape, np.uint8)
        mask[marked] = code_of_value[values[marked]]
        unknown = mask == undeclared
        if unknown.any():
            shown = ", ".join(map(str, np.unique(values[unknown])[:8]))
            known = ", ".join(map(str, sorted(declared)))
            todo = "save the label with 0 (no bleeding) and 255 (bleeding) alone"
            if io.is_volume(path):
                todo = 'say what each value means in labels.json at the top, as in {"1": "epidural", "6": "bleeding"}'
            raise InputError(f"holds mask values nobody declared: {shown} (declared are {known})", path, todo)
        return mask


def _fault_of_mask(mask: np.ndarray, scan: Scan) -> str | None:
    """Why it cannot be the bleeding of this scan, or None: above all a mask with 0 and 1 exchanged.

    Slice by slice, as masks in PNG are often one by one from a paint program.
    """
    marked = mask != 0
    pixels = np.count_nonzero(marked, axis=(1, 2))
    body_pixels = np.count_nonzero(scan.hu >= BODY_HU, axis=(1, 2))
    in_air = pixels - np.count_nonzero(marked & (scan.hu >= BODY_HU), axis=(1, 2))
    too_many = pixels > MOST_MARKED * body_pixels
    if too_many.any():
        worst = int((pixels / np.maximum(body_pixels, 1)).argmax())
        share = 100 * pixels[worst] / marked[worst].size
        slices = f"{np.count_nonzero(too_many)} of {len(mask)} slices"
        return f"on {slices} more than half of the head is marked, up to {share:.0f} % of the picture"
    if in_air.sum() > MOST_MARKED * pixels.sum():
        return f"{100 * in_air.sum() / pixels.sum():.0f} % of what is marked is air: it belongs to another scan"
    return None


def _fault_of_inside(inside: np.ndarray, scan: Scan, mask: np.ndarray | None) -> str | None:
    """Why it cannot be the inside of this scan's skull, or None: an empty mask, or one with 0 and 1 exchanged."""
    if not inside.any():
        return "marks nothing as inside the skull"
    if np.count_nonzero(inside & (scan.hu < BODY_HU)) > inside.sum() / 2:
        return "marks mostly air as inside the skull"
    if mask is not None and np.count_nonzero(mask[inside]) < np.count_nonzero(mask) / 2:
        return "leaves most of the bleeding outside the skull"
    return None


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
    """The folder's files with these suffixes, hidden ones left out.

    Args:
        folder: that may be missing.
        suffixes: in small letters; letter case does not count.

    Returns:
        Sorted, by the file's name without suffix.

    Raises:
        InputError: if the folder is forbidden, or two files have the same name but for the suffix.
    """
    files: dict[str, Path] = {}
    try:
        if not folder.is_dir():
            return files
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", folder) from error
    for path in entries:
        if path.name.startswith(".") or not path.name.lower().endswith(suffixes) or not path.is_file():
            continue
        name = io.stem(path)
        if name in files:
            raise InputError(f"stands beside {files[name].name}: two files for one case", path, "remove one of them")
        files[name] = path
    return files


def paths_of(path: Path | None) -> tuple[Path, ...]:
    """The path alone, or none."""
    if path is None:
        return ()
    return (path,)


def masks_by_hand(masks: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """The masks that no network of hemotorch made, and a line that names the others.

    Args:
        masks: by case.
    """
    by_hand = {}
    predicted = []
    for name, path in masks.items():
        if io.is_predicted(path):
            predicted.append(name)
        else:
            by_hand[name] = path
    if not predicted:
        return by_hand, []
    # A network that learns from its own masks learns its own faults, and is scored by them.
    text = f"masks that hemotorch itself predicted, which are no truth to learn from: {some_of(sorted(predicted))}"
    advice = "if someone has corrected them, clear `descrip` in their headers and move NAME.json away from them"
    return by_hand, [f"{text}; {advice}"]


def unpaired(scans: Iterable[str], masks: Iterable[str], scan: str = "scan", mask: str = "mask") -> list[str]:
    """Warnings naming scans without a mask and masks without a scan."""
    scan_names = set(scans)
    mask_names = set(masks)
    warnings = []
    if alone := sorted(scan_names - mask_names):
        warnings.append(f"{len(alone)} of {len(scan_names)} {scan}s have no {mask}: {some_of(alone)}")
    if alone := sorted(mask_names - scan_names):
        warnings.append(f"{len(alone)} {mask}s have no {scan} and are left out: {some_of(alone)}")
    return warnings
