"""Errors that the REST interface answers with a status of their own."""

from __future__ import annotations

import sqlite3

from hemotorch.app.schemas import Refusal
from hemotorch.errors import HemotorchError, InputError, RunError


class Missing(InputError):
    """404: there is no such thing."""


class Conflict(InputError):
    """409: somebody else was faster, or the thing is not ready for that."""


class Stale(InputError):
    """412: what the client saw is not the newest."""


class TooMuch(InputError):
    """413: more than the server takes."""


class Unknown(InputError):
    """401: who asks is not known."""


class Forbidden(InputError):
    """403: who asks may not do that."""


class NoSpace(RunError):
    """507: the disk is full."""


_STATUS: dict[type[HemotorchError], int] = {
    Unknown: 401,
    Forbidden: 403,
    Missing: 404,
    Conflict: 409,
    Stale: 412,
    TooMuch: 413,
    NoSpace: 507,
}


def status_of(error: HemotorchError) -> int:
    """The status of an answer: 422 for what cannot be used as it is, 503 for what failed while working."""
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            return status
    return 503 if isinstance(error, RunError) else 422


def refusal_of(error: HemotorchError) -> Refusal:
    """The error as the interface says it."""
    return Refusal(what=error.what, where=error.where or "", todo=error.todo or "")


def database_refusal(error: sqlite3.Error) -> HemotorchError:
    """What a failed write of the database means."""
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_FULL:
        return NoSpace("the disk is full: nothing was saved", todo="free some space on the server and try again")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RunError("the server is busy: nothing was saved", todo="try again")
    return RunError(f"the workspace's database failed ({error}): nothing was saved", todo="see the server's messages")
