"""What `hemotorch serve` was started with, and the workspace's folder."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from hemotorch.app.database import FILE
from hemotorch.errors import InputError, OptionError
from hemotorch.system.files import atomic, explained

TOKEN, READ_TOKEN, LOCK = "token", "read-token", ".lock"
LEAST_TOKEN = 20  #: letters of a token that a person chose
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class AppSettings:
    """What a server was started with.

    folder: the workspace. token, read_token: what signs in. user_header: of a proxy at trusted_proxy (an IP address),
    that names the user; "" for none. public_hosts: names that the server is reached by beside its own. folders: that
    may be browsed, imported and watched. watched: those that are watched from the start. show_patient: whether names
    and ids are shown. model: that new studies are outlined with, "" for the one that was chosen last. max_file_mb,
    max_batch_mb, max_batch_files: of uploads. spare_mb: of the disk, which uploads leave free. workers: whether a
    process is started that does the jobs.
    """

    folder: Path
    token: str
    read_token: str
    host: str = "127.0.0.1"
    port: int = 8080
    user_header: str = ""
    trusted_proxy: str = ""
    public_hosts: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    watched: tuple[Path, ...] = ()
    show_patient: bool = False
    model: str = ""
    max_file_mb: int = 4096
    max_batch_mb: int = 16_384
    max_batch_files: int = 50_000
    spare_mb: int = 500
    workers: bool = True

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK


def open_workspace(folder: Path) -> Path:
    """Makes the folder if it is missing.

    Returns:
        The folder, resolved.

    Raises:
        OptionError: if something else is in it.
        RunError: if it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise OptionError("is a file", folder, "name a folder for the app's own data, such as hemotorch-app")
    if folder.is_dir() and not (folder / FILE).is_file() and any(folder.iterdir()):
        todo = f"to see the scans in it, and those that come: hemotorch serve --watch {folder}"
        raise OptionError("this folder holds something else than the app's own data", folder, todo)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        os.chmod(folder, 0o700)
    return folder.resolve()


def read_token(path: Path) -> str:
    """The token in a file, which is made if it is missing. Only its owner can read it.

    Raises:
        InputError: if the file holds no token.
        RunError: if it cannot be written.
    """
    if not path.exists():
        with atomic(path) as temporary:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot be read", path, "remove it, and a new one is made") from error
    if len(token) < LEAST_TOKEN or not token.isprintable() or " " in token:
        raise InputError(f"holds no token of {LEAST_TOKEN} letters or more", path, "remove it, and a new one is made")
    return token


def allowed_folders(folders: list[str]) -> tuple[Path, ...]:
    """Folders of the server that may be browsed, resolved. Raises OptionError if one is no folder."""
    resolved = []
    for name in folders:
        path = Path(name)
        if not path.is_dir():
            raise OptionError("is no folder", name, "name a folder that is there")
        resolved.append(path.resolve())
    return tuple(dict.fromkeys(resolved))
