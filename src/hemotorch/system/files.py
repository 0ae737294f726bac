"""Files written whole or not at all, and folders that are not overwritten by accident."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from hemotorch.errors import HemotorchError, InputError, RunError
from hemotorch.system import limits

_SPACE = "free some space and run the same command again, a training with --resume"
_DISK = {
    errno.ENOSPC: ("the disk is full", _SPACE),
    errno.EDQUOT: ("the disk quota is used up", _SPACE),
    errno.EROFS: ("the disk is read-only", "choose an output folder that can be written"),
    errno.EACCES: ("no permission to write", "choose an output folder that can be written"),
    errno.EPERM: ("no permission to write", "choose an output folder that can be written"),
    errno.EEXIST: ("is a file, not a folder", "choose another output folder"),
    errno.EISDIR: ("is a folder, not a file", "remove it, or choose another output folder"),
    errno.ENOTDIR: ("a part of this path is a file, not a folder", "choose another output folder"),
}


def disk_error(error: BaseException, where: Path | str) -> HemotorchError | None:
    """The explained form of a failed write (the error itself or its cause), or None if it is something else."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _DISK:
            what, todo = _DISK[cause.errno]
            return RunError(what, where, todo)
        cause = cause.__cause__ or cause.__context__
    return None


@contextmanager
def explained(where: Path | str) -> Iterator[None]:
    """Turns a full, read-only or forbidden disk inside the block into a RunError that names `where`."""
    try:
        yield
    except HemotorchError:
        raise
    except Exception as error:
        known = disk_error(error, where)
        if known is None:
            raise
        raise known from error


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`; when the block ends well it is synced and moved onto `path`.

    At a crash or a full disk the old file stays whole. The temporary name keeps the suffixes, which some writers read.
    Raises RunError if the disk is full, read-only or forbidden.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.part.{path.name}")
    with explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


#: What flock answers on a disk that has no such locks (Lustre without -o flock, some NFS and FUSE).
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def exclusive(path: Path | str, error: HemotorchError) -> Iterator[None]:
    """Holds a lock file, which the system releases however the process ends.

    On a disk without such locks a marker file beside it is the lock. It names its process and machine; the marker of a
    process of this machine that has ended does not count.

    Args:
        path: the lock file; its folder is made if it is missing.
        error: what to raise if another process holds the lock.

    Raises:
        HemotorchError: `error`, or RunError if the folder cannot be written.
    """
    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquired(path, error)
    try:
        yield
    finally:
        lock.release()


def held_marker(path: Path) -> Path:
    """The marker file that stands for a lock file on a disk without locks."""
    return path.with_name(f"{path.name}.held")


def _acquired(path: Path, error: HemotorchError) -> BaseFileLock:
    try:
        # Its own fallback would take an empty file, as an earlier version left it, for a lock that is held.
        lock: BaseFileLock = FileLock(path, blocking=False, fallback_to_soft=False)
        lock.acquire()
        return lock
    except Timeout:
        raise error from None
    except OSError as refused:
        if refused.errno not in _NO_LOCKS and disk_error(refused, path) is not None:
            raise
        # Whatever else a network disk answers: it has no locks.
    marker = held_marker(path)
    # With no time at all, filelock 3.33 does not take over the marker of a process that has ended.
    lock = SoftFileLock(marker, timeout=0.5)
    try:
        lock.acquire()
    except Timeout:
        advice = f"if nothing else is running, remove {marker}"
        if error.todo:
            advice = f"{error.todo}; {advice}"
        raise type(error)(error.what, error.where, advice) from None
    except OSError as refused:
        if disk_error(refused, path) is not None:
            raise
        raise RunError(f"cannot be locked ({refused.strerror})", path, "choose a folder on another disk") from refused
    return lock


def write_text(path: Path | str, text: str) -> None:
    """Writes UTF-8 text atomically; bytes of file names that are not UTF-8 are written as they are."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: Path | str, value: Any) -> None:
    """Writes JSON atomically; NaN becomes null, since NaN is not JSON."""
    write_text(path, json.dumps(jsonable(value), indent=2, allow_nan=False) + "\n")


def jsonable(value: Any) -> Any:
    """The same value in JSON's own types: arrays become lists, paths strings, NaN and infinities null."""
    if isinstance(value, dict):
        return {str(key): jsonable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value


def regular_file(path: Path | str, kind: str = "file") -> os.stat_result:
    """Makes sure that a path is a file with an end, before anything opens it.

    To open a FIFO is to wait for its writer, and /dev/zero never ends; links to them are no better.

    Args:
        path: a file, or a link to one.
        kind: what the file is expected to be, for the message: "NIfTI file".

    Returns:
        Its status: size, times.

    Raises:
        InputError: if there is nothing, a folder, a FIFO, a socket or a device.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise InputError("no such file", path) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"cannot be read ({getattr(error, 'strerror', None) or error})", path) from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"is a folder, not a {kind}", path)
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"is a pipe or a device, not a {kind}", path)
    return status


def text_file(path: Path | str, kind: str = "text file") -> Path:
    """The path, if it is a regular file small enough to be parsed whole. Raises InputError."""
    size = regular_file(path, kind).st_size
    if size > limits.max_text():
        what = f"has {size / 1e6:.0f} MB, more than the {limits.max_text() / 1e6:.0f} MB of text that are read"
        needed = -(-size * limits.TEXT_SHARE // 10**9)
        raise InputError(what, path, f"if it is right, set {limits.MAX_UNPACKED_GB} to {needed}")
    return Path(path)


def read_json(path: Path | str) -> Any:
    """Reads a JSON file. Raises InputError if it is missing or not JSON, or if it names a key twice."""
    text_file(path, "JSON file")
    try:
        # UTF-8, 16 or 32, by its first bytes.
        return json.loads(Path(path).read_bytes(), object_pairs_hook=_table_of_pairs)
    except RecursionError as error:
        raise InputError("cannot be read as JSON (nested too deeply)", path) from error
    except (ValueError, OSError) as error:
        raise InputError(f"cannot be read as JSON ({error})", path) from error


def _table_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON table. Raises ValueError for a key that stands twice: json takes the last one, a reader the first."""
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"'{twice[:40]}' stands twice in one table")
    return table


def clear_parts(folder: Path | str) -> None:
    """Removes the unfinished files of processes that were killed; only while no other process writes there."""
    for path in Path(folder).glob(".*.part.*"):
        if path.name[1:].partition(".")[0].isdecimal():
            path.unlink(missing_ok=True)


def file_digest(path: Path | str) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_status(path: Path | str) -> dict[str, Any]:
    """Size and time of a file, which tell whether it is still the one that was read."""
    status = os.stat(path)
    return {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def short_name(name: str, most: int = 180) -> str:
    """A file's name, shortened to `most` bytes if it is longer; the hash at its end keeps names apart.

    File systems take 255 bytes, of which endings and the marks of unfinished files need some.
    """
    raw = os.fsencode(name)
    if len(raw) <= most:
        return name
    beginning = raw[: most - 17].decode("utf-8", errors="ignore")
    return f"{beginning}~{hashlib.sha256(raw).hexdigest()[:16]}"


#: Text that a spreadsheet would take for a formula, full-width signs included; the quotes are those of `quoted`.
_FORMULA = re.compile("'*[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf)")


def quoted(cell: Any) -> Any:
    """A cell of a CSV with an apostrophe before what a spreadsheet would compute (OWASP, CSV injection).

    Numbers stay as they are. `unquoted` takes the apostrophe away again.
    """
    if not isinstance(cell, str) or not _FORMULA.match(cell) or _NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"


def unquoted(cell: str) -> str:
    """A cell as it was before `quoted`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def output_folder(path: Path | str, *, may_exist: bool = False) -> Path:
    """Makes an output folder. Raises InputError if it holds files already, unless that is expected."""
    path = Path(path)
    with explained(path):
        if path.exists() and not path.is_dir():
            raise InputError("is a file, not a folder", path, "choose another output folder")
        if path.is_dir() and not may_exist and any(path.iterdir()):
            raise InputError("this output folder exists already and is not empty", path, "choose another or remove it")
        path.mkdir(parents=True, exist_ok=True)
    return path
