"""A folder and what is below it: the scans that can be read, and what looks like one and is not read, by name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hemotorch.errors import some_of
from hemotorch.io import dicom, is_dicom, is_scan, is_volume

#: Kinds of files that hold scans and that nothing here reads, by the ending of their names.
OTHER_SCANS = {
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
    ".img": "half of a pair of files without its header",
    ".hdr.gz": "half of a packed pair of files",
    ".img.gz": "half of a packed pair of files",
    ".mgz": "FreeSurfer",
    ".mgh": "FreeSurfer",
    ".mnc": "MINC",
    ".gipl": "GIPL",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".nii.zip": "packed NIfTI",
    ".nii.bz2": "packed NIfTI",
    ".nii.xz": "packed NIfTI",
    ".nii.zst": "packed NIfTI",
}
#: Pictures. Beside volumes they illustrate; among PNG slices they are slices that nothing reads.
OTHER_PICTURES = (".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_CONVERT = "convert it to NIfTI first"
#: What stands beside scans on every computer, and is not worth a word.
_ORDINARY = (".csv", ".json", ".txt", ".md", ".pdf", ".py", ".log", ".tsv", ".html", ".xlsx", ".xls", ".ini", ".db")


@dataclass
class Walk:
    """What was met in a folder and below it.

    files: ordinary files, links to files included, sorted. unread: what cannot be read or followed, with the reason.
    """

    files: list[Path] = field(default_factory=list)
    unread: dict[Path, str] = field(default_factory=dict)


def walk(folder: Path) -> Walk:
    """Looks through a folder and all below it; hidden entries are left out, and links to folders are not followed.

    Args:
        folder: where to begin; it may be a link itself.

    Returns:
        Files and what could not be read; nothing is raised for a folder that is forbidden.
    """
    entries = Walk()
    to_visit = [folder]
    while to_visit:
        current = to_visit.pop()
        try:
            children = sorted(current.iterdir())
        except OSError as error:
            entries.unread[current] = f"cannot be read ({error.strerror})"
            continue
        for child in children:
            if not child.name.startswith("."):
                _sort_in(child, entries, to_visit)
    entries.files.sort()
    return entries


def _sort_in(entry: Path, entries: Walk, to_visit: list[Path]) -> None:
    """Puts one entry among the files, the unread ones, or the folders to look through."""
    is_link = entry.is_symlink()
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        if not entry.name.lower().endswith(_ORDINARY):
            reason = f"cannot be read ({error.strerror})"
            if is_link:
                reason = "is a link that leads nowhere"
            entries.unread[entry] = reason
        return
    if stat.S_ISDIR(mode) and is_link:
        # A link may lead to a folder above, or to a whole disk.
        entries.unread[entry] = "is a link to a folder, which is not followed; give the folder itself"
    elif stat.S_ISDIR(mode):
        to_visit.append(entry)
        if looks_like_scan(entry):
            entries.unread[entry] = "is a folder, though it is named like a scan"
    elif stat.S_ISREG(mode):
        entries.files.append(entry)
    elif looks_like_scan(entry):
        entries.unread[entry] = "is no ordinary file"


def looks_like_scan(path: Path) -> bool:
    """Whether the name ends as a scan's, of a kind that is read or not."""
    return is_volume(path) or path.name.lower().endswith((*OTHER_SCANS, *dicom.SUFFIXES))


def why_unread(path: Path) -> str | None:
    """Why a file that holds a scan is not read, or None if it is read, or no scan so far as one can tell.

    Args:
        path: of an ordinary file.
    """
    name = path.name.lower()
    if name.endswith(dicom.SUFFIXES):
        return "is DICOM, and not read beside volumes" if is_dicom(path) else "is named like DICOM, and is none"
    if is_scan(path) or name.endswith((*_ORDINARY, *OTHER_PICTURES)):
        return None
    # Files of a DICOM series often have no ending, or a number for one.
    if is_dicom(path):
        return "is DICOM, and not read beside volumes"
    for suffix, kind in OTHER_SCANS.items():
        if name.endswith(suffix):
            return f"is {kind}, which is not read; {_CONVERT}"
    return None


def grouped(unread: dict[Path, str], root: Path, most: int = 5) -> list[tuple[str, str]]:
    """Names and their reason, once for each folder and reason: a series of DICOM has hundreds of files.

    Args:
        unread: reasons by path.
        root: the folder that was looked through; paths are named as seen from it.
        most: names given before the rest is only counted.
    """
    groups: dict[tuple[Path, str], list[str]] = {}
    for path, reason in sorted(unread.items()):
        groups.setdefault((path.parent, reason), []).append(_named(path, root))
    lines = []
    for (_, reason), names in groups.items():
        lines.append((some_of(names, most), reason))
    return lines


def without_parents(unread: dict[Path, str], read: Iterable[Path], root: Path) -> dict[Path, str]:
    """The entries that stand for something lost.

    Args:
        unread: reasons by path, as `walk` gives them.
        read: the files that are read.
        root: the folder that was looked through.

    Returns:
        `unread` without folders that a file that is read stands in, and without links to folders inside `root`,
        which are looked through anyway.
    """
    needed: set[Path] = set()
    for path in read:
        needed.update((path, *path.parents))
    real_root = Path(os.path.realpath(root))
    lost = {}
    for path, reason in unread.items():
        leads_inside = path.is_symlink() and os.path.isdir(path) and path.resolve().is_relative_to(real_root)
        if path not in needed and not leads_inside:
            lost[path] = reason
    return lost


def _named(path: Path, root: Path) -> str:
    if path == root or not path.is_relative_to(root):
        return str(path)
    return str(path.relative_to(root))
