"""Files written whole or not at all, and folders that are not overwritten by accident."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hemotorch.errors import HemotorchError, InputError, RunError

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
    Raises RunError where the disk is full, read-only or forbidden.
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


@contextmanager
def exclusive(path: Path | str, error: HemotorchError) -> Iterator[None]:
    """Holds a lock file, which the system releases however the process ends. Raises `error` where another holds it.

    Where the system has no such locks (Windows) nothing is held.
    """
    with explained(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")  # noqa: SIM115  held open for as long as the lock is
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass  # Windows has no such locks
        except BlockingIOError:
            raise error from None
        yield


def write_text(path: Path | str, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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


def read_json(path: Path | str) -> Any:
    """Reads a JSON file. Raises InputError where it is missing or not JSON."""
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise InputError("is no ordinary file, and so cannot be read as JSON", path)  # a pipe would never end
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError("no such file", path) from error
    except RecursionError as error:
        raise InputError("cannot be read as JSON (nested too deeply)", path) from error
    except (ValueError, OSError) as error:
        raise InputError(f"cannot be read as JSON ({error})", path) from error


def output_folder(path: Path | str, *, may_exist: bool = False) -> Path:
    """Makes an output folder. Raises InputError where it holds files already, unless that is expected."""
    path = Path(path)
    with explained(path):
        if path.exists() and not path.is_dir():
            raise InputError("is a file, not a folder", path, "choose another output folder")
        if path.is_dir() and not may_exist and any(path.iterdir()):
            raise InputError("this output folder exists already and is not empty", path, "choose another or remove it")
        path.mkdir(parents=True, exist_ok=True)
    return path
