"""Which files are scans to predict, and what the files made from each are called."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from hemotorch.errors import HemotorchError, InputError
from hemotorch.io import VOLUME_SUFFIXES, files_of, is_volume, stem
from hemotorch.io.walk import grouped, walk, why_unread, without_parents
from hemotorch.system.files import short_name

_MASK_ENDING = "_mask"


def find_scans(given: Sequence[Path | str], out: Path) -> tuple[list[Path], list[tuple[Path, HemotorchError]]]:
    """The scans in files and folders.

    Args:
        given: files, and folders that are looked through.
        out: the folder that predictions are written to, resolved; what lies in it is no scan.

    Returns:
        The files to predict, each once; and for each path given that cannot be predicted, or not all of it, why:
        folders without scans, other formats.
    """
    scans: list[Path] = []
    failed: list[tuple[Path, HemotorchError]] = []
    for path in map(Path, given):
        if not path.is_dir():
            scans.append(path)
            continue
        in_folder, unread = _in_folder(path, out)
        scans.extend(in_folder)
        for names, reason in grouped(unread, path):
            failed.append((path, InputError(reason, path / names)))
        if not in_folder and not unread:
            todo = f"name files of scans ({', '.join(VOLUME_SUFFIXES)}) or a folder of them"
            failed.append((path, InputError("holds no scan", path, todo)))
    # Known by where they are, not by where a link leads: two links to one file are two scans with names of their own.
    unique = {os.path.abspath(path): path for path in scans}
    return list(unique.values()), failed


def name_scans(paths: Sequence[Path]) -> dict[Path, str]:
    """What each scan's files are called: its file's name; if names repeat, with its folder, suffix or whole path.

    Names that differ only in letter case or in how letters are composed count as the same: some disks take them so.

    Args:
        paths: of scans, each once.

    Returns:
        Names by path, no two the same.
    """
    absolute = {path: Path(os.path.abspath(path)) for path in paths}
    longer_names: tuple[Callable[[Path], str], ...] = (
        lambda path: f"{path.parent.name}_{stem(path)}",
        lambda path: f"{path.parent.name}_{path.name.replace('.', '_')}",
        lambda path: "_".join(path.parts[1:]).replace(".", "_"),
    )
    names = {path: _safe(stem(path)) for path in paths}
    for longer in longer_names:
        repeated = Counter(map(_folded, names.values()))
        for path, name in names.items():
            if repeated[_folded(name)] > 1:
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


def _in_folder(folder: Path, out: Path) -> tuple[list[Path], dict[Path, str]]:
    """All volumes in a folder and below it, but masks of scans beside them and what was predicted before.

    Also returned: the reason for each thing that looks like a scan and is not read.
    """
    entries = walk(folder)
    files = entries.files
    unread = entries.unread
    if out != folder.resolve():
        files = [path for path in files if out not in path.resolve().parents]
        unread = {path: reason for path, reason in unread.items() if out not in path.parents}
    volumes = [path for path in files if is_volume(path)]
    read = set(files_of(volumes))
    unread = without_parents(unread, read, folder)
    for path in files:
        reason = why_unread(path)
        if reason is not None and path not in read:
            unread[path] = reason
    stems = {(path.parent, stem(path)) for path in volumes}
    scans = []
    for path in volumes:
        scan_name = stem(path).removesuffix(_MASK_ENDING)
        is_mask = scan_name != stem(path) and (path.parent, scan_name) in stems
        if not is_mask:
            scans.append(path)
    return scans, unread


def _folded(name: str) -> str:
    """A form that names share which some disks take for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _safe(name: str) -> str:
    """Short enough for a file with our endings, and not hidden: what begins with a dot is the system's or our own."""
    if name.startswith("."):
        name = f"_{name}"
    return short_name(name)
