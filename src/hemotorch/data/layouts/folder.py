"""Plain folders of volumes: images/ and masks/ with matching names, or only scans.

    images/NAME.nii.gz  masks/NAME.nii.gz  [labels.json]  [patients.csv]

Also labels/ for masks/, nnU-Net's imagesTr/NAME_0000.nii.gz and labelsTr/NAME.nii.gz, and a flat folder of scans, where
NAME_mask.nii.gz is the mask of NAME.nii.gz. What mask values mean is one decision for the whole dataset: `labels.json`
({"1": "epidural", ...}) says it, else the labels of nnU-Net's `dataset.json`; without both, masks that hold only 0 and
1 (or 255) everywhere are bleeding of unknown type, and others hold the codes of `labels.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from hemotorch.data.layouts.case import BINARY, Case, Collection, files_by_name, masks_by_hand, paths_of, unpaired
from hemotorch.data.layouts.mask_values import LABELS, MEANINGS, NNUNET, declared_codes, nnunet_codes
from hemotorch.data.layouts.patients import FIRST_CHANNEL, write_patients
from hemotorch.errors import InputError, some_of
from hemotorch.io import VOLUME_SUFFIXES, read_mask, write_mask, write_scan
from hemotorch.labels import CODES, UNTYPED
from hemotorch.scan import CaseInfo, Scan
from hemotorch.system.events import progress
from hemotorch.system.files import write_json

NAME = "folder"
LOOKS_FOR = "images/ (and masks/), imagesTr/ (and labelsTr/), or volumes in the folder itself"
OF_SLICES = False

_NNUNET_SCANS = "imagesTr"
_SCAN_FOLDERS = ("images", _NNUNET_SCANS)
_MASK_FOLDERS = ("masks", "labels", "labelsTr")
_MASK_ENDING = "_mask"  # in one flat folder
_TYPED = {code: code for code in (*CODES.values(), UNTYPED)}


def matches(root: Path) -> bool:
    """Whether the folder is laid out this way."""
    if any(files_by_name(root / name, VOLUME_SUFFIXES) for name in _SCAN_FOLDERS):
        return True
    # NAME_mask.nii.gz beside a folder NAME is the mask of a study in DICOM.
    volumes = files_by_name(root, VOLUME_SUFFIXES)
    return any(not (root / name.removesuffix(_MASK_ENDING)).is_dir() for name in volumes)


def open_cases(root: Path) -> Collection:
    """The cases of a plain folder. Every mask is read once if nothing says what its values mean.

    Raises:
        InputError: for a `labels.json` that cannot be used, or several channels for one case.
    """
    scans, masks, where = _pairs(root)
    masks, predicted = masks_by_hand(masks)
    paired = sorted(scans.keys() & masks.keys())
    warnings = []
    if masks:
        warnings = unpaired(scans, masks)
    if masks and not paired:
        first_scan = scans[min(scans)].name
        first_mask = masks[min(masks)].name
        warnings.append(f"no mask has a scan's name: {first_mask} would have to be called {first_scan}")
    codes, doubts = mask_codes(root, [masks[name] for name in paired])
    warnings += doubts
    cases = []
    for name, path in scans.items():
        case = Case(
            name,
            scan_paths=(path,),
            mask_paths=paths_of(masks.get(name)),
            patient=name,
            layout=NAME,
            mask_codes=codes,
            patient_assumed=True,
        )
        cases.append(case)
    description = f"volumes in {where}: {len(scans)} scans, {len(paired)} with a mask"
    if paired:
        is_untyped = set(codes.values()) == {UNTYPED}
        description += " (bleeding of unknown type)" if is_untyped else " (typed)"
    return Collection(NAME, root, tuple(cases), description, tuple(warnings), tuple(predicted))


def write_case(root: Path, name: str, scan: Scan, mask: np.ndarray | None, info: CaseInfo) -> None:
    """Writes one scan and its mask with the codes of `labels`. Safe to call from several processes, one per case."""
    write_scan(scan, root / "images" / f"{name}.nii.gz")
    if mask is not None:
        write_mask(scan, mask, root / "masks" / f"{name}.nii.gz")


def write_tables(root: Path, rows: Sequence[CaseInfo]) -> None:
    """Writes `labels.json`, so that a mask of ones is not taken as untyped, and `patients.csv`."""
    write_json(root / LABELS, {str(code): name for name, code in MEANINGS.items()})
    write_patients(root, rows)


def _pairs(root: Path) -> tuple[dict[str, Path], dict[str, Path], str]:
    """Scans and masks by case name, and where they are."""
    # A dataset in images/ may have other volumes beside that folder: they are no scans of it.
    for images in _SCAN_FOLDERS:
        scans = files_by_name(root / images, VOLUME_SUFFIXES)
        if not scans:
            continue
        if images == _NNUNET_SCANS:
            scans = _without_channel(scans, root / images)
        labels = _mask_folder(root)
        if labels is None:
            return scans, {}, f"{images}/"
        return scans, files_by_name(root / labels, VOLUME_SUFFIXES), f"{images}/ and {labels}/"
    scans, masks = {}, {}
    files = files_by_name(root, VOLUME_SUFFIXES)
    for name, path in files.items():
        case = name.removesuffix(_MASK_ENDING)
        if case != name and case in files:
            masks[case] = path
        else:
            scans[name] = path
    return scans, masks, "one folder"


def _without_channel(scans: dict[str, Path], folder: Path) -> dict[str, Path]:
    """nnU-Net's scans by case. Raises InputError if there is more than the first channel."""
    several = [name for name in scans if not name.endswith(FIRST_CHANNEL)]
    if several:
        what = f"files must end in {FIRST_CHANNEL}, one channel for each case, but not {some_of(several)}"
        raise InputError(what, folder)
    return {name.removesuffix(FIRST_CHANNEL): path for name, path in scans.items()}


# Of masks/ beside labels/ one was once passed over without a word.
def _mask_folder(root: Path) -> str | None:
    """The folder of the masks, or None if there is none. Raises InputError if several hold masks."""
    present: list[Path] = []
    for name in _MASK_FOLDERS:
        folder = root / name
        # One folder by two names (a link, a disk that ignores letter case) is no contradiction.
        is_known = any(folder.exists() and folder.samefile(other) for other in present)
        if not is_known and files_by_name(folder, VOLUME_SUFFIXES):
            present.append(folder)
    if len(present) > 1:
        named = " and ".join(f"{folder.name}/" for folder in present)
        raise InputError(f"holds masks in {named}, and which are meant is not known", root, "move the others elsewhere")
    if not present:
        return None
    return present[0].name


def mask_codes(root: Path, masks: Sequence[Path]) -> tuple[dict[int, int], list[str]]:
    """What the values of all masks mean, as codes of `labels`, and a warning if that is an assumption.

    Args:
        root: of the dataset, where `labels.json` may stand.
        masks: all of them.
    """
    if (root / LABELS).exists():
        return declared_codes(root / LABELS), []
    if masks and (root / NNUNET).exists():
        declared = nnunet_codes(root / NNUNET)
        if declared is not None:
            return declared
    if _only_binary(masks):
        return dict(BINARY), []
    codes = ", ".join(f"{code} {name}" for name, code in CODES.items())
    return _TYPED, [f"no {LABELS}: mask values are taken as {codes}, {UNTYPED} bleeding of unknown type"]


def _only_binary(masks: Iterable[Path]) -> bool:
    """Whether all masks together hold nothing but 0 and 1 or 255. One that cannot be read says so when it is read."""
    # All of them: the 1 in a mask of typed bleeding is epidural, also where a mask happens to hold nothing else.
    for path in progress(masks, "looking into masks"):
        with suppress(InputError):
            mask = read_mask(path)
            if ((mask > 1) & (mask < 255)).any():
                return False
    return True
