"""Who is signed in. No passwords: a link with a token makes a session, or a proxy that is trusted names the user."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from hemotorch.app.database import Database, now
from hemotorch.app.schemas import Role
from hemotorch.app.settings import AppSettings

TABLES = """
CREATE TABLE IF NOT EXISTS session (
    id TEXT PRIMARY KEY,
    token TEXT NOT NULL,
    user TEXT NOT NULL DEFAULT '',
    blind INTEGER NOT NULL DEFAULT 0,
    created TEXT NOT NULL
);
"""


@dataclass(frozen=True)
class Caller:
    """Who asks. session: key of its row. named: whether a proxy named the user. cookie: signed in by a cookie."""

    session: str
    user: str
    role: Role
    blind: bool
    named: bool = False
    cookie: bool = False


class Sessions:
    """Sessions, kept by the digests of their secrets: who reads the file can sign in with none of them."""

    def __init__(self, database: Database, settings: AppSettings):
        self._database = database
        self._tokens = ((settings.token, Role.WRITE), (settings.read_token, Role.READ))

    def role_of(self, token: str) -> Role | None:
        """What a token allows, compared in constant time; None if it is none."""
        role = None
        for known, allows in self._tokens:
            if hmac.compare_digest(known.encode(), token.encode("utf-8", "surrogateescape")):
                role = allows
        return role

    def begin(self, token: str) -> str | None:
        """A new session's secret, for its cookie; None if the token is none."""
        if self.role_of(token) is None:
            return None
        secret = secrets.token_urlsafe(32)
        self._make(_digest(secret), token)
        return secret

    def of_cookie(self, secret: str) -> Caller | None:
        """Who has this cookie. A session ends when the token that it was begun with is changed."""
        key = _digest(secret)
        row = self._database.row("SELECT * FROM session WHERE id = ?", (key,))
        if row is None:
            return None
        for token, role in self._tokens:
            if hmac.compare_digest(row["token"], _digest(token)):
                return Caller(key, row["user"], role, bool(row["blind"]), cookie=True)
        return None

    def of_token(self, token: str) -> Caller | None:
        """Who sends this token with a request, as scripts do."""
        role = self.role_of(token)
        return None if role is None else self._named(f"token:{_digest(token)}", "", role)

    def of_proxy(self, user: str) -> Caller:
        """The user that a trusted proxy names."""
        return self._named(f"user:{_digest(user)}", user, Role.WRITE)

    def change(self, caller: Caller, user: str | None, blind: bool | None) -> None:
        """What a caller says of itself; None leaves it as it is."""
        self._make(caller.session, "")
        with self._database.write() as connection:
            if user is not None:
                connection.execute("UPDATE session SET user = ? WHERE id = ?", (user, caller.session))
            if blind is not None:
                connection.execute("UPDATE session SET blind = ? WHERE id = ?", (blind, caller.session))

    def _named(self, key: str, user: str, role: Role) -> Caller:
        row = self._database.row("SELECT user, blind FROM session WHERE id = ?", (key,))
        if row is None:
            return Caller(key, user, role, blind=False, named=bool(user))
        return Caller(key, user or row["user"], role, bool(row["blind"]), named=bool(user))

    def _make(self, key: str, token: str) -> None:
        with self._database.write() as connection:
            query = "INSERT INTO session (id, token, created) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
            connection.execute(query, (key, _digest(token) if token else "", now()))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
