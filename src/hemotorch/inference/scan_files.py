"""Which files are scans to predict, and what the files made from each are called."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from hemotorch.data.layouts.patients import FIRST_CHANNEL
from hemotorch.errors import HemotorchError, InputError, OptionError
from hemotorch.inference.pseudonyms import KEY_FILE, Pseudonyms
from hemotorch.io import VOLUME_SUFFIXES, dicom, files_of, is_dicom, is_volume, on_disk, read_scan, stem
from hemotorch.io.walk import grouped, walk, why_unread, without_parents
from hemotorch.scan import Scan
from hemotorch.system.events import Message, emit
from hemotorch.system.files import file_status, short_name

_MASK_ENDING = "_mask"
_LIST = "index"  # index.html is the list of all studies, and was written over the page of a scan of that name
#: Of the layouts of datasets (docs/data.md).
_MASK_FOLDERS = ("masks", "labels", "labelsTr", "labelsTs", "inside")
_SCAN_FOLDERS = ("images", "ct_scans", "imagesTr", "imagesTs")


@dataclass(frozen=True)
class ScanFiles:
    """A scan that was found.

    files: of it, the one that names it in messages first: a volume, or all slices of a series, foot to head.
    named_after: the file or folder that the files made from it are called after.
    notes: what is said of it beside what its reader says: why this series was chosen, and what was left out of it, of
    which the reader of these files knows nothing.
    identity: whose it is, if DICOM or a table of patients says so. patient: that patient's pseudonym, "" if there is
    none.
    hidden: whether it is called by a pseudonym, and its paths and its patient's name are kept out of every text.
    location: if it is hidden, where it lies below the path that was given; "" if that would say whose it is.
    secrets: if it is hidden, what must not be in its texts, see `dicom.Identity.secrets`.
    key_file: if it is hidden, which file has its path; "" if that is not for the reader of messages.
    """

    files: tuple[Path, ...]
    named_after: Path
    notes: tuple[str, ...] = ()
    identity: dicom.Identity | None = None
    patient: str = ""
    hidden: bool = False
    location: str = ""
    secrets: frozenset[str] = frozenset()
    key_file: str = KEY_FILE

    @property
    def path(self) -> Path:
        """What it is known by: its first file."""
        return self.files[0]

    @property
    def digest(self) -> str:
        """Of paths, sizes and times of its files. Raises OSError if one is gone."""
        statuses = [file_status(path) for path in dict.fromkeys(on_disk(os.path.abspath(file)) for file in self.files)]
        return hashlib.sha256(repr(statuses).encode("utf-8", "surrogateescape")).hexdigest()

    def read(self) -> Scan:
        """The scan, named as its files say, or by its pseudonym if it is hidden. Raises InputError."""
        scan = read_scan(self.files)
        warnings = tuple(dict.fromkeys((*self.notes, *scan.warnings)))
        if not self.hidden:
            return replace(scan, warnings=warnings)
        hide = dicom.hider(self.secrets)
        name, warnings = self.named_after.name, tuple(map(hide, warnings))
        return replace(scan, name=name, warnings=warnings, contrast=hide(scan.contrast))

    def hide(self, error: HemotorchError) -> HemotorchError:
        """An error of this scan, without the patient's name if it is hidden, and with where to look for its path."""
        if not self.hidden:
            return error
        hide = dicom.hider(self.secrets)
        advice = [hide(error.todo)] if error.todo else []
        if self.key_file:
            advice.append(f"its path: {self.key_file}")
        return type(error)(hide(error.what), self.called, "; ".join(advice) or None)

    @property
    def called(self) -> str:
        """What messages call it: if it is hidden, its pseudonym, and where it lies if that says nothing."""
        return f"{self.named_after} ({self.location})" if self.location else str(self.named_after)


def find_scans(
    given: Sequence[Path | str], out: Path, series: str | None = None, pseudonyms: Pseudonyms | None = None
) -> tuple[list[ScanFiles], list[tuple[Path, HemotorchError]]]:
    """The scans in files and folders: volumes, and of each study in DICOM the best series for bleeding.

    Args:
        given: files, folders that are looked through, zips and DICOMDIRs.
        out: the folder that predictions are written to, resolved; what lies in it is no scan.
        series: of DICOM, the only series to read, by its SeriesInstanceUID.
        pseudonyms: that studies in DICOM are called by; None calls them after their folders. Either way the texts
            about what is found below a path given hold no name, birth date or id that a header states.

    Returns:
        The scans to predict, each once, those of one patient in the order of time; and for each path given that cannot
        be predicted, or not all of it, why: folders without scans, other formats, studies in which nothing can be read.
        Studies without CT beside others with CT are only told.
    """
    scans: list[ScanFiles] = []
    failed: list[tuple[Path, HemotorchError]] = []
    for path in map(Path, given):
        is_folder = path.is_dir()
        if not is_folder and not is_dicom(path) and not dicom.is_container(path):
            scans.append(ScanFiles((path,), path))
            continue
        in_folder: list[Path] = []
        unread: dict[Path, str] = {}
        if is_folder:
            in_folder, unread = volumes_in(path, out)
            scans.extend(ScanFiles((volume,), volume) for volume in in_folder)
        studies, problems = _dicom_scans(path, out, series, pseudonyms)
        scans.extend(studies)
        failed.extend(problems)
        for names, reason in grouped(unread, path):
            failed.append((path, InputError(reason, path / names)))
        if not in_folder and not unread and not studies and not problems:
            todo = f"name files of scans ({', '.join(VOLUME_SUFFIXES)}), DICOM, or a folder of them"
            failed.append((path, InputError("holds no scan", path, todo)))
    if series is not None and not failed and all(scan.identity is None for scan in scans):
        failed.append((Path(given[0]), OptionError(f"no series {series} is there", "--series", "none of it is DICOM")))
    # Known by where they are, not by where a link leads: two links to one file are two scans with names of their own.
    unique = {os.path.abspath(scan.path): scan for scan in scans}
    return by_time(list(unique.values())), failed


def by_time(scans: list[ScanFiles]) -> list[ScanFiles]:
    """The scans in their order, but all of one patient together, in the place of the first of them, by time."""
    first: dict[str, int] = {}

    def key(numbered: tuple[int, ScanFiles]) -> tuple[int, datetime]:
        number, scan = numbered
        moment = None if scan.identity is None else scan.identity.moment
        if not scan.patient or moment is None:
            return number, datetime.min
        return first.setdefault(scan.patient, number), moment

    return [scan for _, scan in sorted(enumerate(scans), key=key)]


def _dicom_scans(
    path: Path, out: Path, series: str | None, pseudonyms: Pseudonyms | None
) -> tuple[list[ScanFiles], list[tuple[Path, HemotorchError]]]:
    """The series to read in a file, folder, zip or DICOMDIR, one for each study; and what is not read and why."""
    try:
        files, unread = dicom.dicom_files(path)
    except InputError as error:
        return [], [(path, error)]
    inside = [file for file in files if out not in file.resolve().parents]
    inventory = dicom.take_inventory(inside, unread)
    failed: list[tuple[Path, HemotorchError]] = []
    hide: Callable[[str], str] = str
    if pseudonyms is not None:
        hide = dicom.hider(frozenset().union(*(study.secrets for study in inventory.studies)))
    if inventory.unread:
        for unread_names, reason in grouped(inventory.unread, path):
            failed.append((path, InputError(hide(reason), path / hide(unread_names))))
    studies = list(inventory.studies)
    if series is not None:
        if not studies:
            return [], failed
        try:
            chosen = dicom.series_by_uid(inventory, series)
        except HemotorchError as error:
            of_error = None if error.where is None else hide(error.where)
            return [], [*failed, (path, type(error)(hide(error.what), of_error, error.todo))]
        of_series = next(study for study in studies if chosen in study.series)
        studies = [replace(of_series, chosen=chosen, why="asked for with --series")]
        names = [_named_after(chosen.files, path)]
    else:
        names = dicom.names_of_studies(studies, path)
    scans = []
    aside: list[tuple[Path, HemotorchError]] = []
    for study, named_after in zip(studies, names, strict=True):
        identity = study.identity
        patient = location = ""
        secrets: frozenset[str] = frozenset()
        if pseudonyms is not None:
            entry = pseudonyms.of(identity, study.location)
            location = _location(named_after, path, hide)
            named_after, patient, secrets = Path(entry.study), entry.patient, study.secrets
        notes: tuple[str, ...] = ()
        if study.chosen is not None and len(study.series) > 1 and series is None:
            notes = (f"{study.chosen.title} was chosen: {study.why}",)
        if study.chosen is not None:
            notes += study.chosen.doubts
        chosen_files = () if study.chosen is None else study.chosen.files
        hidden = pseudonyms is not None
        key_file = KEY_FILE if pseudonyms is None else pseudonyms.key_file
        found = ScanFiles(chosen_files, named_after, notes, identity, patient, hidden, location, secrets, key_file)
        if study.chosen is not None:
            scans.append(found)
        else:
            where = study.location if pseudonyms is None else named_after
            problems = aside if study.other_modalities else failed
            problems.append((where, found.hide(study.refusal())))
    if not scans:
        return [], [*failed, *aside]
    for where, refusal in aside:
        emit(Message(f"{refusal.where or where}: passed over, {refusal.what}"))
    return scans, failed


def _location(folder: Path, given: Path, hide: Callable[[str], str]) -> str:
    """Where a study lies below the path given, "" if it lies there itself, or if a part of a path names a patient."""
    if folder == given or given not in folder.parents:
        return ""
    below = unicodedata.normalize("NFC", str(folder.relative_to(given)))
    return below if hide(below) == below else ""


def _named_after(files: Sequence[Path], given: Path) -> Path:
    """The only file, or the folder that all files lie in, or what was given if that is a zip or a DICOMDIR."""
    if len(files) == 1:
        return files[0]
    folder = Path(os.path.commonpath([file.parent for file in files]))
    return folder if given.is_dir() or given in folder.parents else given


def name_scans(scans: Sequence[ScanFiles | Path]) -> dict[Path, str]:
    """What each scan's files are called: its file's name; if names repeat, with its folder, suffix or whole path.

    Names that differ only in letter case or in how letters are composed count as the same: some disks take them so.

    A series of DICOM is called after its folder.

    Args:
        scans: each once, or the paths of scans.

    Returns:
        Names by the path of each scan, no two the same.
    """
    named_after = {}
    pseudonyms = set()
    for scan in scans:
        if isinstance(scan, ScanFiles):
            named_after[scan.path] = scan.named_after
            if scan.hidden:
                pseudonyms.add(scan.path)
        else:
            named_after[scan] = scan
    absolute = {path: Path(os.path.abspath(after)) for path, after in named_after.items()}
    longer_names: tuple[Callable[[Path], str], ...] = (
        lambda path: f"{path.parent.name}_{_stem(path)}",
        lambda path: f"{path.parent.name}_{path.name.replace('.', '_')}",
        lambda path: "_".join(path.parts[1:]).replace(".", "_"),
    )
    names = {path: _safe(_stem(after)) for path, after in named_after.items()}
    for longer in longer_names:
        repeated = Counter(map(_folded, names.values()))
        for path, name in names.items():
            # A study that was given twice has one pseudonym, which is no path.
            if repeated[_folded(name)] > 1 and path not in pseudonyms:
                names[path] = _safe(longer(absolute[path]))
    # Even whole paths may be the same once they are shortened or made safe.
    taken: set[str] = set()
    for path, name in names.items():
        number = 1
        unique = name
        while _folded(unique) in taken:
            number += 1
            unique = f"{name}_{number}"
        taken.add(_folded(unique))
        names[path] = unique
    return names


def volumes_in(folder: Path, out: Path | None = None) -> tuple[list[Path], dict[Path, str]]:
    """All volumes in a folder and below it, but masks of scans in it and what was predicted before.

    A mask is called NAME_mask beside its scan, or as its scan in a folder of masks beside the folder of scans. A
    scan is a volume, or a folder with a study in DICOM.

    Args:
        folder: that is looked through.
        out: a resolved folder in or below it whose files are no scans, or None.

    Returns:
        The volumes, and the reason for each other thing that looks like a scan and is not read. DICOM is neither.
    """
    entries = walk(folder)
    files = entries.files
    unread = entries.unread
    if out is not None and out != folder.resolve():
        files = [path for path in files if out not in path.resolve().parents]
        unread = {path: reason for path, reason in unread.items() if out not in path.parents}
    volumes = [path for path in files if is_volume(path)]
    read = set(files_of(volumes))
    unread = without_parents(unread, read, folder)
    for path in files:
        if is_dicom(path):
            continue  # its studies are looked at as a whole
        reason = why_unread(path)
        if reason is not None and path not in read:
            unread[path] = reason
    stems = {(path.parent, stem(path)) for path in volumes}
    for path in files:
        if is_dicom(path):
            # The study's folder may be any above: images/NAME/SE0001/IM0001.
            stems.update((above.parent, above.name) for above in path.parents if folder in above.parents)
    scans = []
    for path in volumes:
        if not _is_mask(path, stems):
            scans.append(path)
    return scans, unread


def _is_mask(path: Path, stems: set[tuple[Path, str]]) -> bool:
    """Whether a volume is the mask of a scan. stems: folder and name of each volume, and of each folder with DICOM."""
    name = stem(path)
    scan_name = name.removesuffix(_MASK_ENDING)
    if scan_name != name and (path.parent, scan_name) in stems:
        return True
    if path.parent.name not in _MASK_FOLDERS:
        return False
    root = path.parent.parent
    scan_names = (name, scan_name, f"{name}{FIRST_CHANNEL}")
    return any((root / folder, candidate) in stems for folder in _SCAN_FOLDERS for candidate in scan_names)


def _stem(path: Path) -> str:
    """The name without the suffix of its format; a zip's too."""
    return path.stem if dicom.is_zip(path) else stem(path)


def _folded(name: str) -> str:
    """A form that names share which some disks take for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _safe(name: str) -> str:
    """Short enough for a file with our endings, and not our own: hidden, or the list of studies."""
    if name.startswith(".") or _folded(name) == _LIST:
        name = f"_{name}"
    return short_name(name)
