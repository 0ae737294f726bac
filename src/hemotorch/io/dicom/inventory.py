"""What is in a folder, a zip or a DICOMDIR: studies, their series, the one to read, and what is not read and why."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hemotorch.errors import InputError, OptionError, some_of
from hemotorch.io.dicom.files import ZIP_START, ZIP_SUFFIX, is_dicom, is_zip, looks_like_dicom, members, read_start
from hemotorch.io.dicom.grouping import group_series
from hemotorch.io.dicom.header import DirectoryFile, ImageHeader, lenient, read_dataset, read_headers
from hemotorch.io.dicom.identity import Identity
from hemotorch.io.dicom.judging import SCORE_WORDS, score
from hemotorch.io.dicom.series import Series

DICOMDIR = "DICOMDIR"
_START = 132


@dataclass(frozen=True)
class DicomStudy:
    """One study: its series, the best one for bleeding, and why it was chosen.

    chosen: None if none of them is a head CT that can be read.
    """

    series: tuple[Series, ...]
    chosen: Series | None
    why: str

    @property
    def uid(self) -> str:
        """StudyInstanceUID, "" if the files lack it."""
        return self.series[0].first.study

    @property
    def identity(self) -> Identity:
        """Whose it is, and when it was made."""
        return Identity.of_all(self._headers())

    @property
    def secrets(self) -> frozenset[str]:
        """What must not be in a text about it: of all spellings of the name, see `Identity.secrets`."""
        identities = set(map(Identity.of, self._headers()))
        return frozenset().union(*(identity.secrets() for identity in identities))

    def _headers(self) -> Iterator[ImageHeader]:
        for entry in self.series:
            yield from entry.images

    @property
    def other_modalities(self) -> str:
        """What it holds, if none of it is CT: "MR, PT"; else ""."""
        modalities = {entry.first.modality or "images without a modality" for entry in self.series}
        return "" if "CT" in modalities else ", ".join(sorted(modalities))

    @property
    def location(self) -> Path:
        """Its only file, or the folder that all its files lie in or below."""
        files = {str(image.path) for entry in self.series for image in entry.images}
        return Path(os.path.commonpath(files))

    def refusal(self) -> InputError:
        """What is said if nothing can be read of it."""
        reasons = [f"{entry.title}: {entry.aside}" for entry in self.series]
        return InputError(f"no head CT can be read of this study ({some_of(reasons, 4)})", self.location)


@dataclass(frozen=True)
class DicomInventory:
    """All studies that were found, and DICOM files that are damaged or not read, with the reason."""

    studies: tuple[DicomStudy, ...] = ()
    unread: dict[Path, str] = field(default_factory=dict)

    def series(self, uid: str) -> list[Series]:
        """The series of that UID; several if one UID stands for several geometries."""
        return [entry for study in self.studies for entry in study.series if entry.uid == uid]


def is_container(path: Path) -> bool:
    """Whether a path holds files of DICOM, and is none itself: a folder, a zip, a DICOMDIR."""
    return path.is_dir() or is_zip(path) or is_dicomdir(path)


def is_dicomdir(path: Path) -> bool:
    """Whether a file is called like a DICOMDIR and is DICOM."""
    return path.name.upper() == DICOMDIR and is_dicom(path)


def dicom_files(path: Path) -> tuple[list[Path], dict[Path, str]]:
    """The DICOM files that a path stands for, by their first bytes, and those that cannot be read with the reason.

    Args:
        path: a file, a folder, a zip or a DICOMDIR. Links to folders are not followed.

    Raises:
        InputError: for a zip or a DICOMDIR that cannot be read.
    """
    if is_zip(path):
        return _in_zip(path)
    if path.is_dir():
        return _below(path)
    if is_dicomdir(path):
        return _in_directory(path)
    return [path], {}


def take_inventory(files: Iterable[Path], unread: dict[Path, str] | None = None) -> DicomInventory:
    """Reads the header of each file, once, and judges what is there.

    Args:
        files: that are DICOM.
        unread: others, with the reason, to be handed on.
    """
    unread = dict(unread or {})
    headers: list[ImageHeader] = []
    for path in files:
        try:
            headers.extend(read_headers(path))
        except DirectoryFile:
            continue
        except InputError as error:
            unread[path] = error.what
    studies: dict[tuple[str, str], list[Series]] = {}
    for entry in group_series(headers):
        # Two patients never share a study, but files that were made anonymous in haste may share its UID.
        study = entry.first.study or str(entry.first.path.parent)
        studies.setdefault((study, entry.first.patient_id), []).append(entry)
    return DicomInventory(tuple(_study(series) for series in studies.values()), unread)


def look_into(path: Path) -> DicomInventory:
    """The inventory of a file, a folder, a zip or a DICOMDIR. Raises InputError as `dicom_files`."""
    files, unread = dicom_files(path)
    return take_inventory(files, unread)


def series_by_uid(inventory: DicomInventory, uid: str) -> Series:
    """The series that somebody asked for.

    Raises:
        OptionError: if there is none.
        InputError: if it is no CT that can be read.
    """
    matching = inventory.series(uid)
    if not matching:
        known = [entry.uid for study in inventory.studies for entry in study.series if not entry.aside]
        raise OptionError(f"no series {uid} is there", "--series", f"there are {some_of(known, 5)}")
    readable = [entry for entry in matching if not entry.aside]
    if not readable:
        raise InputError(f"cannot be read as a head CT: {matching[0].aside}", matching[0].title)
    return max(readable, key=score)


def names_of_studies(studies: Sequence[DicomStudy], given: Path, *, itself: bool = True) -> list[Path]:
    """What each study is called after: the highest folder at or below what was given that holds no other study.

    On a CD the innermost folders are called SE000001 or DICOM in every study; what tells studies apart lies above.

    Args:
        studies: of one inventory.
        given: the file, folder, zip or DICOMDIR that was looked into.
        itself: whether a study may be called after what was given, or only after a folder below it.

    Returns:
        One path for each study, perhaps the same for studies that share a folder.
    """
    folders_of: list[set[Path]] = []
    count: Counter[Path] = Counter()
    for study in studies:
        above = {folder for series in study.series for file in series.files for folder in file.parents}
        folders_of.append(above)
        count.update(above)
    top = given.parent if is_dicomdir(given) else given
    names = []
    for study, above in zip(studies, folders_of, strict=True):
        alone = [folder for folder in above if count[folder] == 1 and top in folder.parents]
        if itself and count[top] == 1 and top in above:
            alone.append(top)
        names.append(min(alone, key=lambda folder: len(folder.parts)) if alone else study.location)
    return names


def _study(series: Sequence[Series]) -> DicomStudy:
    """A study with the best of its series."""
    readable = sorted((entry for entry in series if not entry.aside), key=score, reverse=True)
    if not readable:
        return DicomStudy(tuple(series), None, "none of its series is an axial CT that can be read")
    best = readable[0]
    if len(readable) == 1:
        why = "the only series" if len(series) == 1 else f"the only one of {len(series)} series that can be read"
        return DicomStudy(tuple(series), best, why)
    second = readable[1]
    for words, ours, theirs in zip(SCORE_WORDS, score(best), score(second), strict=True):
        if ours > theirs:
            why = f"of {len(readable)} that can be read, it {words}; the next best is {second.title}"
            return DicomStudy(tuple(series), best, why)
    why = f"of {len(readable)} that can be read, it is the first; nothing tells them apart"
    return DicomStudy(tuple(series), best, why)


def _below(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """All DICOM files in a folder and below it, also in zips; hidden entries are left out."""
    files: list[Path] = []
    unread: dict[Path, str] = {}

    def note(error: OSError) -> None:
        unread[Path(error.filename)] = f"cannot be read ({error.strerror})"

    for current, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(current, name)
            if name.startswith(".") or name.upper() == DICOMDIR:
                continue
            if is_dicom(path):
                files.append(path)
            elif is_zip(path):
                try:
                    in_zip, bad = _in_zip(path)
                except InputError as error:
                    unread[path] = error.what
                    continue
                files.extend(in_zip)
                unread.update(bad)
    return files, unread


def _in_zip(path: Path) -> tuple[list[Path], dict[Path, str]]:
    """The DICOM files in a zip; what is damaged there is named."""
    files, unread = members(path)
    dicom = []
    for file in files:
        if file.name.upper() == DICOMDIR:
            continue
        try:
            start = read_start(file, _START)
            if looks_like_dicom(start):
                dicom.append(file)
            elif file.name.lower().endswith(ZIP_SUFFIX) and start.startswith(ZIP_START):
                unread[file] = "is a zip in a zip, which is not looked into; unpack the outer one"
        except InputError as error:
            unread[file] = error.what
    return dicom, unread


def _in_directory(path: Path) -> tuple[list[Path], dict[Path, str]]:
    """The files that a DICOMDIR names, in its own folder or below. Others beside them are left alone."""
    dataset = read_dataset(path, pixels=True)
    files: list[Path] = []
    unread: dict[Path, str] = {}
    with lenient():
        try:
            records = list(dataset.get("DirectoryRecordSequence") or [])
        except Exception as error:
            raise InputError(f"its records are damaged ({type(error).__name__})", path, "give its folder") from error
        for record in records:
            try:
                parts = _referenced(record)
            except Exception:  # pydicom raises whatever damaged bytes lead to
                unread[path] = "has damaged records; files that they name are not read: give the folder"
                continue
            if not parts:
                continue
            file = path.parent.joinpath(*parts)
            if any(part in (".", "..") or "/" in part or "\\" in part or "\0" in part for part in parts):
                unread[path] = "names files outside its folder, which are not read"
            elif file.is_file() and not file.is_symlink():
                files.append(file)
            elif (match := _other_case(path.parent, parts)) is not None:
                files.append(match)
            else:
                unread[file] = "is named by the DICOMDIR and is not there"
    if not files and not unread:
        raise InputError("names no files", path, "give its folder instead")
    return list(dict.fromkeys(files)), unread


def _referenced(record: Any) -> list[str]:
    """The path of a record's file, a part each; none for patients, studies and series."""
    value = record.get("ReferencedFileID")
    if not value:
        return []
    if isinstance(value, str):
        return [value]
    return [str(part) for part in value]


def _other_case(folder: Path, parts: Sequence[str]) -> Path | None:
    """The file if its path is there in small letters, as CDs are often mounted and copied."""
    path = folder.joinpath(*(part.lower() for part in parts))
    return path if path.is_file() and not path.is_symlink() else None
